"""Models in two files: layers as JSON, weights as HDF5, as Keras 2 and 3 write them; and one of the two alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_files import conv, dense, pool, write_h5, write_weights_only
from run_models import document, invoke

import edge
from edge.compare import compare
from edge.converters.keras_file import read_keras
from edge.converters.keras_model import KerasModel
from edge.errors import ModelError

FIXTURE = Path(__file__).parent / "fixtures" / "keras2_functional"


@pytest.fixture(scope="module")
def model() -> Any:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)])


def saved(model: Any, folder: Path, name: str = "model") -> Path:
    """The model as JSON, and its weights beside it."""
    (folder / f"{name}.json").write_text(model.to_json())
    model.save_weights(folder / f"{name}.weights.h5")
    return folder / f"{name}.json"


def same(got: KerasModel, expected: KerasModel) -> bool:
    pairs = list(zip(got.calls, expected.calls, strict=True))
    named = [[(call.name, call.class_name, call.inputs, sorted(call.weights)) for call in model.calls] for model in (got, expected)]
    return named[0] == named[1] and all(np.array_equal(a.weights[key], b.weights[key]) for a, b in pairs for key in a.weights)


def test_json_and_weights_of_keras_3(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "whole.keras")
    whole, path = read_keras(tmp_path / "whole.keras"), saved(model, tmp_path)
    beside = read_keras(path)
    assert same(beside, whole) and beside.source == "model.json" and beside.keras_version == "3"
    moved = (tmp_path / "model.weights.h5").rename(tmp_path / "other.weights.h5")
    assert same(read_keras(path, weights=moved), whole)
    assert read_keras(path, weights=moved).sha256 == beside.sha256 != whole.sha256


def test_weights_of_keras_2_by_the_names_of_layers(tmp_path: Path) -> None:
    with h5py.File(f"{FIXTURE}.h5") as file:
        config = {**json.loads(file.attrs["model_config"]), "keras_version": file.attrs["keras_version"], "backend": "tensorflow"}
        with h5py.File(tmp_path / "weights.h5", "w") as alone:
            for name in file["model_weights"]:
                file.copy(f"model_weights/{name}", alone)
            alone.attrs.update(file["model_weights"].attrs)
    (tmp_path / "model.json").write_text(json.dumps(config))
    expected = read_keras(f"{FIXTURE}.h5")
    assert same(read_keras(tmp_path / "model.json", weights=tmp_path / "weights.h5"), expected)
    assert same(read_keras(tmp_path / "model.json", weights=f"{FIXTURE}.h5"), expected)


def test_weights_of_keras_2_by_number(tmp_path: Path) -> None:
    with zipfile.ZipFile(f"{FIXTURE}.keras") as archive:
        config = {**json.loads(archive.read("config.json")), "keras_version": json.loads(archive.read("metadata.json"))["keras_version"]}
        (tmp_path / "model.weights.h5").write_bytes(archive.read("model.weights.h5"))
    (tmp_path / "model.json").write_text(json.dumps(config))
    assert same(read_keras(tmp_path / "model.json"), read_keras(f"{FIXTURE}.keras"))


def test_a_whole_model_gets_other_weights(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "model.keras")
    model.layers[0].set_weights([weight + 1 for weight in model.layers[0].get_weights()])
    model.save_weights(tmp_path / "more.weights.h5")
    read = [read_keras(tmp_path / "model.keras", weights=each) for each in (None, tmp_path / "more.weights.h5")]
    kernels = [each.calls[0].weights["kernel"] for each in read]
    np.testing.assert_array_equal(kernels[1], kernels[0] + np.float32(1))


def test_the_command(model: Any, tmp_path: Path) -> None:
    path = saved(model, tmp_path)
    weights = (tmp_path / "model.weights.h5").rename(tmp_path / "w.h5")
    result = invoke("convert", path, "--weights", weights, "--bits", "32", "--format", "edge")
    assert result.exit_code == 0 and (tmp_path / "model.edge").exists()
    weights.rename(tmp_path / "model.weights.h5")
    assert invoke("inspect", path, "--json").exit_code == 0
    result = invoke("convert", tmp_path / "model.weights.h5")
    assert result.exit_code == 1 and "edge convert model.json --weights FILE.h5" in result.stderr


def randomized(model: Any, seed: int) -> Any:
    for weight in model.weights:
        weight.assign(np.random.default_rng(seed).uniform(0.5, 1.5, weight.shape))
    return model


def test_verify_reads_both_files_with_keras(model: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    path = saved(randomized(model, 1), tmp_path)
    assert invoke("convert", path, "--bits", "32").exit_code == 0
    files = (tmp_path / "model.edge", tmp_path / "model.tflite")
    shown = document(invoke("verify", path, *files, "--count", 3, "--sign-off", "--json"))
    assert [each["equal"] and each["oracle_is_keras"] for each in shown["comparisons"]] == [True, True]
    assert shown["certificate"]["source"] == "model.json" and {layer["equal"] for layer in shown["comparisons"][0]["layers"]} == {True}
    weights = (tmp_path / "model.weights.h5").rename(tmp_path / "w.h5")
    assert "--weights FILE.h5" in invoke("verify", path, files[0]).stderr
    assert invoke("verify", path, files[0], "--weights", weights, "--oracle", "keras").exit_code == 0
    with h5py.File(weights, "r+") as other:
        other["layers/dense/vars/0"][...] *= 1.5
    wrong = invoke("verify", path, files[0], "--weights", weights, "--oracle", "keras")
    assert wrong.exit_code == 1 and "made from another file" in wrong.stderr


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_verify_gives_a_whole_model_other_weights(model: Any, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    source, weights = tmp_path / f"model{suffix}", tmp_path / "more.weights.h5"
    randomized(model, 2).save(source)
    randomized(model, 3).save_weights(weights)
    edge.convert(source, bits=32, weights=weights, formats="edge")
    found = compare(source, tmp_path / "model.edge", weights=weights, keras=True, count=2)
    assert found.equal and found.oracle_is_keras, found.oracle_note
    assert not compare(source, tmp_path / "model.edge", keras=True, count=2).equal


def test_verify_reads_weights_by_layer(tmp_path: Path) -> None:
    """As Keras 2 writes them, beside its JSON."""
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    eye = np.eye(3, dtype=np.float32)
    layers = [conv("first", 2 * eye[None, None]), pool(), dense("last", eye - 0.5)]
    with h5py.File(write_h5(tmp_path / "whole.h5", layers, (4, 4, 3))) as file:
        (tmp_path / "model.json").write_text(json.dumps({**json.loads(file.attrs["model_config"]), "keras_version": "2.11.0"}))
    write_weights_only(tmp_path / "model.h5", layers)
    edge.convert(tmp_path / "model.json", bits=32, formats="edge")
    found = compare(tmp_path / "model.json", tmp_path / "model.edge", keras=True, count=2)
    assert found.equal and found.oracle_is_keras and len(found.layers) == 3, found.oracle_note


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (None, r"model.json: holds the layers of a model without their weights, .*edge convert model.json --weights FILE.h5"),
        ("nothing.h5", "its weights nothing.h5: cannot be read"),
        ("text.h5", "its weights text.h5: is no HDF5 file"),
        ("empty.h5", "its weights empty.h5: is an HDF5 file without the weights of a model"),
        ("other.weights.h5", "other.weights.h5: (layer 'batch.*' .* lacks its gamma|the weights of layer 'conv.*' are stored as)"),
        (".", "its weights .*: is a folder"),
    ],
)
def test_weights_that_do_not_go_with_it(model: Any, tmp_path: Path, weights: str | None, says: str) -> None:
    keras = pytest.importorskip("keras")
    path = saved(model, tmp_path)
    (tmp_path / "model.weights.h5").unlink()
    (tmp_path / "text.h5").write_text("no")
    h5py.File(tmp_path / "empty.h5", "w").close()
    saved(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]), tmp_path, "other")
    with pytest.raises(ModelError, match=says):
        read_keras(path, weights=None if weights is None else tmp_path / weights)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "is JSON without a Keras model"),
        ('{"a": ', "is not JSON"),
        ('["cat", "dog"]', "not a Keras model, the file is of no kind known"),
        ('{"class_name": "Mine", "config": {}}', "is a subclass whose layers are in code"),
        ('{"class_name": "Sequential", "config": {"layers": []}, "keras_version": "1.2"}', "written by Keras 1.2, which is not supported"),
    ],
)
def test_json_that_is_no_model(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ModelError, match=says):
        read_keras(tmp_path / "model.json")
