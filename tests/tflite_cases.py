"""Small graphs of every operation and encoding, with inputs and the outputs that the reference interpreter gives for them.

`python tests/tflite_cases.py FOLDER` writes each as NAME.tflite and NAME.npz (in_NAME and out_NAME as the file's tensors hold them, and
whether they must be equal), for interpreters that live in another environment.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tflite_cases_moves import MOVES

from edge.converters.tflite import write_tflite
from edge.graph import Graph, Node, constant_type
from edge.kernels.arithmetic import quantize
from edge.kernels.bitpack import signs
from edge.kernels.reference import run_graph
from edge.op_check import infer
from edge.ops import CONV_ATTRS, NO_ACTIVATION, OPS, POOL_ATTRS, Activation, OpCall
from edge.tensors import Encoding, TensorType

Array = np.ndarray
F32, F16, U8, I8, BITS = Encoding.FLOAT32, Encoding.FLOAT16, Encoding.UINT8, Encoding.INT8, Encoding.BITS
RELU6 = {"activation": int(Activation.RELU), "alpha": 0.0, "limit": 6.0}
RELU = {**RELU6, "limit": math.inf}
RELU_2 = {**RELU6, "limit": 2.0}
LEAKY = {"activation": int(Activation.LEAKY_RELU), "alpha": 0.3, "limit": math.inf}


@dataclass
class Net:
    """A graph under construction; `last` is the tensor that the next operation reads. Filters and statistics are random."""

    rng: np.random.Generator
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    last: str = ""

    def input(self, shape: tuple[int, ...], encoding: Encoding = F32, *, scale: float = 1.0, zero: int = 0) -> Net:
        self.last = f"input{len(self.inputs)}"
        self.inputs.append(self.last)
        self.types[self.last] = TensorType(shape, encoding, scale, zero)
        return self

    def op(self, name: str, to: TensorType | Encoding | None = None, *, inputs: tuple[str, ...] = (), **given: object) -> Net:
        """Apply an operation; keywords are its constants and attributes, `to` the output's encoding (and quantization)."""
        definition = OPS[name]
        sources = inputs or (self.last,)
        constants = {role: np.asarray(given[role]) for role in definition.constants if role in given}
        attrs: dict[str, int | float] = {key: given[key] for key in definition.attrs if key in given}  # type: ignore[misc]
        kinds = tuple(self.types[s] for s in sources)
        call = OpCall(kinds, {role: constant_type(a) for role, a in constants.items()}, attrs)
        first, like = kinds[0], to if isinstance(to, TensorType) else None
        encoding = like.encoding if like else to if isinstance(to, Encoding) else first.encoding
        keeps = to is None and encoding is not F32
        scale, zero = (like.scale, like.zero_point) if like else (first.scale, first.zero_point) if keeps else (1.0, 0)
        self.last = f"t{len(self.nodes)}"
        self.types[self.last] = TensorType(infer(definition, call), encoding, scale, zero)
        self.nodes.append(Node(name, sources, self.last, attrs, constants, (f"layer{len(self.nodes)}",)))
        return self

    def graph(self, *outputs: str) -> Graph:
        ends = outputs or (self.last,)
        names = tuple(f"out{i}" for i in range(len(ends)))
        graph = Graph("net", tuple(self.inputs), ends, tuple(self.nodes), self.types, names)
        return graph.verify()  # halos are the program's business; these graphs have none

    # -- layers with random constants ------------------------------------------------------------------------------------------

    def random_filter(self, encoding: Encoding, shape: tuple[int, ...]) -> Array:
        if encoding is BITS:
            return self.rng.random(shape) < 0.5
        if encoding is I8:
            return self.rng.integers(-127, 128, shape).astype(np.int8)
        return (self.rng.normal(size=shape) / 3).astype(np.float16 if encoding is F16 else np.float32)

    def epilogue(self, filters: Array, channels: int, source: TensorType, to: Encoding, *, bias: bool) -> dict[str, Array]:
        """Scale, bias and threshold in the range of the accumulator."""
        taps = filters.size // channels
        spread = math.sqrt(taps) * {BITS: 1, I8: 75, U8: 150, F32: 1}[source.encoding] * (75 if filters.dtype == np.int8 else 1)
        if to is BITS:
            thresholds = self.rng.normal(size=channels) * spread
            thresholds[:2] = 2e9, -2e9  # constants: what is out of reach
            return {"threshold": thresholds.astype(np.int64).astype(np.int32)}
        floats = np.issubdtype(filters.dtype, np.floating)
        found = {} if floats else {"scale": (self.rng.uniform(0.5, 1.5, channels) / spread).astype(np.float32)}
        return {**found, "bias": self.rng.normal(size=channels).astype(np.float32)} if bias else found

    def conv(self, channels: int, taps: tuple[int, int], to: TensorType | Encoding, stored: Encoding, **given: object) -> Net:
        """conv2d; keywords as attributes, and `bias=False`."""
        source = self.types[self.last]
        filters = self.random_filter(stored, (channels, *taps, source.hwc[2] // int(given.get("groups", 1))))  # type: ignore[call-overload]
        return self._conv("conv2d", filters, channels, to, given)

    def depthwise(self, channels: int, taps: tuple[int, int], to: TensorType | Encoding, stored: Encoding, **given: object) -> Net:
        filters = self.random_filter(stored, (*taps, channels))
        return self._conv("depthwise_conv2d", filters, channels, to, {"groups": self.types[self.last].hwc[2], **given})

    def dense(self, channels: int, to: TensorType | Encoding, stored: Encoding, **given: object) -> Net:
        filters = self.random_filter(stored, (channels, *self.types[self.last].hwc))
        return self._conv("dense", filters, channels, to, given)

    def _conv(self, op: str, filters: Array, channels: int, to: TensorType | Encoding, given: dict[str, object]) -> Net:
        encoding = to.encoding if isinstance(to, TensorType) else to
        constants = self.epilogue(filters, channels, self.types[self.last], encoding, bias=bool(given.pop("bias", True)))
        defaults = {**dict.fromkeys(CONV_ATTRS, 0), **NO_ACTIVATION}
        defaults |= dict.fromkeys(("stride_h", "stride_w", "dilation_h", "dilation_w", "groups"), 1)
        return self.op(op, to, **{**defaults, "filter": filters, **constants, **given})

    def pool(self, op: str, window: tuple[int, int], stride: tuple[int, int], **given: object) -> Net:
        defaults = {**dict.fromkeys(POOL_ATTRS, 0), "window_h": window[0], "window_w": window[1]}
        return self.op(op, **{**defaults, "stride_h": stride[0], "stride_w": stride[1], **given})

    def signs(self, *, affine: bool = True) -> Net:
        channels = self.types[self.last].shape[-1]
        found = {"mul": self.vector(channels), "add": self.vector(channels)} if affine else {}
        return self.op("binarize", BITS, **found)

    def vector(self, count: int) -> Array:
        return self.rng.normal(size=count).astype(np.float32)


def pads(top: int, bottom: int, left: int, right: int) -> dict[str, int]:
    return {"pad_top": top, "pad_bottom": bottom, "pad_left": left, "pad_right": right}


def same(height: int, width: int) -> dict[str, int]:
    """Padding of a window with stride 1 that keeps the size."""
    return pads((height - 1) // 2, height // 2, (width - 1) // 2, width // 2)


def steps(stride: int, other: int | None = None) -> dict[str, int]:
    return {"stride_h": stride, "stride_w": stride if other is None else other}


def int8(scale: float = 0.05, zero: int = 3) -> TensorType:
    return TensorType((1,), I8, scale, zero)


def _activation(kind: Activation, alpha: float = 1.0) -> dict[str, float]:
    return {"activation": int(kind), "alpha": alpha, "limit": math.inf}


def _whole(net: Net, quantization: tuple[float, int], name: str, **given: object) -> Net:
    """An activation of what int8 stands for, as int8 again."""
    return net.op("dequantize", F32).op(name, **given).op("quantize", int8(*quantization))


# -- the cases -----------------------------------------------------------------------------------------------------------------

CASES: dict[str, Callable[[Net], Net | Graph]] = {
    # signs to signs: odd sizes, strides, kh != kw, padding of all kinds, groups, dilation
    "bits_conv": lambda n: n.input((9, 7, 16), BITS).conv(24, (3, 3), BITS, BITS, **same(3, 3)),
    "bits_conv_stride": lambda n: n.input((11, 8, 10), BITS).conv(10, (5, 3), BITS, BITS, **steps(2, 3), **pads(2, 2, 1, 1)),
    "bits_conv_valid": lambda n: n.input((8, 9, 24), BITS).conv(16, (2, 4), BITS, BITS),
    "bits_conv_pads": lambda n: n.input((6, 6, 16), BITS).conv(10, (3, 3), BITS, BITS, **pads(2, 0, 0, 3)),
    "bits_conv_ones": lambda n: n.input((6, 7, 16), BITS).conv(24, (3, 3), BITS, BITS, pad_ones=1, **same(3, 3)),
    "bits_conv_dilation": lambda n: n.input((9, 9, 16), BITS).conv(8, (3, 3), BITS, BITS, dilation_h=2, dilation_w=3, **pads(2, 2, 3, 3)),
    "bits_conv_groups": lambda n: n.input((5, 6, 16), BITS).conv(24, (3, 3), BITS, BITS, groups=2, **same(3, 3)),
    "bits_dense": lambda n: n.input((3, 5, 16), BITS).dense(24, BITS, BITS),
    "bits_dense_long": lambda n: n.input((4096,), BITS).dense(10, BITS, BITS),
    "bits_rows": lambda n: n.input((6, 16), BITS).conv(16, (1, 3), BITS, BITS, **pads(0, 0, 1, 1)).dense(5, F32, BITS),
    "bits_depthwise": lambda n: n.input((7, 6, 10), BITS).depthwise(20, (3, 3), BITS, BITS, **same(3, 3)),
    "bits_depthwise_ones": lambda n: n.input((7, 6, 10), BITS).depthwise(10, (3, 3), BITS, BITS, pad_ones=1, **steps(2), **same(3, 3)),
    # signs to float32
    "bits_depthwise_int8": lambda n: n.input((7, 6, 10), BITS).depthwise(10, (3, 3), int8(), BITS, **same(3, 3), **RELU),
    "bits_depthwise_float": lambda n: n.input((7, 6, 10), BITS).depthwise(10, (3, 3), F32, BITS, **same(3, 3), **RELU),
    "bits_float": lambda n: n.input((7, 7, 64), BITS).conv(24, (3, 3), F32, BITS, **same(3, 3)),
    "bits_float_relu": lambda n: n.input((7, 6, 16), BITS).conv(16, (3, 2), F32, BITS, bias=False, **steps(2), **RELU),
    "bits_float_leaky": lambda n: n.input((7, 6, 16), BITS).conv(10, (3, 3), F32, BITS, pad_ones=1, **same(3, 3), **LEAKY),
    "bits_float_dense": lambda n: n.input((4, 4, 24), BITS).dense(10, F32, BITS, **RELU6),
    "bits_int8": lambda n: n.input((7, 6, 16), BITS).conv(24, (3, 3), int8(), BITS, **same(3, 3), **RELU),
    "bits_int8_dense": lambda n: n.input((4, 4, 24), BITS).dense(10, int8(), BITS),
    "bits_pool": lambda n: n.input((7, 9, 24), BITS).pool("max_pool2d", (3, 2), (2, 2), flip=n.rng.random(24) < 0.5, **pads(1, 1, 0, 1)),
    "bits_pool_pads": lambda n: n.input((6, 6, 10), BITS)
    .pool("max_pool2d", (3, 3), (1, 1), flip=n.rng.random(10) < 0.5, **pads(2, 0, 0, 1)),
    "bits_pool_conv": lambda n: n.input((8, 8, 16), BITS).conv(16, (3, 3), BITS, BITS, **same(3, 3))
    .pool("max_pool2d", (2, 2), (2, 2), flip=n.rng.random(16) < 0.5).conv(24, (3, 3), BITS, BITS, **same(3, 3)).op("unpack", F32),
    # pictures of bytes
    "bytes_signs": lambda n: n.input((9, 8, 3), U8).conv(16, (3, 3), BITS, I8, **same(3, 3)),
    "bytes_signs_pads": lambda n: n.input((9, 8, 1), U8).conv(24, (5, 3), BITS, I8, **pads(0, 3, 2, 0)),
    "bytes_signs_dense": lambda n: n.input((9, 9, 3), U8, scale=1 / 255).dense(16, BITS, I8),
    "bytes_float_dense": lambda n: n.input((9, 9, 3), U8).dense(16, F32, I8),
    "bytes_int8_dense": lambda n: n.input((9, 9, 3), U8).dense(16, int8(), I8, **RELU),
    "bytes_float": lambda n: n.input((9, 8, 3), U8).conv(10, (3, 3), F32, I8, **steps(2), **pads(0, 1, 0, 1), **RELU),
    "bytes_float_scaled": lambda n: n.input((7, 7, 3), U8, scale=1 / 255, zero=7).conv(10, (3, 3), F32, I8, **same(3, 3)),
    "bytes_int8": lambda n: n.input((9, 8, 3), U8, scale=1 / 255).conv(16, (3, 3), int8(), I8, **same(3, 3), **RELU),
    "bytes_depthwise": lambda n: n.input((7, 8, 3), U8).depthwise(6, (3, 3), int8(0.04, -9), I8, **same(3, 3)),
    "bytes_depthwise_float": lambda n: n.input((7, 8, 3), U8).depthwise(3, (3, 3), F32, I8, **same(3, 3)),
    "bytes_pool_pad": lambda n: n.input((7, 8, 3), U8).op("pad2d", value=9.0, **pads(1, 2, 0, 1))
    .pool("max_pool2d", (3, 3), (2, 2), **pads(1, 1, 1, 1)).op("reshape", rank=2, size_0=5, size_1=15, size_2=1).op("dequantize", F32),
    "bytes_affine": lambda n: n.input((4, 5, 3), U8).op("affine", F32, mul=n.vector(3), add=n.vector(3), **RELU),
    "bytes_quantize": lambda n: n.input((4, 5, 3), U8, scale=1 / 255).op("quantize", int8(0.01, -20)),
    "bytes_net": lambda n: n.input((12, 12, 1), U8).conv(16, (3, 3), BITS, I8, **same(3, 3))
    .pool("max_pool2d", (2, 2), (2, 2), flip=n.rng.random(16) < 0.5).conv(24, (3, 3), BITS, BITS, **same(3, 3))
    .pool("max_pool2d", (2, 2), (2, 2)).dense(32, BITS, BITS).dense(10, F32, BITS).op("softmax"),
    # float16
    "half_conv": lambda n: n.input((7, 8, 3)).conv(10, (3, 3), F32, F16, **same(3, 3), **RELU6),
    "half_depthwise": lambda n: n.input((7, 8, 6)).depthwise(12, (3, 3), F32, F16, **steps(2), **same(3, 3)),
    "half_dense": lambda n: n.input((5, 4, 3)).dense(10, F32, F16, bias=False).op("softmax"),
    # int8
    "int8_signs": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), BITS, I8, **same(3, 3)),
    "int8_signs_wide": lambda n: n.input((6, 6, 128), I8, scale=1.7, zero=100).conv(8, (3, 3), BITS, I8, **same(3, 3)),
    "int8_signs_dense": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).dense(24, BITS, I8),
    "int8_float_dense": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).dense(24, F32, I8),
    "int8_float": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), F32, I8, **same(3, 3), **LEAKY),
    "int8_int8": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), int8(), I8, **same(3, 3), **RELU6),
    "int8_limit": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), int8(), I8, **RELU_2),
    "int8_leaky": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), int8(), I8, **steps(2), **LEAKY),
    "int8_groups": lambda n: n.input((7, 6, 16), I8, scale=0.03).conv(8, (3, 3), int8(), I8, groups=4, **same(3, 3)),
    "int8_pads": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=11).conv(8, (3, 3), int8(), I8, **pads(0, 2, 2, 0)),
    "int8_by_signs": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), int8(), BITS, **same(3, 3), **RELU),
    "int8_by_signs_float": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), F32, BITS, **same(3, 3)),
    "int8_by_signs_bits": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).conv(24, (3, 3), BITS, BITS, **same(3, 3)),
    "int8_by_signs_dense": lambda n: n.input((4, 3, 16), I8, scale=0.03, zero=-5).dense(10, int8(), BITS),
    "int8_by_signs_dense_float": lambda n: n.input((4, 3, 16), I8, scale=0.03, zero=-5).dense(10, F32, BITS),
    "int8_by_signs_dense_bits": lambda n: n.input((4, 3, 16), I8, scale=0.03, zero=-5).dense(10, BITS, BITS),
    "bytes_by_signs": lambda n: n.input((7, 6, 3), U8).conv(24, (3, 3), int8(), BITS, **same(3, 3), **RELU),
    "bytes_by_signs_float": lambda n: n.input((7, 6, 3), U8).conv(24, (3, 3), F32, BITS, **same(3, 3)),
    "bytes_by_signs_bits": lambda n: n.input((7, 6, 3), U8).conv(24, (3, 3), BITS, BITS, **same(3, 3)),
    "bytes_by_signs_dense": lambda n: n.input((4, 3, 3), U8).dense(10, int8(), BITS),
    "bytes_by_signs_dense_float": lambda n: n.input((4, 3, 3), U8).dense(10, F32, BITS),
    "bytes_by_signs_dense_bits": lambda n: n.input((4, 3, 3), U8).dense(10, BITS, BITS),
    "int8_dense": lambda n: n.input((4, 3, 16), I8, scale=0.03, zero=-5).dense(10, int8(), I8),
    "int8_dequantize": lambda n: n.input((4, 3, 16), I8, scale=0.03, zero=-5).op("dequantize", F32).op("softmax"),
    "int8_odd_scales": lambda n: n.input((5, 6, 4), I8, scale=0.03, zero=-5)
    .conv(4, (3, 3), int8(), I8, **same(3, 3), scale=np.float32([-2e-4, 0, 3e-4, 1e-9])),
    "int8_steep": lambda n: n.input((5, 6, 4), I8, scale=0.03).conv(4, (3, 3), int8(1e-4), I8, scale=np.float32([1, 0.1, 3e-4, 0.02])),
    "int8_overflow": lambda n: n.input((4096,), I8, scale=0.03, zero=-100)
    .dense(10, int8(1e-4), I8, scale=np.full(10, 6.6e-3, np.float32), filter=np.full((10, 1, 1, 4096), 54, np.int8)),
    "int8_depthwise": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).depthwise(16, (3, 5), int8(), I8, **same(3, 5), **RELU),
    "int8_depthwise_float": lambda n: n.input((7, 6, 8), I8, scale=0.03, zero=-5).depthwise(16, (3, 3), F32, I8, **same(3, 3)),
    "int8_pools": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).pool("max_pool2d", (3, 3), (2, 2), **pads(1, 1, 0, 1))
    .pool("average_pool2d", (2, 3), (1, 2), **pads(0, 1, 1, 1)).pool("max_pool2d", (3, 3), (1, 1), **pads(2, 0, 0, 2)),
    "int8_average_pads": lambda n: n.input((7, 6, 16), I8, scale=0.03, zero=-5).pool("average_pool2d", (3, 3), (2, 2), **pads(2, 0, 0, 1)),
    "int8_pad": lambda n: n.input((3, 4, 5), I8, scale=0.03, zero=-5).op("pad2d", value=0.9, **pads(1, 2, 0, 1)),
    "int8_reshape": lambda n: n.input((3, 4, 5), I8, scale=0.03, zero=-5).op("reshape", rank=1, size_0=60, size_1=1, size_2=1),
    # float32
    "float_conv": lambda n: n.input((9, 7, 3)).conv(10, (3, 5), F32, F32, **same(3, 5), **RELU6),
    "float_conv_stride": lambda n: n.input((9, 7, 3)).conv(10, (3, 3), F32, F32, bias=False, **steps(2), **pads(1, 1, 1, 1), **LEAKY),
    "float_conv_dilation": lambda n: n.input((9, 9, 3)).conv(10, (3, 3), F32, F32, dilation_h=2, dilation_w=2, **RELU_2),
    "float_conv_groups": lambda n: n.input((7, 7, 8)).conv(12, (3, 3), F32, F32, groups=4, **same(3, 3)),
    "float_conv_pads": lambda n: n.input((7, 7, 3)).conv(5, (3, 3), F32, F32, **pads(2, 1, 0, 1)),
    "float_weights_int8": lambda n: n.input((7, 6, 5)).conv(10, (3, 3), F32, I8, **same(3, 3), **RELU),
    "float_weights_int8_groups": lambda n: n.input((7, 6, 8)).conv(12, (3, 3), F32, I8, groups=4, **same(3, 3), **RELU),
    "float_weights_bits": lambda n: n.input((7, 6, 5)).conv(10, (3, 3), F32, BITS, **same(3, 3)),
    "float_weights_dense": lambda n: n.input((7, 6, 5)).dense(10, F32, BITS, **RELU).dense(7, F32, I8),
    "float_depthwise": lambda n: n.input((7, 6, 5)).depthwise(10, (3, 3), F32, F32, **same(3, 3), **RELU),
    "float_depthwise_bits": lambda n: n.input((7, 6, 5)).depthwise(5, (3, 3), F32, BITS, **same(3, 3)),
    "float_depthwise_int8": lambda n: n.input((7, 6, 5)).depthwise(10, (3, 3), F32, I8, **steps(2), **pads(0, 1, 0, 0)),
    "float_dense": lambda n: n.input((4, 3, 5)).dense(10, F32, F32, **RELU).dense(7, F32, F32).op("softmax"),
    "float_dense_leaky": lambda n: n.input((13,)).dense(10, F32, F32, **LEAKY),
    "float_binarize": lambda n: n.input((5, 4, 10)).signs(affine=False),
    "float_binarize_affine": lambda n: n.input((6, 5, 24)).signs().conv(10, (3, 3), F32, BITS, **same(3, 3)),
    "float_affine": lambda n: n.input((5, 4, 6)).op("affine", mul=n.vector(6), add=n.vector(6), **LEAKY),
    "float_affine_add": lambda n: n.input((5, 4, 6)).op("affine", add=n.vector(6), **RELU_2),
    "float_nothing": lambda n: n.input((5, 4, 6)).op("affine", **NO_ACTIVATION),
    "float_elu": lambda n: n.input((5, 4, 6)).op("activation", **_activation(Activation.ELU)),
    "float_elu_slope": lambda n: n.input((5, 4, 6)).op("activation", **_activation(Activation.ELU, 0.4)),
    "float_sigmoid": lambda n: n.input((5, 6)).op("activation", **_activation(Activation.SIGMOID)),
    # activations between int8 tensors, one integer operator each
    "int8_softmax": lambda n: _whole(n.input((10,), I8, scale=0.08, zero=-5), (1 / 256, -128), "softmax"),
    "int8_sigmoid": lambda n: _whole(n.input((5, 6), I8, scale=0.05), (1 / 256, -128), "activation", **_activation(Activation.SIGMOID)),
    "int8_tanh": lambda n: _whole(n.input((5, 6), I8, scale=0.03), (1 / 128, 0), "activation", **_activation(Activation.TANH)),
    "float_prelu": lambda n: n.input((5, 4, 6)).op("prelu", slope=n.vector(6)).op("softmax"),
    "float_tanh": lambda n: n.input((6,)).op("activation", **_activation(Activation.TANH)),
    "float_relu": lambda n: n.input((5, 4, 6)).op("activation", **RELU).op("activation", **RELU_2),
    "float_pools": lambda n: n.input((9, 8, 5)).pool("max_pool2d", (3, 2), (2, 1), **pads(1, 1, 0, 1))
    .pool("average_pool2d", (3, 3), (2, 2), **pads(1, 1, 0, 1)),
    "float_pools_pads": lambda n: n.input((9, 8, 5)).pool("max_pool2d", (3, 3), (2, 2), **pads(2, 1, 0, 0))
    .pool("average_pool2d", (3, 3), (2, 2), **pads(1, 2, 2, 2)),
    "float_pool_rows": lambda n: n.input((9, 5)).pool("average_pool2d", (1, 9), (1, 1)),
    "float_magnitude": lambda n: n.input((9, 8, 5)).pool("magnitude_map", (3, 3), (1, 1), **same(3, 3)),
    "float_magnitude_pads": lambda n: n.input((9, 8, 20)).pool("magnitude_map", (3, 2), (2, 1), **pads(2, 0, 1, 1)),
    "float_pad_reshape": lambda n: n.input((3, 4, 5)).op("pad2d", value=0.0, **pads(1, 0, 2, 1)).op("pad2d", value=-1.5, **pads(0, 1, 0, 0))
    .op("reshape", rank=1, size_0=175, size_1=1, size_2=1),
    "float_quantize": lambda n: n.input((5, 4, 6)).op("quantize", int8(0.02, 4)).conv(8, (3, 3), int8(), I8, **same(3, 3)),
}  # fmt: skip


