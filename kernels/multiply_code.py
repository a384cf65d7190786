"""The code of products. A unit of work is a row; parts take consecutive units.

The output may lie on the first input: a vector is read whole before it is written, and written once.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.shapes import VALUES
from edge.kernels.simd import memory, vector

# The argument row, as `edge.kernels.multiply` writes it.
ROWS, SEGMENTS, COUNT, X, X_ROW, M, M_ROW, M_SEGMENT, Y, Y_ROW = range(10)

F = vector("f32", VALUES)
FLOATS = memory("f32")


def kernel(splat: bool) -> KernelFunction:
    """The kernel function, for `edge.kernels.build`; `splat`: a segment is multiplied by one value."""
    segment = _by_one() if splat else _by_many()

    def multiply(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        for row in range(args[ROWS] * part // parts, args[ROWS] * (part + 1) // parts):
            x, m, y = args[X] + row * args[X_ROW], args[M] + row * args[M_ROW], args[Y] + row * args[Y_ROW]
            for number in range(args[SEGMENTS]):
                start = 4 * args[COUNT] * number
                segment(arena, x + start, m + args[M_SEGMENT] * number, y + start, args[COUNT])

    return multiply


@inlined
def _put(arena: Any, y: Any, value: Any, left: Any) -> None:
    """A vector of which `left` values exist."""
    if left >= VALUES:
        F.store(arena, y, value)
    else:
        F.store_first(arena, y, value, left)


def _by_one() -> Any:
    @inlined
    def segment(arena: Any, x: Any, m: Any, y: Any, count: Any) -> None:
        factor = F.splat(FLOATS.get(arena, m))
        for i in range(0, count, VALUES):
            _put(arena, y + 4 * i, F.load(arena, x + 4 * i) * factor, count - i)

    return segment


def _by_many() -> Any:
    @inlined
    def segment(arena: Any, x: Any, m: Any, y: Any, count: Any) -> None:
        for i in range(0, count, VALUES):
            _put(arena, y + 4 * i, F.load(arena, x + 4 * i) * F.load(arena, m + 4 * i), count - i)

    return segment
