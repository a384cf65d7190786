"""Random programs that the verifier accepts: any operations, sizes on the edges of words and vectors, windows larger than images, strides
beyond them, halos wider than needed, and gaps between tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from sample_programs import BITS, FLOAT32, INT8, UINT8, Builder, bits_type, float_type, int8_type

from edge.arena import round_up
from edge.lower import to_program
from edge.ops import NO_ACTIVATION, Activation, OpError
from edge.program import Program, Tensor
from edge.tensors import Encoding, Halo, TensorType

CHANNELS = (1, 2, 3, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 96, 130)
SIDES = (1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 21)
TAPS = (1, 1, 2, 3, 3, 5, 7)
MOST_ELEMENTS = 1 << 15  # of a tensor, for the reference's sake

Step = Callable[["_Maker", str], str]


class _Maker:
    """Draws the operands of steps."""

    def __init__(self, seed: int) -> None:
        self.build = Builder(seed)
        self.random = self.build.random

    def one(self, values: Sequence[int]) -> int:
        return int(self.random.choice(values))

    def kind(self, name: str) -> TensorType:
        return self.build.types[name]

    def int8(self) -> TensorType:
        return int8_type(float(self.random.choice([0.03, 0.5, 10.0])), self.one((-128, -1, 0, 3, 127)))

    def pads(self, values: Sequence[int] = (0, 0, 1, 2, 4)) -> dict[str, int]:
        return {f"pad_{side}": self.one(values) for side in ("top", "bottom", "left", "right")}

    def fused(self) -> dict[str, float]:
        activation = self.one((Activation.NONE, Activation.RELU, Activation.LEAKY_RELU))
        return {
            "activation": activation,
            "alpha": float(self.random.choice([0.25, -1.5])),
            "limit": float(self.random.choice([6.0, np.inf])),
        }

    def output(self, name: str) -> TensorType:
        """The type of a convolution's output, as far as the input allows it."""
        allowed = [float_type()] if self.kind(name).encoding is FLOAT32 else [float_type(), bits_type(), self.int8()]
        return allowed[self.one(range(len(allowed)))]

    def groups_fit(self, name: str, groups: int) -> bool:
        """Whether channels fall into `groups`; packed ones must fill the bytes of their words."""
        depth, rest = divmod(self.kind(name).hwc[2], groups)
        return rest == 0 and (groups == 1 or self.kind(name).encoding is not BITS or depth in (8, 16, 32) or depth % 64 == 0)

    def stored(self, name: str) -> Encoding:
        """The encoding of a filter for this input."""
        choices = {FLOAT32: (FLOAT32, INT8, BITS), BITS: (BITS,)}
        return Encoding(self.one(choices.get(self.kind(name).encoding, (INT8, BITS))))


# -- steps: each adds one operation to a tensor, or raises OpError where it does not fit --------------------------------------


def _conv2d(m: _Maker, x: str) -> str:
    groups, output = m.one([g for g in (1, 1, 1, 2, 3, 4) if m.groups_fit(x, g)]), m.output(x)
    steps = {name: m.one((1, 1, 2, 3)) for name in ("stride_h", "stride_w", "dilation_h", "dilation_w")}
    more = {"groups": groups, "pad_ones": m.one((0, 1)) if m.kind(x).encoding is BITS else 0}
    attrs = {**steps, **m.pads(), **more, **(NO_ACTIVATION if output.encoding is BITS else m.fused())}
    taps = m.one(TAPS), m.one(TAPS)
    channels = m.one(CHANNELS if groups == 1 or output.encoding is not BITS else (8, 16, 24, 64)) * groups
    return m.build.conv(x, channels, taps, stored=m.stored(x), output=output, **attrs)


def _depthwise(m: _Maker, x: str) -> str:
    output = m.output(x)
    packed = m.kind(x).encoding is BITS
    if output.encoding is BITS and not packed:
        raise OpError("no depthwise convolution packs numbers")
    steps = {name: m.one((1, 1, 2, 3)) for name in ("stride_h", "stride_w", "dilation_h", "dilation_w")}
    more = {"pad_ones": m.one((0, 1)) if packed else 0, **(NO_ACTIVATION if output.encoding is BITS else m.fused())}
    stored = INT8 if m.kind(x).encoding in (INT8, UINT8) else m.stored(x)
    return m.build.depthwise(x, m.one((1, 1, 2, 3)), stored=stored, output=output, **steps, **m.pads(), **more)


