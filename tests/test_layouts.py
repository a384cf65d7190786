"""Models with their channels first, and layers along other axes than the last, against Keras."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import model_of
from keras_oracle import randomize, relative

import edge
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph, rescales_itself
from edge.converters.layouts import turned_inputs
from edge.converters.passes import run_passes
from edge.converters.passes_layout import absorb_transpose
from edge.errors import ModelError
from edge.graph import Graph
from edge.kernels.reference import run_graph

FIRST = {"data_format": "channels_first"}
Build = Callable[[Any, Any], Any]
"""From the layers of Keras and a tensor to a tensor."""


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def moved(array: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """An array (N, ...) in the shape that is wanted: as it is, or its channels brought from the front to the end or back."""
    found = (array, np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1))
    return next(each for each in found if each.shape[1:] == wanted)


def graph_of(keras: Any, shape: tuple[int, ...], build: Build, path: Path) -> tuple[Graph, Any]:
    given = keras.Input(shape)
    model = keras.Model(given, build(keras.layers, given))
    randomize(model, 3)
    model.save(path)
    return read_graph(read_keras(path)), model


def check(keras: Any, shape: tuple[int, ...], build: Build, folder: Path) -> Graph:
    """The graph after all passes; it gives what Keras gives, as before the passes."""
    plain, model = graph_of(keras, shape, build, folder / "model.keras")
    x = np.random.default_rng(4).normal(size=(2, *shape)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    small = run_passes(plain)
    for graph in (plain, small):
        given = moved(x, graph.types[graph.inputs[0]].shape)
        got = np.stack([run_graph(graph, {graph.inputs[0]: example})[graph.outputs[0]] for example in given])
        assert relative(got, moved(expected, got.shape[1:])) < 1e-5
    return small


def turns(graph: Graph) -> int:
    return sum(node.op == "transpose" for node in graph.nodes)


def features(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(8, 3, strides=2, padding="same", **FIRST)(x)
    x = layers.ReLU()(layers.BatchNormalization(axis=1)(x))
    x = layers.MaxPooling2D(2, **FIRST)(x)
    y = layers.Conv2D(8, 1, activation="relu", **FIRST)(layers.Dropout(0.5)(x))
    return layers.Concatenate(axis=1)([layers.Add()([x, y]), y])


@pytest.mark.parametrize(
    "head",
    [
        lambda layers, x: layers.Dense(5, activation="softmax")(layers.Flatten()(x)),
        lambda layers, x: layers.Dense(5, activation="softmax")(layers.Flatten(**FIRST)(x)),
        lambda layers, x: layers.Dense(5)(layers.GlobalAveragePooling2D(**FIRST)(x)),
        lambda layers, x: layers.GlobalMaxPooling2D(keepdims=True, **FIRST)(x),
        lambda layers, x: layers.Softmax(axis=1)(x),
        lambda layers, x: layers.Conv2D(2, 2)(layers.Permute((2, 3, 1))(x)),
    ],
    ids=["flatten", "flatten_first", "average", "max", "softmax", "permute"],
)
def test_nothing_is_turned_where_the_next_layer_can_read_it(keras: Any, tmp_path: Path, head: Build) -> None:
    graph = check(keras, (3, 13, 11), lambda layers, x: head(layers, features(layers, x)), tmp_path)
    assert graph.types[graph.inputs[0]].shape == (13, 11, 3)
    assert turns(graph) == 0


@pytest.mark.parametrize(
    "head",
    [
        lambda layers, x: layers.Softmax(axis=2)(x),
        lambda layers, x: layers.Softmax()(x),
        lambda layers, x: layers.Dense(5)(x),
        lambda layers, x: layers.Concatenate(axis=2)([x, x]),
        lambda layers, x: layers.Reshape((12, 12))(x),
        lambda layers, x: layers.LayerNormalization(axis=[1, 2, 3])(x),
        lambda layers, x: layers.PReLU()(x),
    ],
    ids=["softmax_rows", "softmax_columns", "dense", "concatenate_rows", "reshape", "layer_norm", "prelu"],
)
def test_other_layers_get_the_order_of_the_source(keras: Any, tmp_path: Path, head: Build) -> None:
    check(keras, (3, 13, 11), lambda layers, x: head(layers, features(layers, x)), tmp_path)


def test_every_layer_with_a_data_format(keras: Any, tmp_path: Path) -> None:
    def build(layers: Any, x: Any) -> Any:
        x = layers.SeparableConv2D(6, 3, **FIRST)(x)
        x = layers.PReLU(shared_axes=[2, 3])(x)
        x = layers.DepthwiseConv2D((2, 3), depth_multiplier=2, **FIRST)(x)
        x = layers.GroupNormalization(3, axis=1)(layers.LayerNormalization(axis=1)(x))
        x = layers.ZeroPadding2D(((1, 2), (0, 1)), **FIRST)(layers.UpSampling2D(2, **FIRST)(x))
        x = layers.Cropping2D(((1, 0), (0, 2)), **FIRST)(x)
        x = layers.AveragePooling2D((2, 3), padding="same", **FIRST)(layers.SpatialDropout2D(0.5, **FIRST)(x))
        return layers.Conv2DTranspose(3, 3, strides=2, activation="tanh", **FIRST)(x)

    check(keras, (4, 13, 11), build, tmp_path)


def test_functions_follow(keras: Any, tmp_path: Path) -> None:
    def build(layers: Any, x: Any) -> Any:
        x = layers.Normalization(axis=1, mean=[1, 2, 3], variance=[1, 2, 3])(layers.Rescaling(0.5)(x))
        x = layers.Conv2D(4, 3, **FIRST)(x)
        gate = layers.Conv2D(4, 1, activation="sigmoid", **FIRST)(layers.GlobalAveragePooling2D(keepdims=True, **FIRST)(x))
        return layers.MaxPooling2D(2, **FIRST)(layers.Multiply()([keras.ops.relu(x) * 2.0 + x, gate]))

    assert turns(check(keras, (3, 13, 11), build, tmp_path)) == 0


def test_along_one_axis(keras: Any, tmp_path: Path) -> None:
    def build(layers: Any, x: Any) -> Any:
        x = layers.BatchNormalization(axis=1)(layers.SeparableConv1D(6, 3, **FIRST)(x))
        return layers.Dense(3)(layers.Flatten()(layers.MaxPooling1D(2, **FIRST)(x)))

    graph = check(keras, (4, 20), build, tmp_path)
    assert graph.types[graph.inputs[0]].shape == (20, 4) and turns(graph) == 0


def test_a_generator_gives_pictures_channels_last(keras: Any, tmp_path: Path) -> None:
    def build(layers: Any, x: Any) -> Any:
        x = layers.Reshape((7, 4, 5))(layers.Dense(140)(x))
        x = layers.LeakyReLU()(layers.BatchNormalization(axis=1)(layers.Conv2DTranspose(6, 4, strides=2, padding="same", **FIRST)(x)))
        return layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh", **FIRST)(x)

    graph = check(keras, (16,), build, tmp_path)
    assert graph.types[graph.outputs[0]].shape == (16, 20, 3)
    report = edge.convert(tmp_path / "model.keras", bits=32, formats="edge")
    assert report.messages[-1].startswith("channels last: where the source has its channels first, the files give conv2d_transpose")


def test_only_inputs_that_are_read_channels_first_are_turned(keras: Any, tmp_path: Path) -> None:
    def mixed(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(4, 3, **FIRST)(layers.Permute((3, 1, 2))(x))
        return layers.Conv2D(4, 3)(layers.Permute((2, 3, 1))(layers.BatchNormalization(axis=1)(x)))

    graph = check(keras, (10, 9, 3), mixed, tmp_path)
    assert graph.types[graph.inputs[0]].shape == (10, 9, 3) and turns(graph) == 0


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
def test_normalizations_and_softmax_along_any_axis(keras: Any, tmp_path: Path, axis: int) -> None:
    def build(layers: Any, x: Any) -> Any:
        x = layers.Softmax(axis=axis)(layers.Conv2D(4, 2)(layers.BatchNormalization(axis=axis)(x)))
        return layers.LayerNormalization(axis=axis)(x)

    check(keras, (7, 6, 4), build, tmp_path)


@pytest.mark.parametrize("axes", [[1, 2], [2, 3], [1, 3], [1, 2, 3]])
def test_layer_normalization_over_several_axes(keras: Any, tmp_path: Path, axes: list[int]) -> None:
    check(keras, (7, 6, 4), lambda layers, x: layers.LayerNormalization(axis=axes)(x), tmp_path)


def test_along_the_steps(keras: Any, tmp_path: Path) -> None:
    check(keras, (5, 6), lambda layers, x: layers.Softmax(axis=1)(layers.BatchNormalization(axis=1)(x)), tmp_path)


def test_signs_are_taken_before_an_image_is_turned(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    model = model_of(
        ("QuantConv2D", {"kernel_size": 3, **FIRST, **signs}, {"kernel": random.normal(size=(3, 3, 4, 8)).astype(np.float32)}),
        ("Flatten", {}, {}),
        ("QuantDense", signs, {"kernel": random.normal(size=(8 * 4 * 5, 3)).astype(np.float32)}),
        shape=(4, 6, 7),
    )
    plain, small = (graph := read_graph(model)), run_passes(graph)
    x = random.normal(size=(6, 7, 4)).astype(np.float32)
    np.testing.assert_array_equal(*(run_graph(each, {"image": x})[each.outputs[0]] for each in (plain, small)))
    assert turns(plain) == 1 and turns(small) == 0
    assert absorb_transpose(small) is small
    dense = next(node for node in small.nodes if node.op == "dense")
    assert small.types[dense.inputs[0]].encoding.name == "BITS"


def test_a_softmax_along_the_width_is_refused() -> None:
    config = {"kernel_size": 1, "activation": "softmax", **FIRST, "use_bias": False}
    model = model_of(("Conv2D", config, {"kernel": np.ones((1, 1, 4, 2), np.float32)}), shape=(4, 6, 7))
    with pytest.raises(ModelError, match=r"softmax runs along the width of the image.*put a Softmax\(axis=1\) behind it"):
        read_graph(model)


def test_pictures_that_a_network_rescales_are_bytes(tmp_path: Path) -> None:
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 2)).astype(np.float32)
    conv = {"kernel_size": 3, "use_bias": False, **FIRST}
    model = model_of(("Rescaling", {"scale": 1 / 255}, {}), ("Conv2D", conv, {"kernel": kernel}), shape=(3, 6, 7))
    assert turned_inputs(model) == {"image"} and rescales_itself(model)
    graph = read_graph(model, input_dtype="uint8")
    assert str(graph.types["image"]) == "6x7x3 uint8"


def test_the_report_says_how_the_input_lies(keras: Any, tmp_path: Path) -> None:
    build: Build = lambda layers, x: layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3, **FIRST)(x)))  # noqa: E731
    graph_of(keras, (3, 8, 9), build, tmp_path / "model.keras")
    report = edge.convert(tmp_path / "model.keras", bits=32, formats="edge")
    said = report.messages[-1]
    assert said.startswith("channels last: where the source has its channels first, the files take ") and said.endswith(" as 8 x 9 x 3")
    assert json.loads(json.dumps(report.to_json()))["messages"][-1] == said


def test_files_are_verified_against_keras_layer_by_layer(keras: Any, tmp_path: Path) -> None:
    from edge.compare import compare

    graph_of(keras, (3, 8, 9), lambda layers, x: layers.Dense(3)(layers.Flatten()(features(layers, x))), tmp_path / "model.keras")
    edge.convert(tmp_path / "model.keras", bits=32, formats="edge")
    found = compare(tmp_path / "model.keras", tmp_path / "model.edge", count=3)
    assert found.equal and found.oracle_is_keras and len(found.layers) > 4


def test_sizes_are_given_as_pictures_have_them(keras: Any, tmp_path: Path) -> None:
    build: Build = lambda layers, x: layers.GlobalMaxPooling2D(**FIRST)(layers.Conv2D(2, 3, **FIRST)(x))  # noqa: E731
    given = keras.Input((3, None, None))
    keras.Model(given, build(keras.layers, given)).save(tmp_path / "model.keras")
    for shape in ((8, 9, 3), (3, 8, 9)):
        assert read_keras(tmp_path / "model.keras", input_shape=shape).inputs[0].shape == (3, 8, 9)
    with pytest.raises(ModelError, match="--input-shape is"):
        read_keras(tmp_path / "model.keras", input_shape=(8, 9, 4))
