"""Nodes that quantize a tensor at run time, of operations there are: signs, pairs of signs, and rounding to a grid."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edge.converters.builder import Builder, Layer
from edge.converters.layers_merge import pair, scaled
from edge.ops import Activation
from edge.tensors import Encoding

# Values of less than this are 0 where denormal numbers are flushed.
_SMALLEST = float(np.finfo(np.float32).tiny)
# Digits of whole numbers beyond int8, each within it, so that rounding the rest never carries.
_DIGIT = 250.0
_INT8 = 255  # steps


def binarize(layer: Layer, build: Builder, tensor: str) -> str:
    """The signs of a tensor, packed, computed once for all readers; a packed tensor stays as it is."""
    if build.types[tensor].encoding is Encoding.BITS:
        return tensor
    known = next((n.output for n in build.nodes if n.op == "binarize" and n.inputs == (tensor,)), None)
    return known or build.add("binarize", layer, tensor, encoding=Encoding.BITS)


def negative_signs(layer: Layer, build: Builder, tensor: str, *, zero: int) -> str:
    """The packed signs of -x, where x = 0 counts as `zero` (+1 gives -1, and -1 gives +1)."""
    real = build.floats(layer, tensor)
    return binarize(layer, build, scaled(layer, build, real, -1.0, -_SMALLEST if zero > 0 else 0.0))


def two_levels(layer: Layer, build: Builder, tensor: str, low: float, high: float, *, zero: int) -> str:
    """`high` where x > 0, `low` where x < 0; x = 0 counts as `zero`, +1 or -1.

    From the negative signs s as (low + high) / 2 - s (high - low) / 2: so a low of 0 is s = +1, as which convolutions of signs pad.
    """
    signs = build.floats(layer, negative_signs(layer, build, tensor, zero=zero))
    return scaled(layer, build, signs, (low - high) / 2, (low + high) / 2)


def ternary(layer: Layer, build: Builder, tensor: str, threshold: float, alpha: float) -> str:
    """alpha * sign(x) where abs(x) >= threshold, else 0: half the difference of the signs of x - threshold and -x - threshold."""
    real = build.floats(layer, tensor)
    up, down = (build.floats(layer, binarize(layer, build, scaled(layer, build, real, side, -threshold))) for side in (1.0, -1.0))
    half = scaled(layer, build, pair(layer, build, "subtract", up, down), 0.5)
    whole = _stored(layer, build, half, 1.0, 0)
    return whole if alpha == 1 else scaled(layer, build, whole, alpha)


def rounded(layer: Layer, build: Builder, tensor: str, per_unit: float, low: int, high: int) -> str:
    """min(max(round(x * per_unit), low), high) / per_unit, halves to even, with low <= 0 <= high.

    Up to 8 bits through int8, which clamps; a convolution behind it reads the int8 itself. Beyond that digit by digit.
    """
    step, real = 1 / per_unit, build.floats(layer, tensor)
    real = _before_relu(build, real) if low == 0 else real
    if np.frexp(per_unit)[0] != 0.5:  # only of powers of two are float32 inverses exact
        return scaled(layer, build, rounded(layer, build, scaled(layer, build, real, per_unit), 1.0, low, high), step)
    if high - low > _INT8:
        return _clipped(layer, build, _digits(layer, build, real, step), low * step, high * step)
    if low == 0:
        if high < _INT8:
            real = build.add("activation", layer, real, attrs={"activation": Activation.RELU, "limit": high * step})
        return _stored(layer, build, real, step, -128)
    for zero_point in dict.fromkeys((127 - high, -128 - low)):
        real = _stored(layer, build, real, step, zero_point)
    return real


def _before_relu(build: Builder, tensor: str) -> str:
    """What a ReLU was applied to, if `tensor` is that: levels from 0 up say the same of both, and the layer before gives int8 by itself."""
    maker = next((node for node in build.nodes if node.output == tensor), None)
    is_relu = maker is not None and maker.op == "activation" and maker.attrs["activation"] == Activation.RELU
    return maker.inputs[0] if maker is not None and is_relu and maker.attrs["limit"] == math.inf else tensor


def _stored(layer: Layer, build: Builder, tensor: str, step: float, zero_point: int) -> str:
    """The tensor through int8, in steps of `step` from -128 - zero_point to 127 - zero_point."""
    whole = build.add("quantize", layer, tensor, encoding=Encoding.INT8)
    build.types[whole] = replace(build.types[whole], scale=float(np.float32(step)), zero_point=zero_point)
    return build.add("dequantize", layer, whole)


def _digits(layer: Layer, build: Builder, tensor: str, step: float) -> str:
    """The tensor rounded to whole steps: the rest after each digit is exact, as is their sum."""
    rest, total = tensor, ""
    for size in (_DIGIT * _DIGIT, _DIGIT, 1.0):
        digit = _stored(layer, build, rest, size * step, 0)
        total = pair(layer, build, "add", total, digit) if total else digit
        rest = pair(layer, build, "subtract", rest, digit) if size != 1.0 else rest
    return total


def _clipped(layer: Layer, build: Builder, tensor: str, low: float, high: float) -> str:
    """Exact, since the values are on a grid."""
    above = scaled(layer, build, tensor, 1.0, -low)
    limited = build.add("activation", layer, above, attrs={"activation": Activation.RELU, "limit": high - low})
    return scaled(layer, build, limited, 1.0, low)


def ramp(layer: Layer, build: Builder, tensor: str, slope: float, limit: float = 1.0) -> str:
    """min(max(slope * x + limit / 2, 0), limit)."""
    raised = scaled(layer, build, build.floats(layer, tensor), slope, limit / 2)
    return build.add("activation", layer, raised, attrs={"activation": Activation.RELU, "limit": limit})


def function(layer: Layer, build: Builder, tensor: str, which: Activation, **attrs: float) -> str:
    """An activation of `edge.ops`."""
    return build.add("activation", layer, build.floats(layer, tensor), attrs={"activation": which, **attrs})
