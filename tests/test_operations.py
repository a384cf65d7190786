"""Functions that functional models record like layers: of Keras 3 against Keras itself, of Keras 2 and TensorFlow 2.0 against NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import model_of

import edge
from edge.converters.keras_file import read_keras
from edge.converters.keras_model import Call, KerasModel
from edge.converters.layers import read_graph, supported_operations
from edge.errors import ModelError
from edge.kernels.reference import run_graph

Array = np.ndarray[Any, Any]
IMAGE, ROW, FLAT = (6, 5, 4), (5, 4), (8,)


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


def computed(model: KerasModel, x: Array) -> Array:
    graph = read_graph(model)
    return np.asarray(run_graph(graph, {graph.inputs[0]: x})[graph.outputs[0]])


MEANS = np.array([10.0, 20.0, 30.0, 40.0], np.float32)
# By name: the input's shape, and the function of `keras.ops` and the input.
FUNCTIONS: Mapping[str, tuple[tuple[int, ...], Callable[[Any, Any], Any]]] = {
    "scale to one": (IMAGE, lambda o, x: x / 127.5 - 1.0),
    "number first": (IMAGE, lambda o, x: 2.0 - x * 0.5 + (1.0 + x)),
    "means of channels": (IMAGE, lambda o, x: (x - MEANS) / (MEANS / 5)),
    "means with leading axes": (IMAGE, lambda o, x: x + MEANS.reshape(1, 1, 1, 4)),
    "caffe": (IMAGE, lambda o, x: o.stack([x[..., i] for i in (2, 1, 0)], axis=-1) - MEANS[:3]),
    "negative": (FLAT, lambda o, x: -x),
    "absolute": (FLAT, lambda o, x: o.abs(x)),
    "square": (FLAT, lambda o, x: o.square(x) + x**2),
    "maximum": (FLAT, lambda o, x: o.maximum(x, 0.25)),
    "minimum": (FLAT, lambda o, x: o.minimum(0.25, x)),
    "clip": (FLAT, lambda o, x: o.clip(x, -0.5, 0.75)),
    "sum and product": (IMAGE, lambda o, x: (x + o.relu(x)) * x),
    "relu6": (IMAGE, lambda o, x: x * o.relu6(x + 3.0) / 6.0),
    "leaky relu": (FLAT, lambda o, x: o.leaky_relu(x, 0.1)),
    "elu": (FLAT, lambda o, x: o.elu(x, 0.7)),
    "sigmoid, tanh": (FLAT, lambda o, x: o.sigmoid(x) + o.tanh(x)),
    "softmax": (IMAGE, lambda o, x: o.softmax(x)),
    "gate": (IMAGE, lambda o, x: x * o.sigmoid(o.mean(x, axis=[1, 2], keepdims=True))),
    "mean": (IMAGE, lambda o, x: o.mean(x, axis=(1, 2))),
    "sum": (IMAGE, lambda o, x: o.sum(x, axis=(-3, -2), keepdims=True)),
    "max": (IMAGE, lambda o, x: o.max(x, axis=[1, 2])),
    "mean of a row": (ROW, lambda o, x: o.mean(x, axis=1)),
    "mean of channels": (IMAGE, lambda o, x: o.mean(x, axis=-1, keepdims=True)),
    "max of channels": (IMAGE, lambda o, x: x * o.max(x, axis=3, keepdims=True)),
    "mean of a vector": (FLAT, lambda o, x: o.mean(x, axis=-1)),
    "concatenate": (IMAGE, lambda o, x: o.concatenate([x, x * 2.0], axis=-1)),
    "reshape": (IMAGE, lambda o, x: o.reshape(x, (-1, 10, 12))),
    "reshape with an open size": (IMAGE, lambda o, x: o.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))),
    "squeeze and expand": (IMAGE, lambda o, x: o.squeeze(o.expand_dims(o.mean(x, axis=(1, 2)), 1), 1)),
    "strides": (IMAGE, lambda o, x: x[:, ::2, 1::3, :]),
    "reverse channels": (IMAGE, lambda o, x: x[..., ::-1]),
    "some channels": (IMAGE, lambda o, x: x[..., 1:3]),
    "crop": (IMAGE, lambda o, x: x[:, 1:-1, 2:]),
    "a row of an image": (IMAGE, lambda o, x: x[:, 2]),
    "a channel": (IMAGE, lambda o, x: x[..., 3]),
    "a value": (FLAT, lambda o, x: x[:, 3:4]),
    "part of a row": (ROW, lambda o, x: x[:, 1:4, :2]),
    "split": (IMAGE, lambda o, x: o.split(x, 2, axis=-1)[1] * 2.0),
    "split at": (IMAGE, lambda o, x: o.split(x, [1, 3], axis=3)[1]),
    "pad": (IMAGE, lambda o, x: o.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]])),
    "pools": (IMAGE, lambda o, x: o.max_pool(o.average_pool(x, 2, strides=1), (3, 2), strides=2, padding="same")),
    "cast": (FLAT, lambda o, x: o.cast(o.cast(x, "float32"), "float32") * 2.0),
    "transpose": (IMAGE, lambda o, x: o.transpose(x, (0, 2, 1, 3))),
    "quotient": (IMAGE, lambda o, x: x / (o.square(x) + 0.5)),
    "quotient with a row": (IMAGE, lambda o, x: x / (1.5 + o.sigmoid(o.mean(x, axis=(1, 2), keepdims=True)))),
    "quotient of a row": (IMAGE, lambda o, x: o.mean(x, axis=(1, 2), keepdims=True) / (o.square(x) + 0.5)),
    "number through tensor": (IMAGE, lambda o, x: 3.0 / (o.square(x) + 1.0) + o.divide(MEANS, o.abs(x) + 2.0)),
    "powers": (FLAT, lambda o, x: x**3 - 0.1 * x**4 + (o.abs(x) + 1.0) ** -2 + (o.abs(x) + 1.0) ** 1.5),
    "roots": (FLAT, lambda o, x: o.sqrt(o.abs(x)) + o.rsqrt(o.abs(x) + 0.5) + o.reciprocal(x * x + 1.0)),
    "gelu by hand": (FLAT, lambda o, x: 0.5 * x * (1.0 + o.tanh(0.7978845608 * (x + 0.044715 * x**3)))),
    "log softmax": (IMAGE, lambda o, x: o.log_softmax(x)),
    "other activations": (FLAT, lambda o, x: o.celu(x) + o.glu(o.concatenate([x, x], axis=-1)) + o.soft_shrink(x) + o.sparse_plus(x)),
    "constant matrix": (IMAGE, lambda o, x: o.matmul(x, np.arange(12, dtype=np.float32).reshape(4, 3) / 10)),
    "constant matrix of a vector": (FLAT, lambda o, x: o.dot(x, np.arange(24, dtype=np.float32).reshape(8, 3) / 10)),
    "min": (IMAGE, lambda o, x: o.min(x, axis=[1, 2])),
    "mean of rows": (IMAGE, lambda o, x: o.mean(x, axis=1)),
    "mean of columns": (IMAGE, lambda o, x: o.mean(x, axis=2, keepdims=True)),
    "mean of all": (IMAGE, lambda o, x: o.mean(x, axis=(1, 2, 3), keepdims=True)),
    "max of columns and channels": (IMAGE, lambda o, x: o.max(x, axis=(2, 3))),
    "variance": (IMAGE, lambda o, x: o.var(x, axis=(1, 2)) + o.std(x, axis=(1, 2))),
    "standardized": (ROW, lambda o, x: (x - o.mean(x, axis=1, keepdims=True)) / (o.std(x, axis=1, keepdims=True) + 1e-5)),
    "length": (IMAGE, lambda o, x: o.norm(x, axis=-1, keepdims=True)),
    "unit length": (FLAT, lambda o, x: o.normalize(x, axis=-1)),
    "unit length of pixels": (IMAGE, lambda o, x: o.normalize(x)),
    "stack first": (ROW, lambda o, x: o.stack([x, x * 2.0], axis=1)),
    "stack in the middle": (ROW, lambda o, x: o.stack([x, x * 2.0], axis=2)),
    "unstack": (IMAGE, lambda o, x: o.unstack(x, axis=3)[2] - o.unstack(x, axis=-1)[0]),
    "flip": (IMAGE, lambda o, x: o.flip(x, axis=2) + o.flip(x, axis=1) * 2.0 + o.flip(x, axis=-1) * 3.0),
    "backwards by twos": (IMAGE, lambda o, x: x[:, ::-2, 1:]),
    "take": (IMAGE, lambda o, x: o.take(x, [2, 1, 0], axis=-1) + o.take(x, [3, 3, 1], axis=3)),
    "swap": (IMAGE, lambda o, x: o.swapaxes(x, 1, 3) + o.moveaxis(o.moveaxis(x, 3, 1), 3, 2)),
    "pad by a number": (IMAGE, lambda o, x: o.pad(x, [[0, 0], [1, 0], [2, 1], [1, 2]], constant_values=0.5)),
    "pad a row": (ROW, lambda o, x: o.pad(x, [[0, 0], [2, 1], [0, 0]])),
    "reflect": (IMAGE, lambda o, x: o.pad(x, [[0, 0], [2, 1], [0, 3], [0, 0]], mode="reflect")),
    "symmetric": (IMAGE, lambda o, x: o.pad(x, [[0, 0], [2, 1], [0, 3], [1, 1]], mode="symmetric")),
    "ellipsis and new axis": (ROW, lambda o, x: x[..., None][:, 1:, ..., 0]),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_equal_keras(case: str, suffix: str, keras: Any, tmp_path: Path) -> None:
    shape, function = FUNCTIONS[case]
    image = keras.Input(shape)
    model = keras.Model(image, function(keras.ops, image))
    model.save(tmp_path / f"model{suffix}")
    x = np.random.default_rng(len(case)).normal(size=(1, *shape)).astype(np.float32)
    expected = np.asarray(function(keras.ops, keras.ops.convert_to_tensor(x)))
    got = computed(read_keras(tmp_path / f"model{suffix}"), x[0])
    assert got.shape == (expected.shape[1:] or (1,))
    np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=2e-6, atol=1e-6)


def lambda_call(function: str, arguments: Mapping[str, Any], inputs: tuple[str, ...] = ("image",)) -> KerasModel:
    kind = "SlicingOpLambda" if "getitem" in function else "TFOpLambda"
    call = Call("f", kind, None, {"name": "f", "dtype": "float32", "function": function}, {}, inputs, ("f",), arguments)
    return model_of(calls=(call,), outputs=("f",), output_names=("f",))


def ranged(start: int | None, stop: int | None, step: int | None = None) -> dict[str, int | None]:
    return {"start": start, "stop": stop, "step": step}


ELLIPSIS = {"class_name": "__ellipsis__"}


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("math.truediv", {"y": 127.5, "name": None}, lambda x: x / 127.5),
        ("math.subtract", {"y": 1.0}, lambda x: x - 1),
        ("math.subtract", {"x": 1.0, "y": {"input": 0}}, lambda x: 1 - x),
        ("__operators__.add", {"y": [1, 2, 3, 4]}, lambda x: x + np.array([1, 2, 3, 4])),
        ("nn.bias_add", {"bias": [-1.0, 2.0, 3.0, 4.0], "data_format": "NHWC"}, lambda x: x + np.array([-1, 2, 3, 4])),
        ("math.multiply", {"y": 1 / 6}, lambda x: x / 6),
        ("nn.relu6", {}, lambda x: np.clip(x, 0, 6)),
        ("nn.leaky_relu", {"alpha": 0.2}, lambda x: np.maximum(x, 0.2 * x)),
        ("math.sigmoid", {}, lambda x: 1 / (1 + np.exp(-x))),
        ("clip_by_value", {"clip_value_min": 0.0, "clip_value_max": 1.0}, lambda x: np.clip(x, 0, 1)),
        ("math.reduce_mean", {"axis": [1, 2], "keepdims": True}, lambda x: x.mean((0, 1), keepdims=True)),
        ("math.reduce_max", {"axis": [1, 2], "keepdims": False}, lambda x: x.max((0, 1))),
        ("reshape", {"shape": [-1, 144]}, lambda x: x.reshape(144)),
        ("compat.v1.transpose", {"perm": [0, 2, 1, 3]}, lambda x: x.transpose(1, 0, 2)),
        ("concat", {"axis": 3}, lambda x: np.concatenate([x, x], -1)),
        ("__operators__.getitem", {"slice_spec": [ranged(None, None), ranged(1, 3), ELLIPSIS]}, lambda x: x[1:3]),
        ("__operators__.getitem", {"slice_spec": [ELLIPSIS, ranged(None, None, -1)]}, lambda x: x[..., ::-1]),
        ("__operators__.getitem", {"slice_spec": [ranged(None, None), 0, ranged(1, None)]}, lambda x: x[0, 1:]),
        ("math.truediv", {"x": 1.0, "y": {"input": 0}}, lambda x: 1 / x),
        ("math.pow", {"y": 3}, lambda x: x**3),
        ("math.rsqrt", {}, lambda x: 1 / np.sqrt(x)),
        ("math.reciprocal", {}, lambda x: 1 / x),
        ("nn.log_softmax", {}, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
        ("math.reduce_min", {"axis": [1, 2]}, lambda x: x.min((0, 1))),
        ("math.reduce_mean", {"axis": [1]}, lambda x: x.mean(0)),
        ("math.reduce_variance", {"axis": [1, 2]}, lambda x: x.var((0, 1))),
        ("math.reduce_std", {"axis": 3, "keepdims": True}, lambda x: x.std(-1, keepdims=True)),
        ("math.l2_normalize", {"axis": -1}, lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True))),
        ("math.l2_normalize", {"axis": 3, "epsilon": 1e-12}, lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True))),
        ("image.per_image_standardization", {}, lambda x: (x - x.mean()) / x.std()),
        ("nn.depth_to_space", {"block_size": 2}, lambda x: x.reshape(6, 6, 2, 2, 1).transpose(0, 2, 1, 3, 4).reshape(12, 12, 1)),
        ("nn.space_to_depth", {"block_size": 2}, lambda x: x.reshape(3, 2, 3, 2, 4).transpose(0, 2, 1, 3, 4).reshape(3, 3, 16)),
        ("reverse", {"axis": [-1]}, lambda x: x[..., ::-1]),
        ("compat.v1.gather", {"indices": [2, 1, 0], "axis": 3}, lambda x: x[..., [2, 1, 0]]),
        ("compat.v1.pad", {"paddings": [[0, 0], [1, 1], [1, 1], [0, 0]], "mode": "REFLECT"},
         lambda x: np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="reflect")),
        ("linalg.matmul", {"b": [[1.0], [2.0], [3.0], [-1.0]]}, lambda x: x @ np.array([[1.0], [2.0], [3.0], [-1.0]])),
        ("math.squared_difference", {"y": 2.0}, lambda x: (x - 2) ** 2),
        ("unstack", {"axis": 3, "num": 4}, lambda x: x[..., 0]),
        ("nn.max_pool2d", {"ksize": 2, "strides": 2, "padding": "VALID"}, lambda x: x.reshape(3, 2, 3, 2, 4).max((1, 3))),
    ],
)
def test_functions_of_keras_2(function: str, arguments: Any, expected: Callable[[Array], Array]) -> None:
    x = np.random.default_rng(1).normal(size=(6, 6, 4)).astype(np.float32) * 3
    x = np.abs(x) + 1 if "rsqrt" in function else x
    inputs = ("image", "image") if function == "concat" else ("image",)
    got = computed(lambda_call(function, arguments, inputs), x)
    assert got.shape == expected(x).shape
    np.testing.assert_allclose(got, expected(x), rtol=3e-6, atol=2e-6)


def graph_node(op: str, constants: Mapping[str, Any], **attributes: Any) -> KerasModel:
    """A TensorFlowOpLayer, as TensorFlow 2.0 to 2.3 write functions."""
    node = json.dumps({"name": op, "op": op, "input": ["image", "c"], "attr": {"T": {"type": "DT_FLOAT"}, **attributes}})
    call = Call("f", "TensorFlowOpLayer", None, {"name": "f", "node_def": node, "constants": constants}, {}, ("image",), ("f",))
    return model_of(calls=(call,), outputs=("f",), output_names=("f",))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (graph_node("RealDiv", {"1": 127.5}), lambda x: x / 127.5),
        (graph_node("Sub", {"0": 1.0}), lambda x: 1 - x),
        (graph_node("AddV2", {"1": [1.0, 2.0, 3.0, 4.0]}), lambda x: x + np.array([1, 2, 3, 4])),
        (graph_node("Mul", {"1": 0.5}), lambda x: x * 0.5),
        (graph_node("Relu6", {}), lambda x: np.clip(x, 0, 6)),
        (graph_node("Mean", {"1": [1, 2]}, keep_dims={"b": True}), lambda x: x.mean((0, 1), keepdims=True)),
        (graph_node("Reshape", {"1": [-1, 36, 4]}), lambda x: x.reshape(36, 4)),
        (graph_node("StridedSlice", {"1": [0, 0, 1], "2": [0, 0, 3], "3": [1, 1, 1]}, begin_mask={"i": "3"}, end_mask={"i": "3"}),
         lambda x: x[:, 1:3]),
        (graph_node("AvgPool", {}, ksize={"list": {"i": ["1", "2", "2", "1"]}}, strides={"list": {"i": ["1", "2", "2", "1"]}},
                    padding={"s": "VkFMSUQ="}), lambda x: x.reshape(3, 2, 3, 2, 4).mean((1, 3))),
    ],
)  # fmt: skip
def test_functions_of_tensorflow_2_0(model: KerasModel, expected: Callable[[Array], Array]) -> None:
    x = np.random.default_rng(2).normal(size=(6, 6, 4)).astype(np.float32) * 3
    got = computed(model, x)
    assert got.shape == expected(x).shape
    np.testing.assert_allclose(got, expected(x), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda_call("math.sin", {}), "operation 'math.sin' of 1 tensors is not supported, there are absolute, add"),
        (lambda_call("math.truediv", {"y": 0}), "divides by 0; expected another number"),
        (lambda_call("math.multiply", {"y": [1.0, 2.0]}), "constant of shape .2,., expected a finite number, or one for each of 4"),
        (lambda_call("math.multiply", {"y": "much"}), "takes 'much', expected a number"),
        (lambda_call("math.multiply", {"y": [[1], [2, 3]]}), "expected a number"),
        (lambda_call("math.multiply", {"y": 1e300}), "expected a finite number"),
        (lambda_call("math.multiply", {}), "takes 1 operands, expected two"),
        (lambda_call("math.pow", {"y": 0.3}), "power of 0.3, expected a whole number, or half of one"),
        (lambda_call("math.pow", {"y": 40}), "power of 40, expected a whole number"),
        (lambda_call("math.pow", {"x": 2.0, "y": {"input": 0}}), "raises to the power of"),
        (lambda_call("linalg.matmul", {"a": {"input": 0}, "b": {"input": 1}}, ("image", "image")), "the second is no constant"),
        (lambda_call("linalg.matmul", {"b": [1.0, 2.0]}), "expected a matrix of finite numbers"),
        (lambda_call("linalg.matmul", {"b": [[1.0] * 4] * 4, "transpose_b": True}), "not transposed"),
        (lambda_call("norm", {"axis": -1, "ord": 1}), "takes the norm 1"),
        (lambda_call("nn.depth_to_space", {"block_size": 0}), "takes blocks of 0"),
        (lambda_call("nn.depth_to_space", {"block_size": 3}), "does not fit its input"),
        (lambda_call("nn.space_to_depth", {"block_size": 4}), "expected a divisor of both"),
        (lambda_call("compat.v1.gather", {"indices": [9], "axis": 3}), "expected a list of whole numbers within it"),
        (lambda_call("pad", {"paddings": [[0, 0], [9, 0], [0, 0], [0, 0]], "mode": "REFLECT"}), "mirrors 9 of 6 values, expected at most"),
        (lambda_call("image.resize", {"size": [3, 3], "align_corners": True}), "by the corners of pixels"),
        (lambda_call("image.resize", {"size": [3, 3], "antialias": True}), "resizes with antialiasing"),
        (lambda_call("image.resize", {"size": [3, 3], "method": "bicubic"}), "'bicubic' is not supported, expected nearest or bilinear"),
        (lambda_call("squareplus", {"b": 3}), "takes b 3, expected 4"),
        (lambda_call("cast", {"dtype": "int32"}), "casts to 'int32'"),
        (lambda_call("reshape", {"shape": [-1]}), "expected a list of sizes whose first is the batch"),
        (lambda_call("reshape", {"shape": [6, -1]}), "joins the batch"),
        (lambda_call("compat.v1.transpose", {"perm": [1, 0, 2, 3]}), "expected all of them, the batch first"),
        (lambda_call("math.reduce_mean", {"axis": None}), "works along all axes"),
        (lambda_call("math.reduce_mean", {"axis": [0, 1]}), "works along axis 0, expected one of 1 to 3"),
        (lambda_call("clip_by_value", {"clip_value_min": 2, "clip_value_max": 1}), "clips to 2 ... 1, expected two numbers"),
        (lambda_call("__operators__.getitem", {"slice_spec": [ranged(0, 1)]}), "takes a part of the batch"),
        (lambda_call("__operators__.getitem", {"slice_spec": [ranged(None, None), 9]}), "takes the index 9 of an axis of 6"),
        (lambda_call("__operators__.getitem", {"slice_spec": [ranged(None, None), ranged(3, 3)]}), "takes nothing of an axis"),
        (lambda_call("__operators__.getitem", {"slice_spec": [ranged(None, None), ranged(None, None, 0)]}), "step is 0"),
        (lambda_call("__operators__.getitem", {"slice_spec": [ranged(None, None)] * 6}), "takes 6 indices of a tensor with 4 axes"),
        (lambda_call("__operators__.getitem", {"slice_spec": ["a"]}), "takes 'a' as an index"),
        (lambda_call("expand_dims", {"axis": 1}), "at most three axes beside the batch"),
        (lambda_call("stack", {"axis": 1}), "expected at most three axes beside the batch"),
        (lambda_call("squeeze", {"axis": 1}), "that are not 1"),
        (graph_node("Sin", {}), "operation 'Sin'"),
    ],
)
def test_what_cannot_be_computed_is_refused(model: KerasModel, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_graph(model)


def test_a_node_that_is_no_json_is_refused() -> None:
    call = Call("f", "TensorFlowOpLayer", None, {"node_def": "{", "constants": {}}, {}, ("image",), ("f",))
    with pytest.raises(ModelError, match="node_def is not JSON"):
        read_graph(model_of(calls=(call,), outputs=("f",), output_names=("f",)))


def test_operations_are_listed() -> None:
    names = supported_operations()
    assert list(names) == sorted(names)
    assert {"add", "get_item", "relu6", "split"} <= set(names)


def test_parts_of_channels_stay_as_they_are_at_1_bit(tmp_path: Path, keras: Any) -> None:
    """ShuffleNet's unit: what is split is not rounded to signs, only what is convolved."""
    image = keras.Input((6, 6, 8))
    left, right = keras.ops.split(image, 2, axis=-1)
    model = keras.Model(image, keras.layers.Concatenate()([left, keras.layers.Conv2D(4, 3, padding="same")(right)]))
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(5).normal(size=(2, 6, 6, 8)).astype(np.float32)
    for bits in (32, 8, 1):
        edge.convert(tmp_path / "model.keras", bits=bits, formats="edge", force=True)
        np.testing.assert_array_equal(edge.load(tmp_path / "model.edge").run(x)[..., :4], x[..., :4])
