"""The pass that brings scalings, activations and signs before operations that only move values, next to the layer they can merge with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, fresh, sweep
from edge.graph import Graph, Node
from edge.tensors import Encoding, TensorType

CHANNELWISE = ("affine", "activation", "prelu", "binarize")


def hoist_channelwise(graph: Graph) -> Graph:
    """What acts on each value or channel acts before values are interleaved, repeated, cut off or joined: no value changes.

    A batch norm behind a transposed convolution then is one behind convolutions, and signs are moved packed.
    """
    while (changed := sweep(graph, _hoist)) is not graph:
        graph = changed
    return graph


def _hoist(graph: Graph, node: Node) -> Graph | None:
    mover = graph.producer(node.inputs[0])
    if node.op not in CHANNELWISE or mover is None or graph.only_consumer(mover.output) is not node:
        return None
    if mover.op == "concat":
        return _before_joining(graph, node, mover)
    repeats = _repeats(graph, mover)
    if not repeats or (encoding(graph, node.output) is Encoding.BITS and repeats > 1 and graph.types[node.output].shape[-1] % 8):
        return None
    constants = {role: np.tile(row, repeats) for role, row in node.constants.items()}
    early = replace(node, inputs=mover.inputs, output=fresh(graph, f"{node.output}/early"), constants=constants)
    late = replace(mover, inputs=(early.output,), output=node.output)
    types = {early.output: _like(graph, node, mover.inputs[0])}
    return edit(graph, replacing={node.output: (early, late)}, types=types)


def _repeats(graph: Graph, mover: Node) -> int:
    """How many channels before the move become one after it, 0 where more values would be computed than now."""
    if mover.op == "depth_to_space":
        return int(mover.attrs["block_h"] * mover.attrs["block_w"])
    source = graph.producer(mover.inputs[0])
    cut = mover.op == "slice" and graph.types[mover.inputs[0]].shape[-1] == graph.types[mover.output].shape[-1]
    return int(mover.op == "resize_nearest" or (cut and source is not None and source.op in ("depth_to_space", *WEIGHT_OPS)))


def _before_joining(graph: Graph, node: Node, concat: Node) -> Graph | None:
    """Each part by itself, where all are made by layers that can merge with what acts on them, or by what has been brought there."""
    parts = [graph.producer(name) for name in concat.inputs]
    alone = all(graph.only_consumer(name) is concat and concat.inputs.count(name) == 1 for name in concat.inputs)
    widths = [graph.types[name].shape[-1] for name in concat.inputs]
    whole_bytes = encoding(graph, node.output) is not Encoding.BITS or not any(width % 8 for width in widths[:-1])
    if not alone or not whole_bytes or any(part is None or part.op not in (*WEIGHT_OPS, *CHANNELWISE) for part in parts):
        return None
    early, types, start = [], {}, 0
    for number, (name, width) in enumerate(zip(concat.inputs, widths, strict=True)):
        constants = {role: row[start : start + width] for role, row in node.constants.items()}
        early.append(replace(node, inputs=(name,), output=fresh(graph, f"{node.output}/early{number}"), constants=constants))
        types[early[-1].output] = _like(graph, node, name)
        start += width
    late = replace(concat, inputs=tuple(part.output for part in early), output=node.output)
    return edit(graph, replacing={node.output: (*early, late)}, types=types)


def _like(graph: Graph, node: Node, source: str) -> TensorType:
    """The encoding of what `node` gives, in the shape of `source`."""
    return replace(graph.types[node.output], shape=graph.types[source].shape)
