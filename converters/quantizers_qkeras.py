"""QKeras' quantizers, as they work when a model is used: what is drawn at random in training is fixed then.

With m = 2^bits (bits - 1 where negative values are kept) and m_i = 2^integer, in steps of m_i / m:

| name                          | x becomes                                                                                       |
|-------------------------------|-------------------------------------------------------------------------------------------------|
| binary, stochastic_binary     | alpha * sign(x), sign(0) = +1; with use_01 alpha where x >= 0, else 0                           |
| ternary, stochastic_ternary   | alpha * sign(x) where abs(x) >= threshold (0.33), else 0                                        |
| quantized_bits                | alpha * round(x), between -m_i (0 without keep_negative; a step more with symmetric) and m_i    |
| quantized_relu                | round(max(x, slope * x)), between -slope * m_i and m_i                                          |
| quantized_tanh                | round(min(max(x, -1), 1)), or of tanh with use_real_tanh                                        |
| quantized_sigmoid             | round(min(max(x / 2 + 1/2, 0), 1)), or of the sigmoid with use_real_sigmoid                     |
| quantized_po2, _relu_po2      | the nearest power of two (weights alone)                                                        |

The largest level is a step below m_i, 1. alpha "auto" and "auto_po2" are scales of weights along the last axis, found from them.
"""

from __future__ import annotations

import functools

import numpy as np

from edge.converters.builder import Options
from edge.converters.layers_merge import scaled
from edge.converters.quantizer_nodes import function, ramp
from edge.converters.quantizers import FUNCTIONS, Nothing, Quantizer, Weights, register
from edge.converters.quantizers_levels import (
    EPSILON,
    Alpha,
    Grid,
    OfWeights,
    Shaped,
    Sign,
    Ternary,
    TwoLevels,
    least_squares,
    per_channel_axes,
    power_of_two,
)
from edge.graph import Array
from edge.ops import Activation

MAX_BITS, MAX_INTEGER = 32, 31
_ROUNDS = 5
_COMMON = ("qnoise_factor", "var_name", "use_ste", "use_variables")


# -- options -------------------------------------------------------------------------------------------------------------------


def _bits(options: Options, default: int = 8, least: int = 1) -> int:
    bits = options.wholes("bits", (default,))
    if len(bits) != 1 or not least <= bits[0] <= MAX_BITS:
        raise options.error(f"bits should be {least} to {MAX_BITS}, got {options.config.get('bits')!r}; save the model again")
    return bits[0]


def _integer(options: Options) -> int:
    found = options.wholes("integer", (0,))
    if len(found) != 1 or not 0 <= found[0] <= MAX_INTEGER:
        raise options.error(f"integer should be 0 to {MAX_INTEGER}, got {options.config.get('integer')!r}; save the model again")
    return found[0]


def _alpha(options: Options) -> Alpha:
    alpha = options.config.get("alpha")
    if isinstance(alpha, str) and alpha not in ("auto", "auto_po2"):
        raise options.error(f"alpha should be a number, 'auto' or 'auto_po2', got {alpha[:40]!a}; save the model again")
    return alpha if isinstance(alpha, str) else options.number("alpha", 1.0)


def _check_noise(options: Options) -> None:
    noise = options.number("qnoise_factor", 1.0)
    if noise != 1:
        raise options.error(f"qnoise_factor {noise:g} mixes in values that are not quantized, expected 1; set it and save the model again")


def _slope(options: Options) -> float:
    slope = options.number("negative_slope", 0.0)
    if slope < 0 or (slope and np.frexp(slope)[0] != 0.5):
        raise options.error(f"negative_slope should be 0 or a power of two, got {slope:g}; save the model again")
    return slope


# -- signs and ternary values --------------------------------------------------------------------------------------------------


def _binary(options: Options) -> Quantizer:
    alpha = _alpha(options)
    return TwoLevels(alpha, zero=1) if options.flag("use_01", False) else Sign(alpha)


