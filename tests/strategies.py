"""Random applications of every operation: graphs of one node with values for its inputs, halos around its tensors, and where they lie.

`CASES` has a generator for every operation. A generator is given a random source and a signature (input, filter and output encoding) and
draws everything else; sizes lie on the edges of words and vectors. `case` makes one from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from sample_programs import Builder

from edge.arena import round_up
from edge.graph import Graph, Node
from edge.lower import to_program
from edge.ops import OPS, Activation
from edge.program import Program, Tensor
from edge.tensors import Encoding, Halo, TensorType

BITS, FLOAT32, INT8, UINT8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8
Signature = tuple[Encoding, Encoding | None, Encoding]

CHANNELS = (1, 3, 7, 8, 9, 10, 16, 17, 24, 31, 32, 33, 63, 64, 65, 70, 128, 130)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 0.5, 1.5, -2.5], np.float32)


@dataclass(frozen=True)
class Case:
    """One application: a graph of one node, the values of its inputs, halos beyond those it needs, and whether it runs in place."""

    graph: Graph
    inputs: tuple[np.ndarray, ...]
    halos: Mapping[str, Halo]
    in_place: bool = False

    @property
    def node(self) -> Node:
        return self.graph.nodes[0]

    @property
    def output(self) -> TensorType:
        return self.graph.types[self.node.output]

    def __str__(self) -> str:
        halos = {name: halo for name, halo in self.halos.items() if halo}
        return f"{self.graph.text()}\n{halos or 'no halos'}{', in place' if self.in_place else ''}"


class Draw:
    """A random source with the draws that generators need."""

    def __init__(self, seed: int) -> None:
        self.builder = Builder(seed)
        self.random = self.builder.random

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.random.integers(low, high + 1))

    def one_of(self, *values: int) -> int:
        return int(self.random.choice(values))

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def channels(self) -> int:
        return self.one_of(*CHANNELS)

    def shape(self) -> tuple[int, ...]:
        """A shape of one to three axes, mostly an image."""
        shape = (self.integer(1, 9), self.integer(1, 9), self.channels())
        return shape[self.one_of(0, 0, 0, 0, 1, 2) :]

    def kind(self, shape: tuple[int, ...], encoding: Encoding) -> TensorType:
        """A tensor with random quantization; a picture mostly has none."""
        if encoding is UINT8 and self.chance(0.7):
            return TensorType(shape, encoding)
        low, high = {INT8: (-128, 127), UINT8: (0, 255)}.get(encoding, (0, 0))
        scale = float(np.float32(self.random.uniform(0.01, 0.2))) if encoding in (INT8, UINT8) else 1.0
        return TensorType(shape, encoding, scale, self.integer(low, high))

    def values(self, kind: TensorType, *, special: bool = False) -> np.ndarray:
        """Values of a tensor; `special`: some are not numbers, infinite, zeros of both signs, very small or very large."""
        values = self.builder.values(kind.encoding, kind.shape)
        if special and kind.encoding is FLOAT32 and self.chance(0.3):
            where = self.random.random(kind.shape) < 0.2
            values = np.where(where, self.random.choice(SPECIAL, kind.shape), values)
        return values

    def halo(self) -> Halo:
        if self.chance(0.5):
            return Halo()
        return Halo(*(self.integer(0, 2) for _ in range(4)))

    def activation(self, *functions: Activation) -> dict[str, float]:
        number = self.one_of(*functions)
        limit = self.one_of(1, 6) if self.chance(0.5) else np.inf
        alpha = float(np.float32(self.random.uniform(-0.5, 1.0)))
        return {"activation": number, "alpha": alpha, "limit": float(limit) if number == Activation.RELU else np.inf}

    def finish(
        self, op: str, kinds: list[TensorType], output: TensorType, constants: Mapping[str, np.ndarray], attrs: Mapping[str, float],
        *, special: bool = True, image_halos: bool = True, signs: str = "",
    ) -> Case:  # fmt: skip
        """The case of an operation; the output's shape is inferred."""
        names = [self.builder.input(kind) for kind in kinds]
        result = self.builder.add(op, *names, output=output, constants=constants, signs=signs, **attrs)
        graph = self.builder.graph(op, result, *([signs] if signs else []))
        source = OPS[op].in_place
        same_bytes = 0 <= source < len(kinds) and kinds[source].nbytes == graph.types[result].nbytes
        in_place = same_bytes and self.chance(0.4)
        halos = {name: self.halo() for name in graph.types}
        if in_place:
            halos |= {names[source]: Halo(), result: Halo()}
        if not image_halos:
            halos |= {names[0]: Halo(), result: Halo()}
        return Case(graph, tuple(self.values(kind, special=special) for kind in kinds), halos, in_place)


