"""Layers along one axis, which are read as layers of images of height 1, and other layers that existing operations express."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import model_of
from keras_oracle import converted, difference, examples, randomize

from edge.converters.layers import read_graph
from edge.errors import ModelError
from edge.kernels.reference import run_graph

Layers = Callable[[Any], list[Any]]


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


ROW, IMAGE = (11, 6), (7, 9, 4)
CASES: Mapping[str, tuple[tuple[int, ...], Layers]] = {
    "conv": (ROW, lambda k: [k.Conv1D(5, 3)]),
    "conv same": (ROW, lambda k: [k.Conv1D(5, 4, padding="same", activation="relu")]),
    "conv causal": (ROW, lambda k: [k.Conv1D(5, 3, padding="causal", dilation_rate=2)]),
    "conv strides": (ROW, lambda k: [k.Conv1D(5, 2, strides=3, padding="same", use_bias=False)]),
    "conv groups": (ROW, lambda k: [k.Conv1D(6, 3, groups=3)]),
    "depthwise": (ROW, lambda k: [k.DepthwiseConv1D(3, padding="same", depth_multiplier=2)]),
    "depthwise strides": (ROW, lambda k: [k.DepthwiseConv1D(4, strides=2)]),
    "separable": (ROW, lambda k: [k.SeparableConv1D(5, 3, strides=2, padding="same", depth_multiplier=2)]),
    "max pool": (ROW, lambda k: [k.MaxPooling1D(3, strides=2)]),
    "max pool same": (ROW, lambda k: [k.MaxPooling1D(3, padding="same")]),
    "average pool": (ROW, lambda k: [k.AveragePooling1D(2)]),
    "average pool same": (ROW, lambda k: [k.AveragePooling1D(4, strides=1, padding="same")]),
    "global average": (ROW, lambda k: [k.GlobalAveragePooling1D()]),
    "global average kept": (ROW, lambda k: [k.GlobalAveragePooling1D(keepdims=True)]),
    "global max": (ROW, lambda k: [k.GlobalMaxPooling1D()]),
    "padding": (ROW, lambda k: [k.ZeroPadding1D((2, 1)), k.Conv1D(3, 2)]),
    "padding one number": (ROW, lambda k: [k.ZeroPadding1D(2)]),
    "batch norm": (ROW, lambda k: [k.Conv1D(5, 3), k.BatchNormalization(), k.ReLU(), k.Flatten(), k.Dense(3)]),
    "normalization": (ROW, lambda k: [k.Normalization()]),
    "normalization given": (IMAGE, lambda k: [k.Normalization(mean=[1, 2, 3, 4], variance=[4, 0.3, 2, 1])]),
    "normalization of all values": (IMAGE, lambda k: [k.Normalization(axis=None, mean=0.3, variance=2.5)]),
    "normalization inverted": (IMAGE, lambda k: [k.Normalization(mean=[1, 2, 3, 4], variance=[4, 0.3, 2, 1], invert=True)]),
    "global average image": (IMAGE, lambda k: [k.GlobalAveragePooling2D(keepdims=True)]),
}


def model_with(keras: Any, case: tuple[tuple[int, ...], Layers], seed: int) -> Any:
    shape, layers = case
    model = keras.Sequential([keras.Input(shape), *layers(keras.layers)])
    randomize(model, seed)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # takes mean and variance from the weights
    return model


@pytest.mark.parametrize("case", CASES)
def test_layers_equal_keras(case: str, keras: Any, tmp_path: Path) -> None:
    assert difference(model_with(keras, CASES[case], len(case)), tmp_path / "model.keras") < 2e-6


@pytest.mark.parametrize("bits", [32, 8, 1])
def test_a_network_along_one_axis_converts(bits: int, keras: Any, tmp_path: Path) -> None:
    def layers(k: Any) -> list[Any]:
        middle = [k.MaxPooling1D(2), k.SeparableConv1D(16, 3, padding="same"), k.BatchNormalization(), k.ZeroPadding1D((1, 0))]
        last = [k.AveragePooling1D(3, strides=2), k.GlobalAveragePooling1D(), k.Dense(4)]
        return [k.Conv1D(8, 5, padding="causal"), k.BatchNormalization(), k.ReLU(), *middle, k.Conv1D(9, 3, strides=2), *last]

    model = model_with(keras, ((37, 3), layers), 4)
    found = converted(model, tmp_path, examples((37, 3), 1), bits)
    assert found["reference"] < 1e-6 and found["tflite"] < 1e-5
    assert found["keras"] < {32: 1e-5, 8: 0.05, 1: 2}[bits]


@pytest.mark.parametrize("kind", ["QuantConv1D", "QuantSeparableConv1D"])
def test_quantized_rows_are_images_of_height_1(kind: str) -> None:
    rng = np.random.default_rng(3)
    signs = {name: "ste_sign" for name in ("input_quantizer", "kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")}
    config = {"filters": 4, "kernel_size": [3], "padding": "same", "use_bias": False, **signs}
    weights = {"kernel": (3, 6, 4)} if kind == "QuantConv1D" else {"depthwise_kernel": (3, 6, 1), "pointwise_kernel": (1, 6, 4)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    row = read_graph(model_of((kind, config, arrays), shape=ROW))
    image = {name: array[None] for name, array in arrays.items()}
    twin = read_graph(model_of((kind.replace("1D", "2D"), {**config, "kernel_size": [1, 3]}, image), shape=(1, *ROW)))
    x = examples(ROW, 5)[0]
    got, want = run_graph(row, {"image": x}), run_graph(twin, {"image": x[None]})
    np.testing.assert_array_equal(got[row.outputs[0]], want[twin.outputs[0]][0])
    assert any(kind.encoding.name == "BITS" for kind in row.types.values())


@pytest.mark.parametrize(
    ("kind", "config", "says"),
    [
        ("Conv1D", {"kernel_size": [3, 3]}, "kernel_size should be a whole number of at least 1"),
        ("ZeroPadding1D", {"padding": [1, 2, 3]}, "padding should be"),
        ("Normalization", {}, "mean should be a number"),
        ("Normalization", {"mean": [1.0, 2.0], "variance": 1.0}, "mean should be one number or one for each of 6 channels, got 2"),
        ("Normalization", {"mean": 1.0, "variance": -1.0}, "variance must not be negative"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(kind: str, config: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_graph(model_of((kind, config, {}), shape=ROW))


def test_rows_need_two_axes() -> None:
    with pytest.raises(ModelError, match="needs an input of steps x channels, got the shape"):
        read_graph(model_of(("MaxPooling1D", {}, {}), shape=IMAGE))
