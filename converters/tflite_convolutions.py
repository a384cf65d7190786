"""Convolutions (conv2d, depthwise_conv2d, dense) in built-in operators of TFLite, each form exact where the packed kernels are.

    bits -> bits          acc >= T is 2 acc - (2 T - 1) >= 1, and the left side is odd: an int8 convolution with weights +-2, bias
                          -(2 T - 1) and all scales 1, clipped to [-1, 1] by RELU_N1_TO_1
    uint8, int8 -> bits   an int8 convolution gives max(acc - T + 1, 0), saturated: its zero point is 126, so that the stored values
                          are 126 and 127; its scale is 2, and an ADD of -1 makes -1 and +1 of the 0 and 2 they stand for
    uint8, int8 -> int8   an int8 convolution with one scale per channel and int32 bias; signs are +-127, so that steps of the bias,
                          which are those of the sum, are as fine as with an int8 filter
    anything else         a float32 convolution of DEQUANTIZEd integers, then MUL by the scale, ADD of the bias, QUANTIZE; a filter of
                          float16 is DEQUANTIZEd too, and needs no scale

int8 accumulators are 32 bits wide and rescaled by a factor of 1 where a sign comes out, so these forms have no rounding. A float32
convolution of signs is exact while sums stay below 2^24.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.converters.int8 import parts_of_step
from edge.converters.tflite_lowering import (
    FUSED_NONE,
    FUSED_RELU,
    FUSED_RELU_N1_TO_1,
    Lowering,
    float_type,
    fused,
    lite_type,
)
from edge.converters.tflite_model import Array, LiteTensor
from edge.converters.tflite_windows import SAME, VALID, axes, pad_for, padding
from edge.errors import ModelError
from edge.graph import Node
from edge.kernels.bitpack import signs
from edge.ops import Activation
from edge.tensors import Encoding

_INT32_MAX = (1 << 31) - 1
_MAX_SIGNS = (1 << 28) - 1  # 2 acc + 1 - 2 T, acc and T at most this, is below 2^30: by a factor of 1, fixed-point kernels shift it left
_UNDER_ONE = 1 - 2.0**-20  # a factor below 1 spares that shift, and rounds 0 and 1 to themselves
_RESCALE = (2.0**-31, 2.0**7)  # factors from accumulator to output that the int8 kernels of all runtimes take
_INTEGERS = (Encoding.INT8, Encoding.UINT8)


def convolution(low: Lowering, node: Node) -> int:
    """Lower a conv2d, depthwise_conv2d or dense and return the tensor of its output."""
    source, output = low.kind(node.inputs[0]).encoding, low.output(node).encoding
    if output is Encoding.BITS:
        return _signs_to_signs(low, node) if source is Encoding.BITS else _integers_to_signs(low, node)
    leaky = int(node.attrs["activation"]) == Activation.LEAKY_RELU  # its input would need a quantization of its own
    if output is Encoding.INT8 and source in _INTEGERS and not leaky:
        quantized = _quantized_filter(low, node)
        if quantized is not None:
            return _integers_to_integers(low, node, quantized)
    return _through_float(low, node)


# -- the operator --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Operands:
    """Tensors that the operator multiplies, the filter as `_lite_filter` has it; the bias's or None; and the fused activation."""

    source: int
    filter: int
    bias: int | None
    activation: int


def _lite_filter(node: Node) -> Array:
    """The filter in TFLite's order: (O, kh, kw, I), (1, kh, kw, O) for depthwise, (O, K) for dense; signs as int8."""
    stored = node.constants["filter"]
    values = signs(stored).astype(np.int8) if stored.dtype == np.bool_ else stored
    if node.op == "depthwise_conv2d":
        return values[np.newaxis]
    return values.reshape(len(values), -1) if node.op == "dense" else values


def _channel_axis(node: Node) -> int:
    return 3 if node.op == "depthwise_conv2d" else 0


def _apply(low: Lowering, node: Node, operands: _Operands, output: LiteTensor) -> int:
    """The operator with its padding and reshapes; `output` gives dtype and quantization, its shape is that of the node's output."""
    kernel = {"conv2d": _conv2d, "depthwise_conv2d": _depthwise, "dense": _dense}[node.op]
    return low.reshape(kernel(low, node, operands, output), (1, *low.output(node).shape))


def _conv2d(low: Lowering, node: Node, operands: _Operands, output: LiteTensor) -> int:
    return _windowed(low, node, "CONV_2D", operands, output, {})


