"""Lowering precision: which layers end at how many bits, what the values are then, and how far they move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bit_networks import (
    FLATTEN,
    RELU,
    by_reference,
    examples,
    filters,
    lowered,
    named,
    network,
    relative_error,
    rng,
    signatures,
    simple,
    weighted,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import Layer, conv, dense, model_of, norm

from edge.converters import calibration
from edge.converters.bits import Request, choose_bits, is_binarized, requested
from edge.converters.calibration import Statistics, measure
from edge.converters.int8 import to_int8
from edge.converters.keras_model import Call
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.passes_exact import real_weights
from edge.errors import InputError
from edge.graph import Node
from edge.kernels.reference import run_graph
from edge.tensors import Encoding


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "activations", by_reference)


# -- 32 and 8 bits -------------------------------------------------------------------------------------------------------------


def test_32_bits_change_nothing() -> None:
    graph = simple(*network())
    assert choose_bits(graph, Request(32)).text() == graph.text()


def test_8_bits_without_calibration_store_weights_alone() -> None:
    graph = simple(*network())
    after = choose_bits(graph, Request(8))
    assert set(filters(after).values()) == {Encoding.INT8}
    assert {kind.encoding for kind in after.types.values()} == {Encoding.FLOAT32}
    assert relative_error(graph, after, examples()) < 0.03
    assert choose_bits(after, Request(8)).text() == after.text()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6), st.booleans())
def test_int8_weights_are_within_half_a_step(seed: int, size: float, zeros: bool) -> None:
    weights = (rng(seed).normal(size=(5, 2, 3, 4)) * size).astype(np.float32)
    if zeros:
        weights[2] = 0
    node = to_int8(Node("conv2d", ("x",), "y", {}, {"filter": weights}))
    stored, scale = node.constants["filter"], node.constants["scale"]
    assert stored.dtype == np.int8 and np.abs(stored.astype(int)).max() == 127
    assert (np.abs(real_weights(node) - weights) <= scale.reshape(-1, 1, 1, 1) * 0.5001).all()


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_8_bits_with_calibration_are_integer_between_input_and_the_last_layer(dtype: str) -> None:
    rescale = [("Rescaling", {"scale": 1 / 64}, {})] if dtype == "uint8" else []
    graph = simple(*rescale, *network(softmax=False), dtype=dtype)
    pictures = examples(dtype=dtype)
    after = choose_bits(graph, Request(8, 8, measure(graph, pictures)))
    signatures = [(node.op, after.types[node.inputs[0]].encoding, after.types[node.output].encoding) for node in weighted(after)]
    first = Encoding.UINT8 if dtype == "uint8" else Encoding.INT8
    int8 = Encoding.INT8
    assert signatures == [
        ("conv2d", first, int8),
        ("conv2d", int8, int8),
        ("depthwise_conv2d", int8, int8),
        ("conv2d", int8, int8),
        ("dense", int8, Encoding.FLOAT32),  # ELU is a float operation
        ("dense", int8, Encoding.FLOAT32),
    ]
    assert relative_error(graph, after, pictures) < 0.1


def test_joins_and_scalings_stay_integer() -> None:
    """Sums have a scale of their own, concatenations and pools share one, batch norm alone becomes a depthwise convolution."""
    scale = norm(rng(4), 4)
    calls = (
        Call("a", "Conv2D", None, conv(rng(1), (3, 3), 3, 4)[1], conv(rng(1), (3, 3), 3, 4)[2], ("image",), ("a",)),
        Call("b", "Conv2D", None, conv(rng(2), (3, 3), 3, 4)[1], conv(rng(2), (3, 3), 3, 4)[2], ("image",), ("b",)),
        Call("sum", "Add", None, {}, {}, ("a", "b"), ("sum",)),
        Call("norm", "BatchNormalization", None, scale[1], scale[2], ("sum",), ("norm",)),
        Call("joined", "Concatenate", None, {}, {}, ("norm", "b"), ("joined",)),
        Call("pool", "AveragePooling2D", None, {}, {}, ("joined",), ("pool",)),
    )
    graph = run_passes(read_graph(model_of(calls=calls, outputs=("pool", "sum"), output_names=("pool", "sum"), shape=(8, 8, 3))))
    pictures = examples()
    after = choose_bits(graph, Request(8, 8, measure(graph, pictures)))
    assert [node.op for node in after.nodes] == [
        "quantize", "conv2d", "conv2d", "add", "depthwise_conv2d", "concat", "average_pool2d", "dequantize", "dequantize",
    ]  # fmt: skip
    shared = {(after.types[name].scale, after.types[name].zero_point) for name in ("norm", "b", "joined", "pool")}
    assert len(shared) == 1 and (after.types["sum"].scale, after.types["sum"].zero_point) not in shared
    for x in pictures:
        expected, got = (run_graph(g, {"image": x}) for g in (graph, after))
        for before_name, after_name in zip(graph.outputs, after.outputs, strict=True):
            step = after.types["pool"].scale
            np.testing.assert_allclose(got[after_name], expected[before_name], atol=4 * step)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_zero_is_exact_in_every_range(low: float, high: float) -> None:
    from edge.converters.int8 import int8_type

    kind = int8_type((1,), min(low, high, 0.0), max(low, high, 0.0))
    assert -128 <= kind.zero_point <= 127
    ends = np.array([min(low, high, 0.0), max(low, high, 0.0)])
    stored = np.rint(ends / kind.scale) + kind.zero_point
    assert (stored >= -128.6).all() and (stored <= 127.6).all()


def test_calibration_refuses_no_pictures_and_values_that_have_no_steps() -> None:
    graph = simple(*network())
    with pytest.raises(InputError, match="at least one picture, got none"):
        measure(graph, [])
    for far in (2e12, 3e38, np.nan):
        with pytest.raises(InputError, match=r"reaches (nan|inf|\d.*), expected at most 1.1e\+12; check the range of the pictures"):
            measure(graph, [np.full((8, 8, 3), far, np.float32)])


def test_statistics_are_over_all_pictures() -> None:
    graph = simple(RELU, shape=(2,))
    found = measure(graph, [np.array([-1, 3], np.float32), np.array([5, 1], np.float32)], deviations=True)
    assert found["image"] == Statistics(-1.0, 5.0, 2.0, 2.0)
    assert found["layer0"] == Statistics(0.0, 5.0, 2.25, 1.75)


# -- 1 bit ---------------------------------------------------------------------------------------------------------------------


def test_1_bit_keeps_the_first_and_last_layer_at_8() -> None:
    after = choose_bits(simple(*network()), Request(1))
    int8, bits = Encoding.INT8, Encoding.BITS
    assert filters(after) == {"first": int8, "second": bits, "third": bits, "fourth": bits, "fifth": bits, "last": int8}
    assert "first layer stays at 8 bits" in after.notes["first"] and "last layer stays at 8 bits" in after.notes["last"]
    assert "second" not in after.notes


def test_a_large_first_layer_is_binarized_too() -> None:
    graph = simple(dense(rng(), 100, 50, name="first"), RELU, dense(rng(1), 50, 10, name="last"), shape=(100,))
    assert filters(choose_bits(graph, Request(1))) == {"first": Encoding.BITS, "last": Encoding.INT8}


def test_branches_have_several_first_and_last_layers() -> None:
    def call(name: str, source: str, inputs: int) -> Call:
        _, config, weights = conv(rng(), (1, 1), inputs, 4 if name != "middle" else 60)
        return Call(name, "Conv2D", None, config, weights, (source,), (name,))

    calls = (call("a", "image", 3), call("middle", "a", 4), call("left", "middle", 60), call("right", "middle", 60))
    graph = run_passes(read_graph(model_of(calls=calls, outputs=("left", "right"), output_names=("l", "r"), shape=(8, 8, 3))))
    kept = {name for name, kind in filters(choose_bits(graph, Request(1))).items() if kind is Encoding.INT8}
    assert kept == {"a", "left", "right"}


def test_alpha_is_the_mean_size_of_a_filter() -> None:
    graph = simple(*network())
    after = choose_bits(graph, Request(1))
    before = {named(node): node for node in weighted(graph)}
    for node in weighted(after):
        if node.constants["filter"].dtype == np.bool_:
            weights = before[named(node)].constants["filter"]
            axes = tuple(range(weights.ndim - 1)) if node.op == "depthwise_conv2d" else tuple(range(1, weights.ndim))
            np.testing.assert_allclose(node.constants["scale"], np.abs(weights).mean(axis=axes), rtol=1e-6)
            np.testing.assert_array_equal(node.constants["filter"], weights < 0)


def test_1_bit_activations_are_signs_around_the_mean() -> None:
    graph = simple(*network())
    pictures = examples()
    statistics = measure(graph, pictures, deviations=True)
    after = choose_bits(graph, Request(1, 1, statistics))
    packed = {named(node): node for node in weighted(after) if after.types[node.inputs[0]].encoding is Encoding.BITS}
    assert {"second", "fourth"} <= set(packed)
    assert "a depthwise convolution sums too few signs" in after.notes["third"]
    sign = next(node for node in after.nodes if node.op == "binarize" and node.output == packed["second"].inputs[0])
    source = next(node.inputs[0] for node in weighted(graph) if named(node) == "second")
    np.testing.assert_allclose(sign.constants["add"], -statistics[source].mean, rtol=1e-6)
    assert choose_bits(after, Request(32)).text() == after.text()


def test_1_bit_activations_without_calibration_say_so() -> None:
    after = choose_bits(simple(*network()), Request(1, 1))
    assert "give --calibrate" in after.notes["second"]


def test_the_constant_part_of_an_input_joins_the_bias() -> None:
    """Inputs that are all equal to the mean: the layer gives what it gives for that constant, with weights alpha * sign(w)."""
    graph = simple(
        conv(rng(1), (1, 1), 3, 4, name="first"), conv(rng(2), (1, 1), 4, 40, name="second"), conv(rng(3), (1, 1), 40, 1, name="last")
    )
    middle = next(node for node in weighted(graph) if node.layers == ("second",))
    statistics = {name: Statistics(-1, 1, 0.75, 0.0) for name in graph.types}
    after = choose_bits(graph, Request(1, 1, statistics))
    node = next(node for node in weighted(after) if node.layers == ("second",))
    weights = middle.constants["filter"]
    expected = (np.abs(weights).mean(axis=(1, 2, 3), keepdims=True) * np.sign(weights)).sum(axis=(1, 2, 3)) * 0.75
    got = run_graph(after, {"image": np.ones((8, 8, 3), np.float32)})[node.output]
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=1e-5, atol=1e-5)


# -- networks trained with signs -----------------------------------------------------------------------------------------------


def binary_network() -> list[Layer]:
    return [
        conv(rng(1), (3, 3), 3, 8, name="first"), norm(rng(2), 8), conv(rng(3), (3, 3), 8, 8, name="second", sign=True),
        norm(rng(4), 8, name="norm2"), FLATTEN, dense(rng(5), 128, 4, name="last"),
    ]  # fmt: skip


def test_trained_signs_are_recognised() -> None:
    assert is_binarized(simple(*binary_network()))
    assert not is_binarized(simple(*network()))


def test_1_bit_leaves_a_binarized_network_as_trained() -> None:
    graph = simple(*binary_network())
    after = choose_bits(graph, Request(1))
    assert after.text() == graph.text()
    assert "kept in float32; --bits 8" in after.notes["first"] and "kept in float32; --bits 8" in after.notes["last"]
    assert "second" not in after.notes


def test_int8_activations_of_a_binarized_network_are_those_of_8_bits() -> None:
    """Its float layers become integer, since int8 activations have integer filters."""
    graph, pictures = simple(*binary_network()), examples()
    at_1, at_8 = (lowered(graph, pictures, bits) for bits in (1, 8))
    assert at_1.text() == at_8.text()
    assert signatures(at_1)["first"] == (Encoding.INT8, Encoding.INT8, Encoding.BITS)
    assert not any("--bits 8" in note for note in at_1.notes.values())


@pytest.mark.parametrize("bits", [1, 8])
def test_weights_trained_as_signs_on_float_activations_keep_them_on_int8(bits: int) -> None:
    quantizer: Any = {"kernel_quantizer": "magnitude_aware_sign"}
    weights = [("QuantConv2D", {**conv(rng(1), (3, 3), 3, 8)[1], **quantizer, "name": name}, conv(rng(n), (3, 3), n, 8)[2])
               for name, n in (("first", 3), ("second", 8))]  # fmt: skip
    graph = simple(weights[0], RELU, weights[1], RELU, FLATTEN, dense(rng(5), 128, 4, name="last"))
    pictures = examples()
    after = lowered(graph, pictures, bits)
    packed = (Encoding.INT8, Encoding.BITS, Encoding.INT8)
    assert signatures(after) == {"first": packed, "second": packed, "last": (Encoding.INT8, Encoding.INT8, Encoding.FLOAT32)}
    assert relative_error(graph, after, pictures) < 0.1


def test_8_bits_before_a_pool_and_a_sign_are_sums_with_thresholds() -> None:
    """Not int8 values, whose steps would move signs: the sign of the pooled sums, packed before the pool."""
    hidden = conv(rng(3), (3, 3), 8, 8, sign=True, name="hidden")
    calls = (conv(rng(1), (3, 3), 3, 8, name="first"), ("MaxPooling2D", {"name": "pool"}, {}), norm(rng(2), 8), hidden)
    graph = simple(*calls, ("Flatten", {}, {}), dense(rng(4), 8, 5, name="last"))
    pictures = examples()
    after = choose_bits(graph, Request(8, 8, measure(graph, pictures)))
    assert [node.op for node in after.nodes][:4] == ["quantize", "conv2d", "max_pool2d", "conv2d"]
    assert after.types[after.nodes[1].output].encoding is Encoding.BITS
    assert filters(after) == {"first": Encoding.INT8, "hidden": Encoding.BITS, "last": Encoding.INT8}


def test_relu_that_cannot_be_fused_stays_integer() -> None:
    calls = (
        Call("a", "Conv2D", None, *conv(rng(1), (3, 3), 3, 4, name="a")[1:], ("image",), ("a",)),
        Call("relu", "ReLU", None, {}, {}, ("a",), ("relu",)),
        Call("b", "Conv2D", None, *conv(rng(2), (3, 3), 4, 4, name="b", padding="same")[1:], ("relu",), ("b",)),
        Call("sum", "Add", None, {}, {}, ("a", "b"), ("sum",)),
    )
    graph = run_passes(read_graph(model_of(calls=calls, outputs=("sum",), output_names=("sum",), shape=(8, 8, 3))))
    pictures = examples()
    after = choose_bits(graph, Request(8, 8, measure(graph, pictures)))
    assert [node.op for node in after.nodes] == ["quantize", "conv2d", "depthwise_conv2d", "conv2d", "add", "dequantize"]
    assert relative_error(graph, after, pictures) < 0.1


def test_8_bits_lower_only_the_float_layers_of_a_binarized_network() -> None:
    graph = simple(*binary_network())
    pictures = examples()
    after = choose_bits(graph, Request(8, 8, measure(graph, pictures)))
    assert filters(after) == {"first": Encoding.INT8, "second": Encoding.BITS, "last": Encoding.INT8}
    first = next(node for node in weighted(after) if "first" in node.layers)
    assert "threshold" in first.constants  # an int8 layer before a sign has thresholds too
    assert after.verify("8 bits")


# -- what can be asked ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "activation_bits", "says"),
    [
        (3, 32, "bits should be one of 1, 2, ternary, 4, 8, 16, 32, got 3"),
        (8, 1, "should be 2, 4, 8 or 32 with bits 8, got 1$"),
        (32, 8, "should be 32 with bits 32, got 8$"),
        (1, 16, "should be 1, 2, 4, 8 or 32 with bits 1, got 16$"),
        (1, "8", "with bits 1, got '8'$"),
    ],
)
def test_other_widths_are_refused(bits: int, activation_bits: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Request(bits, activation_bits)


@pytest.mark.parametrize(("bits", "calibrated", "expected"), [(1, True, 8), (8, True, 8), (32, True, 32), (1, False, 32), (8, False, 32)])
def test_activations_are_lowered_by_default_where_they_can_be_measured(bits: int, calibrated: bool, expected: int) -> None:
    assert requested(bits, None, calibrated=calibrated) == Request(bits, expected)
    assert requested(bits, 32, calibrated=calibrated) == Request(bits, 32)


@pytest.mark.parametrize("bits", [1, 8])
def test_8_bit_activations_need_pictures(bits: int) -> None:
    with pytest.raises(InputError, match="need pictures to measure ranges on, got none; give --calibrate"):
        requested(bits, 8, calibrated=False)
