"""Small graphs for the tests of passes, their text, and their values before and after."""

from __future__ import annotations

import re

import numpy as np
from keras_models import Layer, kernel, model_of

from edge.converters.keras_model import Call
from edge.converters.layers import read_graph
from edge.graph import Graph
from edge.kernels.reference import run_graph

SIGN = ("Activation", {"activation": "ste_sign", "name": "sign"}, {})
RELU = ("ReLU", {"name": "relu"}, {})
POOL = ("MaxPooling2D", {"name": "pool"}, {})
FLATTEN = ("Flatten", {"name": "flatten"}, {})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def graph_of(*layers: Layer, shape: tuple[int, ...] = (4, 4, 8), dtype: str = "float32") -> Graph:
    return read_graph(model_of(*layers, shape=shape), input_dtype=dtype)


def read_twice(quantizer: str, other: str | None = None) -> Graph:
    """Two convolutions "a" and "b" of the image, each of which quantizes it, and their sum."""
    calls = []
    for name, own in (("a", quantizer), ("b", other or quantizer)):
        options = {"kernel_size": [1, 1], "use_bias": False, "kernel_quantizer": "ste_sign", "input_quantizer": own}
        calls.append(Call(name, "QuantConv2D", None, options, {"kernel": kernel(rng(), 1, 1, 8, 2)}, ("image",), (name,)))
    calls.append(Call("sum", "Add", None, {}, {}, ("a", "b"), ("sum",)))
    made = model_of(shape=(4, 4, 8), calls=tuple(calls), outputs=("sum",), output_names=("sum",))
    return read_graph(made, input_dtype="float32")


def text(graph: Graph) -> str:
    """The graph's text without strides of 1 and padding of 0."""
    return re.sub(r" (stride_[hw]=1|pad_(top|bottom|left|right)=0|value=0)(?= |$)", "", graph.text(), flags=re.MULTILINE)


def lines(source: str) -> str:
    return "\n".join(line.strip() for line in source.strip().splitlines())


def outputs(graph: Graph, seed: int = 1) -> list[np.ndarray]:
    """The outputs for three random examples."""
    kind = graph.types[graph.inputs[0]]
    examples = rng(seed).normal(size=(3, *kind.shape)).astype(np.float32)
    if kind.encoding.bits == 8:
        examples = rng(seed).integers(0, 256, (3, *kind.shape)).astype(np.uint8)
    return [run_graph(graph, {graph.inputs[0]: x})[name] for x in examples for name in graph.outputs]


def same(before: Graph, after: Graph, *, tolerance: float = 0.0) -> None:
    for expected, got in zip(outputs(before), outputs(after), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max())))
