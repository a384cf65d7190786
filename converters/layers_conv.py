"""Layers with filters: convolutions and dense layers, plain ones, Larq's and QKeras'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.converters.builder import Builder, Layer, float32, reads, same_padding
from edge.converters.layers_activation import activate
from edge.converters.layers_training import has_magnitudes, times_magnitudes
from edge.converters.quantizer_nodes import negative_signs
from edge.converters.quantizers import Weights, of_layer
from edge.converters.quantizers_levels import Sign
from edge.graph import Array
from edge.layout import reads_packed_groups
from edge.ops import WINDOW_ATTRS
from edge.tensors import Encoding

MAX_TRAINED_BITS = 32  # from which on weights are as good as float
_LARGEST_INT8 = 127


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

    @property
    def is_padded(self) -> bool:
        return any(self.pads)


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


@reads("Conv2D", "QuantConv2D", "QConv2D", "Conv1D", "QuantConv1D", "QConv1D")
def conv2d(layer: Layer, build: Builder) -> str:
    geometry = _geometry(layer)
    groups = layer.options.whole("groups", 1)
    kernel = layer.kernel("kernel")
    _expect(layer, kernel, (*geometry.kernel, layer.shape[-1] // groups, kernel.shape[3]))
    filters, scale = quantized_kernel(layer, build, kernel, "kernel_quantizer")
    packed = filters.dtype == np.bool_ and reads_packed_groups(layer.shape[-1], groups)
    if packed and geometry.is_padded and layer.options.number("pad_values", 0.0) == -1 and _takes_signs(layer):
        # The convolution of all signs turned around, the border's, which are +1 then, among them.
        filters, source = ~filters, negative_signs(layer, build, layer.input, zero=1)
        attrs = geometry.attrs | {"pad_ones": 1}
    else:
        source = quantized_input(layer, build)
        source, attrs = _padded(layer, build, source if packed else build.floats(layer, source), geometry, packed=packed)
    constants = {"filter": _outputs_first(filters), **scale}
    settings, bias = {**attrs, "groups": groups}, bias_of(layer)
    if not has_magnitudes(layer):
        sums = build.add("conv2d", layer, source, constants=constants | bias, attrs=settings, rank=len(layer.shape))
        return activated(layer, build, sums)
    sums = build.add("conv2d", layer, source, constants=constants, attrs=settings, rank=len(layer.shape))
    window = {"window_h": geometry.kernel[0], "window_w": geometry.kernel[1], **geometry.attrs}
    return activated(layer, build, times_magnitudes(layer, build, sums, window, bias))


def _takes_signs(layer: Layer) -> bool:
    return of_layer(layer, "input_quantizer") == Sign()


def _padded(layer: Layer, build: Builder, source: str, geometry: _Geometry, *, packed: bool) -> tuple[str, dict[str, int]]:
    """The input and the attributes after Larq's `pad_values`, which is what counts outside the image.

    `packed` says that the operation reads packed inputs, and so can pad with ones by itself; else the padding is a node.
    """
    attrs = geometry.attrs
    value = layer.options.number("pad_values", 0.0)
    if value == 0.0 or not geometry.is_padded:
        return source, attrs
    if value == 1.0 and packed and build.types[source].encoding is Encoding.BITS:
        return source, attrs | {"pad_ones": 1}
    pads = {name: size for name, size in attrs.items() if name.startswith("pad_")}
    padded = build.add("pad2d", layer, source, attrs={"value": value, **pads}, rank=len(layer.shape))
    return padded, attrs | dict.fromkeys(pads, 0)


@reads("DepthwiseConv2D", "QuantDepthwiseConv2D", "QDepthwiseConv2D", "DepthwiseConv1D")
def depthwise_conv2d(layer: Layer, build: Builder) -> str:
    return activated(layer, build, _depthwise(layer, build, bias_of(layer)))


@reads("SeparableConv2D", "QuantSeparableConv2D", "QSeparableConv2D", "SeparableConv1D", "QuantSeparableConv1D", "QSeparableConv1D")
def separable_conv2d(layer: Layer, build: Builder) -> str:
    """A depthwise convolution with all of the geometry, then a 1x1 convolution with the bias."""
    source = _depthwise(layer, build, {})
    kernel = layer.kernel("pointwise_kernel")
    _expect(layer, kernel, (1, 1, build.types[source].shape[-1], kernel.shape[3]))
    filters, scale = quantized_kernel(layer, build, kernel, "pointwise_quantizer")
    constants = {"filter": _outputs_first(filters), **scale, **bias_of(layer)}
    return activated(layer, build, build.add("conv2d", layer, source, constants=constants, rank=len(layer.shape)))


def _depthwise(layer: Layer, build: Builder, bias: dict[str, Array]) -> str:
    """Output channel c * depth_multiplier + m comes from input channel c."""
    geometry, channels = _geometry(layer), layer.shape[-1]
    kernel = layer.kernel("depthwise_kernel", "kernel")
    _expect(layer, kernel, (*geometry.kernel, channels, kernel.shape[3]))
    by_output = scales_outputs(layer, "depthwise_quantizer")
    kernel = kernel.reshape(*geometry.kernel, 1, -1) if by_output else kernel
    filters, scale = quantized_kernel(layer, build, kernel, "depthwise_quantizer")
    repeated = scale if by_output else {role: np.tile(row, channels) for role, row in scale.items()}
    constants = {"filter": filters.reshape(*geometry.kernel, -1), **repeated, **bias}
    source, attrs = _padded(layer, build, quantized_input(layer, build), geometry, packed=False)
    settings = {**attrs, "groups": channels}
    return build.add("depthwise_conv2d", layer, source, constants=constants, attrs=settings, rank=len(layer.shape))


@reads("Dense", "QuantDense", "QDense")
def dense(layer: Layer, build: Builder) -> str:
    """On a vector a dense node; on more axes a 1x1 convolution over the last."""
    kernel = layer.weight("kernel", rank=2)
    _expect(layer, kernel, (layer.shape[-1], kernel.shape[1]))
    source = quantized_input(layer, build)
    filters, scale = quantized_kernel(layer, build, kernel[None, None], "kernel_quantizer")
    constants, bias = {"filter": _outputs_first(filters), **scale}, bias_of(layer)
    with_map = has_magnitudes(layer)
    op = "dense" if len(layer.shape) == 1 else "conv2d"
    shape = (*layer.shape[:-1], kernel.shape[1])
    sums = build.add(op, layer, source, constants=constants | ({} if with_map else bias), shape=shape)
    return activated(layer, build, times_magnitudes(layer, build, sums, {}, bias) if with_map else sums)


def _expect(layer: Layer, kernel: Array, shape: tuple[int, ...]) -> None:
    if kernel.shape != shape or 0 in kernel.shape:
        raise layer.error(f"the kernel should have the shape {shape}, got {kernel.shape}; the file is damaged, save the model again")


def quantized_input(layer: Layer, build: Builder) -> str:
    """The input as Larq's `input_quantizer` makes it."""
    quantizer = of_layer(layer, "input_quantizer")
    return layer.input if quantizer is None else quantizer.activation(layer, build, layer.input)


