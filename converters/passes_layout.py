"""The pass that removes turned tensors: a layer that sums over all of its input reads the values in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.converters.rewriting import edit, sweep
from edge.graph import Graph, Node


def absorb_transpose(graph: Graph) -> Graph:
    """A dense layer on a turned image reads the image as it was, by turned filters; signs are taken before the image is turned."""
    return sweep(graph, _absorb_transpose)


def _absorb_transpose(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if source is None or source.op != "transpose":
        return None
    if node.op == "dense":
        return edit(graph, replacing={node.output: (_unturned(graph, node, source, source.inputs[0]),)})
    readers = graph.consumers(node.output)
    if node.op != "binarize" or node.constants or node.output in graph.outputs or not all(reader.op == "dense" for reader in readers):
        return None
    replacing = {reader.output: (_unturned(graph, reader, source, node.output),) for reader in readers}
    replacing[node.output] = (replace(node, inputs=source.inputs),)
    types = {node.output: replace(graph.types[node.output], shape=graph.types[source.inputs[0]].shape)}
    return edit(graph, replacing=replacing, types=types)


def _unturned(graph: Graph, dense: Node, turning: Node, source: str) -> Node:
    """A dense node on the tensor `source`, whose axes are those before `turning`."""
    places = [int(turning.attrs[f"axis_{axis}"]) for axis in range(3)]
    filters = dense.constants["filter"].reshape(-1, *graph.types[turning.output].hwc)
    turned = np.ascontiguousarray(filters.transpose(0, *(1 + places.index(axis) for axis in range(3))))
    return replace(dense, inputs=(source,), constants={**dense.constants, "filter": turned})
