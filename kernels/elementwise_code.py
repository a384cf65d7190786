"""The code of maps and softmax: rows of values in chunks, `VALUES` at a time. A unit of work is a chunk; parts take consecutive units.

The output may lie on the first input: a vector is read whole before it is written, and written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.kernels import vecmath, vecmath_more
from edge.kernels.build import KernelFunction, inlined
from edge.kernels.epilogue import activation, quantizer
from edge.kernels.shapes import VALUES, MapVariant
from edge.kernels.simd import float_of_bits, vector

# The argument row, as `edge.kernels.elementwise` writes it. Of Y, X and X2 the offset, and the bytes between rows and between chunks.
ROWS, COUNT, CHUNK, Y = range(4)
X, X2 = 6, 9
SCALE, MUL, ADD, PERIOD = 12, 16, 17, 18  # scale and zero point of both inputs
LOWER, UPPER, SLOPE, INVERSE, ZERO_POINT = range(19, 24)

_BYTES = {"float32": 4, "int8": 1, "uint8": 1}
_ELEMENTS = {"float32": "f32", "int8": "i8", "uint8": "u8"}

F = vector("f32", VALUES)
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


def map_kernel(variant: MapVariant, wide: int) -> KernelFunction:
    """The kernel function of a variant, for `edge.kernels.build`; it takes `wide` values at once, and `VALUES` of what is left."""
    in_bytes, out_bytes = _BYTES[variant.inputs[0]], _BYTES[variant.output]
    out, rest = (vector(_ELEMENTS[variant.output], lanes) for lanes in (wide, VALUES))
    many, few = _step(variant, wide), _step(variant, VALUES)

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, x2, y = place(args, X, row, chunk), place(args, X2, row, chunk), place(args, Y, row, chunk)
        channel = 0
        whole = count - count % wide
        for i in range(0, whole, wide):
            out.store(arena, y + out_bytes * i, many(args, arena, constants, x + in_bytes * i, x2 + in_bytes * i, channel))
            channel += wide
            if channel == args[PERIOD]:
                channel = 0
        for i in range(whole, count, VALUES):
            stored = few(args, arena, constants, x + in_bytes * i, x2 + in_bytes * i, channel)
            rest.store_first(arena, y + out_bytes * i, stored, count - i)
            channel += VALUES

    return chunked(body)


def _step(variant: MapVariant, lanes: int) -> Any:
    """step(args, arena, constants, x, x2, channel) = what is stored for the `lanes` values at x (and x2)."""
    f = vector("f32", lanes)
    first, second = (_real(variant.inputs[0], SCALE + 2 * i, lanes) for i in range(2))
    function, finish = _function(variant.function, lanes), _finish(variant.output, lanes)
    channelwise, two, sloped = variant.channelwise, len(variant.inputs) == 2, variant.function == "prelu"

    @inlined
    def step(args: Any, arena: Any, constants: Any, x: Any, x2: Any, channel: Any) -> Any:
        value = first(args, arena, x)
        if two:
            value = value + second(args, arena, x2)
        if channelwise:
            scaled = value * f.load(constants, args[MUL] + 4 * channel)
            if sloped:
                value = f.where_less(value, f.splat(0.0), scaled, value)
            else:
                value = scaled + f.load(constants, args[ADD] + 4 * channel)
        return finish(args, function(args, value))

    return step


def _real(encoding: str, scale: int, lanes: int) -> Any:
    """What stored values stand for; scale and zero point are the arguments from `scale` on."""
    source, f, i = vector(_ELEMENTS[encoding], lanes), vector("f32", lanes), vector("i32", lanes)
    floating = encoding == "float32"

    @inlined
    def real(args: Any, arena: Any, at: Any) -> Any:
        stored = source.load(arena, at)
        if floating:
            return stored
        return i.to_f32(source.to_i32(stored) - i.splat(args[scale + 1])) * f.splat(as_float(args[scale]))

    return real


def _finish(output: str, lanes: int) -> Any:
    """A float32 value as it is stored."""
    if output == "int8":
        return quantizer(LOWER, lanes)

    @inlined
    def as_it_is(args: Any, value: Any) -> Any:
        return value

    return as_it_is


def _function(name: str, lanes: int) -> Any:
    if name in _OF_ARGUMENTS:
        return _OF_ARGUMENTS[name](lanes)
    return _unary(_OF_VALUES[name](lanes) if name in _OF_VALUES else _identity)


@inlined
def _identity(x: Any) -> Any:
    return x


def _unary(function: Any) -> Any:
    """A function of the value alone."""

    @inlined
    def apply(args: Any, value: Any) -> Any:
        return function(value)

    return apply


def _bounded(lanes: int) -> Any:
    """ReLU, or nothing."""
    return activation(LOWER, "bounded", lanes)


def _leaky(lanes: int) -> Any:
    """Leaky ReLU."""
    return activation(LOWER, "leaky", lanes)


def _elu(lanes: int) -> Any:
    f, expm1 = vector("f32", lanes), vecmath.expm1_of_negative(lanes)

    @inlined
    def elu(args: Any, value: Any) -> Any:
        zero = f.splat(0.0)
        below = expm1(f.atmost(value, zero)) * f.splat(as_float(args[SLOPE]))
        return f.where_less(value, zero, below, value)

    return elu


_OF_ARGUMENTS = {"bounded": _bounded, "leaky": _leaky, "elu": _elu}
_OF_VALUES: dict[str, Callable[[int], Any]] = {
    "sigmoid": vecmath.sigmoid,
    "tanh": vecmath.tanh,
    "exp": vecmath.exp,
    "sqrt": lambda lanes: vector("f32", lanes).sqrt,
    "hard_swish": vecmath_more.hard_swish,
    "swish": vecmath_more.swish,
    "gelu": vecmath_more.gelu,
    "gelu_tanh": vecmath_more.gelu_tanh,
    "softplus": vecmath_more.softplus,
    "softsign": vecmath_more.softsign,
    "mish": vecmath_more.mish,
}


# -- softmax -------------------------------------------------------------------------------------------------------------------


def softmax_kernel(wide: int) -> KernelFunction:
    """exp(x - max) / sum of the same over a chunk, which is a pixel; a value that is not a number makes the whole pixel so."""
    lowest = float("-inf")
    wider = vector("f32", wide)
    powers, rest_powers = _powers(wide), _powers(VALUES)

    @inlined
    def largest(arena: Any, x: Any, whole: Any, count: Any) -> Any:
        found = wider.splat(lowest)
        for i in range(0, whole, wide):
            found = wider.atleast(wider.load(arena, x + 4 * i), found)
        rest = F.splat(lowest)
        for i in range(whole, count, VALUES):
            rest = F.atleast(F.first(count - i, F.load(arena, x + 4 * i), F.splat(lowest)), rest)
        return F.largest(F.atleast(rest, F.splat(wider.largest(found))))

    @inlined
    def body(args: Any, arena: Any, constants: Any, row: Any, chunk: Any, count: Any) -> None:
        x, y = place(args, X, row, chunk), place(args, Y, row, chunk)
        whole = count - count % wide
        most = largest(arena, x, whole, count)
        total, rest = wider.splat(0.0), F.splat(0.0)
        for i in range(0, whole, wide):
            power = powers(arena, x + 4 * i, most)
            wider.store(arena, y + 4 * i, power)
            total = total + power
        for i in range(whole, count, VALUES):
            power = rest_powers(arena, x + 4 * i, most)
            F.store_first(arena, y + 4 * i, power, count - i)
            rest = rest + F.first(count - i, power, F.splat(0.0))
        share = 1.0 / (wider.total(total) + F.total(rest))
        for i in range(0, whole, wide):
            wider.store(arena, y + 4 * i, wider.load(arena, y + 4 * i) * wider.splat(share))
        for i in range(whole, count, VALUES):
            F.store_first(arena, y + 4 * i, F.load(arena, y + 4 * i) * F.splat(share), count - i)

    return chunked(body)


def _powers(lanes: int) -> Any:
    """powers(arena, x, most) = exp of the `lanes` values at x less `most`."""
    f, exp = vector("f32", lanes), vecmath.exp(lanes)

    @inlined
    def powers(arena: Any, x: Any, most: Any) -> Any:
        return exp(f.load(arena, x) - f.splat(most))

    return powers
