"""Damage by layer and width: the measure, what is measured, its command and its plot."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from bit_networks import network, rng
from click.testing import CliRunner, Result
from keras_files import conv, dense, pool, write_h5
from keras_models import model_of

from edge.cli import cli
from edge.converters.damage import divergence, reference, score
from edge.converters.passes import run_passes
from edge.converters.sensitivity import LOWERED, Sensitivity, layers_of, measured, pattern, sensitivity
from edge.converters.setup import Setup, prepare
from edge.errors import InputError
from edge.lower import to_program
from edge.sensitivity_plot import plot

SHAPE = (8, 8, 3)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["sensitivity", *map(str, args)], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and pictures with classes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(2)
    kernels = [random.normal(size=size).astype(np.float32) / 4 for size in ((3, 3, 3, 8), (1, 1, 8, 8), (8, 3))]
    layers = [conv("first", kernels[0]), conv("middle", kernels[1]), pool(), dense("last", kernels[2], "softmax")]
    write_h5(tmp_path / "model.h5", layers, SHAPE)
    pictures = np.random.default_rng(1).integers(0, 256, (40, *SHAPE), np.uint8)
    np.savez(tmp_path / "pictures.npz", x_train=pictures, y_train=pictures.mean(axis=(1, 2)).argmax(axis=1))
    return tmp_path


# -- the measure ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["probabilities", "logits", "sigmoid", "values", "picture"])
def test_damage_is_none_where_nothing_changes_and_grows(kind: str) -> None:
    raw = rng(1).normal(size=(20, 5))
    power = np.exp(raw)
    real = {"probabilities": power / power.sum(axis=1, keepdims=True), "sigmoid": 1 / (1 + power)}.get(kind, raw)
    assert divergence(real, real, kind) == 0
    mixed = [(1 - share) * real + share * np.roll(real, 1, axis=0) for share in (0.1, 0.3, 0.9)]
    damages = [divergence(real, each, kind) for each in mixed]
    assert 0 < damages[0] < damages[1] < damages[2] < math.inf
    assert divergence(real, np.full_like(real, np.nan), kind) == math.inf


def test_divergence_of_probabilities_is_that_of_kullback_and_leibler() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert divergence(p, q, "probabilities") == pytest.approx(expected)
    assert divergence(np.log(p) + 3, np.log(q) - 1, "logits") == pytest.approx(expected)
    assert divergence(np.array([[0.25]]), np.array([[0.5]]), "sigmoid") == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_values_are_held_against_their_variance() -> None:
    real = np.array([[0.0], [2.0]])
    assert divergence(real, real + 0.5, "values") == pytest.approx(0.25)
    assert divergence(real * 0, real * 0 + 0.5, "values") == pytest.approx(0.25)  # no variance


# -- what is measured ------------------------------------------------------------------------------------------------------------


def setup() -> Setup:
    """Its logits are small, so that probabilities are none of 0 and 1."""
    return prepare(model_of(*network(softmax=False), ("Rescaling", {"scale": 1 / 2048}, {}), shape=SHAPE), "float32", None)


def found(bits: tuple[Any, ...] = LOWERED, activation_bits: int = 8) -> Sensitivity:
    known = setup()
    samples = known.samples(rng(5).normal(size=(24, *SHAPE)).astype(np.float32), ())
    assert samples is not None
    graph = run_passes(known.graph)
    return measured(known, graph, samples, bits=bits, activation_bits=activation_bits, pictures=16, tell=lambda *_: None)


def test_fewer_bits_do_more_damage_in_every_layer() -> None:
    sensitivities = found()
    assert [each.layer.name for each in sensitivities.layers] == ["first", "second", "third", "fourth", "fifth", "last"]
    assert sensitivities.pictures == 16
    for each in sensitivities.layers:
        damages = {bits: score.damage for bits, score in each.scores.items()}
        assert 0 <= damages[8] < 0.01
        if each.layer.name == "third":  # depthwise: below 8 bits its filter stays at 8
            assert set(damages) == {8}
        else:
            assert damages[8] < damages[4] < min(damages[2], damages["ternary"], damages[1])
        assert all(score.changed is not None and score.right is None and score.drop_points is None for score in each.scores.values())


def test_widths_that_a_layer_takes_depend_on_activations() -> None:
    third = found((8, 1), 32).layers[2]
    assert set(third.scores) == {8, 1}


def test_pictures_of_known_classes_give_accuracies(folder: Path) -> None:
    result = sensitivity("model.h5", "pictures.npz", bits=(8, 1), pictures=32)
    for each in result.layers:
        for score_ in each.scores.values():
            assert score_.right is not None and score_.source_right is not None and score_.lost is not None and score_.gained is not None
            assert score_.source_right - score_.lost + score_.gained == score_.right
            assert score_.drop_points == pytest.approx(100 * (score_.source_right - score_.right) / score_.pictures)


def test_labels_that_are_no_classes_are_not_used(folder: Path) -> None:
    known = np.load("pictures.npz")
    np.savez("pictures.npz", x_train=known["x_train"], y_train=known["y_train"] + 1)
    result = invoke("model.h5", "--data", "pictures.npz", "--bits", "1")
    assert "accuracy" not in result.stdout and "expected classes 0 to 2" in result.stderr
    assert "got 3" in json.loads(invoke("model.h5", "--data", "pictures.npz", "--bits", "1", "--json").stdout)["remarks"][0]


def test_a_network_does_itself_no_damage() -> None:
    known = setup()
    samples = known.samples(rng(5).normal(size=(40, *SHAPE)).astype(np.float32), ())
    assert samples is not None
    program = to_program(run_passes(known.graph))
    seen: list[int] = []
    held = reference(program, samples, ["logits"], count=36, tell=seen.append)
    result = score(program, held)
    assert len(held) == 36 and seen == [32, 36] and result.damage == 0 and result.changed == 0


def test_layers_have_names_of_their_own() -> None:
    known = setup()
    layers = layers_of(known.model, run_passes(known.graph))
    assert len({each.name for each in layers}) == len(layers) and all(each.weights > 0 for each in layers)
    assert pattern("a[1]*") == "a[[]1][*]"


# -- the command -----------------------------------------------------------------------------------------------------------------


def test_tables_json_and_a_plot(folder: Path) -> None:
    result = invoke("model.h5", "--data", "pictures.npz", "--bits", "8,1", "--pictures", "20", "--plot", "layers.svg")
    assert result.exit_code == 0 and "wrote layers.svg" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["damage", "weights", "8", "1"]
    assert {"answers", "accuracy"} <= {line.split()[0] for line in lines if line}
    root = ElementTree.fromstring((folder / "layers.svg").read_text())
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"first", "middle", "last", "8-bit", "1-bit"} <= set(texts)
    document = json.loads(invoke("model.h5", "--data", "pictures.npz", "--bits", "8,1", "--pictures", "20", "--json").stdout)
    assert document["pictures"] == 20 and [each["name"] for each in document["layers"]] == ["first", "middle", "last"]
    assert {score["bits"] for score in document["layers"][0]["scores"]} == {8, 1}


def test_names_that_are_markup_are_escaped() -> None:
    result = found((8,))
    odd = Sensitivity("<b>&\x1b", result.pictures, result.bits, 8, result.layers)
    ElementTree.fromstring(plot(odd))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 2, "--data"),
        (("--data", "none.npz"), 1, "there is none"),
        (("--data", "pictures.npz", "--bits", "3"), 2, "expected widths of"),
        (("--data", "pictures.npz", "--bits", "32"), 2, "got '32'"),
        (("--data", "pictures.npz", "--bits", ""), 2, "got ''"),
        (("--data", "pictures.npz", "--pictures", "0"), 2, "--pictures"),
        (("--data", "pictures.npz", "--plot", "a.png"), 1, "ends in .svg"),
        (("--data", "pictures.npz", "--plot", "folder.svg"), 1, "it is a folder"),
        (("--data", "pictures.npz", "--plot", "none/a.svg"), 1, "there is no folder none"),
    ],
)
def test_bad_options_are_refused(folder: Path, options: tuple[str, ...], code: int, words: str) -> None:
    (folder / "folder.svg").mkdir()
    result = invoke("model.h5", *options)
    assert result.exit_code == code and words in result.stderr


def test_networks_without_float_weights_are_refused(tmp_path: Path) -> None:
    known = setup()
    samples = known.samples(rng(5).normal(size=(4, *SHAPE)).astype(np.float32), ())
    assert samples is not None
    graph = run_passes(known.graph)
    empty = Setup(known.model, graph, "float32", None)
    from edge.converters.bits import Request, choose_bits

    with pytest.raises(InputError, match="no layer with float weights"):
        measured(empty, choose_bits(graph, Request(8)), samples, bits=(8,), activation_bits=8, pictures=4, tell=lambda *_: None)
