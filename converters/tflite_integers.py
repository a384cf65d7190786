"""Activations between int8 tensors as one integer operator of TFLite, which needs no float kernels: `dequantize`, activation, `quantize`.

Runtimes compute them from tables or in fixed point: at most a step away from the rounded float value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.converters.integer_ends import fixed_quantization
from edge.converters.tflite_lowering import Lowering, lite_type
from edge.graph import Graph, Node
from edge.ops import Activation
from edge.tensors import Encoding

_ACTIVATIONS = {Activation.SIGMOID: "LOGISTIC", Activation.TANH: "TANH"}


@dataclass(frozen=True)
class Whole:
    """An activation on int8: its operator, the int8 tensors that it reads and gives, and those between, which nobody else reads."""

    operator: str
    source: str
    output: str
    within: tuple[str, ...]

    def lowered(self, low: Lowering) -> int:
        options = {"beta": 1.0} if self.operator == "SOFTMAX" else {}
        return low.op(self.operator, [low.stored(self.source)], lite_type(low.kind(self.output)), **options)


def whole_activations(graph: Graph) -> Mapping[str, Whole]:
    """Those of a graph, by the int8 tensor that they give."""
    found = (_whole(graph, node) for node in graph.nodes if node.op == "quantize")
    return {each.output: each for each in found if each is not None}


def _whole(graph: Graph, node: Node) -> Whole | None:
    kind, activation = graph.types[node.output], graph.producer(node.inputs[0])
    fixed = fixed_quantization(activation)
    if activation is None or fixed is None or (kind.scale, kind.zero_point) != fixed:
        return None
    real = graph.producer(activation.inputs[0])
    if real is None or real.op != "dequantize" or graph.types[real.inputs[0]].encoding is not Encoding.INT8:
        return None
    if graph.only_consumer(activation.output) is None or graph.only_consumer(real.output) is None:
        return None
    operator = "SOFTMAX" if activation.op == "softmax" else _ACTIVATIONS[Activation(int(activation.attrs["activation"]))]
    return Whole(operator, real.inputs[0], node.output, (real.output, activation.output))