def _depthwise(low: Lowering, node: Node, operands: _Operands, output: LiteTensor) -> int:
    multiplier = low.shape(operands.filter)[3] // low.kind(node.inputs[0]).hwc[2]
    return _windowed(low, node, "DEPTHWISE_CONV_2D", operands, output, {"depthMultiplier": multiplier})


def _windowed(low: Lowering, node: Node, name: str, operands: _Operands, output: LiteTensor, options: dict[str, int]) -> int:
    call = low.graph.call(node)
    _, taps_h, taps_w, _ = low.shape(operands.filter)
    window = axes(call, (taps_h - 1) * call.i("dilation_h") + 1, (taps_w - 1) * call.i("dilation_w") + 1)
    source, mode = low.image(operands.source, low.kind(node.inputs[0])), padding(window)
    if mode is None or (mode == SAME and call.i("pad_ones")):
        source, mode = pad_for(low, source, window, 1 if call.i("pad_ones") else None), VALID
    shape = (1, window[0].outputs, window[1].outputs, low.output(node).shape[-1])
    strides = {"strideH": call.i("stride_h"), "strideW": call.i("stride_w")}
    dilations = {"dilationHFactor": call.i("dilation_h"), "dilationWFactor": call.i("dilation_w")}
    settings = {**options, **strides, **dilations, "padding": mode, "fusedActivationFunction": operands.activation}
    inputs = [source, operands.filter, _bias(low, operands, shape[-1])]
    return low.op(name, inputs, _shaped(output, shape), **settings)


def _dense(low: Lowering, node: Node, operands: _Operands, output: LiteTensor) -> int:
    """FULLY_CONNECTED, or a 1x1 convolution where the filter has a scale per channel: older runtimes take one for dense layers."""
    shape = low.shape(operands.filter)
    inputs = [operands.source, operands.filter, _bias(low, operands, shape[0])]
    settings = {"fusedActivationFunction": operands.activation}
    if len(shape) == 4:
        inputs[0] = low.reshape(operands.source, (1, 1, 1, shape[3]))
        return low.op("CONV_2D", inputs, _shaped(output, (1, 1, 1, shape[0])), strideH=1, strideW=1, padding=VALID, **settings)
    inputs[0] = low.reshape(operands.source, (1, shape[1]))
    return low.op("FULLY_CONNECTED", inputs, _shaped(output, (1, shape[0])), **settings)


def _bias(low: Lowering, operands: _Operands, channels: int) -> int:
    """The bias; zeros where there is none, because some runtimes insist on one."""
    return low.builder.constant(np.zeros(channels, np.float32)) if operands.bias is None else operands.bias


def _shaped(tensor: LiteTensor, shape: tuple[int, ...]) -> LiteTensor:
    return LiteTensor("", shape, tensor.dtype, tensor.scales, tensor.zero_point)


# -- signs out -----------------------------------------------------------------------------------------------------------------


def _signs_to_signs(low: Lowering, node: Node) -> int:
    reach = math.prod(node.constants["filter"].shape[1:])
    if reach > _MAX_SIGNS:
        raise ModelError(
            f"layer {'+'.join(node.layers) or node.output!r} sums {reach} signs; TFLite's 32-bit accumulator holds {_MAX_SIGNS}: "
            "write the .edge alone, with --format edge"
        )
    thresholds = np.clip(node.constants["threshold"].astype(np.int64), -reach, reach + 1)
    operands = _Operands(
        low.stored(node.inputs[0]),
        low.builder.constant(2 * _lite_filter(node), scales=(1.0,)),
        low.builder.constant((1 - 2 * thresholds).astype(np.int32), scales=(1.0,)),
        FUSED_RELU_N1_TO_1,
    )
    return _apply(low, node, operands, lite_type(low.output(node)))


def _integers_to_signs(low: Lowering, node: Node) -> int:
    """Thresholds out of reach are brought to its ends, so that a sum and its threshold stay within the 32 bits that `edge.ops` grants."""
    source = low.stored(node.inputs[0])
    tensor = low.builder.tensors[source]
    filters = _lite_filter(node).astype(np.int64).reshape(len(node.constants["filter"]), -1)
    extremes = [filters * (value - tensor.zero_point) for value in (-128, 127)]
    lowest, highest = np.minimum(*extremes).sum(1), np.maximum(*extremes).sum(1)
    thresholds = np.clip(node.constants["threshold"].astype(np.int64), lowest, highest + 1)
    step = 2.0  # of the output, and nearly the input's scale times the filter's
    operands = _Operands(
        source,
        low.builder.constant(_lite_filter(node), scales=(step * _UNDER_ONE / tensor.scale,)),
        low.builder.constant((1 - thresholds).astype(np.int32), scales=(step,)),
        FUSED_RELU,
    )
    zero_or_two = _apply(low, node, operands, LiteTensor("", (), "int8", (step,), 126))
    minus_one = low.builder.constant(np.array([-1], np.int8), scales=(1.0,))
    return low.op("ADD", [zero_or_two, minus_one], lite_type(low.output(node)), fusedActivationFunction=FUSED_NONE)


