"""The code of convolutions and dense layers: rows of tiles, each followed by its epilogue.

A unit of work is one output row of one block of output channels; parts take consecutive units. Inside a row the last tile is moved left to
end with the row, so that every tile is full; the pixels it shares with the tile before are computed twice.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined, repeated
from edge.kernels.epilogue import RESIDUAL, Epilogue, epilogue
from edge.kernels.isa import Machine
from edge.kernels.shapes import ConvVariant, TileShape, keeps_registers, lane_bits, sub_lanes
from edge.kernels.simd import memory, stack
from edge.kernels.spread import spread_block
from edge.kernels.tile import tile

# The argument row, as `edge.kernels.conv` writes it; 0 to 6 are the tile's window.
X, X_ROW, FILTER, FILTER_GROUP, BLOCK_BYTES, TAIL, TAIL_GROUP, BLOCKS, GROUPS, X_GROUP = range(7, 17)
HEIGHT, WIDTH, Y, Y_ROW, Y_PIXEL, CHANNELS, TABLE, CLASS_BYTES, ROW_CLASSES, COLUMN_CLASSES = range(17, 27)
EPILOGUE = 27  # and the six after it
OTHER, SIGNS = EPILOGUE + RESIDUAL + 3, EPILOGUE + RESIDUAL + 6  # of residual_conv2d

_BLOCK = 32


def kernel(variant: ConvVariant, machine: Machine) -> KernelFunction:
    """The kernel function of a variant, for `edge.kernels.build`."""
    any_row = _blocks(variant, machine)

    def conv2d(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        height = args[HEIGHT]
        blocks = args[BLOCKS]
        units = height * blocks * args[GROUPS]
        first = units * part // parts
        for unit in range(first, units * (part + 1) // parts):
            block_of_all = unit // height
            y = unit - block_of_all * height
            group = block_of_all // blocks
            x = args[X] + y * args[X_ROW] + group * args[X_GROUP]
            new = y == 0 or unit == first
            any_row(args, arena, constants, scratch, x, y, group, block_of_all - group * blocks, new)

    return conv2d


def _blocks(variant: ConvVariant, machine: Machine) -> Any:
    """One output row of any block: of 32 channels or, as the last, of those that are left; `new` where the row before was of another."""
    full_row = _row_of_stored(variant, variant.lanes, machine)

    @inlined
    def full(args: Any, arena: Any, constants: Any, scratch: Any, x: Any, y: Any, group: Any, block: Any, new: Any) -> None:
        filters = args[FILTER] + group * args[FILTER_GROUP] + block * args[BLOCK_BYTES]
        full_row(args, arena, constants, scratch, x, filters, y, group, block * _BLOCK, new)

    if not variant.tail:
        return full
    tail_row = _row_of_stored(variant, variant.tail, machine)

    @inlined
    def full_or_last(args: Any, arena: Any, constants: Any, scratch: Any, x: Any, y: Any, group: Any, block: Any, new: Any) -> None:
        if block == args[BLOCKS] - 1:
            tail_row(args, arena, constants, scratch, x, args[TAIL] + group * args[TAIL_GROUP], y, group, block * _BLOCK, new)
        else:
            full(args, arena, constants, scratch, x, y, group, block, new)

    return full_or_last


def _row_of_stored(variant: ConvVariant, lanes: int, machine: Machine) -> Any:
    """One output row of a block of `lanes` channels, its filters as they are stored."""
    octets, row = memory("u8"), _row(variant, lanes, machine)

    @inlined
    def as_stored(
        args: Any, arena: Any, constants: Any, scratch: Any, x: Any, filters: Any, y: Any, group: Any, channel: Any, new: Any
    ) -> None:
        row(args, arena, constants, x, octets.at(constants, filters), y, group, channel)

    if not variant.stored:
        return as_stored
    spread = spread_block(variant.stored, lanes, variant.masked, machine)

    @inlined
    def spread_first(
        args: Any, arena: Any, constants: Any, scratch: Any, x: Any, filters: Any, y: Any, group: Any, channel: Any, new: Any
    ) -> None:
        if new:
            spread(octets.at(constants, filters), scratch, args)
        row(args, arena, constants, x, scratch, y, group, channel)

    return spread_first


def _row(variant: ConvVariant, lanes: int, machine: Machine) -> Any:
    """One output row of a block of `lanes` channels."""
    sub = sub_lanes(variant.kind, machine, lanes)
    subs = lanes // sub
    pixels = variant.pixels
    compute = tile(TileShape(variant.kind, pixels, sub, lanes, variant.masked and not variant.stored), machine)
    store = epilogue(_epilogue(variant), sub)
    octets, words = memory("u8"), memory("i64")
    accumulators = stack(4 * pixels * sub)
    sub_bytes = sub * lane_bits(variant.kind) // 8
    tabled = not variant.kind.startswith("f32")
    after = variant.residual
    added, with_signs = bool(after and after.added), bool(after and after.packed)
    spare_of = SIGNS if with_signs else Y if variant.output == "bits" else 0

    @inlined
    def pixel(p: Any, args: Any, arena: Any, constants: Any, sums: Any, y: Any, start: Any, skip: Any, of_all: Any, left: Any,
              table: Any) -> None:  # fmt: skip
        """End one pixel of the tile."""
        if added and p < skip:
            return
        out = _pixel(args, Y, y, start + p)
        other, signs, where = out, out, table
        if added:
            other = _pixel(args, OTHER, y, start + p)
        if with_signs:
            signs = _pixel(args, SIGNS, y, start + p)
        if tabled:
            where += words.get(constants, args[COLUMN_CLASSES] + 8 * (start + p))
        store(args, arena, constants, sums, 4 * sub * p, out, other, signs, of_all, left, where)

    every_pixel = repeated(pixel, pixels, unrolled=keeps_registers(variant.kind, machine))

    @inlined
    def row(args: Any, arena: Any, constants: Any, x: Any, filters: Any, y: Any, group: Any, channel: Any) -> None:
        width = args[WIDTH]
        sums = accumulators()
        table = args[TABLE]
        if tabled:
            table += words.get(constants, args[ROW_CLASSES] + 8 * y)
        column = 0
        while column < width:
            start = min(column, width - pixels)
            for s in range(subs):
                first = channel + s * sub
                left = args[CHANNELS] - first
                of_all = group * args[CHANNELS] + first
                compute(octets.at(arena, x + start * args[0]), octets.at(filters, s * sub_bytes), sums, args)
                # Pixels shared with the tile before are stored already, perhaps over the input that would be added to them again.
                every_pixel(args, arena, constants, sums, y, start, column - start, of_all, left, table)
            column += pixels
        if spare_of:
            _clear_spare(args, arena, spare_of, y, group, channel + lanes)

    return row


def _epilogue(variant: ConvVariant) -> Epilogue:
    accumulator = "differences" if variant.kind == "bits" else "floats" if variant.kind.startswith("f32") else "sums"
    return Epilogue(accumulator, variant.output, EPILOGUE, variant.scaled, variant.activation, variant.residual)


@inlined
def _pixel(args: Any, first: Any, y: Any, x: Any) -> Any:
    """The byte of a pixel of the tensor whose offset, bytes between rows and bytes between pixels are the arguments from `first` on."""
    return args[first] + y * args[first + 1] + x * args[first + 2]


@inlined
def _clear_spare(args: Any, arena: Any, tensor: Any, y: Any, group: Any, end: Any) -> None:
    """Bytes of packed pixels behind the last block are 0."""
    if group == args[GROUPS] - 1 and end >= args[CHANNELS]:
        used = (group * args[CHANNELS] + end) // 8
        for column in range(args[WIDTH]):
            out = _pixel(args, tensor, y, column)
            for i in range(used, args[tensor + 2]):
                arena[out + i] = 0
