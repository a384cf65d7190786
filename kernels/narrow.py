"""Filters of 4 and 2 bits in registers: 2 or 4 positions come with one load, and cost two or three operations each.

A byte holds the fields of a lane in neighbouring positions (`edge.kernels.narrowpack`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from edge.kernels.isa import Machine
from edge.kernels.narrowpack import offset
from edge.kernels.simd import machine_intrinsic

I8, I32, F32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
_TABLE = 16  # floats in a register of AVX-512
_WHOLE_BITS = 23  # float32 from 2^23 to 2^24 are whole numbers, which their last 23 bits count

Load = Callable[[Any, ir.Value, int], list[Any]]
"""(builder, pointer, lanes) -> the filters of the positions that share bytes"""


def _constant(kind: ir.VectorType, value: int) -> ir.Value:
    return ir.Constant(kind, [value] * kind.count)


def _load(builder: ir.IRBuilder, pointer: ir.Value, count: int) -> ir.Value:
    return builder.load(builder.bitcast(pointer, ir.VectorType(I8, count).as_pointer()), align=1)


def load_quads(bits: int) -> Load:
    """Loads 4 bytes of every lane, as 4 int8 for each position."""

    def load(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> list[ir.Value]:
        octets = _load(builder, pointer, 4 * lanes)
        mask, half = _constant(octets.type, (1 << bits) - 1), _constant(octets.type, offset(bits))
        return [builder.sub(builder.and_(_shifted(builder, octets, shift), mask), half) for shift in range(0, 8, bits)]

    return load


def _shifted(builder: ir.IRBuilder, octets: ir.Value, shift: int) -> ir.Value:
    """Bytes shifted down; their upper bits are those of neighbours, as there are no shifts of bytes."""
    if not shift:
        return octets
    words = ir.VectorType(I32, octets.type.count // 4)
    return builder.bitcast(builder.lshr(builder.bitcast(octets, words), _constant(words, shift)), octets.type)


def load_floats(bits: int, machine: Machine) -> Load:
    """Loads a byte of every lane, as a float32 for each position.

    A field from bit s on, put into the last bits of 2^(23 - s), counts whole numbers there; what is taken off again includes the offset.
    AVX-512 looks the lowest field up, in one operation where that takes two.
    """

    def load(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> list[ir.Value]:
        wide, floats = ir.VectorType(I32, lanes), ir.VectorType(F32, lanes)
        octets = builder.zext(_load(builder, pointer, lanes), wide)
        found = []
        for shift in range(0, 8, bits):
            if not shift and lanes == _TABLE and "avx512f" in machine.features:
                found.append(_looked_up(builder, octets, bits))
                continue
            exponent = _WHOLE_BITS - shift
            field = builder.and_(octets, _constant(wide, ((1 << bits) - 1) << shift))
            whole = builder.bitcast(builder.or_(field, _constant(wide, 127 + exponent << _WHOLE_BITS)), floats)
            found.append(builder.fsub(whole, ir.Constant(floats, [float((1 << exponent) + offset(bits))] * lanes)))
        return found

    return load


def _looked_up(builder: ir.IRBuilder, octets: ir.Value, bits: int) -> ir.Value:
    """The lowest fields, by a permutation of 16 floats that takes the last 4 bits of an index alone: a field and what lies above it."""
    floats = ir.VectorType(F32, _TABLE)
    table = ir.Constant(floats, [float(i % (1 << bits) - offset(bits)) for i in range(_TABLE)])
    return machine_intrinsic(builder, "llvm.x86.avx512.permvar.sf.512", floats, table, octets)
