"""Biases of layers whose weights were rounded each for itself, so that the mean of what they give over example pictures stays.

Weights w + e in place of w add e * x to what a layer gives, on average e * E x in every output channel: that is taken off its bias. E x is
what each tap of the window meets of each input channel on average, zeros of the padding included, in one run of the float network, whose
means later layers keep, too. Layers that pictures round (`edge.converters.rounding`) have biases from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from edge.converters.bits import Request, level_layers, lowered_layers, with_weights
from edge.converters.calibration import activations
from edge.converters.int8 import to_int8
from edge.converters.passes_exact import parts, real_weights
from edge.converters.rewriting import stored
from edge.converters.rounding import fits, seen_by, up_to
from edge.converters.samples import Example
from edge.errors import InputError
from edge.graph import Array, Graph, Node
from edge.tensors import Encoding


def with_shifts(graph: Graph, request: Request, pictures: Iterable[Example]) -> Request:
    """The request with what is added to the biases of those layers of `graph`, the float network, if it has any.

    Pictures are iterated once.
    """
    together = level_layers(graph, request)
    nodes = [node for node in lowered_layers(graph, request) if node.output not in together or not fits(node)]
    if not nodes:
        return request
    means = _means(graph, nodes, pictures)
    low = {node.output: node for node in with_weights(graph, request).nodes}
    shifts = {node.output: _lost(node, low[node.output], means[node.output]).astype(np.float32) for node in nodes}
    return replace(request, shifts={name: shift for name, shift in shifts.items() if shift.any()})


def _means(graph: Graph, nodes: Sequence[Node], pictures: Iterable[Example]) -> dict[str, Array]:
    """By the tensor that a layer gives, the mean of each tap and input channel, (taps, C), float64."""
    sums: dict[str, Array] = {}
    count = 0
    for values in activations(up_to(graph, (node.inputs[0] for node in nodes)), pictures):
        count += 1
        for node in nodes:
            taps = [tap.mean(axis=(0, 1), dtype=np.float64) for tap in seen_by(node, values[node.inputs[0]])]
            sums[node.output] = sums.get(node.output, 0.0) + np.stack(taps)
    for node in nodes:
        if not np.isfinite(sums[node.output]).all():
            what = f"what {node.inputs[0]!r} becomes is infinite on a picture"
            raise InputError(f"calibrating {graph.name}: {what}; check their range (--preset)")
    return {name: total / count for name, total in sums.items()}


def _lost(node: Node, low: Node, means: Array) -> Array:
    """How much less the layer gives on average than with its own weights, by output channel."""
    if node.op == "depthwise_conv2d":
        low = to_int8(low) if stored(low) is Encoding.FLOAT32 else low
        rows = (_weights(node) - _weights(low)).reshape(len(means), -1)
        return np.asarray((rows * means.repeat(rows.shape[1] // means.shape[1], axis=1)).sum(axis=0))
    groups, channels = int(node.attrs.get("groups", 1)), len(node.constants["filter"])
    by_group = means.reshape(len(means), groups, -1)
    found: list[Array] = []
    for own, other in zip(parts(node), parts(low), strict=True):
        other = to_int8(other) if stored(other) is Encoding.FLOAT32 else other
        first = sum(map(len, found))
        error = (_weights(own) - _weights(other)).reshape(-1, len(means), by_group.shape[-1])
        read = np.arange(first, first + len(error)) * groups // channels
        found.append(np.einsum("otc,toc->o", error, by_group[:, read]))
    return np.concatenate(found)


def _weights(node: Node) -> Array:
    """As a layer computes with them, float64; `node` is one with float weights, or with what becomes of them."""
    filters = node.constants["filter"]
    whole = np.where(filters, -1, 1).astype(np.int8) if filters.dtype == np.bool_ else filters
    return real_weights(replace(node, constants={**node.constants, "filter": whole}))
