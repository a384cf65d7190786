"""What a `.tflite` file holds, read from its tables without an interpreter: operators, tensors, bytes of constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.tflite_check import Table, check_tflite, root_of

# Names of built-in operators by their number in TFLite's schema: those that pictures networks are made of.
_OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 5: "DEPTH_TO_SPACE", 6: "DEQUANTIZE",
    9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION", 13: "LOCAL_RESPONSE_NORMALIZATION", 14: "LOGISTIC", 16: "LSTM", 17: "MAX_POOL_2D",
    18: "MUL", 19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 25: "SOFTMAX", 26: "SPACE_TO_DEPTH",
    27: "SVDF", 28: "TANH", 32: "CUSTOM", 34: "PAD", 36: "GATHER", 37: "BATCH_TO_SPACE_ND", 38: "SPACE_TO_BATCH_ND", 39: "TRANSPOSE",
    40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE", 45: "STRIDED_SLICE", 47: "EXP", 49: "SPLIT", 53: "CAST", 54: "PRELU", 55: "MAXIMUM",
    56: "ARG_MAX", 57: "MINIMUM", 59: "NEG", 60: "PADV2", 65: "SLICE", 67: "TRANSPOSE_CONV", 70: "EXPAND_DIMS", 74: "SUM", 75: "SQRT",
    76: "RSQRT", 77: "SHAPE", 78: "POW", 82: "REDUCE_MAX", 83: "PACK", 88: "UNPACK", 92: "SQUARE", 97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU", 99: "SQUARED_DIFFERENCE", 100: "MIRROR_PAD", 101: "ABS", 102: "SPLIT_V", 111: "ELU", 114: "QUANTIZE",
    117: "HARD_SWISH", 126: "BATCH_MATMUL", 130: "BROADCAST_TO", 150: "GELU",
}  # fmt: skip
_OLD_LARGEST = 127  # larger numbers are in a field that older files lack
_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float64", 17: "int4"}
_LOWERED: dict[str, np.dtype[Any]] = {"int8": np.dtype(np.int8), "float16": np.dtype("<f2")}
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}
_ACTIVATIONS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid", "TANH": "tanh"}
# The axis of a filter along which every value of the output (of a transposed convolution: of the input) has one filter of its own.
_FILTERS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 3}
_BITS = {"float32": 32, "float16": 16, "int32": 32, "uint8": 8, "int64": 64, "int16": 16, "int8": 8, "float64": 64, "int4": 4, "bool": 8}
_TRANSPARENT = ("DEQUANTIZE", "QUANTIZE", "RESHAPE")  # an output behind these is still what the operator before made of it


@dataclass(frozen=True)
class LiteTensor:
    """A tensor as the file describes it; `shape` has the batch axis. scale: 0 where it is not quantized, or has several scales."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    constant_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of its values; an axis that is left open counts as 1."""
        return math.prod(max(1, size) for size in self.shape) * _BITS.get(self.dtype, 8) // 8

    @property
    def real_range(self) -> tuple[float, float] | None:
        """The least and the largest real value an integer tensor can hold; None for others."""
        if self.dtype not in _LIMITS or not self.scale:
            return None
        low, high = ((limit - self.zero_point) * self.scale for limit in _LIMITS[self.dtype])
        return low, high


@dataclass(frozen=True)
class LiteOperator:
    """An operator, its first output, and the bytes of the constants it is the first to read.

    macs: multiply-accumulates of convolutions and dense layers, 0 of others; precision: "bits of the input x bits of the filter" of those.
    """

    name: str
    output: LiteTensor
    constant_bytes: int
    macs: int = 0
    precision: str = ""


@dataclass(frozen=True)
class LiteOperation:
    """An operator by what it reads and makes. constants: those of int8 and float16 of two axes or more, filters, by name, as stored."""

    inputs: tuple[LiteTensor, ...]
    outputs: tuple[LiteTensor, ...]
    constants: tuple[tuple[str, np.ndarray], ...]


@dataclass(frozen=True)
class Listing:
    """The first network of a file. activations: of each output, what it ends in: softmax, sigmoid, tanh or linear."""

    inputs: tuple[LiteTensor, ...]
    outputs: tuple[LiteTensor, ...]
    activations: tuple[str, ...]
    operators: tuple[LiteOperator, ...]


