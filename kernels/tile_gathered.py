"""The register tile of bytes on machines whose products need them prepared: widened to 16 bits, or repeated as often as a vector holds.

Preparing a pixel costs as much as multiplying it, so it is done once for all channels of a block:

    1. Up to 64 or 256 positions of every pixel are gathered from the image to a buffer on the stack, in the order of the filter and in the
       form that the products take them. What follows is one loop without rows or columns.
    2. For each group of vectors of filters, over those positions: acc += x * w, in registers.
    3. The accumulators are summed to int32 lanes and added to the sums in memory.

What bounds the inner loop, in products for every two vector instructions of b bytes, one that multiplies and one that adds:

    way       instructions                        products
    halves    pmaddwd, paddd                      b / 2    even and odd neighbours in 16 bits each
    pairs     pmaddubsw, paddw                    b        with signs: 64 sums of 2 * 255 fit in 16 bits
    longs     smull, sadalp                       8        products of two bytes have no room to be added in 16 bits
    flips     eor, sadalp                         16       with signs: the complement of x is -x less 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import llvmlite.ir as ir
from numba.core import cgutils

from edge.kernels.int8_forms import FLIPS, HALVES, LONGS, PAIRS, added, way
from edge.kernels.isa import Machine
from edge.kernels.shapes import TileShape, gathered_vectors, lane_bits, sharing, vector_lanes
from edge.kernels.simd import INDEX, address, machine_intrinsic, splat
from edge.kernels.tile_int8 import add_neighbours, load_minus, load_signs, quads
from edge.kernels.tile_window import least, load_window, variable

NARROW_POSITIONS = 64  # of the buffer where accumulators have 16 bits, which hold 64 * 2 * 255
WIDE_POSITIONS = 256
_AT_ONCE = 8  # positions gathered at once

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
Vectors = list[ir.Value]


@dataclass(frozen=True)
class Way:
    """How bytes are multiplied. An entry of the buffer holds a position of a pixel, as often as `copies`, in one part or two."""

    parts: int
    copies: int
    prepare: Callable[[ir.IRBuilder, ir.Value], Vectors]  # 4-byte positions -> the parts of their entries, not repeated
    spread: Callable[[ir.IRBuilder, ir.Value, int], ir.Value]  # (.., pointer to an entry, lanes) -> what `multiply` takes
    filters: Callable[[ir.IRBuilder, ir.Value, int], list[Vectors]]  # (.., pointer, lanes) -> by position, as many as `multiply` takes
    accumulator: Callable[[int], ir.VectorType]  # of so many lanes
    multiply: Callable[[ir.IRBuilder, ir.Value, Vectors, Vectors], ir.Value]  # (.., acc, parts of x, w) -> acc
    total: Callable[[ir.IRBuilder, ir.Value], ir.Value]  # acc -> int32 lanes


def _constant(kind: ir.VectorType, value: int) -> ir.Value:
    return ir.Constant(kind, [value] * kind.count)


# -- x86: halves and pairs -----------------------------------------------------------------------------------------------------

_MADDWD = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}  # by lanes
_MADDUBSW = {4: "llvm.x86.ssse3.pmadd.ub.sw.128", 8: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.avx512.pmaddubs.w.512"}


def _halve(builder: ir.IRBuilder, quads: ir.Value, *, signed: bool) -> Vectors:
    """Bytes as 16-bit numbers, the even and the odd ones: each stays in its half, so that no byte crosses lanes."""
    kind = ir.VectorType(_I16, 4 * quads.type.count * quads.type.element.width // 64)
    pairs, eight = builder.bitcast(quads, kind), _constant(kind, 8)
    if signed:
        return [builder.ashr(builder.shl(pairs, eight), eight), builder.ashr(pairs, eight)]
    return [builder.and_(pairs, _constant(kind, 255)), builder.lshr(pairs, eight)]


def _madd(builder: ir.IRBuilder, x: ir.Value, w: ir.Value) -> ir.Value:
    lanes = x.type.count // 2
    return machine_intrinsic(builder, _MADDWD[lanes], ir.VectorType(_I32, lanes), x, w)


def _add_halves(builder: ir.IRBuilder, acc: ir.Value, x: Vectors, w: Vectors) -> ir.Value:
    for x_half, w_half in zip(x, w, strict=True):
        acc = builder.add(acc, _madd(builder, x_half, w_half))
    return acc


def _add_pairs(builder: ir.IRBuilder, acc: ir.Value, x: Vectors, w: Vectors) -> ir.Value:
    return builder.add(acc, machine_intrinsic(builder, _MADDUBSW[acc.type.count // 2], acc.type, x[0], w[0]))


def _repeated(kind: ir.Type, per_lane: int) -> Callable[[ir.IRBuilder, ir.Value, int], ir.Value]:
    """Loads 4 bytes to every lane, taken as `per_lane` elements."""

    def spread(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
        quad = builder.load(builder.bitcast(pointer, _I32.as_pointer()), align=4)
        return builder.bitcast(splat(builder, quad, ir.VectorType(_I32, lanes)), ir.VectorType(kind, per_lane * lanes))

    return spread


# -- aarch64: longs and flips --------------------------------------------------------------------------------------------------


def _quads_of_two(kind: str) -> Callable[[ir.IRBuilder, ir.Value, int], list[Vectors]]:
    """Loads the filters of two lanes into each vector."""
    load = quads(kind)

    def load_all(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> list[Vectors]:
        found = [load(builder, builder.gep(pointer, [INDEX(8 * i)]), 2) for i in range(lanes // 2)]
        return [list(vectors) for vectors in zip(*found, strict=True)]

    return load_all


def _loaded(count: int) -> Callable[[ir.IRBuilder, ir.Value, int], ir.Value]:
    def load(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
        return builder.load(builder.bitcast(pointer, ir.VectorType(_I8, count).as_pointer()), align=4)

    return load


def _part(builder: ir.IRBuilder, value: ir.Value, count: int, number: int) -> ir.Value:
    return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(_I32, count), [number * count + i for i in range(count)]))


def _add_longs(builder: ir.IRBuilder, acc: ir.Value, x: Vectors, w: Vectors) -> ir.Value:
    wide = ir.VectorType(_I16, 8)
    halves = []
    for half, filters in enumerate(w):
        products = builder.mul(builder.sext(x[0], wide), builder.sext(filters, wide))
        pairs = machine_intrinsic(builder, "llvm.aarch64.neon.saddlp.v4i32.v8i16", ir.VectorType(_I32, 4), products)
        halves.append(builder.add(_part(builder, acc, 4, half), pairs))
    return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, 8), list(range(8))))


def _add_flips(builder: ir.IRBuilder, acc: ir.Value, x: Vectors, w: Vectors) -> ir.Value:
    pairs = machine_intrinsic(builder, "llvm.aarch64.neon.saddlp.v8i16.v16i8", acc.type, builder.xor(x[0], w[0]))
    return builder.add(acc, pairs)


def _total_flips(builder: ir.IRBuilder, acc: ir.Value) -> ir.Value:
    return machine_intrinsic(builder, "llvm.aarch64.neon.saddlp.v4i32.v8i16", ir.VectorType(_I32, 4), acc)


# -- ways ----------------------------------------------------------------------------------------------------------------------


def _flip(amount: int) -> Callable[[ir.IRBuilder, ir.Value], Vectors]:
    """Adds 128 to bytes, or takes it off, by flipping the top bit."""

    def prepare(builder: ir.IRBuilder, quads: ir.Value) -> Vectors:
        return [builder.xor(quads, _constant(quads.type, 0x80808080)) if amount else quads]

    return prepare


def _way(kind: str, machine: Machine) -> Way:
    chosen, prepare = way(kind, machine), _flip(added(kind, machine))
    if chosen == PAIRS:
        ones = lambda builder, acc: _madd(builder, acc, _constant(acc.type, 1))  # noqa: E731
        load = _as_list(load_signs)
        return Way(1, 1, prepare, _repeated(_I8, 4), load, lambda lanes: ir.VectorType(_I16, 2 * lanes), _add_pairs, ones)
    if chosen == FLIPS:
        load = _as_list(lambda b, p, lanes: b.sext(load_minus(b, p, lanes), ir.VectorType(_I8, 4 * lanes)))
        return Way(1, 4, prepare, _loaded(16), load, lambda lanes: ir.VectorType(_I16, 2 * lanes), _add_flips, _total_flips)
    if chosen == LONGS:
        return Way(1, 2, prepare, _loaded(8), _quads_of_two(kind), lambda lanes: ir.VectorType(_I32, 2 * lanes), _add_longs, add_neighbours)
    assert chosen == HALVES
    load_quads = quads(kind)
    return Way(
        2, 1,
        lambda builder, positions: _halve(builder, positions, signed=kind.startswith("i8")),
        _repeated(_I16, 2),
        lambda builder, pointer, lanes: [_halve(builder, found, signed=True) for found in load_quads(builder, pointer, lanes)],
        lambda lanes: ir.VectorType(_I32, lanes), _add_halves, lambda builder, acc: acc,
    )  # fmt: skip


def _as_list(load: Callable[[ir.IRBuilder, ir.Value, int], ir.Value]) -> Callable[[ir.IRBuilder, ir.Value, int], list[Vectors]]:
    return lambda builder, pointer, lanes: [[load(builder, pointer, lanes)]]


# -- the tile ------------------------------------------------------------------------------------------------------------------


class GatheredTile:
    """Writes the code of one tile; arguments as in `edge.kernels.tile.tile`."""

    def __init__(
        self, shape: TileShape, machine: Machine, builder: ir.IRBuilder, x: ir.Value, filters: ir.Value, out: ir.Value, window: ir.Value
    ) -> None:
        self.shape, self.builder, self.out = shape, builder, out
        self.way = _way(shape.kind, machine)
        self.width = vector_lanes(shape.kind, machine, shape.lanes)
        self.group = gathered_vectors(shape.lanes // self.width)
        self.stride = shape.row_lanes * lane_bits(shape.kind) // 8  # bytes of the filters of a position, or of those that share them
        self.share = sharing(shape.kind)
        self.window = load_window(builder, x, window)
        self.entry_bytes = 4 * self.way.copies
        self.most = NARROW_POSITIONS if self.way.accumulator(1).element == _I16 else WIDE_POSITIONS
        self.part_bytes = self.entry_bytes * (self.most + _AT_ONCE)
        self.buffer = cgutils.alloca_once(builder, ir.ArrayType(_I8, shape.pixels * self.way.parts * self.part_bytes))
        self.buffer.align = 64
        self.filters = variable(builder, filters)
        numbers = (x, self.window.positions, self.window.columns)
        self.start, self.left, self.columns_left = (variable(builder, value) for value in numbers)  # the last two are what is left

    def emit(self) -> None:
        builder, most = self.builder, INDEX(self.most)
        self._clear()
        total = builder.mul(builder.mul(self.window.rows, self.window.columns), self.window.positions)
        rounds = builder.udiv(builder.add(total, INDEX(self.most - 1)), most)
        with cgutils.for_range(builder, rounds, intp=INDEX) as loop:
            count = least(builder, builder.sub(total, builder.mul(loop.index, most)), most)
            self._gather(count)
            self._multiply(count)
            filters = builder.load(self.filters)
            builder.store(builder.gep(filters, [builder.mul(self._loads(count), INDEX(self.stride))]), self.filters)

    def _clear(self) -> None:
        """Sums of zero in memory."""
        zero = _constant(ir.VectorType(_I32, 8), 0)
        for first in range(0, self.shape.pixels * self.shape.lanes, 8):
            self.builder.store(zero, address(self.builder, self.out, INDEX(4 * first), zero.type), align=4)

    # -- gathering

    def _gather(self, count: ir.Value) -> None:
        """The next `count` positions of every pixel, segment by segment."""
        builder = self.builder
        filled = variable(builder, INDEX(0))
        with _loop_while(builder, lambda: builder.icmp_signed("<", builder.load(filled), count)):
            first, left = builder.load(filled), builder.load(self.left)
            taken = least(builder, left, builder.sub(count, first))
            start = builder.load(self.start)
            blocks = builder.udiv(builder.add(taken, INDEX(_AT_ONCE - 1)), INDEX(_AT_ONCE))
            with cgutils.for_range(builder, blocks, intp=INDEX) as loop:
                position = builder.mul(loop.index, INDEX(_AT_ONCE))
                self._prepare(start, position, builder.add(first, position), _AT_ONCE, None)
            if self.shape.masked:
                last = builder.sub(taken, INDEX(1))
                with builder.if_then(builder.icmp_signed("==", taken, left)):
                    self._prepare(start, last, builder.add(first, last), 1, builder.trunc(self.window.mask, _I32))
            builder.store(builder.add(first, taken), filled)
            self._step(start, left, taken)

    def _prepare(self, start: ir.Value, position: ir.Value, entry: ir.Value, count: int, mask: ir.Value | None) -> None:
        """`count` positions of every pixel to the buffer."""
        builder, kind = self.builder, ir.VectorType(_I32, count)
        for pixel in range(self.shape.pixels):
            offset = builder.add(builder.mul(self.window.pixel_step, INDEX(pixel)), builder.mul(position, INDEX(4)))
            quads = builder.load(address(builder, start, offset, kind), align=1)
            if mask is not None:
                quads = builder.and_(quads, splat(builder, mask, kind))
            for number, part in enumerate(self.way.prepare(builder, quads)):
                words = builder.bitcast(part, kind)
                order = [i // self.way.copies for i in range(count * self.way.copies)]
                repeated = builder.shuffle_vector(words, words, ir.Constant(ir.VectorType(_I32, len(order)), order))
                pointer = self._entry(pixel, number, entry)
                builder.store(repeated, builder.bitcast(pointer, repeated.type.as_pointer()), align=4)

    def _entry(self, pixel: int, part: int, position: ir.Value) -> ir.Value:
        first = INDEX((pixel * self.way.parts + part) * self.part_bytes)
        offset = self.builder.add(first, self.builder.mul(position, INDEX(self.entry_bytes)))
        return self.builder.gep(self.buffer, [INDEX(0), offset])

    def _step(self, start: ir.Value, left: ir.Value, taken: ir.Value) -> None:
        """Move on by `taken` positions; behind a segment comes the next column's, behind a row the next row's."""
        builder = self.builder
        columns, segment = builder.load(self.columns_left), builder.mul(self.window.positions, INDEX(4))
        ends = builder.icmp_signed("==", taken, left)
        ends_row = builder.and_(ends, builder.icmp_signed("==", columns, INDEX(1)))
        across = builder.mul(builder.sub(self.window.columns, INDEX(1)), self.window.column_step)
        jump = builder.sub(builder.select(ends_row, builder.sub(self.window.row_step, across), self.window.column_step), segment)
        along = builder.mul(taken, INDEX(4))
        builder.store(builder.gep(start, [builder.add(along, builder.select(ends, jump, INDEX(0)))]), self.start)
        builder.store(builder.select(ends, self.window.positions, builder.sub(left, taken)), self.left)
        fewer = builder.select(ends, builder.sub(columns, INDEX(1)), columns)
        builder.store(builder.select(ends_row, self.window.columns, fewer), self.columns_left)

    # -- multiplying

    def _multiply(self, count: ir.Value) -> None:
        """All lanes over the buffer, a group of vectors after the other."""
        builder, filters = self.builder, self.builder.load(self.filters)
        lanes = self.width * self.group
        group_bytes = self.stride * lanes // self.shape.row_lanes
        with cgutils.for_range(builder, INDEX(self.shape.lanes // lanes), intp=INDEX) as loop:
            first = builder.gep(filters, [builder.mul(loop.index, INDEX(group_bytes))])
            self._add(builder.gep(self.out, [builder.mul(loop.index, INDEX(4 * lanes))]), self._sums(first, count))

    def _sums(self, filters: ir.Value, count: ir.Value) -> list[Vectors]:
        """The sums of a group over `count` positions, [pixel][vector]."""
        builder, way = self.builder, self.way
        zero = _constant(way.accumulator(self.width), 0)
        slots = [[variable(builder, zero) for _ in range(self.group)] for _ in range(self.shape.pixels)]
        vector_bytes = self.stride * self.width // self.shape.row_lanes
        with cgutils.for_range(builder, self._loads(count), intp=INDEX) as loop:
            pointer = builder.gep(filters, [builder.mul(loop.index, INDEX(self.stride))])
            w = [way.filters(builder, builder.gep(pointer, [INDEX(vector_bytes * j)]), self.width) for j in range(self.group)]
            for i, of_position in enumerate(zip(*w, strict=True)):
                position = builder.add(builder.mul(loop.index, INDEX(self.share)), INDEX(i))
                for pixel, accumulators in enumerate(slots):
                    x = [way.spread(builder, self._entry(pixel, part, position), self.width) for part in range(way.parts)]
                    for slot, vector in zip(accumulators, of_position, strict=True):
                        builder.store(way.multiply(builder, builder.load(slot), x, vector), slot)
        return [[way.total(builder, builder.load(slot)) for slot in accumulators] for accumulators in slots]

    def _loads(self, count: ir.Value) -> ir.Value:
        """How many loads of filters hold `count` positions, which are a multiple of those that share bytes."""
        return self.builder.udiv(count, INDEX(self.share))

    def _add(self, out: ir.Value, sums: list[Vectors]) -> None:
        """Add to the sums in memory."""
        builder = self.builder
        for pixel, vectors in enumerate(sums):
            for j, vector in enumerate(vectors):
                where = address(builder, out, INDEX(4 * (pixel * self.shape.lanes + j * self.width)), vector.type)
                builder.store(builder.add(builder.load(where, align=4), vector), where, align=4)


@contextmanager
def _loop_while(builder: ir.IRBuilder, condition: Callable[[], ir.Value]) -> Iterator[None]:
    test, body, behind = (builder.append_basic_block(f"while.{name}") for name in ("test", "body", "end"))
    builder.branch(test)
    builder.position_at_end(test)
    builder.cbranch(condition(), body, behind)
    builder.position_at_end(body)
    yield
    builder.branch(test)
    builder.position_at_end(behind)
