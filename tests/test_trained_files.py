"""The trained files that come with edge are as edge/data/trained.toml says, and `edge zoo trained` says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_data import cifar10
from PIL import Image
from run_models import invoke

import edge
from edge import clocks
from edge.cli_model import BUNDLED, bundled_models
from edge.datasets import Part, load
from edge.format import read
from edge.train_result import score, weights_of
from edge.train_scores import MEASURES, measure_for
from edge.trained_files import TrainedFile, trained_files

DATA = Path(__file__).parents[2] / "shared" / "data"
EXAMPLES = Path(__file__).parents[1] / "examples"
MOST_BYTES, LEAST_SHARE = 1_000_000, 0.95
FILES = [pytest.param(each, id=each.name) for each in trained_files()]
SLOW = ("cifar10", "clocks")  # half a minute to unpack, to draw
SCORED = [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.test_set in SLOW)) for each in trained_files()]


def test_every_file_that_comes_with_edge_is_described() -> None:
    assert sorted(each.name for each in trained_files()) == list(bundled_models())


@pytest.mark.parametrize("each", FILES)
def test_the_file_is_small_and_of_1_bit(each: TrainedFile) -> None:
    assert each.path.stat().st_size < MOST_BYTES
    assert float(weights_of(read(each.path))["one_bit_share"]) >= LEAST_SHARE
    assert each.terms and each.data


def pictures_of(name: str) -> Part | None:
    """Pictures and labels, None where they are not there."""
    if name == "clocks":
        return clocks.pictures(range(clocks.TRAIN, clocks.TRAIN + clocks.TEST))
    if name == "cifar10":
        found = cifar10()
        return None if found is None else Part(found["x_test"], found["y_test"].reshape(-1))
    path = DATA / f"{name}.npz"
    return load(name, path=path).test if path.exists() else None


@pytest.mark.parametrize("each", SCORED)
def test_the_file_scores_on_the_test_set_what_is_said(each: TrainedFile) -> None:
    part = pictures_of(each.test_set)
    if part is None:
        pytest.skip(f"needs the test set {each.test_set} in ../shared/data")
    assert measure_for(part.y) is MEASURES[each.measure]
    assert score(edge.load(each.path), part) == pytest.approx(each.score, abs=1e-9)


def test_the_clock_tells_the_time_of_its_example() -> None:
    with Image.open(EXAMPLES / "clock.png") as picture:
        hours, minutes = edge.load(BUNDLED / "clock.edge").run(np.asarray(picture)[..., None])
    assert hours.argmax() == 8 and abs(int(minutes.argmax()) - 57) <= 1


def test_the_command_lists_them() -> None:
    rows = json.loads(invoke("zoo", "trained", "--json").stdout)
    assert [row["name"] for row in rows] == [each.name for each in trained_files()]
    shown = invoke("zoo", "trained").stdout
    assert "digits" in shown and "creativecommons.org" in shown and "99.46 %" in shown
