"""The code of products and their like. A unit of work is a row; parts take consecutive units.

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


def kernel(op: str, splat: bool) -> KernelFunction:
    """The kernel function of an operation, for `edge.kernels.build`; `splat`: a segment is joined with one value."""
    segment = _with_one(_JOINS[op]) if splat else _with_many(_JOINS[op])

    def join(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        for row in range(args[ROWS] * part // parts, args[ROWS] * (part + 1) // parts):
            x, m, y = args[X] + row * args[X_ROW], args[M] + row * args[M_ROW], args[Y] + row * args[Y_ROW]
            for number in range(args[SEGMENTS]):
                start = 4 * args[COUNT] * number
                segment(arena, x + start, m + args[M_SEGMENT] * number, y + start, args[COUNT])

    return join


@inlined
def put(arena: Any, y: Any, value: Any, left: Any) -> None:
    """A vector of which `left` values exist."""
    if left >= VALUES:
        F.store(arena, y, value)
    else:
        F.store_first(arena, y, value, left)


@inlined
def _multiplied(x: Any, m: Any) -> Any:
    return x * m


@inlined
def _subtracted(x: Any, m: Any) -> Any:
    return x - m


@inlined
def _divided(x: Any, m: Any) -> Any:
    return x / m


@inlined
def _larger(x: Any, m: Any) -> Any:
    return F.high(x, m)


@inlined
def _smaller(x: Any, m: Any) -> Any:
    return F.low(x, m)


_JOINS = {"multiply": _multiplied, "subtract": _subtracted, "divide": _divided, "maximum": _larger, "minimum": _smaller}


def _with_one(join: Any) -> Any:
    @inlined
    def segment(arena: Any, x: Any, m: Any, y: Any, count: Any) -> None:
        other = F.splat(FLOATS.get(arena, m))
        for i in range(0, count, VALUES):
            put(arena, y + 4 * i, join(F.load(arena, x + 4 * i), other), count - i)

    return segment


def _with_many(join: Any) -> Any:
    @inlined
    def segment(arena: Any, x: Any, m: Any, y: Any, count: Any) -> None:
        for i in range(0, count, VALUES):
            put(arena, y + 4 * i, join(F.load(arena, x + 4 * i), F.load(arena, m + 4 * i)), count - i)

    return segment
