"""`edge.convert`: what is written, what the report says, which files are replaced, and what happens where something is wrong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import conv, write_h5
from PIL import Image

import edge
from edge.converters import convert as module
from edge.converters import outputs
from edge.converters.outputs import check_replaceable, targets, write_all
from edge.converters.report import Agreement, Report, advice
from edge.converters.samples import load_examples
from edge.converters.tflite import is_edge_tflite
from edge.errors import EdgeError, InputError, MissingPackage, ModelError
from edge.format import MAGIC, read
from edge.preprocess import preset
from edge.tensors import TensorInfo
from edge.tflite_check import description_of
from edge.tflite_runner import load_tflite
from edge.verifier import verify

FIXTURES = Path(__file__).parent / "fixtures"
BINARY = FIXTURES / "larq_sequential.h5"
FLOAT = FIXTURES / "keras2_functional.h5"
DIGITS = Path(__file__).parents[1] / "examples" / "digits.h5"


def examples(count: int = 20, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def rows(report: Report) -> dict[str, tuple[int | None, int | None]]:
    """Bits before and after, by layer."""
    return {row.name: (row.bits_before, row.bits_after) for row in report.layers if row.bits_before}


# -- what is written -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 8, 32])
@pytest.mark.parametrize("source", [BINARY, FLOAT, DIGITS], ids=lambda path: path.stem)
def test_files_are_sound_and_the_same_each_time(source: Path, bits: int, tmp_path: Path) -> None:
    first = edge.convert(source, tmp_path, bits=bits)
    contents = {file.path: Path(file.path).read_bytes() for file in first.files}
    assert {Path(path).name for path in contents} == {f"{source.stem}.edge", f"{source.stem}.tflite"}
    assert [file.bytes for file in first.files] == [len(content) for content in contents.values()]
    verify(read(tmp_path / f"{source.stem}.edge"))
    assert is_edge_tflite(tmp_path / f"{source.stem}.tflite")
    assert edge.convert(source, tmp_path, bits=bits) == first
    assert {path: Path(path).read_bytes() for path in contents} == contents


def test_what_is_known_is_stored(tmp_path: Path) -> None:
    labels = [f"digit {i}" for i in range(10)]
    edge.convert(DIGITS, tmp_path / "net.edge", labels=labels)
    metadata = read(tmp_path / "net.edge").metadata
    assert metadata["source"]["file"] == "digits.h5" and len(metadata["source"]["sha256"]) == 64
    assert metadata["inputs"] == ["picture"]
    assert metadata["outputs"] == [{"name": "probabilities", "activation": "softmax", "kind": "probabilities"}]
    assert metadata["labels"] == labels
    assert metadata["preprocess"] == preset("byte").to_json()
    assert [row["name"] for row in metadata["layers"]][:3] == ["rescale", "conv1", "pool1"]
    known = json.loads(description_of((tmp_path / "net.tflite").read_bytes()).partition(": ")[2])
    assert known["labels"] == labels and known["preprocess"] == metadata["preprocess"]


def test_several_outputs_keep_their_names(tmp_path: Path) -> None:
    edge.convert(FLOAT, tmp_path, bits=32)
    outputs = read(tmp_path / "keras2_functional.edge").metadata["outputs"]
    assert [(output["name"], output["kind"]) for output in outputs] == [("scores", "probabilities"), ("tail", "logits")]


# -- the report ----------------------------------------------------------------------------------------------------------------


def test_a_binarized_model_is_packed_as_trained(tmp_path: Path) -> None:
    report = edge.convert(DIGITS, tmp_path)
    assert rows(report) == {
        "conv1": (32, 8), "norm1": (32, None), "conv2": (32, 1), "norm2": (32, None), "conv3": (32, 1), "norm3": (32, None),
        "dense1": (32, 1), "norm4": (32, None), "logits": (32, 8),
    }  # fmt: skip
    by_name = {row.name: row for row in report.layers}
    assert by_name["conv2"].kernel == "conv2d bits x bits -> bits"
    assert by_name["conv2"].bytes_before == 4 * 5 * 5 * 32 * 64 and by_name["conv2"].bytes_after <= 8192
    assert by_name["norm4"].note == "done by dense1"
    assert "grid of 8 bits" in by_name["conv1"].note and "train binary" in by_name["conv1"].note
    assert not any("smaller, not faster" in message for message in report.messages)
    assert report.input_dtype == "uint8" and "0..255 as they are" in report.preprocess


def test_bytes_by_layer_are_all_the_constants(tmp_path: Path) -> None:
    report = edge.convert(DIGITS, tmp_path, formats=["edge"])
    constants = read(tmp_path / "digits.edge").constants
    assert sum(row.bytes_after for row in report.layers) == sum(constant.nbytes for constant in constants)


def test_a_float_model_becomes_smaller_not_faster(tmp_path: Path) -> None:
    report = edge.convert(FLOAT, tmp_path)
    assert rows(report)["scores"] == (32, 8) and rows(report)["depthwise"] == (32, 1)
    assert "accuracy unknown: give --data" in report.messages
    assert any(message.startswith("smaller, not faster") for message in report.messages)


def test_a_model_without_a_1_bit_layer_is_not_said_to_have_one(tmp_path: Path) -> None:
    write_h5(tmp_path / "model.h5", [conv("only", np.ones((3, 3, 3, 4), np.float32) / 3)], (8, 8, 3))
    report = edge.convert(tmp_path / "model.h5", formats=["edge"])
    assert rows(report) == {"only": (32, 8)}
    assert not any("smaller, not faster" in message for message in report.messages)


def test_the_report_is_json(tmp_path: Path) -> None:
    document = json.loads(json.dumps(edge.convert(FLOAT, tmp_path, data=examples()).to_json()))
    assert document["agreement"]["pictures"] == 20 and 0 <= document["agreement"]["share"] <= 1
    assert document["layers"][0]["name"] == "stem/conv"


def test_progress_is_told(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    edge.convert(FLOAT, tmp_path, bits=4, calibrate=examples(), progress=lambda *step: steps.append(step))
    assert [name for name in dict.fromkeys(name for name, _, _ in steps)] == list(module.STEPS)
    assert all(0 <= done <= total for _, done, total in steps)


# -- agreement -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [BINARY, FLOAT], ids=lambda path: path.stem)
def test_32_bits_agree_with_the_source(source: Path, tmp_path: Path) -> None:
    shape = (9, 9, 3) if source is BINARY else (8, 8, 3)
    report = edge.convert(source, tmp_path, bits=32, data=examples(shape=shape))
    assert report.agreement is not None
    assert report.agreement.share == 1.0 and report.agreement.largest_difference < 1e-4
    assert "top-1 agreement with the source on 20 pictures: 100.00 %" in report.messages


def test_calibrated_8_bits_stay_close(tmp_path: Path) -> None:
    report = edge.convert(FLOAT, tmp_path, bits=8, calibrate=examples())
    assert report.agreement is not None and report.agreement.share is not None
    assert report.agreement.share >= 0.9
    assert rows(report)["stem/conv"] == (32, 8)
    program = read(tmp_path / "keras2_functional.edge")
    assert "int8" in {tensor.type.encoding.name.lower() for tensor in program.tensors}


@pytest.mark.parametrize(("bits", "kernel"), [(1, "conv2d int8 x bits -> int8"), (8, "conv2d int8 x int8 -> int8")])
def test_int8_activations_are_the_same_in_both_files(bits: int, kernel: str, tmp_path: Path) -> None:
    """One step more in the input of the tail's last layer is up to 58 steps of its output: any layer that rounds otherwise shows there.

    The scores come after a mean, where TFLite rounds a half away from zero and the engine to even: a step of 6 / 255 in each of 5 values.
    """
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed, no .tflite can be run")
    report = edge.convert(FLOAT, tmp_path, bits=bits, calibrate=examples())
    assert report.activation_bits == 8 and any(kernel in row.kernel for row in report.layers)
    ours = edge.load(tmp_path / "keras2_functional.edge").run(examples())
    theirs = load_tflite(tmp_path / "keras2_functional.tflite").run(examples())
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)
    assert np.ptp(ours[1]) == pytest.approx(6)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-3)


def test_1_bit_weights_with_float_activations_where_asked(tmp_path: Path) -> None:
    report = edge.convert(FLOAT, tmp_path, bits=1, activation_bits=32, calibrate=examples())
    assert report.activation_bits == 32 and not any("-> int8" in row.kernel for row in report.layers)


def test_classes_of_the_data_give_accuracies(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (12, 28, 28), np.uint8)
    np.savez(tmp_path / "data.npz", x_test=pictures, y_test=np.arange(12) % 10)
    agreement = edge.convert(DIGITS, tmp_path, data=tmp_path / "data.npz").agreement
    assert agreement is not None and agreement.share == 1.0
    assert agreement.accuracy is not None and agreement.accuracy == agreement.source_accuracy
    assert round(12 * agreement.accuracy, 6).is_integer()


def test_low_agreement_is_a_warning_that_names_the_ways_on() -> None:
    said = advice(Agreement(100, 89, 0.5), packed_weights=True, packed_activations=False)
    assert said[0] == "top-1 agreement with the source on 100 pictures: 89.00 %"
    assert said[1].startswith("warning") and all(word in said[1] for word in ("--bits 8", "fine-tuning", "training the network binary"))
    assert not any("warning" in line for line in advice(Agreement(100, 90, 0.5), packed_weights=False, packed_activations=False))


def test_outputs_that_are_no_classes_are_compared_by_value() -> None:
    assert Agreement(5, None, 0.25).text() == "largest difference to the source on 5 pictures: 0.25"


def test_pictures_of_a_folder_calibrate_and_compare(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    pictures = np.random.default_rng(2).integers(0, 256, (3, 12, 10, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    by_folder = edge.convert(FLOAT, tmp_path / "a", bits=8, calibrate=tmp_path / "pictures")
    by_paths = edge.convert(FLOAT, tmp_path / "b", bits=8, calibrate=sorted((tmp_path / "pictures").iterdir()))
    by_array = edge.convert(FLOAT, tmp_path / "c", bits=8, calibrate=pictures)
    assert by_folder.agreement == by_paths.agreement == by_array.agreement
    assert by_folder.agreement is not None and by_folder.agreement.pictures == 3
    assert (tmp_path / "a.edge").read_bytes() == (tmp_path / "b.edge").read_bytes() == (tmp_path / "c.edge").read_bytes()


def test_calibration_takes_pictures_from_the_whole_set() -> None:
    array = np.arange(10, dtype=np.float32).reshape(10, 1)
    samples = load_examples(array, inputs=(TensorInfo("x", (1,), "float32"),), preprocess=None, array_names=())
    assert [float(value[0]) for value, _ in samples.first(4)] == [0, 3, 6, 9]
    assert samples.first(10) is samples


# -- the input -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({}, "uint8"), ({"input_dtype": "float32"}, "float32"), ({"preprocess": "unit"}, "float32"), ({"preprocess": "byte"}, "uint8")],
)
def test_a_model_that_rescales_takes_bytes(options: Any, dtype: str, tmp_path: Path) -> None:
    assert edge.convert(DIGITS, tmp_path, **options).input_dtype == dtype


def test_one_format_and_whole_numbers_as_labels_are_taken(tmp_path: Path) -> None:
    report = edge.convert(DIGITS, tmp_path / "net.edge", formats="edge", labels=list(range(10)))
    assert [file.format for file in report.files] == ["edge"] and [path.name for path in tmp_path.iterdir()] == ["net.edge"]
    assert read(tmp_path / "net.edge").metadata["labels"] == [str(i) for i in range(10)]


def test_a_source_that_is_no_path_is_refused() -> None:
    with pytest.raises(InputError, match="expected the path of a file, got bytes"):
        edge.convert(b"content")  # type: ignore[arg-type]


def test_other_models_take_floats_unless_the_preset_is_bytes(tmp_path: Path) -> None:
    assert edge.convert(FLOAT, tmp_path, bits=32).input_dtype == "float32"
    assert edge.convert(FLOAT, tmp_path, bits=32, preprocess="byte").input_dtype == "uint8"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bits": 5}, "bits should be one of 1, 2, ternary, 4, 8, 16, 32, got 5"),
        ({"input_dtype": "int4"}, "input_dtype should be one of auto, float32, uint8, int8"),
        ({"output_dtype": "uint8"}, "output_dtype should be one of float32, int8"),
        ({"input_dtype": "uint8", "preprocess": "unit"}, "takes pixels 0..255, but the network sees"),
        ({"preprocess": "instagram"}, "unknown preset"),
        ({"labels": ["a", "b"]}, "expected 10 names"),
        ({"labels": ["\x1b[2J"] * 10}, "expected printable names"),
        ({"labels": [None] * 10}, "labels should be names or whole numbers, got NoneType"),
        ({"formats": "onnx"}, "formats should be among edge, tflite, got onnx"),
        ({"formats": ["onnx"]}, "formats should be among edge, tflite, got onnx"),
        ({"formats": []}, "got none"),
        ({"data": np.zeros((2, 5, 5, 1), np.float32)}, r"has the shape \(5, 5, 1\), but the network takes \(28, 28, 1\)"),
        ({"data": np.full((2, 28, 28, 1), 0.5, np.float32)}, "no whole numbers 0..255"),
        ({"data": np.zeros((28, 28), np.uint8)}, "examples should be numbers of the shape"),
        ({"data": "/no/such/file.npz"}, "no/such/file.npz"),
        ({"input_shape": (32, 32, 3)}, "input"),
    ],
)
def test_options_that_do_not_fit_are_refused_and_nothing_is_written(options: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, ModelError), match=says):
        edge.convert(DIGITS, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


# -- where files go ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "edge_path"),
    [
        (None, "in/model.edge"),
        ("out/", "out/model.edge"),
        ("in", "in/model.edge"),
        ("out/small", "out/small.edge"),
        ("out/small.tflite", "out/small.edge"),
        ("out/small.v2", "out/small.v2.edge"),
    ],
)
def test_targets(destination: str | None, edge_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    assert targets(Path("in/model.h5"), destination, ("edge",)) == {"edge": Path(edge_path)}


def test_a_target_is_never_the_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is the source itself"):
        targets(tmp_path / "model.edge", None, ("edge",))


@pytest.mark.parametrize("name", ["edge", "tflite"])
def test_only_files_that_edge_wrote_are_replaced(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"digits.{name}"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="was not written by edge; give --force"):
        edge.convert(DIGITS, tmp_path)
    assert path.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1
    edge.convert(DIGITS, tmp_path, force=True)
    assert path.read_bytes() != b"mine"


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; make it first"):
        edge.convert(DIGITS, tmp_path / "nowhere" / "net.edge")


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.edge").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_replaceable({"edge": tmp_path / "net.edge"}, force=True)


def test_both_files_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = MAGIC + b"old"
    (tmp_path / "digits.edge").write_bytes(old)
    write = outputs.write_atomically

    def full(path: Path, pieces: Any) -> None:
        if ".tflite" in path.name:
            raise EdgeError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")
        write(path, pieces)

    monkeypatch.setattr(outputs, "write_atomically", full)
    with pytest.raises(EdgeError, match=r"cannot write .*/digits\.tflite: No space left"):
        edge.convert(DIGITS, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"digits.edge": old}


def test_a_failed_rename_is_an_error_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Any, target: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(source), None, str(target))

    monkeypatch.setattr(outputs.os, "replace", refused)
    with pytest.raises(EdgeError, match="cannot write"):
        write_all([(tmp_path / "a.edge", [b"x"])])
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_a_failed_rename_undoes_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    for name in ("old.edge", "last.tflite"):
        (tmp_path / name).write_bytes(name.encode())
    rename = os.replace

    def refused(source: Any, target: Any) -> None:
        if Path(target).name == "last.tflite" and Path(source).suffix == ".new":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(source), None, str(target))
        rename(source, target)

    def one_name(source: Any, target: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(outputs.os, "replace", refused)
    if not links:
        monkeypatch.setattr(outputs.os, "link", one_name)
    with pytest.raises(EdgeError, match=r"cannot write .*/last\.tflite: Operation not permitted"):
        write_all((tmp_path / name, [b"n", b"ew"]) for name in ("old.edge", "absent.edge", "last.tflite"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old.edge": b"old.edge", "last.tflite": b"last.tflite"}


def test_replaced_files_leave_nothing_beside_them(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        sizes = write_all((tmp_path / name, [content]) for name in ("a.edge", "a.tflite"))
        assert set(sizes.values()) == {len(content)}
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.edge": content, "a.tflite": content}


def test_a_missing_package_for_tflite_leaves_the_edge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingPackage("writing TFLite needs flatbuffers; install it with: pip install 'edge-lowbit[convert]'")

    monkeypatch.setattr(module, "packages", missing)
    report = edge.convert(DIGITS, tmp_path)
    assert [file.format for file in report.files] == ["edge"] and "pip install" in report.messages[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["digits.edge"]
    with pytest.raises(MissingPackage, match="flatbuffers"):
        edge.convert(DIGITS, tmp_path, formats=["tflite"])


def test_no_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.h5"):
        edge.convert(tmp_path / "nothing.h5")