def _ternary(options: Options) -> Quantizer:
    alpha = _alpha(options)
    if isinstance(alpha, str) and options.config.get("threshold") is not None:
        raise options.error(f"threshold does not go with alpha {alpha!r}, expected none; save the model again")
    unrolls = options.wholes("number_of_unrolls", (_ROUNDS,))
    if len(unrolls) != 1 or not 0 <= unrolls[0] <= 1000:
        raise options.error(f"number_of_unrolls should be a small whole number, got {options.config.get('number_of_unrolls')!r}")
    return Ternary(alpha, options.number("threshold", 0.33), unrolls[0])


# -- grids ---------------------------------------------------------------------------------------------------------------------


def _quantized_bits(options: Options) -> Quantizer:
    _check_noise(options)
    bits, integer, alpha = _bits(options), _integer(options), _alpha(options)
    signed = options.flag("keep_negative", True)
    if isinstance(alpha, str):
        if options.config.get("scale_axis") is not None:
            raise options.error("scale_axis is not supported, expected none: scales along the last axis; train without it")
        why = f"alpha {alpha!r} is for weights: of activations it would depend on the whole batch; use a number"
        return OfWeights(functools.partial(_scaled_bits, bits, integer, alpha), why)
    if bits == 1 and signed:
        return Sign(alpha)
    levels = 1 << (bits - signed)
    low = -levels + options.flag("symmetric", False) if signed else 0
    return Grid(levels / (1 << integer), low, levels - 1, bits, alpha)


def _scaled_bits(bits: int, integer: int, alpha: str, kernel: Array) -> Weights:
    """Symmetric levels with a scale of each filter: from its largest weight, and to a power of two in rounds of least squares."""
    values, top = kernel / np.float32(1 << integer), (1 << (bits - 1)) - 1
    axes = per_channel_axes(values) if values.ndim > 1 else (0,)
    with np.errstate(invalid="ignore", divide="ignore"):  # a filter of zeros; a top of 0
        scale = np.abs(values).max(axis=axes, keepdims=True) * 2 / np.float32(2 * top)
        if alpha == "auto":
            return _of_levels(_levels(values, scale, top), scale, integer, bits)
        scale, levels = power_of_two(scale), np.zeros_like(values)
        for _ in range(_ROUNDS):
            levels = _levels(values, scale, top)
            scale = least_squares(alpha, values, levels)
    return _of_levels(levels, scale, integer, bits)


def _levels(values: Array, scale: Array, top: int) -> Array:
    whole = np.floor(np.abs(values) / scale + np.float32(0.5))
    return np.asarray(np.sign(values) * np.where(whole < top, whole, np.float32(top)))


def _of_levels(levels: Array, scale: Array, integer: int, bits: int) -> Weights:
    """NaN, which a filter of zeros gives in the division, is 0."""
    return Weights(np.nan_to_num(levels, nan=0.0), np.nan_to_num(scale, nan=0.0) * np.float32(1 << integer), bits)


def _quantized_relu(options: Options) -> Quantizer:
    _check_noise(options)
    bits, integer, slope = _bits(options), _integer(options), _slope(options)
    levels = 1 << (bits - (slope != 0))
    per_unit = levels / (1 << integer)
    if slope and slope * levels < 1:
        raise options.error(f"negative_slope {slope:g} leaves no level below 0 at {bits} bits; train with a larger one")
    most = None
    if not options.flag("is_quantized_clip", True) and options.config.get("relu_upper_bound"):
        most = options.number("relu_upper_bound", 0.0)
    low = -int(slope * levels)
    if not options.flag("use_sigmoid", False):
        return Grid(per_unit, low, levels - 1, bits, slope=slope or 1.0, most=most)
    if slope or most is not None:
        raise options.error("use_sigmoid together with negative_slope or relu_upper_bound is not supported; train without")
    half = Grid(float(levels), 0, levels, bits + 1)  # the sigmoid of x / m_i, in levels
    unit = float(1 << integer)
    return Shaped(
        lambda x: (2 * half.weights(_hard_sigmoid(x / np.float32(unit))).values - 1) * np.float32(unit),
        lambda layer, build, x: scaled(layer, build, half.activation(layer, build, ramp(layer, build, x, 0.5 / unit)), 2 * unit, -unit),
        Grid(per_unit, 0, levels - 1, bits),
    )


