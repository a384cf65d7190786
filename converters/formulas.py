"""Activations that are sums and products of others: each a function (layer, build, tensor) -> tensor, by Keras' name for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge.converters.builder import Builder, Layer
from edge.converters.layers_merge import pair, scaled
from edge.ops import Activation

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al., 2017

Formula = Callable[[Layer, Builder, str], str]


def _function(layer: Layer, build: Builder, tensor: str, function: Activation, **attrs: float) -> str:
    return build.add("activation", layer, tensor, attrs={"activation": function, **attrs})


def _ramp(layer: Layer, build: Builder, tensor: str, slope: float, middle: float) -> str:
    """min(max(slope * x + middle, 0), 1)."""
    return _function(layer, build, scaled(layer, build, tensor, slope, middle), Activation.RELU, limit=1.0)


def _hard_sigmoid(layer: Layer, build: Builder, tensor: str) -> str:
    """Keras 3 changed the slope from 1/5 to 1/6."""
    return _ramp(layer, build, tensor, 1 / 6 if build.keras_major >= 3 else 0.2, 0.5)


def _hard_tanh(layer: Layer, build: Builder, tensor: str) -> str:
    return _clipped(layer, build, tensor, 1.0)


def _clipped(layer: Layer, build: Builder, tensor: str, bound: float) -> str:
    """min(max(x, -bound), bound)."""
    raised = _function(layer, build, scaled(layer, build, tensor, 1.0, bound), Activation.RELU, limit=2 * bound)
    return scaled(layer, build, raised, 1.0, -bound)


def _selu(layer: Layer, build: Builder, tensor: str) -> str:
    return scaled(layer, build, _function(layer, build, tensor, Activation.ELU, alpha=_SELU_ALPHA), _SELU_SCALE)


def _log_sigmoid(layer: Layer, build: Builder, tensor: str) -> str:
    """-softplus(-x)."""
    return scaled(layer, build, _function(layer, build, scaled(layer, build, tensor, -1.0), Activation.SOFTPLUS), -1.0)


def _celu(layer: Layer, build: Builder, tensor: str) -> str:
    return _function(layer, build, tensor, Activation.ELU, alpha=1.0)


def _tanh_shrink(layer: Layer, build: Builder, tensor: str) -> str:
    return pair(layer, build, "subtract", tensor, _function(layer, build, tensor, Activation.TANH))


def _soft_shrink(layer: Layer, build: Builder, tensor: str) -> str:
    """x less what of it lies within 0.5 of 0."""
    return pair(layer, build, "subtract", tensor, _clipped(layer, build, tensor, 0.5))


def _sparse_plus(layer: Layer, build: Builder, tensor: str) -> str:
    """t^2 + max(x - 1, 0) with t the ramp from -1 to 1."""
    ramp = _ramp(layer, build, tensor, 0.5, 0.5)
    above = _function(layer, build, scaled(layer, build, tensor, 1.0, -1.0), Activation.RELU)
    return pair(layer, build, "add", pair(layer, build, "multiply", ramp, ramp), above)


def _squareplus(layer: Layer, build: Builder, tensor: str) -> str:
    """(x + sqrt(x^2 + 4)) / 2."""
    square = scaled(layer, build, pair(layer, build, "multiply", tensor, tensor), 1.0, 4.0)
    return scaled(layer, build, pair(layer, build, "add", tensor, _function(layer, build, square, Activation.SQRT)), 0.5)


def _glu(layer: Layer, build: Builder, tensor: str) -> str:
    """The first half of the channels times the sigmoid of the second."""
    kind = build.types[tensor]
    height, width, channels = kind.hwc
    if channels % 2:
        raise layer.error(f"glu needs an even number of channels, got {channels}")
    sizes = {"size_h": height, "size_w": width, "size_c": channels // 2, "start_h": 0, "start_w": 0, "step_h": 1, "step_w": 1}
    first, second = (
        build.add("slice", layer, tensor, attrs={**sizes, "start_c": start}, rank=len(kind.shape)) for start in (0, channels // 2)
    )
    return pair(layer, build, "multiply", first, _function(layer, build, second, Activation.SIGMOID))


FORMULAS: Mapping[str, Formula] = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_tanh": _hard_tanh,
    "sparse_sigmoid": lambda layer, build, tensor: _ramp(layer, build, tensor, 0.5, 0.5),
    "selu": _selu,
    "celu": _celu,
    "log_sigmoid": _log_sigmoid,
    "tanh_shrink": _tanh_shrink,
    "soft_shrink": _soft_shrink,
    "sparse_plus": _sparse_plus,
    "glu": _glu,
    "squareplus": _squareplus,
}
