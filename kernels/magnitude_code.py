"""The code of the map K of XNOR-Net: a box filter that is never computed anew for a window.

A unit of work is an output row; parts take consecutive units. Each row of the input becomes one row of magnitudes (a float32 a pixel), once
in a part; then those of a window's rows are added as vectors along the width, then the window's columns. Outside the image all are 0,
which changes no sum of magnitudes. Nothing is subtracted from a sum: rounding errors would add up along the image.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.shapes import VALUES
from edge.kernels.simd import WITHOUT_SIGN, fill, float_of_bits, memory, vector

# The argument row, as `edge.kernels.magnitude` writes it.
X, X_ROW, X_PIXEL, HEIGHT_IN, WIDTH_IN, CHANNELS = range(6)
Y, Y_ROW, HEIGHT, WIDTH = range(6, 10)
WINDOW_H, WINDOW_W, STRIDE_H, STRIDE_W, PAD_TOP, PAD_LEFT = range(10, 16)
FACTOR, RING_ROWS, RING_ROW, SUMS, SCRATCH_BYTES = range(16, 21)

F = vector("f32", VALUES)
I = vector("i32", VALUES)  # noqa: E741
FLOATS = memory("f32")
as_float = float_of_bits()
_fill = fill()


@inlined
def _absolute(x: Any) -> Any:
    return F.of_bits(I.of_bits(x) & I.splat(WITHOUT_SIGN))


@inlined
def _magnitude(arena: Any, x: Any, channels: Any) -> Any:
    """The sum of abs over a pixel, as `edge.kernels.arithmetic.magnitudes` defines it."""
    total = F.splat(0.0)
    i = 0
    while i + VALUES <= channels:
        total = total + _absolute(F.load(arena, x + 4 * i))
        i += VALUES
    if i < channels:
        total = total + F.first(channels - i, _absolute(F.load(arena, x + 4 * i)), F.splat(0.0))
    return F.total(total)


@inlined
def _reduce_row(args: Any, arena: Any, scratch: Any, row: Any) -> None:
    """The magnitudes of a row of the image to its place in the ring."""
    to = (row % args[RING_ROWS]) * args[RING_ROW]
    x = args[X] + row * args[X_ROW]
    for column in range(args[WIDTH_IN]):
        FLOATS.put(scratch, to + 4 * column, _magnitude(arena, x + column * args[X_PIXEL], args[CHANNELS]))


@inlined
def _add_rows(args: Any, scratch: Any, first: Any, last: Any) -> None:
    """The sums of the rows of the ring from `first` to before `last`."""
    slot = first % args[RING_ROWS]
    sums = args[SUMS] + 4 * args[PAD_LEFT]
    for at in range(0, args[RING_ROW], 4 * VALUES):
        other = slot
        total = F.load(scratch, other * args[RING_ROW] + at)
        for _ in range(first + 1, last):
            other += 1
            if other == args[RING_ROWS]:
                other = 0
            total = total + F.load(scratch, other * args[RING_ROW] + at)
        F.store(scratch, sums + at, total)


@inlined
def _add_columns(args: Any, arena: Any, scratch: Any, y: Any) -> None:
    """The output row from the sums: windows side by side as vectors, windows apart one by one."""
    width, sums, factor = args[WIDTH], args[SUMS], as_float(args[FACTOR])
    if args[STRIDE_W] > 1:
        for column in range(width):
            at = sums + 4 * column * args[STRIDE_W]
            value = FLOATS.get(scratch, at)
            for tap in range(1, args[WINDOW_W]):
                value += FLOATS.get(scratch, at + 4 * tap)
            FLOATS.put(arena, y + 4 * column, value * factor)
        return
    for column in range(0, width, VALUES):
        at = sums + 4 * column
        total = F.load(scratch, at)
        for tap in range(1, args[WINDOW_W]):
            total = total + F.load(scratch, at + 4 * tap)
        mean = total * F.splat(factor)
        if width - column >= VALUES:
            F.store(arena, y + 4 * column, mean)
        else:
            F.store_first(arena, y + 4 * column, mean, width - column)


def kernel() -> KernelFunction:
    """The kernel function, for `edge.kernels.build`."""

    def magnitude_map(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        _fill(scratch, 0, 0, args[SCRATCH_BYTES])
        reduced = 0
        for row in range(args[HEIGHT] * part // parts, args[HEIGHT] * (part + 1) // parts):
            top = row * args[STRIDE_H] - args[PAD_TOP]
            first, last = max(top, 0), min(top + args[WINDOW_H], args[HEIGHT_IN])
            for source in range(max(first, reduced), last):
                _reduce_row(args, arena, scratch, source)
            reduced = last
            _add_rows(args, scratch, first, last)
            _add_columns(args, arena, scratch, args[Y] + row * args[Y_ROW])

    return magnitude_map
