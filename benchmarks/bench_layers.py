"""One layer as a graph, as an engine's call, and as the same layer in LiteRT: what `test_layers.py` and its neighbours time.

    made = layer(Shape("conv2d", 56, 56, 64, 64, 3), BITS_FLOAT)
    assert_right(made)
    bench.row(LAYERS, made.shape.name, made.kind, {EDGE: made.call(), **peers(made.shape)}, work=made.work)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from bench_litert import LiteRt
from bench_rows import (
    BITS_BITS,
    BITS_FLOAT,
    FLOAT,
    INT8,
    LITERT_FLOAT,
    LITERT_INT8,
    PICTURE_BITS,
    PICTURE_FLOAT,
    WEIGHTS_FLOAT,
    WEIGHTS_INT8,
)
from bench_timing import Call

from edge.converters.tflite import write_tflite
from edge.engine import Engine
from edge.graph import Graph, Node
from edge.kernels import reference
from edge.kernels.bitpack import signs
from edge.kernels.isa import Machine
from edge.lower import to_program
from edge.ops import CONV_ATTRS, NO_ACTIVATION, OPS
from edge.tensors import Encoding, TensorType

BITS, F32, I8, U8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8

# Input, filter and output of each kind.
SIGNATURES: Mapping[str, tuple[Encoding, Encoding, Encoding]] = {
    BITS_BITS: (BITS, BITS, BITS),
    BITS_FLOAT: (BITS, BITS, F32),
    INT8: (I8, I8, I8),
    FLOAT: (F32, F32, F32),
    WEIGHTS_FLOAT: (F32, BITS, F32),
    WEIGHTS_INT8: (I8, BITS, I8),
    PICTURE_FLOAT: (U8, I8, F32),
    PICTURE_BITS: (U8, I8, BITS),
}
OUTPUT_SCALE = 0.05
# A filter this large comes from the memory beyond the first-level caches at every run: (bytes at most, which memory).
_MEMORIES = ((1 << 19, ""), (1 << 24, "L3 bytes"), (1 << 62, "DRAM bytes"))


@dataclass(frozen=True)
class Shape:
    """A layer's sizes; `op` is conv2d, depthwise_conv2d or dense (whose input is a vector). Padding is TensorFlow's `same`."""

    op: str
    height: int
    width: int
    channels: int
    channels_out: int
    taps: int = 1
    stride: int = 1

    @property
    def name(self) -> str:
        if self.op == "dense":
            return f"dense {self.channels}x{self.channels_out}"
        size = f"{self.height}x{self.width}x{self.channels}"
        window = f"{self.taps}x{self.taps}" + (f"/{self.stride}" if self.stride > 1 else "")
        what = "depthwise " if self.op == "depthwise_conv2d" else ""
        more = f" to {self.channels_out}" if self.channels_out != self.channels else ""
        return f"{what}{window} {size}{more}"

    @property
    def input(self) -> tuple[int, ...]:
        return (self.channels,) if self.op == "dense" else (self.height, self.width, self.channels)

    @property
    def filter(self) -> tuple[int, ...]:
        if self.op == "depthwise_conv2d":
            return self.taps, self.taps, self.channels_out
        return self.channels_out, self.taps, self.taps, self.channels

    @property
    def output(self) -> tuple[int, ...]:
        rows, columns = (-(-size // self.stride) for size in (self.height, self.width))
        return (self.channels_out,) if self.op == "dense" else (rows, columns, self.channels_out)

    @property
    def macs(self) -> int:
        depth = 1 if self.op == "depthwise_conv2d" else self.channels
        return int(np.prod(self.output)) * self.taps * self.taps * depth

    @property
    def attributes(self) -> dict[str, int | float]:
        if self.op == "dense":
            return dict(NO_ACTIVATION)
        pads: dict[str, int | float] = {}
        for before, after, size in (("pad_top", "pad_bottom", self.height), ("pad_left", "pad_right", self.width)):
            total = max((-(-size // self.stride) - 1) * self.stride + self.taps - size, 0)
            pads |= {before: total // 2, after: total - total // 2}
        groups = self.channels if self.op == "depthwise_conv2d" else 1
        fixed = {"stride_h": self.stride, "stride_w": self.stride, "dilation_h": 1, "dilation_w": 1, "groups": groups, "pad_ones": 0}
        found = {**fixed, **pads, **NO_ACTIVATION}
        return {name: found[name] for name in CONV_ATTRS}


def conv(size: int, channels: int, channels_out: int, taps: int, stride: int = 1) -> Shape:
    return Shape("conv2d", size, size, channels, channels_out, taps, stride)


@dataclass(frozen=True)
class Layer:
    """A graph of one node, an input for it as the reference takes it, and the engine that runs it."""

    shape: Shape
    kind: str
    graph: Graph
    x: np.ndarray
    engine: Engine

    @property
    def kernel(self) -> str:
        return str(self.engine.kernels[-1])

    @property
    def work(self) -> dict[str, float]:
        """Multiply-accumulates, and the bytes of a large dense filter, which is read once from beyond the caches."""
        source, stored, _ = SIGNATURES[self.kind]
        arithmetic = {BITS: "binary", F32: "float32"}.get(source, "int8")
        filter_bytes = int(np.prod(self.shape.filter)) * stored.bits // 8
        memory = next(name for most, name in _MEMORIES if filter_bytes <= most)
        moving = {memory: filter_bytes} if memory and self.shape.op == "dense" else {}
        return {arithmetic: self.shape.macs, **moving}

    def call(self) -> Call:
        """One run of the kernel, and of what fills the halos around it, through the loop: what an inference spends on this layer."""
        engine, last = self.engine, len(self.engine._calls)
        return engine._infer if engine.threads > 1 else lambda: engine._invoke(0, last)


def layer(shape: Shape, kind: str, *, threads: int = 1, machine: Machine | None = None) -> Layer:
    """The layer with random constants; skips the test where the operation does not exist for this kind."""
    if SIGNATURES[kind] not in OPS[shape.op].signatures:
        pytest.skip(f"{shape.op} does not exist for {kind}")
    graph = one_node(shape, kind)
    return Layer(shape, kind, graph, example(graph), Engine(to_program(graph), threads=threads, machine=machine))


def one_node(shape: Shape, kind: str) -> Graph:
    """A graph of the layer alone."""
    source, stored, output = SIGNATURES[kind]
    random = np.random.default_rng(shape.macs)
    constants = {"filter": _filter(random, stored, shape)}
    if output is BITS:
        constants["threshold"] = random.integers(-20, 20, shape.channels_out).astype(np.int32)
    else:
        constants["bias"] = random.normal(size=shape.channels_out).astype(np.float32)
        if stored is not F32:
            constants["scale"] = (0.5 + random.random(shape.channels_out)).astype(np.float32) / np.float32(_spread(shape, source, stored))
    types = {"x": TensorType(shape.input, source), "y": TensorType(shape.output, output, OUTPUT_SCALE if output is I8 else 1.0)}
    return Graph("layer", ("x",), ("y",), (Node(shape.op, ("x",), "y", shape.attributes, constants),), types)


def _filter(random: np.random.Generator, stored: Encoding, shape: Shape) -> np.ndarray:
    if stored is BITS:
        return random.random(shape.filter) < 0.5
    if stored is I8:
        return random.integers(-127, 128, shape.filter).astype(np.int8)
    return random.normal(size=shape.filter).astype(np.float32)


def _spread(shape: Shape, source: Encoding, stored: Encoding) -> float:
    """About how large sums of products are, so that outputs are about 1."""
    terms = shape.macs / np.prod(shape.output)
    return float(np.sqrt(terms)) * (73.0 if source in (I8, U8) else 1.0) * (73.0 if stored is I8 else 1.0)


def example(graph: Graph) -> np.ndarray:
    """A random input, as the reference takes it."""
    kind, random = graph.types["x"], np.random.default_rng(0)
    if kind.encoding is BITS:
        return random.random(kind.shape) < 0.5
    if kind.encoding in (I8, U8):
        low, high, dtype = (-128, 128, np.int8) if kind.encoding is I8 else (0, 256, np.uint8)
        return random.integers(low, high, kind.shape).astype(dtype)
    return random.normal(size=kind.shape).astype(np.float32)


# -- equality ------------------------------------------------------------------------------------------------------------------

_REFERENCE_MACS = 30_000_000  # the reference fuses float products one by one, which takes about a second


def assert_right(made: Layer) -> None:
    """The engine's output equals the reference's: every bit and integer; of long sums of floats, those of some channels.

    Floats may differ by 4 ulp of the accumulated magnitude, where a machine has no fused multiply-add.
    """
    channels = _compared(made)
    node = made.graph.nodes[0]
    source = SIGNATURES[made.kind][0]
    values = signs(made.x) if source is BITS else made.x.astype(np.float32)
    got = made.engine.run_instruction(0, [values])[..., channels]
    kept = {role: _of_channels(node.op, role, array, channels) for role, array in node.constants.items()}
    graph, x = _narrowed(made.graph, kept, channels), made.x
    if node.op == "depthwise_conv2d":
        x = x[..., channels]
    meant = reference.run_graph(graph, {"x": x})["y"]
    if SIGNATURES[made.kind][2] is F32 and source is F32:
        magnitude = 4 * np.finfo(np.float32).eps * _magnitude(graph, x)
        assert np.all(np.abs(got - meant) <= magnitude), f"{made.shape.name}, {made.kind}: wrong values"
    else:
        np.testing.assert_array_equal(got, _real(meant, graph.types["y"]), err_msg=f"{made.shape.name}, {made.kind}")


def _compared(made: Layer) -> slice:
    """Which output channels are compared."""
    if SIGNATURES[made.kind][0] is not F32:
        return slice(None)
    return slice(None, None, max(1, -(-made.shape.macs // _REFERENCE_MACS)))


def _of_channels(op: str, role: str, array: np.ndarray, channels: slice) -> np.ndarray:
    return array[..., channels] if op == "depthwise_conv2d" and role == "filter" else array[channels]


def _narrowed(graph: Graph, constants: Mapping[str, np.ndarray], channels: slice) -> Graph:
    """The same node with some of its output channels."""
    node, types = graph.nodes[0], dict(graph.types)
    count = len(range(types["y"].shape[-1])[channels])
    types["y"] = replace(types["y"], shape=(*types["y"].shape[:-1], count))
    attrs = dict(node.attrs)
    if node.op == "depthwise_conv2d":
        types["x"] = replace(types["x"], shape=(*types["x"].shape[:-1], count))
        attrs["groups"] = count
    return replace(graph, nodes=(replace(node, attrs=attrs, constants=constants),), types=types)


def _magnitude(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Sums of absolute products and of what is added to them."""
    node = graph.nodes[0]
    constants = {role: np.zeros_like(a) if a.dtype == np.bool_ else np.abs(a) for role, a in node.constants.items()}
    return reference.run_graph(replace(graph, nodes=(replace(node, constants=constants),)), {"x": np.abs(x)})["y"]


