"""The reference models of MLPerf Tiny, at 32 bits, against Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge
from edge.compare import compare
from edge.oracle import _custom_objects

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models" / "mlperf_tiny"


@pytest.mark.skipif(not MODELS.is_dir(), reason="MLPerf Tiny's models are not beside the repository")
@pytest.mark.parametrize("name", ["ad01", "pretrainedResnet", "str_ww_ref_model", "vww_96"])
def test_mlperf_tiny_equals_keras(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    keras: Any = pytest.importorskip("keras")
    from edge import training

    # Two of the files have a key that Keras 2 wrote and Keras 3 refuses; the custom objects take it.
    model = keras.saving.load_model(MODELS / f"{name}.h5", custom_objects=_custom_objects(keras, training), compile=False)
    edge.convert(MODELS / f"{name}.h5", tmp_path / "model", bits=32, formats="edge", input_dtype="float32")
    x = np.random.default_rng(0).uniform(0, 1, (3, *model.input_shape[1:])).astype(np.float32)
    expected = model.predict(x, verbose=0)
    got = edge.load(tmp_path / "model.edge").run(x)
    assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    comparison = compare(MODELS / f"{name}.h5", tmp_path / "model.edge", count=2, keras=True)
    assert comparison.equal and comparison.precision == "exact" and comparison.oracle_is_keras, comparison.verdict
