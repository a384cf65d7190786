"""The code that packs signs into bits and unpacks them, `VALUES` at a time; `edge.kernels.bitpack` has the convention."""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.elementwise_code import X, Y, chunked, place
from edge.kernels.shapes import VALUES
from edge.kernels.simd import memory, vector

# The argument row of binarize, as `edge.kernels.elementwise` writes it, after those of output and input.
SPARE, PERIOD, MUL, ADD = range(9, 13)

OCTET = memory("u8")


def binarize_kernel(scaled: bool, wide: int) -> KernelFunction:
    """The signs of x, or of x * mul + add, as bits, `wide` at once; SPARE bytes after every chunk become 0."""
    many, few, word = _minus(scaled, wide), _minus(scaled, VALUES), memory(f"i{wide}")

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        channel = 0
        whole = count - count % wide
        for i in range(0, whole, wide):
            word.put(arena, y + i // 8, many(args, arena, constants, x + 4 * i, channel))
            channel += wide
            if channel == args[PERIOD]:
                channel = 0
        for i in range(whole, count, VALUES):
            left = min(count - i, VALUES)
            minus = few(args, arena, constants, x + 4 * i, channel) & ((1 << left) - 1)
            channel += VALUES
            OCTET.put(arena, y + i // 8, minus)
            if left > 8:
                OCTET.put(arena, y + i // 8 + 1, minus >> 8)
        end = y + (count + 7) // 8
        for i in range(args[SPARE]):
            OCTET.put(arena, end + i, 0)

    return chunked(body)


def _minus(scaled: bool, lanes: int) -> Any:
    """minus(args, arena, constants, x, channel): which of the values at x, scaled, are below 0, as a mask."""
    f = vector("f32", lanes)

    @inlined
    def minus(args: Any, arena: Any, constants: Any, x: Any, channel: Any) -> Any:
        value = f.load(arena, x)
        if scaled:
            value = value * f.load(constants, args[MUL] + 4 * channel) + f.load(constants, args[ADD] + 4 * channel)
        return f.less(value, f.splat(0.0))

    return minus


def unpack_kernel(wide: int) -> KernelFunction:
    """Bits as +1 and -1."""
    f, word = vector("f32", wide), memory(f"i{wide}")
    rest, rest_word = vector("f32", VALUES), memory(f"i{VALUES}")

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        whole = count - count % wide
        for i in range(0, whole, wide):
            f.store(arena, y + 4 * i, f.choose(word.get(arena, x + i // 8), f.splat(-1.0), f.splat(1.0)))
        for i in range(whole, count, VALUES):
            value = rest.choose(rest_word.get(arena, x + i // 8), rest.splat(-1.0), rest.splat(1.0))
            rest.store_first(arena, y + 4 * i, value, count - i)

    return chunked(body)