FUSED = (Activation.NONE, Activation.RELU, Activation.LEAKY_RELU)


# -- convolutions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fixed:
    """What a kernel's code is specialised for; cases that share it share the compiled code."""

    channels_out: int
    width_out: int
    activation: Activation
    steps: tuple[bool, ...]  # of residual_conv2d: PReLU, scaling, second input, ReLU after, signs, their scaling


def fixed(draw: Draw, signature: Signature) -> Fixed:
    activation = Activation.NONE if signature[2] is BITS else Activation(draw.one_of(*FUSED))
    return Fixed(draw.channels(), draw.integer(1, 9), activation, tuple(draw.chance(0.6) for _ in range(6)))


@dataclass(frozen=True)
class Axis:
    """The geometry of a window along one axis."""

    size: int
    stride: int
    dilation: int
    before: int
    after: int


def _axis(draw: Draw, outputs: int, taps: int, *, dilation: int = 1) -> Axis:
    """An axis with so many outputs; the image may be smaller than the filter, and the last columns unused."""
    stride = draw.integer(1, 3)
    window = (taps - 1) * dilation + 1
    before, after = draw.integer(0, window - 1), draw.integer(0, window - 1)
    size = (outputs - 1) * stride + window - before - after + draw.integer(0, stride - 1)
    while size < 1:
        before, after = (before, after - 1) if after else (before - 1, after)
        size += 1
    return Axis(size, stride, dilation, before, after)


def _window_attrs(rows: Axis, columns: Axis) -> dict[str, float]:
    return {
        "stride_h": rows.stride, "stride_w": columns.stride,
        "pad_top": rows.before, "pad_bottom": rows.after, "pad_left": columns.before, "pad_right": columns.after,
    }  # fmt: skip


def _filter_constants(draw: Draw, shape: tuple[int, ...], channels: int, signature: Signature) -> dict[str, np.ndarray]:
    source, stored, output = signature
    assert stored is not None
    constants = {"filter": draw.builder.values(stored, shape)}
    terms = int(np.prod(shape)) // channels
    if output is BITS:
        spread = 1 + int(2 * np.sqrt(terms) * (1 if source is BITS else 9000))
        return constants | {"threshold": draw.random.integers(-spread, spread, channels).astype(np.int32)}
    if stored is not FLOAT32:
        size = {BITS: 1.0, FLOAT32: 1.0}.get(source, 75.0) * (75.0 if stored is INT8 else 1.0) * np.sqrt(terms)
        constants["scale"] = (draw.random.normal(size=channels) * 3 / size).astype(np.float32)
    if draw.chance(0.8):
        constants["bias"] = draw.builder.vector(channels)
    return constants


