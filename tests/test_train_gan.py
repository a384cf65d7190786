"""Networks that make pictures: built, trained in turns, resumed, converted, run, and judged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edge
from edge import zoo
from edge.cli import cli
from edge.datasets import Part
from edge.errors import EdgeError, InputError
from edge.pictures import read_picture
from edge.recipes_gan import GANS
from edge.train import Told
from edge.train_gan import settings_for, train
from edge.train_gan_loop import Pair, as_bytes, as_levels, grey_of, run
from edge.train_gan_result import judged, modes_covered, sheet
from edge.train_loop import Epoch, State, read_checkpoint

keras = pytest.importorskip("keras", reason="networks are trained by Keras")

SMALL = {"gan-digits": 1 / 8, "cgan-digits": 1 / 8, "dcgan-faces": 1 / 32, "dcgan-color": 1 / 8}
SHAPES = {"gan-digits": (28, 28, 1), "cgan-digits": (28, 28, 1), "dcgan-faces": (64, 64, 3), "dcgan-color": (32, 32, 3)}
INPUTS = {"gan-digits": ["noise"], "cgan-digits": ["noise", "label"], "dcgan-faces": ["noise"], "dcgan-color": ["grey"]}


DIGITS = Path(edge.__file__).parent / "data" / "digits.edge"


class Killed(Exception):
    """Stands for whatever ends a process."""


def part(shape: tuple[int, ...], count: int, seed: int = 1) -> Part:
    """Pictures whose brightness tells the class."""
    random, y = np.random.default_rng(seed), np.arange(count) % 10
    return Part((random.integers(0, 60, (count, *shape)) + 19 * y.reshape(-1, 1, 1, 1)).astype(np.uint8), y)


def data_file(folder: Path, shape: tuple[int, ...], count: int = 60, **changes: Any) -> str:
    train_part, test_part = part(shape, count), part(shape, 20, 2)
    arrays = {"x_train": train_part.x, "y_train": train_part.y, "x_test": test_part.x, "y_test": test_part.y, **changes}
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


# -- networks ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", zoo.PRECISIONS)
@pytest.mark.parametrize("name", zoo.GENERATORS)
def test_generators_and_discriminators_fit_together_at_every_precision(name: str, precision: str) -> None:
    generator, discriminator = zoo.build(name, precision, width=SMALL[name]), zoo.DISCRIMINATORS[name](precision, width=SMALL[name])
    assert [each.name for each in generator.inputs] == INPUTS[name]
    assert generator.output_shape[1:] == SHAPES[name] and discriminator.output_shape[1:] == (1,)
    conditions = [each.shape for each in generator.inputs if each.name != "noise"]
    assert [each.shape for each in discriminator.inputs] == [generator.output.shape, *conditions]
    hidden = [layer for layer in generator.layers if hasattr(layer, "kernel")]
    kinds = {getattr(layer, "kernel_quantizer", None) is not None for layer in hidden[1:-1]}
    assert kinds == {precision in zoo.QUANTIZED} and not hasattr(hidden[-1], "kernel_quantizer")


@pytest.mark.parametrize("name", zoo.GENERATORS)
def test_at_least_95_percent_of_a_generators_weights_are_signs(name: str) -> None:
    layers = [layer for layer in zoo.build(name, "xnor").layers if hasattr(layer, "kernel")]
    signs = sum(math.prod(layer.kernel.shape) for layer in layers if getattr(layer, "kernel_quantizer", None) is not None)
    assert signs >= 0.95 * sum(math.prod(layer.kernel.shape) for layer in layers)


def feeds_of(engine: Any, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    grey = random.integers(0, 256, (count, 32, 32, 1))
    made = {"noise": random.normal(size=(count, 100)), "label": random.integers(0, 10, (count, 1)), "grey": grey}
    return [made[each.name].astype(each.dtype) for each in engine.inputs]


QUICK = (("gan-digits", "float"), ("cgan-digits", "xnor"))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=() if (name, precision) in QUICK else pytest.mark.slow)
        for name in zoo.GENERATORS
        for precision in ("float", "xnor", "xnor-k", "dorefa-weights", "dorefa-2")
    ],
)
def test_converted_generators_make_keras_pictures(name: str, precision: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    model = zoo.build(name, precision, width=SMALL[name])
    model.save(tmp_path / "model.keras")
    edge.convert(tmp_path / "model.keras", bits=32 if precision == "float" else 1, formats="edge")
    engine = edge.load(tmp_path / "model.edge")
    feeds = feeds_of(engine, 3)
    floats = [feed.astype(np.float32) for feed in feeds]
    expected = np.asarray(model(floats if len(floats) > 1 else floats[0], training=False))
    assert np.isclose(engine.run(*feeds), expected, rtol=0, atol=1e-4).mean() > 0.99, "a sign may differ where a value is almost 0"


# -- turns -------------------------------------------------------------------------------------------------------------------------


def pair(name: str, *, steps: int = 2, seed: int = 0, precision: str = "float", count: int = 40) -> Pair:
    keras.utils.set_random_seed(seed)
    networks = zoo.build(name, precision, width=SMALL[name]), zoo.DISCRIMINATORS[name](width=SMALL[name])
    pictures = part(SHAPES[name], count)
    return Pair(*networks, replace(GANS[name], batch=8), 1e-3, steps, pictures[8:], pictures[:8], seed)


def test_each_network_changes_in_its_own_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, steps = pair("cgan-digits", steps=3), []
    from edge import train_gan_loop

    def watched(original: Any, mine: Any, other: Any) -> Any:
        def step(*args: Any) -> float:
            before = [[np.copy(value) for value in network.get_weights()] for network in (mine, other)]
            loss = original(*args)
            changed = [any((a != b).any() for a, b in zip(network.get_weights(), kept, strict=True))
                       for network, kept in zip((mine, other), before, strict=True)]  # fmt: skip
            assert changed == [True, False]
            steps.append(mine.name)
            return float(loss)

        return step

    monkeypatch.setattr(train_gan_loop, "_tell_apart", watched(train_gan_loop._tell_apart, made.discriminator, made.generator))
    monkeypatch.setattr(train_gan_loop, "_fool", watched(train_gan_loop._fool, made.generator, made.discriminator))
    run(made, tmp_path, 2, told=lambda row: None, batch=lambda *_: None)
    discriminator, generator = made.discriminator.name, made.generator.name
    assert steps == [discriminator, discriminator, discriminator, generator] * 2, "32 pictures, 3 batches of 8 for each step"


def trained(folder: Path, name: str = "cgan-digits", epochs: int = 3, **options: Any) -> tuple[State, list[np.ndarray]]:
    made = pair(name, **options)
    state = run(made, folder, epochs, told=lambda row: None, batch=lambda *_: None)
    return state, [*made.generator.get_weights(), *made.discriminator.get_weights()]


def without_times(curve: list[Epoch]) -> list[Epoch]:
    return [replace(row, seconds=0.0, cpu_seconds=0.0) for row in curve]


def test_a_killed_training_resumes_to_the_same_networks(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    whole, weights = trained(tmp_path)

    def kill(epoch: int, done: int, total: int) -> None:
        if (epoch, done) == (1, 1):
            raise Killed

    with pytest.raises(Killed):
        run(pair("cgan-digits"), tmp_path / "cut", 3, told=lambda row: None, batch=kill)
    assert len(read_checkpoint(tmp_path / "cut").curve) == 1
    resumed, again = trained(tmp_path / "cut")
    assert without_times(resumed.curve) == without_times(whole.curve) and len(whole.curve) == 3
    for one, other in zip(weights, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_seed_reproduces_and_another_does_not(tmp_path: Path) -> None:
    curves = []
    for number, seed in enumerate((1, 1, 2)):
        (tmp_path / str(number)).mkdir()
        curves.append(without_times(trained(tmp_path / str(number), "gan-digits", 1, seed=seed)[0].curve))
    assert curves[0] == curves[1] != curves[2]


def test_colours_come_closer_to_the_real_ones(tmp_path: Path) -> None:
    made = pair("dcgan-color", steps=1, count=72)
    feeds = made.feeds(made.held_back, np.random.default_rng(0))

    def distance() -> float:
        return float(np.abs(made.made(feeds) - as_levels(made.held_back.x)).mean())

    before = distance()
    run(made, tmp_path, 6, told=lambda row: None, batch=lambda *_: None)
    assert distance() < 0.7 * before


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    made = replace(pair("gan-digits"), rate=1e30)
    with pytest.raises(EdgeError, match="diverged: expected finite losses, got nan"):
        run(made, tmp_path, 3, told=lambda row: None, batch=lambda *_: None)


# -- runs --------------------------------------------------------------------------------------------------------------------------

TRIED = (("cgan-digits", "xnor"),)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=() if (name, precision) in TRIED else pytest.mark.slow)
        for name in GANS
        for precision in ("float", "xnor")
    ],
)
def test_an_epoch_trains_converts_and_makes_pictures(name: str, precision: str, tmp_path: Path) -> None:
    data = data_file(tmp_path, SHAPES[name])
    settings = settings_for(name, precision=precision, width=SMALL[name], epochs=1, data=data, discriminator_steps=2)
    told: list[str] = []
    result = train(settings, tmp_path / "run", told=Told(say=told.append))
    file = result["files"][precision]
    assert file["pictures"] == 20 and file["bytes"] == (tmp_path / "run" / "model.edge").stat().st_size
    assert 0 <= result["validation"] <= 1 and result["discriminator_steps"] == 2 and result["command"].endswith("--discriminator-steps 2")
    assert (file["one_bit_share"] > 0.3) == (precision == "xnor")
    assert ("levels_off" in file) == (name == "dcgan-color") and "judged" not in file
    assert bool(told) == (GANS[name].judge is not None) and all("no classifier judges" in text for text in told)
    assert read_picture(tmp_path / "run" / "samples.png").shape[1] == 10 * SHAPES[name][1]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert train(settings, tmp_path / "run", resume=True) == result


def test_the_command_trains_and_the_file_makes_the_picture_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GANS, "cgan-digits", replace(GANS["cgan-digits"], batch=16))  # type: ignore[misc]
    data, folder = data_file(tmp_path, (28, 28, 1)), tmp_path / "run"
    arguments = ["train", "cgan-digits", "--data", data, "--epochs", "1", "--width", "0.1", "-o", str(folder)]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 0 and "told apart" in found.output and "20 pictures, by the engine" in found.output, found.output
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=100).astype(np.float32))
    asked = ["run", "-m", str(folder / "model.edge"), "--input", "label=3", "--input", f"noise={tmp_path / 'noise.npy'}"]
    found = CliRunner().invoke(cli, [*asked, "-o", str(tmp_path / "three.png")])
    assert found.exit_code == 0 and read_picture(tmp_path / "three.png").shape == (28, 28, 1), found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lenet", "--classifier", "x.edge"], "--classifier and --discriminator-steps are for networks that make pictures: gan-digits"),
        (["lenet", "--discriminator-steps", "2"], "are for networks that make pictures"),
        (["gan-digits", "--tensorboard"], "--tensorboard is for networks that classify"),
        (["gan-digits", "--discriminator-steps", "0"], "0 is not in the range"),
        (["gan", "--epochs", "1"], "there is no recipe 'gan', expected one of lenet"),
        (["dcgan-faces", "--epochs", "1"], "there is no data set 'faces', expected one of mnist"),
    ],
)
def test_wrong_arguments_are_answered_in_a_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["train", *arguments, "-o", str(tmp_path / "run")])
    assert result.exit_code in (1, 2) and said in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_train": np.arange(60)}, r"makes pictures of 10 classes, from 0, but the labels of the train pictures are \(60,\) up to 59"),
        ({"y_test": np.zeros((20, 2), int)}, r"labels of the test pictures are \(20, 2\) up to 0"),
        ({"x_train": np.zeros((4, 28, 28), np.uint8), "y_train": np.zeros(4, int)}, "needs 10 pictures or more, got 4"),
    ],
)
def test_data_that_cannot_be_made_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    settings = settings_for("cgan-digits", width=1 / 8, epochs=1, data=data_file(tmp_path, (28, 28, 1), **changes))
    with pytest.raises(InputError, match=said):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_ratio_is_another_run(tmp_path: Path) -> None:
    assert settings_for("gan-digits").name == "gan-digits-float"
    assert settings_for("gan-digits", discriminator_steps=1, seed=2).name == "gan-digits-float-seed2-1to1"
    with pytest.raises(InputError, match="1 step or more for each of the generator, got 0"):
        settings_for("gan-digits", discriminator_steps=0)


# -- the judge ---------------------------------------------------------------------------------------------------------------------


def brightness(dtype: str = "uint8") -> Any:
    """A classifier of `part`'s pictures: an engine as far as the judge looks."""

    def classify(pixels: np.ndarray) -> np.ndarray:
        levels = pixels.astype(np.float32) * (1 if dtype == "uint8" else 255)
        return -np.abs((levels.mean((1, 2, 3)) - 29.5)[:, np.newaxis] / 19 - np.arange(10))

    return SimpleNamespace(inputs=(SimpleNamespace(shape=(28, 28, 1), dtype=dtype),), run=classify)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_judge_tells_modes_and_what_was_asked(dtype: str) -> None:
    pictures = part((28, 28, 1), 1200)
    assert judged(brightness(dtype), pictures.x, pictures.y) == {"modes": 10, "of": 10, "as_asked": 1.0}
    of_three = pictures.x[pictures.y < 3]
    assert judged(brightness(dtype), of_three) == {"modes": 3, "of": 10}
    assert judged(brightness(dtype), pictures.x, np.zeros(1200, int))["as_asked"] == 0.1


