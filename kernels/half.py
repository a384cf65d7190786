"""Filters of float16 in registers: widened to float32 as they are loaded, which is exact.

An instruction of x86-64 with F16C or AVX-512, and of aarch64. Elsewhere a half's exponent and fraction, moved to where float32 has its own,
are the value but for the difference of the exponents' biases, by whose power of two they are multiplied; that holds for subnormal halves
too. (There is no infinity among filters.)
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.ir as ir

from edge.kernels.isa import Machine

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
_SIGN, _REST = 0x8000, 0x7FFF
_MOVED = 23 - 10  # bits by which a float32 has more fraction
_BIASES = 2.0 ** (127 - 15)


def load_halves(machine: Machine) -> Callable[[ir.IRBuilder, ir.Value, int], ir.Value]:
    """Loads (builder, pointer, lanes) halves as float32."""
    widen = _by_instruction if _has_instruction(machine) else _by_arithmetic

    def load(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
        return widen(builder, builder.load(builder.bitcast(pointer, ir.VectorType(_I16, lanes).as_pointer()), align=1))

    return load


def _has_instruction(machine: Machine) -> bool:
    return bool(machine.features & {"f16c", "avx512f"}) or machine.isa.architecture == "aarch64"


def _by_instruction(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    lanes = halves.type.count
    return builder.fpext(builder.bitcast(halves, ir.VectorType(ir.HalfType(), lanes)), ir.VectorType(_F32, lanes))


def _by_arithmetic(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    lanes = halves.type.count
    wide, floats = ir.VectorType(_I32, lanes), ir.VectorType(_F32, lanes)

    def part(mask: int, shift: int) -> ir.Value:
        return builder.shl(builder.and_(words, ir.Constant(wide, [mask] * lanes)), ir.Constant(wide, [shift] * lanes))

    words = builder.zext(halves, wide)
    size = builder.fmul(builder.bitcast(part(_REST, _MOVED), floats), ir.Constant(floats, [_BIASES] * lanes))
    return builder.bitcast(builder.or_(builder.bitcast(size, wide), part(_SIGN, 16)), floats)
