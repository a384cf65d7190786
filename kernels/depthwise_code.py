"""The code of depthwise convolutions: rows of tiles, vectors across channels, and the epilogue of all convolutions.

A tile is `pixels` neighbouring output pixels times one vector of channels; its accumulators stay in registers over the whole window.
Output channel o reads channel o // multiplier: a vector loads the channels it reads and repeats them, or, where the multiplier does not
allow that, gathers them with the help of a table. A unit of work is one output row of `GROUP` vectors of channels; parts take consecutive
units.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.epilogue import Epilogue, epilogue
from edge.kernels.isa import Machine
from edge.kernels.shapes import DepthwiseVariant
from edge.kernels.simd import INDEX, address, memory
from edge.kernels.tile import F32, I8, I32, I64, step

# The argument row, as `edge.kernels.depthwise` writes it.
PIXEL_STEP, TAPS_H, ROW_STEP, TAPS_W, COLUMN_STEP, TAP_BYTES = range(6)
X, X_ROW, FILTER, HEIGHT, WIDTH, Y, Y_PIXEL, Y_ROW, CHANNELS, TABLE, READS = range(6, 17)  # READS: multiplier, or offset of the table
EPILOGUE = 17  # and the six after it

GROUP = 4  # vectors of channels in a unit


def kernel(variant: DepthwiseVariant, machine: Machine) -> KernelFunction:
    """The kernel function of a variant, for `edge.kernels.build`."""
    lanes, pixels = variant.lanes, variant.pixels
    group = GROUP * lanes
    ends = epilogue(_epilogue(variant), lanes)
    compute = _tile(variant, machine)
    octets = memory("u8")
    filter_bits = {"f32f32": 32, "f32bits": 1}.get(variant.kind, 8)
    value_bytes = 4 if variant.kind.startswith("f32") else 1
    repeats = variant.repeats

    @inlined
    def tile(args: Any, arena: Any, constants: Any, scratch: Any, x: Any, out: Any, channel: Any) -> None:
        table = 0
        if repeats == 0:
            table = args[READS] + 4 * channel
        elif repeats == 1:
            x += channel * value_bytes
        else:
            x += channel // args[READS] * value_bytes
        filters = octets.at(constants, args[FILTER] + channel * filter_bits // 8)
        compute(octets.at(arena, x), filters, octets.at(constants, table), octets.at(scratch, 0), args)
        for p in range(pixels):
            left = args[CHANNELS] - channel
            at = out + p * args[Y_PIXEL]
            ends(args, arena, constants, scratch, 4 * lanes * p, at, at, at, channel, left, args[TABLE])

    def depthwise_conv2d(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        groups = (args[CHANNELS] + group - 1) // group
        units = args[HEIGHT] * groups
        for unit in range(units * part // parts, units * (part + 1) // parts):
            y = unit // groups
            first = (unit - y * groups) * group
            end = min(first + group, args[CHANNELS])
            column = 0
            while column < args[WIDTH]:
                start = min(column, args[WIDTH] - pixels)
                x = args[X] + y * args[X_ROW] + start * args[PIXEL_STEP]
                out = args[Y] + y * args[Y_ROW] + start * args[Y_PIXEL]
                for channel in range(first, end, lanes):
                    tile(args, arena, constants, scratch, x, out, channel)
                column += pixels

    return depthwise_conv2d


def _epilogue(variant: DepthwiseVariant) -> Epilogue:
    accumulator = "floats" if variant.kind.startswith("f32") else "sums"
    return Epilogue(accumulator, variant.output, EPILOGUE, variant.scaled, variant.leaky)


# -- the tile ------------------------------------------------------------------------------------------------------------------


def _tile(variant: DepthwiseVariant, machine: Machine) -> Any:
    """The tile as a Numba intrinsic tile(x, filter, channel_bytes, out, args); pointers to the first of each."""

    @intrinsic
    def typed(context: Any, x: Any, filters: Any, channel_bytes: Any, out: Any, args: Any) -> Any:
        octets = types.CPointer(types.uint8)
        kind = types.void(octets, octets, octets, octets, types.CPointer(types.int64))

        def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            _Tile(variant, machine, builder, *values).emit()
            return context.get_dummy_value()

        return kind, code

    return typed


class _Tile:
    """Writes the code of one tile."""

    def __init__(
        self,
        variant: DepthwiseVariant,
        machine: Machine,
        builder: ir.IRBuilder,
        x: ir.Value,
        filters: ir.Value,
        channel_bytes: ir.Value,
        out: ir.Value,
        args: ir.Value,
    ) -> None:
        self.variant, self.machine, self.builder = variant, machine, builder
        self.x, self.filters, self.channel_bytes, self.out = x, filters, channel_bytes, out
        self.args = args
        self.floating = variant.kind.startswith("f32")
        self.stored = F32 if self.floating else I8
        self.kind = ir.VectorType(F32 if self.floating else I32, variant.lanes)
        zero = ir.Constant(self.kind, [0.0 if self.floating else 0] * variant.lanes)
        self.accumulators = [cgutils.alloca_once_value(builder, zero) for _ in range(variant.pixels)]
        for slot in self.accumulators:  # alloca_once initialises at the function's entry only
            builder.store(zero, slot)

    def _argument(self, number: int) -> ir.Value:
        return self.builder.load(self.builder.gep(self.args, [INDEX(number)]))

    def emit(self) -> None:
        builder = self.builder
        cursor = cgutils.alloca_once_value(builder, self.filters)
        builder.store(self.filters, cursor)
        rows, columns, tap_bytes = self._argument(TAPS_H), self._argument(TAPS_W), self._argument(TAP_BYTES)
        row_step, column_step, pixel_step = self._argument(ROW_STEP), self._argument(COLUMN_STEP), self._argument(PIXEL_STEP)
        with cgutils.for_range(builder, rows, intp=I64) as row, cgutils.for_range(builder, columns, intp=I64) as column:
            offset = builder.add(builder.mul(row.index, row_step), builder.mul(column.index, column_step))
            pointer = builder.load(cursor)
            self._tap(builder.gep(self.x, [offset]), pixel_step, pointer)
            builder.store(builder.gep(pointer, [tap_bytes]), cursor)
        for i, slot in enumerate(self.accumulators):
            where = address(builder, self.out, INDEX(4 * self.variant.lanes * i), self.kind)
            builder.store(builder.load(slot), where, align=4)

    def _tap(self, start: ir.Value, pixel_step: ir.Value, pointer: ir.Value) -> None:
        """One tap of every pixel."""
        builder = self.builder
        filters = self._filters(pointer)
        for pixel, slot in enumerate(self.accumulators):
            values = self._values(builder.gep(start, [builder.mul(pixel_step, INDEX(pixel))]))
            builder.store(self._multiply(builder.load(slot), values, filters), slot)

    def _filters(self, pointer: ir.Value) -> ir.Value:
        if self.floating:
            return step(self.variant.kind, self.machine).filters(self.builder, pointer, self.variant.lanes)
        return self._widened(self._load(pointer, self.variant.lanes), signed=True)

    def _multiply(self, acc: ir.Value, values: ir.Value, filters: ir.Value) -> ir.Value:
        if self.floating:
            return step(self.variant.kind, self.machine).multiply(self.builder, acc, values, filters)
        return self.builder.add(acc, self.builder.mul(values, filters))

    def _values(self, pixel: ir.Value) -> ir.Value:
        """What the lanes read of a pixel, as accumulators are."""
        found = self._load_repeated(pixel) if self.variant.repeats else self._gather(pixel)
        return found if self.floating else self._widened(found, signed=self.variant.kind == "i8i8")

    def _load(self, pointer: ir.Value, lanes: int) -> ir.Value:
        kind = ir.VectorType(self.stored, lanes)
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=1)

    def _load_repeated(self, pixel: ir.Value) -> ir.Value:
        lanes, repeats = self.variant.lanes, self.variant.repeats
        channels = self._load(pixel, lanes // repeats)
        places = ir.Constant(ir.VectorType(I32, lanes), [lane // repeats for lane in range(lanes)])
        return self.builder.shuffle_vector(channels, channels, places) if repeats > 1 else channels

    def _gather(self, pixel: ir.Value) -> ir.Value:
        builder, kind = self.builder, ir.VectorType(self.stored, self.variant.lanes)
        values = ir.Constant(kind, ir.Undefined)
        for lane in range(self.variant.lanes):
            where = builder.load(address(builder, self.channel_bytes, INDEX(4 * lane), I32), align=4)
            source = address(builder, pixel, builder.sext(where, I64), self.stored)
            values = builder.insert_element(values, builder.load(source, align=1), I32(lane))
        return values

    def _widened(self, value: ir.Value, *, signed: bool) -> ir.Value:
        return (self.builder.sext if signed else self.builder.zext)(value, self.kind)
