"""What every operation of `edge.ops` means, in slow and plain NumPy: the definition that kernels are tested against.

Values have the shape of their tensor, without halo: float32 as float32, int8 and uint8 as the stored integers, bits as bools (True is -1).
Constants are as `edge.graph` describes them. Every step below is one float32 operation, rounded to nearest, ties to even; only the products
of a float convolution are fused with their sum, in the order (kh, kw, cin). exp and tanh are rounded from float64, so kernels agree with
them within a tolerance, and with everything else bit for bit.

A value that is not a number follows the comparisons: it quantizes to the lowest integer, binarizes to +1 and passes through a max pool
only where it comes first in the window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.kernels import reference_moves as moves
from edge.kernels.arithmetic import DTYPES, activate, dequantize, fma, magnitudes, mean_factor, quantize
from edge.kernels.bitpack import negative, signs
from edge.kernels.windows import Window
from edge.ops import OpCall
from edge.tensors import Encoding, TensorType, hwc

if TYPE_CHECKING:
    from edge.graph import Graph
    from edge.program import Program

Array = np.ndarray


def evaluate(op: str, call: OpCall, output: TensorType, inputs: Sequence[Array], constants: Mapping[str, Array]) -> Array:
    """The output of one application of an operation.

    `inputs` and `constants` are the values that `call` describes, and `call` must have passed `edge.op_check`. Raises `ValueError` for
    inputs of another shape or dtype and for an unknown operation.
    """
    if op not in _MEANINGS:
        raise ValueError(f"no meaning for the operation {op!r}; there are {', '.join(_MEANINGS)}")
    for value, kind in zip(inputs, call.inputs, strict=True):
        _check_value(value, kind)
    with np.errstate(all="ignore"):
        result = _MEANINGS[op](_Case(call, output, tuple(inputs), constants))
    return result.reshape(output.shape).astype(DTYPES[output.encoding], copy=False)


def run_graph(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of `graph` by name, computed from its `inputs` (one example each)."""
    values = {name: _checked(inputs[name], graph.types[name]) for name in graph.inputs}
    for node in graph.nodes:
        operands = [values[name] for name in node.inputs]
        values[node.output] = evaluate(node.op, graph.call(node), graph.types[node.output], operands, node.constants)
        if node.signs:
            values[node.signs] = signs_of(values[node.output], node.constants)
    return values


def run_program(program: Program, inputs: Sequence[Array]) -> dict[int, Array]:
    """Every tensor of `program` by number, computed from `inputs` in the order of `Program.inputs` (one example each)."""
    values = {number: _checked(value, program.tensors[number].type) for number, value in zip(program.inputs, inputs, strict=True)}
    for instruction in program.instructions:
        found = {role: program.array(instruction, role) for role in instruction.definition.constants}
        constants = {role: array for role, array in found.items() if array is not None}
        operands = [values[number] for number in instruction.inputs]
        output = program.tensors[instruction.output].type
        values[instruction.output] = evaluate(instruction.definition.name, program.call(instruction), output, operands, constants)
        if instruction.signs >= 0:
            values[instruction.signs] = signs_of(values[instruction.output], constants)
    return values


@dataclass(frozen=True)
class _Case:
    """One application with its values."""

    call: OpCall
    output: TensorType
    inputs: tuple[Array, ...]
    constants: Mapping[str, Array]

    @property
    def image(self) -> Array:
        """The first input as (H, W, C)."""
        return self.inputs[0].reshape(hwc(self.inputs[0].shape))

    def real(self, index: int = 0) -> Array:
        """An input as the float32 values it stands for."""
        return dequantize(self.inputs[index], self.call.inputs[index])


def _check_value(value: Array, kind: TensorType) -> None:
    if value.shape != kind.shape or value.dtype != DTYPES[kind.encoding]:
        raise ValueError(f"expected {kind.shape} of {DTYPES[kind.encoding]}, got {value.shape} of {value.dtype}")


def _checked(value: Array, kind: TensorType) -> Array:
    _check_value(value, kind)
    return value


