"""The operations of the graph other than convolutions in built-in operators of TFLite."""

from __future__ import annotations

import numpy as np

from edge.converters.tflite_lowering import FUSED_NONE, FUSED_RELU, FUSED_RELU_N1_TO_1, Lowering, float_type, fused, lite_type
from edge.converters.tflite_model import Array
from edge.converters.tflite_windows import VALID, Axis, axes, pad, pad_for, padding
from edge.graph import Node
from edge.kernels.arithmetic import mean_factor
from edge.kernels.arithmetic import quantize as quantize_values
from edge.ops import Activation, OpCall
from edge.tensors import BYTE_SHIFT, Encoding

# Twice the first factor takes every float32 other than 0, subnormal ones included, to a magnitude of at least 2.
_GROW = (np.float32(2.0**127), np.float32(2.0**24))


# -- pools ---------------------------------------------------------------------------------------------------------------------


def max_pool2d(low: Lowering, node: Node) -> int:
    """MAX_POOL_2D; the minimum of flipped channels is the negated maximum of negated values."""
    number, flip = low.stored(node.inputs[0]), node.constants.get("flip")
    if flip is None or not flip.any():
        return _pool(low, node, "MAX_POOL_2D", number)
    return _turn(low, _pool(low, node, "MAX_POOL_2D", _turn(low, number, flip)), flip)


def _turn(low: Lowering, number: int, flip: Array) -> int:
    """Signs times -1 in the channels of `flip`."""
    factors = low.builder.constant(np.where(flip, -1, 1).astype(np.int8), scales=(1.0,))
    return low.op("MUL", [number, factors], low.like(number), fusedActivationFunction=FUSED_NONE)


def average_pool2d(low: Lowering, node: Node) -> int:
    """AVERAGE_POOL_2D, which counts what lies inside the image as the graph does; padding that only PAD can give is counted out."""
    call, kind = low.graph.call(node), low.output(node)
    window = axes(call, call.i("window_h"), call.i("window_w"))
    if padding(window) is not None:
        return _pool(low, node, "AVERAGE_POOL_2D", low.stored(node.inputs[0]))
    number = low.image(low.real(node.inputs[0]), low.kind(node.inputs[0]))
    total = _pool_op(low, "AVERAGE_POOL_2D", pad_for(low, number, window, None), call, window, VALID)
    mean = low.multiply(total, _corrections(window))
    return low.store(low.reshape(mean, (1, *kind.shape)), kind)


def _pool(low: Lowering, node: Node, name: str, number: int) -> int:
    call = low.graph.call(node)
    window = axes(call, call.i("window_h"), call.i("window_w"))
    image, mode = low.image(number, low.kind(node.inputs[0])), padding(window)
    if mode is None:
        image, mode = pad_for(low, image, window, _lowest(low, image)), VALID
    return low.reshape(_pool_op(low, name, image, call, window, mode), (1, *low.output(node).shape))


def _pool_op(low: Lowering, name: str, image: int, call: OpCall, window: tuple[Axis, Axis], mode: int) -> int:
    rows, columns = window
    tensor = low.like(image)
    output = type(tensor)("", (1, rows.outputs, columns.outputs, tensor.shape[3]), tensor.dtype, tensor.scales, tensor.zero_point)
    sizes = {"filterHeight": rows.window, "filterWidth": columns.window, "strideH": rows.stride, "strideW": columns.stride}
    return low.op(name, [image], output, padding=mode, fusedActivationFunction=FUSED_NONE, **sizes)


def _lowest(low: Lowering, number: int) -> float:
    """A stored value below all others, for padding that no maximum sees."""
    return float(np.finfo(np.float32).min) if low.like(number).dtype == "float32" else -128


def _corrections(window: tuple[Axis, Axis]) -> Array:
    """(1, rows, columns, 1) window areas divided by the areas inside the image."""
    inside = [_inside(axis) for axis in window]
    area = np.float64(window[0].window * window[1].window)
    areas: Array = (area / np.multiply.outer(*inside)).astype(np.float32)
    return areas[np.newaxis, :, :, np.newaxis]


def _inside(axis: Axis) -> Array:
    """For each output along an axis, how many of its taps lie inside the image."""
    first = np.arange(axis.outputs) * axis.stride - axis.before
    return np.minimum(first + axis.window, axis.size) - np.maximum(first, 0)


