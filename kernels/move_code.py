"""The code that moves data. Reshape, pad2d and concat take the output in chunks as elementwise kernels do."""

from __future__ import annotations

from typing import Any

from edge.kernels.build import KernelFunction, inlined
from edge.kernels.elementwise_code import CHUNK, COUNT, X, Y, chunked, place
from edge.kernels.simd import copy, fill, memory, vector

_put = fill()
_copy = copy()
_LINE = vector("u8", 64)
_QUARTER = vector("u8", 16)
_WORDS = vector("i32", 16)
_I64, _I32, _I16, _U8 = memory("i64"), memory("i32"), memory("i16"), memory("u8")

_MEMCPY_BYTES = 512  # from here on a call costs less than it saves


# -- halos ---------------------------------------------------------------------------------------------------------------------


@inlined
def _fill(arena: Any, at: Any, value: Any, count: Any) -> None:
    """`count` bytes become `value`; a few of them without a call, by words that may overlap."""
    word = value * 0x0101010101010101
    if count > 16:
        _put(arena, at, value, count)
    elif count >= 8:
        _I64.put(arena, at, word)
        _I64.put(arena, at + count - 8, word)
    elif count >= 4:
        _I32.put(arena, at, word)
        _I32.put(arena, at + count - 4, word)
    elif count >= 2:
        _I16.put(arena, at, word)
        _I16.put(arena, at + count - 2, word)
    elif count == 1:
        _U8.put(arena, at, word)


def fill_halo() -> KernelFunction:
    """A unit of work is a row, the halo's included. The arguments are those of `edge.kernels.move.lower_halo`."""

    def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        start, row_bytes, rows, top, height, left, right, value = args[0], args[1], args[2], args[3], args[4], args[5], args[6], args[7]
        for y in range(rows * part // parts, rows * (part + 1) // parts):
            row = start + y * row_bytes
            if (y < top) | (y >= top + height):
                _put(arena, row, value, row_bytes)
            else:
                _fill(arena, row, value, left)
                _fill(arena, row + row_bytes - right, value, right)

    return kernel


# -- reshape -------------------------------------------------------------------------------------------------------------------


def reshape() -> KernelFunction:
    """Every chunk of the output is gathered from the rows of the input, whose offset, bytes and distance are the arguments from X on."""

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        to = place(args, Y, row, chunk)
        position = row * args[COUNT] + chunk * args[CHUNK]
        end = position + count
        while position < end:
            source_row = position // args[X + 1]
            at = position - source_row * args[X + 1]
            n = min(end - position, args[X + 1] - at)
            _copy(arena, to, arena, args[X] + source_row * args[X + 2] + at, n)
            to += n
            position += n

    return chunked(body)


# -- pad2d ---------------------------------------------------------------------------------------------------------------------

HEIGHT, INNER_BYTES, TOP, LEFT_BYTES, PATTERN = range(8, 13)


@inlined
def _fill_words(arena: Any, at: Any, pattern: Any, count: Any) -> None:
    """`count` bytes become the 4 bytes of the pattern, again and again; where 4 do not divide `count` its bytes are all the same."""
    words = _WORDS.splat(pattern)
    i = 0
    while i + 64 <= count:
        _WORDS.store(arena, at + i, words)
        i += 64
    while i + 4 <= count:
        _I32.put(arena, at + i, pattern)
        i += 4
    while i < count:
        _U8.put(arena, at + i, pattern)
        i += 1


def pad2d() -> KernelFunction:
    """A chunk is an output row."""

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        to = place(args, Y, row, chunk)
        inside = row - args[TOP]
        left, inner, pattern = args[LEFT_BYTES], args[INNER_BYTES], args[PATTERN]
        if (inside < 0) | (inside >= args[HEIGHT]):
            _fill_words(arena, to, pattern, count)
            return
        _fill_words(arena, to, pattern, left)
        _copy(arena, to + left, arena, args[X] + inside * args[X + 1], inner)
        _fill_words(arena, to + left + inner, pattern, count - left - inner)

    return chunked(body)


# -- concat --------------------------------------------------------------------------------------------------------------------

PIXEL_BYTES, USED_BYTES, INPUTS, INPUT = range(6, 10)
_INPUT_ARGUMENTS = 5  # offset, row bytes, pixel bytes, bytes to copy, the byte of the output pixel where they go


@inlined
def copy_bytes(arena: Any, to: Any, source: Any, count: Any) -> None:
    """Copy bytes that do not overlap; the last vector or word may cover some of the one before again."""
    if count >= _MEMCPY_BYTES:
        _copy(arena, to, arena, source, count)
    elif count >= 16:
        i = 0
        while i + 64 <= count:
            _LINE.store(arena, to + i, _LINE.load(arena, source + i))
            i += 64
        while i + 16 <= count:
            _QUARTER.store(arena, to + i, _QUARTER.load(arena, source + i))
            i += 16
        _QUARTER.store(arena, to + count - 16, _QUARTER.load(arena, source + count - 16))
    elif count >= 8:
        _I64.put(arena, to, _I64.get(arena, source))
        _I64.put(arena, to + count - 8, _I64.get(arena, source + count - 8))
    elif count >= 4:
        _I32.put(arena, to, _I32.get(arena, source))
        _I32.put(arena, to + count - 4, _I32.get(arena, source + count - 4))
    elif count >= 2:
        _I16.put(arena, to, _I16.get(arena, source))
        _I16.put(arena, to + count - 2, _I16.get(arena, source + count - 2))
    else:
        _U8.put(arena, to, _U8.get(arena, source))


def concat() -> KernelFunction:
    """A chunk is a number of pixels; bytes of a pixel behind the last input become 0."""

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        to = place(args, Y, row, chunk)
        first = chunk * args[CHUNK]
        for number in range(args[INPUTS]):
            of_input = INPUT + number * _INPUT_ARGUMENTS
            step, used = args[of_input + 2], args[of_input + 3]
            source = args[of_input] + row * args[of_input + 1] + first * step
            target = to + args[of_input + 4]
            for pixel in range(count):
                copy_bytes(arena, target + pixel * args[PIXEL_BYTES], source + pixel * step, used)
        for pixel in range(count):
            for byte in range(args[USED_BYTES], args[PIXEL_BYTES]):
                _U8.put(arena, to + pixel * args[PIXEL_BYTES] + byte, 0)

    return chunked(body)