def conv2d(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    given = given or fixed(draw, signature)
    taps = draw.integer(1, 4), draw.integer(1, 4)
    rows = _axis(draw, draw.integer(1, 5), taps[0], dilation=draw.one_of(1, 1, 2))
    columns = _axis(draw, given.width_out, taps[1], dilation=draw.one_of(1, 1, 2))
    groups = 2 if given.channels_out % 16 == 0 and draw.chance(0.3) else 1
    depth = draw.one_of(8, 16, 32, 64) if groups > 1 else draw.channels()
    constants = _filter_constants(draw, (given.channels_out, *taps, depth), given.channels_out, signature)
    kind = draw.kind((rows.size, columns.size, depth * groups), signature[0])
    pad_ones = draw.integer(0, 1) if signature[0] is BITS else 0
    return draw.finish(
        "conv2d", [kind], draw.kind((1,), signature[2]), constants,
        {
            **_window_attrs(rows, columns), "dilation_h": rows.dilation, "dilation_w": columns.dilation,
            "groups": groups, "pad_ones": pad_ones, **draw.activation(given.activation),
        },
        special=False,
    )  # fmt: skip


def residual_conv2d(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    """A conv2d with a float32 output, and the steps after it. Where signs alone are stored all numbers are whole: none is rounded."""
    given = given or fixed(draw, signature)
    sloped, scaled, added, relu, packed, signs_scaled = given.steps
    plain = conv2d(draw, (signature[0], signature[1], FLOAT32), given)
    node, kind = plain.node, plain.output
    packed = packed and (node.attrs["groups"] == 1 or given.channels_out % 16 == 0)
    whole = signature[2] is BITS and signature[0] is FLOAT32
    constants = {role: np.rint(2 * array) if whole and array.dtype == np.float32 else array for role, array in node.constants.items()}

    def row(present: bool, *roles: str) -> dict[str, np.ndarray]:
        rows = {role: draw.builder.vector(given.channels_out) for role in roles if present}
        return {role: np.rint(array) if whole else array for role, array in rows.items()}

    constants |= row(sloped, "slope") | row(scaled, "mul", "add")
    constants |= row(signs_scaled and (packed or signature[2] is BITS), "sign_mul", "sign_add")
    attrs = {**node.attrs, "relu_after": int(relu)} | ({"activation": int(Activation.NONE)} if sloped or whole else {})
    kinds = [plain.graph.types[node.inputs[0]], *([kind] if added else [])]
    draw.builder = Builder(draw.integer(0, 1 << 30))
    made = draw.finish(
        "residual_conv2d", kinds, draw.kind((1,), signature[2]), constants, attrs,
        special=False, signs="signs" if packed and signature[2] is FLOAT32 else "",
    )  # fmt: skip
    return replace(made, inputs=tuple(np.rint(x) for x in made.inputs)) if whole else made


def depthwise_conv2d(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    given = given or fixed(draw, signature)
    taps = draw.integer(1, 4), draw.integer(1, 4)
    rows = _axis(draw, draw.integer(1, 5), taps[0], dilation=draw.one_of(1, 1, 2))
    columns = _axis(draw, given.width_out, taps[1], dilation=draw.one_of(1, 1, 2))
    multiplier = draw.one_of(1, 1, *(m for m in (2, 3, 5, 32) if given.channels_out % m == 0))
    channels = given.channels_out // multiplier
    constants = _filter_constants(draw, (*taps, given.channels_out), given.channels_out, signature)
    return draw.finish(
        "depthwise_conv2d", [draw.kind((rows.size, columns.size, channels), signature[0])], draw.kind((1,), signature[2]), constants,
        {
            **_window_attrs(rows, columns), "dilation_h": rows.dilation, "dilation_w": columns.dilation,
            "groups": channels, "pad_ones": draw.integer(0, 1) if signature[0] is BITS else 0, **draw.activation(given.activation),
        },
        special=False,
    )  # fmt: skip


def dense(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    given = given or fixed(draw, signature)
    kind = draw.kind(draw.shape(), signature[0])
    constants = _filter_constants(draw, (given.channels_out, *kind.hwc), given.channels_out, signature)
    output = draw.kind((1,), signature[2])
    return draw.finish("dense", [kind], output, constants, draw.activation(given.activation), special=False, image_halos=False)


# -- pools ---------------------------------------------------------------------------------------------------------------------


def _pool_window(draw: Draw) -> tuple[tuple[int, int], Axis, Axis]:
    """A window and its axes, some of them the whole image, some 2 x 2 without padding."""
    window = draw.integer(1, 4), draw.integer(1, 4)
    rows, columns = (_axis(draw, draw.integer(1, 5), size) for size in window)
    if draw.chance(0.2):  # a global pool
        window = rows.size, columns.size
        rows, columns = (replace(axis, before=0, after=0) for axis in (rows, columns))
    elif draw.chance(0.4):
        window = 2, 2
        rows, columns = (replace(axis, size=axis.size + 1, before=0, after=0) for axis in (rows, columns))
    return window, rows, columns


def _pool(op: str) -> Callable[[Draw, Signature], Case]:
    def generate(draw: Draw, signature: Signature) -> Case:
        encoding = signature[0]
        window, rows, columns = _pool_window(draw)
        kind = draw.kind((rows.size, columns.size, draw.channels()), encoding)
        flip = {"flip": draw.builder.values(BITS, kind.shape[-1:])} if encoding is BITS and draw.chance(0.6) else {}
        attrs = {"window_h": window[0], "window_w": window[1], **_window_attrs(rows, columns)}
        return draw.finish(op, [kind], kind, flip, attrs)

    return generate


def magnitude_map(draw: Draw, signature: Signature) -> Case:
    """As other pools; some images are wider than a vector of pixels."""
    window, rows, columns = _pool_window(draw)
    if draw.chance(0.4):
        columns = replace(columns, size=columns.size + draw.one_of(11, 16, 40))
    kind = draw.kind((rows.size, columns.size, draw.channels()), FLOAT32)
    attrs = {"window_h": window[0], "window_w": window[1], **_window_attrs(rows, columns)}
    return draw.finish("magnitude_map", [kind], kind, {}, attrs)


# -- the rest ------------------------------------------------------------------------------------------------------------------


def _channelwise_constants(draw: Draw, channels: int) -> dict[str, np.ndarray]:
    return {role: draw.builder.vector(channels) for role in ("mul", "add") if draw.chance(0.6)}


def affine(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), signature[0])
    constants = _channelwise_constants(draw, kind.shape[-1])
    return draw.finish("affine", [kind], draw.kind((1,), FLOAT32), constants, draw.activation(*FUSED))


def activation(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("activation", [kind], kind, {}, draw.activation(*Activation))


def prelu(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("prelu", [kind], kind, {"slope": draw.builder.vector(kind.shape[-1])}, {})


def softmax(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("softmax", [kind], kind, {}, {})


def binarize(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("binarize", [kind], draw.kind((1,), BITS), _channelwise_constants(draw, kind.shape[-1]), {})


def _conversion(op: str) -> Callable[[Draw, Signature], Case]:
    def generate(draw: Draw, signature: Signature) -> Case:
        return draw.finish(op, [draw.kind(draw.shape(), signature[0])], draw.kind((1,), signature[2]), {}, {})

    return generate


def add(draw: Draw, signature: Signature) -> Case:
    shape, encoding = draw.shape(), signature[0]
    kinds = [draw.kind(shape, encoding) for _ in range(2)]
    return draw.finish("add", kinds, draw.kind((1,), encoding), {}, draw.activation(*FUSED))


def multiply(draw: Draw, signature: Signature) -> Case:
    """The second factor has 1 along some axes, and a leading one of them may be left out."""
    kind = draw.kind(draw.shape(), FLOAT32)
    shape = tuple(1 if draw.chance(0.4) else size for size in kind.shape)
    if len(shape) > 1 and shape[0] == 1 and draw.chance(0.5):
        shape = shape[1:]
    return draw.finish("multiply", [kind, draw.kind(shape, FLOAT32)], kind, {}, {})


def concat(draw: Draw, signature: Signature) -> Case:
    *leading, channels = draw.shape()
    kind = draw.kind((*leading, channels), signature[0])
    widths = [draw.one_of(8, 16, 24, 64, 72) if kind.encoding is BITS else draw.channels() for _ in range(draw.integer(0, 3))]
    kinds = [replace(kind, shape=(*leading, width)) for width in [*widths, channels]]
    return draw.finish("concat", kinds, kind, {}, {})


def reshape(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), signature[0])
    elements = kind.elements
    first = draw.one_of(*(n for n in range(1, 1 + elements) if elements % n == 0))
    second = draw.one_of(*(n for n in range(1, 1 + elements // first) if elements // first % n == 0))
    sizes = ((elements,), (first, elements // first), (first, second, elements // first // second))[draw.integer(0, 2)]
    padded = (*sizes, 0, 0)
    return draw.finish("reshape", [kind], kind, {}, {"rank": len(sizes), "size_0": padded[0], "size_1": padded[1], "size_2": padded[2]})


def pad2d(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), signature[0])
    attrs = {name: draw.integer(0, 3) for name in ("pad_top", "pad_bottom", "pad_left", "pad_right")}
    value = 0.0 if draw.chance(0.4) else float(np.float32(draw.random.normal()))
    return draw.finish("pad2d", [kind], kind, {}, {**attrs, "value": value})


CASES: Mapping[str, Callable[..., Case]] = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "dense": dense,
    "max_pool2d": _pool("max_pool2d"),
    "average_pool2d": _pool("average_pool2d"),
    "affine": affine,
    "activation": activation,
    "softmax": softmax,
    "binarize": binarize,
    "unpack": _conversion("unpack"),
    "quantize": _conversion("quantize"),
    "dequantize": _conversion("dequantize"),
    "add": add,
    "concat": concat,
    "reshape": reshape,
    "pad2d": pad2d,
    "residual_conv2d": residual_conv2d,
    "prelu": prelu,
    "magnitude_map": magnitude_map,
    "multiply": multiply,
}
SPECIALISED = ("conv2d", "depthwise_conv2d", "dense", "residual_conv2d")  # whose generators take a `Fixed`


def signatures(op: str) -> list[Signature]:
    """All signatures of an operation, in an order that does not change."""
    return sorted(OPS[op].signatures, key=lambda s: tuple(0 if e is None else int(e) for e in s))


def case(op: str, signature: Signature, seed: int, given: Fixed | None = None) -> Case:
    """The case of a seed."""
    draw = Draw(seed)
    return CASES[op](draw, signature, given) if op in SPECIALISED else CASES[op](draw, signature)


def program_of(given: Case) -> Program:
    """The program of a case: tensors with the halos of the case, one after the other, or the output on an input."""
    program = to_program(given.graph)
    names = [*given.graph.inputs, *given.node.outputs]
    tensors: list[Tensor] = []
    end = 0
    for name, tensor in zip(names, program.tensors, strict=True):
        kind = replace(tensor.type, halo=tensor.type.halo.union(given.halos[name]))
        if name == given.node.output and given.in_place:
            tensors.append(Tensor(kind, tensors[given.node.definition.in_place].offset))
        else:
            tensors.append(Tensor(kind, end))
            end = round_up(end + kind.nbytes)
    return replace(program, tensors=tuple(tensors), arena_bytes=end)