def list_tflite(data: bytes) -> Listing:
    """What is in the bytes of a `.tflite` file. Raises `FormatError` where it is none or is damaged."""
    check_tflite(data)
    model = root_of(data)
    graph, buffers = model.tables(2)[0], model.tables(4)
    tensors = [_tensor(table, buffers) for table in graph.tables(0)]
    names = [_operator_name(table) for table in model.tables(1)]
    operators = [(names[table.scalar(0, "I")], table.numbers(1), table.numbers(2)) for table in graph.tables(3)]
    outputs = graph.numbers(2)
    return Listing(
        inputs=tuple(tensors[number] for number in graph.numbers(1)),
        outputs=tuple(tensors[number] for number in outputs),
        activations=tuple(_activation(number, operators) for number in outputs),
        operators=tuple(_operators(operators, tensors)),
    )


def lite_operations(data: bytes) -> tuple[LiteOperation, ...]:
    """The operators of the first network of a `.tflite` file, in order. Raises `FormatError` where it is none or is damaged."""
    check_tflite(data)
    model = root_of(data)
    graph, buffers = model.tables(2)[0], model.tables(4)
    tables = graph.tables(0)
    tensors = [_tensor(table, buffers) for table in tables]
    found = []
    for operator in graph.tables(3):
        read, made = ([number for number in operator.numbers(field) if number >= 0] for field in (1, 2))
        stored = [i for i in read if tensors[i].dtype in _LOWERED and tensors[i].constant_bytes and len(tensors[i].shape) > 1]
        constants = [(tensors[i].name, _stored(data, buffers[tables[i].scalar(2, "I")], tensors[i])) for i in stored]
        found.append(LiteOperation(tuple(tensors[i] for i in read), tuple(tensors[i] for i in made), tuple(constants)))
    return tuple(found)


def _stored(data: bytes, buffer: Table, tensor: LiteTensor) -> np.ndarray:
    start, length = buffer.vector(0, 1)
    values: np.ndarray = np.frombuffer(data[start : start + length], _LOWERED[tensor.dtype])
    return values.reshape(tensor.shape)


_Operator = tuple[str, tuple[int, ...], tuple[int, ...]]  # name, input tensors, output tensors


def _operator_name(code: Table) -> str:
    old, new = code.scalar(0, "b"), code.scalar(3, "i")
    number = new if old == _OLD_LARGEST or new > old else old
    return _OPERATORS.get(number, f"operator {number}")


def _tensor(table: Table, buffers: Sequence[Table]) -> LiteTensor:
    quantization = table.table(4)
    scales = quantization.elements(2, "f") if quantization else ()
    zeros = quantization.elements(3, "q") if quantization else ()
    single = len(scales) == 1
    return LiteTensor(
        name=table.string(3),
        shape=table.numbers(0),
        dtype=_DTYPES.get(table.scalar(1, "b"), f"type {table.scalar(1, 'b')}"),
        scale=scales[0] if single else 0.0,
        zero_point=int(zeros[0]) if single and zeros else 0,
        constant_bytes=buffers[table.scalar(2, "I")].length(0),
    )


def _operators(operators: Sequence[_Operator], tensors: Sequence[LiteTensor]) -> Iterator[LiteOperator]:
    counted: set[int] = set()
    for name, inputs, outputs in operators:
        new = {number for number in inputs if number >= 0} - counted
        counted |= new
        output = tensors[outputs[0]] if outputs else LiteTensor("", (), "", 0.0, 0, 0)
        read = [tensors[number] for number in inputs if number >= 0]
        yield LiteOperator(name, output, sum(tensors[number].constant_bytes for number in new), *_macs(name, read, output))


def _macs(name: str, inputs: Sequence[LiteTensor], output: LiteTensor) -> tuple[int, str]:
    """Multiply-accumulates and their precision; (0, "") of operators without a filter."""
    place = _FILTERS.get(name)
    if place is None or len(inputs) < 2 or not inputs[1].shape:
        return 0, ""
    stored, image = inputs[1], inputs[2 if name == "TRANSPOSE_CONV" and len(inputs) > 2 else 0]
    counted = image if name == "TRANSPOSE_CONV" else output
    each = math.prod(size for axis, size in enumerate(stored.shape) if axis != place)
    bits = [_BITS.get(tensor.dtype, 0) for tensor in (image, stored)]
    return math.prod(counted.shape) * each, f"{bits[0]}x{bits[1]}"


def _activation(tensor: int, operators: Sequence[_Operator]) -> str:
    # Backwards, since each tensor is made before it is read; so no file can lead in circles.
    for name, inputs, outputs in reversed(operators):
        if tensor not in outputs:
            continue
        if name not in _TRANSPARENT or not inputs:
            return _ACTIVATIONS.get(name, "linear")
        tensor = inputs[0]
    return "linear"
