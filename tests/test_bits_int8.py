"""Weights of 1 bit between activations of 8: what the values are then, how far they move, and that the engine gives them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bit_networks import (
    FLATTEN,
    RELU,
    assert_engine_equals_reference,
    by_reference,
    examples,
    lowered,
    named,
    network,
    relative_error,
    rng,
    signatures,
    simple,
    weighted,
)
from keras_models import conv, dense

from edge.converters import calibration
from edge.converters.bits import Request, choose_bits, measured
from edge.converters.calibration import measure
from edge.tensors import Encoding


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "activations", by_reference)


def test_1_bit_weights_read_and_give_int8() -> None:
    graph = simple(*network(softmax=False))
    after = lowered(graph, examples(), 1)
    int8, bits, float32 = Encoding.INT8, Encoding.BITS, Encoding.FLOAT32
    assert signatures(after) == {
        "first": (int8, int8, int8), "second": (int8, bits, int8), "third": (int8, int8, int8),
        "fourth": (int8, bits, int8), "fifth": (int8, bits, float32), "last": (int8, int8, float32),
    }  # fmt: skip
    assert "as its input has 8; --activation-bits 32 packs it" in after.notes["third"] and "second" not in after.notes
    assert "first layer stays at 8 bits" in after.notes["first"]


def test_a_large_first_layer_of_1_bit_reads_the_bytes_of_a_picture() -> None:
    layers = (conv(rng(1), (3, 3), 3, 64, name="first"), RELU, conv(rng(2), (1, 1), 64, 8, name="second"), RELU, FLATTEN)
    graph = simple(*layers, dense(rng(3), 288, 2, name="last"), dtype="uint8")
    pictures = examples(dtype="uint8")
    after = lowered(graph, pictures, 1)
    assert signatures(after)["first"] == (Encoding.UINT8, Encoding.BITS, Encoding.INT8)
    assert relative_error(lowered(graph, pictures, 1, 32), after, pictures) < 0.1


def test_alpha_is_part_of_the_multiplier_and_ranges_are_those_of_the_1_bit_network() -> None:
    graph, pictures = simple(*network()), examples()
    request = Request(1, 8)
    weights = measured(graph, request)
    statistics = measure(weights, pictures)
    after = choose_bits(graph, replace(request, statistics=statistics))
    node, before = (next(n for n in weighted(g) if named(n) == "second") for g in (after, weights))
    source, output = after.types[node.inputs[0]], after.types[node.output]
    np.testing.assert_allclose(node.constants["scale"], before.constants["scale"] * np.float32(source.scale), rtol=1e-6)
    np.testing.assert_array_equal(node.constants["filter"], before.constants["filter"])
    found = statistics[before.output]
    assert output.scale == pytest.approx((max(found.high, 0) - min(found.low, 0)) / 255, rel=1e-6)
    assert found != measure(graph, pictures)[before.output]


def test_int8_activations_move_a_1_bit_network_little() -> None:
    graph, pictures = simple(*network(softmax=False)), examples()
    assert relative_error(measured(graph, Request(1, 8)), lowered(graph, pictures, 1), pictures) < 0.1


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_engine_gives_what_the_reference_gives_at_1_and_8_bits(dtype: str) -> None:
    rescale = [("Rescaling", {"scale": 1 / 64}, {})] if dtype == "uint8" else []
    pictures = examples(dtype=dtype)
    graph = lowered(simple(*rescale, *network(softmax=False), dtype=dtype), pictures, 1)
    assert_engine_equals_reference(graph, pictures)
