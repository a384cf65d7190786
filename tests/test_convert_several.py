"""Networks with several inputs and outputs through every command: convert, run, inspect, bench and profile; calibration and agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_models import document, invoke
from two_inputs import two_inputs

import edge
from edge.converters import convert as converting
from edge.converters.convert import convert
from edge.errors import InputError
from edge.tflite_runner import load_tflite

COUNT = 12


@pytest.fixture(autouse=True)
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file in whose place the model of two inputs is read."""
    monkeypatch.setattr(converting, "read_keras", lambda path, **_: two_inputs())
    (tmp_path / "two.keras").write_bytes(b"PK")
    return tmp_path / "two.keras"


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    return {"image": random.integers(0, 256, (COUNT, 6, 5, 3), dtype=np.uint8), "label": random.integers(0, 10, (COUNT, 1))}


@pytest.fixture
def archive(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(tmp_path / "both.npz", **arrays, y=np.arange(COUNT) % 4)
    return tmp_path / "both.npz"


def difference(got: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(got, expected, strict=True))


def test_both_files_give_the_same(source: Path, arrays: dict[str, np.ndarray]) -> None:
    report = convert(source, bits=32)
    assert report.input_dtype == "uint8"
    assert "input: image: " in report.messages[-1] and report.messages[-1].endswith("; label: arrays of (1,)")
    engine, lite = edge.load(source.with_suffix(".edge")), load_tflite(source.with_suffix(".tflite"))
    assert [info.name for info in lite.inputs] == [info.name for info in engine.inputs] == ["image", "label"]
    expected = engine.run(arrays)
    assert difference(lite.run({**arrays, "image": arrays["image"].astype(np.float32)}), expected) < 1e-5


@pytest.mark.parametrize("kind", ["archive", "arrays"])
def test_calibrated_on_all_inputs(source: Path, archive: Path, arrays: dict[str, np.ndarray], kind: str) -> None:
    given: Any = archive if kind == "archive" else arrays
    convert(source, source.with_name("float"), bits=32)
    report = convert(source, bits=8, calibrate=given, data=given)
    assert report.activation_bits == 8 and report.agreement is not None
    assert report.agreement.pictures == COUNT and report.agreement.equal is not None  # of the probabilities, not of the place
    outputs = edge.load(source.with_suffix(".edge")).run(arrays)
    expected = edge.load(source.with_name("float.edge")).run(arrays)
    assert difference(outputs, expected) < 0.1 * max(float(np.abs(array).max()) for array in expected)
    assert difference(load_tflite(source.with_suffix(".tflite")).run({**arrays, "image": arrays["image"].astype(np.float32)}), expected) < 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": np.zeros((2, 6, 5, 3), np.uint8)}, "by name, received image"),
        ({"image": np.zeros((2, 6, 5, 3), np.uint8), "label": np.zeros((3, 1))}, "2 for image, 3 for label"),
        (np.zeros((2, 6, 5, 3), np.uint8), "should be a dict with arrays for image"),
        ({"image": np.zeros((2, 6, 5, 3), np.uint8), "label": np.zeros((2, 1), complex)}, "numbers of the shape"),
    ],
)
def test_examples_that_do_not_fit(source: Path, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(source, bits=8, calibrate=given)


def test_names_belong_to_the_output_they_fit(source: Path) -> None:
    convert(source, bits=32, labels=["a", "b"], formats="edge")
    with pytest.raises(InputError, match="expected 4 names"):
        convert(source, bits=32, labels=["a", "b", "c"], formats="edge")


def test_every_command_takes_them(source: Path, archive: Path) -> None:
    convert(source, bits=32)
    model, lite = source.with_suffix(".edge"), source.with_suffix(".tflite")
    for file in (model, lite):
        shown = invoke("inspect", file).stdout
        assert "image 6x5x3" in shown.replace("1x6x5x3", "6x5x3") and "label" in shown and "place" in shown
        assert [entry["name"] for entry in document(invoke("inspect", file, "--json"))["inputs"]] == ["image", "label"]
        assert len(document(invoke("run", archive, "-m", file, "--json"))["results"]) == COUNT
        assert invoke("profile", file, "--threads", "1").exit_code == 0
    rows = document(invoke("bench", model, lite, "--threads", "1", "--seconds", "0.1", "--json"))["rows"]
    assert len(rows) == 2
