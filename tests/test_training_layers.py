"""The training layers against their meaning in NumPy: products, alpha behind them, K, learnable activations, and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import InputError

keras = pytest.importorskip("keras", reason="training needs Keras")
training = pytest.importorskip("edge.training")

Array = np.ndarray


def signs(x: Array) -> Array:
    return np.where(x >= 0, np.float32(1), np.float32(-1))


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pads(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def windows(x: Array, kernel: tuple[int, int], stride: int, padding: str, value: float = 0.0) -> Array:
    """(N, H, W, kh, kw, C): what each output pixel sees."""
    around = [pads(size, k, stride, padding) for size, k in zip(x.shape[1:3], kernel, strict=True)]
    x = np.pad(x, [(0, 0), *around, (0, 0)], constant_values=value)
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))[:, ::stride, ::stride]
    return seen.transpose(0, 1, 2, 4, 5, 3)


# Sums of signs, and alpha behind them


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), 1), ((3, 2), 2), ((1, 5), 1)])
def test_a_convolution_multiplies_exact_sums_by_alpha(padding: str, kernel: tuple[int, int], stride: int) -> None:
    x = normal(0, 2, 7, 6, 5)
    layer = training.QuantConv2D(4, kernel, strides=stride, padding=padding, input_quantizer="ste_sign", kernel_quantizer="xnor_weights")
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    sums = np.einsum("nhwijc,ijco->nhwo", windows(signs(x), kernel, stride, padding), signs(w))
    alpha = np.asarray(keras.ops.mean(keras.ops.abs(w), axis=(0, 1, 2)))
    np.testing.assert_array_equal(y, sums * alpha)  # bit for bit: sums of signs are whole


def test_dorefa_weights_scale_the_whole_layer() -> None:
    x = normal(1, 3, 9)
    layer = training.QuantDense(5, input_quantizer="ste_sign", kernel_quantizer="dorefa_weights")
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    np.testing.assert_allclose(y, signs(x) @ signs(w) * np.abs(w).mean(), rtol=1e-6)


def test_k_bit_weights_and_activations_are_whole_numbers_over_their_steps() -> None:
    x = np.abs(normal(2, 2, 6, 6, 3))
    layer = training.QuantConv2D(4, 3, input_quantizer=training.DoReFa(2), kernel_quantizer=training.DoReFa(3, "weights"), use_bias=False)
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    levels = np.rint(np.clip(x, 0, 1) * 3)
    whole = 2 * np.rint((np.tanh(w) / (2 * np.abs(np.tanh(w)).max()) + 0.5) * 7) - 7
    expected = np.einsum("nhwijc,ijco->nhwo", windows(levels, (3, 3), 1, "valid"), whole) / (3 * 7)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pad_values", [0.0, 1.0])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_convolution_has_one_alpha_for_each_output(pad_values: float, multiplier: int) -> None:
    x = normal(3, 2, 6, 5, 4)
    quantizers = {"input_quantizer": "ste_sign", "depthwise_quantizer": "xnor_weights"}
    layer = training.QuantDepthwiseConv2D(3, depth_multiplier=multiplier, padding="same", pad_values=pad_values, **quantizers)
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    seen = windows(signs(x), (3, 3), 1, "same", pad_values)
    sums = np.einsum("nhwijc,ijcm->nhwcm", seen, signs(w))
    np.testing.assert_allclose(y, (sums * np.abs(w).mean(axis=(0, 1))).reshape(y.shape), rtol=1e-6)


def test_magnitude_aware_sign_scales_depthwise_filters_by_multiplier_as_larq_does() -> None:
    x = normal(4, 1, 5, 5, 3)
    layer = training.QuantDepthwiseConv2D(3, depth_multiplier=2, depthwise_quantizer="magnitude_aware_sign", use_bias=False)
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    scaled = np.abs(w).mean(axis=(0, 1, 2)) * signs(w)
    expected = np.einsum("nhwijc,ijcm->nhwcm", windows(x, (3, 3), 1, "valid"), scaled).reshape(y.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "padding"), [(1, "valid"), (2, "same"), (3, "valid")])
def test_a_transposed_convolution_is_keras_own_of_scaled_signs(stride: int, padding: str) -> None:
    x = normal(5, 2, 4, 5, 6)
    geometry = {"strides": stride, "padding": padding}
    layer = training.QuantConv2DTranspose(3, 3, input_quantizer="ste_sign", kernel_quantizer="xnor_weights", **geometry)
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    own = keras.layers.Conv2DTranspose(3, 3, **geometry)
    own.build(x.shape)
    own.set_weights([signs(w) * np.abs(w).mean(axis=(0, 1, 3), keepdims=True), np.zeros(3, np.float32)])
    np.testing.assert_allclose(y, np.asarray(own(signs(x))), rtol=1e-5, atol=1e-6)
    assert tuple(layer.compute_output_shape(x.shape)) == y.shape


def test_magnitude_aware_sign_is_refused_where_it_would_scale_inputs() -> None:
    layer = training.QuantConv2DTranspose(3, 3, kernel_quantizer="magnitude_aware_sign")
    with pytest.raises(InputError, match="use xnor_weights"):
        layer(normal(6, 1, 4, 4, 2))


def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one() -> None:
    x = normal(7, 2, 6, 6, 4)
    layer = training.QuantSeparableConv2D(
        5, 3, padding="same", input_quantizer="ste_sign", depthwise_quantizer="xnor_weights", pointwise_quantizer="dorefa_weights"
    )
    y = np.asarray(layer(x))
    inner, outer = np.asarray(layer.depthwise_kernel), np.asarray(layer.pointwise_kernel)
    middle = np.einsum("nhwijc,ijcm->nhwcm", windows(signs(x), (3, 3), 1, "same"), signs(inner)) * np.abs(inner).mean(axis=(0, 1))
    expected = np.einsum("nhwc,co->nhwo", middle.reshape(*y.shape[:3], -1), signs(outer[0, 0])) * np.abs(outer).mean()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


# K


@pytest.mark.parametrize(("padding", "stride", "pad_values"), [("valid", 1, 0.0), ("same", 1, 0.0), ("same", 2, 1.0)])
def test_k_is_the_mean_magnitude_that_each_output_sees(padding: str, stride: int, pad_values: float) -> None:
    x = normal(8, 2, 6, 7, 5)
    arguments: dict[str, Any] = {"strides": stride, "padding": padding, "pad_values": pad_values, "input_quantizer": "ste_sign"}
    with_map = training.QuantConv2D(4, 3, kernel_quantizer="xnor_weights", magnitude_map=True, use_bias=False, **arguments)
    without = training.QuantConv2D(4, 3, kernel_quantizer="xnor_weights", use_bias=False, **arguments)
    y = np.asarray(with_map(x))
    without.build(x.shape)
    without.set_weights(with_map.get_weights())
    k = windows(np.abs(x), (3, 3), stride, padding).mean(axis=(3, 4, 5))[..., None]
    np.testing.assert_allclose(y, np.asarray(without(x)) * k, rtol=1e-4, atol=1e-6)


def test_k_of_a_dense_layer_is_one_number_and_stands_before_the_bias() -> None:
    x = normal(9, 3, 8)
    layer = training.QuantDense(
        4, input_quantizer="ste_sign", kernel_quantizer="xnor_weights", magnitude_map=True, bias_initializer="ones", activation="relu"
    )
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    sums = signs(x) @ signs(w) * np.abs(w).mean(axis=0)
    np.testing.assert_allclose(y, np.maximum(sums * np.abs(x).mean(axis=1, keepdims=True) + 1, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_along_one_axis_everything_is_as_along_two(padding: str) -> None:
    x = normal(10, 2, 9, 4)
    layer = training.QuantConv1D(3, 4, padding=padding, input_quantizer="ste_sign", kernel_quantizer="xnor_weights", magnitude_map=True)
    y, w = np.asarray(layer(x)), np.asarray(layer.kernel)
    if padding == "causal":
        x = np.concatenate([np.zeros((2, 3, 4), np.float32), x], axis=1)
    rows, how = x[:, None], "valid" if padding == "causal" else padding
    seen = windows(np.where(rows == 0, 0, signs(rows)), (1, 4), 1, how)[:, 0]
    k = windows(np.abs(rows), (1, 4), 1, how)[:, 0].mean(axis=(2, 3, 4))[..., None]
    expected = np.einsum("nlijc,jco->nlo", seen, signs(w)) * np.abs(w).mean(axis=(0, 1)) * k
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({}, "no input_quantizer"), ({"input_quantizer": "ste_sign", "groups": 2}, "2 groups, expected 1")],
)
def test_k_needs_signs_and_one_group(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        training.QuantConv2D(4, 3, magnitude_map=True, **arguments)


# Learnable activations


def test_rsign_takes_the_sign_behind_a_shift_that_is_trained() -> None:
    x = normal(11, 6, 4)
    layer = training.RSign()
    layer(x)
    layer.shift.assign([0.5, -0.5, 0.0, 2.0])
    np.testing.assert_array_equal(np.asarray(layer(x)), signs(x - np.float32([0.5, -0.5, 0.0, 2.0])))
    assert [weight.name for weight in layer.trainable_weights] == ["shift"]


def test_rprelu_bends_where_its_shift_says() -> None:
    x = normal(12, 2, 3, 3, 4)
    layer = training.RPReLU()
    layer(x)
    before, slope, after = normal(13, 3, 4)
    for weight, value in zip((layer.before, layer.slope, layer.after), (before, slope, after), strict=True):
        weight.assign(value)
    z = x - before
    np.testing.assert_allclose(np.asarray(layer(x)), np.where(z > 0, z, slope * z) + after, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("radius", "channels"), [(1, 5), (2, 4), (5, 3)])
def test_local_response_normalization_is_tensorflows(radius: int, channels: int) -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="its function is the definition")
    x, numbers = 3 * normal(16, 2, 3, 4, channels), {"bias": 1.5, "alpha": 0.3, "beta": 0.75}
    expected = tensorflow.nn.local_response_normalization(x, depth_radius=radius, **numbers)
    np.testing.assert_allclose(np.asarray(training.LocalResponseNormalization(radius, **numbers)(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("numbers", [{"depth_radius": 0}, {"bias": 0.0}, {"alpha": -1.0}])
def test_local_response_normalization_refuses_what_has_no_root(numbers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="needs depth_radius >= 1, bias > 0 and alpha >= 0, got"):
        training.LocalResponseNormalization(**numbers)


# Files


def _conv(**arguments: Any) -> Any:
    return training.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="xnor_weights", **arguments)


LAYERS: dict[str, Callable[[], Any]] = {
    "xnor-k": lambda: _conv(padding="same", magnitude_map=True, kernel_constraint="weight_clip"),
    "pad ones": lambda: _conv(padding="same", pad_values=1.0),
    "k bits": lambda: training.QuantConv2D(8, 3, input_quantizer=training.DoReFa(2), kernel_quantizer=training.DoReFa(3, "weights")),
    "ternary": lambda: training.QuantConv2D(8, 3, kernel_quantizer=training.SteTern(0.1, True, None)),
    "depthwise": lambda: training.QuantDepthwiseConv2D(
        3, input_quantizer="swish_sign", depthwise_quantizer="dorefa_weights", depthwise_constraint="weight_clip"
    ),
    "separable": lambda: training.QuantSeparableConv2D(
        8, 3, depthwise_quantizer="ste_heaviside", pointwise_quantizer="approx_sign", pointwise_constraint="weight_clip"
    ),
    "transposed": lambda: training.QuantConv2DTranspose(8, 3, strides=2, kernel_quantizer="xnor_weights"),
    "dense": lambda: training.QuantDense(6, input_quantizer="ste_sign", kernel_quantizer=training.NoOp(1), magnitude_map=True),
    "rsign": lambda: training.RSign(quantizer="ste_sign"),
    "rprelu": lambda: training.RPReLU(initial_slope=0.1),
    "local response": lambda: training.LocalResponseNormalization(2, 1.5, 0.3, 0.75),
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_saved_layer_loads_and_computes_the_same(tmp_path: Path, name: str, suffix: str) -> None:
    model = keras.Sequential([keras.layers.Input((6, 5, 4)), LAYERS[name]()])
    x, path = normal(14, 2, 6, 5, 4), tmp_path / f"model{suffix}"
    model.set_weights([value + normal(15, *value.shape) for value in model.get_weights()])
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(loaded(x)))
    assert model.layers[0].get_config() == loaded.layers[0].get_config()