def _quantized_tanh(options: Options) -> Quantizer:
    bits = _bits(options, least=2)
    levels = 1 << (bits - 1)
    grid = Grid(float(levels), -levels + options.flag("symmetric", False), levels - 1, bits)
    if options.flag("use_real_tanh", False):
        return Shaped(np.tanh, lambda layer, build, x: function(layer, build, x, Activation.TANH), grid)
    return Shaped(
        lambda x: 2 * _hard_sigmoid(x) - 1,
        lambda layer, build, x: scaled(layer, build, ramp(layer, build, x, 0.5), 2.0, -1.0),
        grid,
    )


def _quantized_sigmoid(options: Options) -> Quantizer:
    bits = _bits(options)
    levels = 1 << bits
    grid = Grid(float(levels), 0, levels - 1, bits)
    if options.flag("symmetric", False):
        raise options.error("symmetric is not supported, expected false: it lifts the lowest level above 0; train without it")
    if options.flag("use_real_sigmoid", False):
        return Shaped(lambda x: 1 / (1 + np.exp(-x)), lambda layer, build, x: function(layer, build, x, Activation.SIGMOID), grid)
    return Shaped(_hard_sigmoid, lambda layer, build, x: ramp(layer, build, x, 0.5), grid)


def _hard_sigmoid(x: Array) -> Array:
    return np.asarray(np.clip(np.float32(0.5) * x + np.float32(0.5), 0, 1))


# -- powers of two -------------------------------------------------------------------------------------------------------------


