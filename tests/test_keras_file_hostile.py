"""Keras files that are damaged, made to deceive, or no Keras files: one sentence each, and never more than a sentence."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edge.converters.keras_file import read_keras
from edge.errors import ModelError

FIXTURES = Path(__file__).parent / "fixtures"
MUTANTS = Path(__file__).parent / "keras_mutants.py"
H5 = FIXTURES / "keras2_functional.h5"
KERAS = FIXTURES / "keras2_functional.keras"


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        read_keras(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path.name or path}: ")
    assert message.isprintable()
    assert len(message) < 500
    return message


def changed_h5(path: Path, change: Callable[[Any], None]) -> Path:
    path.write_bytes(H5.read_bytes())
    with h5py.File(path, "a") as file:
        change(file)
    return path


def changed_config(path: Path, change: Callable[[Any], None]) -> Path:
    def rewrite(file: Any) -> None:
        config = json.loads(file.attrs["model_config"])
        change(config["config"])
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)

    return changed_h5(path, rewrite)


def archive(path: Path, **members: bytes | None) -> Path:
    """The `.keras` fixture with some members replaced, or left out where None; "_" stands for a dot."""
    with zipfile.ZipFile(KERAS) as source:
        contents: dict[str, bytes | None] = {name: source.read(name) for name in source.namelist()}
    contents.update({name.replace("_", "."): content for name, content in members.items()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in contents.items():
            if content is not None:
                target.writestr(name, content)
    return path


def layer_named(config: Any, name: str) -> Any:
    return next(layer for layer in config["layers"] if layer["name"] == name)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG picture"),
        (b"\x80\x04\x95" + bytes(100), "a Python pickle"),
        (bytes(4) + b"TFL3" + bytes(100), "TFLite model"),
        (bytes(range(256)) * 8, "of no kind known here"),
        (b"PK\x03\x04" + bytes(200), "zip archive cannot be read"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "HDF5 data cannot be read"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "model.h5").write_bytes(content)
    assert expected in refusal(tmp_path / "model.h5")


def test_folders_and_absent_files(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    assert "is a folder" in refusal(folder)
    assert refusal(Path(".")).startswith(".: is a folder")
    (folder / "saved_model.pb").write_bytes(b"")
    assert "SavedModel folder without keras_metadata.pb: it was exported" in refusal(folder)
    assert "No such file" in refusal(tmp_path / "absent.h5")


def test_weights_without_a_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
    with h5py.File(tmp_path / "new.weights.h5", "w") as file:
        file.create_group("layers/dense/vars")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert "holds weights alone" in refusal(tmp_path / "old.h5")
    assert "holds weights alone" in refusal(tmp_path / "new.weights.h5")
    assert "without a Keras model" in refusal(tmp_path / "other.h5")


@pytest.mark.parametrize("version", ["1.2.2", None, "x", "2\x1b[31m"])
def test_versions_of_keras_that_are_none_or_too_old(tmp_path: Path, version: str | None) -> None:
    def rewrite(file: Any) -> None:
        for holder in (file, file["model_weights"]):
            del holder.attrs["keras_version"]
            if version:
                holder.attrs["keras_version"] = version

    expected = "written by Keras 1" if version in ("1.2.2", None) else "Keras version is"
    assert expected in refusal(changed_h5(tmp_path / "model.h5", rewrite))


def test_archives_that_lack_something(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    assert "without config.json" in refusal(archive(path, config_json=None))
    with zipfile.ZipFile(KERAS) as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", source.read("config.json"))
        target.writestr("model.weights.npz", b"")
    assert "no model.weights.h5" in refusal(path)
    assert "is not JSON" in refusal(archive(path, config_json=b"{"))
    assert "is not JSON" in refusal(archive(path, config_json=b"\xff\xfe\xfa"))
    assert "should be an object" in refusal(archive(path, config_json=b"[]"))
    assert "HDF5 data cannot be read" in refusal(archive(path, **{"model.weights.h5": b"\x89HDF\r\n\x1a\n"}))


def test_subclassed_model(tmp_path: Path) -> None:
    config = {"module": "__main__", "class_name": "Net", "config": {"units": 3}, "registered_name": "Custom>Net"}
    assert "model class 'Net' is a subclass" in refusal(archive(tmp_path / "model.keras", config_json=json.dumps(config).encode()))


@pytest.mark.parametrize("depth", [300, 5_000, 500_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_deep_nesting(tmp_path: Path, depth: int, brackets: str) -> None:
    text = brackets[:-1] * depth + "1" + brackets[-1] * depth
    assert "nests deeper" in refusal(archive(tmp_path / "model.keras", config_json=b'{"a":' + text.encode() + b"}"))


def test_weights_that_are_missing(tmp_path: Path) -> None:
    def drop(file: Any) -> None:
        del file["model_weights/depthwise"]

    assert "layer 'depthwise' (DepthwiseConv2D) lacks its depthwise_kernel and bias" in refusal(changed_h5(tmp_path / "a.h5", drop))

    def drop_one(file: Any) -> None:
        del file["model_weights/inner/conv/kernel:0"]

    assert "weight 'model_weights/inner/conv/kernel:0' is missing" in refusal(changed_h5(tmp_path / "b.h5", drop_one))

    with zipfile.ZipFile(KERAS) as source:
        content = io.BytesIO(source.read("model.weights.h5"))
    with h5py.File(content, "a") as file:
        del file["layers/functional/layers/conv2d"]
    assert "layer 'inner/conv' (Conv2D) lacks" in refusal(archive(tmp_path / "c.keras", **{"model.weights.h5": content.getvalue()}))


@pytest.mark.parametrize(("value", "expected"), [(np.nan, "1 of the 3"), (np.inf, "1 of the 3"), (1e300, "1 of the 3")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float, expected: str) -> None:
    def spoil(file: Any) -> None:
        del file["model_weights/scores/scores/bias:0"]
        file["model_weights/scores/scores/bias:0"] = np.array([0.0, value, 1.0])

    message = refusal(changed_h5(tmp_path / "model.h5", spoil))
    assert "layer 'scores'" in message
    assert "weight 'bias'" in message
    assert expected in message


def test_weights_of_other_types(tmp_path: Path) -> None:
    for value, expected in ((np.ones(3, np.int8), "stored as int8"), (np.array([b"abc"]), "expected numbers")):

        def spoil(file: Any, value: Any = value) -> None:
            del file["model_weights/scores/scores/bias:0"]
            file["model_weights/scores/scores/bias:0"] = value

        assert expected in refusal(changed_h5(tmp_path / "model.h5", spoil))


def in_place_of_bias(make: Callable[[Any, str], None]) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        group = file["model_weights/scores/scores"]
        del group["bias:0"]
        make(group, "bias:0")

    return change


def test_nothing_outside_the_file_is_read(tmp_path: Path) -> None:
    """A file that points at another one is refused, and the other one would even have fitted."""
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["bias"] = np.zeros(3, np.float32)
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "bias", (3,))
    (tmp_path / "raw").write_bytes(bytes(12))
    cases: Mapping[str, Callable[[Any, str], None]] = {
        "is a link": lambda group, name: group.__setitem__(name, h5py.ExternalLink(str(secret), "bias")),
        "is a link ": lambda group, name: group.__setitem__(name, h5py.SoftLink("/model_weights/tail/separable/bias:0")),
        "in another file": lambda group, name: group.create_virtual_dataset(name, layout),
        "in another file ": lambda group, name: group.create_dataset(name, (3,), np.float32, external=[(str(tmp_path / "raw"), 0, 12)]),
    }
    for expected, make in cases.items():
        assert expected.strip() in refusal(changed_h5(tmp_path / "model.h5", in_place_of_bias(make)))


def test_linked_groups_are_refused(tmp_path: Path) -> None:
    def link(file: Any) -> None:
        del file["model_weights"]
        file["model_weights"] = h5py.ExternalLink(str(H5), "model_weights")

    assert "'model_weights' is a link to elsewhere" in refusal(changed_h5(tmp_path / "model.h5", link))


def test_sizes_beyond_reason(tmp_path: Path) -> None:
    def bomb(group: Any, name: str) -> None:
        group.create_dataset(name, (1 << 20, 1 << 20), np.float32, chunks=(1024, 1024), compression="gzip")

    def chunk(group: Any, name: str) -> None:
        group.create_dataset(name, (3,), np.float32, chunks=(1 << 28,), maxshape=(None,), compression="gzip")

    for make in (bomb, chunk):
        assert "made to exhaust memory" in refusal(changed_h5(tmp_path / "model.h5", in_place_of_bias(make)))
    assert "unpacks to more than" in refusal(archive(tmp_path / "model.keras", **{"model.weights.h5": bytes(1 << 24)}))


def test_filters_that_are_plugins(tmp_path: Path) -> None:
    def filtered(group: Any, name: str) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((3,))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(group.id, name.encode(), h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((3,)), plist)

    assert "filter 32015" in refusal(changed_h5(tmp_path / "model.h5", in_place_of_bias(filtered)))


def test_a_heap_that_would_hang_the_library(tmp_path: Path) -> None:
    """libhdf5 1.14 loops for ever over an unused piece of size 0."""
    data = bytearray(H5.read_bytes())
    start = data.index(b"GCOL")
    data[start + 16 : start + 32] = bytes(16)
    (tmp_path / "model.h5").write_bytes(data)
    assert "a heap's sizes are wrong" in refusal(tmp_path / "model.h5")


def inbound(layer: str, node: int = 0, tensor: int = 0) -> list[Any]:
    return [[[layer, node, tensor, {}]]]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("inbound_nodes", inbound("absent"), "uses layer 'absent', which it does not have"),
        ("inbound_nodes", inbound("depthwise"), "form a loop"),
        ("inbound_nodes", inbound("concatenate", 3), "uses application 3"),
        ("inbound_nodes", inbound("concatenate", -1), "should be an index"),
        ("inbound_nodes", inbound("concatenate", 0, 10**9), "applies layers more than"),
        ("inbound_nodes", inbound("inner", 1, 1), "output 1 of layer 'inner'"),
        ("inbound_nodes", 7, "should be a list"),
        ("inbound_nodes", [{"args": 1, "kwargs": {}}], "should be a list"),
        ("name", "concatenate", "two layers named 'concatenate'"),
        ("name", "esc\x1b[31m", "should be a printable name"),
        ("name", "\ud800", "should be a printable name"),
        ("class_name", None, "should be a printable name"),
        ("config", [], "should be an object"),
    ],
)
def test_damaged_configurations(tmp_path: Path, name: str, value: Any, expected: str) -> None:
    path = changed_config(tmp_path / "model.h5", lambda config: layer_named(config, "depthwise").__setitem__(name, value))
    assert expected in refusal(path)


@pytest.mark.parametrize("shape", [[None, 8, 8, 0], [None, -1, 8, 3], [None, 8.5, 8, 3], [None, 1 << 40, 8, 3], "8,8,3", {"a": 1}])
def test_shapes_that_are_none(tmp_path: Path, shape: Any) -> None:
    path = changed_config(
        tmp_path / "model.h5", lambda config: layer_named(config, "image")["config"].__setitem__("batch_input_shape", shape)
    )
    assert "the shape of input 'image'" in refusal(path)


def test_nested_models_that_multiply(tmp_path: Path) -> None:
    """Forty models in each other, each applied twice, would be 2^40 layers."""

    def wrap(model: dict[str, Any], level: int) -> dict[str, Any]:
        image = {"class_name": "InputLayer", "name": "x", "config": {"name": "x", "batch_shape": [None, 4]}, "inbound_nodes": []}
        layer = {**model, "name": "inner", "inbound_nodes": [[["x", 0, 0, {}]], [["inner", 1, 0, {}]]]}
        config = {"name": f"level{level}", "layers": [image, layer], "input_layers": [["x", 0, 0]], "output_layers": [["inner", 2, 0]]}
        return {"class_name": "Functional", "config": config}

    core = {"name": "core", "layers": [{"class_name": "ReLU", "config": {"name": "r"}}]}
    model: dict[str, Any] = {"class_name": "Sequential", "config": core}
    for level in range(40):
        model = wrap(model, level)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file.attrs["keras_version"] = "2.15.0"
    assert "more than 100000 times" in refusal(tmp_path / "model.h5")


def test_training_mode_inside(tmp_path: Path) -> None:
    def train(config: Any) -> None:
        layer_named(config, "inner")["inbound_nodes"][0][0][3]["training"] = True

    assert "applied with training=True" in refusal(changed_config(tmp_path / "model.h5", train))


@pytest.mark.parametrize("path", [H5, KERAS], ids=lambda path: path.suffix)
def test_truncated_files(tmp_path: Path, path: Path) -> None:
    data = path.read_bytes()
    for part in range(30):
        (tmp_path / path.name).write_bytes(data[: len(data) * part // 30])
        message = refusal(tmp_path / path.name)
        assert part == 0 or "truncated file" in message or "zip archive cannot be read" in message


@pytest.mark.parametrize("kind", ["bytes", "structure"])
@pytest.mark.parametrize("path", [H5, KERAS], ids=lambda path: path.suffix)
def test_mutated_files(path: Path, kind: str) -> None:
    """Nothing but EdgeError, no crash, no hang; in a process of its own, since a library in C reads them."""
    command = [sys.executable, str(MUTANTS), str(path), kind, "0", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"mutant {done.stdout.split()[-1]} of {path.name}: {done.stderr[-2000:]}"
    counts = re.search(r"refused (\d+), read (\d+)", done.stdout)
    assert counts is not None
    assert int(counts[1]) >= 50
    assert int(counts[1]) + int(counts[2]) == 200
