"""Grouped convolutions out of what stood for them before Keras had them: split, one convolution for each part, concatenate.

    concat(conv2d_1(part_1(x)), ..., conv2d_g(part_g(x)))        becomes        conv2d(x) with g groups

where the parts are all channels of `x` in order, and the convolutions are alike but for their weights. No value changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.converters.rewriting import edit, stored, sweep
from edge.graph import Array, Graph, Node
from edge.tensors import Encoding


def merge_groups(graph: Graph) -> Graph:
    """Convolutions of the parts of one tensor, concatenated, become one of groups."""
    return sweep(graph, _merge_groups)


def _merge_groups(graph: Graph, node: Node) -> Graph | None:
    branches = [graph.producer(name) for name in node.inputs] if node.op == "concat" else []
    convolutions = [branch for branch in branches if branch is not None and branch.op == "conv2d"]
    if len(convolutions) < 2 or len(convolutions) != len(node.inputs):
        return None
    parts = [graph.producer(branch.inputs[0]) for branch in convolutions]
    selections = [part for part in parts if part is not None and _start(part) is not None]
    if len(selections) != len(parts) or not _covers(graph, selections) or not _alike(graph, convolutions):
        return None
    layers = tuple(dict.fromkeys(name for each in (*selections, *convolutions, node) for name in each.layers))
    first = convolutions[0]
    attrs = {**first.attrs, "groups": len(convolutions)}
    new = replace(first, inputs=selections[0].inputs, output=node.output, attrs=attrs, constants=_joined(convolutions), layers=layers)
    return edit(graph, replacing={node.output: (new,)})


def _start(node: Node) -> int | None:
    """The first of the channels that a node selects in order (`layers_channels`); None if it does something else."""
    if node.op != "conv2d" or set(node.constants) != {"filter"} or stored(node) is not Encoding.FLOAT32:
        return None
    filters = node.constants["filter"]
    if filters.shape[1:3] != (1, 1) or node.attrs["groups"] != 1:
        return None
    rows = filters[:, 0, 0]
    start = int(rows[0].argmax())
    return start if np.array_equal(rows, np.eye(rows.shape[1], dtype=np.float32)[start : start + len(rows)]) else None


def _covers(graph: Graph, selections: list[Node]) -> bool:
    """Whether equal selections of one tensor follow each other and leave no channel out."""
    sizes = [len(each.constants["filter"]) for each in selections]
    starts = [_start(each) for each in selections]
    channels = graph.types[selections[0].inputs[0]].shape[-1]
    same = len({each.inputs for each in selections}) == 1 and len(set(sizes)) == 1 and sum(sizes) == channels
    return same and starts == [sizes[0] * i for i in range(len(sizes))] and all(_is_plain_selection(each) for each in selections)


def _is_plain_selection(node: Node) -> bool:
    ones = all(node.attrs[name] == 1 for name in ("stride_h", "stride_w"))
    return ones and not any(node.attrs[name] for name in ("pad_top", "pad_bottom", "pad_left", "pad_right", "activation"))


def _alike(graph: Graph, convolutions: list[Node]) -> bool:
    """Same attributes, same constants but for their values, and nobody else reads them."""
    first = convolutions[0]
    shapes = {role: (array.shape, array.dtype) for role, array in first.constants.items()}
    return first.attrs["groups"] == 1 and all(
        each.attrs == first.attrs
        and {role: (array.shape, array.dtype) for role, array in each.constants.items()} == shapes
        and each.output not in graph.outputs
        and len(graph.consumers(each.output)) == 1
        for each in convolutions
    )


def _joined(convolutions: list[Node]) -> dict[str, Array]:
    roles = convolutions[0].constants
    return {role: np.concatenate([each.constants[role] for each in convolutions]) for role in roles}
