"""The trained files that come with edge are as edge/data/trained.toml says, and `edge zoo trained` says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_data import cifar10
from run_models import invoke

from edge.cli_model import bundled_models, load_model
from edge.datasets import load
from edge.format import read
from edge.train_result import weights_of
from edge.train_scores import MEASURES
from edge.trained_files import TrainedFile, trained_files

DATA = Path(__file__).parents[2] / "shared" / "data"
MOST_BYTES, LEAST_SHARE = 1_000_000, 0.95
FILES = [pytest.param(each, id=each.name) for each in trained_files()]
PACKED = "cifar10"  # half a minute to unpack
SCORED = [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.test_set == PACKED)) for each in trained_files()]


def test_every_file_that_comes_with_edge_is_described() -> None:
    assert sorted(each.name for each in trained_files()) == list(bundled_models())


@pytest.mark.parametrize("each", FILES)
def test_the_file_is_small_and_of_1_bit(each: TrainedFile) -> None:
    assert each.path.stat().st_size < MOST_BYTES
    assert float(weights_of(read(each.path))["one_bit_share"]) >= LEAST_SHARE
    assert each.terms and each.data


def pictures_of(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Pictures and classes, None where they are not there."""
    if name == PACKED:
        found = cifar10()
        return None if found is None else (found["x_test"], found["y_test"].reshape(-1))
    path = DATA / f"{name}.npz"
    test = load(name, path=path).test if path.exists() else None
    return None if test is None else (test.x, test.y)


@pytest.mark.parametrize("each", SCORED)
def test_the_file_scores_on_the_test_set_what_is_said(each: TrainedFile) -> None:
    found = pictures_of(each.test_set)
    if found is None:
        pytest.skip(f"needs the test set {each.test_set} in ../shared/data")
    x, y = found
    engine = load_model(each.path).engine
    assert engine is not None
    answers = np.concatenate([engine.run(x[first : first + 1_000]) for first in range(0, len(x), 1_000)])
    assert MEASURES[each.measure].of([answers], y) == pytest.approx(each.score, abs=1e-9)


def test_the_command_lists_them() -> None:
    rows = json.loads(invoke("zoo", "trained", "--json").stdout)
    assert [row["name"] for row in rows] == [each.name for each in trained_files()]
    shown = invoke("zoo", "trained").stdout
    assert "digits" in shown and "creativecommons.org" in shown and "99.46 %" in shown
