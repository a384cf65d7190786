"""Layers with filters: convolutions and dense layers, plain ones and Larq's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.converters.builder import Builder, Layer, float32, reads, same_padding
from edge.converters.layers_activation import activate, binarize
from edge.converters.quantizers import Quantizer, of_layer
from edge.graph import Array
from edge.layout import reads_packed_groups
from edge.ops import WINDOW_ATTRS
from edge.tensors import Encoding


@dataclass(frozen=True)
class _Geometry:
    """Where a convolution's windows lie."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]  # top, bottom, left, right

    @property
    def attrs(self) -> dict[str, int]:
        names = (*WINDOW_ATTRS, "dilation_h", "dilation_w")
        return dict(zip(names, (*self.strides, *self.pads, *self.dilation), strict=True))


def _geometry(layer: Layer) -> _Geometry:
    height, width, _ = layer.plane()
    kernel, strides = layer.pair("kernel_size"), layer.pair("strides", (1, 1))
    dilation = layer.pair("dilation_rate", (1, 1))
    pads = (0, 0, 0, 0)
    padding = layer.options.choice("padding", ("valid", "same", *(("causal",) if layer.is_row else ())), "valid")
    if padding == "causal":
        pads = (0, 0, (kernel[1] - 1) * dilation[1], 0)
    elif padding == "same":
        sizes = zip((height, width), kernel, strides, dilation, strict=True)
        (top, bottom), (left, right) = (same_padding(*axis) for axis in sizes)
        pads = (top, bottom, left, right)
    return _Geometry(kernel, strides, dilation, pads)


