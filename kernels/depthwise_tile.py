"""The tile of depthwise convolutions, tap by tap; its accumulators stay in registers over the whole window."""

from __future__ import annotations

import llvmlite.ir as ir
from numba.core import cgutils

from edge.kernels.isa import Machine
from edge.kernels.shapes import DepthwiseVariant
from edge.kernels.simd import INDEX, address, opaque
from edge.kernels.tile import F32, I8, I32, I64, step

# The first arguments of the row, as `edge.kernels.depthwise` writes it.
PIXEL_STEP, TAPS_H, ROW_STEP, TAPS_W, COLUMN_STEP, TAP_BYTES = range(6)

_I1 = ir.IntType(1)


class Tile:
    """Writes the code of one tile of numbers: one tap after the other, a vector of channels of every pixel at a time."""

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
        self.kind = self._accumulator()
        zero = ir.Constant(self.kind, [0.0 if self.floating else 0] * variant.lanes)
        self.accumulators = [cgutils.alloca_once_value(builder, zero) for _ in range(variant.pixels)]
        for slot in self.accumulators:  # alloca_once initialises at the function's entry only
            builder.store(zero, slot)

    def _accumulator(self) -> ir.VectorType:
        return ir.VectorType(F32 if self.floating else I32, self.variant.lanes)

    def _total(self, acc: ir.Value) -> ir.Value:
        """An accumulator as 32-bit numbers."""
        return acc

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
            total = self._total(builder.load(slot))
            builder.store(total, address(builder, self.out, INDEX(4 * self.variant.lanes * i), total.type), align=4)

    def _tap(self, start: ir.Value, pixel_step: ir.Value, pointer: ir.Value) -> None:
        """One tap of every pixel."""
        builder = self.builder
        filters = self._filters(pointer)
        for slot in self.accumulators:
            start = opaque(builder, start)
            builder.store(self._multiply(builder.load(slot), self._values(start), filters), slot)
            start = builder.gep(start, [pixel_step])

    def _filters(self, pointer: ir.Value) -> ir.Value:
        if self.floating:
            filters: ir.Value = step(self.variant.kind, self.machine).filters(self.builder, pointer, self.variant.lanes)[0]
            return filters
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


class SignTile(Tile):
    """The tile of packed signs: counts how many differ from the filter's, in bytes where the window has less than 256 taps."""

    def _accumulator(self) -> ir.VectorType:
        return ir.VectorType(I8 if self.variant.kind == "bits" else I32, self.variant.lanes)

    def _total(self, acc: ir.Value) -> ir.Value:
        wide = ir.VectorType(I32, self.variant.lanes)
        return self.builder.zext(acc, wide) if acc.type != wide else acc

    def _filters(self, pointer: ir.Value) -> ir.Value:
        return self._signs(pointer, self.variant.lanes)

    def _signs(self, pointer: ir.Value, count: int) -> ir.Value:
        """`count` bits, of whole bytes, as a vector."""
        word = self.builder.load(self.builder.bitcast(pointer, ir.IntType(count).as_pointer()), align=1)
        return self.builder.bitcast(word, ir.VectorType(_I1, count))

    def _values(self, pixel: ir.Value) -> ir.Value:
        lanes, repeats = self.variant.lanes, self.variant.repeats
        if not repeats:
            return self._gather(pixel)
        signs = self._signs(pixel, max(8, lanes // repeats))
        return self._repeated(signs) if repeats > 1 else signs

    def _repeated(self, signs: ir.Value) -> ir.Value:
        """Every sign `repeats` times; as bytes, which machines without masks shuffle well."""
        lanes = self.variant.lanes
        octets = self.builder.sext(signs, ir.VectorType(I8, signs.type.count))
        places = ir.Constant(ir.VectorType(I32, lanes), [lane // self.variant.repeats for lane in range(lanes)])
        repeated = self.builder.shuffle_vector(octets, octets, places)
        return self.builder.icmp_signed("<", repeated, ir.Constant(repeated.type, [0] * lanes))

    def _gather(self, pixel: ir.Value) -> ir.Value:
        """A bit for every lane, of the channel that the table names."""
        builder = self.builder
        signs = ir.Constant(ir.VectorType(_I1, self.variant.lanes), ir.Undefined)
        for lane in range(self.variant.lanes):
            channel = builder.load(address(builder, self.channel_bytes, INDEX(4 * lane), I32), align=4)
            where = builder.sext(builder.lshr(channel, I32(3)), I64)
            octet = builder.zext(builder.load(builder.gep(pixel, [where]), align=1), I32)
            bit = builder.trunc(builder.lshr(octet, builder.and_(channel, I32(7))), _I1)
            signs = builder.insert_element(signs, bit, I32(lane))
        return signs

    def _multiply(self, acc: ir.Value, values: ir.Value, filters: ir.Value) -> ir.Value:
        return self.builder.sub(acc, self.builder.sext(self.builder.xor(values, filters), acc.type))
