"""Layers of QKeras that are more than Keras' own with quantizers: pools that quantize their factor, convolutions with folded batch norm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.converters.builder import READERS, Builder, Layer, float32, reads
from edge.converters.layers_activation import activate
from edge.converters.layers_merge import scaled
from edge.converters.quantizers import of_layer
from edge.graph import Array


@reads("QAveragePooling2D", "QGlobalAveragePooling2D")
def average_pooling(layer: Layer, build: Builder) -> str:
    """The average, times the number of pixels, times its quantized inverse."""
    height, width, _ = layer.image()
    pooled = READERS[layer.call.class_name.removeprefix("Q")](layer, build)
    assert isinstance(pooled, str)  # pools give one tensor
    quantizer = of_layer(layer, "average_quantizer")
    if quantizer is not None:
        rows, columns = (height, width) if "Global" in layer.call.class_name else layer.pair("pool_size", (2, 2))
        inverse = quantizer.weights(np.full(1, 1 / (rows * columns), np.float32)).values
        pooled = scaled(layer, build, pooled, float(np.float32(rows * columns) * inverse[0]))
    return activate(layer, build, pooled, layer.call.config.get("activation"))


@reads("QConv2DBatchnorm", "QDepthwiseConv2DBatchnorm")
def folded_convolution(layer: Layer, build: Builder) -> str:
    """The convolution whose kernel and bias take in the batch norm before they are quantized."""
    depthwise = "Depthwise" in layer.call.class_name
    name = "depthwise_kernel" if depthwise else "kernel"
    kernel = layer.weight(name, rank=4)
    channels = kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]
    variance = _vector(layer, "moving_variance", channels) + np.float32(layer.options.number("epsilon", 1e-3))
    if not (variance > 0).all():
        raise layer.error("moving_variance + epsilon must be positive; the statistics are damaged, train or save the model again")
    inverse = (1 / np.sqrt(variance.astype(np.float64))).astype(np.float32)
    if layer.options.flag("scale", True):
        inverse = inverse * _vector(layer, "gamma", channels)
    bias = _vector(layer, "bias", channels) if layer.options.flag("use_bias", True) else np.zeros(channels, np.float32)
    shift = inverse * (bias - _vector(layer, "moving_mean", channels)) + _vector(layer, "beta", channels)
    weights = {name: float32(kernel * inverse.reshape(kernel.shape[2:] if depthwise else -1)), "bias": float32(shift)}
    call = replace(layer.call, weights=weights, config={**layer.call.config, "use_bias": True})
    made = READERS["QDepthwiseConv2D" if depthwise else "QConv2D"](replace(layer, call=call), build)
    assert isinstance(made, str)  # convolutions give one tensor
    return made


def _vector(layer: Layer, name: str, channels: int) -> Array:
    found = layer.weight(name, rank=1)
    if found.shape != (channels,):
        raise layer.error(f"{name} should have {channels} values, one for each channel, got {len(found)}; save the model again")
    return found
