"""The shipped example against Keras on MNIST's test pictures: every layer, every answer, and the sizes of the converted files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge
from edge.compare import Comparison, compare
from edge.compare_layers import EXACT
from edge.engine import Engine
from edge.tflite_runner import load_tflite

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits.h5"
MNIST = ROOT.parent / "shared" / "data" / "mnist.npz"
PICTURES = 1_000  # of those compared layer by layer, or with TFLite
TOLERANCE = 1e-4
LEAST_ACCURACY = 0.988
MOST_TIES = 1e-7  # per packed value
MOST_TIED_PICTURES = 3


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras, with the layers of the example."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'edge-lowbit[convert]'")
    keras = pytest.importorskip("keras")
    importlib.import_module("edge.training")  # registers the layers

    return keras


@pytest.fixture(scope="module")
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test pictures (N, 28, 28, 1) and their classes."""
    if not MNIST.exists():
        pytest.skip("MNIST is not in the folder shared beside the repository")
    with np.load(MNIST) as data:
        return data["x_test"].reshape(-1, 28, 28, 1), data["y_test"].reshape(-1)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `.edge` file; the `.tflite` is beside it where it can be written."""
    path = tmp_path_factory.mktemp("digits") / "digits.edge"
    edge.convert(DIGITS, path, bits=1)
    return path


@pytest.fixture(scope="module")
def float_tflite_bytes(keras: Any) -> int:
    """The size of the same topology in float32 by TensorFlow's converter, batch norms folded."""
    import digits_twin

    return len(digits_twin.float_tflite(digits_twin.twin()))


@pytest.fixture(scope="module")
def layerwise(keras: Any, mnist: tuple[np.ndarray, np.ndarray], converted: Path) -> Comparison:
    return compare(DIGITS, converted, data=mnist[0][:PICTURES], keras=True)


# Layer by layer, each fed with Keras' own input


def test_every_bit_is_kerass_but_for_ties(layerwise: Comparison) -> None:
    packed = [layer for layer in layerwise.layers if layer.encoding == "bits"]
    values, ties = sum(layer.values for layer in packed), sum(layer.tied_bits for layer in packed)
    print(f"{values:,} packed values, {ties} ties")
    assert layerwise.oracle.startswith("Keras")
    assert layerwise.examples == PICTURES
    assert {layer.precision for layer in layerwise.layers} == {EXACT}  # no weight was given up
    assert [layer.flipped_bits for layer in packed] == [0] * len(packed)
    assert ties <= MOST_TIES * values


def test_every_packed_layer_is_compared(layerwise: Comparison) -> None:
    compared = {name: layer for layer in layerwise.layers for name in layer.layers}
    values = {"norm1": 14 * 14 * 32, "norm2": 7 * 7 * 64, "norm3": 7 * 7 * 64}
    assert {name: compared[name].values for name in values} == {name: PICTURES * count for name, count in values.items()}
    assert all(compared[name].encoding == "bits" for name in values)


def test_every_float_layer_is_kerass_but_for_rounding(layerwise: Comparison) -> None:
    floats = {layer.layers[-1]: layer for layer in layerwise.layers if layer.encoding == "float32"}
    assert set(floats) == {"relu", "logits", "probabilities"}
    for layer in floats.values():
        assert layer.tolerance is not None
        assert layer.max_abs_error <= layer.tolerance


# From picture to answer


def logits_of_keras(keras: Any, pictures: np.ndarray) -> np.ndarray:
    from edge.training import QuantConv2D, QuantDense

    model = keras.saving.load_model(DIGITS, custom_objects={"QuantConv2D": QuantConv2D, "QuantDense": QuantDense}, compile=False)
    to_logits = keras.Model(model.inputs, model.get_layer("logits").output)
    return np.asarray(to_logits.predict(pictures.astype(np.float32), batch_size=250, verbose=0))


def logits_of(engine: Engine, picture: np.ndarray) -> np.ndarray:
    return next(step.output for step in engine.trace(picture) if step.layers[-1] == "logits").reshape(-1)


def test_all_test_pictures_get_kerass_logits(
    keras: Any, mnist: tuple[np.ndarray, np.ndarray], converted: Path
) -> None:
    pictures, labels = mnist
    expected, engine = logits_of_keras(keras, pictures), edge.load(converted)
    logits = np.stack([logits_of(engine, picture) for picture in pictures])
    beyond = np.flatnonzero(np.abs(logits - expected).max(axis=1) > TOLERANCE)
    _assert_tied(converted, pictures, beyond)
    equal = np.delete(np.arange(len(pictures)), beyond)
    np.testing.assert_array_equal(logits[equal].argmax(axis=1), expected[equal].argmax(axis=1))
    np.testing.assert_array_equal(engine.run(pictures).argmax(axis=1), logits.argmax(axis=1))
    accuracy = (logits.argmax(axis=1) == labels).mean()
    print(f"accuracy {100 * accuracy:.2f} %, logits differ by at most {np.abs(logits - expected)[equal].max():.2g}, tied pictures {beyond}")
    assert accuracy >= LEAST_ACCURACY


def _assert_tied(converted: Path, pictures: np.ndarray, numbers: np.ndarray) -> None:
    """At most a few pictures have other logits than Keras, and of each it is shown that a tie flipped in it."""
    assert len(numbers) <= MOST_TIED_PICTURES, f"pictures {numbers} differ"
    if len(numbers):
        result = compare(DIGITS, converted, data=pictures[numbers], keras=True)
        assert result.tied_examples == tuple(range(len(numbers))), f"pictures {numbers}: {result.verdict}"


# The files


def test_the_edge_file_is_a_twenty_fifth_of_the_float_tflite(converted: Path, float_tflite_bytes: int) -> None:
    assert converted.stat().st_size * 25 <= float_tflite_bytes


def test_the_tflite_file_is_small_enough(converted: Path, float_tflite_bytes: int) -> None:
    assert converted.with_suffix(".tflite").stat().st_size * 3.5 <= float_tflite_bytes


def test_the_tflite_file_gives_what_the_edge_file_gives(converted: Path, mnist: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'edge-lowbit[litert]'")
    pictures = mnist[0][:PICTURES]
    expected = edge.load(converted).run(pictures)
    np.testing.assert_allclose(load_tflite(converted.with_suffix(".tflite")).run(pictures), expected, rtol=0, atol=TOLERANCE)
