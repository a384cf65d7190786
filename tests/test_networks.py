"""Public picture classifiers, with random weights, convert at 32, 8 and 1 bits, and at 32 agree with Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_models import LARGE, SMALL, randomize

import edge

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


def check(keras: Any, name: str, folder: Path, suffix: str) -> None:
    keras.utils.set_random_seed(1)
    model = randomize({**SMALL, **LARGE}[name](keras))
    model.save(folder / f"model{suffix}")
    x = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype(np.float32)
    expected = model.predict(x, verbose=0)
    for bits in (32, 8, 1):
        edge.convert(folder / f"model{suffix}", folder / f"at{bits}", bits=bits, formats="edge", input_dtype="float32")
        got = edge.load(folder / f"at{bits}.edge").run(x)
        assert got.shape == expected.shape
        assert np.isfinite(got).all()
        if bits == 32:
            assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


SLOW = ("transfer learning tutorial",)  # half a minute


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SMALL])
def test_small_networks_convert(name: str, keras: Any, tmp_path: Path) -> None:
    check(keras, name, tmp_path, ".keras")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_networks_convert(name: str, keras: Any, tmp_path: Path) -> None:
    check(keras, name, tmp_path, ".h5")


def test_the_page_lists_every_network() -> None:
    rows = [line.split("|")[1].strip() for line in (DOCS / "networks.md").read_text().splitlines() if line.startswith("| ")]
    assert rows == ["network", *SMALL, *LARGE]
