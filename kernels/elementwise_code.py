"""The code of maps and softmax: rows of values in chunks, `VALUES` at a time. A unit of work is a chunk; parts take consecutive units.

The output may lie on the first input: a vector is read whole before it is written, and written once.
"""

from __future__ import annotations

from typing import Any

from edge.kernels import vecmath
from edge.kernels.build import KernelFunction, inlined
from edge.kernels.epilogue import activation, quantizer
from edge.kernels.shapes import VALUES, MapVariant
from edge.kernels.simd import float_of_bits, vector

# The argument row, as `edge.kernels.elementwise` writes it. Of Y, X and X2 the offset, and the bytes between rows and between chunks.
ROWS, COUNT, CHUNK, Y = range(4)
X, X2 = 6, 9
SCALE, MUL, ADD, PERIOD = 12, 16, 17, 18  # scale and zero point of both inputs
LOWER, SLOPE, INVERSE = 19, 21, 22

_BYTES = {"float32": 4, "int8": 1, "uint8": 1}
_ELEMENTS = {"float32": "f32", "int8": "i8", "uint8": "u8"}

F = vector("f32", VALUES)
I = vector("i32", VALUES)  # noqa: E741
as_float = float_of_bits()


def chunked(body: Any) -> KernelFunction:
    """A kernel that calls body(args, arena, constants, row, chunk, count) for every chunk of a part; `count` is its number of values."""

    def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        per_row = (args[COUNT] + args[CHUNK] - 1) // args[CHUNK]
        units = args[ROWS] * per_row
        start = units * part // parts
        row = start // per_row
        chunk = start - row * per_row
        for _ in range(start, units * (part + 1) // parts):
            body(args, arena, constants, row, chunk, min(args[CHUNK], args[COUNT] - chunk * args[CHUNK]))
            chunk += 1
            if chunk == per_row:
                chunk = 0
                row += 1

    return kernel


@inlined
def place(args: Any, first: Any, row: Any, chunk: Any) -> Any:
    """The byte at which a chunk of the tensor begins whose three arguments start at `first`."""
    return args[first] + row * args[first + 1] + chunk * args[first + 2]


# -- maps ----------------------------------------------------------------------------------------------------------------------


def map_kernel(variant: MapVariant) -> KernelFunction:
    """The kernel function of a variant, for `edge.kernels.build`."""
    in_bytes, out_bytes = _BYTES[variant.inputs[0]], _BYTES[variant.output]
    out = vector(_ELEMENTS[variant.output], VALUES)
    first, second = (_real(variant.inputs[0], SCALE + 2 * i) for i in range(2))
    function, finish = _function(variant.function), _finish(variant.output)
    channelwise, two = variant.channelwise, len(variant.inputs) == 2
    sloped = variant.function == "prelu"

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, x2, y = place(args, X, row, chunk), place(args, X2, row, chunk), place(args, Y, row, chunk)
        channel = 0
        for i in range(0, count, VALUES):
            value = first(args, arena, x + in_bytes * i)
            if two:
                value = value + second(args, arena, x2 + in_bytes * i)
            if channelwise:
                scaled = value * F.load(constants, args[MUL] + 4 * channel)
                if sloped:
                    value = F.where_less(value, F.splat(0.0), scaled, value)
                else:
                    value = scaled + F.load(constants, args[ADD] + 4 * channel)
                channel += VALUES
                if channel == args[PERIOD]:
                    channel = 0
            stored = finish(args, function(args, value))
            if count - i >= VALUES:
                out.store(arena, y + out_bytes * i, stored)
            else:
                out.store_first(arena, y + out_bytes * i, stored, count - i)

    return chunked(body)


def _real(encoding: str, scale: int) -> Any:
    """What stored values stand for; scale and zero point are the arguments from `scale` on."""
    source = vector(_ELEMENTS[encoding], VALUES)
    floating = encoding == "float32"

    @inlined
    def real(args: Any, arena: Any, at: Any) -> Any:
        stored = source.load(arena, at)
        if floating:
            return stored
        return I.to_f32(source.to_i32(stored) - I.splat(args[scale + 1])) * F.splat(as_float(args[scale]))

    return real


def _finish(output: str) -> Any:
    """A float32 value as it is stored."""
    if output == "int8":
        return quantizer(INVERSE, VALUES)

    @inlined
    def as_it_is(args: Any, value: Any) -> Any:
        return value

    return as_it_is


def _function(name: str) -> Any:
    if name in ("bounded", "leaky"):
        return activation(LOWER, name == "leaky", VALUES)
    if name == "elu":
        return _elu()
    return _unary({"sigmoid": vecmath.sigmoid, "tanh": vecmath.tanh}[name](VALUES) if name in ("sigmoid", "tanh") else _identity)


@inlined
def _identity(x: Any) -> Any:
    return x


def _unary(function: Any) -> Any:
    """A function of the value alone."""

    @inlined
    def apply(args: Any, value: Any) -> Any:
        return function(value)

    return apply


def _elu() -> Any:
    expm1 = vecmath.expm1_of_negative(VALUES)

    @inlined
    def elu(args: Any, value: Any) -> Any:
        zero = F.splat(0.0)
        below = expm1(F.atmost(value, zero)) * F.splat(as_float(args[SLOPE]))
        return F.where_less(value, zero, below, value)

    return elu


# -- softmax -------------------------------------------------------------------------------------------------------------------


def softmax_kernel() -> KernelFunction:
    """exp(x - max) / sum of the same over a chunk, which is a pixel; a value that is not a number makes the whole pixel so."""
    exp = vecmath.exp(VALUES)
    lowest = float("-inf")

    @inlined
    def largest(arena: Any, x: Any, count: Any) -> Any:
        found = F.splat(lowest)
        for i in range(0, count, VALUES):
            found = F.atleast(F.first(count - i, F.load(arena, x + 4 * i), F.splat(lowest)), found)
        return F.largest(found)

    @inlined
    def put(arena: Any, y: Any, i: Any, count: Any, value: Any) -> None:
        if count - i >= VALUES:
            F.store(arena, y + 4 * i, value)
        else:
            F.store_first(arena, y + 4 * i, value, count - i)

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        most = F.splat(largest(arena, x, count))
        total = F.splat(0.0)
        for i in range(0, count, VALUES):
            power = exp(F.load(arena, x + 4 * i) - most)
            total = total + F.first(count - i, power, F.splat(0.0))
            put(arena, y, i, count, power)
        whole = F.splat(F.total(total))
        for i in range(0, count, VALUES):
            put(arena, y, i, count, F.load(arena, y + 4 * i) / whole)

    return chunked(body)