def _real(stored: np.ndarray, kind: TensorType) -> np.ndarray:
    if kind.encoding is BITS:
        return signs(stored)
    return stored.astype(np.float32) * np.float32(kind.scale) if kind.encoding is I8 else stored


# -- the same layer in LiteRT --------------------------------------------------------------------------------------------------

_PEER_KINDS = {LITERT_INT8: INT8, LITERT_FLOAT: FLOAT}


def peers(shape: Shape, *names: str, threads: int = 1) -> dict[str, Callable[[], object]]:
    """The layer in LiteRT by contender (default: fully integer int8, and float32), XNNPACK on, input in its tensor, results asserted."""
    return {name: _peer(shape, name, threads).invoke for name in names or _PEER_KINDS}


@functools.lru_cache(maxsize=4)
def _peer(shape: Shape, name: str, threads: int) -> LiteRt:
    """A loaded `.tflite` of the layer, whose output for the example equals what edge means by it (int8: within a step)."""
    graph = one_node(shape, _PEER_KINDS[name])
    x = example(graph)
    network = LiteRt(write_tflite(graph, description="benchmark"), threads=threads)
    assert network.delegated, f"XNNPACK does not run {shape.name}, {name}"
    network.put(x)
    network.invoke()
    got = network.stored_output().reshape(shape.output).astype(np.float64)
    made = Layer(shape, _PEER_KINDS[name], graph, x, Engine(to_program(graph)))
    ours = made.engine.run_instruction(0, [x.astype(np.float32)]).astype(np.float64)
    step = OUTPUT_SCALE if name == LITERT_INT8 else 1.0
    allowed = OUTPUT_SCALE * 1.001 if name == LITERT_INT8 else 1e-3 * np.sqrt(shape.macs / got.size)
    assert np.abs(got * step - ours).max() <= allowed, f"{shape.name}: {name} computes something else"
    return network
