"""Weights of 4, 2 and 1 bits and ternary ones: the best scales, rounding by pictures, which layers get them, networks that have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bit_networks import (
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
from keras_models import conv

import edge
from edge.converters import calibration, rounding
from edge.converters.bits import Request, choose_bits, measured, requested
from edge.converters.calibration import measure
from edge.converters.layer_bits import parsed
from edge.converters.levels import LEVELS, fitted_scales, narrowest, on_levels
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.converters.report import Report
from edge.converters.rewriting import new_node
from edge.errors import InputError
from edge.graph import Array, Graph, Node
from edge.kernels.reference import run_graph
from edge.tensors import Encoding
from edge.tflite_runner import load_tflite
from edge.widths import Bits

WIDTHS: tuple[Bits, ...] = (4, 2, "ternary")
ROUNDED: tuple[Bits, ...] = (*WIDTHS, 1)
FUNCTIONAL = Path(__file__).parent / "fixtures" / "keras2_functional.h5"


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calibration, rounding):
        monkeypatch.setattr(module, "activations", by_reference)


# -- scales --------------------------------------------------------------------------------------------------------------------


def squared_error(weights: Array, scale: Array, bits: Bits) -> Array:
    error = weights - scale[:, None] * LEVELS[bits].nearest(weights / scale[:, None])
    return (error**2).sum(axis=1)


@pytest.mark.parametrize("bits", ROUNDED)
def test_no_scale_on_a_fine_grid_is_much_better(bits: Bits) -> None:
    weights = rng(1).normal(size=(12, 60)) * np.geomspace(1e-3, 10, 12)[:, None]
    found = squared_error(weights, fitted_scales(weights, LEVELS[bits]), bits)
    largest = np.abs(weights).max(axis=1)
    grid = [squared_error(weights, largest * part, bits) for part in np.linspace(0.02, 1.2, 400)]
    assert (found <= np.min(grid, axis=0) * 1.03).all()


@pytest.mark.parametrize("bits", WIDTHS)
def test_weights_on_levels_are_found_again(bits: Bits) -> None:
    levels = LEVELS[bits]
    whole = rng(2).integers(levels.low, levels.high + 1, (6, 3, 3, 8))
    whole[:, 0, 0, :2] = levels.low, levels.high  # the whole range is there
    node = simple(conv(rng(3), (3, 3), 8, 6, name="only"), shape=(8, 8, 8)).nodes[0]
    scale = np.geomspace(0.01, 2, 6).astype(np.float32)
    found = on_levels(replace(node, constants={"filter": (whole * scale.reshape(-1, 1, 1, 1)).astype(np.float32)}), levels)
    np.testing.assert_allclose(found["filter"] * found["scale"].reshape(-1, 1, 1, 1), whole * scale.reshape(-1, 1, 1, 1), rtol=1e-5)


def test_weights_of_zero_stay_zero() -> None:
    scale = fitted_scales(np.zeros((2, 5)), LEVELS[2])
    assert np.isfinite(scale).all() and (scale != 0).all()


# -- which layers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "stored"), [(4, Encoding.INT4), (2, Encoding.INT2), ("ternary", Encoding.INT2)])
def test_inner_layers_have_them_and_say_why_others_do_not(bits: Bits, stored: Encoding) -> None:
    graph = run_passes(choose_bits(simple(*network()), Request(bits)), ENGINE_PASSES)
    int8 = Encoding.INT8
    assert filters(graph) == {"first": int8, "second": stored, "third": int8, "fourth": stored, "fifth": stored, "last": int8}
    assert f"--layer NAME={bits}" in graph.notes["first"] and "depthwise" in graph.notes["third"]
    ternary = next(node for node in weighted(graph) if named(node) == "second").constants["filter"]
    assert bits != "ternary" or ternary.min() >= -1


def test_layers_have_bits_of_their_own() -> None:
    layers = (("f*", 8), ("fifth", "ternary"), ("second", 32), ("first", 4), ("last", 1))
    graph = run_passes(choose_bits(simple(*network()), Request(2, layers=layers)), ENGINE_PASSES)
    found = filters(graph)
    assert found["first"] is Encoding.INT4 and found["fourth"] is Encoding.INT8 and found["fifth"] is Encoding.INT2
    assert found["second"] is Encoding.FLOAT32 and found["last"] is Encoding.BITS
    assert "first" not in graph.notes


@pytest.mark.parametrize("bits", [1, 8, 32])
def test_every_width_takes_other_bits_for_some_layers(bits: int) -> None:
    graph = run_passes(choose_bits(simple(*network()), Request(bits, layers=(("second", 4),))), ENGINE_PASSES)
    assert filters(graph)["second"] is Encoding.INT4


def test_a_layer_may_stay_float_between_int8_ones(_no_engine: None) -> None:
    graph, pictures = simple(*network(softmax=False)), examples()
    request = Request(8, 8, layers=(("second", 32),))
    after = choose_bits(graph, replace(request, statistics=measure(measured(graph, request), pictures)))
    assert filters(after)["second"] is Encoding.FLOAT32 and filters(after)["fourth"] is Encoding.INT8
    assert relative_error(graph, after, pictures) < 0.1


def test_patterns_that_match_nothing_name_what_is_near() -> None:
    with pytest.raises(InputError, match=r"--layer 'secnd' should match layers with weights, but matches none; near it are second"):
        choose_bits(simple(*network()), Request(4, layers=(("secnd", 8),)))


@pytest.mark.parametrize("text", ["second", "=4", "second=", ""])
def test_patterns_have_a_form(text: str) -> None:
    with pytest.raises(InputError, match="takes PATTERN=BITS"):
        parsed(text)


def test_patterns_are_parsed() -> None:
    assert parsed("a=b*=4") == ("a=b*", 4) and parsed("x=ternary") == ("x", "ternary")


@pytest.mark.parametrize(("bits", "activations"), [(3, 32), ("two", 32), (4, 1), (2, 1), ("ternary", 3)])
def test_bits_that_do_not_exist_are_refused(bits: Bits, activations: int) -> None:
    with pytest.raises(InputError, match="should be"):
        Request(bits, activations)
    with pytest.raises(InputError, match="bits should be one of"):
        Request(8, layers=(("a", 5),))


def test_pictures_bring_int8_activations() -> None:
    assert [requested(bits, None, calibrated=True).activation_bits for bits in WIDTHS] == [8, 8, 8]
    assert [requested(bits, None, calibrated=False).activation_bits for bits in WIDTHS] == [32, 32, 32]


def test_the_narrowest_encoding_holds_all_values() -> None:
    node = simple(conv(rng(3), (3, 3), 8, 6, name="only"), shape=(8, 8, 8)).nodes[0]
    expected = {(-2, 1): Encoding.INT2, (-1, 2): Encoding.INT4, (-8, 7): Encoding.INT4, (-9, 0): Encoding.INT8, (0, 8): Encoding.INT8}
    for (low, high), encoding in expected.items():
        whole = np.array([low, high] * 216, np.int8).reshape(6, 3, 3, 8)
        assert narrowest(replace(node, constants={"filter": whole})) is encoding
        assert narrowest(replace(node, op="depthwise_conv2d", constants={"filter": whole})) is Encoding.INT8


# -- rounding by pictures ------------------------------------------------------------------------------------------------------


def rounded(graph: Graph, bits: Bits, pictures: list[Array], activation_bits: int = 32) -> Graph:
    request = rounding.with_rounded(graph, Request(bits, activation_bits), pictures)
    if activation_bits == 8:
        request = replace(request, statistics=measure(measured(graph, request), pictures))
    return choose_bits(graph, request)


@pytest.mark.parametrize("bits", ROUNDED)
def test_pictures_bring_the_network_nearer_to_its_source(bits: Bits, _no_engine: None) -> None:
    graph, pictures, others = simple(*network(softmax=False)), examples(24), list(rng(70).normal(size=(12, 8, 8, 3)).astype(np.float32))

    def error(after: Graph) -> float:
        pairs = [[run_graph(g, {g.inputs[0]: x})[g.outputs[0]] for g in (graph, after)] for x in others]
        return float(np.mean([(a - b) ** 2 for a, b in pairs]))

    assert error(rounded(graph, bits, pictures)) < 0.8 * error(choose_bits(graph, Request(bits)))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_error_of_a_layer_is_the_least_that_one_change_reaches(groups: int, _no_engine: None) -> None:
    """After the sweeps no weight alone has a better level, by the pictures themselves."""
    random = rng(4)
    h = np.cov(random.normal(size=(300, 12)) @ random.normal(size=(12, 12)), rowvar=False) + 0.1 * np.eye(12)
    target, levels = random.normal(size=(5, 12)), LEVELS[2 * groups]
    scale = fitted_scales(target, levels)
    whole = rounding._column_by_column(target, scale, h, levels)
    for _ in range(20):
        whole = rounding._swept(target, scale, whole, h, levels)

    def error(q: Array) -> Array:
        rest = target - scale[:, None] * q
        return np.einsum("ok,kl,ol->o", rest, h, rest)

    least = error(whole)
    for k in range(12):
        for step in (-1, 1):
            other = whole.copy()
            other[:, k] = np.clip(other[:, k] + step, levels.low, levels.high)
            assert (error(other) >= least * (1 - 1e-9)).all()


def test_a_sum_with_a_tensor_that_is_there_is_seen() -> None:
    graph = simple(*network(softmax=False))
    node = next(node for node in weighted(graph) if named(node) == "second")
    last = graph.types[node.output]
    doubled = new_node("add", (node.output, node.output), "twice", ())
    beside = new_node("add", (node.output, node.inputs[0]), "sum", ())

    def ending(add: Node) -> Graph:
        nodes = (*graph.nodes[: graph.nodes.index(node)], plain, add)
        return replace(graph, nodes=nodes, outputs=(add.output,), types={**graph.types, add.output: last})

    plain = replace(node, attrs={**node.attrs, "activation": 0})
    assert rounding._added_to(ending(beside), plain) == node.inputs[0]
    assert rounding._added_to(ending(doubled), plain) == ""


def test_pictures_out_of_range_are_refused(_no_engine: None) -> None:
    with np.errstate(all="ignore"), pytest.raises(InputError, match="infinite"):
        rounding.with_rounded(simple(*network()), Request(4), [np.full((8, 8, 3), 3e38, np.float32)] * 2)


def test_signs_are_rounded_by_pictures(_no_engine: None) -> None:
    graph, pictures = simple(*network(softmax=False)), examples(24)
    before, after = choose_bits(graph, Request(1)), rounded(graph, 1, pictures)
    assert filters(after) == filters(before)
    plain, found = ({named(node): node.constants for node in weighted(each)} for each in (before, after))
    changed = [name for name in plain if not np.array_equal(plain[name]["filter"], found[name]["filter"])]
    assert {"second", "fourth", "fifth"} <= {*changed} and "first" not in changed and "third" not in changed
    assert all("bias" in found[name] and found[name]["filter"].dtype == np.bool_ for name in ("second", "fourth", "fifth"))


def test_filters_of_zeros_stay_zero_with_signs(_no_engine: None) -> None:
    layers = network(softmax=False)
    layers[3][2]["kernel"][..., 2] = 0
    node = next(node for node in weighted(rounded(simple(*layers), 1, examples(24))) if named(node) == "second")
    assert node.constants["scale"][2] == 0 and (np.delete(node.constants["scale"], 2) > 0).all()


def test_signs_of_signs_and_trained_signs_are_left_alone(_no_engine: None) -> None:
    pictures = examples(4)
    graph = simple(*network(softmax=False))
    assert rounding.with_rounded(graph, Request(1, 1), pictures) == Request(1, 1)
    trained = simple(conv(rng(1), (3, 3), 3, 8, name="first"), conv(rng(3), (3, 3), 8, 8, name="second", sign=True))
    for activation_bits in (8, 32):
        assert rounding.with_rounded(trained, Request(1, activation_bits), pictures) == Request(1, activation_bits)


@pytest.mark.parametrize("bits", ROUNDED)
def test_the_engine_gives_what_the_reference_gives(bits: Bits, _no_engine: None) -> None:
    pictures = examples(4, dtype="uint8")
    layers = [("Rescaling", {"scale": 1 / 64}, {}), *network(softmax=False)]
    graph = run_passes(rounded(simple(*layers, dtype="uint8"), bits, pictures, 8), ENGINE_PASSES)
    assert_engine_equals_reference(graph, pictures)


def stored_bytes(report: Report) -> int:
    return sum(row.bytes_after for row in report.layers)


# -- files -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ROUNDED)
@pytest.mark.parametrize("calibrated", [False, True])
def test_files_are_smaller_and_both_give_the_same(bits: Bits, calibrated: bool, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed, no .tflite can be run")
    info = edge.convert(FUNCTIONAL, tmp_path / "float.edge", bits=32, formats="edge")
    shape = edge.load(tmp_path / "float.edge").inputs[0].shape
    pictures = rng(3).random((6, *shape)).astype(np.float32)
    given = {"calibrate": pictures} if calibrated else {}
    eight = edge.convert(FUNCTIONAL, tmp_path / "eight.edge", bits=8, formats="edge", **given)
    report = edge.convert(FUNCTIONAL, tmp_path / "few.edge", bits=bits, **given)
    assert report.activation_bits == (8 if calibrated else 32) and report.to_json()["bits"] == bits
    assert stored_bytes(report) < stored_bytes(eight) < stored_bytes(info)
    assert {row.bits_after for row in report.layers} & {1, 2, 4}
    assert any("--calibrate PICTURES" in message for message in report.messages) != calibrated
    got, expected = (load(tmp_path / f"few.{suffix}").run(pictures) for load, suffix in ((edge.load, "edge"), (load_tflite, "tflite")))
    for ours, theirs in zip(got, expected, strict=True):  # two outputs
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max() if calibrated else 1e-4)
    first = (tmp_path / "few.edge").read_bytes()
    edge.convert(FUNCTIONAL, tmp_path / "few.edge", bits=bits, **given)
    assert (tmp_path / "few.edge").read_bytes() == first
