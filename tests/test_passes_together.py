"""All passes one after the other: float networks keep their values, and what is quantized alike is quantized once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras_models import conv, dense, kernel, norm
from pass_graphs import FLATTEN, POOL, RELU, graph_of, outputs, read_twice, rng, same

from edge.converters.passes import PASSES, run_passes
from edge.converters.passes_quantized import share_quantized
from edge.graph import Graph
from edge.kernels.reference import run_graph


def magnitudes(graph: Graph, seed: int = 1) -> list[np.ndarray]:
    """For each output of `outputs` the sum of the magnitudes that were added up to it: the same network with all signs taken away."""
    nodes = tuple(replace(node, constants={name: np.abs(values) for name, values in node.constants.items()}) for node in graph.nodes)
    positive = replace(graph, nodes=nodes)
    examples = np.abs(rng(seed).normal(size=(3, *graph.types[graph.inputs[0]].shape))).astype(np.float32)
    return [run_graph(positive, {graph.inputs[0]: x})[name] for x in examples for name in graph.outputs]


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
@example(305, False, True)
def test_float_networks_keep_their_values(seed: int, pooled: bool, flat: bool) -> None:
    pool = [POOL] if pooled else []
    tail = [FLATTEN, dense(rng(seed), (16 if pooled else 64) * 5, 3, bias=True)] if flat else [dense(rng(seed), 5, 3)]
    depthwise = {"kernel_size": 3, "padding": "same", "use_bias": False}, {"depthwise_kernel": kernel(rng(seed), 3, 3, 4, 1)}
    graph = graph_of(
        ("ZeroPadding2D", {"padding": 1}, {}), conv(rng(seed), (3, 3), 3, 4, bias=True), norm(rng(seed), 4), RELU, *pool,
        ("DepthwiseConv2D", *depthwise), norm(rng(seed + 1), 4, name="norm2"),
        conv(rng(seed), (1, 1), 4, 5), ("LeakyReLU", {"name": "leaky"}, {}), *tail, shape=(8, 8, 3),
    )  # fmt: skip
    after = run_passes(graph)
    # Folding rounds every weight anew. Each term of a sum may so move by some 2^-24 of its magnitude, whatever the terms add up to: where
    # they nearly cancel, that is much of the sum.
    for before, folded, summed in zip(outputs(graph), outputs(after), magnitudes(graph), strict=True):
        assert (np.abs(folded - before) <= 2.0**-22 * summed).all()
    assert [node.op for node in after.nodes].count("affine") == 0
    assert run_passes(after).text() == after.text()


@pytest.mark.parametrize("quantizer", ["dorefa_quantizer", "ste_tern", "ste_heaviside", "quantized_bits(4,1)", "quantized_relu(11,3)"])
def test_a_tensor_that_two_layers_quantize_alike_is_quantized_once(quantizer: str) -> None:
    graph = read_twice(quantizer)
    shared, apart = run_passes(graph), run_passes(graph, tuple(step for step in PASSES if step is not share_quantized))
    same(apart, shared)
    assert [node.op for node in shared.nodes].count("conv2d") == 2
    assert not any(node.output.startswith("b/") for node in shared.nodes) and len(shared.nodes) < len(apart.nodes)
    assert any(node.layers == ("a", "b") for node in shared.nodes)


def test_other_levels_of_the_same_tensor_are_its_own() -> None:
    graph = read_twice("dorefa_quantizer", "quantized_relu(3,1)")
    assert share_quantized(graph) == graph
