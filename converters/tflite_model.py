"""A TFLite model as plain data, and the builder that lowering fills: what goes into the file, without the flatbuffer.

A tensor of TFLite has the batch axis: (1, H, W, C), (1, W, C) or (1, C). Real values of integer tensors are scale * (q - zero_point).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge.errors import ModelError

Array = np.ndarray

MAX_CONSTANT_BYTES = (1 << 31) - (1 << 24)  # offsets are 32 bits, signed in places; room is left for all that is not constants


@dataclass(frozen=True)
class LiteTensor:
    """A tensor; `data` makes it a constant. Several `scales` are those of the slices along `axis`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int = 0
    data: Array | None = None

    @property
    def scale(self) -> float:
        return self.scales[0] if self.scales else 1.0

    @property
    def quantization(self) -> tuple[tuple[float, ...], int]:
        return self.scales, self.zero_point


@dataclass(frozen=True)
class LiteOp:
    """A built-in operator: its name in the schema, the version its operands need, tensor numbers and options as in the schema."""

    name: str
    version: int
    inputs: tuple[int, ...]
    output: int
    options: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class LiteModel:
    """A model of one subgraph. `inputs` and `outputs` are tensor numbers by public name."""

    tensors: tuple[LiteTensor, ...]
    operators: tuple[LiteOp, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    name: str = "main"


# Versions of the operators when an operand is int8; float32 ones are version 1, but for some.
_INT8_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "ADD": 2,
    "MUL": 2,
    "MINIMUM": 2,
    "MAX_POOL_2D": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "PAD": 2,
    "PADV2": 2,
    "QUANTIZE": 2,
    "DEQUANTIZE": 2,
    "SOFTMAX": 2,
    "LOGISTIC": 2,
    "TANH": 2,
    "SLICE": 2,
    "STRIDED_SLICE": 2,
    "TRANSPOSE": 2,
    "DEPTH_TO_SPACE": 2,
}
_FLOAT16_VERSIONS = {"DEQUANTIZE": 3}
_HALF_PIXEL_VERSIONS = {"RESIZE_NEAREST_NEIGHBOR": 3, "RESIZE_BILINEAR": 3}  # since when operators know half-pixel centres


@dataclass
class Builder:
    """Collects tensors and operators; equal constants are stored once. `layer` is who the bytes of new constants count for."""

    tensors: list[LiteTensor] = field(default_factory=list)
    operators: list[LiteOp] = field(default_factory=list)
    layer: str = ""
    layer_bytes: dict[str, int] = field(default_factory=dict)
    _constants: dict[tuple[object, ...], int] = field(default_factory=dict)

    def tensor(self, tensor: LiteTensor) -> int:
        """Add a tensor and return its number."""
        self.tensors.append(replace(tensor, name=tensor.name or f"{self.layer}:{len(self.tensors)}"))
        return len(self.tensors) - 1

    def constant(self, values: Array, *, scales: Sequence[float] = (), zero_point: int = 0, axis: int = 0) -> int:
        """Add a constant, or find the same one, and return its number; raises `ModelError` where no file could hold it."""
        if sum(self.layer_bytes.values()) + values.nbytes > MAX_CONSTANT_BYTES:
            raise ModelError(
                f"layer {self.layer}: with its {values.nbytes} bytes the constants exceed the 2 GiB of a .tflite file; "
                "write the .edge alone, with --format edge"
            )
        data = np.ascontiguousarray(values)
        key = (data.dtype.str, data.shape, hashlib.sha256(data.data).digest(), tuple(scales), zero_point, axis)
        if key not in self._constants:
            quantized = LiteTensor("", data.shape, data.dtype.name, tuple(map(float, scales)), zero_point, axis, data)
            self._constants[key] = self.tensor(quantized)
            self.layer_bytes[self.layer] = self.layer_bytes.get(self.layer, 0) + data.nbytes
        return self._constants[key]

    def op(self, name: str, inputs: Sequence[int], output: LiteTensor, **options: int | float) -> int:
        """Add an operator that gives `output` and return that tensor's number."""
        number = self.tensor(output)
        dtypes = [self.tensors[i].dtype for i in (*inputs[:2], number)]
        integer = "int8" in dtypes and (name != "QUANTIZE" or "float32" not in dtypes)
        own = _FLOAT16_VERSIONS if "float16" in dtypes else _HALF_PIXEL_VERSIONS
        version = own.get(name) or (_INT8_VERSIONS.get(name, 1) if integer else 1)
        self.operators.append(LiteOp(name, version, tuple(inputs), number, options))
        return number

    def rename(self, number: int, name: str) -> None:
        """Give a tensor its public name."""
        self.tensors[number] = replace(self.tensors[number], name=name)
