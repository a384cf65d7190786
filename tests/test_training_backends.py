"""The layers and trainings of few bits are of `keras.ops` alone: every backend of Keras gives what TensorFlow does."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge import training

Answers = dict[str, np.ndarray]
SCRIPT = Path(__file__).with_name("backend_answers.py")
MINUTES = 10
MOST_OFF = 1e-3  # of probabilities, in the mean: a sum that is nearly 0 may have another sign elsewhere


def answers(backend: str, folder: Path) -> Answers:
    path = folder / f"{backend}.npz"
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run([sys.executable, SCRIPT, path], env=environment, check=True, timeout=60 * MINUTES)
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    pytest.importorskip("tensorflow")
    return answers("tensorflow", tmp_path_factory.mktemp("reference"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_gives_what_tensorflow_does(backend: str, reference: Answers, tmp_path: Path) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}: `make test-backends` installs jax, pip install torch the other")
    found = answers(backend, tmp_path)
    assert sorted(found) == sorted(reference) and any(name.startswith("learnt") for name in found)
    for name, values in found.items():
        assert np.ptp(reference[name], axis=0).max() > 0.05, f"{name} answers the same whatever the picture"
        assert np.abs(values - reference[name]).mean() < MOST_OFF, name


def test_no_backend_is_named_in_the_layers() -> None:
    """What trains TensorFlow faster stands in `edge.train_fused` alone."""
    modules = [path for path in Path(training.__file__).parent.glob("train*.py") if path.name != "train_fused.py"]
    assert len(modules) > 10
    for path in modules:
        found = re.findall(r"^\s*(?:import|from)\s+(tensorflow|jax|torch)\b", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert not found, f"{path.name} imports {found}"
