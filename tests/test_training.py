"""The training layers: values and gradients of the quantizers, padding, and that a saved model loads as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edge.errors import InputError

keras = pytest.importorskip("keras", reason="training needs Keras")
tf = pytest.importorskip("tensorflow", reason="gradients are taken with TensorFlow")
training = pytest.importorskip("edge.training")

# No subnormals: TensorFlow's kernels may flush them to zero, whose sign is +1.
FLOATS = st.floats(-4, 4, width=32, allow_subnormal=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2e-38, -2e-38])
ARRAYS = arrays(np.float32, array_shapes(max_dims=4, max_side=6), elements=FLOATS)


def gradient(quantizer: Any, x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = quantizer(variable)
    return np.asarray(tape.gradient(y, variable, output_gradients=tf.constant(upstream)))


def signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, np.float32(1), np.float32(-1))


@settings(max_examples=60, deadline=None)
@given(ARRAYS)
def test_ste_sign_is_exactly_one_or_minus_one_with_plus_at_zero(x: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(training.ste_sign(x)), signs(x))


@settings(max_examples=60, deadline=None)
@given(ARRAYS, st.sampled_from([1.0, 0.5, 2.0]))
def test_the_gradient_passes_where_the_input_is_small(x: np.ndarray, clip_value: float) -> None:
    upstream = np.linspace(-3, 3, x.size, dtype=np.float32).reshape(x.shape)
    expected = np.where(np.abs(x) <= clip_value, upstream, 0)
    np.testing.assert_array_equal(gradient(training.SteSign(clip_value), x, upstream), expected)


def test_without_a_clip_value_the_gradient_passes_everywhere() -> None:
    x = np.array([-9, -1, 0, 1, 9], np.float32)
    np.testing.assert_array_equal(gradient(training.SteSign(None), x, 2 * x), 2 * x)


def test_gradients_reach_the_latent_kernel_in_a_compiled_step() -> None:
    layer = training.QuantDense(1, kernel_quantizer="ste_sign", use_bias=False)
    layer.build((None, 3))
    layer.kernel.assign([[0.5], [-2.0], [0.0]])

    @tf.function
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            y = layer(x)
        return y, tape.gradient(y, layer.kernel.value)

    y, grad = step(tf.constant([[2.0, 3.0, 5.0]]))
    assert float(y[0, 0]) == 2 - 3 + 5
    np.testing.assert_array_equal(np.asarray(grad), [[2.0], [0.0], [5.0]])


# Names and configs


@pytest.mark.parametrize(
    "identifier",
    [
        "ste_sign",
        "SteSign",
        {"class_name": "SteSign", "config": {"clip_value": 1.0}},
        # As Larq 0.13 and later write it, its quantizers being layers.
        {
            "class_name": "SteSign",
            "config": {"name": "ste_sign", "trainable": True, "dtype": "float32", "clip_value": 1.0},
        },
    ],
)
def test_a_quantizer_is_found_by_name_and_by_config(identifier: Any) -> None:
    found = training.get_quantizer(identifier)
    assert isinstance(found, training.SteSign)
    assert training.serialize_quantizer(found) == {"class_name": "SteSign", "config": {"clip_value": 1.0}}


def test_none_and_callables_are_taken_as_they_are() -> None:
    assert training.get_quantizer(None) is None
    assert training.get_quantizer(training.ste_sign) is training.ste_sign
    assert training.serialize_quantizer(None) is None


@pytest.mark.parametrize("identifier", ["sign_ste", {"class_name": "Nope"}, {}, 3])
def test_an_unknown_quantizer_is_an_error_that_lists_the_known(identifier: Any) -> None:
    with pytest.raises(InputError, match="ste_sign"):
        training.get_quantizer(identifier)


def test_a_plain_function_cannot_be_saved() -> None:
    layer = training.QuantDense(2, input_quantizer=training.ste_sign)
    with pytest.raises(InputError, match="register_quantizer"):
        layer.get_config()


def test_a_registered_quantizer_works_in_a_layer() -> None:
    @training.register_quantizer("half_for_this_test")
    class Half(training.Quantizer):
        precision = 32

        def forward(self, x: Any) -> Any:
            return x / 2

        def gradient(self, x: Any, upstream: Any) -> Any:
            return upstream * 7

    layer = training.QuantDense(1, kernel_quantizer="half_for_this_test", kernel_initializer="ones", use_bias=False)
    assert np.asarray(layer(np.ones((1, 4), np.float32))).item() == 2.0
    assert layer.get_config()["kernel_quantizer"] == {"class_name": "Half", "config": {}}
    np.testing.assert_array_equal(gradient(Half(), np.ones(2, np.float32), np.ones(2, np.float32)), [7.0, 7.0])


def test_weight_clip_keeps_weights_in_range() -> None:
    w = np.array([-3, -1, -0.2, 0, 1, 1.5], np.float32)
    np.testing.assert_array_equal(np.asarray(training.WeightClip()(w)), np.clip(w, -1, 1))
    np.testing.assert_array_equal(np.asarray(training.WeightClip(0.5)(w)), np.clip(w, -0.5, 0.5))
    assert isinstance(training.QuantDense(2, kernel_constraint="weight_clip").kernel_constraint, training.WeightClip)


# The layers against their meaning in NumPy


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def convolved(x: np.ndarray, w: np.ndarray, *, stride: int, dilation: int, pad_value: float) -> np.ndarray:
    (kh, kw), (_, height, width, _) = w.shape[:2], x.shape
    pads = [(0, 0), same_padding(height, kh, stride, dilation), same_padding(width, kw, stride, dilation), (0, 0)]
    x = np.pad(x, pads, constant_values=pad_value)
    rows, columns = -(-height // stride), -(-width // stride)
    out = np.zeros((len(x), rows, columns, w.shape[3]), np.float32)
    for i, j in np.ndindex(kh, kw):
        tap = x[:, i * dilation :: stride, j * dilation :: stride][:, :rows, :columns]
        out += tap @ w[i, j]
    return out


@pytest.mark.parametrize("pad_values", [0.0, 1.0])
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "dilation"),
    [(7, 6, (3, 3), 1, 1), (7, 6, (3, 2), 2, 1), (6, 9, (5, 1), 1, 2), (2, 2, (5, 5), 1, 1), (8, 8, (3, 3), 3, 1)],
)
def test_quant_conv2d_convolves_signs(
    pad_values: float, height: int, width: int, kernel: tuple[int, int], stride: int, dilation: int
) -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(2, height, width, 3)).astype(np.float32)
    layer = training.QuantConv2D(
        4,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="same",
        pad_values=pad_values,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        use_bias=False,
    )
    y = np.asarray(layer(x))
    w = np.asarray(layer.kernel)
    expected = convolved(signs(x), signs(w), stride=stride, dilation=dilation, pad_value=pad_values)
    np.testing.assert_array_equal(y, expected)
    assert layer.compute_output_shape(x.shape) == y.shape


def test_quant_conv2d_without_quantizers_is_conv2d() -> None:
    x = np.random.default_rng(6).normal(size=(2, 5, 5, 3)).astype(np.float32)
    ours, keras_own = training.QuantConv2D(4, 3, activation="relu"), keras.layers.Conv2D(4, 3, activation="relu")
    ours(x), keras_own(x)
    keras_own.set_weights(ours.get_weights())
    np.testing.assert_array_equal(np.asarray(ours(x)), np.asarray(keras_own(x)))


def test_padding_with_ones_needs_a_known_size() -> None:
    layer = training.QuantConv2D(4, 3, padding="same", pad_values=1.0, name="wide")
    compiled = tf.function(layer, input_signature=[tf.TensorSpec((1, None, None, 3))], autograph=False)
    with pytest.raises(InputError, match=r"'wide'.*pad_values=0\.0"):
        compiled(np.ones((1, 4, 4, 3), np.float32))


def test_quant_dense_multiplies_signs_then_adds_bias_and_activates() -> None:
    x = np.random.default_rng(7).normal(size=(3, 9)).astype(np.float32)
    layer = training.QuantDense(
        5, input_quantizer="ste_sign", kernel_quantizer="ste_sign", bias_initializer="ones", activation="relu"
    )
    y = np.asarray(layer(x))
    np.testing.assert_array_equal(y, np.maximum(signs(x) @ signs(np.asarray(layer.kernel)) + 1, 0))


# Files


def small_model() -> Any:
    keras.utils.set_random_seed(3)
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    return keras.Sequential(
        [
            keras.layers.Input((6, 5, 2)),
            training.QuantConv2D(4, 3, padding="same", pad_values=1.0, name="conv", **binary),
            keras.layers.Flatten(),
            training.QuantDense(3, name="dense", **binary),
        ]
    )


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_saved_model_loads_and_computes_the_same(tmp_path: Path, suffix: str) -> None:
    model, x = small_model(), np.random.default_rng(8).normal(size=(4, 6, 5, 2)).astype(np.float32)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(loaded(x)))
    for before, after in zip(model.layers, loaded.layers, strict=True):
        assert type(before) is type(after)
        assert before.get_config() == after.get_config()
    np.testing.assert_array_equal(loaded.get_layer("conv").kernel, model.get_layer("conv").kernel)


def test_the_file_names_classes_and_keys_as_larq_does(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    small_model().save(path)
    with h5py.File(path) as file:
        layers = {
            entry["config"]["name"]: entry for entry in json.loads(file.attrs["model_config"])["config"]["layers"]
        }
    conv, dense = layers["conv"], layers["dense"]
    sign = {"class_name": "SteSign", "config": {"clip_value": 1.0}}
    assert (conv["class_name"], dense["class_name"]) == ("QuantConv2D", "QuantDense")
    assert conv["config"]["input_quantizer"] == conv["config"]["kernel_quantizer"] == sign
    assert dense["config"]["input_quantizer"] == dense["config"]["kernel_quantizer"] == sign
    assert conv["config"]["pad_values"] == 1.0
    assert conv["config"]["kernel_constraint"]["class_name"] == "WeightClip"
    assert conv["config"]["kernel_constraint"]["config"] == {"clip_value": 1.0}


def test_without_keras_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['keras'] = None; import edge.training"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MissingPackage: edge.training needs Keras 3" in done.stderr
