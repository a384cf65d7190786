"""Convolutions alone: multiply-accumulates a second of one thread, equality with the reference first."""

from __future__ import annotations

import statistics
from typing import Any

import bench_report
import numpy as np
import pytest
from bench_timing import interleave

from edge.engine import Engine
from edge.graph import Graph, Node
from edge.kernels.bitpack import signs
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.ops import NO_ACTIVATION
from edge.tensors import Encoding, TensorType

SIZES = ((56, 64), (28, 128), (14, 256), (7, 512))  # height and width, channels: the stages of a residual network
# input, filter and output of a kernel: packed signs, int8, float32
KINDS = {
    "signs to signs": (Encoding.BITS, "bool", Encoding.BITS),
    "signs to float32": (Encoding.BITS, "bool", Encoding.FLOAT32),
    "int8 to int8": (Encoding.INT8, "int8", Encoding.INT8),
    "float32 to float32": (Encoding.FLOAT32, "float32", Encoding.FLOAT32),
}
ATTRIBUTES = {
    "stride_h": 1, "stride_w": 1, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1,
    "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, **NO_ACTIVATION,
}  # fmt: skip
ROWS: list[dict[str, Any]] = []


def convolution(kind: str, size: int, channels: int) -> Graph:
    """A 3x3 convolution with random filters, as many channels out as in."""
    source, filters, output = KINDS[kind]
    random = np.random.default_rng(size)
    shape = (channels, 3, 3, channels)
    stored = {
        "bool": lambda: random.random(shape) < 0.5,
        "int8": lambda: random.integers(-127, 128, shape).astype(np.int8),
        "float32": lambda: random.normal(size=shape).astype(np.float32),
    }[filters]()
    constants = {"filter": stored}
    if output is Encoding.BITS:
        constants["threshold"] = random.integers(-20, 20, channels).astype(np.int32)
    else:
        constants["bias"] = random.normal(size=channels).astype(np.float32)
        if filters != "float32":
            constants["scale"] = random.random(channels).astype(np.float32) / 1000
    scale = 0.05 if output is Encoding.INT8 else 1.0
    types = {"x": TensorType((size, size, channels), source), "y": TensorType((size, size, channels), output, scale)}
    return Graph("convolution", ("x",), ("y",), (Node("conv2d", ("x",), "y", ATTRIBUTES, constants),), types)


def example(graph: Graph) -> np.ndarray:
    """A random input, as the reference takes it."""
    kind, random = graph.types["x"], np.random.default_rng(0)
    if kind.encoding is Encoding.BITS:
        return random.random(kind.shape) < 0.5
    if kind.encoding is Encoding.INT8:
        return random.integers(-128, 128, kind.shape).astype(np.int8)
    return random.normal(size=kind.shape).astype(np.float32)


@pytest.mark.parametrize(("size", "channels"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_convolution(benchmark: Any, kind: str, size: int, channels: int) -> None:
    graph = convolution(kind, size, channels)
    engine = Engine(to_program(graph))
    x = example(graph)
    values = signs(x) if x.dtype == np.bool_ else x.astype(np.float32)
    expected = run_graph(graph, {"x": x})["y"]
    got = engine.run_instruction(0, [values])
    real = {Encoding.BITS: signs, Encoding.INT8: lambda q: q.astype(np.float32) * np.float32(graph.types["y"].scale)}
    wanted = real.get(graph.types["y"].encoding, lambda y: y)(expected)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4 if graph.types["y"].encoding is Encoding.FLOAT32 else 1e-6)

    timing = interleave(benchmark, "edge", lambda: engine._invoke(0, len(engine._calls)), {}, calls=10, rounds=60)["edge"]
    macs = size * size * channels * channels * 9
    ROWS.append({
        "kind": kind, "size": f"{size} x {size} x {channels}", "kernel": engine.kernels[0],
        "median_us": bench_report.microseconds(timing.median_s), "gmac_per_s": round(macs / timing.median_s / 1e9),
    })  # fmt: skip


def teardown_module() -> None:
    if len(ROWS) < len(SIZES) * len(KINDS):
        return
    columns = {"kind": "kind", "image": "size", "kernel": "kernel", "median, µs": "median_us", "G MAC/s": "gmac_per_s"}
    means = {kind: statistics.geometric_mean(row["gmac_per_s"] for row in ROWS if row["kind"] == kind) for kind in KINDS}
    notes = [f"{kind}: {mean:,.0f} G MAC/s, geometric mean" for kind, mean in means.items()]
    title = "3x3 convolutions, as many channels out as in, one thread"
    print("\n" + bench_report.Report(title, ROWS, columns, bench_report.environment(threads=1), notes).write("conv"))
