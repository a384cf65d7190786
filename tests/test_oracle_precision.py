"""Sources of half precision: Keras computes them in float32, as what they are converted to does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from run_models import invoke

import edge
from edge.compare import compare
from edge.oracle_parts import widened

keras = pytest.importorskip("keras", reason="the oracle is Keras")

HALF = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    """Models are built under this policy, and then loaded under another."""
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def model() -> Any:
    """Layers whose sums lose half precision, a nested model, and a layer with values that are no weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    scaling = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])
    inner = keras.Sequential([keras.Input((6, 6, 8)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()], name="inner")
    picture = keras.Input((8, 8, 3))
    x = inner(layers.Conv2D(8, 3, activation="relu")(scaling(picture)))
    return keras.Model(picture, layers.Dense(5, activation="softmax")(layers.Flatten()(x)))


def verified(source: Path, **options: Any) -> Any:
    edge.convert(source, source.parent, bits=32, formats=("edge",))
    return compare(source, source.with_suffix(".edge"), count=4, **options)


@pytest.mark.parametrize("policy", HALF, indirect=True)
@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_keras_computes_them_in_float32(policy: str, suffix: str, tmp_path: Path) -> None:
    model().save(tmp_path / f"model.{suffix}")
    keras.config.set_dtype_policy("float32")
    comparison = verified(tmp_path / f"model.{suffix}")
    assert comparison.oracle.endswith(f", in float32 in the place of {policy.removeprefix('mixed_')}")
    assert comparison.oracle_is_keras and not comparison.oracle_note
    assert comparison.equal and comparison.output_difference < 1e-6, comparison.verdict


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
@pytest.mark.parametrize("weights", ["model.weights.h5", "named.h5"])
def test_models_in_two_files(policy: str, weights: str, tmp_path: Path) -> None:
    made = model()
    (tmp_path / "model.json").write_text(made.to_json())
    made.save_weights(tmp_path / "model.weights.h5")
    if weights == "named.h5":
        pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(tmp_path / weights, "w") as file:
            save_weights_to_hdf5_group(file, made)
    edge.convert(tmp_path / "model.json", tmp_path, bits=32, formats=("edge",), weights=tmp_path / weights)
    comparison = compare(tmp_path / "model.json", tmp_path / "model.edge", count=4, weights=tmp_path / weights)
    assert comparison.oracle.endswith("in the place of float16") and comparison.equal, comparison.verdict


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_policies_of_keras_2(policy: str, tmp_path: Path) -> None:
    """Which calls their class `Policy`, that Keras 3 does not know."""
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    made.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["dtype"] = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
        file.attrs["model_config"] = json.dumps(config)
    comparison = verified(tmp_path / "model.h5")
    assert comparison.oracle_is_keras and "in float32" in comparison.oracle and comparison.equal, comparison.oracle_note


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_they_are_signed_off(policy: str, tmp_path: Path) -> None:
    model().save(tmp_path / "model.keras")
    edge.convert(tmp_path / "model.keras", tmp_path, bits=32, formats=("edge",))
    ran = invoke("verify", tmp_path / "model.keras", tmp_path / "model.edge", "--sign-off", "--count", 4)
    assert ran.exit_code == 0, ran.output
    assert "source computed by Keras" in ran.stdout and "in float32 in the place of float16" in ran.stdout
    certificate = edge.load(tmp_path / "model.edge").program.metadata["certificate"]
    assert certificate["oracle"].endswith("in float32 in the place of float16")


def test_other_precisions_stay() -> None:
    config = {"dtype": "float32", "layers": [{"dtype": {"class_name": "DTypePolicy", "config": {"name": "float64"}}}, {"dtype": None}]}
    assert widened(config) == (config, ())


def test_a_source_of_float32_is_loaded_as_it_is(tmp_path: Path) -> None:
    model().save(tmp_path / "model.keras")
    comparison = verified(tmp_path / "model.keras")
    assert "in float32" not in comparison.oracle and comparison.equal
    assert np.isfinite(comparison.output_difference)
