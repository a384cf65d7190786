"""Layers with signs for weights, and for inputs: alpha * sign(w), alpha the mean of abs(w) per output channel, and signs around a mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge.converters.calibration import Statistics
from edge.converters.passes_exact import joined, over_filter, parts, real_weights
from edge.converters.rewriting import edit, encoding, fresh, new_node
from edge.graph import Array, Graph, Node
from edge.layout import reads_packed_groups
from edge.tensors import Encoding, TensorType

BITS, F32 = Encoding.BITS, Encoding.FLOAT32


def binarized(node: Node) -> Node:
    """The same layer with weights alpha * sign(w)."""
    return replace(node, constants={**node.constants, **joined(node, [_signs_and_scale(part) for part in parts(node)])})


def _signs_and_scale(node: Node) -> dict[str, Array]:
    weights = real_weights(node)
    count = weights.size // node.constants["filter"].shape[-1 if node.op == "depthwise_conv2d" else 0]
    alpha = (over_filter(node, np.abs(weights), np.add) / count).astype(np.float32)
    return {"filter": weights < 0, "scale": alpha}


def binarized_both(graph: Graph, node: Node, statistics: Mapping[str, Statistics]) -> Graph:
    """Weights as `binarized`, and the input x as m + b * sign(x - m), m its mean and b its mean distance from m (0 and 1 if unknown).

    The convolution of the constant part joins the bias; at padded borders it is too large by the taps outside.
    """
    if node.op == "depthwise_conv2d" or encoding(graph, node.inputs[0]) is not F32:
        return _keeps_input(graph, node, "a depthwise convolution sums too few signs")
    if not reads_packed_groups(graph.types[node.inputs[0]].shape[-1], int(node.attrs.get("groups", 1))):
        return _keeps_input(graph, node, "only groups of 8, 16, 32 or 64 channels, or a multiple of 64, read signs")
    known = statistics.get(node.inputs[0])
    centre, spread = (known.mean, known.deviation) if known else (0.0, 1.0)
    binary, (signs, creation) = binarized(node), _signs(graph, node, centre)
    alpha = binary.constants["scale"].astype(np.float64)
    constants = {**binary.constants, "scale": (alpha * spread).astype(np.float32)}
    if centre:
        total = over_filter(node, np.where(binary.constants["filter"], -1.0, 1.0), np.add)
        constants["bias"] = (constants.get("bias", 0.0) + alpha * centre * total).astype(np.float32)
    new = replace(binary, inputs=(signs,), constants=constants)
    around_zero = "the signs of its input are taken around 0, not around its mean; give --calibrate to measure it"
    types = {signs: TensorType(graph.types[node.inputs[0]].shape, BITS)}
    notes = {} if known else dict.fromkeys(node.layers, around_zero)
    return edit(graph, replacing={node.output: (*creation, new)}, types=types, note=notes)


def _keeps_input(graph: Graph, node: Node, why: str) -> Graph:
    note = f"its input stays float, since {why}; --activation-bits applies to the other layers"
    return edit(graph, replacing={node.output: (binarized(node),)}, note=dict.fromkeys(node.layers, note))


def _signs(graph: Graph, node: Node, centre: float) -> tuple[str, tuple[Node, ...]]:
    """The tensor of signs around `centre` of a node's input, and the node that makes it, if there is none yet."""
    source = node.inputs[0]
    name = f"{source}/signs"
    if graph.producer(name) is not None:
        return name, ()
    name = fresh(graph, name)
    constants = {"add": np.full(graph.types[source].shape[-1], -centre, np.float32)} if centre else {}
    return name, (new_node("binarize", (source,), name, node.layers, constants),)
