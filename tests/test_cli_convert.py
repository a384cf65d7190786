"""`edge convert`: what it prints and writes, and that bad input ends in one sentence with nothing written."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from keras_files import COLOURS, OPPONENTS, binary_colour_layers, colour_layers, conv, dense, pool, rescaling, write_h5, write_weights_only
from PIL import Image

from edge.cli import cli
from edge.format import read
from edge.preprocess import Preprocess

EDGE = str(Path(sys.executable).parent / "edge")
SHAPE = (8, 8, 3)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, args)], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(folder: Path) -> Path:
    write_h5(folder / "model.h5", colour_layers(), SHAPE)
    return Path("model.h5")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def stored(path: str) -> dict[str, Any]:
    return dict(read(path).metadata)


# -- what is printed -----------------------------------------------------------------------------------------------------------


def test_a_table_by_layer_with_notes_totals_files_and_what_was_got(folder: Path, model: Path) -> None:
    result = invoke(model, "--bits", "1")
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    cells = {line.split()[0]: line for line in lines if line}
    assert lines[0].split() == ["layer", "kind", "bits", "bytes", "computed", "as"]
    assert "Conv2D" in cells["middle"] and "32 -> 1" in cells["middle"] and "conv2d float32 x bits -> float32" in cells["middle"]
    assert "32 -> 2" in cells["last"] and "last: the last layer stays at 8 bits" in result.stdout and "train it binary" in result.stdout
    assert "smaller" in cells["total"] and "->" in cells["total"]
    for name in ("model.edge", "model.tflite"):
        assert f"({(folder / name).stat().st_size:,} bytes)" in cells[name]
    assert "accuracy unknown: give --data" in lines
    assert any(line.startswith("smaller, not faster") for line in lines)
    assert "input: pixels 0..255 scaled to 0..1, RGB, stretched to 8x8 (bilinear)" in lines


def test_json_is_the_report(folder: Path, model: Path) -> None:
    result = invoke(model, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["source"] == "model.h5" and found["bits"] == 1
    assert [layer["name"] for layer in found["layers"]] == ["first", "middle", "pool", "last"]
    assert [Path(file["path"]).name for file in found["files"]] == ["model.edge", "model.tflite"]


def test_a_binarized_model_is_packed_as_trained(folder: Path) -> None:
    write_h5(folder / "model.h5", binary_colour_layers(), SHAPE)
    result = invoke("model.h5")
    row = next(line for line in result.stdout.splitlines() if line.startswith("signs "))
    assert "QuantConv2D" in row and "32 -> 1" in row and "bits x bits" in row
    assert "smaller, not faster" not in result.stdout


# -- what is written -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formats", ["edge", "tflite", "both"])
def test_formats(folder: Path, model: Path, formats: str) -> None:
    assert invoke(model, "--format", formats).exit_code == 0
    assert names(folder) - {"model.h5"} == ({"model.edge", "model.tflite"} if formats == "both" else {f"model.{formats}"})


def test_output_names_a_folder_or_a_file(folder: Path, model: Path) -> None:
    (folder / "out").mkdir()
    assert invoke(model, "-o", "out").exit_code == 0 and names(folder / "out") == {"model.edge", "model.tflite"}
    assert invoke(model, "-o", "out/small.edge").exit_code == 0 and {"small.edge", "small.tflite"} < names(folder / "out")
    result = invoke(model, "-o", "nowhere/small.edge")
    assert result.exit_code == 1 and "nowhere" in result.stderr and result.stderr.count("\n") == 1 and not (folder / "nowhere").exists()


def test_a_second_run_gives_the_same_bytes(folder: Path, model: Path) -> None:
    contents = []
    for _ in range(2):
        assert invoke(model).exit_code == 0
        contents.append([(folder / name).read_bytes() for name in ("model.edge", "model.tflite")])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ["model.edge", "model.tflite"])
def test_a_file_of_others_is_replaced_by_force_alone(folder: Path, model: Path, name: str) -> None:
    (folder / name).write_text("mine")
    result = invoke(model)
    assert result.exit_code == 1 and "--force" in result.stderr and (folder / name).read_text() == "mine"
    assert names(folder) == {"model.h5", name}
    assert invoke(model, "--force").exit_code == 0 and (folder / name).read_bytes() != b"mine"


# -- options -------------------------------------------------------------------------------------------------------------------


def test_the_bits_are_those_asked_for(folder: Path, model: Path) -> None:
    for bits, text in (("8", "32 -> 2"), ("32", "32 -> 2")):
        result = invoke(model, "--bits", bits)
        row = next(line for line in result.stdout.splitlines() if line.startswith("middle "))
        assert text in row
    row = next(line for line in invoke(model, "--activation-bits", "1").stdout.splitlines() if line.startswith("middle "))
    assert "bits x bits" in row


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--bits", "8", "--activation-bits", "1"), "activation bits should be 2, 4, 8 or 32 with bits 8, got 1"),
        (("--bits", "32", "--activation-bits", "8", "--calibrate", "pictures"), "activation bits should be 32 with bits 32, got 8"),
        (("--activation-bits", "8"), "need pictures to measure ranges on, got none; give --calibrate a file or folder with pictures"),
        (("--bits", "8", "--activation-bits", "8", "--data", "test.npz"), "need pictures to measure ranges on, got none"),
    ],
)
def test_bits_that_do_not_go_together_are_refused(folder: Path, model: Path, options: tuple[str, ...], says: str) -> None:
    pictures(folder)
    result = invoke(model, *options)
    assert result.exit_code == 1 and says in result.stderr and result.stderr.count("\n") == 1
    assert not {"model.edge", "model.tflite"} & names(folder)


@pytest.mark.parametrize(
    ("options", "middle", "activation_bits"),
    [
        (("--bits", "1"), "conv2d int8 x bits -> int8", 8),
        (("--bits", "1", "--activation-bits", "8"), "conv2d int8 x bits -> int8", 8),
        (("--bits", "1", "--activation-bits", "32"), "conv2d float32 x bits -> float32", 32),
        (("--bits", "8"), "conv2d int8 x int2 -> int8", 8),
        (("--bits", "8", "--activation-bits", "32"), "conv2d float32 x int2 -> float32", 32),
        (("--bits", "32"), "conv2d float32 x int2 -> float32", 32),  # the weights are -1, 0 and 1
    ],
)
def test_calibrated_activations_have_8_bits_unless_asked_otherwise(
    folder: Path, model: Path, options: tuple[str, ...], middle: str, activation_bits: int
) -> None:
    pictures(folder)
    result = invoke(model, *options, "--calibrate", "pictures")
    assert result.exit_code == 0 and middle in next(line for line in result.stdout.splitlines() if line.startswith("middle "))
    assert stored("model.edge")["activation_bits"] == activation_bits
    assert "top-1 agreement with the source on 3 pictures: 100.00 %" in result.stdout.splitlines()
    assert ("smaller than with --bits 8, not faster" in result.stdout) == ("int8 x bits" in middle)


def test_what_pictures_become_is_stored(folder: Path, model: Path) -> None:
    assert invoke(model, "--preset", "torch", "--resize", "crop", "--invert").exit_code == 0
    found = Preprocess.from_json(stored("model.edge")["preprocess"])
    assert found.mean == (0.485, 0.456, 0.406) and found.resize == "crop" and found.invert
    assert invoke(model, "--range", "-1,1", "--mean", "0.5", "--std", "2", "--channel-order", "bgr", "--gray").exit_code == 0
    found = Preprocess.from_json(stored("model.edge")["preprocess"])
    assert found == Preprocess(range=(-1, 1), mean=(0.5,), std=(2,), channel_order="bgr", gray=True)


@pytest.mark.parametrize("options", [(), ("--resize", "crop")], ids=["default", "with an option"])
def test_a_model_that_rescales_sees_bytes(folder: Path, options: tuple[str, ...]) -> None:
    write_h5(folder / "model.h5", [rescaling(), *colour_layers()], SHAPE)
    result = invoke("model.h5", *options)
    assert result.exit_code == 0 and "input: pixels 0..255 as they are" in result.stdout
    assert stored("model.edge")["preprocess"]["range"] == [0, 255] and read("model.edge").tensors[0].type.encoding.name == "UINT8"
    assert invoke("model.h5", "--input-dtype", "float32", *options).exit_code == 0
    assert read("model.edge").tensors[0].type.encoding.name == "FLOAT32"


def test_labels_are_stored_and_their_number_is_checked(folder: Path, model: Path) -> None:
    (folder / "names.txt").write_text("\n".join(COLOURS))
    assert invoke(model, "--labels", "names.txt").exit_code == 0 and stored("model.edge")["labels"] == list(COLOURS)
    before = (folder / "model.edge").read_bytes()
    (folder / "names.txt").write_text("a\nb\n")
    result = invoke(model, "--labels", "names.txt")
    assert result.exit_code == 1 and "expected 3 names" in result.stderr and (folder / "model.edge").read_bytes() == before


def test_an_open_shape_is_filled_in(folder: Path) -> None:
    write_h5(folder / "model.h5", colour_layers(), (None, None, 3))
    result = invoke("model.h5")
    assert result.exit_code == 1 and "--input-shape" in result.stderr and names(folder) == {"model.h5"}
    assert invoke("model.h5", "--input-shape", "8,8,3").exit_code == 0
    assert invoke("model.h5", "--input-shape", "8,8,3", "--invert").exit_code == 0
    assert invoke("model.h5", "--input-shape", "8,8,1").exit_code == 1 and invoke("model.h5", "--input-shape", "8,x").exit_code == 2


def pictures(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (9, 7), colour).save(folder / "pictures" / f"{number}.png")
    values = np.array([np.full(SHAPE, OPPONENTS[i] > 0, np.uint8) * 250 for i in (0, 1, 2, 0)])
    np.savez(folder / "test.npz", x=values, y=[0, 1, 2, 1])


def test_data_give_the_agreement_and_the_accuracy(folder: Path, model: Path) -> None:
    pictures(folder)
    result = invoke(model, "--data", "test.npz")
    assert "top-1 agreement with the source on 4 pictures: 100.00 %; accuracy 75.00 %, source 75.00 %" in result.stdout.splitlines()
    result = invoke(model, "--bits", "8", "--calibrate", "pictures")
    assert "top-1 agreement with the source on 3 pictures: 100.00 %" in result.stdout.splitlines()
    assert "conv2d int8 x int2 -> int8" in result.stdout


def test_labels_that_are_no_classes_of_the_model_are_not_used(folder: Path, model: Path) -> None:
    pictures(folder)
    np.savez(folder / "test.npz", x=np.load(folder / "test.npz")["x"], y=[1, 2, 3, 2])
    result = invoke(model, "--data", "test.npz")
    assert "expected classes 0 to 2, as the model has, got 3; number them so" in result.stderr
    assert "top-1 agreement with the source on 4 pictures: 100.00 %" in result.stdout.splitlines()


def test_low_agreement_is_a_warning(folder: Path) -> None:
    rng = np.random.default_rng(0)
    layers = [conv(f"conv{i}", rng.normal(size=(1, 1, 3, 3)).astype(np.float32) ** 3) for i in range(5)]
    write_h5(folder / "model.h5", [*layers, pool(), dense("last", np.eye(3, dtype=np.float32))], SHAPE)
    np.save(folder / "x.npy", rng.normal(size=(40, *SHAPE)).astype(np.float32))
    result = invoke("model.h5", "--data", "x.npy", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["agreement"]["share"] < 0.9
    assert result.stderr.startswith("edge: warning: under 90 % agreement")
    assert all(way in result.stderr for way in ("--bits 8", "fine-tuning", "training"))


# -- bad input -----------------------------------------------------------------------------------------------------------------


def damaged(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_h5(path, colour_layers(), SHAPE)
        with h5py.File(path, "r+") as file:
            change(file)

    return write


def set_nan(file: h5py.File) -> None:
    file["model_weights/middle/middle/kernel:0"][0, 0, 0, 0] = np.nan


def layer(kind: str, **config: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        first, *rest = colour_layers()
        write_h5(path, [first, (kind, {"name": "odd", **config}, {}), *rest], SHAPE)

    return write


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "check the path"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("no model"), "not a Keras model"),
    "picture": (lambda path: Image.new("L", (4, 4)).save(path, "PNG"), "a PNG picture"),
    "folder": (lambda path: path.mkdir(), "folder"),
    "weights only": (lambda path: write_weights_only(path, colour_layers()), "weights alone"),
    "no keras": (lambda path: h5py.File(path, "w").close(), "without a Keras model"),
    "cut": (lambda path: (write_h5(path, colour_layers(), SHAPE), path.write_bytes(path.read_bytes()[:-900])), "damaged"),
    "no weights": (damaged(lambda file: file["model_weights/middle/middle"].clear()), "middle"),
    "nan": (damaged(set_nan), "NaN"),
    "lambda": (layer("Lambda", function="x"), "Lambda"),
    "custom": (layer("MyLayer"), "MyLayer"),
    "unsupported": (layer("GRU", units=3), "GRU"),
    "open shape": (lambda path: write_h5(path, colour_layers(), (None, 8, 3)), "--input-shape"),
    "json": (damaged(lambda file: file.attrs.__setitem__("model_config", "{")), "configuration"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_models_are_one_sentence_and_nothing_is_written(folder: Path, name: str) -> None:
    make, words = BAD[name]
    make(folder / "model.h5")
    before = names(folder)
    for options in ((), ("--invert",), ("--json",)):
        result = invoke("model.h5", *options)
        assert result.exit_code == 1 and result.stdout == ""
        assert words in result.stderr and ("model.h5" in result.stderr or "layer 'odd'" in result.stderr)
        assert result.stderr.startswith("edge: ") and result.stderr.count("\n") == 1
    assert names(folder) == before


@pytest.mark.parametrize("source", ["", ".", "..", "/", os.devnull])
def test_a_source_that_is_no_file_is_one_sentence(folder: Path, source: str) -> None:
    result = invoke(source)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("edge: ") and result.stderr.count("\n") == 1
    assert "expected a .h5 or .keras file" in result.stderr
    assert names(folder) == set()


def test_a_converted_file_is_no_source(folder: Path, model: Path) -> None:
    assert invoke(model).exit_code == 0
    before = (folder / "model.edge").read_bytes()
    for options, words in (((), "is the source itself"), (("-o", "other"), "needs no conversion")):
        result = invoke("model.edge", *options)
        assert result.exit_code == 1 and result.stdout == "" and words in result.stderr
    assert (folder / "model.edge").read_bytes() == before and "other.edge" not in names(folder)


@pytest.mark.parametrize(
    "options",
    [
        ("--data", "none.npz"),
        ("--calibrate", "none", "--bits", "8"),
        ("--labels", "none.txt"),
        ("--input-dtype", "uint8", "--preset", "unit"),
        ("--mean", "1,2,3", "--std", "0,0,0"),
        ("--range", "1,0"),
        ("--input-shape", "9,9,3"),
        ("-o", "model.h5/x"),
    ],
)
def test_bad_options_are_one_sentence_and_nothing_is_written(folder: Path, model: Path, options: tuple[str, ...]) -> None:
    result = invoke(model, *options)
    assert result.exit_code == 1 and result.stdout == "" and result.stderr.count("\n") == 1
    assert names(folder) == {"model.h5"}


def test_no_space_leaves_what_was_there(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(model).exit_code == 0
    before = {name: (folder / name).read_bytes() for name in names(folder)}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = invoke(model, "--bits", "32")
    assert result.exit_code == 1 and "No space left on device" in result.stderr and result.stderr.count("\n") == 1
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


def test_a_file_that_may_not_grow_leaves_nothing(folder: Path, model: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    done = subprocess.run([EDGE, "convert", model], preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert names(folder) == {"model.h5"}


def test_without_a_schema_for_tflite_the_edge_file_is_written(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated", "flatbuffers"):
        monkeypatch.setitem(sys.modules, name, None)
    result = invoke(model)
    assert result.exit_code == 0 and names(folder) == {"model.h5", "model.edge"} and "pip install" in result.stdout
    result = invoke(model, "--format", "tflite")
    assert result.exit_code == 1 and "pip install" in result.stderr and result.stderr.count("\n") == 1


def test_an_interrupt_leaves_nothing(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    result = invoke(model)
    assert result.exit_code == 130 and names(folder) == {"model.h5"} and "Traceback" not in result.stderr