def _store(real: Array, kind: TensorType) -> Array:
    """float32 values as what `kind` stores; not for bits."""
    return real if kind.encoding is Encoding.FLOAT32 else quantize(real, kind)


def _store_activated(real: Array, case: _Case) -> Array:
    return _store(activate(real, case.call.attrs), case.output)


# -- windows -------------------------------------------------------------------------------------------------------------------


def _pad(case: _Case, image: Array, value: Array | float | int | bool) -> Array:
    i = case.call.i
    height, width, channels = image.shape
    top, left = i("pad_top"), i("pad_left")
    padded = np.full((top + height + i("pad_bottom"), left + width + i("pad_right"), channels), value, image.dtype)
    padded[top : top + height, left : left + width] = image
    return padded


def _conv_window(call: OpCall, taps_h: int, taps_w: int) -> Window:
    i = call.i
    return Window(taps_h, taps_w, (i("stride_h"), i("stride_w")), (i("dilation_h"), i("dilation_w")))


def _pool_window(call: OpCall) -> Window:
    i = call.i
    return Window(i("window_h"), i("window_w"), (i("stride_h"), i("stride_w")))


# -- convolutions --------------------------------------------------------------------------------------------------------------


def _operand(case: _Case) -> Array:
    """The first input as the numbers that are multiplied: float32, or int64 less the zero point."""
    image, kind = case.image, case.call.inputs[0]
    if kind.encoding is Encoding.FLOAT32:
        return image
    if kind.encoding is Encoding.BITS:
        return signs(image).astype(np.int64)
    return image.astype(np.int64) - kind.zero_point


def _filter(case: _Case, like: Array) -> Array:
    """The filter as numbers of the dtype of the input."""
    stored = case.constants["filter"]
    return (signs(stored) if stored.dtype == np.bool_ else stored).astype(like.dtype)


def _conv2d(case: _Case) -> Array:
    return _epilogue(case, _convolve(case))


def _convolve(case: _Case) -> Array:
    image = _operand(case)
    weights = _filter(case, image)
    padded = _pad(case, image, case.call.i("pad_ones"))
    window = _conv_window(case.call, weights.shape[1], weights.shape[2])
    return _accumulate(window, padded, weights, case.call.i("groups"))


def _residual_conv2d(case: _Case) -> Array:
    """The steps that the docstring of `edge.ops` lists, each rounded."""
    y = activate(_scale_and_shift(_convolve(case).astype(np.float32), case.constants, "scale", "bias"), case.call.attrs)
    y = _scale_and_shift(_sloped(y, case.constants), case.constants, "mul", "add")
    for other in case.inputs[1:]:
        y = y + other.reshape(y.shape)
    if case.call.i("relu_after"):
        y = np.where(y > 0, y, np.float32(0))
    return signs_of(y, case.constants) if case.output.encoding is Encoding.BITS else y


def signs_of(y: Array, constants: Mapping[str, Array]) -> Array:
    """The signs of a result, as bits."""
    return negative(_scale_and_shift(y, constants, "sign_mul", "sign_add"))


def _sloped(x: Array, constants: Mapping[str, Array]) -> Array:
    return np.where(x < 0, x * constants["slope"], x) if "slope" in constants else x


def _dense(case: _Case) -> Array:
    image = _operand(case)
    weights = _filter(case, image)
    return _epilogue(case, _accumulate(Window(weights.shape[1], weights.shape[2]), image, weights, 1))


