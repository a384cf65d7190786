"""Keras models made in memory, as `edge.converters.keras_file` would read them: no file, no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.converters.keras_model import Call, KerasModel, Value

Layer = tuple[str, Mapping[str, Any], Mapping[str, np.ndarray]]
"""Class name, configuration, weights."""


def model_of(*calls: Layer, shape: tuple[int, ...] = (6, 6, 4), **fields: Any) -> KerasModel:
    """A chain of layers after one input; a configuration may give the layer's name."""
    names = ["image", *(config.get("name", f"layer{i}") for i, (_, config, _) in enumerate(calls))]
    made = tuple(
        Call(names[i + 1], kind, None, config, weights, (names[i],), (names[i + 1],)) for i, (kind, config, weights) in enumerate(calls)
    )
    given = {"calls": made, "inputs": (Value("image", shape),), "outputs": (names[-1],), "output_names": (names[-1],), **fields}
    return KerasModel("net", "3.0", source="net.keras", sha256="0" * 64, training=None, **given)


def kernel(rng: np.random.Generator, *shape: int, grid: float | None = None) -> np.ndarray:
    """A random kernel; with `grid`, whole multiples of it up to 20 times."""
    values = rng.normal(size=shape) if grid is None else rng.integers(-20, 21, shape) * grid
    return values.astype(np.float32)


def norm(rng: np.random.Generator, channels: int, *, spread: float = 1.0, name: str = "norm") -> Layer:
    """Batch norm with means of `spread`, and gammas that are negative, zero (never the first) and positive."""
    gamma = rng.normal(size=channels)
    gamma[1:][rng.random(channels - 1) < 0.25] = 0
    weights = {"gamma": gamma, "beta": rng.normal(size=channels), "moving_mean": rng.normal(size=channels) * spread}
    weights["moving_variance"] = rng.uniform(0.2, 3.0, channels) * spread**2
    return "BatchNormalization", {"name": name}, {key: value.astype(np.float32) for key, value in weights.items()}


def conv(rng: np.random.Generator, size: tuple[int, int], inputs: int, outputs: int, *, grid: float | None = None, bias: bool = False,
         **config: Any) -> Layer:  # fmt: skip
    """A convolution; with `sign=True` one of signs with a signed kernel."""
    sign = config.pop("sign", False)
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"} if sign else {}
    weights = {"kernel": kernel(rng, *size, inputs, outputs, grid=grid)}
    if bias:
        weights["bias"] = kernel(rng, outputs)
    return "QuantConv2D" if sign else "Conv2D", {"kernel_size": list(size), "use_bias": bias, **quantizers, **config}, weights


def dense(rng: np.random.Generator, inputs: int, outputs: int, *, bias: bool = False, **config: Any) -> Layer:
    """A dense layer; with `sign=True` one of signs."""
    sign = config.pop("sign", False)
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"} if sign else {}
    weights = {"kernel": kernel(rng, inputs, outputs)}
    if bias:
        weights["bias"] = kernel(rng, outputs)
    return "QuantDense" if sign else "Dense", {"use_bias": bias, **quantizers, **config}, weights
