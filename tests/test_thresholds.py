"""Thresholds in place of batch norm and activation: they change no sign, whatever the accumulator; and where there can be none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import Layer, conv, dense, norm
from pass_graphs import POOL, RELU, graph_of, rng, same

from edge.converters import thresholds
from edge.converters.passes import run_passes
from edge.graph import Graph
from edge.kernels.reference import run_graph

channels = st.sampled_from([1, 7, 8, 16, 24, 33])


@st.composite
def binary_chains(draw: st.DrawFn) -> Graph:
    """A binary convolution, perhaps a pool, batch norm and an activation, before a second one; sometimes bytes before the first."""
    seed, inputs, middle = draw(st.integers(0, 10**6)), draw(channels), draw(channels)
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = draw(st.integers(4, 8)), draw(st.integers(4, 8)), inputs
    config = {"padding": draw(st.sampled_from(["same", "valid"])), "pad_values": draw(st.sampled_from([0.0, 1.0])),
              "strides": [draw(st.integers(1, 2)), draw(st.integers(1, 3))], "bias": draw(st.booleans())}  # fmt: skip
    if draw(st.booleans()):
        config["kernel_quantizer"] = "magnitude_aware_sign"
    bytes_in = draw(st.booleans())
    if bytes_in:
        config = {**config, "kernel_quantizer": None, "pad_values": 0.0}
        first = [("Rescaling", {"scale": 2.0**-7}, {}), conv(rng(seed), size, inputs, middle, grid=2.0**-6, **config)]
    else:
        first = [conv(rng(seed), size, inputs, middle, sign=True, **config)]
    spread = float(np.sqrt(inputs * size[0] * size[1])) * (10.0 if bytes_in else 1.0)
    pool: list[Layer] = [("MaxPooling2D", {"pool_size": [2, 1], "strides": [1, 1], "padding": "same"}, {})] if draw(st.booleans()) else []
    middle_layers = [*pool, norm(rng(seed + 1), middle, spread=spread)]
    if draw(st.booleans()):
        middle_layers = middle_layers[::-1]
    activation = draw(st.sampled_from([[], [RELU], [("LeakyReLU", {"negative_slope": 0.3, "name": "leaky"}, {})]]))
    after = [norm(rng(seed + 2), middle, name="norm2")] if activation else []
    last = conv(rng(seed + 3), (1, 1), middle, 5, sign=True)
    return graph_of(*first, *middle_layers, *activation, *after, last, shape=shape, dtype="uint8" if bytes_in else "float32")


@settings(max_examples=60, deadline=None)
@given(binary_chains())
def test_thresholds_change_no_bit(graph: Graph) -> None:
    after = run_passes(graph)
    assert "threshold:int32" in after.text() and "scale:float32" in after.text()
    assert not after.notes
    same(graph, after)
    assert run_passes(after).text() == after.text()


@settings(max_examples=20, deadline=None)
@given(binary_chains())
def test_bisection_finds_the_same_thresholds(graph: Graph) -> None:
    expected = run_passes(graph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "EXHAUSTIVE", 1)
        found = run_passes(graph)
    assert found.text() == expected.text()
    same(expected, found)


def test_every_accumulator_gives_the_sign_of_the_float_chain() -> None:
    """A 1x1 convolution of 16 ones and minus ones reaches all its accumulators on 2^16 pixels; here on 17 of them, one each."""
    layers = [conv(rng(), (1, 1), 16, 32, sign=True, bias=True), norm(rng(4), 32, spread=4), dense(rng(), 32, 1, sign=True)]
    graph = graph_of(*layers, shape=(1, 17, 16))
    first = layers[0][2]["kernel"][0, 0, :, :1]
    pixels = np.repeat(np.where(first.T < 0, -1.0, 1.0), 17, axis=0).astype(np.float32)
    for count, pixel in enumerate(pixels):
        pixel[:count] *= -1
    before = run_graph(graph, {"image": pixels[None]})
    after = run_graph(run_passes(graph), {"image": pixels[None]})
    assert set(np.rint(before["layer0"][0, :, 0] - layers[0][2]["bias"][0])) == set(range(-16, 17, 2))
    np.testing.assert_array_equal(before["layer2/binarize"], after["layer2/binarize"])


def test_a_sign_that_changes_twice_stays_float_and_says_so() -> None:
    leaky = ("LeakyReLU", {"negative_slope": -0.8, "name": "leaky"}, {})
    shift = ("Rescaling", {"scale": 1.0, "offset": -2.5}, {})
    graph = graph_of(conv(rng(), (3, 3), 8, 2, name="conv", sign=True), leaky, shift, conv(rng(), (1, 1), 2, 2, sign=True))
    after = run_passes(graph)
    assert "threshold" not in after.text()
    assert "changes more than once" in after.notes["conv"]
    same(graph, after)


def test_channels_that_never_change_are_constants() -> None:
    """Gamma 0: the sign is that of beta, whatever the accumulator."""
    kind, config, weights = norm(rng(), 2)
    weights = {**weights, "gamma": np.zeros(2, np.float32), "beta": np.array([-1, 1], np.float32)}
    after = run_passes(graph_of(conv(rng(), (2, 2), 8, 2, sign=True), (kind, config, weights), dense(rng(), 2, 1, sign=True)))
    node = next(node for node in after.nodes if "threshold" in node.constants)
    assert node.constants["threshold"].tolist() == [33, -32]


def test_the_layers_of_a_packed_node_are_those_it_stands_for() -> None:
    graph = graph_of(
        conv(rng(), (2, 2), 8, 4, name="first", sign=True), POOL, norm(rng(), 4), conv(rng(), (1, 1), 4, 2, name="second", sign=True)
    )
    layers = {node.output: node.layers for node in run_passes(graph).nodes}
    assert layers["first/bits"] == ("first",)
    assert layers["second/binarize"] == ("pool", "norm")
    assert layers["second"] == ("second",)