def _depthwise_conv2d(case: _Case) -> Array:
    image = _operand(case)
    weights = _filter(case, image)
    total = None
    for row, column, seen in _conv_window(case.call, *weights.shape[:2]).taps(_pad(case, image, case.call.i("pad_ones"))):
        repeated = np.repeat(seen, weights.shape[2] // seen.shape[2], axis=2)
        start = np.zeros_like(repeated) if total is None else total
        total = _multiply_add(repeated, weights[row, column], start)
    assert total is not None  # a filter has a tap
    return _epilogue(case, total)


def _accumulate(window: Window, padded: Array, weights: Array, groups: int) -> Array:
    """(rows, columns, O) sums of products; weights (O, kh, kw, depth)."""
    by_group = weights.reshape(groups, -1, *weights.shape[1:])
    parts = [_accumulate_group(window, part, filters) for part, filters in zip(np.split(padded, groups, axis=2), by_group, strict=True)]
    return np.concatenate(parts, axis=2)


def _accumulate_group(window: Window, padded: Array, weights: Array) -> Array:
    total: Array | None = None
    for row, column, seen in window.taps(padded):
        filters = weights[:, row, column]
        start = np.zeros((*seen.shape[:2], len(weights)), padded.dtype) if total is None else total
        total = _add_products(seen, filters, start)
    assert total is not None  # a filter has a tap
    return total


def _add_products(seen: Array, filters: Array, total: Array) -> Array:
    """total (rows, columns, O) + seen (rows, columns, depth) x filters (O, depth)."""
    if total.dtype != np.float32:
        # Sums below 2^31 (edge.ops proves it) are exact in float64, which has a fast matrix product.
        return total + (seen.astype(np.float64) @ filters.T.astype(np.float64)).astype(np.int64)
    for channel in range(filters.shape[1]):
        total = fma(seen[:, :, channel, None], filters[:, channel], total)
    return total


def _multiply_add(x: Array, y: Array, total: Array) -> Array:
    return fma(x, y, total) if total.dtype == np.float32 else total + x * y


def _epilogue(case: _Case, total: Array) -> Array:
    """From the accumulator to the output, as the docstring of `edge.ops` says."""
    if case.output.encoding is Encoding.BITS:
        return np.asarray(total < case.constants["threshold"])
    return _store_activated(_scale_and_shift(total.astype(np.float32), case.constants, "scale", "bias"), case)


def _scale_and_shift(x: Array, constants: Mapping[str, Array], scale: str, shift: str) -> Array:
    """x * scale + shift per channel, each step rounded; an absent constant leaves its step out."""
    if scale in constants:
        x = x * constants[scale]
    return x + constants[shift] if shift in constants else x


# -- pools ---------------------------------------------------------------------------------------------------------------------


def _max_pool2d(case: _Case) -> Array:
    """The largest value of the window inside the image; of channels in `flip`, the smallest."""
    image = case.image
    if image.dtype == np.bool_:
        return _max_pool_bits(case)
    lowest = -np.inf if image.dtype == np.float32 else np.iinfo(image.dtype).min
    seen = [tap for _, _, tap in _pool_window(case.call).taps(_pad(case, image, lowest))]
    result = seen[0]
    for tap in seen[1:]:
        result = np.where(tap > result, tap, result)
    return result


def _max_pool_bits(case: _Case) -> Array:
    """Bit 1 means -1: the maximum is the AND of the bits, the minimum of flipped channels the OR."""
    flip = case.constants.get("flip", np.zeros(case.image.shape[2], np.bool_))
    window = _pool_window(case.call)
    largest = [tap for _, _, tap in window.taps(_pad(case, case.image, True))]
    smallest = [tap for _, _, tap in window.taps(_pad(case, case.image, False))]
    low: Array
    high: Array
    low, high = np.any(smallest, axis=0), np.all(largest, axis=0)
    return np.where(flip, low, high)


def _average_pool2d(case: _Case) -> Array:
    """The mean of the window inside the image: sum / count, rounded half to even for integers (of the stored values)."""
    image = case.image if case.image.dtype == np.float32 else case.image.astype(np.int64)
    window = _pool_window(case.call)
    inside = np.ones((*image.shape[:2], 1), np.int64)
    count, total = (window.total(_pad(case, values, 0)) for values in (inside, image))
    mean = total.astype(np.float32) / count.astype(np.float32)
    return mean if image.dtype == np.float32 else np.rint(mean).astype(case.image.dtype)


def _magnitude_map(case: _Case) -> Array:
    """mean(abs(x)) over channels and window, with zeros outside the image: the map K of XNOR-Net (Rastegari et al., 2016, section 3.2).

    Sums are rounded in this order: channels as `magnitudes` adds them, then the rows of the window, then its columns.
    """
    i = case.call.i
    rows = Window(i("window_h"), 1, (i("stride_h"), 1)).total(_pad(case, magnitudes(case.image), 0))
    total = Window(1, i("window_w"), (1, i("stride_w"))).total(rows)
    return total * mean_factor(case.call)


# -- the rest ------------------------------------------------------------------------------------------------------------------


def _affine(case: _Case) -> Array:
    """activation(x * mul + add) per channel."""
    return activate(_scale_and_shift(case.real(), case.constants, "mul", "add"), case.call.attrs)


def _activation(case: _Case) -> Array:
    return activate(case.inputs[0], case.call.attrs)


def _prelu(case: _Case) -> Array:
    return _sloped(case.inputs[0], case.constants)


def _softmax(case: _Case) -> Array:
    """exp(x - max) / sum of the same, over the channels."""
    shifted = case.inputs[0] - case.inputs[0].max(axis=-1, keepdims=True)
    powers = np.exp(shifted.astype(np.float64))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)


