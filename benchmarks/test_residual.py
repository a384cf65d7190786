"""The convolution that residual networks live on: signs in; PReLU, batch norm, residual; the float stream and its signs out, in one pass.

Its peers are plain 3x3 convolutions of LiteRT, which do less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bench_layers import Shape, conv, peers
from bench_rows import EDGE, LAYERS, RESIDUAL

from edge.engine import Engine
from edge.graph import Graph, Node
from edge.kernels.bitpack import signs
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.tensors import Encoding, TensorType

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'edge-lowbit[litert]'")

SIZES = ((56, 64), (28, 128), (14, 256), (7, 512))


def block(shape: Shape) -> Graph:
    """x -> signs -> convolution + x -> (y, signs of y)."""
    random, channels = np.random.default_rng(shape.macs), shape.channels_out

    def per_channel(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, channels).astype(np.float32)

    constants = {
        "filter": random.random(shape.filter) < 0.5,
        "scale": per_channel(0.01, 0.05), "bias": per_channel(-1, 1), "slope": per_channel(0, 0.5),
        "mul": per_channel(0.5, 2), "add": per_channel(-1, 1),
    }  # fmt: skip
    nodes = (
        Node("binarize", ("x",), "bits", {}, {}),
        Node("residual_conv2d", ("bits", "x"), "y", {**shape.attributes, "relu_after": 0}, constants, signs="s"),
    )
    kinds = {"x": Encoding.FLOAT32, "bits": Encoding.BITS, "y": Encoding.FLOAT32, "s": Encoding.BITS}
    return Graph("block", ("x",), ("y", "s"), nodes, {name: TensorType(shape.input, kind) for name, kind in kinds.items()})


@pytest.mark.parametrize(("size", "channels"), SIZES)
def test_residual_convolution(bench: Any, size: int, channels: int) -> None:
    shape = conv(size, channels, channels, 3)
    graph = block(shape)
    x = np.random.default_rng(0).normal(size=shape.input).astype(np.float32)
    engine = Engine(to_program(graph))
    meant = run_graph(graph, {"x": x})
    for got, name in zip(engine.run(x), graph.outputs, strict=True):
        np.testing.assert_array_equal(got, signs(meant[name]) if meant[name].dtype == np.bool_ else meant[name])
    first, last = engine._ranges()[1]
    contenders = {EDGE: lambda: engine._invoke(first, last), **peers(shape)}
    bench.row(LAYERS, shape.name, RESIDUAL, contenders, work={"binary": shape.macs}, facts={"kernel": engine.kernels[1]})
