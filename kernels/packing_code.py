"""The code that packs signs into bits and unpacks them, `VALUES` at a time; `edge.kernels.bitpack` has the convention."""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.elementwise_code import X, Y, chunked, place
from edge.kernels.shapes import VALUES
from edge.kernels.simd import memory, vector

# The argument row of binarize, as `edge.kernels.elementwise` writes it, after those of output and input.
SPARE, PERIOD, MUL, ADD = range(9, 13)

F = vector("f32", VALUES)
WORD = memory(f"i{VALUES}")
OCTET = memory("u8")


def binarize_kernel(scaled: bool) -> KernelFunction:
    """The signs of x, or of x * mul + add, as bits; SPARE bytes after every chunk become 0."""

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        channel = 0
        for i in range(0, count, VALUES):
            value = F.load(arena, x + 4 * i)
            if scaled:
                value = value * F.load(constants, args[MUL] + 4 * channel) + F.load(constants, args[ADD] + 4 * channel)
                channel += VALUES
                if channel == args[PERIOD]:
                    channel = 0
            minus = F.less(value, F.splat(0.0))
            left = count - i
            if left >= VALUES:
                WORD.put(arena, y + i // 8, minus)
            else:
                minus &= (1 << left) - 1
                OCTET.put(arena, y + i // 8, minus)
                if left > 8:
                    OCTET.put(arena, y + i // 8 + 1, minus >> 8)
        end = y + (count + 7) // 8
        for i in range(args[SPARE]):
            OCTET.put(arena, end + i, 0)

    return chunked(body)


def unpack_kernel() -> KernelFunction:
    """Bits as +1 and -1."""

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        for i in range(0, count, VALUES):
            value = F.choose(WORD.get(arena, x + i // 8), F.splat(-1.0), F.splat(1.0))
            if count - i >= VALUES:
                F.store(arena, y + 4 * i, value)
            else:
                F.store_first(arena, y + 4 * i, value, count - i)

    return chunked(body)
