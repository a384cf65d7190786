"""Layers that act on each value or channel: activations, batch normalization, rescaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edge.converters import formulas, quantizers, quantizers_larq, quantizers_qkeras, quantizers_training
from edge.converters.builder import Builder, Layer, Options, float32, reads
from edge.converters.layers_merge import scaled
from edge.converters.layers_shape import along, reshaped, single_axis
from edge.graph import Array
from edge.ops import Activation

_NAMED = {
    **{"silu": Activation.SWISH, "swish": Activation.SWISH, "hard_silu": Activation.HARD_SWISH, "hard_swish": Activation.HARD_SWISH},
    **{"gelu": Activation.GELU, "softplus": Activation.SOFTPLUS, "softsign": Activation.SOFTSIGN, "mish": Activation.MISH},
    **{"exponential": Activation.EXP},
}
# Keras' own defaults where an activation is given by name alone.
_SIMPLE: Mapping[str, Mapping[str, int | float]] = {
    "relu": {"activation": Activation.RELU},
    "relu6": {"activation": Activation.RELU, "limit": 6.0},
    "leaky_relu": {"activation": Activation.LEAKY_RELU, "alpha": 0.2},
    "elu": {"activation": Activation.ELU, "alpha": 1.0},
    "sigmoid": {"activation": Activation.SIGMOID},
    "tanh": {"activation": Activation.TANH},
    **{name: {"activation": function} for name, function in _NAMED.items()},
}
_PACKAGES = (quantizers_larq, quantizers_qkeras, quantizers_training)  # importing them makes quantizers known
ACTIVATIONS = ("linear", *_SIMPLE, *formulas.FORMULAS, "softmax", "log_softmax")


def activate(layer: Layer, build: Builder, tensor: str, spec: object) -> str:
    """`tensor` after the activation that a config entry gives: a name, a function, or a layer object."""
    if spec is None:
        return tensor
    quantizer = quantizers.find(spec, f"{layer.options.where}: activation", qkeras=quantizers.is_of_qkeras(layer))
    if quantizer is not None:
        return quantizer.activation(layer, build, tensor)
    name, config = name_and_config(spec)
    if name in _OBJECTS and config is not None:
        return _OBJECTS[name](layer, Options(layer.options.where, config), build, tensor)
    if name == "linear":
        return tensor
    if name in ("softmax", "log_softmax"):
        return build.add(name, layer, tensor)
    if name in formulas.FORMULAS:
        return formulas.FORMULAS[name](layer, build, tensor)
    if name in _SIMPLE:
        return build.add("activation", layer, tensor, attrs=_SIMPLE[name])
    known = f"{', '.join(ACTIVATIONS)}, and the quantizers of Larq and QKeras"
    raise layer.error(f"the activation {name[:60]!r} is not supported, there are {known}; train with one of these")


def name_and_config(spec: object) -> tuple[str, Mapping[str, object] | None]:
    """The name of an activation, and its options where a config entry gives it as an object."""
    if isinstance(spec, str):
        return spec, None
    name = spec.get("class_name") if isinstance(spec, Mapping) else None
    config = spec.get("config") if isinstance(spec, Mapping) else None
    if name == "function" and isinstance(config, str):
        return config, None
    return str(name or spec).rpartition(">")[2], config if isinstance(config, Mapping) else {}


@reads("Activation", "QActivation")
def activation(layer: Layer, build: Builder) -> str:
    return activate(layer, build, layer.input, layer.call.config.get("activation"))


def _relu(layer: Layer, options: Options, build: Builder, tensor: str) -> str:
    slope = options.number("negative_slope", 0.0)
    limit = options.number("max_value", math.inf) if options.config.get("max_value") is not None else math.inf
    threshold = options.number("threshold", 0.0)
    if threshold != 0.0:
        raise options.error(f"threshold {threshold:g} is not supported, expected 0; train with a ReLU that starts at 0")
    if slope == 0.0:
        return build.add("activation", layer, tensor, attrs={"activation": Activation.RELU, "limit": limit})
    leaky = build.add("activation", layer, tensor, attrs={"activation": Activation.LEAKY_RELU, "alpha": slope})
    if limit == math.inf:
        return leaky
    short = build.add("activation", layer, scaled(layer, build, leaky, -1.0, limit), attrs={"activation": Activation.RELU})
    return scaled(layer, build, short, -1.0, limit)  # min(y, limit) = limit - max(limit - y, 0)


def _leaky_relu(layer: Layer, options: Options, build: Builder, tensor: str) -> str:
    key = "negative_slope" if "negative_slope" in options.config else "alpha"  # Keras 3, Keras 2
    return build.add("activation", layer, tensor, attrs={"activation": Activation.LEAKY_RELU, "alpha": options.number(key, 0.3)})


def _elu(layer: Layer, options: Options, build: Builder, tensor: str) -> str:
    return build.add("activation", layer, tensor, attrs={"activation": Activation.ELU, "alpha": options.number("alpha", 1.0)})


def _softmax(layer: Layer, options: Options, build: Builder, tensor: str) -> str:
    """Along one axis: along another than the last the tensor is turned, and back."""
    axis = single_axis(options, len(build.types[tensor].shape))
    return along(layer, build, tensor, axis, lambda turned: build.add("softmax", layer, turned))


def _gelu(layer: Layer, options: Options, build: Builder, tensor: str) -> str:
    function = Activation.GELU_TANH if options.flag("approximate", False) else Activation.GELU
    return build.add("activation", layer, tensor, attrs={"activation": function})


_OBJECTS: Mapping[str, Callable[[Layer, Options, Builder, str], str]] = {
    "gelu": _gelu,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "Softmax": _softmax,
}


@reads("ReLU", "LeakyReLU", "ELU", "Softmax")
def activation_layer(layer: Layer, build: Builder) -> str:
    return _OBJECTS[layer.call.class_name](layer, layer.options, build, layer.input)


@reads("PReLU")
def prelu(layer: Layer, build: Builder) -> str:
    """x, or alpha * x where that is negative, one alpha per channel, or for each value of an example: then the tensor is one row."""
    alpha = layer.weight("alpha", rank=len(layer.shape))
    if any(size not in (1, whole) for size, whole in zip(alpha.shape, layer.shape, strict=True)):
        raise layer.error(f"alpha should have the shape {layer.shape}, or 1 in place of some axes, got {alpha.shape}; save the model again")
    if all(size == 1 for size in alpha.shape[:-1]):
        slope = np.broadcast_to(alpha.reshape(-1), layer.shape[-1:])
        return build.add("prelu", layer, layer.input, constants={"slope": float32(slope)})
    slope = np.broadcast_to(alpha, layer.shape).reshape(-1)
    flat = reshaped(layer, build, layer.input, (slope.size,))
    return reshaped(layer, build, build.add("prelu", layer, flat, constants={"slope": float32(slope)}), layer.shape)


@reads("BatchNormalization", "QBatchNormalization")
def batch_normalization(layer: Layer, build: Builder) -> str:
    """y = x * inv + (beta - mean * inv) with inv = gamma / sqrt(variance + epsilon), in float32 as Keras computes it.

    QKeras quantizes the four.
    """
    axis = single_axis(layer.options, len(layer.shape))
    mean, variance = _parameter(layer, "moving_mean", axis), _parameter(layer, "moving_variance", axis)
    epsilon = np.float32(layer.options.number("epsilon", 1e-3))
    inverse = _inverse_root(variance + epsilon, layer)
    if layer.options.flag("scale", True):
        inverse = inverse * _parameter(layer, "gamma", axis)
    shift = -mean * inverse
    if layer.options.flag("center", True):
        shift = _parameter(layer, "beta", axis) + shift
    constants = {"mul": float32(inverse), "add": float32(shift)}
    return along(layer, build, layer.input, axis, lambda turned: build.add("affine", layer, turned, constants=constants))


def _parameter(layer: Layer, name: str, axis: int) -> Array:
    """One of a batch norm's vectors, as its quantizer makes it; those of the scales are like weights' (`quantizers.find`)."""
    short = name.removeprefix("moving_")
    quantizer = quantizers.of_layer(layer, f"{short}_quantizer", trained=short in ("gamma", "variance"))
    values = layer.per_channel(name, axis)
    return values if quantizer is None else quantizer.weights(values).values


@reads("Normalization")
def normalization(layer: Layer, build: Builder) -> str:
    """y = (x - mean) / max(sqrt(variance), 1e-7), or x * sqrt(variance) + mean with `invert`, per channel or for all values alike."""
    mean, variance = (_statistic(layer, name) for name in ("mean", "variance"))
    if not (variance >= 0).all():
        raise layer.error("variance must not be negative; the statistics are damaged, adapt or save the model again")
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    mul, add = (deviation, mean) if layer.options.flag("invert", False) else (1 / deviation, -mean / deviation)
    return build.add("affine", layer, layer.input, constants={"mul": float32(mul), "add": float32(add)})


def _statistic(layer: Layer, name: str) -> Array:
    """One float64 a channel, from the weights that `adapt` made or from the configuration."""
    given = layer.call.weights.get(name)
    if given is None:
        given = np.array(numbers(layer, name, np.nan), np.float64)
    channels = layer.shape[-1]
    if given.size not in (1, channels) or not np.isfinite(given).all():
        raise layer.error(f"{name} should be one number or one for each of {channels} channels, got {given.size}; adapt it along axis -1")
    return np.broadcast_to(given.astype(np.float64).reshape(-1), (channels,))


def _inverse_root(variance: Array, layer: Layer) -> Array:
    """1 / sqrt rounded once: TensorFlow's own approximation is within 2 ulp of it."""
    if not (variance > 0).all():
        raise layer.error("moving_variance + epsilon must be positive; the statistics are damaged, train or save the model again")
    return (1 / np.sqrt(variance.astype(np.float64))).astype(np.float32)


@reads("Rescaling")
def rescaling(layer: Layer, build: Builder) -> str:
    """y = x * scale + offset, numbers or one per channel."""
    channels = layer.shape[-1]
    mul, add = (_per_channel(layer, name, default, channels) for name, default in (("scale", 1.0), ("offset", 0.0)))
    constants = {"mul": mul, "add": add} if add.any() else {"mul": mul}
    return build.add("affine", layer, layer.input, constants=constants)


def _per_channel(layer: Layer, name: str, default: float, channels: int) -> Array:
    found = numbers(layer, name, default)
    if len(found) not in (1, channels):
        raise layer.error(f"{name} should be one number or one for each of {channels} channels, got {len(found)}")
    return np.broadcast_to(np.array(found, np.float32), (channels,)).copy()


def numbers(layer: Layer, name: str, default: float) -> list[float]:
    """An option that is a number or a list of them, in lists of lists where it has leading axes of 1."""
    value = layer.call.config.get(name, default)
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    items = value if isinstance(value, (list, tuple)) else [value]
    return [Options(layer.options.where, {name: item}).number(name, default) for item in items]
