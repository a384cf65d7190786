"""The register tile: the inner loop of every convolution and dense layer.

A tile computes `pixels` neighbouring output pixels times `lanes` output channels over the whole window and writes the accumulators,
[pixel][lane] of int32 or float32, to memory. The window is a number of segments (contiguous in the image, `edge.layout`), each a
number of positions; a position is one scalar of every pixel (a 64-bit word, 4 bytes or a float), broadcast against a vector of filters:

    kind      scalar          filter lanes     one step
    bits      64 signs        64 signs         acc += popcount(x xor w)                 counts the products that are -1
    u8i8      4 bytes         4 int8           acc += x0*w0 + x1*w1 + x2*w2 + x3*w3     x unsigned
    i8i8      4 bytes         4 int8           the same, x signed
    u8i4 u8i2 4 bytes         4 int4, 4 int2   the same, w -8..7 or -2..1
    i8i4 i8i2 4 bytes         4 int4, 4 int2   the same, x signed
    u8bits    4 bytes         4 signs          the same, w = -1 or +1
    i8bits    4 bytes         4 signs          the same, x signed
    f32f32    float           float            acc = fma(x, w, acc)
    f32f16    float           float16          acc = fma(x, float(w), acc)
    f32i8     float           int8             the same
    f32i4     float           int4             the same, and f32i2
    f32bits   float           1 bit            acc = fma(x, -1 or +1, acc)

What a tile of bytes adds to x, the caller takes off (`edge.kernels.int8_forms`). Products of floats are summed one after the other in the
order of the window, vectors lie across output channels alone, so that every machine with fused multiply-add gives the same float.
Accumulators stay in registers over the whole window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edge.kernels import tile_int8
from edge.kernels.half import load_halves
from edge.kernels.int8_forms import INT8_KINDS, gathers
from edge.kernels.isa import Machine
from edge.kernels.narrow import Load, load_floats
from edge.kernels.shapes import TileShape, counts_bytes, lane_bits, sharing, vector_lanes
from edge.kernels.simd import INDEX, address, splat
from edge.kernels.tile_bits import CountingTile, narrow
from edge.kernels.tile_gathered import GatheredTile
from edge.kernels.tile_window import load_window, variable

I8, I32, I64, F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()


@dataclass(frozen=True)
class Step:
    """What one position does: the scalar read per pixel, the bytes of one lane of the filter (in eighths), and the arithmetic."""

    scalar: ir.Type
    lane_bits: int
    accumulator: ir.Type
    filters: Load  # as `multiply` takes them
    spread: Callable[[Any, ir.Value, int, Any], Any]  # (builder, scalar, lanes, once) -> a pixel, as `multiply` takes it
    multiply: Callable[[Any, ir.Value, Any, Any], ir.Value]  # (builder, acc, x, w) -> acc
    once: Callable[[Any, int], ir.Value | None] = lambda builder, lanes: None  # (builder, lanes) -> what `spread` is given


def _load(kind: ir.Type) -> Callable[[Any, ir.Value, int], ir.Value]:
    def load(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
        return builder.load(builder.bitcast(pointer, ir.VectorType(kind, lanes).as_pointer()), align=1)

    return load


def _spread(builder: ir.IRBuilder, scalar: ir.Value, lanes: int, once: None) -> ir.Value:
    return splat(builder, scalar, ir.VectorType(scalar.type, lanes))


# -- bits ----------------------------------------------------------------------------------------------------------------------


def _count_differences(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    kind = acc.type
    ctpop = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), f"llvm.ctpop.v{kind.count}i64")
    return builder.add(acc, builder.call(ctpop, [builder.xor(x, w)]))


# -- float ---------------------------------------------------------------------------------------------------------------------


def _fused(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    kind = acc.type
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{kind.count}f32")
    return builder.call(fma, [x, w, acc])


def _separate(builder: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """Without fused multiply-add in the machine, llvm.fma would call the C library."""
    return builder.fadd(acc, builder.fmul(x, w))


def _load_int8_as_float(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    return builder.sitofp(_load(I8)(builder, pointer, lanes), ir.VectorType(F32, lanes))


def _load_signs(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    """Bits as -1.0 and +1.0: spread once for all pixels of the tile, so that a pixel costs what it costs with float filters."""
    octets = [builder.load(builder.gep(pointer, [INDEX(i)]), align=1) for i in range(lanes // 8)]
    word: ir.Value = builder.zext(octets[0], ir.IntType(lanes)) if lanes > 8 else octets[0]
    for i, octet in enumerate(octets[1:], 1):
        word = builder.or_(word, builder.shl(builder.zext(octet, word.type), word.type(8 * i)))
    kind = ir.VectorType(F32, lanes)
    minus = builder.bitcast(word, ir.VectorType(ir.IntType(1), lanes))
    return builder.select(minus, ir.Constant(kind, [-1.0] * lanes), ir.Constant(kind, [1.0] * lanes))


def has_fma(machine: Machine) -> bool:
    """Whether a fused multiply-add is an instruction of the machine."""
    return "fma" in machine.features or machine.isa.architecture == "aarch64"


def step(kind: str, machine: Machine) -> Step:
    """The arithmetic of a tile on a machine."""
    if kind == "bits":
        return Step(I64, 64, I64, _single(_load(I64)), _spread, _count_differences)
    if kind in INT8_KINDS:
        dot = tile_int8.dot(kind, machine)
        return Step(dot.scalar, lane_bits(kind), I32, dot.filters, dot.spread, dot.multiply, dot.once)
    multiply = _fused if has_fma(machine) else _separate
    return Step(F32, lane_bits(kind), F32, stored_filters(kind, machine), _spread, multiply)


def stored_filters(kind: str, machine: Machine) -> Load:
    """Loads filters as float32 or as 4 int8 a lane, of a position or of those that share bytes; not of bits by bits."""
    if kind in INT8_KINDS:
        return tile_int8.quads(kind)
    if kind in ("f32i4", "f32i2"):
        return load_floats(int(kind[-1]), machine)
    if kind == "f32f16":
        return _single(load_halves(machine))
    return _single({"f32f32": _load(F32), "f32i8": _load_int8_as_float, "f32bits": _load_signs}[kind])


def _single(load: Callable[[ir.IRBuilder, ir.Value, int], ir.Value]) -> Load:
    return lambda builder, pointer, lanes: [load(builder, pointer, lanes)]


@functools.cache
def tile(shape: TileShape, machine: Machine) -> Any:
    """The tile as a Numba intrinsic

    tile(x, filter, out, window): pointers to the first pixel's first scalar, the block's filters and the accumulators, and a pointer to
    seven int64: pixel step, segment rows, row step, segment columns, column step (bytes), positions of a segment, mask of the last
    position.
    """
    writer = _writer(shape.kind, machine)

    @intrinsic
    def typed(context: Any, x: Any, filters: Any, out: Any, window: Any) -> Any:
        octets = types.CPointer(types.uint8)
        kind = types.void(octets, octets, octets, types.CPointer(types.int64))

        def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            writer(shape, machine, builder, *values).emit()
            return context.get_dummy_value()

        return kind, code

    return typed


def _writer(kind: str, machine: Machine) -> Callable[..., Any]:
    if kind == "bits" and counts_bytes(machine):
        return CountingTile
    return GatheredTile if gathers(kind, machine) else _Tile


class _Tile:
    """Writes the code of one tile."""

    def __init__(
        self, shape: TileShape, machine: Machine, builder: ir.IRBuilder, x: ir.Value, filters: ir.Value, out: ir.Value, window: ir.Value
    ) -> None:
        self.shape, self.builder, self.filters, self.out = shape, builder, filters, out
        self.step, self.share = step(shape.kind, machine), sharing(shape.kind)
        self.width = vector_lanes(shape.kind, machine, shape.lanes)
        self.count = shape.lanes // self.width
        self.window = load_window(builder, x, window)
        kind = ir.VectorType(self.step.accumulator, self.width)
        zero = ir.Constant(kind, [0 if self.step.accumulator != F32 else 0.0] * self.width)
        self.accumulators = [variable(builder, zero) for _ in range(shape.pixels * self.count)]
        self.once = self.step.once(builder, self.width)

    def emit(self) -> None:
        builder, window = self.builder, self.window
        cursor = variable(builder, self.filters)
        with cgutils.for_range(builder, window.rows, intp=I64) as row, cgutils.for_range(builder, window.columns, intp=I64) as column:
            offset = builder.add(builder.mul(row.index, window.row_step), builder.mul(column.index, window.column_step))
            start = builder.gep(window.x, [offset])
            unmasked = builder.sub(window.positions, INDEX(1)) if self.shape.masked else window.positions
            with cgutils.for_range(builder, builder.udiv(unmasked, INDEX(self.share)), intp=I64) as position:
                self._positions(start, position.index, cursor)
            if self.shape.masked:  # apart, so that no other position pays for the mask
                self._positions(start, unmasked, cursor, window.mask)
            if self.share > 1 and self.step.scalar == F32:  # what lies behind a segment may be no number: not even 0 times that is 0
                self._rest(start, cursor)
        self._store()

    def _positions(self, start: ir.Value, index: ir.Value, cursor: ir.Value, mask: ir.Value | None = None) -> None:
        """The positions that share bytes, one in most kinds, number `index`."""
        first = self.builder.mul(index, INDEX(self.share))
        for i, filters in enumerate(self._filters(cursor)):
            self._position(start, self.builder.add(first, INDEX(i)), filters, mask)

    def _rest(self, start: ir.Value, cursor: ir.Value) -> None:
        """The last positions of a segment, fewer than share bytes."""
        builder, positions = self.builder, self.window.positions
        rest = builder.urem(positions, INDEX(self.share))
        with builder.if_then(builder.icmp_unsigned("!=", rest, INDEX(0))):
            first = builder.sub(positions, rest)
            for i, filters in enumerate(self._filters(cursor)[:-1]):
                with builder.if_then(builder.icmp_unsigned(">", rest, INDEX(i))):
                    self._position(start, builder.add(first, INDEX(i)), filters)

    def _filters(self, cursor: ir.Value) -> list[tuple[Any, ...]]:
        """For each position that shares the bytes at the cursor, `count` vectors of filters; the cursor moves on."""
        builder, step = self.builder, self.step
        vector_bytes = self.width * step.lane_bits // 8
        pointer = builder.load(cursor)
        builder.store(builder.gep(pointer, [INDEX(self.shape.row_lanes * step.lane_bits // 8)]), cursor)
        found = [step.filters(builder, builder.gep(pointer, [INDEX(vector_bytes * j)]), self.width) for j in range(self.count)]
        return list(zip(*found, strict=True))

    def _position(self, start: ir.Value, position: ir.Value, filters: Sequence[Any], mask: ir.Value | None = None) -> None:
        """One position of every pixel against `count` vectors of filters."""
        builder, step = self.builder, self.step
        scalar_bytes = 8 if step.scalar == I64 else 4
        base = builder.gep(start, [builder.mul(position, INDEX(scalar_bytes))])
        for pixel in range(self.shape.pixels):
            where = builder.gep(base, [builder.mul(self.window.pixel_step, INDEX(pixel))])
            scalar = builder.load(builder.bitcast(where, step.scalar.as_pointer()), align=1)
            if mask is not None:
                scalar = _masked(builder, scalar, mask)
            spread = step.spread(builder, scalar, self.width, self.once)
            for j in range(self.count):
                slot = self.accumulators[pixel * self.count + j]
                builder.store(step.multiply(builder, builder.load(slot), spread, filters[j]), slot)

    def _store(self) -> None:
        """Accumulators to memory, 4 bytes each; LLVM keeps them in registers where the code that ends the tile is unrolled."""
        builder, offset = self.builder, 0
        for pixel in range(self.shape.pixels):
            values = [builder.load(slot) for slot in self.accumulators[pixel * self.count : (pixel + 1) * self.count]]
            if self.step.accumulator == I64:
                values = [narrow(builder, values[j : j + 2]) for j in range(0, self.count, 2)]
            for value in values:
                builder.store(value, address(builder, self.out, INDEX(offset), value.type), align=4)
                offset += 4 * value.type.count


def _masked(builder: ir.IRBuilder, scalar: ir.Value, mask: ir.Value) -> ir.Value:
    """The scalar without the bits that are 0 in the 64 of the mask; of a vector, the first lane is the scalar."""
    if scalar.type == I64:
        return builder.and_(scalar, mask)
    narrowed = builder.trunc(mask, I32)
    return builder.and_(scalar, narrowed if scalar.type == I32 else splat(builder, narrowed, scalar.type))
