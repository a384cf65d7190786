"""The example network converted, compared and signed off, for tests of comparisons: fixtures used by importing them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edge
from edge.compare import Comparison, compare
from edge.compare_sign_off import sign_off

EXAMPLES = Path(__file__).parents[1] / "examples"
DIGITS = EXAMPLES / "digits.h5"


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example converted at 1 bit, `.edge` and `.tflite`, without a certificate."""
    folder = tmp_path_factory.mktemp("digits")
    edge.convert(DIGITS, folder)
    return folder / "digits.edge"


@pytest.fixture(scope="module")
def compared(digits: Path) -> Comparison:
    """As if Keras had computed what the reference interpreter did, which is equal to it: Keras is not everywhere."""
    return replace(compare(DIGITS, digits, keras=False, count=3), oracle_is_keras=True, oracle="Keras 3.0 on tests")


@pytest.fixture(scope="module")
def signed(compared: Comparison, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "digits.edge"
    path.write_bytes(digits.read_bytes())
    sign_off(replace(compared, converted=str(path)))
    return path
