"""Biases after rounding: the means of layers stay, layers that are exact or rounded by pictures are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bit_networks import FLATTEN, RELU, by_reference, examples, named, network, rng, simple, weighted
from keras_models import Layer, conv, dense, kernel

from edge.converters import biases, calibration, rounding
from edge.converters.biases import with_shifts
from edge.converters.bits import Request, choose_bits, measured
from edge.converters.calibration import measure
from edge.errors import InputError
from edge.graph import Array, Graph
from edge.kernels.reference import run_graph
from edge.widths import Bits

DEPTHWISE = {"depthwise_kernel": kernel(rng(9), 3, 3, 4, 3)}
KINDS: dict[str, list[Layer]] = {
    "conv": [conv(rng(1), (3, 3), 4, 6, padding="same", strides=2, bias=True)],
    "groups": [("Conv2D", {"filters": 6, "kernel_size": 3, "groups": 2, "use_bias": False}, {"kernel": kernel(rng(2), 3, 3, 2, 6)})],
    "depthwise": [("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 3, "use_bias": False, "padding": "same"}, DEPTHWISE)],
    "dense": [FLATTEN, dense(rng(3), 8 * 8 * 4, 5)],
    "dilated": [conv(rng(4), (3, 3), 4, 6, dilation_rate=2), RELU],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (biases, calibration, rounding):
        monkeypatch.setattr(module, "activations", by_reference)


def means(graph: Graph, tensor: str, pictures: list[Array]) -> Array:
    values = [run_graph(graph, {graph.inputs[0]: x})[tensor] for x in pictures]
    return np.mean([value.reshape(-1, value.shape[-1]).mean(axis=0, dtype=np.float64) for value in values], axis=0)


def layers(graph: Graph) -> dict[str, dict[str, Array]]:
    return {named(node): node.constants for node in weighted(graph)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 1])
def test_the_mean_of_a_layer_stays(kind: str, bits: Bits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "MAX_TERMS", 0)
    graph = simple(*KINDS[kind], shape=(8, 8, 4))
    node, pictures = weighted(graph)[0], [x + 0.5 for x in examples(8, (8, 8, 4))]
    plain = replace(node, attrs={**node.attrs, "activation": 0})
    graph = replace(graph, nodes=tuple(plain if each is node else each for each in graph.nodes))
    request = Request(8, layers=(("*", bits),))
    before, after = choose_bits(graph, request), choose_bits(graph, with_shifts(graph, request, pictures))
    expected = means(graph, node.output, pictures)
    errors = [np.abs(means(each, node.output, pictures) - expected).max() for each in (before, after)]
    assert errors[1] < 1e-5 < errors[0]


def test_int8_layers_have_it_in_their_biases() -> None:
    graph, pictures = simple(*network(softmax=False)), examples()
    request = Request(8, 8, measure(graph, pictures))
    found = with_shifts(graph, request, pictures)
    assert set(found.shifts) == {node.output for node in weighted(graph)}
    before, after = (layers(choose_bits(graph, each)) for each in (request, found))
    for node in weighted(graph):
        constants = after[named(node)]
        added = constants["bias"] - before[named(node)].get("bias", np.float32(0))
        np.testing.assert_allclose(added, found.shifts[node.output], atol=1.01 * constants["scale"].max())


def test_the_answers_are_nearer() -> None:
    graph, pictures = simple(*network(softmax=False)), [x + 0.5 for x in examples(24)]

    def error(request: Request) -> float:
        after = choose_bits(graph, replace(request, statistics=measure(measured(graph, request), pictures)))
        pairs = [[run_graph(g, {g.inputs[0]: x})[g.outputs[0]] for g in (graph, after)] for x in pictures]
        return float(np.mean([(a - b) ** 2 for a, b in pairs]))

    assert error(with_shifts(graph, Request(8, 8), pictures)) < error(Request(8, 8))


@pytest.mark.parametrize("bits", [32, 16])
def test_layers_of_more_bits_are_left_alone(bits: Bits) -> None:
    graph, pictures = simple(*network()), examples()
    request = Request(8, 32, layers=(("second", bits),))
    found = with_shifts(graph, request, pictures)
    second = next(node.output for node in weighted(graph) if named(node) == "second")
    assert second not in found.shifts and len(found.shifts) == 5
    expected, got = (layers(choose_bits(graph, each))["second"] for each in (request, found))
    assert expected.keys() == got.keys() and all(np.array_equal(expected[role], got[role]) for role in got)
    assert with_shifts(graph, Request(bits), []) == Request(bits)


def test_layers_that_pictures_round_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, pictures = simple(*network()), examples()
    request = rounding.with_rounded(graph, Request(4), pictures)
    names = {node.output: named(node) for node in weighted(graph)}
    assert {names[output] for output in with_shifts(graph, request, pictures).shifts} == {"first", "third"}
    monkeypatch.setattr(rounding, "MAX_TERMS", 65)
    request = rounding.with_rounded(graph, Request(4), pictures)
    assert {names[output] for output in with_shifts(graph, request, pictures).shifts} == {"first", "second", "third"}


def test_signs_are_left_alone() -> None:
    trained = simple(conv(rng(1), (3, 3), 3, 8, name="first"), conv(rng(3), (3, 3), 8, 8, name="second", sign=True))
    found = with_shifts(trained, Request(8), examples())
    assert set(found.shifts) == {weighted(trained)[0].output}
    graph = simple(*network())
    names = {node.output: named(node) for node in weighted(graph)}
    assert {names[output] for output in with_shifts(graph, Request(1, 1), examples()).shifts} == {"first", "last"}


def test_pictures_out_of_range_are_refused() -> None:
    with np.errstate(all="ignore"), pytest.raises(InputError, match="infinite"):
        with_shifts(simple(*network()), Request(8), [np.full((8, 8, 3), 3e38, np.float32)] * 2)
