"""Bits by layer for a limit: the limit holds for the file that is written, the choice is the best there is, and it repeats."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from keras_files import conv, dense, pool, write_h5

import edge
from edge.cli import cli
from edge.cli_search import duration, size
from edge.converters.search import Goal
from edge.errors import InputError
from edge.format import read
from edge.targets.latency import latency_on

SHAPE = (10, 10, 3)
PI = "raspberry-pi-4"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, args)], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four layers, pictures, and its answers as classes."""
    folder = tmp_path_factory.mktemp("search")
    random = np.random.default_rng(2)
    sizes = ((3, 3, 3, 16), (3, 3, 16, 32), (1, 1, 32, 64), (64, 4))
    kernels = [random.normal(size=each).astype(np.float32) / np.sqrt(np.prod(each[:-1])) for each in sizes]
    relu = {"activation": "relu"}
    layers = [conv("a", kernels[0], **relu), conv("b", kernels[1], **relu), conv("c", kernels[2], **relu), pool()]
    write_h5(folder / "model.h5", [*layers, dense("last", kernels[3] * 4, "softmax")], SHAPE)
    pictures = random.integers(0, 256, (80, *SHAPE), np.uint8)
    edge.convert(folder / "model.h5", bits=32, formats="edge")
    classes = edge.load(folder / "model.edge").run(pictures.astype(np.float32) / np.float32(255)).argmax(axis=1)
    np.savez(folder / "pictures.npz", x_train=pictures, y_train=classes.astype(np.int64))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("model.h5", "pictures.npz"):
        (tmp_path / name).symlink_to(made / name)
    return tmp_path


def bytes_of(name: str = "model.edge") -> int:
    return Path(name).stat().st_size


def digest(name: str = "model.edge") -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


def uniform(bits: Any) -> int:
    """Bytes with all layers at one width."""
    edge.convert("model.h5", "uniform.edge", bits=8, calibrate="pictures.npz", layers={"*": bits}, formats="edge")
    return bytes_of("uniform.edge")


# -- limits ----------------------------------------------------------------------------------------------------------------------


def test_the_file_keeps_the_budget_and_repeats(folder: Path) -> None:
    low, high = uniform(2), uniform(8)
    budget = (low + high) // 2
    result = invoke("model.h5", "--data", "pictures.npz", "--budget", budget, "--save-recipe", "r.toml", "--plot", "front.svg")
    assert result.exit_code == 0, result.output
    assert low < bytes_of() <= budget
    assert "held back" in result.stdout and "wrote front.svg" in result.stderr
    ElementTree.fromstring(Path("front.svg").read_text())
    first = digest()
    Path("model.edge").unlink()
    assert invoke("model.h5", "--recipe", "r.toml").exit_code == 0 and digest() == first


