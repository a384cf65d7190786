"""Synthetic instructions to fit the costs of kernels by: every kind on shapes of its own, none of which is taken from a network.

Shapes are chosen so that what tiles waste (rows no multiple of a tile, channels narrower than a block) differs among them, while few
kernels have to be compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge.graph import Graph, Node, constant_type, narrowed
from edge.lower import to_program
from edge.op_check import infer
from edge.ops import NO_ACTIVATION, OPS, Activation, OpCall, OpError
from edge.program import Program
from edge.targets.costs import kind_of
from edge.tensors import FLOATS, NARROW, Encoding, TensorType

BITS, F32, I8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8

_PADS = {"pad_top": 0, "pad_bottom": 0, "pad_left": 0, "pad_right": 0}
_WINDOW = {"stride_h": 1, "stride_w": 1, **_PADS}
_CONV = {**_WINDOW, "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, **NO_ACTIVATION}

# Attributes of operations; those that follow from the shape are set later.
_KNOWN: Mapping[str, int | float] = {
    **_CONV, "window_h": 1, "window_w": 1, "value": 0.0, "relu_after": 0, "rank": 1, "size_0": 1, "size_1": 1, "size_2": 1, "start_h": 0,
    "start_w": 0, "start_c": 0, "size_h": 1, "size_w": 1, "size_c": 1, "step_h": 1, "step_w": 1, "axis_0": 1, "axis_1": 0, "axis_2": 2,
    "block_h": 2, "block_w": 2,
}  # fmt: skip

# (height, width, channels in, channels out, taps); widths of 7, 14 and 28 take the same tiles on most machines
CONV_SHAPES = (
    (14, 14, 64, 64, 3), (7, 14, 128, 64, 1), (12, 28, 64, 32, 1), (7, 7, 64, 64, 3), (7, 7, 256, 96, 1), (2, 14, 128, 32, 3),
    (14, 14, 32, 32, 1), (28, 28, 16, 32, 3), (14, 14, 3, 32, 3), (10, 14, 32, 64, 3),
    (4, 4, 64, 64, 3), (4, 4, 256, 32, 1), (2, 4, 128, 64, 3),
    (20, 28, 64, 16, 1), (14, 14, 64, 16, 3), (7, 7, 192, 16, 1),
    (14, 14, 64, 40, 3), (7, 14, 128, 40, 1), (4, 28, 64, 72, 1),
    (6, 24, 32, 64, 3), (4, 24, 64, 32, 1), (8, 16, 64, 32, 3), (4, 16, 128, 32, 1), (20, 1, 64, 64, 3), (8, 1, 128, 32, 1),
    (30, 1, 64, 64, 1), (12, 1, 256, 32, 1), (10, 1, 32, 128, 3), (4, 24, 16, 64, 3),
)  # fmt: skip
_RESIDUAL_SHAPES = CONV_SHAPES[:6:2]  # of residual convolutions whose kind plain ones have too
DENSE_SHAPES = ((1024, 32), (256, 64), (64, 64), (128, 128), (784, 64), (512, 10), (64, 10), (128, 12), (2048, 32), (256, 16))
DEPTHWISE_SHAPES = (
    (14, 14, 64, 3), (28, 28, 16, 3), (14, 28, 32, 3), (7, 7, 128, 3), (14, 14, 32, 3), (28, 28, 64, 3), (4, 4, 96, 3), (4, 4, 256, 3),
    (2, 14, 64, 3), (14, 14, 128, 3),
)  # fmt: skip
IMAGE_SHAPES = (
    (14, 14, 64), (28, 28, 16), (7, 7, 160), (5, 5, 24), (2, 2, 104), (28, 28, 3), (10, 10, 40), (8, 8, 256), (1, 1, 10), (1, 1, 1000),
    (16, 16, 8), (1, 1, 64), (24, 24, 32),
)  # fmt: skip
# (height, width, channels, taps, stride); windows of the whole image are those of global pools
POOL_SHAPES = (
    (14, 14, 64, 2, 2), (28, 28, 64, 2, 2), (8, 8, 256, 2, 2), (28, 28, 16, 2, 2), (14, 14, 16, 2, 2), (6, 6, 64, 2, 2),
    (15, 15, 64, 3, 2), (9, 9, 256, 3, 2), (29, 29, 16, 3, 2), (13, 13, 16, 3, 1),
    (7, 7, 64, 7, 7), (4, 4, 256, 4, 4), (8, 8, 16, 8, 8), (14, 14, 64, 14, 14),
)  # fmt: skip
HALO_SHAPES = ((14, 14, 64), (28, 28, 16), (7, 7, 256), (5, 5, 24), (56, 56, 8), (3, 40, 32))


@dataclass(frozen=True)
class Case:
    """One operation on one shape; `after`: an activation, and what residual_conv2d has after it, are there."""

    op: str
    input: TensorType
    output: Encoding
    stored: Encoding | None = None
    channels: int = 0
    taps: int = 1
    after: bool = False
    stride: int = 1

    @property
    def kind(self) -> str:
        program = self.program()
        return kind_of(program, program.instructions[0])

    def program(self) -> Program:
        """A program of this one instruction; its second input, where it has one, is a tensor that nothing writes."""
        node, output = self.node("x", "out")
        types = dict(zip(node.inputs, (self.input, *self._second().values()), strict=True))
        every = {**types, "out": output, **({node.signs: TensorType(output.shape, BITS)} if node.signs else {})}
        made = to_program(Graph("case", node.inputs, ("out",), (node,), every).verify())
        return replace(made, inputs=made.inputs[:1])

    def node(self, source: str, target: str) -> tuple[Node, TensorType]:
        """The operation on the tensor `source`, and what `target` is then."""
        constants, attrs, second = self._constants(), self._attrs(), self._second()
        kinds = {role: constant_type(a) for role, a in constants.items()}
        if self._filter_bits:
            kinds["filter"] = narrowed(kinds["filter"], self._filter_bits)
        call = OpCall((self.input, *second.values()), kinds, attrs)
        zero_point = self.input.zero_point if self.output is I8 else 0
        output = TensorType(infer(OPS[self.op], call), self.output, self.input.scale, zero_point)
        signs = "signs" if self._gives_signs() else ""
        return Node(self.op, (source, *second), target, attrs, constants, ("layer",), signs, self._filter_bits), output

    @property
    def _filter_bits(self) -> int:
        """Of a filter that is stored in fewer bits than graphs hold it in, else 0."""
        return self.stored.bits if self.stored in NARROW else 0

    def _gives_signs(self) -> bool:
        return self.op == "residual_conv2d" and self.output is F32

    def _second(self) -> dict[str, TensorType]:
        if self.op in ("add", "concat"):
            return {"y": self.input}
        if self.op == "multiply":
            return {"y": TensorType((*self.input.shape[:-1], 1), F32)}
        if self.op == "residual_conv2d" and self.after:
            height, width, _ = self.input.hwc
            return {"other": TensorType((height, width, self.channels), F32)}  # windows are padded: the image keeps its size
        return {}

    def _constants(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0)
        if self.stored is None:
            return self._rows()
        height, width, depth = self.input.hwc
        shapes = {"dense": (self.channels, height, width, depth), "depthwise_conv2d": (self.taps, self.taps, depth)}
        largest = 1 << self.stored.bits - 1 if self.stored in NARROW else 9
        filters = random.integers(-largest, largest, shapes.get(self.op, (self.channels, self.taps, self.taps, depth)))
        dtype = {BITS: np.bool_, F32: np.float32, Encoding.FLOAT16: np.float16}.get(self.stored, np.int8)
        constants: dict[str, np.ndarray] = {"filter": (filters < 0 if self.stored is BITS else filters).astype(dtype)}
        channels = self.channels or depth
        if self.output is BITS and self.op != "residual_conv2d":
            return constants | {"threshold": np.zeros(channels, np.int32)}
        scale = {} if self.stored in FLOATS else {"scale": np.ones(channels, np.float32)}
        norm = dict.fromkeys(("mul", "add"), np.ones(channels, np.float32)) if self.op == "residual_conv2d" and self.after else {}
        return constants | scale | norm | {"bias": np.ones(channels, np.float32)}

    def _rows(self) -> dict[str, np.ndarray]:
        """Constants per channel of operations without a filter."""
        depth = self.input.hwc[2]
        roles = ("slope",) if self.op == "prelu" else ("mul", "add") if self.after and "mul" in OPS[self.op].constants else ()
        return {role: np.full(depth, 0.25, np.float32) for role in roles}

    def _attrs(self) -> dict[str, int | float]:
        height, width, channels = self.input.hwc
        known: dict[str, int | float] = {**_KNOWN, "window_h": self.taps, "window_w": self.taps, "size_0": self.input.elements}
        known |= {"size_h": height, "size_w": width, "size_c": channels}
        if self.after:
            known["activation"] = int(Activation.TANH if self.op == "activation" else Activation.RELU)
            known["limit"] = 6.0
        if self.op == "depthwise_conv2d":
            known["groups"] = channels
        known |= {"stride_h": self.stride, "stride_w": self.stride}
        if self.op in ("conv2d", "residual_conv2d", "depthwise_conv2d", "pad2d", "magnitude_map"):
            known |= dict.fromkeys(_PADS, self.taps // 2)
        return {name: known[name] for name in OPS[self.op].attrs}


def cases() -> Iterator[Case]:
    """Every kind of kernel (`edge.targets.costs.kind_of`) on several shapes; of operations whose attributes are known here."""
    for op in ("conv2d", "residual_conv2d", "dense", "depthwise_conv2d"):
        for source, stored, output in sorted(OPS[op].signatures, key=str):
            yield from _filtered(op, source, stored or F32, output)
    for op, definition in OPS.items():
        if "filter" not in definition.constants and set(definition.attrs) <= set(_KNOWN):
            for source, _, output in sorted(definition.signatures, key=str):
                yield from filter(_fits, _plain(op, source, output))


def _filtered(op: str, source: Encoding, stored: Encoding, output: Encoding) -> Iterator[Case]:
    if op == "dense":
        for depth, channels in DENSE_SHAPES:
            yield Case(op, _kind((depth,), source), output, stored, channels)
    elif op == "depthwise_conv2d":
        for number, (height, width, depth, taps) in enumerate(DEPTHWISE_SHAPES):
            stride = 2 if number in (4, 5, 9) else 1
            after = output is F32 and number in (2, 3)
            yield Case(op, _kind((height, width, depth), source), output, stored, taps=taps, stride=stride, after=after)
    else:
        is_plain = (source, stored, output) in OPS["conv2d"].signatures
        shapes = CONV_SHAPES if op == "conv2d" else _RESIDUAL_SHAPES if is_plain else CONV_SHAPES[::2]
        for height, width, depth, channels, taps in shapes:
            yield Case(op, _kind((height, width, depth), source), output, stored, channels, taps, after=op == "residual_conv2d")


def _plain(op: str, source: Encoding, output: Encoding) -> Iterator[Case]:
    if op.endswith("pool2d"):
        for height, width, depth, taps, stride in POOL_SHAPES:
            yield Case(op, _kind((height, width, depth), source), output, taps=taps, stride=stride)
        return
    taps = 3 if op == "magnitude_map" else 1
    for number, shape in enumerate(IMAGE_SHAPES):
        yield Case(op, _kind(shape, source), output, taps=min(taps, *shape[:2]), stride=1 + number % min(taps, 2), after=number % 3 == 0)


def _fits(case: Case) -> bool:
    """Whether the operation takes the shape: packed channels, say, are joined on whole bytes alone."""
    try:
        case.node("x", "out")
    except OpError:
        return False
    return True


def _kind(shape: tuple[int, ...], encoding: Encoding) -> TensorType:
    return TensorType(shape, encoding, 0.1 if encoding is I8 else 1.0)
