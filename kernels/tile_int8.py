"""The int8 arithmetic of the register tile: sums of products of 4 neighbouring bytes by one instruction, or in any way that LLVM knows.

`dot(kind, machine)` gives the parts of a step that `edge.kernels.tile` puts together; `edge.kernels.int8_forms` lists the ways. Filters
are int8, or signs, a bit each, which are spread in registers once for all pixels of the tile. A dot product instruction is the bound: as
many products as a vector has bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir

from edge.kernels import narrow
from edge.kernels.int8_forms import DOTS, SIGNED, added, way
from edge.kernels.isa import Machine
from edge.kernels.simd import machine_intrinsic, opaque, splat

I1, I8, I32 = ir.IntType(1), ir.IntType(8), ir.IntType(32)


@dataclass(frozen=True)
class Dot:
    """acc += dot products of 4 bytes: `filters` and `spread` prepare the operands of `multiply`."""

    filters: narrow.Load
    once: Callable[[Any, int], ir.Value | None]  # (builder, lanes) -> what `spread` needs, made before the loops
    spread: Callable[[Any, ir.Value, int, Any], ir.Value]  # (builder, 4 bytes of a pixel, lanes, once) -> the same for every lane
    multiply: Callable[[Any, ir.Value, ir.Value, ir.Value], ir.Value]  # (builder, acc, x, w) -> acc
    scalar: ir.Type = I32  # how a pixel is loaded: its first 4 bytes are taken


def dot(kind: str, machine: Machine) -> Dot:
    """The arithmetic of `kind` on a machine."""
    filters = quads(kind)
    flipped, chosen = added(kind, machine) != 0, way(kind, machine)
    once = (_hidden_top_bits if chosen == DOTS else _top_bits) if flipped else _nothing
    if chosen == SIGNED:
        return Dot(filters, once, _quads_of_vector, _sdot, scalar=ir.VectorType(I32, 4))
    return Dot(filters, once, _quads, _vpdpbusd if chosen == DOTS else _widening)


def quads(kind: str) -> narrow.Load:
    """Loads filters of `kind` as 4 int8 a lane, of a position or of those that share bytes."""
    if kind[2:] in ("i4", "i2"):
        return narrow.load_quads(int(kind[3:]))
    load = load_signs if kind.endswith("bits") else load_quads
    return lambda builder, pointer, lanes: [load(builder, pointer, lanes)]


# -- operands ------------------------------------------------------------------------------------------------------------------


def load_quads(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    """4 bytes of every lane."""
    return builder.load(builder.bitcast(pointer, ir.VectorType(I8, 4 * lanes).as_pointer()), align=1)


def load_minus(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    """Which of the 4 signs of every lane are -1."""
    if lanes == 16:  # as many as a mask register of AVX-512 holds
        word = builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()), align=1)
        return builder.bitcast(word, ir.VectorType(I1, 64))
    octets = builder.load(builder.bitcast(pointer, ir.VectorType(I8, lanes // 2).as_pointer()), align=1)
    repeated = builder.shuffle_vector(octets, octets, ir.Constant(ir.VectorType(I32, 4 * lanes), [i // 8 for i in range(4 * lanes)]))
    bits = ir.Constant(repeated.type, [1 << i % 8 for i in range(4 * lanes)])
    return builder.icmp_unsigned("==", builder.and_(repeated, bits), bits)


def load_signs(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    """4 signs of every lane as bytes, -1 and +1."""
    kind = ir.VectorType(I8, 4 * lanes)
    return builder.select(load_minus(builder, pointer, lanes), ir.Constant(kind, [-1] * kind.count), ir.Constant(kind, [1] * kind.count))


def _nothing(builder: ir.IRBuilder, lanes: int) -> None:
    """Pixels are multiplied as they are."""


def _top_bits(builder: ir.IRBuilder, lanes: int) -> ir.Value:
    """The top bit of every byte: flipping it adds 128 to an int8, or takes it off an uint8."""
    return ir.Constant(ir.VectorType(I32, lanes), [0x80808080] * lanes)


def _hidden_top_bits(builder: ir.IRBuilder, lanes: int) -> ir.Value:
    """The same where LLVM does not see that all lanes are equal: else it flips the 4 bytes before it spreads them, and they pass through a
    general register, whose way into a vector takes two cycles, while a load spreads them for nothing."""
    return opaque(builder, _top_bits(builder, lanes))


def _quads(builder: ir.IRBuilder, scalar: ir.Value, lanes: int, top_bits: ir.Value | None) -> ir.Value:
    """4 bytes to every lane."""
    return _flipped(builder, splat(builder, scalar, ir.VectorType(I32, lanes)), top_bits)


def _quads_of_vector(builder: ir.IRBuilder, vector: ir.Value, lanes: int, top_bits: ir.Value | None) -> ir.Value:
    """The first 4 bytes to every lane."""
    return _flipped(builder, builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)), top_bits)


def _flipped(builder: ir.IRBuilder, quads: ir.Value, top_bits: ir.Value | None) -> ir.Value:
    flipped = quads if top_bits is None else builder.xor(quads, top_bits)
    return builder.bitcast(flipped, ir.VectorType(I8, 4 * quads.type.count))


# -- multiplication ------------------------------------------------------------------------------------------------------------


def _vpdpbusd(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    return machine_intrinsic(builder, f"llvm.x86.avx512.vpdpbusd.{32 * acc.type.count}", acc.type, acc, x, w)


def _sdot(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    return machine_intrinsic(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", acc.type, acc, w, x)


def _widening(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """Products in 32 bits, summed by fours."""
    lanes = acc.type.count
    wide = ir.VectorType(I32, 4 * lanes)
    product = builder.mul(builder.zext(x, wide), builder.sext(w, wide))
    return builder.add(acc, add_neighbours(builder, add_neighbours(builder, product)))


def add_neighbours(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Every lane with an even number plus the one behind it."""
    mask = ir.VectorType(I32, value.type.count // 2)
    halves = (ir.Constant(mask, [first + 2 * i for i in range(mask.count)]) for first in (0, 1))
    return builder.add(*(builder.shuffle_vector(value, value, half) for half in halves))
