"""Functions that move channels: `tf.split` and `tf.pad` as Keras 2 records them, and the grouped convolutions that come of the former."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import kernel, model_of

from edge.converters.keras_model import Call
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.passes_groups import merge_groups
from edge.errors import ModelError
from edge.graph import Graph
from edge.kernels.reference import run_graph

SHAPE = (4, 5, 12)


def lambda_call(function: str, outputs: tuple[str, ...], **arguments: Any) -> Call:
    return Call(outputs[0], "TFOpLambda", None, {"function": function}, {}, ("image",), outputs, arguments)


def graph_of(*calls: Call, outputs: tuple[str, ...] | None = None) -> Graph:
    names = outputs or (calls[-1].name,)
    return read_graph(model_of(calls=calls, outputs=names, output_names=names, shape=SHAPE))


def split_and_convolved(parts: int = 3, *, seed: int = 0, order: tuple[int, ...] | None = None, **odd: Any) -> Graph:
    """split, a convolution of each part in `order`, concatenate; `odd` changes the configuration of the last convolution."""
    random = np.random.default_rng(seed)
    names = ("split", *(f"split:{i}" for i in range(1, parts)))
    calls = [lambda_call("split", names, num_or_size_splits=parts, axis=-1)]
    for i, part in enumerate(order or range(parts)):
        config = {"kernel_size": [3, 2], "padding": "same", "use_bias": True, **(odd if i == parts - 1 else {})}
        weights = {"kernel": kernel(random, *config["kernel_size"], SHAPE[2] // parts, 2), "bias": kernel(random, 2)}
        calls.append(Call(f"conv{i}", "Conv2D", None, config, weights, (names[part],), (f"conv{i}",)))
    calls.append(Call("joined", "Concatenate", None, {}, {}, tuple(f"conv{i}" for i in range(parts)), ("joined",)))
    return graph_of(*calls)


def picture(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def output(graph: Graph, x: np.ndarray) -> np.ndarray:
    return run_graph(graph, {"image": x})[graph.outputs[0]]


# -- split ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parts", "bounds"), [(3, (0, 4, 8, 12)), ([2, 9, 1], (0, 2, 11, 12))])
def test_split_gives_the_parts_of_the_channels(parts: Any, bounds: tuple[int, ...]) -> None:
    names = ("split", "split:1", "split:2")
    graph = graph_of(lambda_call("split", names, num_or_size_splits=parts, axis=3), outputs=names)
    x = picture()
    values = run_graph(graph, {"image": x})
    for name, start, end in zip(graph.outputs, bounds, bounds[1:], strict=False):
        np.testing.assert_array_equal(values[name], x[..., start:end])


@pytest.mark.parametrize("axis", [1, 2, -2, -3])
def test_split_along_rows_and_columns(axis: int) -> None:
    names = ("split", "split:1")
    graph = graph_of(lambda_call("split", names, num_or_size_splits=[1, SHAPE[axis - (axis > 0)] - 1], axis=axis), outputs=names)
    values = run_graph(graph, {"image": picture()})
    for name, part in zip(graph.outputs, np.split(picture(), [1], axis=axis - (axis > 0)), strict=True):
        np.testing.assert_array_equal(values[name], part)


def test_parts_that_nobody_uses_are_left_out() -> None:
    graph = graph_of(lambda_call("split", ("split",), num_or_size_splits=4, axis=-1))
    assert len(graph.nodes) == 1
    np.testing.assert_array_equal(output(graph, picture()), picture()[..., :3])


@pytest.mark.parametrize(
    ("outputs", "arguments"),
    [
        (1, {"num_or_size_splits": 5, "axis": -1}),
        (1, {"num_or_size_splits": [4, 4], "axis": -1}),
        (1, {"num_or_size_splits": [-1, 4], "axis": -1}),
        (1, {"num_or_size_splits": 2}),
        (1, {"num_or_size_splits": 2, "axis": 4}),
        (1, {"axis": -1}),
        (3, {"num_or_size_splits": 2, "axis": -1}),
    ],
)
def test_other_splits_are_refused(outputs: int, arguments: dict[str, Any]) -> None:
    names = ("split", "split:1", "split:2")[:outputs]
    with pytest.raises(ModelError, match=r"the operation 'split' (splits \d+ values of an axis into|works along axis) .*, expected"):
        graph_of(lambda_call("split", names, **arguments), outputs=names)


def test_several_outputs_of_other_layers_are_refused() -> None:
    call = Call("act", "ReLU", None, {}, {}, ("image",), ("act", "act:1"))
    with pytest.raises(ModelError, match=r"layer 'act' .ReLU.: has 2 outputs, expected 1"):
        graph_of(call, outputs=("act", "act:1"))


# -- groups --------------------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([2, 3, 4, 6]), st.integers(0, 10**6))
def test_convolutions_of_all_parts_become_one_of_groups(parts: int, seed: int) -> None:
    before = split_and_convolved(parts, seed=seed)
    after = run_passes(before)
    assert [node.op for node in after.nodes] == ["conv2d"] and after.nodes[0].attrs["groups"] == parts
    np.testing.assert_array_equal(output(after, picture(seed)), output(before, picture(seed)))


@pytest.mark.parametrize(
    "graph",
    [
        split_and_convolved(order=(0, 2, 1)),
        split_and_convolved(order=(0, 1, 1)),
        split_and_convolved(padding="same", strides=1, dilation_rate=2),
        split_and_convolved(activation="relu"),
    ],
    ids=["another order", "one part twice", "one with other windows", "one with an activation"],
)
def test_others_stay_apart(graph: Graph) -> None:
    assert merge_groups(graph).text() == graph.text()
    after = run_passes(graph)
    np.testing.assert_allclose(output(after, picture()), output(graph, picture()), rtol=0, atol=1e-5)


# -- pad -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["compat.v1.pad", "pad"])
@pytest.mark.parametrize("arguments", [{}, {"mode": "CONSTANT", "constant_values": 0}])
def test_channels_are_padded_with_zeros(function: str, arguments: dict[str, Any]) -> None:
    widths = [[0, 0], [1, 0], [0, 2], [3, 1]]
    graph = graph_of(lambda_call(function, ("pad",), paddings=widths, **arguments))
    np.testing.assert_array_equal(output(graph, picture()), np.pad(picture(), widths[1:]))


@pytest.mark.parametrize("arguments", [{"mode": "WRAP"}, {"constant_values": "1"}, {"paddings": [[0, 0], [1, 1]]}])
def test_other_paddings_are_refused(arguments: dict[str, Any]) -> None:
    given = {"paddings": [[0, 0], [1, 0], [0, 2], [3, 1]], **arguments}
    with pytest.raises(ModelError, match=r"the operation .pad. pads (with|by) .*expected"):
        graph_of(lambda_call("pad", ("pad",), **given))