def scales_outputs(layer: Layer, key: str) -> bool:
    """Whether the quantizer under `key` has scales of outputs, not of the last axis of the kernel."""
    quantizer = of_layer(layer, key)
    return quantizer is not None and quantizer.by_output


@np.errstate(all="ignore")  # what becomes infinite is refused
def quantized_kernel(layer: Layer, build: Builder, kernel: Array, key: str) -> tuple[Array, dict[str, Array]]:
    """The kernel as the quantizer under `key` makes it: signs or int8 with a scale along the last axis, or float32 without."""
    quantizer = of_layer(layer, key, trained=True)
    return (float32(kernel), {}) if quantizer is None else stored_weights(layer, build, quantizer.weights(kernel))


def stored_weights(layer: Layer, build: Builder, weights: Weights) -> tuple[Array, dict[str, Array]]:
    """The narrowest form that holds the weights exactly; how many bits they were meant to take is noted."""
    if weights.bits < MAX_TRAINED_BITS:
        build.trained[layer.name] = max(weights.bits, build.trained.get(layer.name, 0))
    whole, scale = weights.whole, weights.scale
    one_scale_each = scale.size in (1, scale.shape[-1])
    if one_scale_each and np.isfinite(scale).all():
        constants = {"scale": float32(np.broadcast_to(scale.reshape(-1), (whole.shape[-1],)))}
        if (np.abs(whole) == 1).all():
            return whole < 0, constants
        if (np.abs(whole) <= _LARGEST_INT8).all() and (whole == np.rint(whole)).all():
            return whole.astype(np.int8), constants
    if not np.isfinite(weights.values).all():
        raise layer.error("its quantized weights are no finite numbers; the options of the quantizer are damaged, save the model again")
    return float32(weights.values), {}


def _outputs_first(kernel: Array) -> Array:
    """(kh, kw, I, O) as (O, kh, kw, I)."""
    return np.ascontiguousarray(kernel.transpose(3, 0, 1, 2))


@np.errstate(all="ignore")  # what becomes infinite is refused when it is packed
def bias_of(layer: Layer) -> dict[str, Array]:
    bias, quantizer = layer.bias(), of_layer(layer, "bias_quantizer")
    if bias is None:
        return {}
    return {"bias": float32(bias if quantizer is None else quantizer.weights(bias).values)}


def activated(layer: Layer, build: Builder, tensor: str) -> str:
    return activate(layer, build, tensor, layer.call.config.get("activation"))
