"""Write a TFLite model as a flatbuffer, with the schema module that ai-edge-litert or TensorFlow brings; nothing of TensorFlow runs."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np

from edge.converters.tflite_model import LiteModel, LiteOp, LiteTensor
from edge.errors import MissingPackage

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes; the schema's force_align of buffers, so that runtimes may read constants in place
SCHEMA_VERSION = 3
_SCHEMAS = ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated")
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "SUB": "SubOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "SLICE": "SliceOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "TRANSPOSE": "TransposeOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "MEAN": "ReducerOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
    "CAST": "CastOptions",
    "GATHER": "GatherOptions",
    "LOG_SOFTMAX": "LogSoftmaxOptions",
    "GELU": "GeluOptions",
    "EXP": "ExpOptions",
    "ABS": "AbsOptions",
    "HARD_SWISH": "HardSwishOptions",
}
_TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "int8": "INT8", "uint8": "UINT8", "int32": "INT32"}


def serialize(model: LiteModel, description: str) -> memoryview:
    """The bytes of the file; the same for the same model. Raises `MissingPackage` without a schema module or flatbuffers."""
    schema, flatbuffers = packages()
    data, numbers = _buffers(schema, model.tensors)
    codes = list(dict.fromkeys((op.name, op.version) for op in model.operators))
    root = schema.ModelT()
    root.version = SCHEMA_VERSION
    root.description = description
    root.operatorCodes = [_operator_code(schema, *code) for code in codes]
    root.buffers = data
    root.subgraphs = [_subgraph(schema, model, codes, numbers)]
    root.signatureDefs = [_signature(schema, model)]
    builder = flatbuffers.Builder(_room(model))
    builder.Finish(root.Pack(builder), IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def _room(model: LiteModel) -> int:
    """Bytes that the file hardly exceeds: where it does, the builder takes twice as much and copies all."""
    constants = sum(tensor.data.nbytes + ALIGNMENT for tensor in model.tensors if tensor.data is not None)
    texts = sum(len(tensor.name) + 16 * len(tensor.scales) for tensor in model.tensors)
    return constants + texts + 256 * (len(model.tensors) + len(model.operators)) + (1 << 16)


def packages() -> tuple[Any, ModuleType]:
    """The schema module and flatbuffers."""
    try:
        return _schema(), importlib.import_module("flatbuffers")
    except ImportError as err:
        raise MissingPackage(
            "A .tflite file needs the packages flatbuffers and ai-edge-litert or tensorflow to be written, and they are not installed: "
            "install them with pip install 'edge-lowbit[convert]'."
        ) from err


def _schema() -> Any:
    for name in _SCHEMAS[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module(_SCHEMAS[-1])


class _AlignedBuffer:
    """A buffer of the object API whose data starts at a multiple of `ALIGNMENT`, which the schema's own class does not see to."""

    def __init__(self, schema: Any, data: np.ndarray | None) -> None:
        self.schema = schema
        self.data = data

    def Pack(self, builder: Any) -> int:
        vector = None
        if self.data is not None:
            builder.Prep(ALIGNMENT, self.data.size)
            builder.StartVector(1, self.data.size, 1)
            builder.head -= self.data.size
            memoryview(builder.Bytes)[builder.head : builder.head + self.data.size] = self.data.data
            vector = builder.EndVector()
        self.schema.BufferStart(builder)
        if vector is not None:
            self.schema.BufferAddData(builder, vector)
        return int(self.schema.BufferEnd(builder))


def _buffers(schema: Any, tensors: tuple[LiteTensor, ...]) -> tuple[list[_AlignedBuffer], list[int]]:
    """The buffers, the first empty as the format asks, and each tensor's buffer number (0 for what is computed)."""
    buffers, numbers = [_AlignedBuffer(schema, None)], []
    for tensor in tensors:
        numbers.append(len(buffers) if tensor.data is not None else 0)
        if tensor.data is not None:
            buffers.append(_AlignedBuffer(schema, tensor.data.reshape(-1).view(np.uint8)))
    return buffers, numbers


def _operator_code(schema: Any, name: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # what runtimes before the 32-bit field read
    code.version = version
    return code


def _subgraph(schema: Any, model: LiteModel, codes: list[tuple[str, int]], buffers: list[int]) -> Any:
    graph = schema.SubGraphT()
    graph.name = model.name
    graph.tensors = [_tensor(schema, tensor, buffer) for tensor, buffer in zip(model.tensors, buffers, strict=True)]
    graph.operators = [_operator(schema, op, codes.index((op.name, op.version))) for op in model.operators]
    graph.inputs = [number for _, number in model.inputs]
    graph.outputs = [number for _, number in model.outputs]
    return graph


def _tensor(schema: Any, tensor: LiteTensor, buffer: int) -> Any:
    result = schema.TensorT()
    result.name = tensor.name
    result.shape = list(tensor.shape)
    result.type = getattr(schema.TensorType, _TYPES[tensor.dtype])
    result.buffer = buffer
    result.hasRank = True
    if tensor.scales:
        result.quantization = schema.QuantizationParametersT()
        result.quantization.scale = np.array(tensor.scales, np.float32)
        result.quantization.zeroPoint = np.full(len(tensor.scales), tensor.zero_point, np.int64)
        result.quantization.quantizedDimension = tensor.axis
    return result


def _operator(schema: Any, op: LiteOp, code: int) -> Any:
    result = schema.OperatorT()
    result.opcodeIndex = code
    result.inputs = list(op.inputs)
    result.outputs = [op.output]
    if op.name in _OPTIONS:
        result.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[op.name])
        result.builtinOptions = getattr(schema, _OPTIONS[op.name] + "T")()
        for key, value in op.options.items():
            setattr(result.builtinOptions, key, value)
    return result


def _signature(schema: Any, model: LiteModel) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.subgraphIndex = 0
    signature.inputs = [_tensor_map(schema, *pair) for pair in model.inputs]
    signature.outputs = [_tensor_map(schema, *pair) for pair in model.outputs]
    return signature


def _tensor_map(schema: Any, name: str, number: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name
    entry.tensorIndex = number
    return entry
