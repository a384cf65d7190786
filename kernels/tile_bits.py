"""The register tile of signs on machines that count the bits of bytes, not of words.

The products of two rows of signs that are -1 are the bits in which they differ. Without an instruction that counts the bits of a word,
counts stay in bytes: a byte of an accumulator holds what one byte of every position has added, at most 8 a position, and after at most
31 positions (248) the bytes of each lane are summed and added to the int32 sums in memory:

    1. The words of up to 31 positions of every pixel are gathered from the image, in the order of the filter, to a buffer on the stack.
       Foreign bits of a segment's last position are cleared here, so what follows is one loop without rows, columns and masks.
    2. For each group of vectors of filters, over those positions: acc += count(x xor w), x from the buffer.
    3. For each pixel, the bytes of each lane are summed.

Two ways to count (`Counting`): by an instruction for bytes (NEON's cnt; elsewhere LLVM writes shifts and adds), or by a table of 16 counts
that a byte shuffle looks up. A table takes 4 bits, so words are split into the low and the high halves of their bytes. To split costs
three operations, to count a split word six (two of xor, shuffle, add): x is split when it is gathered, once for all channels, and w once
for all pixels of the tile, where splitting x xor w would take eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import llvmlite.ir as ir
from numba.core import cgutils

from edge.kernels.isa import Machine
from edge.kernels.shapes import TileShape, tile_vectors, vector_lanes
from edge.kernels.simd import INDEX, LANE, address, splat
from edge.kernels.tile_window import Walk, least, load_window, variable

MOST_POSITIONS = 31  # 31 * 8 bits fit in a byte

_ROW_WORDS = 36  # those and what is taken beyond them

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_NIBBLES = 0x0F0F0F0F0F0F0F0F

Vectors = list[ir.Value]


@dataclass(frozen=True)
class Counting:
    """How a machine counts the bits of bytes. A word makes one part or two, each in a row of the buffer of its own."""

    gathered: int  # words taken from the image at once
    number_of_parts: int
    parts: Callable[[ir.IRBuilder, ir.Value], Vectors]  # of such words, as the rows of the buffer hold them
    part_bytes: int  # of a word in a row
    spread: Callable[[ir.IRBuilder, ir.Value, int], ir.Value]  # (.., pointer to a row's word, lanes): its bytes in every lane
    split: Callable[[ir.IRBuilder, ir.Value], Vectors]  # the parts of a vector of filters, as bytes
    count: Callable[[ir.IRBuilder, ir.Value], ir.Value]  # bits that are 1 in each byte of a part
    total: Callable[[ir.IRBuilder, Vectors], Vectors]  # accumulators of neighbouring lanes, as vectors of int32: the sum of every 8 bytes


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, *values: ir.Value) -> ir.Value:
    function = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), values)


def _bytes(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    return builder.bitcast(vector, ir.VectorType(_I8, 8 * vector.type.count))


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(LANE, len(order)), list(order)))


def narrow(builder: ir.IRBuilder, sums: Vectors) -> ir.Value:
    """The low halves of all lanes of one or two vectors of words."""
    lanes = sums[0].type.count
    pairs = [builder.bitcast(vector, ir.VectorType(_I32, 2 * lanes)) for vector in sums]
    return _shuffle(builder, pairs[0], pairs[-1], range(0, 2 * lanes * len(sums), 2))


# -- by table ------------------------------------------------------------------------------------------------------------------


def _half_words(builder: ir.IRBuilder, words: ir.Value) -> Vectors:
    kind = words.type
    mask, four = (ir.Constant(kind, [value] * kind.count) for value in (_NIBBLES, 4))
    return [builder.and_(words, mask), builder.and_(builder.lshr(words, four), mask)]


def _broadcast(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    word = builder.load(builder.bitcast(pointer, _I64.as_pointer()), align=8)
    return _bytes(builder, splat(builder, word, ir.VectorType(_I64, lanes)))


def _halves(builder: ir.IRBuilder, words: ir.Value) -> Vectors:
    return [_bytes(builder, half) for half in _half_words(builder, words)]


def _look_up(builder: ir.IRBuilder, half: ir.Value) -> ir.Value:
    kind = half.type
    table = ir.Constant(kind, [i.bit_count() for i in range(16)] * (kind.count // 16))
    name = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}[kind.count]
    return _call(builder, name, kind, table, half)


def _sad(builder: ir.IRBuilder, vectors: Vectors) -> Vectors:
    """Sums of absolute differences from 0 are sums of 8 bytes, one for every lane; their low halves are joined."""
    sums = [_sums_of_absolutes(builder, vector) for vector in vectors]
    return [narrow(builder, sums[i : i + 2]) for i in range(0, len(sums), 2)]


def _sums_of_absolutes(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    kind = vector.type
    name = {16: "llvm.x86.sse2.psad.bw", 32: "llvm.x86.avx2.psad.bw", 64: "llvm.x86.avx512.psad.bw.512"}[kind.count]
    return _call(builder, name, ir.VectorType(_I64, kind.count // 8), vector, ir.Constant(kind, [0] * kind.count))


# -- by instruction ------------------------------------------------------------------------------------------------------------


def _twice(builder: ir.IRBuilder, words: ir.Value) -> Vectors:
    return [_shuffle(builder, words, words, [i // 2 for i in range(2 * words.type.count)])]


def _load_pair(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    return builder.load(builder.bitcast(pointer, ir.VectorType(_I8, 8 * lanes).as_pointer()), align=16)


def _whole(builder: ir.IRBuilder, words: ir.Value) -> Vectors:
    return [_bytes(builder, words)]


def _count_bytes(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    return _call(builder, f"llvm.ctpop.v{vector.type.count}i8", vector.type, vector)


def _fold(builder: ir.IRBuilder, vectors: Vectors) -> Vectors:
    """Sums of 8 bytes in operations of any machine: of neighbouring bytes, then twice of neighbours in two vectors (NEON's addp)."""
    kind = ir.VectorType(ir.IntType(16), 8)
    sums = []
    for vector in vectors:
        pairs = builder.bitcast(vector, kind)
        low = builder.and_(pairs, ir.Constant(kind, [0xFF] * 8))
        sums.append(builder.add(low, builder.lshr(pairs, ir.Constant(kind, [8] * 8))))
    for _ in range(2):
        sums = [_neighbours(builder, a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
    return [builder.zext(lanes, ir.VectorType(_I32, 8)) for lanes in sums]


def _neighbours(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    even, odd = (_shuffle(builder, a, b, range(first, 16, 2)) for first in range(2))
    return builder.add(even, odd)


def counting(machine: Machine) -> Counting:
    """How to count on a machine."""
    if machine.isa.vector_bytes > 16:
        return Counting(4, 2, _half_words, 8, _broadcast, _halves, _look_up, _sad)
    total = _sad if machine.isa.architecture == "x86_64" else _fold
    return Counting(1, 1, _twice, 16, _load_pair, _whole, _count_bytes, total)


# -- the tile ------------------------------------------------------------------------------------------------------------------


class CountingTile:
    """Writes the code of one tile; arguments as in `edge.kernels.tile.tile`."""

    def __init__(
        self, shape: TileShape, machine: Machine, builder: ir.IRBuilder, x: ir.Value, filters: ir.Value, out: ir.Value, window: ir.Value
    ) -> None:
        self.shape, self.builder, self.filters, self.out = shape, builder, filters, out
        self.counting = counting(machine)
        self.width = vector_lanes("bits", machine, shape.lanes)
        self.group = tile_vectors(machine, shape.lanes, shape.pixels)
        self.groups = shape.lanes // self.width // self.group
        self.window = load_window(builder, x, window)
        self.row_bytes = _ROW_WORDS * self.counting.part_bytes
        self.buffer = self._stack(shape.pixels * self.counting.number_of_parts * self.row_bytes)
        self.sums = self._stack(shape.pixels * 8 * shape.lanes)

    def _stack(self, nbytes: int) -> ir.Value:
        slot = cgutils.alloca_once(self.builder, ir.ArrayType(_I64, nbytes // 8))  # of bytes LLVM takes a second for each
        slot.align = 64
        return self.builder.bitcast(slot, _I8.as_pointer())

    def emit(self) -> None:
        builder = self.builder
        window = self.window
        walk = Walk(builder, window, masked=self.shape.masked)
        filters = variable(builder, self.filters)
        total = builder.mul(builder.mul(window.rows, window.columns), window.positions)
        rounds = builder.udiv(builder.add(total, INDEX(MOST_POSITIONS - 1)), INDEX(MOST_POSITIONS))
        with cgutils.for_range(builder, rounds, intp=_I64) as loop:
            left = builder.sub(total, builder.mul(loop.index, INDEX(MOST_POSITIONS)))
            count = least(builder, left, INDEX(MOST_POSITIONS))
            self._gather(walk, count)
            first = builder.load(filters)
            self._count(first, count)
            builder.store(builder.gep(first, [builder.mul(count, INDEX(8 * self.shape.row_lanes))]), filters)
            self._add(builder.icmp_signed("==", loop.index, INDEX(0)))

    def _gather(self, walk: Walk, count: ir.Value) -> None:
        """The next `count` positions of every pixel to the buffer; what is taken beyond them is overwritten or not read."""
        builder = self.builder
        kind = ir.VectorType(_I64, self.counting.gathered)
        done = variable(builder, INDEX(0))
        with _while(builder, lambda: builder.icmp_signed("<", builder.load(done), count)):
            position = builder.load(done)
            start, mask, taken = walk.next(kind, builder.sub(count, position))
            where = builder.gep(self.buffer, [builder.mul(position, INDEX(self.counting.part_bytes))])
            for pixel in range(self.shape.pixels):
                words = builder.load(address(builder, start, builder.mul(self.window.pixel_step, INDEX(pixel)), kind), align=1)
                if mask is not None:
                    words = builder.and_(words, mask)
                for row, part in zip(self._rows(pixel), self.counting.parts(builder, words), strict=True):
                    builder.store(part, address(builder, where, row, part.type), align=self.counting.part_bytes)
            builder.store(builder.add(position, taken), done)

    def _rows(self, pixel: int) -> Vectors:
        """Where the rows of a pixel's parts begin in the buffer."""
        parts = self.counting.number_of_parts
        return [INDEX((pixel * parts + i) * self.row_bytes) for i in range(parts)]

    def _count(self, filters: ir.Value, count: ir.Value) -> None:
        """Sums of bytes, [group][pixel][vector], over the positions in the buffer."""
        builder = self.builder
        lanes = self.width * self.group
        with cgutils.for_range(builder, INDEX(self.groups), intp=_I64) as loop:
            counts = self._counts(builder.gep(filters, [builder.mul(loop.index, INDEX(8 * lanes))]), count)
            sums = builder.gep(self.sums, [builder.mul(loop.index, INDEX(8 * lanes * self.shape.pixels))])
            for i, vector in enumerate(counts):
                builder.store(vector, address(builder, sums, INDEX(8 * self.width * i), vector.type), align=8 * self.width)

    def _counts(self, filters: ir.Value, count: ir.Value) -> Vectors:
        """The accumulators of a group, [pixel][vector]."""
        builder, vector_bytes = self.builder, 8 * self.width
        zero = ir.Constant(ir.VectorType(_I8, vector_bytes), [0] * vector_bytes)
        slots = [variable(builder, zero) for _ in range(self.shape.pixels * self.group)]
        with cgutils.for_range(builder, count, intp=_I64) as loop:
            pointer = builder.gep(filters, [builder.mul(loop.index, INDEX(8 * self.shape.row_lanes))])
            parts = [self._filters(pointer, j) for j in range(self.group)]
            words = builder.gep(self.buffer, [builder.mul(loop.index, INDEX(self.counting.part_bytes))])
            for pixel in range(self.shape.pixels):
                spread = [self.counting.spread(builder, builder.gep(words, [row]), self.width) for row in self._rows(pixel)]
                own = slots[pixel * self.group : (pixel + 1) * self.group]
                for i, x in enumerate(spread):  # in steps of all vectors, for cores that run in order
                    differing = [builder.xor(x, split[i]) for split in parts]
                    counts = [self.counting.count(builder, bits) for bits in differing]
                    for slot, counted in zip(own, counts, strict=True):
                        builder.store(builder.add(builder.load(slot), counted), slot)
        return [builder.load(slot) for slot in slots]

    def _filters(self, pointer: ir.Value, vector: int) -> Vectors:
        kind = ir.VectorType(_I64, self.width)
        words = self.builder.load(address(self.builder, pointer, INDEX(8 * self.width * vector), kind), align=8)
        return self.counting.split(self.builder, words)

    def _add(self, first: ir.Value) -> None:
        """The sums of each lane's bytes to memory, added to what is there unless these are the `first`."""
        builder, lanes = self.builder, self.shape.lanes
        keep = builder.select(first, _I32(0), _I32(-1))
        with cgutils.for_range(builder, INDEX(self.shape.pixels), intp=_I64) as loop:
            out = builder.gep(self.out, [builder.mul(loop.index, INDEX(4 * lanes))])
            offset = 0
            for total in self.counting.total(builder, self._sums(loop.index)):
                where = address(builder, out, INDEX(offset), total.type)
                before = builder.and_(builder.load(where, align=4), splat(builder, keep, total.type))
                builder.store(builder.add(before, total), where, align=4)
                offset += 4 * total.type.count

    def _sums(self, pixel: ir.Value) -> Vectors:
        """The sums of a pixel, lane by lane."""
        builder, vector_bytes = self.builder, 8 * self.width
        kind = ir.VectorType(_I8, vector_bytes)
        own = builder.gep(self.sums, [builder.mul(pixel, INDEX(vector_bytes * self.group))])
        places = [(group * self.shape.pixels * self.group + j) * vector_bytes for group in range(self.groups) for j in range(self.group)]
        return [builder.load(address(builder, own, INDEX(place), kind), align=vector_bytes) for place in places]


@contextmanager
def _while(builder: ir.IRBuilder, condition: Callable[[], ir.Value]) -> Iterator[None]:
    """A loop as long as the condition holds."""
    head, body, end = (builder.append_basic_block(name) for name in ("while.head", "while.body", "while.end"))
    builder.branch(head)
    with builder.goto_block(head):
        builder.cbranch(condition(), body, end)
    builder.position_at_end(body)
    yield
    builder.branch(head)
    builder.position_at_end(end)