def _po2(options: Options, *, relu: bool) -> Quantizer:
    _check_noise(options)
    bits, quadratic = _bits(options, least=1 if relu else 2), options.flag("quadratic_approximation", False)
    rounding = options.choice("log2_rounding", ("rnd", "floor"), "rnd")
    most = options.number("max_value", 0.0) if options.config.get("max_value") is not None else None
    if most is not None and most < 0:
        raise options.error(f"max_value should not be negative, got {most:g}; save the model again")
    effective = bits - (not relu) - (most is None or most > 1)
    low, high = (-float(2) ** effective, 2.0**effective - 1)
    limits = _Exponents(low, 2 * (high // 2) if quadratic else high, most, quadratic, rounding == "floor")
    slope = _slope(options) if relu else 0.0
    compute = functools.partial(_relu_powers, limits, slope, bits) if relu else functools.partial(_powers, limits, bits)
    return OfWeights(compute, "powers of two are supported for weights, not for activations; use quantized_relu or quantized_bits there")


class _Exponents:
    """Magnitudes as powers of two: between two exponents, of values of at most `most`, even exponents alone where `quadratic`."""

    def __init__(self, low: float, high: float, most: float | None, quadratic: bool, floor: bool) -> None:
        self._low, self._high, self._most, self._quadratic, self._floor = low, high, most, quadratic, floor

    def __call__(self, size: Array) -> Array:
        inner = np.maximum(size, EPSILON)
        inner = inner if self._most is None else np.minimum(inner, np.float32(self._most))
        with np.errstate(divide="ignore"):  # a max_value of 0
            exponent = np.log(np.sqrt(inner) if self._quadratic else inner) / np.float32(np.log(2.0))
        whole = np.clip(np.floor(exponent) if self._floor else np.rint(exponent), self._low, self._high)
        found = np.where(size < EPSILON, self._low, whole * (2 if self._quadratic else 1))
        return np.asarray(np.exp2(found), np.float32)


def _powers(exponents: _Exponents, bits: int, kernel: Array) -> Weights:
    return Weights(np.where(kernel < 0, -1, 1) * exponents(np.abs(kernel)), np.ones(1, np.float32), bits)


def _relu_powers(exponents: _Exponents, slope: float, bits: int, kernel: Array) -> Weights:
    above, below = exponents(np.maximum(kernel, 0)), exponents(np.maximum(-kernel, 0) * np.float32(slope))
    return Weights(np.where((kernel >= 0) | (slope == 0), above, -below), np.ones(1, np.float32), bits)


# -- names ---------------------------------------------------------------------------------------------------------------------


def _random(options: Options) -> Quantizer:
    raise options.error("draws at random whenever it is used, so no converted model could equal it; use binary")


_GRIDS = "int8 up to 8 bits, else float32"
_AT_INFERENCE = ("temperature", "use_real_sigmoid")
register("QKeras", "binary", ("use_01", "alpha", "use_stochastic_rounding"), _binary, "packed signs", "packed signs, scaled")
register("QKeras", "stochastic_binary", ("alpha", *_AT_INFERENCE), _binary, "packed signs", "packed signs, scaled")
register("QKeras", "bernoulli", ("alpha", *_AT_INFERENCE), _random, "refused", "refused")
register("QKeras", "ternary", ("alpha", "threshold", "use_stochastic_rounding", "number_of_unrolls"), _ternary, "int8",
         "int8; pairs of signs on signs")  # fmt: skip
register("QKeras", "stochastic_ternary", ("alpha", "threshold", *_AT_INFERENCE, "number_of_unrolls"), _ternary, "int8",
         "int8; pairs of signs on signs")  # fmt: skip
register("QKeras", "quantized_bits",
         ("bits", "integer", "symmetric", "keep_negative", "alpha", "use_stochastic_rounding", "scale_axis", *_COMMON),
         _quantized_bits, _GRIDS, _GRIDS)  # fmt: skip
register("QKeras", "quantized_relu",
         ("bits", "integer", "use_sigmoid", "negative_slope", "use_stochastic_rounding", "relu_upper_bound", "is_quantized_clip", *_COMMON),
         _quantized_relu, _GRIDS, _GRIDS)  # fmt: skip
register("QKeras", "quantized_tanh", ("bits", "use_stochastic_rounding", "symmetric", "use_real_tanh"), _quantized_tanh, _GRIDS, _GRIDS)
register("QKeras", "quantized_sigmoid", ("bits", "symmetric", "use_real_sigmoid", "use_stochastic_rounding"), _quantized_sigmoid, _GRIDS,
         _GRIDS)  # fmt: skip
_POWERS = ("use_stochastic_rounding", "quadratic_approximation", "log2_rounding", *_COMMON)
register("QKeras", "quantized_po2", ("bits", "max_value", *_POWERS), functools.partial(_po2, relu=False), "refused", "float32")
register("QKeras", "quantized_relu_po2", ("bits", "max_value", "negative_slope", *_POWERS), functools.partial(_po2, relu=True), "refused",
         "float32")  # fmt: skip

FUNCTIONS["hard_sigmoid"] = Shaped(_hard_sigmoid, lambda layer, build, x: ramp(layer, build, x, 0.5), Nothing())
FUNCTIONS["smooth_sigmoid"] = Shaped(
    lambda x: np.clip(np.float32(0.1875) * x + np.float32(0.5), 0, 1), lambda layer, build, x: ramp(layer, build, x, 0.1875), Nothing()
)
FUNCTIONS["hard_tanh"] = Shaped(
    lambda x: 2 * _hard_sigmoid(x) - 1, lambda layer, build, x: scaled(layer, build, ramp(layer, build, x, 0.5), 2.0, -1.0), Nothing()
)
FUNCTIONS["smooth_tanh"] = Shaped(
    lambda x: 2 * np.clip(np.float32(0.1875) * x + np.float32(0.5), 0, 1) - 1,
    lambda layer, build, x: scaled(layer, build, ramp(layer, build, x, 0.1875), 2.0, -1.0),
    Nothing(),
)
FUNCTIONS["binary_sigmoid"] = TwoLevels()
FUNCTIONS["binary_tanh"] = TwoLevels(low=-1.0)