def test_a_larger_budget_does_no_more_damage(folder: Path) -> None:
    low, high = uniform(2), uniform(8)
    choices = []
    for budget in (low + 200, (low + high) // 2, high + 2000):
        report = edge.convert("model.h5", formats="edge", calibrate="pictures.npz", goal=Goal(budget_bytes=budget))
        assert report.choice is not None and report.choice.file_bytes == bytes_of() <= budget
        choices.append(report.choice)
    assert choices[0].expected_damage > choices[1].expected_damage > choices[2].expected_damage
    assert choices[2].measured.damage < choices[0].measured.damage
    assert all(each.bits in (8, 4) for each in choices[2].layers) and len({each.bits for each in choices[1].layers}) > 1
    for before, after in itertools.pairwise(choices[0].front):
        assert before.cost < after.cost and before.damage > after.damage
    eight = choices[2].uniform[8]
    assert eight.damage >= choices[2].expected_damage and abs(eight.cost - high) < 1000


def test_a_budget_that_cannot_be_met_names_the_smallest(folder: Path) -> None:
    result = invoke("model.h5", "--data", "pictures.npz", "--budget", "1KB")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and not Path("model.edge").exists()
    smallest = int(result.stderr.split("takes ")[1].split(";")[0].replace(",", ""))
    assert invoke("model.h5", "--data", "pictures.npz", "--budget", smallest).exit_code == 0 and bytes_of() <= smallest


@pytest.mark.parametrize("limit", [0.0, 5.0, 100.0])
def test_a_limit_on_accuracy_is_measured_on_pictures_held_back(folder: Path, limit: float) -> None:
    report = edge.convert("model.h5", formats="edge", calibrate="pictures.npz", goal=Goal(max_drop_points=limit))
    choice = report.choice
    assert choice is not None and choice.measured.pictures == 40 and choice.measured.drop_points is not None
    assert choice.measured.drop_points <= limit and choice.tried
    assert report.agreement is not None and report.agreement.pictures == 40
    if limit == 100:
        assert choice.file_bytes < uniform(2)


def test_a_limit_on_time_is_kept_by_the_targets_prediction(folder: Path) -> None:
    result = json.loads(invoke("model.h5", "--data", "pictures.npz", "--max-latency", "1s", "--target", PI, "--json").stdout)
    slow = result["choice"]["latency_s"]
    report = invoke("model.h5", "--data", "pictures.npz", "--max-latency", f"{slow * 1e6 * 0.9:.3f}us", "--target", PI, "--json")
    if report.exit_code == 1:  # no width is so much faster
        assert "the fastest that was found takes" in report.stderr
        return
    choice = json.loads(report.stdout)["choice"]
    on = latency_on(PI)
    predicted = on.start_s + sum(on.seconds(read("model.edge")))
    assert choice["latency_s"] == pytest.approx(predicted) and predicted <= 0.9 * slow and choice["target"] == PI
    refused = invoke("model.h5", "--data", "pictures.npz", "--max-latency", "0.01us", "--target", PI)
    assert refused.exit_code == 1 and "the fastest that was found takes" in refused.stderr


def test_layers_may_be_fixed(folder: Path) -> None:
    report = edge.convert("model.h5", formats="edge", calibrate="pictures.npz", layers={"b": 2}, goal=Goal(budget_bytes=10**6))
    assert report.choice is not None
    bits = {each.layer: each.bits for each in report.choice.layers}
    assert bits["b"] == 2 and {bits[name] for name in ("a", "c", "last")} <= {4, 8}


def test_pictures_without_classes_count_answers_that_changed(folder: Path) -> None:
    np.save("pictures.npy", np.load("pictures.npz")["x_train"])
    report = edge.convert("model.h5", formats="edge", calibrate="pictures.npy", goal=Goal(max_drop_points=10))
    assert report.choice is not None and report.choice.measured.drop_points is None
    changed = report.choice.measured.changed_points
    assert changed is not None and changed <= 10


# -- the command -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--budget", "60KB"), 1, "got none; give --data"),
        (("--budget", "60KB", "--max-drop", "1", "--data", "pictures.npz"), 2, "One limit is kept at a time"),
        (("--budget", "60KB", "--bits", "4", "--data", "pictures.npz"), 2, "leave out --bits"),
        (("--budget", "sixty"), 2, "expected a size"),
        (("--budget", "0"), 2, "expected a size"),
        (("--budget", "-1KB"), 2, "expected a size"),
        (("--max-latency", "2"), 2, "expected a time"),
        (("--max-drop", "101"), 2, "--max-drop"),
        (("--max-drop", "nan"), 2, "expected a finite number, got 'nan'"),
        (("--bits", "8", "--calibration", "mse"), 2, "give --calibrate"),
        (("--target", PI), 2, "--target goes with"),
        (("--plot", "a.svg"), 2, "--plot goes with"),
        (("--budget", "60KB", "--data", "pictures.npz", "--plot", "a.png"), 1, "ends in .svg"),
        (("--budget", "60KB", "--data", "pictures.npz", "--plot", "a.svg", "--save-recipe", "a.svg"), 1, "would replace it"),
        (("--budget", "60KB", "--data", "pictures.npz", "--target", "nowhere"), 1, "nowhere"),
        (("--budget", "60KB", "--data", "pictures.npz", "--activation-bits", "1"), 1, "activation bits should be"),
        (("--budget", "60KB", "--data", "pictures.npz", "--layer", "z=4"), 1, "matches none"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder: Path, options: tuple[str, ...], code: int, words: str) -> None:
    result = invoke("model.h5", *options)
    assert result.exit_code == code and words in result.stderr and not Path("model.edge").exists()


def test_sizes_and_times_have_units() -> None:
    assert [size(text) for text in ("60000", "60KB", "60 kb", "1.5KiB", "2MiB", "100B")] == [60000, 60000, 60000, 1536, 2 << 20, 100]
    assert [duration(text) for text in ("2ms", "150us", "0.5 s")] == pytest.approx([2e-3, 150e-6, 0.5])
    for text in ("", "ms", "1e3ms", "2min", "nan", "1,5ms"):
        with pytest.raises(click.BadParameter):
            duration(text)


def test_networks_whose_answers_are_no_classes_have_no_accuracy(folder: Path) -> None:
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 8)).astype(np.float32)
    write_h5(folder / "values.h5", [conv("a", kernel)], SHAPE)
    with pytest.raises(InputError, match="no output of the model does"):
        edge.convert("values.h5", formats="edge", calibrate="pictures.npz", goal=Goal(max_drop_points=1))
    report = edge.convert("values.h5", formats="edge", calibrate="pictures.npz", goal=Goal(budget_bytes=10**5))
    assert report.choice is not None and report.choice.measured.changed is None
