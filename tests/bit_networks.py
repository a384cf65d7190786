"""Small networks whose bits are lowered, and what is asked of them before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from keras_models import Layer, conv, dense, kernel, model_of, norm

from edge.converters.bits import Request, choose_bits, measured
from edge.converters.calibration import measure
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.engine import Engine
from edge.graph import Array, Graph, Node, constant_type
from edge.kernels.arithmetic import dequantize
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.tensors import Encoding

RELU = ("ReLU", {}, {})
FLATTEN = ("Flatten", {}, {})
POOL = ("MaxPooling2D", {}, {})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_reference(graph: Graph, pictures: Iterable[Array]) -> Iterator[dict[str, Array]]:
    """`calibration.activations` by the reference interpreter."""
    for picture in pictures:
        values = run_graph(graph, {graph.inputs[0]: picture})
        yield {name: value for name, value in values.items() if graph.types[name].encoding is Encoding.FLOAT32}


def simple(*layers: Layer, shape: tuple[int, ...] = (8, 8, 3), dtype: str = "float32") -> Graph:
    return run_passes(read_graph(model_of(*layers, shape=shape), input_dtype=dtype))


def network(*, softmax: bool = True) -> list[Layer]:
    """Six layers with filters, the first small."""
    depthwise = {"depthwise_kernel": kernel(rng(9), 3, 3, 8, 1), "bias": kernel(rng(8), 8)}
    last = {"activation": "softmax"} if softmax else {}
    return [
        conv(rng(1), (3, 3), 3, 8, name="first", bias=True), norm(rng(2), 8), RELU,
        conv(rng(3), (3, 3), 8, 8, name="second", padding="same"), RELU, POOL,
        ("DepthwiseConv2D", {"kernel_size": 3, "name": "third"}, depthwise), ("LeakyReLU", {}, {}),
        conv(rng(4), (1, 1), 8, 60, name="fourth"), RELU, FLATTEN,
        dense(rng(5), 60, 30, name="fifth", bias=True), ("ELU", {}, {}), dense(rng(6), 30, 4, name="last", bias=True, **last),
    ]  # fmt: skip


def examples(count: int = 6, shape: tuple[int, ...] = (8, 8, 3), *, dtype: str = "float32") -> list[Array]:
    if dtype == "uint8":
        return list(rng(7).integers(0, 256, (count, *shape)).astype(np.uint8))
    return list(rng(7).normal(size=(count, *shape)).astype(np.float32))


def filters(graph: Graph) -> dict[str, Encoding]:
    """The encoding of each filter, by the layer that has it."""
    return {named(node): Encoding(graph.call(node).constants["filter"].encoding) for node in weighted(graph)}


def named(node: Node) -> str:
    return next(name for name in node.layers if not name.startswith("layer"))


def weighted(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if "filter" in node.constants]


def relative_error(before: Graph, after: Graph, pictures: list[Array]) -> float:
    pairs = [[run_graph(g, {g.inputs[0]: x})[g.outputs[0]] for g in (before, after)] for x in pictures]
    largest = max(np.abs(a).max() for a, _ in pairs)
    return float(max(np.abs(a - b).max() for a, b in pairs) / largest)


def lowered(graph: Graph, pictures: list[Array], bits: int, activation_bits: int = 8) -> Graph:
    """`graph` with the statistics that its request wants, as the engine runs it."""
    request = Request(bits, activation_bits)
    statistics = measure(measured(graph, request), pictures)
    return run_passes(choose_bits(graph, replace(request, statistics=statistics)), ENGINE_PASSES)


def signatures(graph: Graph) -> dict[str, tuple[Encoding, Encoding, Encoding]]:
    """Encodings of the input, the filter and the output of each layer with a filter."""
    types = graph.types
    return {named(n): (types[n.inputs[0]].encoding, constant_type(n.constants["filter"]).encoding, types[n.output].encoding)
            for n in weighted(graph)}  # fmt: skip


def assert_engine_equals_reference(graph: Graph, pictures: list[Array]) -> None:
    """Every tensor of every picture; int8 ones in all bits."""
    engine = Engine(to_program(graph))
    for x in pictures:
        values = run_graph(graph, {graph.inputs[0]: x})
        for node, step in zip(graph.nodes, engine.trace(x), strict=True):
            kind = graph.types[node.output]
            tolerance = 0 if kind.encoding is Encoding.INT8 else 1e-5
            np.testing.assert_allclose(step.output, dequantize(values[node.output], kind), rtol=tolerance, atol=tolerance)
