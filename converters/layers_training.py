"""What `edge.training` has beside Larq's layers: XNOR-Net's K in layers with filters, and ReActNet's activations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge.converters.builder import Builder, Layer, float32, reads
from edge.converters.layers_merge import pair
from edge.converters.quantizers import of_layer
from edge.graph import Array
from edge.ops import POOL_ATTRS


def has_magnitudes(layer: Layer) -> bool:
    """Whether the layer multiplies its sums by K."""
    return layer.options.flag("magnitude_map", False)


def times_magnitudes(layer: Layer, build: Builder, sums: str, window: Mapping[str, int], bias: Mapping[str, Array]) -> str:
    """sums * K + bias: K is the mean of abs(input) over channels and window, with zeros outside the image.

    `window` has the height and width, window_h and window_w, and the strides, pads and dilation of the convolution; none of a dense layer.
    """
    if layer.options.whole("groups", 1) != 1:
        raise layer.error("magnitude_map together with groups is not supported; train with one of them")
    shape = build.types[sums].shape
    k = _map(layer, build, build.floats(layer, layer.input), window, len(shape))
    product = pair(layer, build, "multiply", sums, k)
    return build.add("affine", layer, product, constants={"add": bias["bias"]}) if bias else product


def _map(layer: Layer, build: Builder, tensor: str, window: Mapping[str, int], rank: int) -> str:
    if window.get("dilation_h", 1) == window.get("dilation_w", 1) == 1:
        geometry = {"window_h": 1, "window_w": 1, **{name: size for name, size in window.items() if name in POOL_ATTRS}}
        return build.add("magnitude_map", layer, tensor, attrs=geometry, rank=rank)
    means = build.add("magnitude_map", layer, tensor, attrs={"window_h": 1, "window_w": 1}, rank=rank)
    taps = window["window_h"], window["window_w"]
    box = np.full((1, *taps, 1), 1 / (taps[0] * taps[1]), np.float32)
    geometry = {name: size for name, size in window.items() if not name.startswith("window")}
    return build.add("conv2d", layer, means, constants={"filter": box}, attrs=geometry, rank=rank)


@reads("RSign")
def rsign(layer: Layer, build: Builder) -> str:
    """The sign, or what else the quantizer makes, of x - shift."""
    shifted = build.add("affine", layer, layer.input, constants={"add": float32(-layer.per_channel("shift"))})
    quantizer = of_layer(layer, "quantizer")
    return shifted if quantizer is None else quantizer.activation(layer, build, shifted)


@reads("RPReLU")
def rprelu(layer: Layer, build: Builder) -> str:
    """z where that is positive, else slope * z, and then + after, with z = x - before."""
    before, slope, after = (float32(layer.per_channel(name)) for name in ("before", "slope", "after"))
    shifted = build.add("affine", layer, layer.input, constants={"add": -before})
    bent = build.add("prelu", layer, shifted, constants={"slope": slope})
    return build.add("affine", layer, bent, constants={"add": after})
