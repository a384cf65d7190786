"""The end of a convolution, from accumulators to stored values, and the parts of it that other operations share.

The arguments of an epilogue lie in a row of seven (`edge.kernels.arguments.epilogue`), whose first number the kernel gives: the offsets of
scale and bias, the bounds (of int8, in steps of the output) and the slope of the activation, 1 / scale and zero point of
the output. Of residual_conv2d eleven follow
(`edge.kernels.arguments.residual`): the offsets of slope, mul and add, offset, row and pixel bytes of the second input and of the signs,
the offsets of sign_mul and sign_add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.kernels.build import inlined
from edge.kernels.shapes import Residual
from edge.kernels.simd import ROUND, float_of_bits, memory, vector

SCALE, BIAS, LOWER, UPPER, SLOPE, INVERSE, ZERO_POINT = range(7)
RESIDUAL = 7
SLOPES, MUL, ADD = range(RESIDUAL, RESIDUAL + 3)
SIGN_MUL, SIGN_ADD = RESIDUAL + 9, RESIDUAL + 10


@dataclass(frozen=True)
class Epilogue:
    """What the code of an epilogue is specialised for.

    `accumulator` is `floats`, `sums` (of integers, to which a table adds) or `differences` (bits that differ, which a table turns into
    sums); `first` is the number of the first of the seven arguments.
    """

    accumulator: str
    output: str
    first: int
    scaled: bool = False
    activation: str = "none"
    residual: Residual | None = None


def epilogue(shape: Epilogue, lanes: int) -> Any:
    """The code that ends one pixel:

    store(args, arena, constants, scratch, acc, out, other, signs, channel, left, table) takes `lanes` accumulators at scratch + acc, of the
    channels from `channel` on, the first `left` of which exist, to the pixel at arena + out; `other` and `signs` are the same pixel of
    the second input and of the second output, `table` is the offset of the pixel's table.
    """
    return _residual(shape, lanes) if shape.residual else _EPILOGUES[shape.output](shape, lanes)


# -- parts ---------------------------------------------------------------------------------------------------------------------


def activation(first: int, name: str, lanes: int) -> Any:
    """activate(args, y): none, relu or leaky, with bounds and slope in the arguments from `first` on; bounded is none or relu by those."""
    v, as_float = vector("f32", lanes), float_of_bits()
    lower, upper, slope = first, first + 1, first + 2

    @inlined
    def none(args: Any, y: Any) -> Any:
        return y

    @inlined
    def relu(args: Any, y: Any) -> Any:
        return v.atmost(v.high(y, v.splat(0.0)), v.splat(as_float(args[upper])))

    @inlined
    def leaky(args: Any, y: Any) -> Any:
        return v.where_less(y, v.splat(0.0), y * v.splat(as_float(args[slope])), y)

    @inlined
    def bounded(args: Any, y: Any) -> Any:
        low = v.splat(as_float(args[lower]))
        # What is not a number stays so without a bound and becomes 0 with ReLU: -inf less itself is not a number, 0 less itself is 0.
        return v.atmost(v.bounded(y, low, low - low), v.splat(as_float(args[upper])))

    return {"none": none, "relu": relu, "leaky": leaky, "bounded": bounded}[name]


def quantizer(first: int, lanes: int) -> Any:
    """quantize(args, y): float32 as int8. The arguments from `first` on are bounds in steps from the zero point, one that this does not
    read, 1 / scale and zero point."""
    v, i, q, as_float = vector("f32", lanes), vector("i32", lanes), vector("i8", lanes), float_of_bits()
    lower, upper, inverse, zero_point = first, first + 1, first + 3, first + 4

    @inlined
    def quantize(args: Any, y: Any) -> Any:
        # high takes the bound where y is not a number. Positive float32 have the order of their bits.
        y = v.high(y * v.splat(as_float(args[inverse])), v.splat(as_float(args[lower])))
        bits = i.low(i.of_bits(y + v.splat(ROUND)), i.of_bits(v.splat(as_float(args[upper])) + v.splat(ROUND)))
        return i.to_i8(bits) + q.splat(args[zero_point])

    return quantize


def whole_chunk(lanes: int) -> int:
    """The lanes that are ended at once out of `lanes`."""
    return 16 if lanes % 16 == 0 else 8


# -- outputs -------------------------------------------------------------------------------------------------------------------


def _bits(shape: Epilogue, lanes: int) -> Any:
    """Compare with the table; a bit is 1 (the value -1) where more products differ, or less is summed, than the table says."""
    chunk = lanes if lanes in (8, 16, 32) else 8
    chunks = lanes // chunk
    v, word = vector("i32", chunk), memory(f"i{chunk}")
    counts_differences = shape.accumulator == "differences"

    @inlined
    def store(
        args: Any, arena: Any, constants: Any, scratch: Any, acc: Any, out: Any, other: Any, signs: Any, channel: Any, left: Any,
        table: Any,
    ) -> None:
        for j in range(chunks):
            a = v.load(scratch, acc + 4 * chunk * j)
            limit = v.load(constants, table + 4 * (channel + chunk * j))
            if counts_differences:
                minus = v.less(limit, a)
            else:
                minus = v.less(a, limit)
            word.put(arena, out + (channel + chunk * j) // 8, minus)

    return store


def _real_value(shape: Epilogue, chunk: int, *, activated: bool = True) -> Any:
    """The float value of a chunk of accumulators: scale, bias and, if `activated`, activation; shared by float32 and int8 outputs."""
    v, i = vector("f32", chunk), vector("i32", chunk)
    scale, bias = shape.first + SCALE, shape.first + BIAS
    floating, differences, scaled = shape.accumulator == "floats", shape.accumulator == "differences", shape.scaled
    activate = activation(shape.first + LOWER, shape.activation, chunk)

    @inlined
    def value(args: Any, constants: Any, scratch: Any, acc: Any, channel: Any, table: Any) -> Any:
        if floating:
            y = v.load(scratch, acc)
        else:
            a = i.load(scratch, acc)
            base = i.load(constants, table + 4 * channel)
            if differences:
                y = i.to_f32(base - a - a)
            else:
                y = i.to_f32(base + a)
        if scaled:
            y = y * v.load(constants, args[scale] + 4 * channel)
        y = y + v.load(constants, args[bias] + 4 * channel)
        if activated:
            y = activate(args, y)
        return y

    return value


def _float32(shape: Epilogue, lanes: int) -> Any:
    chunk = whole_chunk(lanes)
    chunks = lanes // chunk
    v = vector("f32", chunk)
    value = _real_value(shape, chunk)

    @inlined
    def store(
        args: Any, arena: Any, constants: Any, scratch: Any, acc: Any, out: Any, other: Any, signs: Any, channel: Any, left: Any,
        table: Any,
    ) -> None:
        for j in range(chunks):
            y = value(args, constants, scratch, acc + 4 * chunk * j, channel + chunk * j, table)
            to = out + 4 * (channel + chunk * j)
            if left - chunk * j >= chunk:
                v.store(arena, to, y)
            else:
                v.store_first(arena, to, y, left - chunk * j)

    return store


def _int8(shape: Epilogue, lanes: int) -> Any:
    chunk = whole_chunk(lanes)
    chunks = lanes // chunk
    q = vector("i8", chunk)
    # The bounds of a ReLU are in steps of the output, rounded (`edge.kernels.arguments`): that rounds as the value itself would be.
    value = _real_value(shape, chunk, activated=shape.activation == "leaky")
    quantize = quantizer(shape.first + LOWER, chunk)

    @inlined
    def store(
        args: Any, arena: Any, constants: Any, scratch: Any, acc: Any, out: Any, other: Any, signs: Any, channel: Any, left: Any,
        table: Any,
    ) -> None:
        for j in range(chunks):
            whole = quantize(args, value(args, constants, scratch, acc + 4 * chunk * j, channel + chunk * j, table))
            to = out + channel + chunk * j
            if left - chunk * j >= chunk:
                q.store(arena, to, whole)
            else:
                q.store_first(arena, to, whole, left - chunk * j)

    return store


def _residual(shape: Epilogue, lanes: int) -> Any:
    """The steps of residual_conv2d after the activation, in registers, to the float32 result and its signs."""
    steps = shape.residual
    assert steps is not None
    chunk = whole_chunk(lanes)
    chunks = lanes // chunk
    v, word = vector("f32", chunk), memory(f"i{chunk}")
    value, scaled = _real_value(shape, chunk), _scaled(chunk)
    sloped, normed, added, relu = steps.sloped, steps.scaled, steps.added, steps.relu
    stored, packed, signs_scaled = steps.stored, steps.packed, steps.signs_scaled
    slopes, mul, add, sign_mul, sign_add = (shape.first + offset for offset in (SLOPES, MUL, ADD, SIGN_MUL, SIGN_ADD))

    @inlined
    def store(
        args: Any, arena: Any, constants: Any, scratch: Any, acc: Any, out: Any, other: Any, signs: Any, channel: Any, left: Any,
        table: Any,
    ) -> None:
        for j in range(chunks):
            here = channel + chunk * j
            y = value(args, constants, scratch, acc + 4 * chunk * j, here, table)
            if sloped:
                y = v.where_less(y, v.splat(0.0), y * v.load(constants, args[slopes] + 4 * here), y)
            if normed:
                y = scaled(constants, args[mul], args[add], here, y)
            if added:
                y = y + v.load(arena, other + 4 * here)
            if relu:
                y = v.high(y, v.splat(0.0))
            if stored and left - chunk * j >= chunk:
                v.store(arena, out + 4 * here, y)
            elif stored:
                v.store_first(arena, out + 4 * here, y, left - chunk * j)
            if packed:
                if signs_scaled:
                    y = scaled(constants, args[sign_mul], args[sign_add], here, y)
                minus = v.less(y, v.splat(0.0))
                if left - chunk * j < chunk:
                    minus &= (1 << (left - chunk * j)) - 1
                word.put(arena, signs + here // 8, minus)

    return store


def _scaled(chunk: int) -> Any:
    """scaled(constants, mul, add, channel, y): y * mul + add, each step rounded; `mul` and `add` are offsets of a row each."""
    v = vector("f32", chunk)

    @inlined
    def scaled(constants: Any, mul: Any, add: Any, channel: Any, y: Any) -> Any:
        return y * v.load(constants, mul + 4 * channel) + v.load(constants, add + 4 * channel)

    return scaled


_EPILOGUES: dict[str, Callable[[Epilogue, int], Any]] = {"bits": _bits, "float32": _float32, "int8": _int8}
