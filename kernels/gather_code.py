"""The code of cutting, resizing, turning and looking up. A unit of work is a row of the output; parts take consecutive units.

Tables of int64 or float32 lie among the constants; `edge.kernels.gather` makes them from shapes, so that no data leads to an address.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.move_code import copy_bytes
from edge.kernels.multiply_code import put
from edge.kernels.shapes import VALUES
from edge.kernels.simd import copy, memory, vector

HEIGHT, WIDTH = range(2)  # of every argument row here

F = vector("f32", VALUES)
I64, FLOATS, _U8 = memory("i64"), memory("f32"), memory("u8")
_copy = copy()


def copy_pixels() -> KernelFunction:
    """Bytes from the place that the row and the column give; the arguments are those of `edge.kernels.gather._copied`."""
    used, spare, y, y_row, y_pixel, rows, columns = range(2, 9)

    def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        for row in range(args[HEIGHT] * part // parts, args[HEIGHT] * (part + 1) // parts):
            source = I64.get(constants, args[rows] + 8 * row)
            for column in range(args[WIDTH]):
                to = args[y] + row * args[y_row] + column * args[y_pixel]
                copy_bytes(arena, to, source + I64.get(constants, args[columns] + 8 * column), args[used])
                for byte in range(args[spare]):
                    _U8.put(arena, to + args[used] + byte, 0)

    return kernel


def copy_values(nbytes: int) -> KernelFunction:
    """Values of `nbytes`, one by one: `step` bytes apart in the input."""
    channels, step, y, y_row, y_pixel, rows, columns = range(2, 9)
    values = memory({1: "u8", 4: "i32"}[nbytes])

    def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        for row in range(args[HEIGHT] * part // parts, args[HEIGHT] * (part + 1) // parts):
            for column in range(args[WIDTH]):
                source = I64.get(constants, args[rows] + 8 * row) + I64.get(constants, args[columns] + 8 * column)
                to = args[y] + row * args[y_row] + column * args[y_pixel]
                for channel in range(args[channels]):
                    values.put(arena, to + nbytes * channel, values.get(arena, source + args[step] * channel))

    return kernel


def between_pixels() -> KernelFunction:
    """Between two columns of two rows: a + (b - a) * share, first along the rows, then between them."""
    channels, y, y_row, y_pixel, tops, bottoms, lefts, rights, down, across = range(2, 12)

    @inlined
    def pixel(arena: Any, to: Any, top: Any, bottom: Any, left: Any, right: Any, share_x: Any, share_y: Any, count: Any) -> None:
        for i in range(0, count, VALUES):
            at = 4 * i
            first = F.load(arena, top + left + at)
            upper = first + (F.load(arena, top + right + at) - first) * F.splat(share_x)
            second = F.load(arena, bottom + left + at)
            lower = second + (F.load(arena, bottom + right + at) - second) * F.splat(share_x)
            put(arena, to + at, upper + (lower - upper) * F.splat(share_y), count - i)

    def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        for row in range(args[HEIGHT] * part // parts, args[HEIGHT] * (part + 1) // parts):
            top, bottom = I64.get(constants, args[tops] + 8 * row), I64.get(constants, args[bottoms] + 8 * row)
            share_y = FLOATS.get(constants, args[down] + 4 * row)
            for column in range(args[WIDTH]):
                left, right = I64.get(constants, args[lefts] + 8 * column), I64.get(constants, args[rights] + 8 * column)
                share_x = FLOATS.get(constants, args[across] + 4 * column)
                to = args[y] + row * args[y_row] + column * args[y_pixel]
                pixel(arena, to, top, bottom, left, right, share_x, share_y, args[channels])

    return kernel


def copy_rows() -> KernelFunction:
    """Rows of a table. An index beyond its ends, and what is not a number, gives the nearest row, or the first."""
    x, x_pixel, y, y_row, y_pixel, table, rows, row_bytes = range(2, 10)

    @inlined
    def bounded(index: Any, count: Any) -> Any:
        if not index > 0.0:
            return 0
        if index >= count - 1:
            return count - 1
        return min(int(index), count - 1)

    def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        for row in range(args[HEIGHT] * part // parts, args[HEIGHT] * (part + 1) // parts):
            for column in range(args[WIDTH]):
                index = bounded(FLOATS.get(arena, args[x] + row * args[x_pixel] + 4 * column), args[rows])
                to = args[y] + row * args[y_row] + column * args[y_pixel]
                _copy(arena, to, constants, args[table] + index * args[row_bytes], args[row_bytes])

    return kernel
