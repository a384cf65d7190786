"""The code of depthwise convolutions: rows of tiles, vectors across channels, and the epilogue of all convolutions.

A tile is `pixels` neighbouring output pixels times one vector of channels; its accumulators stay in registers over the whole window.
Output channel o reads channel o // multiplier: a vector loads the channels it reads and repeats them, or, where the multiplier does not
allow that, gathers them with the help of a table. A unit of work is one output row of `GROUP` vectors of channels; parts take consecutive
units.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.depthwise_dot import DotTile
from edge.kernels.depthwise_tile import COLUMN_STEP, PIXEL_STEP, ROW_STEP, TAP_BYTES, TAPS_H, SignTile, Tile
from edge.kernels.epilogue import Epilogue, epilogue
from edge.kernels.isa import Machine
from edge.kernels.shapes import DepthwiseVariant
from edge.kernels.simd import INDEX, memory

# The argument row, as `edge.kernels.depthwise` writes it; 0 to 5 are the tile's window.
X, X_ROW, FILTER, HEIGHT, WIDTH, Y, Y_PIXEL, Y_ROW, CHANNELS, TABLE, READS = range(6, 17)  # READS: multiplier, or offset of the table
ROW_CLASSES, COLUMN_CLASSES = 17, 18  # of packed signs
EPILOGUE = 19  # and the six after it

GROUP = 4  # vectors of channels in a unit


def kernel(variant: DepthwiseVariant, machine: Machine) -> KernelFunction:
    """The kernel function of a variant, for `edge.kernels.build`."""
    lanes, pixels = variant.lanes, variant.pixels
    group = GROUP * lanes
    compute, end_pixels = _tile(variant, machine), _end_pixels(variant)
    octets, words = memory("u8"), memory("i64")
    packed, repeats, dot = _is_packed(variant), variant.repeats, variant.dot
    filter_bits = 1 if packed else {"f32f32": 32, "f32f16": 16, "f32bits": 1}.get(variant.kind, 8)
    value_bytes = 4 if variant.kind.startswith("f32") else 1

    @inlined
    def tile(args: Any, arena: Any, constants: Any, scratch: Any, x: Any, channel: Any) -> None:
        table = 0
        if repeats == 0:
            table = args[READS] + 4 * channel
        elif packed:
            x += channel // args[READS] // 8
        elif repeats == 1:
            x += channel * value_bytes
        else:
            x += channel // args[READS] * value_bytes
        if dot:
            filters = octets.at(constants, args[FILTER] + channel // lanes * args[TAPS_H] * args[TAP_BYTES])
        else:
            filters = octets.at(constants, args[FILTER] + channel * filter_bits // 8)
        compute(octets.at(arena, x), filters, octets.at(constants, table), octets.at(scratch, 0), args)

    def depthwise_conv2d(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        groups = (args[CHANNELS] + group - 1) // group
        units = args[HEIGHT] * groups
        for unit in range(units * part // parts, units * (part + 1) // parts):
            y = unit // groups
            first = (unit - y * groups) * group
            end = min(first + group, args[CHANNELS])
            table = args[TABLE]
            if packed:
                table += words.get(constants, args[ROW_CLASSES] + 8 * y)
            column = 0
            while column < args[WIDTH]:
                start = min(column, args[WIDTH] - pixels)
                x = args[X] + y * args[X_ROW] + start * args[PIXEL_STEP]
                for channel in range(first, end, lanes):
                    tile(args, arena, constants, scratch, x, channel)
                    end_pixels(args, arena, constants, scratch, args[Y] + y * args[Y_ROW], start, channel, table)
                column += pixels

    return depthwise_conv2d


def _is_packed(variant: DepthwiseVariant) -> bool:
    return variant.kind in ("bits", "bits32")


def _end_pixels(variant: DepthwiseVariant) -> Any:
    """The epilogue of a tile: end(args, arena, constants, scratch, row, column, channel, table) of the pixels from arena + row on."""
    lanes, pixels, packed = variant.lanes, variant.pixels, _is_packed(variant)
    at_once = math.gcd(lanes, 32 if variant.output == "bits" else 16)
    ends, words = epilogue(_epilogue(variant), at_once), memory("i64")
    fills = variant.output == "bits"  # spare bits too

    @inlined
    def end(args: Any, arena: Any, constants: Any, scratch: Any, row: Any, column: Any, channel: Any, table: Any) -> None:
        for p in range(pixels):
            at, where = row + (column + p) * args[Y_PIXEL], table
            if packed:
                where += words.get(constants, args[COLUMN_CLASSES] + 8 * (column + p))
            for lane in range(0, lanes, at_once):
                left = args[CHANNELS] - channel - lane
                if fills or left > 0:
                    ends(args, arena, constants, scratch, 4 * (lanes * p + lane), at, at, at, channel + lane, left, where)

    return end


def _epilogue(variant: DepthwiseVariant) -> Epilogue:
    accumulator = {"f32": "floats", "bit": "differences"}.get(variant.kind[:3], "sums")
    return Epilogue(accumulator, variant.output, EPILOGUE, variant.scaled, variant.activation)


# -- the tile ------------------------------------------------------------------------------------------------------------------


def _tile(variant: DepthwiseVariant, machine: Machine) -> Any:
    """The tile as a Numba intrinsic tile(x, filter, channel_bytes, out, args); pointers to the first of each."""

    @intrinsic
    def typed(context: Any, x: Any, filters: Any, channel_bytes: Any, out: Any, args: Any) -> Any:
        octets = types.CPointer(types.uint8)
        kind = types.void(octets, octets, octets, octets, types.CPointer(types.int64))

        def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            if variant.dot:
                x, filters, _, out, args = values
                steps = [builder.load(builder.gep(args, [INDEX(i)])) for i in (TAPS_H, ROW_STEP, TAP_BYTES, COLUMN_STEP, PIXEL_STEP)]
                DotTile(variant, builder, x, filters, out).emit(*steps)
            else:
                made = SignTile if _is_packed(variant) else Tile
                made(variant, machine, builder, *values).emit()
            return context.get_dummy_value()

        return kind, code

    return typed
