"""Activations of 4 and 2 bits: which tensors take them, that they take no other levels, and the same in engine, reference and TFLite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bit_networks import (
    FLATTEN,
    POOL,
    assert_engine_equals_reference,
    by_reference,
    examples,
    filters,
    named,
    network,
    relative_error,
    rng,
    simple,
    weighted,
)
from hypothesis import given
from hypothesis import strategies as st
from keras_models import Layer, conv, dense, model_of

import edge
from edge.compare import compare
from edge.compare_layers import EIGHT_BITS, FEW_BITS
from edge.converters import calibration, ranges
from edge.converters.bits import Request, choose_bits, few_levels, measured, requested
from edge.converters.calibration import Statistics, measure
from edge.converters.keras_model import Call
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.converters.ranges import BINS, refined
from edge.converters.recipe_file import read_recipe
from edge.errors import InputError
from edge.graph import Array, Graph
from edge.kernels.reference import run_graph
from edge.tensors import Encoding
from edge.tflite_runner import load_tflite
from edge.widths import MIN_MAX, MSE

FUNCTIONAL = Path(__file__).parent / "fixtures" / "keras2_functional.h5"
SIGNED: list[Layer] = [
    conv(rng(1), (3, 3), 3, 8, name="first"), conv(rng(3), (3, 3), 8, 16, name="second"), POOL, ("ELU", {}, {}),
    conv(rng(4), (1, 1), 16, 60, name="third"), FLATTEN, dense(rng(5), 240, 30, name="fourth", bias=True),
    dense(rng(6), 30, 4, name="last", bias=True),
]  # fmt: skip


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calibration, ranges):
        monkeypatch.setattr(module, "activations", by_reference)


def lowered(graph: Graph, pictures: list[Array], activation_bits: int, bits: int = 8) -> Graph:
    request = Request(bits, activation_bits)
    network = measured(graph, request)
    known = refined(network, pictures, measure(network, pictures), request.ranges, few_levels(network, request))
    return choose_bits(graph, replace(request, statistics=known))


def added() -> Graph:
    """Two branches whose sum, without a ReLU, another layer reads."""
    calls = (
        Call("a", "Conv2D", None, *conv(rng(1), (3, 3), 3, 8, name="a")[1:], ("image",), ("a",)),
        Call("b", "Conv2D", None, *conv(rng(2), (3, 3), 3, 8, name="b")[1:], ("image",), ("b",)),
        Call("sum", "Add", None, {}, {}, ("a", "b"), ("sum",)),
        Call("c", "Conv2D", None, *conv(rng(3), (3, 3), 8, 8, name="c")[1:], ("sum",), ("c",)),
        Call("d", "Conv2D", None, *conv(rng(4), (1, 1), 8, 8, name="d")[1:], ("c",), ("d",)),
    )
    return run_passes(read_graph(model_of(calls=calls, outputs=("d",), output_names=("d",), shape=(8, 8, 3))))


GRAPHS = {"relu": lambda: simple(*network(softmax=False)), "signed": lambda: simple(*SIGNED), "added": added}


@pytest.mark.parametrize("activation_bits", [4, 2])
@pytest.mark.parametrize("graph", GRAPHS)
def test_inner_layers_read_so_many_levels_and_no_others(graph: str, activation_bits: int, _no_engine: None) -> None:
    """Far outside of the range that was calibrated, too."""
    before, pictures = GRAPHS[graph](), examples(12)
    after = lowered(before, pictures, activation_bits)
    first, *inner, last = weighted(before)
    inner = inner[1:] if graph == "added" else inner  # which has two first layers
    real = {node.output: node for node in weighted(before)}
    by_name = {named(real[name]): node for node in weighted(after) if (name := node.output.removesuffix("/low")) in real and
               node.constants["filter"].shape == real[name].constants["filter"].shape}  # fmt: skip
    runs = [run_graph(after, {after.inputs[0]: x}) for x in (*pictures, *(20 * x for x in pictures))]
    for node in inner:
        source = by_name[named(node)].inputs[0]
        kind = after.types[source]
        assert kind.encoding is Encoding.INT8 and 128 - 2**activation_bits <= kind.zero_point <= 127
        taken = np.unique(np.concatenate([values[source].reshape(-1) for values in runs]))
        assert taken[0] >= 128 - 2**activation_bits and len(taken) > 2
    for node in (first, last):
        assert len(np.unique(np.concatenate([values[by_name[named(node)].inputs[0]].reshape(-1) for values in runs]))) > 2**activation_bits


def test_relu_needs_no_other_layer(_no_engine: None) -> None:
    graph, pictures = simple(*network(softmax=False)), examples()
    eight, four = (lowered(graph, pictures, bits) for bits in (8, 4))
    convolutions = [[node.op for node in each.nodes].count("conv2d") for each in (eight, four)]
    assert convolutions[0] == convolutions[1] and filters(eight).keys() == filters(four).keys()
    signed = [len(lowered(simple(*SIGNED), pictures, bits).nodes) for bits in (8, 4)]
    assert signed[1] == signed[0] + 3  # what second, third and fourth read


def test_fewer_bits_are_further_from_the_source(_no_engine: None) -> None:
    graph, pictures = simple(*network(softmax=False)), examples(16)
    errors = [relative_error(graph, lowered(graph, pictures, bits), pictures) for bits in (8, 4, 2)]
    assert errors[0] < errors[1] < errors[2] < 1.5


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("activation_bits", [4, 2])
def test_the_engine_gives_what_the_reference_gives(graph: str, activation_bits: int, _no_engine: None) -> None:
    pictures = examples(3)
    assert_engine_equals_reference(run_passes(lowered(GRAPHS[graph](), pictures, activation_bits, 4), ENGINE_PASSES), pictures)


@pytest.mark.parametrize("bits", [8, 2, 1])
def test_every_width_of_weights_takes_them(bits: int, _no_engine: None) -> None:
    graph, pictures = simple(*network(softmax=False)), examples()
    eight, four = (filters(lowered(graph, pictures, activation_bits, bits)) for activation_bits in (8, 4))
    assert eight == four


# -- ranges ----------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 30), st.sampled_from([2, 4]), st.booleans())
def test_no_range_of_a_fine_grid_is_much_better(seed: int, bits: int, relu: bool) -> None:
    values = np.random.default_rng(seed).normal(0.3, 1.0, 3000)
    values = np.maximum(values, 0) if relu else values
    known = Statistics(float(values.min()), float(values.max()), 0.0)
    histogram = ranges._Histogram(np.zeros(BINS, np.int64))
    histogram.add(values, known)
    found = ranges._refined(known, histogram, MIN_MAX, bits)

    def error(low: float, high: float) -> float:
        step = (high - low) / (2**bits - 1)
        zero = np.rint(-low / step)
        return float((((np.clip(np.rint(values / step) + zero, 0, 2**bits - 1) - zero) * step - values) ** 2).sum())

    lows = [0.0] if relu else np.linspace(0.1, 1, 19) * known.low
    best = min(error(low, high) for low in lows for high in np.linspace(0.1, 1, 37) * known.high)
    assert error(found.low, found.high) <= 1.05 * best
    assert error(found.low, found.high) < error(min(known.low, 0), known.high)


def test_other_tensors_keep_their_ranges(_no_engine: None) -> None:
    graph, pictures = simple(*network(softmax=False)), examples()
    known, few = measure(graph, pictures), few_levels(graph, Request(8, 4))
    found = refined(graph, pictures, known, MIN_MAX, few)
    assert len(few) == 4 and {name for name in known if known[name] != found[name]} == set(few)
    assert not few_levels(graph, Request(8, 8)) and not few_levels(graph, Request(8, 32)) and not few_levels(graph, Request(1, 1))


# -- files -----------------------------------------------------------------------------------------------------------------------


def test_they_need_pictures() -> None:
    with pytest.raises(InputError, match="activation bits 4 need pictures to measure ranges on, got none; give --calibrate"):
        requested(8, 4, calibrated=False)
    assert requested(8, 4, calibrated=True).activation_bits == 4
    for bits in (16, 32):
        with pytest.raises(InputError, match=f"should be 32 with bits {bits}, got 4"):
            requested(bits, 4, calibrated=True)


@pytest.mark.parametrize("activation_bits", [4, 2])
def test_both_files_give_the_same_and_recipes_repeat_them(activation_bits: int, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed, no .tflite can be run")
    edge.convert(FUNCTIONAL, tmp_path / "float.edge", bits=32, formats="edge")
    shape = edge.load(tmp_path / "float.edge").inputs[0].shape
    np.save(tmp_path / "x.npy", rng(3).random((6, *shape)).astype(np.float32))
    options = {"bits": 4, "activation_bits": activation_bits, "calibrate": tmp_path / "x.npy"}
    report = edge.convert(FUNCTIONAL, tmp_path / "few.edge", save_recipe=tmp_path / "few.toml", **options)
    assert report.activation_bits == activation_bits == report.to_json()["activation_bits"]
    pictures = np.load(tmp_path / "x.npy")
    got, expected = (load(tmp_path / f"few.{suffix}").run(pictures) for load, suffix in ((edge.load, "edge"), (load_tflite, "tflite")))
    for ours, theirs in zip(got, expected, strict=True):  # two outputs
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())
    recipe = read_recipe(tmp_path / "few.toml")
    assert recipe.activation_bits == activation_bits and recipe.calibration is not None and recipe.calibration.ranges == MSE
    before = (tmp_path / "few.edge").read_bytes()
    edge.convert(FUNCTIONAL, tmp_path / "few.edge", **{**recipe.arguments(), "calibrate": tmp_path / "x.npy"})
    assert (tmp_path / "few.edge").read_bytes() == before


def test_verification_shows_them_and_does_not_judge(tmp_path: Path) -> None:
    edge.convert(FUNCTIONAL, tmp_path / "float.edge", bits=32, formats="edge")
    pictures = rng(3).random((6, *edge.load(tmp_path / "float.edge").inputs[0].shape)).astype(np.float32)
    precisions = {}
    for bits in (8, 2):
        edge.convert(FUNCTIONAL, tmp_path / "few.edge", bits=8, activation_bits=bits, calibrate=pictures, formats="edge")
        layers = compare(FUNCTIONAL, tmp_path / "few.edge", keras=False, count=4, data=pictures).layers
        precisions[bits] = {layer.precision for layer in layers}
        assert all(layer.tolerance is None for layer in layers if layer.precision == FEW_BITS)
    assert FEW_BITS in precisions[2] and FEW_BITS not in precisions[8] and EIGHT_BITS in precisions[8]
