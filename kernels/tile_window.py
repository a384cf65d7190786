"""Where the words of a tile's pixels lie in the image: the window, a walk over its positions, and the bits behind its segments."""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ir
from numba.core import cgutils

from edge.kernels.simd import INDEX, splat

_I64 = ir.IntType(64)


@dataclass(frozen=True)
class Window:
    """The first pixel's first scalar, and the seven numbers of a tile's window, as values in the code (steps in bytes)."""

    x: ir.Value
    pixel_step: ir.Value
    rows: ir.Value
    row_step: ir.Value
    columns: ir.Value
    column_step: ir.Value
    positions: ir.Value  # of a segment
    mask: ir.Value  # of a segment's last position


def load_window(builder: ir.IRBuilder, x: ir.Value, numbers: ir.Value) -> Window:
    """The window whose seven numbers are at a pointer."""
    return Window(x, *(builder.load(builder.gep(numbers, [INDEX(i)])) for i in range(7)))


def variable(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A slot on the stack that holds `value` from here on (Numba's alloca_once_value sets it at the function's entry only)."""
    slot = cgutils.alloca_once(builder, value.type)
    builder.store(value, slot)
    return slot


def least(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The smaller of two integers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


class Walk:
    """Where in the image the next position of the first pixel is: behind the last position of a segment comes the next segment's first."""

    def __init__(self, builder: ir.IRBuilder, window: Window, *, masked: bool) -> None:
        self.builder, self.window, self.masked = builder, window, masked
        along = builder.mul(builder.sub(window.positions, INDEX(1)), INDEX(8))  # from a segment's first position to its last
        across = builder.mul(builder.sub(window.columns, INDEX(1)), window.column_step)
        self.to_column = builder.sub(window.column_step, along)
        self.to_row = builder.sub(window.row_step, builder.add(along, across))
        self.start, self.positions, self.columns = (
            variable(builder, value) for value in (window.x, window.positions, window.columns)
        )  # of which the last two are what is left

    def next(self, kind: ir.VectorType, most: ir.Value) -> tuple[ir.Value, ir.Value | None, ir.Value]:
        """A step to the next words of a segment, up to `most`: their address, the mask of their bits (None: all) and how many they are."""
        builder, window = self.builder, self.window
        start, positions, columns = (builder.load(slot) for slot in (self.start, self.positions, self.columns))
        taken = least(builder, least(builder, positions, INDEX(kind.count)), most)
        ends = builder.icmp_signed("==", positions, taken)
        ends_row = builder.and_(ends, builder.icmp_signed("==", columns, INDEX(1)))
        along = builder.mul(builder.sub(taken, INDEX(1)), INDEX(8))
        step = builder.select(ends, builder.select(ends_row, self.to_row, self.to_column), INDEX(8))
        builder.store(builder.gep(start, [builder.add(along, step)]), self.start)
        builder.store(builder.select(ends, window.positions, builder.sub(positions, taken)), self.positions)
        fewer = builder.select(ends, builder.sub(columns, INDEX(1)), columns)
        builder.store(builder.select(ends_row, window.columns, fewer), self.columns)
        return start, self._mask(kind, positions) if self.masked else None, taken

    def _mask(self, kind: ir.VectorType, positions: ir.Value) -> ir.Value:
        """All bits but those behind a segment whose last word is number `positions` from here."""
        builder = self.builder
        numbers = ir.Constant(kind, list(range(1, kind.count + 1)))
        last = builder.icmp_signed("==", numbers, splat(builder, positions, kind))
        return builder.select(last, splat(builder, self.window.mask, kind), ir.Constant(kind, [-1] * kind.count))