CASES |= MOVES


def _several(net: Net) -> dict[str, Graph]:
    """Graphs with several inputs or outputs."""
    add, addf, leaky, concat, concat8, heads, gate, gated_map = (Net(net.rng) for _ in range(8))
    gate.input((4, 5, 6)).input((6,)).op("multiply", inputs=("input0", "input1"))
    gated_map.input((4, 5, 6)).pool("magnitude_map", (3, 3), (1, 1), **same(3, 3)).op("multiply", inputs=("input0", gated_map.last))
    concat8.input((4, 5, 3), I8, scale=0.03, zero=-5).input((4, 5, 4), I8, scale=0.03, zero=-5).op("concat", inputs=("input0", "input1"))
    addf.input((4, 5, 6)).input((4, 5, 6)).op("add", inputs=("input0", "input1"), **RELU)
    add.input((4, 5, 6), I8, scale=0.03, zero=-5).input((4, 5, 6), I8, scale=0.05, zero=9)
    add.op("add", int8(), inputs=("input0", "input1"), **RELU_2)
    leaky.input((4, 6), I8, scale=0.03, zero=-5).input((4, 6), I8, scale=0.05).op("add", int8(), inputs=("input0", "input1"), **LEAKY)
    concat.input((4, 5, 16), BITS).input((4, 5, 10), BITS).op("concat", inputs=("input0", "input1")).conv(24, (3, 3), BITS, BITS)
    heads.input((6, 6, 8)).conv(8, (3, 3), F32, F32, **same(3, 3), **RELU)
    trunk = heads.last
    first = heads.signs().conv(8, (3, 3), F32, BITS, **same(3, 3)).op("add", inputs=(trunk, heads.last), **NO_ACTIVATION).last
    second = heads.op("concat", inputs=(trunk, first)).dense(3, F32, F32).last
    return {
        "add_float": addf.graph(),
        "add_int8": add.graph(),
        "add_int8_leaky": leaky.graph(),
        "concat_bits": concat.graph(),
        "concat_int8": concat8.graph(),
        "multiply_channels": gate.graph(),
        "multiply_pixels": gated_map.graph(),
        "two_heads": heads.graph(first, second),
    }  # fmt: skip


