"""Layers read into a graph, against Keras itself, against what Larq computed (tests/fixtures), and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import model_of
from keras_oracle import difference, randomize

import edge
from edge.converters.keras_file import read_keras
from edge.converters.keras_model import Call
from edge.converters.layers import read_graph, rescales_itself, supported_layers
from edge.errors import InputError, ModelError
from edge.graph import Graph
from edge.kernels.reference import run_graph

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


def layer_cases() -> Mapping[str, tuple[tuple[int, ...], Callable[[Any], list[Any]]]]:
    """By name: the input shape, and the layers."""
    image, flat = (7, 9, 4), (13,)
    return {
        "conv valid": (image, lambda k: [k.Conv2D(5, (3, 2))]),
        "conv same": (image, lambda k: [k.Conv2D(5, (3, 4), padding="same")]),
        "conv strides": (image, lambda k: [k.Conv2D(5, (2, 3), strides=(2, 3), padding="same", use_bias=False)]),
        "conv stride beyond size": (image, lambda k: [k.Conv2D(5, 2, strides=4, padding="same")]),
        "conv dilated": (image, lambda k: [k.Conv2D(5, (3, 2), dilation_rate=(2, 3), padding="same")]),
        "conv dilated valid": (image, lambda k: [k.Conv2D(5, 2, dilation_rate=(3, 2))]),
        "conv groups": (image, lambda k: [k.Conv2D(6, 3, groups=2, padding="same")]),
        "conv activation": (image, lambda k: [k.Conv2D(5, 3, activation="relu")]),
        "conv activation object": (image, lambda k: [k.Conv2D(5, 3, activation=k.LeakyReLU(0.4))]),
        "conv softmax": (image, lambda k: [k.Conv2D(5, 1, activation="softmax")]),
        "depthwise": (image, lambda k: [k.DepthwiseConv2D((2, 3), padding="same")]),
        "depthwise multiplier": (image, lambda k: [k.DepthwiseConv2D(3, strides=2, depth_multiplier=3, activation="relu6")]),
        "separable": (image, lambda k: [k.SeparableConv2D(5, 3, padding="same", depth_multiplier=2)]),
        "dense": (flat, lambda k: [k.Dense(6, activation="softmax")]),
        "dense on an image": (image, lambda k: [k.Dense(6, activation="tanh")]),
        "dense on a row": ((5, 3), lambda k: [k.Dense(6)]),
        "batch norm": (image, lambda k: [k.BatchNormalization()]),
        "batch norm bare": (image, lambda k: [k.BatchNormalization(scale=False, center=False, epsilon=1e-2)]),
        "batch norm of a vector": (flat, lambda k: [k.BatchNormalization()]),
        "relu": (flat, lambda k: [k.ReLU()]),
        "relu limited": (flat, lambda k: [k.ReLU(max_value=0.5)]),
        "relu leaky and limited": (flat, lambda k: [k.ReLU(max_value=0.7, negative_slope=0.2)]),
        "prelu of every value": (image, lambda k: [k.PReLU(alpha_initializer="random_normal")]),
        "prelu of rows": (image, lambda k: [k.PReLU(shared_axes=[2], alpha_initializer="random_normal")]),
        "repeat": (flat, lambda k: [k.RepeatVector(3), k.Conv1D(2, 2)]),
        "relu leaky": (flat, lambda k: [k.ReLU(negative_slope=0.2)]),
        "leaky relu": (flat, lambda k: [k.LeakyReLU(negative_slope=0.25)]),
        "prelu": (image, lambda k: [k.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")]),
        "elu": (flat, lambda k: [k.ELU(alpha=0.7)]),
        "softmax layer": (image, lambda k: [k.Softmax()]),
        "sigmoid": (flat, lambda k: [k.Activation("sigmoid")]),
        "activation leaky": (flat, lambda k: [k.Activation("leaky_relu")]),
        "activation elu": (flat, lambda k: [k.Activation("elu")]),
        "max pool": (image, lambda k: [k.MaxPooling2D((2, 3))]),
        "max pool same": (image, lambda k: [k.MaxPooling2D(3, strides=2, padding="same")]),
        "average pool": (image, lambda k: [k.AveragePooling2D((3, 2), strides=1)]),
        "average pool same": (image, lambda k: [k.AveragePooling2D(3, strides=2, padding="same")]),
        "global average": (image, lambda k: [k.GlobalAveragePooling2D()]),
        "global max": (image, lambda k: [k.GlobalMaxPooling2D(keepdims=True)]),
        "flatten": (image, lambda k: [k.Flatten(), k.Dense(3)]),
        "reshape": (image, lambda k: [k.Reshape((3, -1, 2)), k.Conv2D(3, 2)]),
        "padding": (image, lambda k: [k.ZeroPadding2D(((1, 2), (0, 3))), k.Conv2D(3, 3)]),
        "padding one number": (image, lambda k: [k.ZeroPadding2D(2)]),
        "rescaling": (image, lambda k: [k.Rescaling(1 / 127.5, offset=-1)]),
        "training only": (flat, lambda k: [k.Dropout(0.5), k.GaussianNoise(0.3), k.Dense(3), k.ActivityRegularization(0.1)]),
        "augmentation": (image, lambda k: [k.RandomFlip(), k.RandomRotation(0.1), k.RandomContrast(0.2), k.Conv2D(2, 3)]),
    }


@pytest.mark.parametrize("case", layer_cases())
def test_layers_equal_keras(case: str, keras: Any, tmp_path: Path) -> None:
    shape, layers = layer_cases()[case]
    model = keras.Sequential([keras.Input(shape), *layers(keras.layers)])
    randomize(model, len(case))
    assert difference(model, tmp_path / "model.keras") < 2e-6


def test_h5_files_give_the_same(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()])
    randomize(model, 3)
    assert difference(model, tmp_path / "model.h5") < 2e-6


def test_a_functional_model_with_joins_and_operators(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    image = keras.Input((6, 5, 3))
    x = layers.Conv2D(4, 3, padding="same")(image)
    y = layers.Conv2D(4, 3, padding="same")(x)
    total = layers.Add()([x, y, layers.ReLU()(y)])
    joined = layers.Concatenate()([total, 2.0 - x * 0.5, keras.ops.relu(x + y), y / 4])
    model = keras.Model(image, layers.GlobalAveragePooling2D()(joined))
    randomize(model, 5)
    assert difference(model, tmp_path / "model.keras") < 2e-6


@pytest.mark.parametrize("widths", [((0, 0), (0, 0), (0, 3)), ((1, 0), (2, 3), (2, 1)), ((0, 2), (1, 0), (0, 0)), ((0, 0),) * 3])
def test_padding_an_image_and_its_channels_with_zeros(widths: Any, keras: Any, tmp_path: Path) -> None:
    image = keras.Input((4, 5, 3))
    x = keras.ops.pad(keras.layers.Conv2D(3, 1)(image), ((0, 0), *widths))
    x = keras.layers.LeakyReLU(0.5)(x)  # TensorFlow fuses padding and convolution, and drops the padding of channels
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(x))
    randomize(model, 6)
    assert difference(model, tmp_path / "model.keras") < 2e-6


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("gate", ["channels", "vector", "pixels", "same", "itself"])
def test_products(gate: str, swapped: bool, keras: Any, tmp_path: Path) -> None:
    image = keras.Input((4, 5, 3))
    x = keras.layers.Conv2D(6, 1)(image)
    factor = {
        "channels": lambda: keras.layers.GlobalAveragePooling2D(keepdims=True)(x),
        "vector": lambda: keras.layers.GlobalAveragePooling2D()(x),
        "pixels": lambda: keras.layers.Conv2D(1, 1)(image),
        "same": lambda: keras.layers.Conv2D(6, 3, padding="same")(image),
        "itself": lambda: x,
    }[gate]()
    model = keras.Model(image, keras.layers.Multiply()([factor, x] if swapped else [x, factor]))
    randomize(model, 9)
    assert difference(model, tmp_path / "model.keras") < 2e-6


def test_a_product_has_the_axes_of_the_longer_factor() -> None:
    calls = (
        Call("vector", "GlobalAveragePooling2D", None, {}, {}, ("image",), ("vector",)),
        Call("pixel", "GlobalAveragePooling2D", None, {"keepdims": True}, {}, ("image",), ("pixel",)),
        Call("product", "Multiply", None, {}, {}, ("vector", "pixel"), ("product",)),
    )
    assert read_graph(model_of(calls=calls, outputs=("product",), output_names=("product",))).types["product"].shape == (1, 1, 4)


@pytest.mark.parametrize("pad_values", [0.0, 1.0])
@pytest.mark.parametrize("quantizers", ["both", "kernel", "input"])
def test_quantized_layers_equal_their_keras_twins(pad_values: float, quantizers: str, keras: Any, tmp_path: Path) -> None:
    from edge.training import QuantConv2D, QuantDense

    sign = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    chosen = {name: value for name, value in sign.items() if quantizers in ("both", name.split("_")[0])}
    model = keras.Sequential(
        [
            keras.Input((7, 6, 5)),
            QuantConv2D(9, (3, 2), strides=2, padding="same", pad_values=pad_values, use_bias=True, **chosen),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            QuantDense(4, activation="relu", **chosen),
        ]
    )
    randomize(model, 11)
    assert difference(model, tmp_path / "model.keras") < 2e-6


@pytest.mark.parametrize("name", ["larq_sequential", "larq_residual", "keras2_functional"])
def test_every_layer_equals_what_larq_computed(name: str) -> None:
    graph = read_graph(read_keras(FIXTURES / f"{name}.h5"))
    known = np.load(FIXTURES / f"{name}.npz")
    compared = 0
    for index, example in enumerate(known["input"]):
        values = run_graph(graph, {graph.inputs[0]: example})
        for tensor in values.keys() & {key.removeprefix("layer/") for key in known.files if key != "input"}:
            expected = known[f"layer/{tensor}"][index]
            np.testing.assert_allclose(values[tensor], expected, rtol=1e-5, atol=3e-5, err_msg=tensor)
            compared += 1
    assert compared >= 10 * len(known["input"])


# -- what is refused -----------------------------------------------------------------------------------------------------------


def read_one(kind: str, config: Mapping[str, Any], weights: Mapping[str, np.ndarray] | None = None, **fields: Any) -> Graph:
    return read_graph(model_of((kind, config, weights or {}), **fields))


KERNEL = {"kernel": np.ones((3, 3, 4, 2), np.float32), "bias": np.zeros(2, np.float32)}
CONV = {"filters": 2, "kernel_size": [3, 3]}
NORM = {name: np.ones(4, np.float32) for name in ("gamma", "beta", "moving_mean", "moving_variance")}


@pytest.mark.parametrize(
    ("kind", "config", "weights", "says"),
    [
        ("Hashing2", {}, {}, "layer 'layer0' .Hashing2.: this layer is not supported; there are Activation, .*Conv2D"),
        ("Lambda", {}, {}, "Lambda holds Python code, which edge never runs"),
        ("Conv2D", {**CONV, "padding": "causal"}, KERNEL, "padding 'causal'"),
        ("Conv2D", {**CONV, "kernel_size": [5, 3]}, KERNEL, "kernel should have the shape .5, 3, 4, 2."),
        ("Conv2D", {**CONV, "strides": [0, 1]}, KERNEL, "strides should be one or two whole numbers of at least 1"),
        ("Conv2D", {**CONV, "strides": "big"}, KERNEL, "strides should be whole numbers, got 'big'"),
        ("Conv2D", {**CONV, "activation": "sparsemax"}, KERNEL, "activation 'sparsemax' is not supported, there are linear, relu"),
        ("Conv2D", CONV, {}, "has no weight 'kernel'"),
        ("Conv2D", {**CONV, "groups": []}, KERNEL, "groups should be a whole number of at least 1"),
        ("Conv2D", {**CONV, "groups": 3}, KERNEL, "kernel should have the shape"),
        ("QuantConv2D", {**CONV, "input_quantizer": "ste_nothing"}, KERNEL, "input_quantizer 'ste_nothing' is not supported"),
        ("QuantConv2D", {**CONV, "input_quantizer": "magnitude_aware_sign"}, KERNEL, "is for weights"),
        ("BatchNormalization", {"axis": 4}, NORM, "axis 4 is not supported, expected one of 1 to 3"),
        ("BatchNormalization", {"epsilon": -2.0}, NORM, "must be positive"),
        ("BatchNormalization", {}, {**NORM, "gamma": np.ones(1, np.float32)}, "gamma should have 4 values, one for each channel, got 1"),
        ("ReLU", {"threshold": 0.5}, {}, "threshold 0.5 is not supported"),
        ("Softmax", {"axis": [1, 2]}, {}, "axis .1, 2. is not supported, expected one of 1 to 3"),
        ("Reshape", {"target_shape": [5, 5]}, {}, "cannot bring the shape"),
        ("MaxPooling2D", {"pool_size": [9, 9]}, {}, "does not fit its input: a window of 9"),
        ("ZeroPadding2D", {"padding": [[1, 2, 3]]}, {}, "padding should be"),
        ("Rescaling", {"scale": [1, 2]}, {}, "one for each of 4 channels, got 2"),
        ("PReLU", {}, {"alpha": np.ones((6, 5, 4), np.float32)}, "alpha should have the shape .6, 6, 4., or 1 in place of some axes"),
        ("PReLU", {}, {}, "has no weight 'alpha'"),
        ("TFOpLambda", {"function": "math.sin"}, {}, "operation 'math.sin'"),
        ("Dense", {}, {"kernel": np.ones((4, 2), np.float32)}, "has no weight 'bias'"),
        ("ops.Pad", {"pad_width": [[0, 0], [0, 0], [0, 0], [0, 4]], "mode": "wrap"}, {}, "in mode 'wrap', expected a number, or the modes"),
        ("ops.Pad", {"pad_width": [[1, 0], [0, 0], [0, 0], [0, 4]], "mode": "constant"}, {}, r"expected .*0, 0.*top, bottom"),
        ("ops.Pad", {"pad_width": [[0, 0], [-1, 0]], "mode": "constant"}, {}, "pads by .* expected"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(kind: str, config: Any, weights: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_one(kind, config, weights)


def test_custom_layers_called_like_ours_are_refused() -> None:
    call = Call("act", "ReLU", "my_project", {}, {}, ("image",), ("act",))
    with pytest.raises(ModelError, match="custom layer of 'my_project'"):
        read_graph(model_of(calls=(call,), outputs=("act",), output_names=("act",)))


def test_sums_of_different_shapes_are_refused() -> None:
    calls = (
        Call("pool", "MaxPooling2D", None, {}, {}, ("image",), ("pool",)),
        Call("sum", "Add", None, {}, {}, ("image", "pool"), ("sum",)),
    )
    with pytest.raises(ModelError, match=r"joins inputs of .6, 6, 4. and .3, 3, 4., but each axis"):
        read_graph(model_of(calls=calls, outputs=("sum",), output_names=("sum",)))


def test_products_that_do_not_fit_are_refused() -> None:
    calls = (
        Call("pool", "MaxPooling2D", None, {}, {}, ("image",), ("pool",)),
        Call("product", "Multiply", None, {}, {}, ("image", "pool"), ("product",)),
    )
    with pytest.raises(ModelError, match=r"joins inputs of .6, 6, 4. and "):
        read_graph(model_of(calls=calls, outputs=("product",), output_names=("product",)))


def test_calls_with_further_arguments_are_refused() -> None:
    call = Call("act", "ReLU", None, {}, {}, ("image",), ("act",), {"mask": 1})
    with pytest.raises(ModelError, match="called with mask"):
        read_graph(model_of(calls=(call,), outputs=("act",), output_names=("act",)))


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="gives its input back"):
        read_one("Dropout", {})


def test_names_with_control_characters_are_refused() -> None:
    call = Call("a\x1b[2J", "ReLU", None, {}, {}, ("image",), ("a\x1b[2J",))
    with pytest.raises(ModelError, match="control characters"):
        read_graph(model_of(calls=(call,), outputs=call.outputs, output_names=("out",)))


def test_an_unknown_input_dtype_is_refused() -> None:
    with pytest.raises(InputError, match="float32, uint8"):
        read_graph(model_of(("ReLU", {}, {})), input_dtype="int4")


# -- what is noticed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "rescales"),
    [
        ([("Rescaling", {"scale": 1 / 255}, {}), ("ReLU", {}, {})], True),
        ([("Rescaling", {"scale": [1 / 127.5] * 4, "offset": -1.0}, {})], True),
        ([("Rescaling", {"scale": 2.0, "offset": -1.0}, {})], False),
        ([("RandomFlip", {}, {}), ("Rescaling", {"scale": 1 / 255}, {})], True),
        ([("Resizing", {"height": 4, "width": 4}, {}), ("Rescaling", {"scale": 1 / 255}, {})], True),
        ([("ReLU", {}, {}), ("Rescaling", {"scale": 1 / 255}, {})], False),
        ([("Normalization", {"mean": [123.7, 116.3, 103.5, 0.0], "variance": [3409.0] * 4}, {})], True),
        ([("Normalization", {"mean": [0.485, 0.456, 0.406, 0.0], "variance": [0.05] * 4}, {})], False),
        ([("Normalization", {}, {"mean": np.full(4, 120.0), "variance": np.ones(4)})], True),
        ([("BatchNormalization", {}, {**NORM, "moving_mean": np.full(4, 120.0)}), ("ReLU", {}, {})], True),
        ([("BatchNormalization", {}, NORM)], False),
        ([("Conv2D", CONV, KERNEL)], False),
    ],
)
def test_a_model_that_rescales_itself_is_recognised(calls: Any, rescales: bool) -> None:
    assert rescales_itself(model_of(*calls)) is rescales


@pytest.mark.parametrize(
    ("function", "arguments", "rescales"),
    [
        ("math.truediv", {"y": 127.5, "name": None}, True),
        ("math.truediv", {"y": 2.0}, False),
        ("math.multiply", {"y": 1 / 255}, True),
        ("math.multiply", {"y": 2.0}, False),
        ("math.subtract", {"y": [123.68, 116.779, 103.939, 0.0]}, True),
        ("nn.bias_add", {"bias": [-103.939, -116.779, -123.68, 0.0]}, True),
        ("math.subtract", {"y": 0.5}, False),
        ("nn.relu", {}, False),
    ],
)
def test_functions_that_rescale_are_recognised(function: str, arguments: Any, rescales: bool) -> None:
    def call(name: str, function: str, arguments: Any, source: str) -> Call:
        kind = "SlicingOpLambda" if "getitem" in function else "TFOpLambda"
        return Call(name, kind, None, {"function": function}, {}, (source,), (name,), arguments)

    turned = call("turned", "__operators__.getitem", {"slice_spec": [{"class_name": "__ellipsis__"}, {"step": -1}]}, "image")
    calls = (turned, call("scaled", function, arguments, "turned"))
    assert rescales_itself(model_of(calls=calls, outputs=("scaled",), output_names=("scaled",))) is rescales


def test_bytes_are_made_float_first() -> None:
    graph = read_graph(model_of(("ReLU", {}, {})), input_dtype="uint8")
    assert graph.text().splitlines()[:2] == ["image: 6x6x4 uint8 = input", "image/dequantize: 6x6x4 float32 = dequantize image"]


def test_signs_are_taken_once_for_all_readers_and_unpacked_where_needed() -> None:
    sign = {**CONV, "input_quantizer": "ste_sign", "use_bias": False}
    calls = [Call(name, "QuantConv2D", "Larq", {**sign, "kernel_quantizer": kind}, KERNEL, ("image",), (name,)) for name, kind in
             (("packed", "ste_sign"), ("float", None))]  # fmt: skip
    graph = read_graph(model_of(calls=tuple(calls), outputs=("packed", "float"), output_names=("packed", "float")))
    assert [node.op for node in graph.nodes] == ["binarize", "conv2d", "unpack", "conv2d"]


def test_signs_as_an_output_are_numbers() -> None:
    graph = read_one("Activation", {"activation": "ste_sign"})
    assert [node.op for node in graph.nodes] == ["binarize", "unpack"]


def test_supported_layers_are_listed() -> None:
    names = supported_layers()
    assert list(names) == sorted(names)
    assert {"InputLayer", "Conv2D", "QuantConv2D", "QuantDense", "Rescaling", "Dropout"} <= set(names)


@pytest.mark.parametrize(("groups", "channels_in", "channels_out"), [(4, 16, 16), (2, 16, 8), (3, 24, 12), (2, 64, 32), (8, 8, 8)])
@pytest.mark.parametrize("pad_values", [0.0, 1.0])
def test_binary_groups_of_any_size_run(
    groups: int, channels_in: int, channels_out: int, pad_values: float, keras: Any, tmp_path: Path
) -> None:
    """Kernels read packed groups of whole words, and write those of whole bytes; others are computed in floats, to the same signs."""
    from edge.training import QuantConv2D

    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    layers = [
        QuantConv2D(channels_in, 1, **signs), keras.layers.BatchNormalization(),
        QuantConv2D(channels_out, 3, groups=groups, padding="same", pad_values=pad_values, **signs), keras.layers.BatchNormalization(),
        QuantConv2D(4, 1, **signs),
    ]  # fmt: skip
    model = keras.Sequential([keras.Input((6, 5, 3)), *layers])
    randomize(model, groups)
    model.save(tmp_path / "model.keras")
    edge.convert(tmp_path / "model.keras", formats=["edge"])
    x = np.random.default_rng(1).normal(size=(2, 6, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(edge.load(tmp_path / "model.edge").run(x), model.predict(x, verbose=0))


def test_float_groups_of_any_size_run_with_1_bit_activations(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), k.Conv2D(8, 3), k.ReLU(), k.Conv2D(16, 3, groups=4), k.ReLU(), k.Conv2D(2, 1)])
    model.save(tmp_path / "model.keras")
    report = edge.convert(tmp_path / "model.keras", bits=1, activation_bits=1, formats=["edge"])
    notes = [row.note for row in report.layers if row.class_name == "Conv2D"]
    assert "only groups of 8, 16, 32 or 64 channels" in notes[1]
    assert np.isfinite(edge.load(tmp_path / "model.edge").run(np.zeros((8, 8, 3), np.float32))).all()
