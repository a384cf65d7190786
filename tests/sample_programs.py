"""Small networks with random weights that together use every operation, encoding and kind of constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge.graph import Graph, Node, constant_type
from edge.lower import to_program
from edge.op_check import infer
from edge.ops import NO_ACTIVATION, OPS, Activation, OpCall
from edge.program import Program
from edge.tensors import FLOATS, NARROW, Encoding, TensorType

BITS, FLOAT16, FLOAT32, INT8, UINT8 = Encoding.BITS, Encoding.FLOAT16, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8
Attrs = Mapping[str, int | float]

NO_PADDING: Attrs = {"pad_top": 0, "pad_bottom": 0, "pad_left": 0, "pad_right": 0}
PADDING: Attrs = {"pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1}
CONV: Attrs = {
    "stride_h": 1, "stride_w": 1, **NO_PADDING, "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, **NO_ACTIVATION,
}  # fmt: skip
POOL: Attrs = {"window_h": 2, "window_w": 2, "stride_h": 2, "stride_w": 2, **NO_PADDING}
RELU: Attrs = {"activation": int(Activation.RELU)}


@dataclass
class Builder:
    """Adds nodes to a graph; every method returns the name of the tensor it adds."""

    seed: int
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def input(self, kind: TensorType) -> str:
        name = f"input{len(self.inputs)}"
        self.inputs.append(name)
        self.types[name] = kind
        return name

    def add(
        self, op: str, *inputs: str, output: TensorType | None = None, constants: Mapping[str, np.ndarray] | None = None,
        signs: str = "", stored: Encoding = INT8, **attrs: float,
    ) -> str:  # fmt: skip
        """`output` gives encoding and quantization (those of the first input if absent); its shape is inferred. `signs` names a second.
        An int8 filter is `stored` as it is, or in fewer bits."""
        constants = constants or {}
        kinds = {role: constant_type(array) for role, array in constants.items()}
        call = OpCall(tuple(self.types[name] for name in inputs), kinds, attrs)
        name = f"{op}{len(self.nodes)}"
        self.types[name] = replace(output or call.inputs[0], shape=infer(OPS[op], call))
        if signs:
            self.types[signs] = TensorType(self.types[name].shape, BITS)
        bits = stored.bits if stored in NARROW else 0
        self.nodes.append(Node(op, inputs, name, dict(attrs), constants, (f"layer_{name}",), signs, bits))
        return name

    def conv(self, source: str, channels: int, taps: tuple[int, int], *, stored: Encoding, output: TensorType, **attrs: float) -> str:
        depth = self.types[source].hwc[2] // int(attrs.get("groups", 1))
        constants = self._filter((channels, *taps, depth), channels, stored, self.types[source], output)
        return self.add("conv2d", source, output=output, constants=constants, stored=stored, **{**CONV, **attrs})

    def depthwise(self, source: str, multiplier: int, *, stored: Encoding, output: TensorType, **attrs: float) -> str:
        channels = self.types[source].hwc[2]
        shape = (3, 3, channels * multiplier)
        constants = self._filter(shape, shape[2], stored, self.types[source], output)
        return self.add("depthwise_conv2d", source, output=output, constants=constants, **{**CONV, "groups": channels, **attrs})

    def residual(
        self, source: str, channels: int, taps: tuple[int, int], other: str = "", *, stored: Encoding, output: TensorType,
        steps: Sequence[str] = (), signs: str = "", **attrs: float,
    ) -> str:  # fmt: skip
        """A `residual_conv2d` that adds `other`, with constants for the `steps` it is to have."""
        constants = self._filter((channels, *taps, self.types[source].hwc[2]), channels, stored, self.types[source], float_type())
        constants |= {role: self.vector(channels) for role in steps}
        inputs = (source, other) if other else (source,)
        return self.add(
            "residual_conv2d", *inputs, output=output, constants=constants, signs=signs, stored=stored,
            **{**CONV, "relu_after": 0, **attrs},
        )  # fmt: skip

    def dense(self, source: str, channels: int, *, stored: Encoding, output: TensorType, **attrs: float) -> str:
        constants = self._filter((channels, *self.types[source].hwc), channels, stored, self.types[source], output)
        return self.add("dense", source, output=output, constants=constants, stored=stored, **{**NO_ACTIVATION, **attrs})

    def _filter(
        self, shape: tuple[int, ...], channels: int, stored: Encoding, source: TensorType, output: TensorType
    ) -> dict[str, np.ndarray]:
        constants = {"filter": self.values(stored, shape)}
        if output.encoding is BITS:
            spread = 3 if source.encoding is BITS else 3000
            return constants | {"threshold": self.random.integers(-spread, spread, channels).astype(np.int32)}
        if stored not in FLOATS:
            constants["scale"] = self.random.uniform(0.001, 0.02, channels).astype(np.float32)
        return constants | {"bias": self.vector(channels)}

    def vector(self, channels: int) -> np.ndarray:
        return self.random.normal(size=channels).astype(np.float32)

    def values(self, encoding: Encoding, shape: tuple[int, ...]) -> np.ndarray:
        """Random values as `edge.graph` and `edge.kernels.reference` describe them."""
        if encoding in FLOATS:
            return self.random.normal(size=shape).astype(np.float16 if encoding is FLOAT16 else np.float32)
        if encoding is BITS:
            return self.random.integers(0, 2, shape).astype(np.bool_)
        half = 1 << encoding.bits - 1
        low, high, kind = (0, 256, np.uint8) if encoding is UINT8 else (-half, half, np.int8)
        return self.random.integers(low, high, shape).astype(kind)

    def graph(self, name: str, *outputs: str) -> Graph:
        return Graph(name, tuple(self.inputs), outputs, tuple(self.nodes), self.types).verify("building")


def inputs_of(program: Program, seed: int = 0) -> list[np.ndarray]:
    """Random values for the inputs of a program."""
    builder = Builder(seed)
    return [builder.values(program.tensors[i].type.encoding, program.tensors[i].type.shape) for i in program.inputs]


def float_type(scale: float = 1.0) -> TensorType:
    return TensorType((1,), FLOAT32, scale)


def int8_type(scale: float = 0.05, zero_point: int = 3) -> TensorType:
    return TensorType((1,), INT8, scale, zero_point)


def bits_type() -> TensorType:
    return TensorType((1,), BITS)


def digits_graph() -> Graph:
    """A picture in bytes, two packed convolutions and a packed dense layer between 8-bit ones, as the example network has them."""
    b = Builder(1)
    picture = b.input(TensorType((14, 14, 1), UINT8))
    x = b.conv(picture, 16, (3, 3), stored=INT8, output=bits_type(), **PADDING)
    x = b.conv(x, 32, (3, 3), stored=BITS, output=bits_type(), **PADDING)
    x = b.add("max_pool2d", x, constants={"flip": b.values(BITS, (32,))}, **POOL)
    x = b.conv(x, 40, (3, 3), stored=BITS, output=bits_type(), **PADDING, pad_ones=1)
    x = b.add("max_pool2d", x, **POOL)
    x = b.dense(x, 64, stored=BITS, output=bits_type())
    x = b.add("unpack", x, output=float_type())
    x = b.dense(x, 10, stored=INT8, output=float_type())
    return b.graph("digits", b.add("softmax", x))


def residual_graph() -> Graph:
    """Float activations around packed convolutions, with a residual, a concatenation and two outputs."""
    b = Builder(2)
    x = b.input(TensorType((12, 11, 3), FLOAT32))
    x = b.add("affine", x, constants={"mul": b.vector(3), "add": b.vector(3)}, **NO_ACTIVATION)
    x = b.conv(x, 24, (3, 3), stored=FLOAT32, output=float_type(), **{**NO_PADDING, "stride_h": 2, "pad_right": 1, **RELU, "limit": 6.0})
    packed = b.add("binarize", x, output=bits_type(), constants={"mul": b.vector(24), "add": b.vector(24)})
    y = b.conv(packed, 24, (3, 3), stored=BITS, output=float_type(), **PADDING)
    y = b.add("add", y, x, **{**NO_ACTIVATION, "activation": int(Activation.LEAKY_RELU), "alpha": 0.25})
    y = b.add("prelu", y, constants={"slope": b.vector(24)})
    z = b.depthwise(y, 2, stored=BITS, output=float_type(), **PADDING)
    z = b.conv(z, 16, (1, 2), stored=BITS, output=float_type(), groups=2, dilation_w=3, pad_left=3)
    joined = b.add("concat", b.add("average_pool2d", y, **POOL), b.add("average_pool2d", z, **POOL))
    flat = b.add("reshape", joined, rank=1, size_0=b.types[joined].elements, size_1=0, size_2=0)
    first = b.dense(flat, 9, stored=BITS, output=float_type())
    second = b.dense(flat, 3, stored=FLOAT32, output=float_type())
    second = b.add("activation", second, **{**NO_ACTIVATION, "activation": int(Activation.TANH)})
    return b.graph("residual", b.add("softmax", first), second)


def int8_graph() -> Graph:
    """Integers from end to end: quantize, convolutions of every kind, pools, an add, a concatenation."""
    b = Builder(3)
    x = b.add("quantize", b.input(TensorType((9, 9, 4), FLOAT32)), output=int8_type())
    y = b.conv(x, 8, (3, 3), stored=INT8, output=int8_type(), **PADDING, **{**RELU, "limit": 2.0})
    y = b.depthwise(y, 1, stored=INT8, output=int8_type(0.1, -5), **PADDING)
    z = b.conv(y, 8, (3, 3), stored=INT8, output=int8_type(0.1, 0), groups=2, dilation_h=2, **PADDING | {"pad_top": 2, "pad_bottom": 2})
    z = b.add("add", y, z, output=int8_type(0.2, 7), **NO_ACTIVATION)
    z = b.add("pad2d", z, **NO_PADDING | {"pad_top": 1, "pad_left": 2}, value=0.5)
    pooled = [b.add(op, z, **POOL) for op in ("max_pool2d", "average_pool2d")]
    x = b.add("dequantize", b.add("concat", *pooled), output=float_type())
    x = b.add("activation", x, **{**NO_ACTIVATION, "activation": int(Activation.ELU), "alpha": 0.5})
    x = b.add("quantize", x, output=int8_type())
    packed = b.conv(x, 5, (1, 1), stored=INT8, output=bits_type())
    halves = [b.conv(packed, channels, (2, 2), stored=BITS, output=bits_type()) for channels in (8, 3)]
    unpacked = b.add("unpack", b.add("concat", *halves), output=float_type())
    return b.graph("int8", b.dense(x, 6, stored=INT8, output=float_type()), unpacked)


def fused_graph() -> Graph:
    """Layers of signs on bytes, a residual block in one operation that gives its signs too, the scaling of XNOR-Net, gates, a PReLU."""
    b = Builder(4)
    x = b.conv(b.input(TensorType((9, 8, 3), UINT8)), 16, (3, 3), stored=BITS, output=int8_type(0.1, -3), **PADDING)
    y = b.conv(x, 16, (3, 3), stored=BITS, output=float_type(), **PADDING, **RELU)
    packed = b.add("binarize", y, output=bits_type())
    steps = ("slope", "mul", "add", "sign_mul", "sign_add")
    z = b.residual(packed, 16, (3, 3), y, stored=BITS, output=float_type(), steps=steps, signs="signs", **PADDING, relu_after=1)
    window = {**POOL, "window_h": 3, "window_w": 3, "stride_h": 1, "stride_w": 1, **PADDING}
    scaled = b.add("multiply", z, b.add("magnitude_map", z, **window))
    height, width, _ = b.types[z].hwc
    gate = b.add("average_pool2d", z, **{**POOL, "window_h": height, "window_w": width})
    scaled = b.add("prelu", b.add("multiply", scaled, gate), constants={"slope": b.vector(16)})
    heads = [
        b.conv("signs", 8, (2, 2), stored=BITS, output=int8_type(), pad_left=1, pad_ones=1),
        b.depthwise("signs", 1, stored=BITS, output=int8_type(0.2, 1), **PADDING),
        b.residual(scaled, 24, (1, 1), stored=FLOAT32, output=bits_type(), steps=("mul", "add", "sign_add"), **RELU),
    ]
    last = b.dense(heads[2], 7, stored=BITS, output=int8_type(1.0, 0))
    return b.graph("fused", b.dense(heads[0], 5, stored=BITS, output=float_type()), heads[1], last)


GRAPHS = {"digits": digits_graph, "residual": residual_graph, "int8": int8_graph, "fused": fused_graph}


def program(name: str) -> Program:
    return to_program(GRAPHS[name]())
