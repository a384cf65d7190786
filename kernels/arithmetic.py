"""The arithmetic of values in plain NumPy: fused multiply-add, quantization, activations and magnitudes, each rounded as kernels round.

Stored values are float32, the integers of int8 and uint8, and bools for bits (True is -1). A value that is not a number follows the
comparisons: it quantizes to the lowest integer and is 0 after ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edge.kernels.bitpack import signs
from edge.kernels.shapes import VALUES
from edge.ops import Activation, OpCall
from edge.tensors import Encoding, TensorType

Array = np.ndarray

DTYPES: Mapping[Encoding, np.dtype[np.generic]] = {
    Encoding.FLOAT32: np.dtype(np.float32),
    Encoding.UINT8: np.dtype(np.uint8),
    Encoding.INT8: np.dtype(np.int8),
    Encoding.BITS: np.dtype(np.bool_),
}
_RANGES = {Encoding.INT8: (-128, 127), Encoding.UINT8: (0, 255)}


def fma(x: Array, y: Array, total: Array) -> Array:
    """float32 x * y + total, rounded once.

    The product of two float32 is exact in float64. Their sum is rounded to odd there (the exact error comes from Knuth's two-sum), which
    makes the second rounding, to float32, right: 53 bits are more than 24 + 2 (Boldo and Melquiond, 2008).
    """
    product = x.astype(np.float64) * y.astype(np.float64)
    addend = np.broadcast_to(total, product.shape).astype(np.float64)
    rounded = np.asarray(product + addend)
    second = rounded - product
    error = (product - (rounded - second)) + (addend - second)
    bits = rounded.view(np.int64)
    inexact_and_even = np.isfinite(rounded) & (error != 0) & (bits & 1 == 0)
    step = np.where((error > 0) == (rounded > 0), 1, -1)
    return np.where(inexact_and_even, bits + step, bits).view(np.float64).astype(np.float32)


def inverse_scale(kind: TensorType) -> np.float32:
    """The float32 that multiplies real values to quantize them."""
    return np.float32(np.float32(1) / np.float32(kind.scale))


def quantize(real: Array, kind: TensorType) -> Array:
    """float32 values as the stored integers of `kind`: clamp(round_half_even(real * (1 / scale)) + zero_point)."""
    low, high = (bound - kind.zero_point for bound in _RANGES[kind.encoding])
    steps = np.rint(real * inverse_scale(kind))
    steps = np.where(steps > low, steps, np.float32(low))
    steps = np.where(steps < high, steps, np.float32(high))
    return (steps.astype(np.int32) + kind.zero_point).astype(DTYPES[kind.encoding])


def dequantize(stored: Array, kind: TensorType) -> Array:
    """The float32 values of stored ones: scale * (q - zero_point) for integers, +-1 for bits."""
    if kind.encoding is Encoding.FLOAT32:
        return stored
    if kind.encoding is Encoding.BITS:
        return signs(stored)
    return (stored.astype(np.int32) - kind.zero_point).astype(np.float32) * np.float32(kind.scale)


def activate(x: Array, attrs: Mapping[str, int | float]) -> Array:
    """The activation that the attributes `activation`, `alpha` and `limit` name, of float32 values."""
    alpha, limit = np.float32(attrs["alpha"]), np.float32(attrs["limit"])
    wide = x.astype(np.float64)
    functions: dict[Activation, Callable[[], Array]] = {
        Activation.NONE: lambda: x,
        Activation.RELU: lambda: _clipped(x, limit),
        Activation.LEAKY_RELU: lambda: np.where(x < 0, x * alpha, x),
        Activation.ELU: lambda: np.where(x < 0, np.expm1(wide).astype(np.float32) * alpha, x),
        Activation.SIGMOID: lambda: (1 / (1 + np.exp(-wide))).astype(np.float32),
        Activation.TANH: lambda: np.tanh(wide).astype(np.float32),
        Activation.HARD_SWISH: lambda: x * (_clipped(x + np.float32(3), np.float32(6)) * np.float32(1 / 6)),
        Activation.SWISH: lambda: (wide / (1 + np.exp(-wide))).astype(np.float32),
        Activation.GELU: lambda: (wide * _erfc(-wide * math.sqrt(0.5)) / 2).astype(np.float32),
        Activation.GELU_TANH: lambda: (wide / (1 + np.exp(-_gelu_argument(wide)))).astype(np.float32),
        Activation.SOFTPLUS: lambda: np.logaddexp(wide, 0).astype(np.float32),
        Activation.SOFTSIGN: lambda: x / (np.abs(x) + np.float32(1)),
        Activation.MISH: lambda: (wide * np.tanh(np.logaddexp(wide, 0))).astype(np.float32),
        Activation.EXP: lambda: np.exp(wide).astype(np.float32),
        Activation.SQRT: lambda: np.sqrt(x),
    }
    return functions[Activation(int(attrs["activation"]))]()


def _clipped(x: Array, limit: np.float32) -> Array:
    """ReLU with a limit: 0 for what is not a number."""
    return np.where(x > 0, np.where(x < limit, x, limit), np.float32(0))


def _erfc(x: Array) -> Array:
    found: Array = np.vectorize(math.erfc, otypes=[np.float64])(x)
    return found


def _gelu_argument(x: Array) -> Array:
    """(1 + tanh(u)) / 2 is 1 / (1 + exp(-2 u)): this is 2 u."""
    found: Array = 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return found


def magnitudes(image: Array) -> Array:
    """(H, W, 1): the sum of abs(x) over the channels of every pixel of a float32 image.

    Runs of `VALUES` channels are added one after the other, the last filled up with 0; then halves of the result to halves.
    """
    height, width, channels = image.shape
    padded = np.zeros((height, width, -(-channels // VALUES), VALUES), np.float32)
    padded.reshape(height, width, -1)[..., :channels] = np.abs(image)
    total = padded[:, :, 0]
    for run in range(1, padded.shape[2]):
        total = total + padded[:, :, run]
    while total.shape[2] > 1:
        half = total.shape[2] // 2
        total = total[..., :half] + total[..., half:]
    return total


def mean_factor(call: OpCall) -> np.float32:
    """What makes the sum over all channels of a window their mean."""
    return np.float32(1 / (call.inputs[0].hwc[2] * call.i("window_h") * call.i("window_w")))
