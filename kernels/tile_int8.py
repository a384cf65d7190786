"""The int8 arithmetic of the register tile: sums of products of 4 neighbouring bytes, in the shape that suits each machine.

`dot(kind, machine)` gives the parts of a step that `edge.kernels.tile` puts together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
from numba.core import cgutils

from edge.kernels.isa import Machine
from edge.kernels.simd import splat

I8, I32 = ir.IntType(8), ir.IntType(32)


@dataclass(frozen=True)
class Dot:
    """acc += dot products of 4 bytes: `filters` and `spread` prepare the operands of `multiply` in whatever form it takes."""

    filters: Callable[[Any, ir.Value, int], Any]  # (builder, pointer, lanes) -> filters of a position
    spread: Callable[[Any, ir.Value, int], Any]  # (builder, 4 bytes of a pixel, lanes) -> the same for every lane
    multiply: Callable[[Any, ir.Value, Any, Any], ir.Value]  # (builder, acc, x, w) -> acc


def dot(kind: str, machine: Machine) -> Dot:
    """The arithmetic of `u8i8` and `i8i8` on a machine."""
    multiply = _vnni if _has_vnni(machine) else _widening
    return Dot(_load_quads, _quads(kind == "i8i8"), multiply)


def _load_quads(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    return builder.load(builder.bitcast(pointer, ir.VectorType(I8, 4 * lanes).as_pointer()), align=1)


def _quads(unsigned_offset: bool) -> Callable[[Any, ir.Value, int], ir.Value]:
    """4 bytes to every lane; with the offset, int8 becomes uint8 by adding 128 (flipping the top bit)."""

    def spread(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
        if unsigned_offset:
            scalar = builder.xor(scalar, I32(0x80808080))
        return builder.bitcast(splat(builder, scalar, ir.VectorType(I32, lanes)), ir.VectorType(I8, 4 * lanes))

    return spread


def _has_vnni(machine: Machine) -> bool:
    return {"avx512vnni", "avx512vl"} <= machine.features


def _vnni(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    bits = 32 * acc.type.count
    kind = ir.FunctionType(acc.type, [acc.type, x.type, w.type])
    instruction = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.avx512.vpdpbusd.{bits}")
    return builder.call(instruction, [acc, x, w])


def _widening(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """Products in 16 bits (255 * 128 fits), summed in pairs in 32 bits: the shape that becomes pmaddwd and its likes."""
    lanes = acc.type.count
    wide = ir.VectorType(I32, 4 * lanes)
    product = builder.mul(builder.zext(x, wide), builder.sext(w, wide))
    for count in (2 * lanes, lanes):
        even, odd = (_every_other(builder, product, count, first) for first in (0, 1))
        product = builder.add(even, odd)
    return builder.add(acc, product)


def _every_other(builder: ir.IRBuilder, value: ir.Value, count: int, first: int) -> ir.Value:
    mask = ir.Constant(ir.VectorType(I32, count), [first + 2 * i for i in range(count)])
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)
