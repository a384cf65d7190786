"""The code of pools: every output pixel, a vector of channels (or of words of packed channels) at a time.

A unit of work is one output row of `GROUP` vectors; parts take consecutive units.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.shapes import PoolVariant
from edge.kernels.simd import ROUND, vector

# The argument row, as `edge.kernels.pool` writes it.
X, X_ROW, X_PIXEL, HEIGHT_IN, WIDTH_IN = range(5)
Y, Y_ROW, Y_PIXEL, HEIGHT, WIDTH, COUNT = range(5, 11)
WINDOW_H, WINDOW_W, STRIDE_H, STRIDE_W, PAD_TOP, PAD_LEFT, FLIP = range(11, 18)

GROUP = 4  # vectors in a unit
_BYTES = {"f32": 4, "i8": 1, "u8": 1, "i16": 2, "i32": 4, "i64": 8}
_LOWEST = {"f32": float("-inf"), "i8": -128, "u8": 0}


def kernel(variant: PoolVariant) -> KernelFunction:
    """The kernel function of a variant, for `edge.kernels.build`."""
    lanes, nbytes = variant.lanes, _BYTES[variant.element]
    group = GROUP * lanes
    v = vector(variant.element, lanes)
    reduce = _REDUCTIONS[variant.reduction](variant)
    size, clipped_too = variant.window, variant.clipped

    @inlined
    def row_of_vectors(
        args: Any, arena: Any, constants: Any, corner: Any, rows: Any, columns: Any, clipped: Any, out: Any, first: Any, end: Any
    ) -> None:
        """One output pixel whose window, `rows` x `columns` inside the image, starts at arena + corner."""
        for channel in range(first, end, lanes):
            at = channel * nbytes
            result = reduce(args, arena, constants, corner + at, rows, columns, clipped, at)
            remaining = args[COUNT] - channel
            if remaining >= lanes:
                v.store(arena, out + at, result)
            else:
                v.store_first(arena, out + at, result, remaining)

    @inlined
    def pixel(args: Any, arena: Any, constants: Any, top: Any, left: Any, out: Any, first: Any, end: Any) -> None:
        """One output pixel whose window starts at (top, left), which may lie outside the image."""
        inside = (top >= 0) & (left >= 0) & (top + size <= args[HEIGHT_IN]) & (left + size <= args[WIDTH_IN])
        if size > 0 and (inside or not clipped_too):  # taps that are known are unrolled
            corner = args[X] + top * args[X_ROW] + left * args[X_PIXEL]
            row_of_vectors(args, arena, constants, corner, size, size, False, out, first, end)
        else:
            y0, y1 = max(top, 0), min(top + args[WINDOW_H], args[HEIGHT_IN])
            x0, x1 = max(left, 0), min(left + args[WINDOW_W], args[WIDTH_IN])
            corner = args[X] + y0 * args[X_ROW] + x0 * args[X_PIXEL]
            clipped = (y0 > top) | (x0 > left)
            row_of_vectors(args, arena, constants, corner, y1 - y0, x1 - x0, clipped, out, first, end)

    def pool2d(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        groups = (args[COUNT] + group - 1) // group
        units = args[HEIGHT] * groups
        for unit in range(units * part // parts, units * (part + 1) // parts):
            y = unit // groups
            first = (unit - y * groups) * group
            end = min(first + group, args[COUNT])
            top = y * args[STRIDE_H] - args[PAD_TOP]
            for column in range(args[WIDTH]):
                left = column * args[STRIDE_W] - args[PAD_LEFT]
                pixel(args, arena, constants, top, left, args[Y] + y * args[Y_ROW] + column * args[Y_PIXEL], first, end)

    return pool2d


# -- reductions of a window: `rows` x `columns` pixels from arena + x on ----------------------------------------------------------


def _maximum(variant: PoolVariant) -> Any:
    return _maximum_of_bits(variant) if variant.packed else _maximum_of_numbers(variant)


def _maximum_of_numbers(variant: PoolVariant) -> Any:
    """Outside pixels count as the lowest value: with them the first pixel is not a number only where the window is not clipped."""
    v = vector(variant.element, variant.lanes)
    lowest = _LOWEST[variant.element]

    @inlined
    def reduce(args: Any, arena: Any, constants: Any, x: Any, rows: Any, columns: Any, clipped: Any, at: Any) -> Any:
        if clipped:
            result = v.splat(lowest)
        else:
            result = v.load(arena, x)
        for row in range(rows):
            for column in range(columns):
                result = v.atleast(result, v.load(arena, x + row * args[X_ROW] + column * args[X_PIXEL]))
        return result

    return reduce


def _maximum_of_bits(variant: PoolVariant) -> Any:
    v = vector(variant.element, variant.lanes)
    flipped = variant.flipped

    @inlined
    def reduce(args: Any, arena: Any, constants: Any, x: Any, rows: Any, columns: Any, clipped: Any, at: Any) -> Any:
        result = v.splat(-1)
        for row in range(rows):
            for column in range(columns):
                word = v.load(arena, x + row * args[X_ROW] + column * args[X_PIXEL])
                if flipped:
                    word = word ^ v.load(constants, args[FLIP] + at)
                result = result & word
        if flipped:
            result = result ^ v.load(constants, args[FLIP] + at)
        return result

    return reduce


def _average(variant: PoolVariant) -> Any:
    """Sum and division in float32, or sum in int32 and the quotient rounded half to even."""
    source, f, i = vector(variant.element, variant.lanes), vector("f32", variant.lanes), vector("i32", variant.lanes)
    floating = variant.element == "f32"
    total = f if floating else i
    zero = 0.0 if floating else 0

    @inlined
    def reduce(args: Any, arena: Any, constants: Any, x: Any, rows: Any, columns: Any, clipped: Any, at: Any) -> Any:
        result = total.splat(zero)
        for row in range(rows):
            for column in range(columns):
                values = source.load(arena, x + row * args[X_ROW] + column * args[X_PIXEL])
                if floating:
                    result = result + values
                else:
                    result = result + source.to_i32(values)
        mean = total.to_f32(result) / f.splat(rows * columns)
        if floating:
            return mean
        return i.to_i8(f.to_i32((mean + f.splat(ROUND)) - f.splat(ROUND)))

    return reduce


_REDUCTIONS = {"max": _maximum, "average": _average}
