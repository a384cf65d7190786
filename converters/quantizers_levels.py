"""Quantizers by the levels they give: signs, zeros and ones, ternary values, and grids of a fixed step.

| class     | levels                               | weights                                 | activations                             |
|-----------|--------------------------------------|-----------------------------------------|-----------------------------------------|
| Sign      | -alpha, alpha; sign(0) = +1          | packed signs, alpha their scale         | packed signs; alpha a scaling of them   |
| TwoLevels | 0, alpha                             | int8; pairs of packed signs on signs    | packed signs, scaled and shifted        |
| Ternary   | -alpha, 0, alpha                     | int8; pairs of packed signs on signs    | the difference of packed signs, as int8 |
| Grid      | low ... high, in steps of 1/per_unit | int8 up to 8 bits, else float32         | int8 up to 8 bits, else float32         |
| Shaped    | those of a Grid, after a function    | as Grid                                 | as Grid                                 |

`alpha` is a number; for weights also "mean", the mean of abs(w), or "auto" and "auto_po2", the least squares sum(w q) / sum(q q), as it is
or as the nearest power of two: each along the last axis. For activations these would be taken over a batch, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.converters.builder import Builder, Layer
from edge.converters.layers_merge import scaled
from edge.converters.quantizer_nodes import binarize, function, rounded, ternary, two_levels
from edge.converters.quantizers import Quantizer, Weights
from edge.graph import Array
from edge.ops import Activation

Alpha = float | str
EPSILON = np.float32(1e-7)  # what Keras adds to divisors and logarithms
MAX_ACTIVATION_BITS = 20
_UNROLLS = 5


def per_channel_axes(array: Array) -> tuple[int, ...]:
    """All axes but the last."""
    return tuple(range(array.ndim - 1))


def least_squares(alpha: str, values: Array, levels: Array) -> Array:
    """The scale, along the last axis, with which `levels` come closest to `values`; of a vector, for each value by itself."""
    products, squares = values * levels, levels * levels
    if values.ndim > 1:
        axes = per_channel_axes(values)
        products, squares = (each.mean(axis=axes, keepdims=True, dtype=np.float32) for each in (products, squares))
    scale = products / (squares + EPSILON)
    return power_of_two(scale) if alpha == "auto_po2" else scale


def power_of_two(scale: Array) -> Array:
    """The power of two nearest on a logarithmic scale."""
    with np.errstate(invalid="ignore", divide="ignore"):
        exponent = np.rint(np.log(scale + EPSILON) / np.float32(np.log(2.0)))
    found: Array = np.exp2(exponent).astype(np.float32)
    return found


def scale_of(alpha: Alpha, values: Array, levels: Array) -> Array:
    """The scale that `alpha` asks for."""
    if alpha == "mean":
        return np.asarray(np.abs(values).mean(axis=per_channel_axes(values), keepdims=True, dtype=np.float64).astype(np.float32))
    return least_squares(alpha, values, levels) if isinstance(alpha, str) else np.full(1, alpha, np.float32)


def number(layer: Layer, alpha: Alpha) -> float:
    """`alpha` of an activation; ModelError where it would be taken over the batch."""
    if isinstance(alpha, str):
        kind = "magnitude_aware_sign" if alpha == "mean" else f"alpha {alpha!r}"
        raise layer.error(f"{kind} is for weights: of activations it would depend on the whole batch; use a number, or ste_sign")
    return alpha


@dataclass(frozen=True)
class Sign(Quantizer):
    """alpha * sign(x)."""

    alpha: Alpha = 1.0

    def weights(self, kernel: Array) -> Weights:
        levels = np.where(kernel < 0, np.float32(-1), np.float32(1))
        return Weights(levels, scale_of(self.alpha, kernel, levels), 1)

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        alpha = number(layer, self.alpha)
        signs = binarize(layer, build, tensor)
        return signs if alpha == 1 else scaled(layer, build, build.floats(layer, signs), alpha)


@dataclass(frozen=True)
class TwoLevels(Quantizer):
    """alpha where x > 0, `low` * alpha where x < 0; x = 0 counts as `zero`, +1 or -1."""

    alpha: Alpha = 1.0
    low: float = 0.0
    zero: int = -1

    def weights(self, kernel: Array) -> Weights:
        above = (kernel > 0) | ((kernel == 0) & (self.zero > 0))
        levels = np.where(above, np.float32(1), np.float32(self.low))
        return Weights(levels, scale_of(self.alpha, kernel, levels), 1)

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        alpha = number(layer, self.alpha)
        return two_levels(layer, build, tensor, self.low * alpha, alpha, zero=self.zero)


@dataclass(frozen=True)
class Ternary(Quantizer):
    """alpha * sign(x) where abs(x) >= threshold, else 0.

    threshold None: 0.7 times the mean of abs(w) (Li et al., 2016). With alpha "auto" or "auto_po2" it is half the scale, found together
    with it in a few rounds.
    """

    alpha: Alpha = 1.0
    threshold: float | None = 0.05
    unrolls: int = _UNROLLS

    def weights(self, kernel: Array) -> Weights:
        if isinstance(self.alpha, str):
            levels, scale = self._unrolled(self.alpha, kernel)
            return Weights(levels, scale, 2)
        mean = np.abs(kernel).sum(dtype=np.float32) * np.float32(0.7) / np.float32(kernel.size)
        threshold = mean if self.threshold is None else np.float32(self.threshold)
        return Weights(np.where(np.abs(kernel) >= threshold, np.sign(kernel), np.float32(0)), np.full(1, self.alpha, np.float32), 2)

    def _unrolled(self, alpha: str, kernel: Array) -> tuple[Array, Array]:
        axes = None if kernel.ndim == 1 else per_channel_axes(kernel)
        scale = 2 * np.abs(kernel).max(axis=axes, keepdims=True) / np.float32(3)
        scale, levels = power_of_two(scale) if alpha == "auto_po2" else scale, np.zeros_like(kernel)
        with np.errstate(invalid="ignore", divide="ignore"):  # a filter of zeros
            for _ in range(self.unrolls):
                near = scale * np.rint(kernel / scale)
                levels = (np.abs(near) >= scale / 2) * np.sign(kernel)
                scale = least_squares(alpha, kernel, levels)
        return levels, scale

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        alpha = number(layer, self.alpha)
        if self.threshold is None:
            raise layer.error("ternary_weight_networks takes its threshold from the whole batch; set threshold_value and train again")
        return ternary(layer, build, tensor, self.threshold, alpha)


@dataclass(frozen=True)
class Grid(Quantizer):
    """alpha * min(max(round(x * per_unit), low), high) / per_unit, halves rounded to even; at most `most`, if that is given."""

    per_unit: float
    low: int
    high: int
    bits: int
    alpha: Alpha = 1.0
    slope: float = 1.0  # of what is below 0
    most: float | None = None

    def weights(self, kernel: Array) -> Weights:
        bent = np.where(kernel < 0, kernel * np.float32(self.slope), kernel)
        whole = np.clip(np.rint(bent * np.float32(self.per_unit)), self.low, self.high)
        step = np.full(1, float(self.alpha) / self.per_unit, np.float32)
        if self.most is not None:
            return Weights(np.minimum(whole * step, np.float32(self.most)), np.ones(1, np.float32), self.bits)
        return Weights(whole, step, self.bits)

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        alpha = number(layer, self.alpha)
        if self.bits > MAX_ACTIVATION_BITS:
            most = MAX_ACTIVATION_BITS
            raise layer.error(f"activations of {self.bits} bits are not supported, expected at most {most}; leave them float")
        real = build.floats(layer, tensor)
        if (self.low, self.high, self.most) == (0, 1, None):  # halves are rounded to 0
            shifted = scaled(layer, build, real, 1.0, -0.5 / self.per_unit)
            return two_levels(layer, build, shifted, 0.0, alpha / self.per_unit, zero=-1)
        if self.slope != 1.0:
            real = function(layer, build, real, Activation.LEAKY_RELU, alpha=self.slope)
        made = rounded(layer, build, real, self.per_unit, self.low, self.high)
        made = made if self.most is None else self._limited(layer, build, made, self.most)
        return made if alpha == 1 else scaled(layer, build, made, alpha)

    def _limited(self, layer: Layer, build: Builder, tensor: str, most: float) -> str:
        if self.low == 0:
            return function(layer, build, tensor, Activation.RELU, limit=most)
        below = function(layer, build, scaled(layer, build, tensor, -1.0, most), Activation.RELU)
        return scaled(layer, build, below, -1.0, most)  # min(x, most) = most - max(most - x, 0)


@dataclass(frozen=True)
class Shaped(Quantizer):
    """`levels` of a function of x: `values` is it for weights, `nodes` adds it to a graph."""

    values: Callable[[Array], Array]
    nodes: Callable[[Layer, Builder, str], str]
    levels: Quantizer

    def weights(self, kernel: Array) -> Weights:
        return self.levels.weights(self.values(kernel).astype(np.float32))

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        return self.levels.activation(layer, build, self.nodes(layer, build, build.floats(layer, tensor)))


@dataclass(frozen=True)
class OfWeights(Quantizer):
    """Levels that only weights can take: `compute` gives them; `why` says what is wrong with activations."""

    compute: Callable[[Array], Weights]
    why: str

    def weights(self, kernel: Array) -> Weights:
        return self.compute(kernel)

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        raise layer.error(self.why)