# -- int8 out ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quantized:
    """A filter as int8 with one scale per channel, all positive, and biases in units of input scale * filter scale."""

    values: Array
    scales: Array
    bias: Array


def _quantized_filter(low: Lowering, node: Node) -> _Quantized | None:
    """The filter for an int8 convolution, None where the integer kernels would overflow or take no such filter.

    The graph's scale is input scale * filter scale. A negative one is a filter with the other sign; one of 0 is a filter of zeros.
    """
    output, scale = low.output(node), node.constants["scale"].astype(np.float64)
    bias = node.constants.get("bias", np.zeros(len(scale))).astype(np.float64)
    values, axis = _lite_filter(node), _channel_axis(node)
    if values.min() < -127:
        return None
    values = values * np.sign(scale).astype(np.int8).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    factors = np.where(scale == 0, output.scale, np.abs(scale))
    sums = np.abs(values).sum(tuple(i for i in range(values.ndim) if i != axis % values.ndim), dtype=np.int64)
    largest = 255 * sums + np.ceil(np.abs(bias) / factors)
    ratio = factors / output.scale
    fits = np.all(largest * np.maximum(1, 2 * ratio) <= _INT32_MAX)  # fixed-point kernels shift a sum left before they scale it
    if not fits or ratio.min() < _RESCALE[0] or ratio.max() > _RESCALE[1]:
        return None
    parts = int(min(parts_of_step(values), _INT32_MAX / max(largest.max(), 1.0), ratio.min() / _RESCALE[0]))
    filter_scales = factors / parts / low.builder.tensors[low.stored(node.inputs[0])].scale
    return _Quantized(values * np.int8(parts), filter_scales, np.rint(bias / factors * parts).astype(np.int32))


def _integers_to_integers(low: Lowering, node: Node, quantized: _Quantized) -> int:
    source = low.stored(node.inputs[0])
    values = quantized.values[:, np.newaxis, np.newaxis] if node.op == "dense" else quantized.values
    bias_scales = quantized.scales * low.builder.tensors[source].scale
    carried = fused(node.attrs)
    operands = _Operands(
        source,
        low.builder.constant(values, scales=tuple(quantized.scales), axis=_channel_axis(node)),
        low.builder.constant(quantized.bias, scales=tuple(bias_scales)),
        FUSED_RELU if carried is None else carried,
    )
    return low.limit(_apply(low, node, operands, lite_type(low.output(node))), node.attrs)


# -- through float32 -----------------------------------------------------------------------------------------------------------


def _through_float(low: Lowering, node: Node) -> int:
    source, scale, bias = node.inputs[0], node.constants.get("scale"), node.constants.get("bias")
    values = _lite_filter(node)
    carried = fused(node.attrs)
    if scale is None:
        own_bias = None if bias is None else low.builder.constant(bias)
        weights = low.builder.constant(values)
        if values.dtype == np.float16:
            weights = low.op("DEQUANTIZE", [weights], float_type(values.shape))
        operands = _Operands(low.real(source), weights, own_bias, carried or FUSED_NONE)
        result = _apply(low, node, operands, float_type(()))
        result = result if carried is not None else low.activate(result, node.attrs)
    else:
        stored = low.builder.constant(values, scales=(1.0,))
        weights = low.op("DEQUANTIZE", [stored], float_type(values.shape))
        result = _apply(low, node, _Operands(low.real(source), weights, None, FUSED_NONE), float_type(()))
        result = low.scale_and_shift(result, _per_unit(low, source, scale), bias, node.attrs)
    return low.store(result, low.output(node))


def _per_unit(low: Lowering, source: str, scale: Array) -> Array:
    """The graph's scale belongs to stored integers; the input here is scaled already."""
    kind = low.kind(source)
    if kind.encoding not in _INTEGERS:
        return scale
    return (scale.astype(np.float64) / np.float32(kind.scale)).astype(np.float32)
