"""`edge inspect` on each kind of file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from keras_files import COLOURS, binary_colour_layers, colour_layers, write_h5
from sample_programs import GRAPHS, program

import edge
from edge.cli import cli
from edge.format import MAJOR, MINOR, read, write
from edge.tflite_listing import list_tflite

SHARED = Path(__file__).parents[2] / "shared" / "models" / "mlperf_tiny"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


def document(path: Path) -> Any:
    result = invoke("inspect", path, "--json")
    assert result.exit_code == 0 and result.stderr == ""
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with its `.edge` and `.tflite` beside it."""
    path = write_h5(tmp_path_factory.mktemp("model") / "colours.h5", binary_colour_layers(), (8, 8, 3))
    edge.convert(path, labels=COLOURS)
    return path


def test_an_edge_file_tells_all_it_holds(source: Path) -> None:
    path = source.with_suffix(".edge")
    found, engine = document(path), edge.load(path)
    assert found["format_version"] == f"{MAJOR}.{MINOR}" and found["bytes"] == path.stat().st_size
    assert found["metadata"]["source"] == {
        "file": "colours.h5",
        "keras_version": "2.11.0",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    assert found["metadata"]["labels"] == list(COLOURS) and found["preprocessing"].startswith("pixels 0..255 scaled to 0..1")
    assert [entry["kernel"] for entry in found["instructions"]] == list(engine.kernels)
    assert sum(entry["bytes"] for entry in found["instructions"]) == sum(c.nbytes for c in engine.program.constants)
    assert found["memory"]["footprint"] == engine.footprint.total_bytes and found["memory"]["arena_peak"] == engine.program.arena_bytes
    assert {"bits": 1, "weights": 9}.items() <= found["weights"][0].items()
    assert found["inputs"][0]["shape"] == [8, 8, 3] and found["outputs"][0]["kind"] == "probabilities"
    signs = next(entry for entry in found["instructions"] if entry["bits"] == 1)
    stored = signs["constants"]["filter"]
    assert "signs" in signs["layers"] and stored["encoding"] == "bits" and stored["shape"] == [3, 1, 1, 3]


def test_an_edge_file_reads_well(source: Path) -> None:
    text = invoke("inspect", source.with_suffix(".edge")).stdout
    told = "colours.h5", f"edge {MAJOR}.{MINOR}", "sha256", "red, green, blue", "arena peak", "footprint", "conv2d", "softmax", "8x8x3"
    for words in told:
        assert words in text


@pytest.mark.parametrize("name", GRAPHS)
def test_every_operation_can_be_shown(name: str, tmp_path: Path) -> None:
    write(program(name), tmp_path / "x.edge")
    found = document(tmp_path / "x.edge")
    assert len(found["instructions"]) == len(read(tmp_path / "x.edge").instructions)
    assert invoke("inspect", tmp_path / "x.edge").exit_code == 0


def test_what_metadata_hold_is_shown_or_left_out(source: Path, tmp_path: Path) -> None:
    original = read(source.with_suffix(".edge"))
    for metadata in ({}, {"preprocess": {"range": "x"}}, {"source": "x", "layers": [1, {"kernel": 1, "note": [2]}]}, {"notes": [1]}):
        write(replace(original, metadata=metadata), tmp_path / "x.edge")
        assert invoke("inspect", tmp_path / "x.edge").exit_code == 0
        assert document(tmp_path / "x.edge")["metadata"] == metadata


def test_a_tflite_file_lists_its_operators(source: Path) -> None:
    found = document(source.with_suffix(".tflite"))
    names = [entry["operator"] for entry in found["operators"]]
    assert "CONV_2D" in names and names[-1] == "SOFTMAX" and found["metadata"]["source"]["file"] == "colours.h5"
    assert found["inputs"][0]["shape"] == [1, 8, 8, 3]
    text = invoke("inspect", source.with_suffix(".tflite")).stdout
    assert "CONV_2D" in text and "TFLite" in text and "total" in text


@pytest.mark.parametrize("layers", [colour_layers("softmax"), colour_layers("sigmoid"), colour_layers("tanh"), colour_layers("linear")])
def test_a_tflite_file_tells_what_its_output_ends_in(layers: list[Any], tmp_path: Path) -> None:
    edge.convert(write_h5(tmp_path / "x.h5", layers, (8, 8, 3)), formats=["tflite"])
    assert list_tflite((tmp_path / "x.tflite").read_bytes()).activations == (layers[-1][1]["activation"],)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/models")
def test_tflite_files_of_others() -> None:
    listing = list_tflite((SHARED / "kws_ref_model.tflite").read_bytes())
    assert listing.activations == ("softmax",) and listing.inputs[0].dtype == "int8"
    low, high = listing.inputs[0].real_range or (0, 0)
    assert low < high and np.isfinite([low, high]).all()
    assert [op.name for op in listing.operators].count("DEPTHWISE_CONV_2D") == 4
    assert invoke("inspect", SHARED / "kws_ref_model.tflite").exit_code == 0


def test_a_keras_file_lists_its_layers(source: Path) -> None:
    found = document(source)
    assert [(layer["name"], layer["kind"]) for layer in found["layers"]][:2] == [("first", "Conv2D"), ("signs", "QuantConv2D")]
    assert sum(layer["parameters"] for layer in found["layers"]) == 27
    text = invoke("inspect", source).stdout
    assert "Keras 2.11.0" in text and "kernel 1x1x3x3" in text and f"edge convert {source} --bits 1" in text


def test_files_that_are_none_are_one_sentence(source: Path, tmp_path: Path) -> None:
    content = source.with_suffix(".edge").read_bytes()
    lite = source.with_suffix(".tflite").read_bytes()
    cases = {"cut.edge": content[:200], "text.edge": b"text", "cut.tflite": lite[:400], "empty.h5": b""}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        result = invoke("inspect", tmp_path / name)
        assert result.exit_code == 1 and name in result.stderr and result.stderr.count("\n") == 1 and result.stdout == ""
    assert invoke("inspect", tmp_path / "none.edge").exit_code == 1 and invoke("inspect").exit_code == 2