def _residual(m: _Maker, x: str) -> str:
    """A residual_conv2d with some of its steps; without strides it may add another convolution of the same window."""
    output, taps, channels = m.one((FLOAT32, BITS)), (m.one(TAPS), m.one(TAPS)), m.one(CHANNELS)
    pads = m.pads()
    steps = [role for role in ("slope", "mul", "add", "sign_mul", "sign_add") if m.one((0, 1))]
    packs = output == FLOAT32 and m.one((0, 1))
    if output == FLOAT32 and not packs:
        steps = [role for role in steps if not role.startswith("sign")]
    other = m.build.conv(x, channels, taps, stored=m.stored(x), output=float_type(), **pads) if m.one((0, 1)) else ""
    fused = NO_ACTIVATION if "slope" in steps else m.fused()
    return m.build.residual(
        x, channels, taps, other, stored=m.stored(x), output=float_type() if output == FLOAT32 else bits_type(), steps=steps,
        signs=f"signs{len(m.build.nodes)}" if packs else "", **{**pads, **fused, "relu_after": m.one((0, 1))},
    )  # fmt: skip


def _dense(m: _Maker, x: str) -> str:
    output = m.output(x)
    return m.build.dense(x, m.one(CHANNELS), stored=m.stored(x), output=output, **(NO_ACTIVATION if output.encoding is BITS else m.fused()))


def _pool(op: str) -> Step:
    def step(m: _Maker, x: str) -> str:
        channels = m.kind(x).hwc[2]
        flip = {"flip": m.build.values(BITS, (channels,))} if op == "max_pool2d" and m.kind(x).encoding is BITS and m.one((0, 1)) else None
        sizes = {name: m.one((1, 2, 2, 3, 5)) for name in ("window_h", "window_w", "stride_h", "stride_w")}
        return m.build.add(op, x, constants=flip, **sizes, **m.pads((0, 0, 1)))

    return step


def _affine(m: _Maker, x: str) -> str:
    channels = m.kind(x).shape[-1]
    constants = {role: m.build.vector(channels) for role in ("mul", "add") if m.one((0, 1, 1))}
    return m.build.add("affine", x, output=float_type(), constants=constants, **m.fused())


def _activation(m: _Maker, x: str) -> str:
    return m.build.add("activation", x, **{**m.fused(), "activation": m.one(tuple(Activation))})


def _binarize(m: _Maker, x: str) -> str:
    channels = m.kind(x).shape[-1]
    constants = {role: m.build.vector(channels) for role in ("mul", "add") if m.one((0, 1, 1))}
    return m.build.add("binarize", x, output=bits_type(), constants=constants)


def _simple(op: str, output: Callable[[_Maker], TensorType] | None = None) -> Step:
    return lambda m, x: m.build.add(op, x, output=output(m) if output else None)


def _add(m: _Maker, x: str) -> str:
    other = _pool("max_pool2d")(m, x) if m.one((0, 1)) else x
    other = x if m.kind(other).shape != m.kind(x).shape else other
    return m.build.add("add", x, other, output=m.int8() if m.kind(x).encoding is INT8 else None, **m.fused())


def _prelu(m: _Maker, x: str) -> str:
    return m.build.add("prelu", x, constants={"slope": m.build.vector(m.kind(x).shape[-1])})


def _gate(m: _Maker, x: str) -> str:
    """`x` times its magnitudes, or times the mean of its pixels."""
    height, width, _ = m.kind(x).hwc
    ones = {"stride_h": 1, "stride_w": 1}
    if m.one((0, 1)):
        sides = {f"pad_{side}": 1 for side in ("top", "bottom", "left", "right")}
        return m.build.add("multiply", x, m.build.add("magnitude_map", x, window_h=3, window_w=3, **ones, **sides))
    return m.build.add("multiply", x, m.build.add("average_pool2d", x, window_h=height, window_w=width, **ones, **m.pads((0,))))


def _concat(m: _Maker, x: str) -> str:
    return m.build.add("concat", *[x] * m.one((1, 2, 3)))


