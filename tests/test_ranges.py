"""Ranges of int8 activations: what each way leaves out, that `mse` is best in squared error, and how they reach files and recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bit_networks import by_reference, examples, network, simple
from hypothesis import given
from hypothesis import strategies as st

import edge
from edge.converters import calibration, ranges
from edge.converters.bits import requested
from edge.converters.calibration import Statistics, measure
from edge.converters.ranges import BINS, refined
from edge.converters.recipe_file import read_recipe
from edge.errors import InputError
from edge.tensors import Encoding
from edge.widths import MIN_MAX, MSE, PERCENTILE, RANGES

FUNCTIONAL = Path(__file__).parent / "fixtures" / "keras2_functional.h5"


def range_of(values: np.ndarray, method: str) -> tuple[float, float]:
    """The range of one tensor's values."""
    known = Statistics(float(values.min()), float(values.max()), 0.0)
    histogram = ranges._Histogram(np.zeros(BINS, np.int64))
    histogram.add(values, known)
    found = ranges._refined(known, histogram, method)
    return found.low, found.high


def squared_error(values: np.ndarray, low: float, high: float) -> float:
    """Of values in int8, by the range that conversions make of this one."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    zero = np.clip(np.rint(-128 - low / step), -128, 127)
    whole = np.clip(np.rint(values / step) + zero, -128, 127)
    return float((((whole - zero) * step - values) ** 2).mean())


@pytest.mark.parametrize("method", [PERCENTILE, MSE])
@given(seed=st.integers(0, 50), shift=st.sampled_from([0.0, 3.0, -3.0]), relu=st.booleans())
def test_ranges_lie_within_the_values_and_lose_little(method: str, seed: int, shift: float, relu: bool) -> None:
    values = np.random.default_rng(seed).normal(shift, 1.0, 4000)
    values = np.maximum(values, 0.0) if relu and shift >= 0 else values
    low, high = range_of(values, method)
    assert values.min() <= max(low, values.min()) <= high <= values.max() + 1e-9
    assert squared_error(values, low, high) <= 1.1 * squared_error(values, float(values.min()), float(values.max())) + 1e-12


def test_outliers_are_left_out() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=100_000), [60.0]])
    whole = squared_error(values, float(values.min()), 60.0)
    assert range_of(values, PERCENTILE)[1] < 6
    low, high = range_of(values, MSE)
    assert 15 < high < 60 and squared_error(values, low, high) < 0.9 * whole  # a value so far out counts by its square


def test_zeros_do_not_draw_the_range_of_mse_to_themselves() -> None:
    values = np.random.default_rng(1).exponential(size=1000)
    assert range_of(np.concatenate([values, np.zeros(10**6)]), MSE) == range_of(values.clip(0), MSE)


@pytest.mark.parametrize("method", [PERCENTILE, MSE])
def test_a_tensor_of_one_value_keeps_its_range(method: str) -> None:
    for value in (0.0, 2.5):
        assert range_of(np.full(10, value), method) == (value, value)


@pytest.mark.parametrize("method", RANGES)
def test_every_tensor_of_a_network_has_a_range(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calibration, ranges):
        monkeypatch.setattr(module, "activations", by_reference)
    graph, pictures = simple(*network(softmax=False)), examples(3)
    known = measure(graph, pictures)
    found = refined(graph, pictures, known, method)
    floats = {name for name, kind in graph.types.items() if kind.encoding is Encoding.FLOAT32}
    assert set(found) == floats and (found == known) == (method != MSE)  # of so few values a percentile leaves out none
    assert all(known[name].low <= each.low and each.high <= known[name].high for name, each in found.items())


def test_other_ways_are_refused() -> None:
    with pytest.raises(InputError, match="min-max, percentile, mse, got 'entropy'"):
        requested(8, None, calibrated=True, ranges="entropy")


def test_the_way_reaches_the_file_and_the_recipe(tmp_path: Path) -> None:
    edge.convert(FUNCTIONAL, tmp_path / "float.edge", bits=32, formats="edge")
    shape = edge.load(tmp_path / "float.edge").inputs[0].shape
    np.save(tmp_path / "x.npy", np.random.default_rng(3).random((6, *shape)).astype(np.float32))
    made = {}
    for method in (MIN_MAX, MSE):
        options = {"bits": 8, "calibrate": tmp_path / "x.npy", "formats": "edge", "ranges": method}
        edge.convert(FUNCTIONAL, tmp_path / f"{method}.edge", save_recipe=tmp_path / f"{method}.toml", **options)
        recipe = read_recipe(tmp_path / f"{method}.toml")
        assert recipe.calibration is not None and recipe.calibration.ranges == recipe.arguments()["ranges"] == method
        made[method] = (tmp_path / f"{method}.edge").read_bytes()
    assert made[MIN_MAX] != made[MSE]
