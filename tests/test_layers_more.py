"""Layers that resize, turn, join and normalize, transposed convolutions and activations, against Keras itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import model_of
from keras_oracle import converted, difference, examples, randomize

from edge.converters.formulas import FORMULAS
from edge.converters.keras_model import Call
from edge.converters.layer_support import FAST, FREE, REFUSED, SUPPORTED, layer_support
from edge.converters.layers import read_graph
from edge.converters.layers_activation import ACTIVATIONS
from edge.converters.passes import run_passes
from edge.errors import ModelError
from edge.kernels.reference import run_graph

Layers = Callable[[Any], list[Any]]


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


ROW, IMAGE, PIXELS = (11, 6), (7, 9, 4), (5, 4, 3)
CASES: Mapping[str, tuple[tuple[int, ...], Layers]] = {
    "cropping": (IMAGE, lambda k: [k.Cropping2D(((1, 2), (3, 0)))]),
    "cropping one number": (IMAGE, lambda k: [k.Cropping2D(2)]),
    "cropping a row": (ROW, lambda k: [k.Cropping1D((2, 1))]),
    "center crop": (IMAGE, lambda k: [k.CenterCrop(4, 5)]),
    "upsampling": (IMAGE, lambda k: [k.UpSampling2D((2, 3))]),
    "upsampling bilinear": (IMAGE, lambda k: [k.UpSampling2D((2, 3), interpolation="bilinear")]),
    "upsampling a row": (ROW, lambda k: [k.UpSampling1D(3)]),
    "resizing": (IMAGE, lambda k: [k.Resizing(5, 13)]),
    "resizing nearest": (IMAGE, lambda k: [k.Resizing(11, 5, interpolation="nearest")]),
    "resizing cropped": (IMAGE, lambda k: [k.Resizing(6, 4, crop_to_aspect_ratio=True)]),
    "permute": (IMAGE, lambda k: [k.Permute((3, 1, 2)), k.Conv2D(3, 2)]),
    "permute rows": (IMAGE, lambda k: [k.Permute((2, 1, 3))]),
    "permute a row": (ROW, lambda k: [k.Permute((2, 1))]),
    "layer norm": (IMAGE, lambda k: [k.LayerNormalization()]),
    "layer norm bare": (ROW, lambda k: [k.LayerNormalization(scale=False, center=False, epsilon=0.1)]),
    "layer norm of all": (PIXELS, lambda k: [k.LayerNormalization(axis=[1, 2, 3])]),
    "group norm": (IMAGE, lambda k: [k.GroupNormalization(2)]),
    "instance norm": (IMAGE, lambda k: [k.GroupNormalization(-1, scale=False)]),
    "transposed": (PIXELS, lambda k: [k.Conv2DTranspose(2, (3, 2))]),
    "transposed same": (PIXELS, lambda k: [k.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu")]),
    "transposed valid": (PIXELS, lambda k: [k.Conv2DTranspose(5, (3, 4), strides=2, use_bias=False)]),
    "transposed even": (PIXELS, lambda k: [k.Conv2DTranspose(5, (4, 2), strides=2, padding="same")]),
    "transposed steps": (PIXELS, lambda k: [k.Conv2DTranspose(4, (5, 3), strides=(3, 2), padding="same")]),
    "transposed apart": (PIXELS, lambda k: [k.Conv2DTranspose(4, (1, 2), strides=3)]),
    "transposed padded": (PIXELS, lambda k: [k.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1)]),
    "transposed padded valid": (PIXELS, lambda k: [k.Conv2DTranspose(2, (3, 4), strides=(2, 3), output_padding=(1, 2))]),
    "transposed less": (PIXELS, lambda k: [k.Conv2DTranspose(2, 5, strides=2, padding="same", output_padding=0)]),
    "transposed dilated": (PIXELS, lambda k: [k.Conv2DTranspose(2, (3, 2), dilation_rate=(2, 3), padding="same")]),
    "transposed large": (PIXELS, lambda k: [k.Conv2DTranspose(2, 7, strides=2, padding="same")]),
    "transposed row": (ROW, lambda k: [k.Conv1DTranspose(3, 4, strides=2, padding="same")]),
    "transposed row odd": (ROW, lambda k: [k.Conv1DTranspose(3, 5, strides=3)]),
    "prelu": (ROW, lambda k: [k.Conv1D(3, 2), k.PReLU(shared_axes=[1])]),
}
NAMES = ["celu", "elu", "exponential", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "log_sigmoid", "log_softmax",
         "mish", "relu6", "selu", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus",
         "tanh_shrink"]  # fmt: skip


def model_with(keras: Any, case: tuple[tuple[int, ...], Layers], seed: int) -> Any:
    shape, layers = case
    model = keras.Sequential([keras.Input(shape), *layers(keras.layers)])
    randomize(model, seed)
    return model


@pytest.mark.parametrize("case", CASES)
def test_layers_equal_keras(case: str, keras: Any, tmp_path: Path) -> None:
    assert difference(model_with(keras, CASES[case], len(case)), tmp_path / "model.keras") < 4e-6


def test_activations_equal_keras(keras: Any, tmp_path: Path) -> None:
    """All at once, side by side, over the range in which they bend."""
    source = keras.Input((6, 4))
    tails = [keras.layers.Activation(name)(source) for name in NAMES]
    model = keras.Model(source, keras.layers.Concatenate()(tails))
    assert difference(model, tmp_path / "model.keras", scale=3) < 2e-6


def test_activations_of_keras_2() -> None:
    x = np.linspace(-5, 5, 24, dtype=np.float32).reshape(6, 4)
    for version, slope in (("2.15.0", 0.2), ("3.1.0", 1 / 6)):
        model = model_of(("Activation", {"activation": "hard_sigmoid"}, {}), shape=(6, 4))
        graph = read_graph(type(model)(**{**vars(model), "keras_version": version}))
        np.testing.assert_allclose(run_graph(graph, {"image": x})[graph.outputs[0]], np.clip(slope * x + 0.5, 0, 1), atol=1e-6)


def test_every_activation_that_is_offered_is_tried() -> None:
    elsewhere = {"linear", "relu", "sigmoid", "tanh", "softmax", "swish", "hard_swish"}
    assert {name for name in ACTIVATIONS if "sign" not in name or name == "softsign"} - set(NAMES) - elsewhere <= {"hard_sigmoid"}
    assert set(FORMULAS) <= set(NAMES)


@pytest.mark.parametrize("name", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
def test_merges_equal_keras(name: str, keras: Any, tmp_path: Path) -> None:
    """Of two tensors, of more, and of a tensor and what is repeated along it, in either order."""
    layers = keras.layers
    image = keras.Input(PIXELS)
    x, y = (layers.Conv2D(4, 1)(image) for _ in range(2))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    merge = getattr(layers, name)
    parts = [merge()([x, y]), merge()([x, pooled]), merge()([pooled, y]), merge()([x, layers.Conv2D(1, 1)(image)])]
    if name != "Subtract":
        parts.append(merge()([x, y, pooled]))
    model = keras.Model(image, layers.Concatenate()(parts))
    randomize(model, len(name))
    assert difference(model, tmp_path / "model.keras") < 2e-6


@pytest.mark.parametrize("axis", [1, 2, -2, 3])
def test_tensors_are_joined_along_every_axis(axis: int, keras: Any, tmp_path: Path) -> None:
    image = keras.Input(PIXELS)
    longer = keras.layers.ZeroPadding2D({1: ((1, 0), (0, 0)), 3: 0}.get(axis, ((0, 0), (0, 2))))(image)
    model = keras.Model(image, keras.layers.Concatenate(axis=axis)([longer, image]))
    assert difference(model, tmp_path / "model.keras") == 0


@pytest.mark.parametrize("shape", [(5,), (3, 4)])
def test_an_embedding_gives_rows_of_its_table(shape: tuple[int, ...], keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input(shape, dtype="int32"), keras.layers.Embedding(7, 6)])
    randomize(model, 2)
    whole = np.random.default_rng(0).integers(0, 7, (2, *shape)).astype(np.float32)
    assert difference(model, tmp_path / "model.keras", x=whole) == 0


def test_local_response_normalization(keras: Any, tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    arguments = {"depth_radius": 2, "bias": 1.5, "alpha": 0.3, "beta": 0.75}
    call = Call("lrn", "TFOpLambda", None, {"function": "nn.local_response_normalization"}, {}, ("image",), ("lrn",), arguments)
    graph = read_graph(model_of(calls=(call,), outputs=("lrn",), output_names=("lrn",), shape=PIXELS))
    x = examples(PIXELS, 3, 2.0)
    expected = tensorflow.nn.local_response_normalization(x, **arguments).numpy()
    np.testing.assert_allclose(run_graph(graph, {"image": x[0]})["lrn"], expected[0], rtol=1e-5, atol=1e-6)


def scattered(x: np.ndarray, kernel: np.ndarray, strides: tuple[int, int], size: tuple[int, int], pads: tuple[int, int]) -> np.ndarray:
    """The definition: every input pixel, times the kernel, added to the output where the kernel lies."""
    rows, columns, channels, _ = kernel.shape
    whole = np.zeros((x.shape[0] * strides[0] + rows + 9, x.shape[1] * strides[1] + columns + 9, channels))
    for (i, j), (y, z) in itertools.product(np.ndindex(*x.shape[:2]), np.ndindex(rows, columns)):
        whole[i * strides[0] + y, j * strides[1] + z] += kernel[y, z] @ x[i, j]
    return whole[pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    taps=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    same=st.booleans(),
    seed=st.integers(0, 99),
)
def test_transposed_convolutions_are_what_they_are_defined_as(taps: Any, strides: Any, same: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4, 2), (*taps, 3, 2)))
    config = {"kernel_size": list(taps), "strides": list(strides), "padding": "same" if same else "valid", "use_bias": False}
    norm = {name: np.abs(rng.normal(size=3)).astype(np.float32) + 1 for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    layers = (("Conv2DTranspose", config, {"kernel": kernel}), ("BatchNormalization", {}, norm), ("ReLU", {}, {}))
    graph = read_graph(model_of(*layers, shape=x.shape))
    values = run_graph(graph, {"image": x})
    steps = list(zip(x.shape[:2], taps, strides, strict=False))
    sizes = [size * step + (0 if same else max(tap - step, 0)) for size, tap, step in steps]
    pads = [max(tap - step, 0) // 2 if same else 0 for _, tap, step in steps]
    np.testing.assert_allclose(values["layer0"], scattered(x, kernel, strides, tuple(sizes), tuple(pads)), atol=1e-5)
    fast = run_passes(graph)
    assert not any(node.op in ("affine", "activation") for node in fast.nodes)
    np.testing.assert_allclose(run_graph(fast, {"image": x})[fast.outputs[0]], values[graph.outputs[0]], atol=1e-5)


# -- 32, 8 and 1 bits ----------------------------------------------------------------------------------------------------------


def decoder(k: Any) -> list[Any]:
    """An autoencoder with two kinds of enlargement, batch norm behind each."""
    down = [k.Conv2D(8, 3, strides=2, padding="same", activation="silu"), k.LayerNormalization(), k.Conv2D(16, 3, padding="same")]
    up = [k.Conv2DTranspose(16, 3, strides=2, padding="same"), k.BatchNormalization(), k.ReLU(), k.Cropping2D(((1, 0), (0, 1)))]
    last = [k.UpSampling2D(2), k.Conv2D(8, 3, padding="same", activation="gelu"), k.Permute((2, 1, 3))]
    return [*down, k.BatchNormalization(), k.ReLU(), *up, *last, k.Conv2DTranspose(3, 4, strides=2, padding="same")]


@pytest.mark.parametrize("bits", [32, 8, 1])
def test_a_decoder_converts(bits: int, keras: Any, tmp_path: Path) -> None:
    model = model_with(keras, ((8, 10, 3), decoder), 4)
    found = converted(model, tmp_path, examples((8, 10, 3), 1), bits)
    assert found["reference"] < 1e-5 and found["tflite"] < 1e-4, found
    assert found["keras"] < {32: 2e-5, 8: 0.2, 1: 3}[bits], found


def test_a_decoder_of_integers_converts(keras: Any, tmp_path: Path) -> None:
    def layers(k: Any) -> list[Any]:
        last = [k.BatchNormalization(), k.ReLU(), k.Cropping2D(1), k.UpSampling2D(2), k.Permute((2, 1, 3)), k.Conv2D(3, 3)]
        return [k.Conv2D(8, 3, padding="same", activation="relu"), k.Conv2DTranspose(8, 3, strides=2, padding="same"), *last]

    x = examples((8, 10, 3), 1, count=8)
    found = converted(model_with(keras, ((8, 10, 3), layers), 4), tmp_path, x, 8, calibrate=x)
    assert found["reference"] < 1e-6 and found["tflite"] < 0.05 and found["keras"] < 0.1, found


def test_signs_stay_packed_through_a_transposed_convolution(keras: Any, tmp_path: Path) -> None:
    from edge.training import QuantConv2D

    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    random = np.random.default_rng(1)
    weights = {"kernel": random.normal(size=(4, 2, 16, 8)).astype(np.float32)}
    config = {"kernel_size": [4, 2], "strides": [2, 2], "padding": "same", "use_bias": False, **signs}
    norm = {name: random.normal(size=16).astype(np.float32) for name in ("gamma", "beta", "moving_mean")}
    norm["moving_variance"] = np.abs(random.normal(size=16)).astype(np.float32) + 1
    last = {"kernel": random.normal(size=(3, 3, 16, 4)).astype(np.float32)}
    model = model_of(
        ("QuantConv2DTranspose", config, weights), ("BatchNormalization", {}, norm),
        ("QuantConv2D", {"kernel_size": [3, 3], "use_bias": False, **signs}, last), shape=(5, 6, 8),
    )  # fmt: skip
    graph = read_graph(model)
    k = keras.layers
    source = keras.Input((5, 6, 8))
    flipped = k.Conv2DTranspose(16, (4, 2), strides=2, padding="same", use_bias=False)
    batch = k.BatchNormalization()
    quantized = QuantConv2D(4, 3, use_bias=False, **signs)
    twin = keras.Model(source, quantized(batch(flipped(source))))
    flipped.set_weights([np.where(weights["kernel"] < 0, -1, 1)])
    batch.set_weights([norm[name] for name in ("gamma", "beta", "moving_mean", "moving_variance")])
    quantized.set_weights([last["kernel"]])
    x = np.where(random.random((5, 6, 8)) < 0.5, -1, 1).astype(np.float32)
    expected = twin.predict(x[None], verbose=0)[0]
    np.testing.assert_array_equal(run_graph(graph, {"image": x})[graph.outputs[0]], expected)
    fast = run_passes(graph)
    np.testing.assert_array_equal(run_graph(fast, {"image": x})[fast.outputs[0]], expected)
    floats = [name for node in fast.nodes for name in node.outputs if fast.types[name].encoding.name == "FLOAT32"]
    assert floats == list(fast.outputs)


@pytest.mark.parametrize(
    ("kind", "config", "says"),
    [
        ("Cropping2D", {"cropping": 5}, "leaves nothing of an image of 7 x 9"),
        ("CenterCrop", {"height": 8, "width": 2}, "cannot crop an image of 7 x 9 to 8 x 2"),
        ("Resizing", {"height": 4, "width": 4, "interpolation": "bicubic"}, "interpolation 'bicubic' is not supported"),
        ("Resizing", {"height": 4, "width": 4, "antialias": True}, "antialias is not supported where pictures shrink"),
        ("Resizing", {"height": 4, "width": 4, "pad_to_aspect_ratio": True}, "pad_to_aspect_ratio is not supported"),
        ("Permute", {"dims": [1, 3]}, "dims should be an order of the axes 1 to 3"),
        ("LayerNormalization", {"axis": [4]}, "axis .4. is not supported, expected some of 1 to 3"),
        ("GroupNormalization", {"groups": 3}, "groups 3 of 4 channels"),
        ("GroupNormalization", {"groups": []}, "groups should be a whole number of at least 1"),
        ("Conv2DTranspose", {"kernel_size": 3, "strides": 1 << 20}, "strides .* are not supported, expected at most 1024 pixels for each"),
        ("Conv2DTranspose", {"kernel_size": 3, "output_padding": "big"}, "output_padding should be whole numbers"),
        ("UpSampling2D", {"size": 1 << 30}, "does not fit its input: an image of"),
        ("Concatenate", {"axis": 0}, "cannot join the shapes .7, 9, 4. along axis 0"),
        ("Embedding", {}, "has no weight 'embeddings'"),
        ("Subtract", {}, "takes two inputs, got 1"),
        ("Activation", {"activation": "sparsemax"}, "activation 'sparsemax' is not supported, there are linear, "),
        ("Conv2DTranspose", {"kernel_size": 3, "strides": 2, "dilation_rate": 2}, "strides 2 together with dilation_rate 2"),
        ("Conv2DTranspose", {"kernel_size": 3, "strides": 2, "output_padding": 9}, "output_padding 9 makes"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(kind: str, config: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_graph(model_of((kind, config, {}), shape=IMAGE))


def test_what_is_said_of_layers_is_true_of_known_ones() -> None:
    found = layer_support()
    assert found["QuantConv2DTranspose"] == (FAST,) * 4 and found["LSTM"] == (REFUSED,) * 4 and found["Dropout"] == (FREE,) * 4
    assert found["MaxPooling2D"] == (FAST, FAST, SUPPORTED, FAST) and found["Softmax"] == (FAST, *(SUPPORTED,) * 3)
    assert not any(REFUSED in words for name, words in found.items() if found[name][0] != REFUSED)


def test_the_lambda_of_inception_resnet_is_known() -> None:
    """Until Keras 2.12 the blocks of InceptionResNetV2 scale and add in a Lambda, whose code is not run here but known."""
    config = {"function": ["4wEA", None, None], "arguments": {"scale": 0.25}}
    known = Call("block35_1", "Lambda", None, config, {}, ("image", "image"), ("block35_1",))
    x = np.random.default_rng(0).normal(size=(6, 6, 4)).astype(np.float32)
    graph = read_graph(model_of(calls=(known,), outputs=("block35_1",), output_names=("y",)))
    np.testing.assert_allclose(run_graph(graph, {"image": x})[graph.outputs[0]], x + 0.25 * x, rtol=1e-6)
    for other in (replace(known, name="block36_1"), replace(known, inputs=("image",)), replace(known, config={"arguments": {"a": 1}})):
        model = model_of(calls=(other,), outputs=("block35_1",), output_names=("y",))
        with pytest.raises(ModelError, match="a Lambda holds Python code"):
            read_graph(model)
