"""What every lowering of an operation to TFLite works with: the tensors made so far, and the small operators between them.

A tensor of the graph is known in up to two forms, each made when first asked for:

    stored   float32 as float32; int8 as int8; uint8 as int8, less 128 (the kernels of all runtimes are best at int8); bits as int8 +-1,
             scale 1, zero point 0
    real     the float32 values that stored ones stand for
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edge.converters.tflite_activations import ACTIVATIONS
from edge.converters.tflite_model import Array, Builder, LiteTensor
from edge.graph import Graph, Node
from edge.ops import NO_ACTIVATION, Activation
from edge.tensors import BYTE_SHIFT, Encoding, TensorType

Attrs = Mapping[str, int | float]

FUSED_NONE, FUSED_RELU, FUSED_RELU_N1_TO_1, FUSED_RELU6 = 0, 1, 2, 3  # ActivationFunctionType of the schema


def lite_type(kind: TensorType, shape: tuple[int, ...] | None = None) -> LiteTensor:
    """The TFLite tensor in which a tensor of the graph is stored, nameless; `shape` (with batch axis) replaces its own."""
    shape = (1, *kind.shape) if shape is None else shape
    if kind.encoding is Encoding.FLOAT32:
        return LiteTensor("", shape, "float32")
    if kind.encoding is Encoding.BITS:
        return LiteTensor("", shape, "int8", (1.0,), 0)
    shift = BYTE_SHIFT if kind.encoding is Encoding.UINT8 else 0
    return LiteTensor("", shape, "int8", (float(np.float32(kind.scale)),), kind.zero_point - shift)


def float_type(shape: tuple[int, ...]) -> LiteTensor:
    """A nameless float32 tensor."""
    return LiteTensor("", shape, "float32")


def fused(attrs: Attrs) -> int | None:
    """The activation that other operators can carry, None if they can't carry this one."""
    activation, limit = Activation(int(attrs["activation"])), attrs["limit"]
    if activation is Activation.NONE:
        return FUSED_NONE
    if activation is Activation.RELU and math.isinf(limit) and limit > 0:
        return FUSED_RELU
    return FUSED_RELU6 if activation is Activation.RELU and limit == 6 else None