def _binarize(case: _Case) -> Array:
    """The sign of x * mul + add per channel; +1 for zero."""
    return negative(_scale_and_shift(case.inputs[0], case.constants, "mul", "add"))


def _unpack(case: _Case) -> Array:
    return signs(case.inputs[0])


def _quantize(case: _Case) -> Array:
    return quantize(case.real(), case.output)


def _dequantize(case: _Case) -> Array:
    return case.real()


def _add(case: _Case) -> Array:
    """activation(a + b); of int8, of the real values."""
    return _store_activated(case.real(0) + case.real(1), case)


def _pairwise(function: Callable[[Array, Array], Array]) -> Callable[[_Case], Array]:
    """function(x, m), m repeated along its axes of 1."""
    return lambda case: function(case.image, case.inputs[1].reshape(case.call.inputs[1].hwc))


def _concat(case: _Case) -> Array:
    return np.concatenate(case.inputs, axis=-1)


def _reshape(case: _Case) -> Array:
    return case.inputs[0].reshape(case.output.shape)


def _pad2d(case: _Case) -> Array:
    """The image with `value` (a real value, quantized like the tensor) around it."""
    value = _store(np.array(case.call.attrs["value"], np.float32), case.output)
    return _pad(case, case.image, value)


_MEANINGS: Mapping[str, Callable[[_Case], Array]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "dense": _dense,
    "max_pool2d": _max_pool2d,
    "average_pool2d": _average_pool2d,
    "affine": _affine,
    "activation": _activation,
    "softmax": _softmax,
    "binarize": _binarize,
    "unpack": _unpack,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "add": _add,
    "concat": _concat,
    "reshape": _reshape,
    "pad2d": _pad2d,
    "residual_conv2d": _residual_conv2d,
    "prelu": _prelu,
    "magnitude_map": _magnitude_map,
    "multiply": _pairwise(np.multiply),
    "slice": lambda case: moves.cut(case.image, case.call),
    "resize_nearest": lambda case: moves.nearest(case.image, hwc(case.output.shape)),
    "resize_bilinear": lambda case: moves.bilinear(case.image, hwc(case.output.shape)),
    "transpose": lambda case: case.image.transpose([case.call.i(f"axis_{axis}") for axis in range(3)]),
    "depth_to_space": lambda case: moves.to_space(case.image, case.call.i("block_h"), case.call.i("block_w")),
    "subtract": _pairwise(np.subtract),
    "divide": _pairwise(np.divide),
    "maximum": _pairwise(moves.maximum),
    "minimum": _pairwise(moves.minimum),
    "layer_norm": lambda case: moves.normalized(case.inputs[0], case.constants, case.call.attrs["epsilon"]),
    "local_response_norm": lambda case: moves.local_response(case.inputs[0], case.call.attrs),
    "embedding": lambda case: moves.rows_of(case.constants["table"], case.inputs[0]),
    "log_softmax": lambda case: moves.log_softmax(case.inputs[0]),
}
