"""Functions in models with their channels first: of Keras 3 against Keras, of Keras 2 against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import kernel, model_of
from test_layouts import FIRST, check, turns
from test_layouts import keras as keras  # a fixture

from edge.converters.keras_model import Call
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.errors import ModelError
from edge.graph import Graph
from edge.kernels.reference import run_graph

SHAPE = (4, 9, 7)
MEANS = np.array([1.0, 2.0, 3.0, 4.0], np.float32).reshape(1, 4, 1, 1)
Function = Callable[[Any, Any], Any]
"""From `keras.ops` and a tensor to a tensor."""

# Those that need no turned image.
FUNCTIONS: Mapping[str, Function] = {
    "mean of channels": lambda o, x: o.mean(x, axis=1, keepdims=True) * o.mean(x, axis=-3, keepdims=True),
    "a map of channels": lambda o, x: o.max(x, axis=1),
    "means of pixels": lambda o, x: o.mean(x, axis=[2, 3]),
    "sums of rows": lambda o, x: o.sum(x, axis=2),
    "largest of columns": lambda o, x: o.max(x, axis=-1, keepdims=True) + o.min(x, axis=3, keepdims=True),
    "rows and channels": lambda o, x: o.var(x, axis=(1, 2)),
    "all": lambda o, x: o.mean(x, axis=[1, 2, 3], keepdims=True) + o.std(x, axis=(-3, -2, -1), keepdims=True),
    "length": lambda o, x: o.norm(x, axis=1, keepdims=True),
    "gate": lambda o, x: x * o.sigmoid(o.mean(x, axis=[2, 3], keepdims=True)),
    "standardized": lambda o, x: (x - o.mean(x, axis=[2, 3], keepdims=True)) / (o.std(x, axis=[2, 3], keepdims=True) + 1e-3),
    "constants": lambda o, x: o.maximum((x - MEANS) / MEANS[0], -1.0) + o.divide(MEANS, o.square(x) + MEANS),
    "softmax": lambda o, x: o.softmax(x, axis=1) + o.log_softmax(x, axis=-3),
    "unit length": lambda o, x: o.normalize(x, axis=1) + o.normalize(x),
    "gated": lambda o, x: o.glu(x, axis=1),
    "joined": lambda o, x: o.concatenate([x, x * 2.0], axis=1),
    "joined in a row": lambda o, x: o.concatenate([x, x * 2.0], axis=-1),
    "split": lambda o, x: o.split(x, 2, axis=1)[1] - o.split(x, [1, 3], axis=1)[1],
    "columns split": lambda o, x: o.split(x, [2, 4], axis=-1)[1],
    "flipped": lambda o, x: o.flip(x, axis=3) + o.flip(x, axis=1),
    "taken": lambda o, x: o.take(x, [2, 1, 0], axis=1),
    "padded": lambda o, x: o.pad(x, [[0, 0], [0, 1], [1, 2], [3, 0]]),
    "mirrored": lambda o, x: o.pad(x, [[0, 0], [0, 0], [1, 2], [3, 0]], mode="reflect"),
    "pools": lambda o, x: o.average_pool(o.max_pool(x, (2, 3), 1, "same", **FIRST), (2, 1), **FIRST),
    "blocks": lambda o, x: o.nn.depth_to_space(x, 2, **FIRST),
    "resized": lambda o, x: o.image.resize(x, (10, 8), interpolation="nearest", **FIRST),
}
# Those that get the order of the source.
OTHERS: Mapping[str, Function] = {
    "softmax of columns": lambda o, x: o.softmax(x),
    "a part": lambda o, x: x[:, 1:3, :, 2:],
    "a row of constants": lambda o, x: o.relu(x) + np.arange(x.shape[-1], dtype=np.float32),
    "matrix": lambda o, x: o.matmul(x, np.eye(x.shape[-1], 3, dtype=np.float32)),
    "channels shuffled": lambda o, x: o.reshape(o.transpose(o.reshape(x, (-1, 2, 2, 63)), (0, 2, 1, 3)), (-1, 4, 9, 7)),
}


def after_a_convolution(keras: Any, function: Function) -> Callable[[Any, Any], Any]:
    def build(layers: Any, x: Any) -> Any:
        return function(keras.ops, layers.Conv2D(4, 3, padding="same", activation="relu", **FIRST)(x))

    return build


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_follow_the_channels(keras: Any, tmp_path: Path, case: str) -> None:
    if case == "blocks" and not hasattr(keras.ops.nn, "depth_to_space"):
        pytest.skip("this Keras has no depth_to_space")
    assert turns(check(keras, SHAPE, after_a_convolution(keras, FUNCTIONS[case]), tmp_path)) == 0


@pytest.mark.parametrize("case", OTHERS)
def test_other_functions_get_the_order_of_the_source(keras: Any, tmp_path: Path, case: str) -> None:
    check(keras, SHAPE, after_a_convolution(keras, OTHERS[case]), tmp_path)


def test_a_network_that_normalizes_its_pictures_and_gates(keras: Any, tmp_path: Path) -> None:
    def build(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(8, 3, strides=2, **FIRST)((x - MEANS[:, :3]) / 2.0)
        gate = layers.Reshape((8, 1, 1))(layers.Dense(8, activation="sigmoid")(keras.ops.mean(x, axis=[2, 3])))
        left, right = keras.ops.split(layers.Multiply()([x, gate]), 2, axis=1)
        x = layers.Conv2D(6, 1, **FIRST)(keras.ops.concatenate([keras.ops.relu(left), right * 0.5], axis=1))
        return layers.Dense(5)(layers.Flatten()(keras.ops.max_pool(x, 2, **FIRST)))

    graph = check(keras, (3, 13, 11), build, tmp_path)
    assert graph.types[graph.inputs[0]].shape == (13, 11, 3) and turns(graph) == 0


# -- functions of Keras 2 --------------------------------------------------------------------------------------------------------


def keras_2(function: str, outputs: int = 1, **arguments: Any) -> Graph:
    """A 1x1 convolution, whose filter is the identity, and a function of what it gives."""
    eye = np.eye(4, dtype=np.float32)[None, None]
    names = ("f", *(f"f:{i}" for i in range(1, outputs)))
    conv = Call("conv", "Conv2D", None, {"kernel_size": 1, "use_bias": False, **FIRST}, {"kernel": eye}, ("image",), ("conv",))
    call = Call("f", "TFOpLambda", None, {"function": function}, {}, ("conv",), names, arguments)
    return run_passes(read_graph(model_of(calls=(conv, call), outputs=names[-1:], output_names=names[-1:], shape=SHAPE)))


def as_first(values: np.ndarray) -> np.ndarray:
    return np.moveaxis(values, -1, 0) if values.ndim == 3 else values


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (keras_2("math.reduce_mean", axis=[2, 3]), lambda x: x.mean((1, 2))),
        (keras_2("math.reduce_max", axis=1, keepdims=True), lambda x: x.max(0, keepdims=True)),
        (keras_2("math.subtract", y=MEANS.tolist(), name=None), lambda x: x - MEANS[0]),
        (keras_2("split", 2, num_or_size_splits=2, axis=1), lambda x: x[2:]),
        (keras_2("split", 2, num_or_size_splits=[2, 5, 2], axis=2), lambda x: x[:, 2:7]),
        (keras_2("nn.bias_add", bias=[1.0, 2.0, 3.0, 4.0], data_format="NCHW"), lambda x: x + MEANS[0]),
        (keras_2("nn.max_pool", ksize=[1, 1, 3, 1], strides=[1, 1, 3, 1], padding="VALID", data_format="NCHW"),
         lambda x: x.reshape(4, 3, 3, 7).max(2)),
        (keras_2("nn.avg_pool2d", ksize=3, strides=[3, 3], padding="VALID", data_format="NCHW"),
         lambda x: x[:, :, :6].reshape(4, 3, 3, 2, 3).mean((2, 4))),
        (keras_2("pad", paddings=[[0, 0], [0, 0], [1, 1], [2, 0]]), lambda x: np.pad(x, [[0, 0], [1, 1], [2, 0]])),
        (keras_2("nn.depth_to_space", block_size=2, data_format="NCHW"),
         lambda x: x.reshape(2, 2, 1, 9, 7).transpose(2, 3, 0, 4, 1).reshape(1, 18, 14)),
        (keras_2("nn.log_softmax", axis=1), lambda x: x - np.log(np.exp(x).sum(0))),
    ],
)  # fmt: skip
def test_functions_of_keras_2(graph: Graph, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    x = kernel(np.random.default_rng(5), *SHAPE)
    got = run_graph(graph, {"image": np.moveaxis(x, 0, -1)})[graph.outputs[0]]
    assert turns(graph) == 0
    np.testing.assert_allclose(as_first(got), expected(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        ("math.add", {"y": np.ones((9, 7)).tolist()}, "takes a constant of shape .9, 7."),
        ("math.add", {"y": [[1.0], [1.0, 2.0]]}, "expected a number"),
        ("math.reduce_mean", {"axis": [0, 1]}, "works along axis 0"),
        ("nn.max_pool", {"ksize": 2, "strides": 2, "padding": "VALID", "data_format": "NCHW_VECT_C"}, "takes data_format 'NCHW_VECT_C'"),
        ("split", {"num_or_size_splits": 3, "axis": 1}, "splits 4 values of an axis into 3"),
    ],
)
def test_what_cannot_be_turned_is_named(function: str, arguments: Mapping[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        keras_2(function, **arguments)
