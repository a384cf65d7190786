"""The tile of int8 depthwise convolutions whose products are summed four or two at a time, by one instruction for a vector of channels.

Neighbouring columns of a row are interleaved, so that a lane holds one channel of 4 columns (as bytes, for vpdpbusd) or of 2 (as int16, for
vpmaddwd). Where windows are one column apart the same columns serve two output pixels, the second with filters moved on by one column:

    columns       x0 x1 x2 x3
    first pixel   w0 w1 w2  0
    second         0 w0 w1 w2

`edge.kernels.depthwise` lays the filters out so: [vector of channels][row][pixel of a pair][group of columns][lane][column].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir
from numba.core import cgutils

from edge.kernels.shapes import DepthwiseVariant
from edge.kernels.simd import INDEX, address, opaque
from edge.kernels.tile import I8, I32, I64

_I16 = ir.IntType(16)
_PAIRS = 8  # channels of a vpmaddwd


class DotTile:
    """Writes the code of one tile; the pointers are those of the first byte of input and filters, and of where the sums go."""

    def __init__(self, variant: DepthwiseVariant, builder: ir.IRBuilder, x: ir.Value, filters: ir.Value, out: ir.Value) -> None:
        self.variant, self.builder = variant, builder
        self.x, self.filters, self.out = x, filters, out
        self.kind = ir.VectorType(I32, variant.lanes)
        zero = ir.Constant(self.kind, [0] * variant.lanes)
        self.accumulators = [cgutils.alloca_once_value(builder, zero) for _ in range(variant.pixels)]
        for slot in self.accumulators:  # alloca_once initialises at the function's entry only
            builder.store(zero, slot)

    def emit(self, rows: ir.Value, row_step: ir.Value, filter_step: ir.Value, column_step: ir.Value, pixel_step: ir.Value) -> None:
        """Sum `rows` rows of the window; steps are bytes between rows of input and filters, between columns, and between windows."""
        builder = self.builder
        pair_step = builder.mul(pixel_step, INDEX(self.variant.pair))
        with cgutils.for_range(builder, rows, intp=I64) as row:
            start = builder.gep(self.x, [builder.mul(row.index, row_step)])
            filters = builder.gep(self.filters, [builder.mul(row.index, filter_step)])
            for first in range(0, self.variant.pixels, self.variant.pair):
                start = opaque(builder, start)
                self._pair(start, column_step, filters, first)
                start = builder.gep(start, [pair_step])
        for i, slot in enumerate(self.accumulators):
            where = address(builder, self.out, INDEX(4 * self.variant.lanes * i), self.kind)
            builder.store(builder.load(slot), where, align=4)

    def _pair(self, start: ir.Value, column_step: ir.Value, filters: ir.Value, first: int) -> None:
        """One row of the window of the pixels that read the same columns."""
        variant = self.variant
        together = min(variant.pair, variant.pixels - first)
        columns = variant.taps_w + together - 1
        groups = -(-(variant.taps_w + variant.pair - 1) // variant.dot)
        for group in range(-(-columns // variant.dot)):
            used = range(variant.dot * group, min(variant.dot * (group + 1), columns))
            values = self._interleaved(start, column_step, used)
            for pixel in range(together):
                if used[0] - pixel < variant.taps_w:
                    slot = self.accumulators[first + pixel]
                    self.builder.store(self._dot(self.builder.load(slot), values, self._filter(filters, pixel * groups + group)), slot)

    def _filter(self, filters: ir.Value, number: int) -> ir.Value:
        where = address(self.builder, filters, INDEX(4 * self.variant.lanes * number), self.kind)
        return self.builder.load(where, align=4)

    def _interleaved(self, start: ir.Value, column_step: ir.Value, columns: range) -> list[ir.Value]:
        """Vectors of bytes, a register of channels each: all columns of the first channel, then of the next; columns not read are 0."""
        builder, lanes, dot = self.builder, self.variant.lanes, self.variant.dot
        kind = ir.VectorType(I8, lanes)
        values = [ir.Constant(kind, [0] * lanes) for _ in range(dot)]
        for i, column in enumerate(columns):
            where = address(builder, start, builder.mul(column_step, INDEX(column)), kind)
            values[i] = builder.load(where, align=1)
        while len(values) > 2:
            values = [_shuffled(builder, values[i], values[i + 1], range(2 * values[0].type.count)) for i in range(0, len(values), 2)]
        return [
            _shuffled(builder, values[0], values[1], [column * lanes + lane for lane in register for column in range(dot)])
            for register in self._registers()
        ]

    def _registers(self) -> list[range]:
        """The channels of each instruction; vpmaddwd is used with 8, which every machine has that has it with 16."""
        size = self.variant.lanes if self.variant.dot == 4 else _PAIRS
        return [range(first, first + size) for first in range(0, self.variant.lanes, size)]

    def _dot(self, acc: ir.Value, values: list[ir.Value], filters: ir.Value) -> ir.Value:
        return self._quads(acc, values[0], filters) if self.variant.dot == 4 else self._pairs(acc, values, filters)

    def _quads(self, acc: ir.Value, values: ir.Value, filters: ir.Value) -> ir.Value:
        """vpdpbusd, which takes its first operand for unsigned: int8 are read as x + 128."""
        if self.variant.kind == "i8i8":
            values = self.builder.xor(values, ir.Constant(values.type, [0x80] * values.type.count))
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.variant.lanes}"
        return self._call(name, self.kind, acc, self.builder.bitcast(values, self.kind), filters)

    def _pairs(self, acc: ir.Value, values: list[ir.Value], filters: ir.Value) -> ir.Value:
        """vpmaddwd, of int16."""
        builder, wide = self.builder, ir.VectorType(_I16, 2 * _PAIRS)
        extend = builder.sext if self.variant.kind == "i8i8" else builder.zext
        sums = []
        for register, bytes_of_register in zip(self._registers(), values, strict=True):
            part = builder.bitcast(_shuffled(builder, filters, filters, register), wide)
            sums.append(self._call("llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, _PAIRS), extend(bytes_of_register, wide), part))
        return builder.add(acc, sums[0] if len(sums) == 1 else _shuffled(builder, sums[0], sums[1], range(self.variant.lanes)))

    def _call(self, name: str, result: ir.Type, *operands: ir.Value) -> Any:
        kind = ir.FunctionType(result, [operand.type for operand in operands])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), operands)


def _shuffled(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, places: Sequence[int]) -> ir.Value:
    """The lanes of `a` and `b`, numbered through, at these places."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(places)), list(places)))