def magnitude_map(low: Lowering, node: Node) -> int:
    """ABS, and a convolution whose weights are all 1 / (channels * window area)."""
    call, number = low.graph.call(node), low.image(low.stored(node.inputs[0]), low.kind(node.inputs[0]))
    window = axes(call, call.i("window_h"), call.i("window_w"))
    image, mode = low.op("ABS", [number], low.like(number)), padding(window)
    if mode is None:
        image, mode = pad_for(low, image, window, None), VALID
    rows, columns = window
    weights = np.full((1, rows.window, columns.window, call.inputs[0].hwc[2]), mean_factor(call))
    operands = [image, low.builder.constant(weights), low.builder.constant(np.zeros(1, np.float32))]
    settings = {"strideH": rows.stride, "strideW": columns.stride, "dilationHFactor": 1, "dilationWFactor": 1}
    output = float_type((1, rows.outputs, columns.outputs, 1))
    found = low.op("CONV_2D", operands, output, padding=mode, fusedActivationFunction=FUSED_NONE, **settings)
    return low.reshape(found, (1, *low.output(node).shape))


# -- one value at a time -------------------------------------------------------------------------------------------------------


def affine(low: Lowering, node: Node) -> int:
    return low.scale_and_shift(low.real(node.inputs[0]), node.constants.get("mul"), node.constants.get("add"), node.attrs)


def activation(low: Lowering, node: Node) -> int:
    return low.activate(low.stored(node.inputs[0]), node.attrs)


def prelu(low: Lowering, node: Node) -> int:
    number = low.stored(node.inputs[0])
    return low.op("PRELU", [number, low.builder.constant(node.constants["slope"])], low.like(number))


def softmax(low: Lowering, node: Node) -> int:
    number = low.stored(node.inputs[0])
    return low.op("SOFTMAX", [number], low.like(number), beta=1.0)


def binarize(low: Lowering, node: Node) -> int:
    """The sign as clip(x * 2^127 * 2^24 + 1, -1, 1): operators that every accelerated runtime has, which comparisons are not.

    x = 0 gives 1, any other x a magnitude of at least 2 before the 1 is added. A runtime that takes subnormal numbers for 0 gives +1.
    """
    number = low.scale_and_shift(low.stored(node.inputs[0]), node.constants.get("mul"), node.constants.get("add"))
    for factor in _GROW:
        number = low.multiply(number, np.array([factor]))
    clipped = low.add(number, np.ones(1, np.float32), activation=FUSED_RELU_N1_TO_1)
    return low.op("QUANTIZE", [clipped], lite_type(low.output(node)))


def real(low: Lowering, node: Node) -> int:
    """unpack and dequantize."""
    return low.real(node.inputs[0])


def quantize(low: Lowering, node: Node) -> int:
    number, output = low.stored(node.inputs[0]), lite_type(low.output(node))
    same = low.like(number).quantization == output.quantization
    return number if same else low.op("QUANTIZE", [number], output)


# -- several tensors, and shapes -----------------------------------------------------------------------------------------------


def add(low: Lowering, node: Node) -> int:
    """ADD; int8 with a leaky ReLU through float32, because the sum before it has no quantization of its own."""
    kind, carried = low.output(node), fused(node.attrs)
    leaky = int(node.attrs["activation"]) == Activation.LEAKY_RELU
    if kind.encoding is Encoding.INT8 and not leaky:
        operands = [low.stored(name) for name in node.inputs]
        total = low.op("ADD", operands, lite_type(kind), fusedActivationFunction=FUSED_RELU if carried is None else carried)
        return low.limit(total, node.attrs)
    operands = [low.real(name) for name in node.inputs]
    total = low.op("ADD", operands, float_type((1, *kind.shape)), fusedActivationFunction=carried or FUSED_NONE)
    return low.store(total if carried is not None else low.activate(total, node.attrs), kind)


def concat(low: Lowering, node: Node) -> int:
    kind = low.output(node)
    operands = [low.stored(name) for name in node.inputs]
    return low.op("CONCATENATION", operands, lite_type(kind), axis=len(kind.shape), fusedActivationFunction=FUSED_NONE)


def reshape(low: Lowering, node: Node) -> int:
    return low.reshape(low.stored(node.inputs[0]), (1, *low.output(node).shape))


def pad2d(low: Lowering, node: Node) -> int:
    kind, call = low.output(node), low.graph.call(node)
    sides = (call.i("pad_top"), call.i("pad_bottom"), call.i("pad_left"), call.i("pad_right"))
    value = float(call.attrs["value"])
    image = low.image(low.stored(node.inputs[0]), low.kind(node.inputs[0]))
    return low.reshape(pad(low, image, sides, _stored_value(low, node, value)), (1, *kind.shape))


def _stored_value(low: Lowering, node: Node, value: float) -> float | None:
    """A real value as the tensor stores it, None for 0, with which TFLite pads by itself."""
    kind = low.output(node)
    if value == 0:
        return None
    if kind.encoding is Encoding.FLOAT32:
        return value
    shift = BYTE_SHIFT if kind.encoding is Encoding.UINT8 else 0
    return float(quantize_values(np.array(value, np.float32), kind)) - shift
