"""A network that guesses on labelled pictures was likely trained on other pixels, and every command that measures it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import write_h5
from run_models import document, invoke

import edge
from edge.chance import doubt, is_guessing
from edge.preprocess import preset

CLASSES, SHAPE = 10, (4, 4, 1)
SAID = "the source itself is right for 10.0 % of 40 pictures, near the 10 % of guessing: likely it was trained on other pixels than 0..1; "
ADVICE = "the --preset of its training, such as byte (0..255)"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class of a picture of one brightness, where pixels are 0..255; at 0..1 all are the darkest."""
    folder = tmp_path_factory.mktemp("chance")
    level = np.arange(CLASSES) * 25.0 + 12.0  # -(x - level)^2 is largest for the nearest
    kernel = np.tile(2 * level / 16, (16, 1)).astype(np.float32)
    layers = [
        ("Flatten", {"name": "flat"}, {}),
        ("Dense", {"name": "dense", "units": CLASSES, "activation": "linear"}, {"kernel": kernel, "bias": -(level**2).astype(np.float32)}),
    ]
    return write_h5(folder / "model.h5", layers, SHAPE, loss="sparse_categorical_crossentropy")


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    """40 pictures, four of each class."""
    y = np.arange(40) % CLASSES
    x = np.broadcast_to((y * 25 + 12).astype(np.uint8)[:, None, None, None], (40, *SHAPE))
    np.savez(model.with_name("data.npz"), x=x, y=y)
    np.savez(model.with_name("floats.npz"), x=x / np.float32(255), y=y)
    return model.with_name("data.npz")


@pytest.mark.parametrize(
    ("accuracy", "classes", "pictures", "guesses"),
    [
        (0.1, 10, 20, True),
        (0.1, 10, 19, False),
        (0.18, 10, 1000, True),
        (0.2, 10, 1000, False),
        (0.52, 2, 1000, True),
        (0.6, 2, 1000, False),
        (0.05, 1000, 1000, True),
    ],
)
def test_guessing_is_less_than_a_tenth_beyond_chance(accuracy: float, classes: int, pictures: int, guesses: bool) -> None:
    assert is_guessing(accuracy, classes, pictures) is guesses


def test_without_classes_or_pictures_nothing_is_doubted() -> None:
    assert doubt(None, 10, 100, preset("unit")) == doubt(0.1, None, 100, preset("unit")) == doubt(0.1, 10, 100, None) == ()
    (sentence,) = doubt(0.1, 10, 100, preset("byte"))
    assert sentence.endswith("other pixels than 0..255; give the --preset of its training, such as unit (0..1)")


@pytest.mark.parametrize("command", ["convert", "sensitivity", "verify"])
def test_the_preset_is_named_where_the_source_guesses(command: str, model: Path, data: Path, tmp_path: Path) -> None:
    def warned(pictures: Path, *options: Any) -> str:
        edge.convert(model, tmp_path, bits=32, formats=("edge",), preprocess=options[1] if options else None)
        given = {"convert": ["--bits", 32, "-o", tmp_path], "sensitivity": ["--bits", 8], "verify": [tmp_path / "model.edge"]}[command]
        ran = invoke(command, model, *given, "--data", pictures, *(options if command != "verify" else ()))
        assert ran.exit_code == 0, ran.output
        return " ".join(ran.stderr.split())

    assert f"warning: {SAID}{'convert it again with' if command == 'verify' else 'give'} {ADVICE}" in warned(data)
    assert "guessing" not in warned(data, "--preset", "byte")
    assert "guessing" not in warned(data.with_name("floats.npz"))  # what the network sees was given: no preset changes it


def test_programs_get_the_sentence_too(model: Path, data: Path, tmp_path: Path) -> None:
    edge.convert(model, tmp_path, bits=32, formats=("edge",))
    (remark,) = document(invoke("verify", model, tmp_path / "model.edge", "--data", data, "--json"))["remarks"]
    assert remark.startswith(SAID)


@pytest.mark.slow
def test_a_teacher_that_guesses_is_named_before_it_teaches(model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="networks are trained by Keras")
    with np.load(data) as file:
        np.savez(tmp_path / "many.npz", x=file["x"].repeat(6, axis=0), y=file["y"].repeat(6))
    given = ["--data", tmp_path / "many.npz", "--layer", "dense=1", "--epochs", 1, "-o", tmp_path / "low.keras"]
    ran = invoke("finetune", model, *given)
    assert ran.exit_code == 0, ran.output
    assert "give the --preset of its training, such as byte (0..255)" in ran.stderr.partition("epoch 1/1")[0]