def graphs() -> Iterator[tuple[str, Graph]]:
    """Every case: its name and graph, the same at each call."""
    for number, (name, make) in enumerate(CASES.items()):
        made = make(Net(np.random.default_rng(number)))
        yield name, made if isinstance(made, Graph) else made.graph()
    yield from _several(Net(np.random.default_rng(1000))).items()


def example(kind: TensorType, rng: np.random.Generator) -> Array:
    """A random value of a tensor of the graph, zeros and extremes among it."""
    if kind.encoding is BITS:
        return rng.random(kind.shape) < 0.5
    if kind.encoding is F32:
        values = rng.normal(size=kind.shape).astype(np.float32)
        values.flat[0], values.flat[-1] = 0.0, -0.0
        return values
    return quantize((rng.random(kind.shape).astype(np.float32) * 256 - 128 * (kind.encoding is I8)), TensorType((1,), kind.encoding))


def as_lite(value: Array, kind: TensorType, *, input_float: bool = True) -> Array:
    """A value of the graph as its tensor in the file holds it, with the batch axis."""
    if kind.encoding is BITS:
        value = signs(value).astype(np.int8)
    if kind.encoding is U8 and input_float:
        value = value.astype(np.float32)
    return value[np.newaxis]


def expected(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs, by public name, as the file's tensors should hold them."""
    values = run_graph(graph, inputs)
    return {name: as_lite(values[tensor], graph.types[tensor]) for tensor, name in zip(graph.outputs, graph.output_names, strict=True)}


def close(got: Array, wanted: Array, *, exact: bool) -> bool:
    """Equal; unless `exact`, int8 within one quantum and float32 within 1e-5 of the largest value."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    if exact:
        return np.array_equal(got, wanted)
    if wanted.dtype == np.int8:
        return int(np.abs(got.astype(int) - wanted).max()) <= 1
    return float(np.abs(got - wanted).max()) <= 1e-5 * max(1.0, float(np.abs(wanted).max()))


def is_exact(graph: Graph) -> bool:
    """Whether the outputs of `graph` owe nothing to rounding: signs all the way."""
    kinds = [graph.types[name] for name in (*graph.inputs, *(node.output for node in graph.nodes))]
    ends = [graph.types[name] for name in graph.outputs]
    return all(kind.encoding in (BITS, U8, I8) for kind in kinds) and all(kind.encoding is BITS for kind in ends)


def write_cases(folder: Path) -> int:
    """Write all cases and return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    made = dict(graphs())
    for name, graph in made.items():
        rng = np.random.default_rng(7)
        inputs = {tensor: example(graph.types[tensor], rng) for tensor in graph.inputs}
        arrays = {f"in_{tensor}": as_lite(value, graph.types[tensor]) for tensor, value in inputs.items()}
        arrays |= {f"out_{key}": value for key, value in expected(graph, inputs).items()}
        arrays["exact"] = np.array(is_exact(graph))
        (folder / f"{name}.tflite").write_bytes(write_tflite(graph))
        np.savez(folder / f"{name}.npz", **arrays)
    return len(made)


if __name__ == "__main__":
    print(f"wrote {write_cases(Path(sys.argv[1]))} cases")
