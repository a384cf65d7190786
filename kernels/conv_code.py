"""The code of convolutions and dense layers: rows of tiles, each followed by its epilogue.

A unit of work is one output row of one block of output channels; parts take consecutive units. Inside a row the last tile is moved left to
end with the row, so that every tile is full; the pixels it shares with the tile before are computed twice.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.isa import Machine
from edge.kernels.shapes import ConvVariant, sub_lanes
from edge.kernels.simd import float_of_bits, memory, vector
from edge.kernels.tile import TileShape, tile

# The argument row, as `edge.kernels.conv` writes it; 0 to 6 are the tile's window.
X, X_ROW, FILTER, BLOCK_BYTES, BLOCKS, GROUPS, X_GROUP, FILTER_GROUP = range(7, 15)
HEIGHT, WIDTH, Y, Y_PIXEL, Y_ROW, CHANNELS, TABLE, CLASS_BYTES, ROW_CLASSES, COLUMN_CLASSES = range(15, 25)
SCALE, BIAS, LOWER, UPPER, SLOPE, INVERSE, ZERO_POINT = range(25, 32)

_BLOCK = 32
_ROUND = 12582912.0  # 1.5 * 2**23: adding it to a float32 of less than 2**22 rounds to a whole number, half to even


def kernel(variant: ConvVariant, machine: Machine) -> KernelFunction:
    """The kernel function of a variant, for `edge.kernels.build`."""
    full_row = _row(variant, variant.lanes, machine)
    tail_row = _row(variant, variant.tail or variant.lanes, machine)
    has_tail = variant.tail != 0

    def conv2d(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        height = args[HEIGHT]
        blocks = args[BLOCKS]
        units = height * blocks * args[GROUPS]
        for unit in range(units * part // parts, units * (part + 1) // parts):
            block_of_all = unit // height
            y = unit - block_of_all * height
            group = block_of_all // blocks
            block = block_of_all - group * blocks
            x = args[X] + y * args[X_ROW] + group * args[X_GROUP]
            filters = args[FILTER] + group * args[FILTER_GROUP] + block * args[BLOCK_BYTES]
            channel = block * _BLOCK
            if has_tail and block == blocks - 1:
                tail_row(args, arena, constants, scratch, x, filters, y, group, channel)
            else:
                full_row(args, arena, constants, scratch, x, filters, y, group, channel)

    return conv2d


def _row(variant: ConvVariant, lanes: int, machine: Machine) -> Any:
    """One output row of a block of `lanes` channels."""
    sub = sub_lanes(variant.kind, machine, lanes)
    subs = lanes // sub
    pixels = variant.pixels
    compute = tile(TileShape(variant.kind, pixels, sub, lanes, variant.masked), machine)
    store = _EPILOGUES[variant.output](variant, sub)
    octets, words = memory("u8"), memory("i64")
    sub_bytes = sub * {"bits": 64, "f32i8": 8, "f32bits": 1}.get(variant.kind, 32) // 8
    tabled = not variant.kind.startswith("f32")
    packed = variant.output == "bits"

    @inlined
    def row(args: Any, arena: Any, constants: Any, scratch: Any, x: Any, filters: Any, y: Any, group: Any, channel: Any) -> None:
        width = args[WIDTH]
        table = args[TABLE]
        if tabled:
            table += words.get(constants, args[ROW_CLASSES] + 8 * y)
        column = 0
        while column < width:
            start = min(column, width - pixels)
            for s in range(subs):
                first = channel + s * sub
                compute(
                    octets.at(arena, x + start * args[0]), octets.at(constants, filters + s * sub_bytes), octets.at(scratch, 0), args
                )
                for p in range(pixels):
                    out = args[Y] + y * args[Y_ROW] + (start + p) * args[Y_PIXEL]
                    where = table
                    if tabled:
                        where += words.get(constants, args[COLUMN_CLASSES] + 8 * (start + p))
                    store(args, arena, constants, scratch, 4 * sub * p, out, group, first, where)
            column += pixels
        if packed:
            _clear_spare(args, arena, y, group, channel + lanes)

    return row


@inlined
def _clear_spare(args: Any, arena: Any, y: Any, group: Any, end: Any) -> None:
    """Bytes of packed pixels behind the last block are 0."""
    if group == args[GROUPS] - 1 and end >= args[CHANNELS]:
        used = (group * args[CHANNELS] + end) // 8
        for column in range(args[WIDTH]):
            out = args[Y] + y * args[Y_ROW] + column * args[Y_PIXEL]
            for i in range(used, args[Y_PIXEL]):
                arena[out + i] = 0


# -- epilogues: one pixel, `lanes` accumulators at scratch + `acc`, the output pixel at arena + `out` ----------------------------


def _bits_epilogue(variant: ConvVariant, lanes: int) -> Any:
    """Compare with the table; a bit is 1 (the value -1) where more products differ, or less is summed, than the table says."""
    chunk = lanes if lanes in (8, 16, 32) else 8
    chunks = lanes // chunk
    v, word = vector("i32", chunk), memory(f"i{chunk}")
    counts_differences = variant.kind == "bits"

    @inlined
    def store(
        args: Any, arena: Any, constants: Any, scratch: Any, acc: Any, out: Any, group: Any, channel: Any, table: Any
    ) -> None:
        of_all = group * args[CHANNELS] + channel
        for j in range(chunks):
            a = v.load(scratch, acc + 4 * chunk * j)
            limit = v.load(constants, table + 4 * (of_all + chunk * j))
            if counts_differences:
                minus = v.less(limit, a)
            else:
                minus = v.less(a, limit)
            word.put(arena, out + (of_all + chunk * j) // 8, minus)

    return store


def _real_value(variant: ConvVariant, chunk: int) -> Any:
    """The float value of a chunk of accumulators: scale, bias, activation; shared by float32 and int8 outputs."""
    v, i = vector("f32", chunk), vector("i32", chunk)
    as_float = float_of_bits()
    kind, scaled, leaky = variant.kind, variant.scaled, variant.leaky
    differences, floating = kind == "bits", kind.startswith("f32")

    @inlined
    def value(args: Any, constants: Any, scratch: Any, acc: Any, of_all: Any, table: Any) -> Any:
        if floating:
            y = v.load(scratch, acc)
        else:
            a = i.load(scratch, acc)
            base = i.load(constants, table + 4 * of_all)
            if differences:
                y = i.to_f32(base - a - a)
            else:
                y = i.to_f32(base + a)
        if scaled:
            y = y * v.load(constants, args[SCALE] + 4 * of_all)
        y = y + v.load(constants, args[BIAS] + 4 * of_all)
        if leaky:
            y = v.where_less(y, v.splat(0.0), y * v.splat(as_float(args[SLOPE])), y)
        return v.atmost(v.atleast(y, v.splat(as_float(args[LOWER]))), v.splat(as_float(args[UPPER])))

    return value


def _chunk(lanes: int) -> int:
    return 16 if lanes % 16 == 0 else 8


def _float32_epilogue(variant: ConvVariant, lanes: int) -> Any:
    chunk = _chunk(lanes)
    chunks = lanes // chunk
    v, f32 = vector("f32", chunk), memory("f32")
    value = _real_value(variant, chunk)
    spare = 4 * variant.pixels * lanes

    @inlined
    def store(
        args: Any, arena: Any, constants: Any, scratch: Any, acc: Any, out: Any, group: Any, channel: Any, table: Any
    ) -> None:
        of_all = group * args[CHANNELS] + channel
        for j in range(chunks):
            y = value(args, constants, scratch, acc + 4 * chunk * j, of_all + chunk * j, table)
            left = args[CHANNELS] - channel - chunk * j
            to = out + 4 * (of_all + chunk * j)
            if left >= chunk:
                v.store(arena, to, y)
            else:
                v.store(scratch, spare, y)
                for i in range(left):
                    f32.put(arena, to + 4 * i, f32.get(scratch, spare + 4 * i))

    return store


def _int8_epilogue(variant: ConvVariant, lanes: int) -> Any:
    chunk = _chunk(lanes)
    chunks = lanes // chunk
    v, i, q, octet = vector("f32", chunk), vector("i32", chunk), vector("i8", chunk), memory("i8")
    as_float = float_of_bits()
    value = _real_value(variant, chunk)
    spare = 4 * variant.pixels * lanes

    @inlined
    def store(
        args: Any, arena: Any, constants: Any, scratch: Any, acc: Any, out: Any, group: Any, channel: Any, table: Any
    ) -> None:
        of_all = group * args[CHANNELS] + channel
        zero = args[ZERO_POINT]
        for j in range(chunks):
            y = value(args, constants, scratch, acc + 4 * chunk * j, of_all + chunk * j, table)
            y = y * v.splat(as_float(args[INVERSE]))
            # Clamped first, so that the rounding constant holds; high and low take the bound where y is not a number.
            y = v.low(v.high(y, v.splat(-128 - zero)), v.splat(127 - zero))
            y = (y + v.splat(_ROUND)) - v.splat(_ROUND)
            whole = i.to_i8(v.to_i32(y) + i.splat(zero))
            left = args[CHANNELS] - channel - chunk * j
            to = out + of_all + chunk * j
            if left >= chunk:
                q.store(arena, to, whole)
            else:
                q.store(scratch, spare, whole)
                for n in range(left):
                    octet.put(arena, to + n, octet.get(scratch, spare + n))

    return store


_EPILOGUES = {"bits": _bits_epilogue, "float32": _float32_epilogue, "int8": _int8_epilogue}