@reads("Conv2D", "QuantConv2D", "Conv1D", "QuantConv1D")
def conv2d(layer: Layer, build: Builder) -> str:
    geometry = _geometry(layer)
    groups = layer.options.whole("groups", 1)
    kernel = layer.kernel("kernel")
    _expect(layer, kernel, (*geometry.kernel, layer.shape[-1] // groups, kernel.shape[3]))
    filters, scale = _quantized(layer, kernel, "kernel_quantizer")
    constants = {"filter": _outputs_first(filters), **scale, **bias_of(layer)}
    source = quantized_input(layer, build)
    if not reads_packed_groups(layer.shape[-1], groups):
        source = build.floats(layer, source)
    source, attrs = _padded(layer, build, source, geometry, packed=bool(scale))
    settings = {**attrs, "groups": groups}
    return activated(layer, build, build.add("conv2d", layer, source, constants=constants, attrs=settings, rank=len(layer.shape)))


def _padded(layer: Layer, build: Builder, source: str, geometry: _Geometry, *, packed: bool) -> tuple[str, dict[str, int]]:
    """The input and the attributes after Larq's `pad_values`, which is what counts outside the image: 0 or 1.

    `packed` says that the operation reads packed inputs, and so can pad with ones by itself.
    """
    attrs = geometry.attrs
    value = layer.options.number("pad_values", 0.0)
    pads = {name: size for name, size in attrs.items() if name.startswith("pad_")}
    if value == 0.0 or not any(pads.values()):
        return source, attrs
    if value != 1.0:
        raise layer.error(f"pad_values {value:g} is not supported, expected 0 or 1; train with one of these")
    if packed and build.types[source].encoding is Encoding.BITS:
        return source, attrs | {"pad_ones": 1}
    padded = build.add("pad2d", layer, source, attrs={"value": value, **pads}, rank=len(layer.shape))
    return padded, attrs | dict.fromkeys(pads, 0)


@reads("DepthwiseConv2D", "QuantDepthwiseConv2D", "DepthwiseConv1D")
def depthwise_conv2d(layer: Layer, build: Builder) -> str:
    return activated(layer, build, _depthwise(layer, build, bias_of(layer)))


@reads("SeparableConv2D", "QuantSeparableConv2D", "SeparableConv1D", "QuantSeparableConv1D")
def separable_conv2d(layer: Layer, build: Builder) -> str:
    """A depthwise convolution with all of the geometry, then a 1x1 convolution with the bias."""
    source = _depthwise(layer, build, {})
    kernel = layer.kernel("pointwise_kernel")
    _expect(layer, kernel, (1, 1, build.types[source].shape[-1], kernel.shape[3]))
    filters, scale = _quantized(layer, kernel, "pointwise_quantizer")
    constants = {"filter": _outputs_first(filters), **scale, **bias_of(layer)}
    return activated(layer, build, build.add("conv2d", layer, source, constants=constants, rank=len(layer.shape)))


def _depthwise(layer: Layer, build: Builder, bias: dict[str, Array]) -> str:
    """Output channel c * depth_multiplier + m comes from input channel c."""
    geometry, channels = _geometry(layer), layer.shape[-1]
    kernel = layer.kernel("depthwise_kernel", "kernel")
    _expect(layer, kernel, (*geometry.kernel, channels, kernel.shape[3]))
    filters, scale = _quantized(layer, kernel, "depthwise_quantizer")
    constants = {"filter": filters.reshape(*geometry.kernel, -1), **{role: np.tile(a, channels) for role, a in scale.items()}, **bias}
    source, attrs = _padded(layer, build, quantized_input(layer, build), geometry, packed=False)
    settings = {**attrs, "groups": channels}
    return build.add("depthwise_conv2d", layer, source, constants=constants, attrs=settings, rank=len(layer.shape))


@reads("Dense", "QuantDense")
def dense(layer: Layer, build: Builder) -> str:
    """On a vector a dense node; on more axes a 1x1 convolution over the last."""
    kernel = layer.weight("kernel", rank=2)
    _expect(layer, kernel, (layer.shape[-1], kernel.shape[1]))
    source = quantized_input(layer, build)
    filters, scale = _quantized(layer, kernel[None, None], "kernel_quantizer")
    constants = {"filter": _outputs_first(filters), **scale, **bias_of(layer)}
    if len(layer.shape) == 1:
        return activated(layer, build, build.add("dense", layer, source, constants=constants))
    shape = (*layer.shape[:-1], kernel.shape[1])
    return activated(layer, build, build.add("conv2d", layer, source, constants=constants, shape=shape))


def _expect(layer: Layer, kernel: Array, shape: tuple[int, ...]) -> None:
    if kernel.shape != shape or 0 in kernel.shape:
        raise layer.error(f"the kernel should have the shape {shape}, got {kernel.shape}; the file is damaged, save the model again")


def quantized_input(layer: Layer, build: Builder) -> str:
    kind = of_layer(layer.options, "input_quantizer")
    if kind is Quantizer.SCALED_SIGN:
        raise layer.error("magnitude_aware_sign is for weights, as input_quantizer it is not supported; use ste_sign there")
    return layer.input if kind is Quantizer.NONE else binarize(layer, build, layer.input)


def _quantized(layer: Layer, kernel: Array, key: str) -> tuple[Array, dict[str, Array]]:
    """The kernel as float32 without a scale, or its signs and the scale along the last axis, which the quantizer keeps apart."""
    kind = of_layer(layer.options, key)
    if kind is Quantizer.NONE:
        return float32(kernel), {}
    scale = np.ones(kernel.shape[-1], np.float32)
    if kind is Quantizer.SCALED_SIGN:
        scale = np.abs(kernel).mean(axis=tuple(range(kernel.ndim - 1)), dtype=np.float64).astype(np.float32)
    return kernel < 0, {"scale": scale}


def _outputs_first(kernel: Array) -> Array:
    """(kh, kw, I, O) as (O, kh, kw, I)."""
    return np.ascontiguousarray(kernel.transpose(3, 0, 1, 2))


def bias_of(layer: Layer) -> dict[str, Array]:
    bias = layer.bias()
    return {} if bias is None else {"bias": float32(bias)}


def activated(layer: Layer, build: Builder, tensor: str) -> str:
    return activate(layer, build, tensor, layer.call.config.get("activation"))
