"""Arguments that several families of kernels share. Pure arithmetic, no Numba."""

from __future__ import annotations

import numpy as np

from edge.kernels.arithmetic import inverse_scale, quantize
from edge.kernels.registry import Lowering, Place, float_bits
from edge.ops import Activation
from edge.tensors import Encoding, TensorType

OVERREAD = 32  # entries of a derived table that a vector load may read past the last channel


def epilogue(low: Lowering, *, scaled: bool, biased: bool) -> tuple[int, ...]:
    """The seven arguments of an epilogue (`edge.kernels.epilogue`); offsets that it does not read are 0."""
    channels = low.output.channels
    scale = vector(low, "scale", 1.0, channels) if scaled else 0
    bias = vector(low, "bias", 0.0, channels) if biased else 0
    return scale, bias, *bounds(low), *quantization(low.output.type)


def residual(low: Lowering) -> tuple[int, ...]:
    """The eleven arguments that follow those of an epilogue for residual_conv2d; offsets that it does not read are 0."""
    channels = low.output.channels

    def pair(mul: str, add: str) -> tuple[int, int]:
        present = low.has(mul) or low.has(add)
        return (vector(low, mul, 1.0, channels), vector(low, add, 0.0, channels)) if present else (0, 0)

    slope = low.constant("slope") if low.has("slope") else 0
    other = _steps(low.input(1)) if len(low.call.inputs) == 2 else (0, 0, 0)
    packed = low.signs or low.output
    signs = _steps(packed) if packed.type.encoding is Encoding.BITS else (0, 0, 0)
    return slope, *pair("mul", "add"), *other, *signs, *pair("sign_mul", "sign_add")


def _steps(place: Place) -> tuple[int, int, int]:
    return place.offset, place.row_bytes, place.pixel_bytes


def bounds(low: Lowering) -> tuple[int, int, int]:
    """Lower bound, upper bound and slope below zero of a fused activation, or of none.

    Those of an int8 output are in whole steps from its zero point: rounding keeps order, so they may be applied after it.
    """
    lower, upper, slope = -np.inf, np.inf, 0.0
    name = fused(low)
    if name == "relu":
        lower, upper = 0.0, low.f("limit")
    elif name == "leaky":
        slope = low.f("alpha")
    kind = low.output.type
    if kind.encoding is Encoding.INT8:
        with np.errstate(invalid="ignore", over="ignore"):
            lower, upper = (float(stored) - kind.zero_point for stored in quantize(np.array([lower, upper], np.float32), kind))
    return float_bits(lower), float_bits(upper), float_bits(slope)


def fused(low: Lowering) -> str:
    """The fused activation as code knows it: none, relu or leaky."""
    number = low.i("activation") if "activation" in low.call.attrs else Activation.NONE
    return {Activation.RELU: "relu", Activation.LEAKY_RELU: "leaky"}.get(Activation(number), "none")


def quantization(kind: TensorType) -> tuple[int, int]:
    """1 / scale and zero point of what is stored."""
    return float_bits(float(inverse_scale(kind))), kind.zero_point


def vector(low: Lowering, role: str, default: float, channels: int) -> int:
    """The offset of a row of floats, derived where the file has none."""
    if low.has(role):
        return low.constant(role)
    return low.derived.add(np.full(channels + OVERREAD, default, np.float32))


def is_flat(place: Place) -> bool:
    """Whether rows follow each other without a gap."""
    return place.row_bytes == place.width * place.pixel_bytes
