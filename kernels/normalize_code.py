"""The code of normalizations over channels; a chunk is a pixel.

The output may lie on the input: statistics are taken of the whole pixel first, then a vector is read whole before it is written.
"""

from __future__ import annotations

from typing import Any

from edge.kernels import vecmath, vecmath_more
from edge.kernels.build import KernelFunction, inlined
from edge.kernels.elementwise_code import X, Y, as_float, chunked, place
from edge.kernels.multiply_code import put
from edge.kernels.shapes import VALUES
from edge.kernels.simd import vector

F = vector("f32", VALUES)
MUL, ADD, EPSILON, SHARE = range(9, 13)  # of layer_norm, behind the chunks
RADIUS, BIAS, ALPHA, BETA = range(9, 13)  # of local_response_norm


@inlined
def _existing(count: Any, value: Any) -> Any:
    """The first `count` values, 0 in place of the others."""
    return F.first(count, value, F.splat(0.0))


def layer_norm_kernel() -> KernelFunction:
    """(x - mean) / sqrt(variance + epsilon) * mul + add."""

    @inlined
    def mean(args: Any, arena: Any, x: Any, count: Any) -> Any:
        total = F.splat(0.0)
        for i in range(0, count, VALUES):
            total = total + _existing(count - i, F.load(arena, x + 4 * i))
        return F.total(total) * as_float(args[SHARE])

    @inlined
    def variance(args: Any, arena: Any, x: Any, count: Any, middle: Any) -> Any:
        total = F.splat(0.0)
        for i in range(0, count, VALUES):
            centred = F.load(arena, x + 4 * i) - F.splat(middle)
            total = total + _existing(count - i, centred * centred)
        return F.total(total) * as_float(args[SHARE])

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        middle = mean(args, arena, x, count)
        spread = F.sqrt(F.splat(variance(args, arena, x, count, middle) + as_float(args[EPSILON])))
        for i in range(0, count, VALUES):
            scaled = (F.load(arena, x + 4 * i) - F.splat(middle)) / spread
            found = scaled * F.load(constants, args[MUL] + 4 * i) + F.load(constants, args[ADD] + 4 * i)
            put(arena, y + 4 * i, found, count - i)

    return chunked(body)


def log_softmax_kernel() -> KernelFunction:
    """x - max - log(sum of exp(x - max))."""
    exp, log = vecmath.exp(VALUES), vecmath_more.log(VALUES)
    lowest = float("-inf")

    @inlined
    def largest(arena: Any, x: Any, count: Any) -> Any:
        found = F.splat(lowest)
        for i in range(0, count, VALUES):
            found = F.atleast(F.first(count - i, F.load(arena, x + 4 * i), F.splat(lowest)), found)
        return F.largest(found)

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        most = F.splat(largest(arena, x, count))
        total = F.splat(0.0)
        for i in range(0, count, VALUES):
            total = total + _existing(count - i, exp(F.load(arena, x + 4 * i) - most))
        share = log(F.splat(F.total(total)))
        for i in range(0, count, VALUES):
            put(arena, y + 4 * i, (F.load(arena, x + 4 * i) - most) - share, count - i)

    return chunked(body)


def local_response_kernel() -> KernelFunction:
    """x * exp(-beta * log(bias + alpha * sum of squares)), the sum over the channels at most `radius` away."""
    exp, log = vecmath.exp(VALUES), vecmath_more.log(VALUES)

    @inlined
    def squares(args: Any, arena: Any, scratch: Any, x: Any, count: Any) -> None:
        """To scratch, between zeros."""
        end = 4 * (2 * args[RADIUS] + count)
        for at in range(0, end, 4 * VALUES):
            F.store(scratch, at, F.splat(0.0))
        for i in range(0, count, VALUES):
            value = F.load(arena, x + 4 * i)
            F.store_first(scratch, 4 * (args[RADIUS] + i), value * value, count - i)

    @inlined
    def body(args: Any, arena: Any, constants: Any, scratch: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        squares(args, arena, scratch, x, count)
        for i in range(0, count, VALUES):
            total = F.load(scratch, 4 * i)
            for tap in range(1, 2 * args[RADIUS] + 1):
                total = total + F.load(scratch, 4 * (i + tap))
            base = F.splat(as_float(args[BIAS])) + F.splat(as_float(args[ALPHA])) * total
            share = exp(log(base) * F.splat(-as_float(args[BETA])))
            put(arena, y + 4 * i, F.load(arena, x + 4 * i) * share, count - i)

    return chunked_with_scratch(body)


def chunked_with_scratch(body: Any) -> KernelFunction:
    """As `chunked`, for a body that takes the scratch memory of its thread too."""

    def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        per_row = (args[1] + args[2] - 1) // args[2]
        units = args[0] * per_row
        for unit in range(units * part // parts, units * (part + 1) // parts):
            row = unit // per_row
            body(args, arena, constants, scratch, row, unit - row * per_row, args[2])

    return kernel
