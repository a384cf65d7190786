"""Cutting, resizing, turning, joining, looking up and normalizing in built-in operators of TFLite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.converters.tflite_lowering import FUSED_NONE, Lowering, float_type
from edge.converters.tflite_model import LiteTensor
from edge.graph import Node


def _image(low: Lowering, node: Node) -> int:
    return low.image(low.stored(node.inputs[0]), low.kind(node.inputs[0]))


def _finished(low: Lowering, node: Node, number: int) -> int:
    """The tensor with the axes that the output has."""
    return low.reshape(number, (1, *low.output(node).shape))


def _whole_numbers(low: Lowering, *values: int) -> int:
    return low.builder.constant(np.array(values, np.int32))


def _shaped(low: Lowering, number: int, shape: tuple[int, ...]) -> LiteTensor:
    return replace(low.like(number), shape=shape)


def slice_(low: Lowering, node: Node) -> int:
    """SLICE, or STRIDED_SLICE where rows or columns are left out."""
    i, number = low.graph.call(node).i, _image(low, node)
    start = (0, *(i(f"start_{axis}") for axis in "hwc"))
    size = (1, *(i(f"size_{axis}") for axis in "hwc"))
    steps = (1, i("step_h"), i("step_w"), 1)
    output = _shaped(low, number, size)
    if steps == (1, 1, 1, 1):
        return _finished(low, node, low.op("SLICE", [number, _whole_numbers(low, *start), _whole_numbers(low, *size)], output))
    end = (first + (count - 1) * step + 1 for first, count, step in zip(start, size, steps, strict=True))
    operands = [number, *(_whole_numbers(low, *values) for values in (start, end, steps))]
    masks = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
    return _finished(low, node, low.op("STRIDED_SLICE", operands, output, **masks))


def resize(low: Lowering, node: Node) -> int:
    """RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR, both with half-pixel centres."""
    i, number = low.graph.call(node).i, _image(low, node)
    size = i("size_h"), i("size_w")
    name = "RESIZE_NEAREST_NEIGHBOR" if node.op == "resize_nearest" else "RESIZE_BILINEAR"
    output = _shaped(low, number, (1, *size, low.shape(number)[3]))
    return _finished(low, node, low.op(name, [number, _whole_numbers(low, *size)], output, alignCorners=False, halfPixelCenters=True))


def transpose(low: Lowering, node: Node) -> int:
    number, i = _image(low, node), low.graph.call(node).i
    order = (0, *(1 + i(f"axis_{axis}") for axis in range(3)))
    return _finished(low, node, _transposed(low, number, order))


def _transposed(low: Lowering, number: int, order: tuple[int, ...]) -> int:
    shape = low.shape(number)
    output = _shaped(low, number, tuple(shape[axis] for axis in order))
    return low.op("TRANSPOSE", [number, _whole_numbers(low, *order)], output)


def depth_to_space(low: Lowering, node: Node) -> int:
    """DEPTH_TO_SPACE of square blocks; others as a transposition of blocks."""
    number, i = _image(low, node), low.graph.call(node).i
    rows, columns = i("block_h"), i("block_w")
    _, height, width, channels = low.shape(number)
    output = (1, height * rows, width * columns, channels // (rows * columns))
    if rows == columns > 1:
        return _finished(low, node, low.op("DEPTH_TO_SPACE", [number], _shaped(low, number, output), blockSize=rows))
    blocks = low.reshape(number, (height, width, rows, columns, output[3]))
    return _finished(low, node, low.reshape(_transposed(low, blocks, (0, 2, 1, 3, 4)), output))


_PAIRS = {"multiply": "MUL", "subtract": "SUB", "divide": "DIV", "maximum": "MAXIMUM", "minimum": "MINIMUM"}


def pair(low: Lowering, node: Node) -> int:
    """MUL and its like, which repeat the second input along its axes of 1."""
    operands = [low.image(low.stored(name), low.kind(name)) for name in node.inputs]
    options = {"fusedActivationFunction": FUSED_NONE} if node.op in ("multiply", "subtract", "divide") else {}
    return _finished(low, node, low.op(_PAIRS[node.op], operands, low.like(operands[0]), **options))


def embedding(low: Lowering, node: Node) -> int:
    """GATHER of the indices as int32, bounded by the rows of the table."""
    table, number = node.constants["table"], low.stored(node.inputs[0])
    for name, bound in (("MAXIMUM", 0), ("MINIMUM", len(table) - 1)):
        number = low.op(name, [number, low.builder.constant(np.array([bound], np.float32))], low.like(number))
    whole = low.op("CAST", [number], replace(low.like(number), dtype="int32"))
    output = float_type((1, *low.output(node).shape))
    return low.op("GATHER", [low.builder.constant(table), whole], output, axis=0, batchDims=0)


def log_softmax(low: Lowering, node: Node) -> int:
    number = low.stored(node.inputs[0])
    return low.op("LOG_SOFTMAX", [number], low.like(number))


def layer_norm(low: Lowering, node: Node) -> int:
    """(x - mean) * rsqrt(mean of squares + epsilon), then scaled and shifted."""
    number = low.stored(node.inputs[0])
    centred = low.op("SUB", [number, _mean(low, number)], low.like(number), fusedActivationFunction=FUSED_NONE)
    squares = low.op("MUL", [centred, centred], low.like(number), fusedActivationFunction=FUSED_NONE)
    shifted = low.add(_mean(low, squares), np.array([node.attrs["epsilon"]]))
    inverse = low.op("RSQRT", [shifted], low.like(shifted))
    scaled = low.op("MUL", [centred, inverse], low.like(number), fusedActivationFunction=FUSED_NONE)
    return low.scale_and_shift(scaled, node.constants.get("mul"), node.constants.get("add"))


def _mean(low: Lowering, number: int) -> int:
    """Over the channels, kept as one."""
    shape = low.shape(number)
    return low.op("MEAN", [number, _whole_numbers(low, len(shape) - 1)], float_type((*shape[:-1], 1)), keepDims=True)


def local_response_norm(low: Lowering, node: Node) -> int:
    number, attrs = _image(low, node), node.attrs
    options = {"radius": int(attrs["radius"]), **{name: float(attrs[name]) for name in ("bias", "alpha", "beta")}}
    return _finished(low, node, low.op("LOCAL_RESPONSE_NORMALIZATION", [number], low.like(number), **options))