def test_a_judge_of_other_pictures_is_refused_before_the_training(tmp_path: Path) -> None:
    settings = settings_for("dcgan-color", width=1 / 8, epochs=1, data=data_file(tmp_path, (32, 32, 3)))
    other = r"digits\.edge takes \[\(.*\)\], but pictures to be judged are \(32, 32, 3\); give another"
    for classifier, said in ((DIGITS, other), (tmp_path / "none", "none")):
        with pytest.raises(InputError, match=said):
            train(settings, tmp_path / "run", classifier=classifier, resume=True)
    assert not (tmp_path / "run" / "curve.csv").exists()


def test_generators_are_listed_and_shown() -> None:
    listed = CliRunner().invoke(cli, ["zoo", "list"])
    assert listed.exit_code == 0 and all(name in listed.output for name in zoo.GENERATORS)
    shown = CliRunner().invoke(cli, ["zoo", "show", "cgan-digits", "--precision", "xnor", "--width", "0.25"])
    assert shown.exit_code == 0 and "noise 100 and label 1" in " ".join(shown.output.split())
    assert "gan-digits" in CliRunner().invoke(cli, ["train", "--list"]).output


def test_a_class_counts_from_a_tenth_of_its_share() -> None:
    classes = np.repeat(np.arange(4), (989, 10, 1, 0))
    assert modes_covered(classes, 10) == 2 and modes_covered(np.arange(10), 10) == 10


def test_pictures_become_bytes_and_sheets() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(as_bytes(as_levels(levels)), levels)
    assert as_bytes(np.array([-3.0, 3.0])).tolist() == [0, 255]
    np.testing.assert_array_equal(grey_of(np.full((2, 3, 4, 3), 200, np.uint8)), np.full((2, 3, 4, 1), 200))
    assert sheet(np.zeros((25, 28, 28, 1), np.uint8)).shape == (56, 280, 1) and sheet(np.zeros((4, 8, 8, 3), np.uint8)).shape == (8, 32, 3)
