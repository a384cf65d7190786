"""A model in the form that Teachable Machine exports (tests/fixtures/make_teachable_machine.py), and its labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.converters.keras_file import read_keras

FIXTURE = Path(__file__).parent / "fixtures" / "teachable_machine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "export")
    return tmp_path / "export"


def expected(x: np.ndarray) -> np.ndarray:
    """What the model computes of (N, 32, 32, 3), in NumPy."""
    calls = {call.name.rpartition("/")[2]: call.weights for call in read_keras(FIXTURE / "keras_model.h5").calls}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        w = calls[name]
        return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-3) * w["gamma"] + w["beta"]

    def windows(x: np.ndarray, stride: int) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::stride, ::stride]

    x = np.einsum("nhwcij,ijco->nhwo", windows(np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)]), 2), calls["Conv1"]["kernel"])
    skip = np.clip(norm(x, "bn_Conv1"), 0, 6)
    x = np.clip(norm(skip @ calls["block_1_expand"]["kernel"][0, 0], "block_1_expand_BN"), 0, 6)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = np.einsum("nhwcij,ijc->nhwc", windows(padded, 1), calls["block_1_depthwise"]["depthwise_kernel"][..., 0])
    x = np.clip(norm(x, "block_1_depthwise_BN"), 0, 6) @ calls["block_1_project"]["kernel"][0, 0]
    x = (skip + norm(x, "block_1_project_BN")).mean((1, 2))
    x = np.maximum(x @ calls["dense_Dense1"]["kernel"] + calls["dense_Dense1"]["bias"], 0) @ calls["dense_Dense2"]["kernel"]
    return np.asarray(np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


@pytest.mark.parametrize("bits", [32, 8, 1])
def test_it_converts_with_its_labels(bits: int, folder: Path) -> None:
    report = edge.convert(folder / "keras_model.h5", bits=bits, formats="edge")
    engine = edge.load(folder / "keras_model.edge")
    assert engine.program.metadata["labels"] == ["Cup", "Plant", "Nothing"]
    assert "labels: Cup, Plant, Nothing, from labels.txt beside the model" in report.messages
    x = np.random.default_rng(3).uniform(0, 1, (3, 32, 32, 3)).astype(np.float32)
    tolerance = {32: 1e-5, 8: 0.05, 1: 1.0}[bits]
    np.testing.assert_allclose(engine.run(x), expected(x.astype(np.float64)), atol=tolerance)


def test_labels_given_count_and_those_of_another_model_do_not(folder: Path) -> None:
    edge.convert(folder / "keras_model.h5", labels=["a", "b", "c"], formats="edge")
    assert edge.load(folder / "keras_model.edge").program.metadata["labels"] == ["a", "b", "c"]
    (folder / "labels.txt").write_text("one\ntwo\n")
    edge.convert(folder / "keras_model.h5", formats="edge")
    assert "labels" not in edge.load(folder / "keras_model.edge").program.metadata