def _reshape(m: _Maker, x: str) -> str:
    elements = m.kind(x).elements
    divisor = m.one([d for d in (1, 2, 3, 5, elements) if elements % d == 0])
    return m.build.add("reshape", x, rank=2, size_0=divisor, size_1=elements // divisor, size_2=0)


def _pad(m: _Maker, x: str) -> str:
    return m.build.add("pad2d", x, **m.pads(), value=m.one((-2, 0, 1, 300)))


def _slice(m: _Maker, x: str) -> str:
    height, width, channels = m.kind(x).hwc
    start, steps = (m.one(range(height)), m.one(range(width))), (m.one((1, 1, 2, 3)), m.one((1, 2)))
    sizes = [1 + m.one(range(1 + (whole - 1 - first) // step)) for whole, first, step in zip((height, width), start, steps, strict=True)]
    unit = 8 if m.kind(x).encoding is BITS else 1
    first = unit * m.one(range(-(-channels // unit)))
    count = channels - first if m.one((0, 1)) or channels - first < unit else unit
    axes = {"start_h": start[0], "start_w": start[1], "start_c": first, "size_h": sizes[0], "size_w": sizes[1], "size_c": count}
    return m.build.add("slice", x, **axes, step_h=steps[0], step_w=steps[1])


def _resize(op: str) -> Step:
    return lambda m, x: m.build.add(op, x, size_h=m.one(SIDES), size_w=m.one(SIDES))


def _transpose(m: _Maker, x: str) -> str:
    order = m.random.permutation(3)
    return m.build.add("transpose", x, axis_0=int(order[0]), axis_1=int(order[1]), axis_2=int(order[2]))


def _space(m: _Maker, x: str) -> str:
    return m.build.add("depth_to_space", x, block_h=m.one((1, 2, 3)), block_w=m.one((1, 2)))


def _pair(m: _Maker, x: str) -> str:
    """`x` with another tensor of its shape, or with its largest pixel."""
    height, width, _ = m.kind(x).hwc
    ones = {"stride_h": 1, "stride_w": 1}
    other = m.build.add("max_pool2d", x, window_h=height, window_w=width, **ones, **m.pads((0,))) if m.one((0, 1)) else x
    return m.build.add(("subtract", "maximum", "minimum")[m.one((0, 1, 2))], x, other)


def _layer_norm(m: _Maker, x: str) -> str:
    constants = {role: m.build.vector(m.kind(x).shape[-1]) for role in ("mul", "add") if m.one((0, 1))}
    return m.build.add("layer_norm", x, constants=constants, epsilon=0.5)


def _local_response(m: _Maker, x: str) -> str:
    return m.build.add("local_response_norm", x, radius=m.one((0, 1, 2)), bias=1.5, alpha=0.25, beta=0.75)


_FILTERS: tuple[Step, ...] = (_conv2d, _conv2d, _conv2d, _depthwise, _dense, _residual)
_MOVES: tuple[Step, ...] = (_concat, _reshape, _pad, _slice, _resize("resize_nearest"), _transpose)
_MAX, _AVERAGE = _pool("max_pool2d"), _pool("average_pool2d")
_QUANTIZE = _simple("quantize", _Maker.int8)
_DEQUANTIZE, _UNPACK = (_simple(op, lambda m: float_type()) for op in ("dequantize", "unpack"))
STEPS: dict[int, tuple[Step, ...]] = {
    FLOAT32: (
        *(*_FILTERS, *_MOVES, _MAX, _AVERAGE, _affine, _activation, _add, _simple("softmax"), _prelu, _gate, _pool("magnitude_map")),
        *(_binarize, _binarize, _QUANTIZE, _QUANTIZE, _space, _resize("resize_bilinear"), _pair, _layer_norm, _local_response),
    ),
    UINT8: (*_FILTERS, _reshape, _pad, _MAX, _affine, _QUANTIZE, _DEQUANTIZE, _slice, _transpose),
    INT8: (*_FILTERS, *_MOVES, _MAX, _AVERAGE, _DEQUANTIZE, _add, _space),
    BITS: (_conv2d, _conv2d, _depthwise, _dense, _residual, _MAX, _UNPACK, _concat, _slice, _space, _resize("resize_nearest")),
}


def random_program(seed: int, *, steps: int = 4) -> Program:
    """A program of about `steps` operations; every other one with wider halos and a gap behind every tensor."""
    m = _Maker(seed)
    shape = (m.one(SIDES), m.one(SIDES), m.one(CHANNELS))
    kind = TensorType(shape, UINT8, zero_point=m.one((0, 0, 3, 255))) if m.one((0, 1)) else TensorType(shape)
    x = m.build.input(kind)
    for _ in range(20):
        before = len(m.build.nodes)
        choices = STEPS[m.kind(x).encoding]
        try:
            y = choices[m.one(range(len(choices)))](m, x)
        except OpError:
            del m.build.nodes[before:]
            continue
        if m.kind(y).elements > MOST_ELEMENTS:
            del m.build.nodes[before:]
            continue
        x = y
        if len(m.build.nodes) >= steps:
            break
    made_names = [name for node in m.build.nodes for name in node.outputs]
    m.build.types = {name: m.build.types[name] for name in (*m.build.inputs, *made_names)}
    signs = [node.signs for node in m.build.nodes if node.signs]
    made = to_program(m.build.graph(f"random {seed}", x, *signs))
    return _spread(made, m.random) if seed % 2 else made


def _spread(made: Program, random: np.random.Generator) -> Program:
    """`made` with halos wider than needed, tensors apart, and none in place."""
    tensors, end = [], 0
    for tensor in made.tensors:
        halo = tensor.type.halo
        wider = Halo(*(int(side + random.integers(0, 3)) for side in (halo.top, halo.bottom, halo.left, halo.right)))
        kind = replace(tensor.type, halo=wider if random.integers(0, 2) else halo)
        tensors.append(Tensor(kind, end))
        end = round_up(end + kind.nbytes) + 64
    return replace(made, tensors=tuple(tensors), arena_bytes=round_up(tensors[-1].offset + tensors[-1].type.nbytes))
