"""Networks with int8 activations in both files: every layer of the `.tflite` is fed what the engine has there, and gives the same.

The engine is equal to the reference, and layers with filters in XNNPACK, which scales sums in float32 too, to both. TFLite's own kernels
scale them in fixed point, and both of TFLite's add and take means in another way, so that a value close to the middle between two steps may
come out one step apart, never more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tflite_cases import Net

from edge.converters.bits import Request, choose_bits, measured
from edge.converters.calibration import measure
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.converters.tflite import write_tflite
from edge.engine import Engine
from edge.graph import Array, Graph, Node
from edge.kernels.arithmetic import dequantize
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.tensors import Encoding, TensorType
from edge.widths import Bits

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed, no .tflite can be run")

FUNCTIONAL = Path(__file__).parent / "fixtures" / "keras2_functional.h5"
MODELS = Path(__file__).parents[2] / "shared" / "models" / "mlperf_tiny"
SOURCES = [FUNCTIONAL, *(MODELS / name for name in ("pretrainedResnet.h5", "ad01.h5", "str_ww_ref_model.h5", "vww_96.h5"))]
RESOLVERS = {"xnnpack": litert.OpResolverType.AUTO, "plain": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
MOST_APART = {"xnnpack": 0.0001, "plain": 0.02}  # share of the values of a layer that may be one step apart
TIES = 0.08  # of sums with weights of 2 bits, few and small: many are close to the middle between two steps
HALVES = 0.3  # of means, which TFLite rounds half away from zero, the engine to even; a global mean of 4 x 4 bytes is often a half


def sources() -> list[object]:
    """Ours always; the large ones where they are, in the slow tests."""
    absent = pytest.mark.skip(reason="the MLPerf Tiny models are not in the folder shared beside the repository")
    marks = {path: () if path == FUNCTIONAL else (pytest.mark.slow,) if path.exists() else (pytest.mark.slow, absent) for path in SOURCES}
    return [pytest.param(path, id=path.stem, marks=marks[path]) for path in SOURCES]


def pictures(graph: Graph, count: int) -> Array:
    """Smooth noise in the range of each network's input."""
    shape = graph.types[graph.inputs[0]].shape
    noise = np.random.default_rng(0).normal(size=(count, *shape))
    return (noise * 60 + 128).clip(0, 255).astype(np.float32) if shape == (32, 32, 3) else noise.astype(np.float32)


def lowered(path: Path, bits: Bits) -> tuple[Graph, Array]:
    """The graph that both files are written from, and pictures it was calibrated on."""
    graph = run_passes(read_graph(read_keras(path)))
    examples = pictures(graph, 4)
    request = Request(bits, 8)
    return choose_bits(graph, replace(request, statistics=measure(measured(graph, request), examples))), examples


def alone(graph: Graph, node: Node) -> Graph:
    inputs = tuple(dict.fromkeys(node.inputs))
    types = {name: graph.types[name] for name in (*inputs, node.output)}
    return Graph(node.output, inputs, (node.output,), (node,), types, ("result",))


def results(graph: Graph, resolver: str, runs: list[dict[str, Array]]) -> Iterator[Array]:
    """What the `.tflite` of a graph gives, run by run, as it stores it."""
    interpreter = litert.Interpreter(model_content=write_tflite(graph), num_threads=1, experimental_op_resolver_type=RESOLVERS[resolver])
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    for values in runs:
        yield runner(**{name: values[name][np.newaxis] for name in graph.inputs})["result"][0]


def check_layer(graph: Graph, node: Node, resolver: str, runs: list[dict[str, Array]]) -> None:
    got = np.array(list(results(alone(graph, node), resolver, runs)), np.float64)
    expected = np.array([values[node.output] for values in runs], np.float64)
    if graph.types[node.output].encoding is Encoding.FLOAT32:
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * max(1e-6, np.abs(expected).max()), err_msg=node.output)
        return
    apart = np.abs(got - expected)
    assert apart.max() <= 1, f"{node.op} {node.output}: {apart.max():.0f} steps apart"
    share = {"average_pool2d": HALVES, "add": MOST_APART["plain"]}.get(node.op, MOST_APART[resolver])
    if resolver == "plain" and node.op == "conv2d" and node.constants["filter"].dtype == np.int8 and node.constants["filter"].max() <= 1:
        share = TIES
    most = max(share * apart.size, 1)  # a layer of few values may have one
    assert apart.sum() <= most, f"{node.op} {node.output}: {np.mean(apart):.2%} of the values are a step apart"


@pytest.mark.parametrize("bits", [1, 2, "ternary", 4, 8])
@pytest.mark.parametrize("source", sources())
def test_every_layer_of_both_files_gives_the_same(source: Path, bits: Bits) -> None:
    graph, examples = lowered(source, bits)
    runs = [run_graph(graph, {graph.inputs[0]: picture}) for picture in examples]
    check_engine(graph, examples, runs)
    for node in graph.nodes:
        for resolver in RESOLVERS:
            check_layer(graph, node, resolver, runs)


def check_engine(graph: Graph, examples: Array, runs: list[dict[str, Array]]) -> None:
    """The engine gives what the reference gives, every step of every integer."""
    fused = run_passes(graph, ENGINE_PASSES)
    engine = Engine(to_program(fused))
    for picture, values in zip(examples, runs, strict=True):
        for node, step in zip(fused.nodes, engine.trace(picture), strict=True):
            kind = graph.types[node.output]
            tolerance = 1e-5 if kind.encoding is Encoding.FLOAT32 else 0
            np.testing.assert_allclose(step.output, dequantize(values[node.output], kind), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("stored", [Encoding.BITS, Encoding.INT8])
def test_a_bias_is_as_fine_where_a_sum_has_coarse_steps(stored: Encoding, resolver: str) -> None:
    """Weights of +-1, as signs or as int8: one more in the sum is 20 steps of the output, of which a bias in whole sums loses up to 10."""
    rng = np.random.default_rng(3)
    net = Net(rng).input((6, 6, 4), Encoding.INT8, scale=0.05, zero=3).conv(200, (1, 1), TensorType((1,), Encoding.INT8, 0.1, -5), stored)
    signs = rng.random((200, 1, 1, 4)) < 0.5
    filters = signs if stored is Encoding.BITS else np.where(signs, -1, 1).astype(np.int8)
    bias = rng.uniform(-9, 9, 200).astype(np.float32)
    net.nodes[0] = replace(net.nodes[0], constants={"filter": filters, "scale": np.full(200, 2, np.float32), "bias": bias})
    graph = net.graph()
    run = {"input0": rng.integers(-2, 8, (6, 6, 4)).astype(np.int8)}
    node = graph.nodes[0]
    values = run_graph(graph, run)
    assert np.ptp(values[node.output].astype(int)) > 200
    assert np.abs(next(results(alone(graph, node), resolver, [values])).astype(int) - values[node.output]).max() <= 1