@dataclass
class Lowering:
    """The state of one conversion. `input_float` makes uint8 inputs of the graph float32 tensors of whole numbers."""

    graph: Graph
    input_float: bool
    builder: Builder = field(default_factory=Builder)
    inputs: dict[str, int] = field(default_factory=dict)
    _stored: dict[str, int] = field(default_factory=dict)
    _real: dict[str, int] = field(default_factory=dict)
    _named: set[int] = field(default_factory=set)

    # -- tensors of the graph --------------------------------------------------------------------------------------------------

    def kind(self, name: str) -> TensorType:
        return self.graph.types[name]

    def output(self, node: Node) -> TensorType:
        return self.graph.types[node.output]

    def add_input(self, name: str) -> None:
        """Make the tensor through which an input of the graph comes."""
        kind = self.kind(name)
        picture = kind.encoding is Encoding.UINT8
        if picture and self.input_float:
            tensor = float_type((1, *kind.shape))
        else:
            tensor = replace(lite_type(kind), dtype="uint8", zero_point=kind.zero_point) if picture else lite_type(kind)
        self.inputs[name] = self.builder.tensor(replace(tensor, name=name))
        self._named.add(self.inputs[name])
        if not picture:
            self._stored[name] = self.inputs[name]

    def give(self, name: str, number: int) -> None:
        """Declare a tensor to be the stored form of the graph's tensor `name`."""
        self._stored[name] = number
        if number not in self._named:
            self.builder.rename(number, name)
        self._named.add(number)

    def stored(self, name: str) -> int:
        """The tensor that holds `name` as it is stored."""
        if name not in self._stored:
            source = self.real(name) if self.input_float else self.inputs[name]
            self._stored[name] = self.op("QUANTIZE", [source], lite_type(self.kind(name)))
        return self._stored[name]

    def real(self, name: str) -> int:
        """The tensor that holds the float32 values of `name`."""
        kind = self.kind(name)
        if kind.encoding is Encoding.FLOAT32:
            return self._stored[name]
        if name not in self._real:
            self._real[name] = self._real_picture(name) if name in self.inputs and self.input_float else self._dequantized(name)
        return self._real[name]

    def _dequantized(self, name: str) -> int:
        source = self.inputs[name] if name in self.inputs else self.stored(name)
        return self.op("DEQUANTIZE", [source], float_type((1, *self.kind(name).shape)))

    def _real_picture(self, name: str) -> int:
        """The real values of whole numbers that come as float32."""
        kind = self.kind(name)
        if kind.encoding is not Encoding.UINT8:
            return self._dequantized(name)
        centred = self.scale_and_shift(self.inputs[name], None, np.array([-kind.zero_point], np.float32))
        return self.scale_and_shift(centred, np.array([kind.scale], np.float32), None)

    # -- operators -------------------------------------------------------------------------------------------------------------

    def shape(self, number: int) -> tuple[int, ...]:
        return self.builder.tensors[number].shape

    def like(self, number: int) -> LiteTensor:
        """A nameless tensor of the shape, dtype and quantization of another."""
        return replace(self.builder.tensors[number], name="", data=None)

    def op(self, name: str, inputs: list[int], output: LiteTensor, **options: int | float) -> int:
        return self.builder.op(name, inputs, output, **options)

    def reshape(self, number: int, shape: tuple[int, ...]) -> int:
        """The tensor seen with another shape; itself if it has that shape."""
        if self.shape(number) == shape:
            return number
        return self.copy(number, shape)

    def copy(self, number: int, shape: tuple[int, ...]) -> int:
        """A tensor of its own with the same values."""
        wanted = self.builder.constant(np.array(shape, np.int32))
        return self.op("RESHAPE", [number, wanted], replace(self.like(number), shape=shape))

    def image(self, number: int, kind: TensorType) -> int:
        """The tensor seen as (1, H, W, C)."""
        return self.reshape(number, (1, *kind.hwc))

    def multiply(self, number: int, factor: Array, *, activation: int = FUSED_NONE) -> int:
        """float32 activation(x * factor)."""
        return self._binary("MUL", number, factor, activation)

    def add(self, number: int, term: Array, *, activation: int = FUSED_NONE) -> int:
        """float32 activation(x + term)."""
        return self._binary("ADD", number, term, activation)

    def _binary(self, name: str, number: int, operand: Array, activation: int) -> int:
        constant = self.builder.constant(operand.astype(np.float32))
        return self.op(name, [number, constant], self.like(number), fusedActivationFunction=activation)

    def scale_and_shift(self, number: int, scale: Array | None, shift: Array | None, attrs: Attrs = NO_ACTIVATION) -> int:
        """activation(x * scale + shift) of float32 values, each step rounded; steps that change nothing are left out."""
        steps: list[tuple[Callable[..., int], Array]] = []
        if scale is not None and np.any(scale != 1):
            steps.append((self.multiply, scale))
        if shift is not None and np.any(shift):
            steps.append((self.add, shift))
        carried = fused(attrs)
        for step, operand in steps:
            last = step is steps[-1][0]
            number = step(number, operand, activation=carried if last and carried is not None else FUSED_NONE)
        return number if steps and carried is not None else self.activate(number, attrs)

    def activate(self, number: int, attrs: Attrs) -> int:
        """An activation as operators of its own. Of int8 tensors only NONE and RELU, whatever the limit."""
        activation, alpha = Activation(int(attrs["activation"])), float(attrs["alpha"])
        same = self.like(number)
        if activation is Activation.NONE:
            return number
        if activation is Activation.RELU:
            return self._relu(number, attrs)
        if activation is Activation.LEAKY_RELU:
            return self.op("LEAKY_RELU", [number], same, alpha=alpha)
        if activation is Activation.ELU:
            return self._elu(number, alpha)
        return ACTIVATIONS[activation](self, number)

    def _relu(self, number: int, attrs: Attrs) -> int:
        name = "RELU6" if fused(attrs) == FUSED_RELU6 else "RELU"
        return self.limit(self.op(name, [number], self.like(number)), attrs)

    def limit(self, number: int, attrs: Attrs) -> int:
        """min(x, limit) where ReLU has a limit that no operator carries."""
        if fused(attrs) is not None:
            return number
        tensor = self.builder.tensors[number]
        if tensor.dtype == "float32":
            bound = self.builder.constant(np.array([attrs["limit"]], np.float32))
        else:
            steps = np.clip(np.rint(attrs["limit"] / tensor.scale) + tensor.zero_point, -128, 127)
            bound = self.builder.constant(np.array([steps], np.int8), scales=tensor.scales, zero_point=tensor.zero_point)
        return self.op("MINIMUM", [number, bound], self.like(number))

    def _elu(self, number: int, alpha: float) -> int:
        """TFLite's ELU has slope 1: max(x, 0) + alpha * ELU(min(x, 0))."""
        same = self.like(number)
        if alpha == 1:
            return self.op("ELU", [number], same)
        below = self.op("MINIMUM", [number, self.builder.constant(np.zeros(1, np.float32))], same)
        curve = self.multiply(self.op("ELU", [below], same), np.array([alpha], np.float32))
        above = self.op("RELU", [number], same)
        return self.op("ADD", [above, curve], same, fusedActivationFunction=FUSED_NONE)

    def store(self, number: int, kind: TensorType) -> int:
        """float32 values as what `kind` stores (float32 or int8). Plain kernels wrap, not saturate, beyond 2^31 quanta."""
        if kind.encoding is Encoding.FLOAT32:
            return number
        return self.op("QUANTIZE", [number], lite_type(kind, self.shape(number)))
