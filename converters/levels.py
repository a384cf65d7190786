"""Weights on few levels: w = scale[o] * q with whole q of 4 or 2 bits, -1, 0 and 1, or -1 and 1; scales by least squares, one per channel.

    levels     q
    4          -8..7
    2          -2..1
    ternary    -1, 0, 1     stored in 2 bits
    1          -1, 1        the scale is the mean size of the weights

For a given scale s the nearest levels are the best, and for given levels the best scale is <w, q> / <q, q>. The two steps alternate from
several starts, and the start with the least squared error wins. A negative scale turns the levels round where more room is needed above 0.
Graphs hold such filters as int8, signs as bits; `pack_filters` marks those that the file stores in fewer bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge.converters.passes_exact import joined, parts
from edge.converters.rewriting import stored
from edge.graph import Array, Graph, Node
from edge.tensors import NARROW, Encoding
from edge.widths import TERNARY, Bits

_STARTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the scale at which no weight is cut off
_ROUNDS = 6


@dataclass(frozen=True)
class Levels:
    """The whole numbers from `low` to `high`; without `zero` -1 and 1."""

    low: int
    high: int
    zero: bool = True

    def nearest(self, values: Array) -> Array:
        found: Array = np.clip(np.rint(values), self.low, self.high) if self.zero else np.where(values < 0, -1.0, 1.0)
        return found

    def stored(self, whole: Array) -> Array:
        """As graphs hold them: int8, of signs whether they are -1."""
        found: Array = whole.astype(np.int8) if self.zero else whole < 0
        return found


LEVELS: Mapping[Bits, Levels] = {4: Levels(-8, 7), 2: Levels(-2, 1), TERNARY: Levels(-1, 1), 1: Levels(-1, 1, zero=False)}
EIGHT_BITS = Levels(-127, 127)
LEVEL_OPS = ("conv2d", "dense")  # whose kernels read filters of 4 and 2 bits


def on_levels(node: Node, levels: Levels) -> dict[str, Array]:
    """The float32 filter of a conv2d or dense on levels: `filter` (int8) and `scale`."""
    return joined(node, [_on_levels(part.constants["filter"], levels) for part in parts(node)])


def _on_levels(filters: Array, levels: Levels) -> dict[str, Array]:
    weights = filters.reshape(len(filters), -1).astype(np.float64)
    scale = fitted_scales(weights, levels)
    whole = levels.nearest(weights / scale[:, None])
    return {"filter": levels.stored(whole).reshape(filters.shape), "scale": scale.astype(np.float32)}


def fitted_scales(weights: Array, levels: Levels, importance: Array | None = None) -> Array:
    """The scales of rows of weights (O, K) whose nearest levels have the least squared error, each term times its `importance` (K)."""
    largest = np.abs(weights).max(axis=1)
    whole = np.where(largest > 0, largest, 1.0) / max(levels.high, 1)
    factors = np.ones(weights.shape[1]) if importance is None else importance
    signs = (1.0, -1.0) if -levels.low > levels.high else (1.0,)
    best, least = whole.copy(), np.full(len(weights), np.inf)
    for start in (sign * part for part in _STARTS for sign in signs):
        scale = _alternated(weights, levels, whole * start, factors)
        error = (factors * (weights - scale[:, None] * levels.nearest(weights / scale[:, None])) ** 2).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _alternated(weights: Array, levels: Levels, scale: Array, factors: Array) -> Array:
    """A scale after rounds of the nearest levels and the best scale for them."""
    for _ in range(_ROUNDS):
        whole = levels.nearest(weights / scale[:, None])
        products, squares = ((factors * whole * each).sum(axis=1) for each in (weights, whole))
        fits = (squares > 0) & (products != 0)
        scale = np.where(fits, products / np.where(squares > 0, squares, 1.0), scale)
    return scale


# -- storing -------------------------------------------------------------------------------------------------------------------


def narrowest(node: Node) -> Encoding:
    """The encoding of fewest bits that holds a node's filter."""
    encoding = stored(node)
    if encoding is not Encoding.INT8 or node.op not in (*LEVEL_OPS, "residual_conv2d"):
        return encoding
    low, high = int(node.constants["filter"].min()), int(node.constants["filter"].max())
    fitting = [each for each in NARROW if -(1 << each.bits - 1) <= low and high < 1 << each.bits - 1]
    return min(fitting, key=lambda each: each.bits, default=encoding)


def pack_filters(graph: Graph) -> Graph:
    """Filters of int8 whose values fit into 4 or 2 bits are stored in these, and no value changes."""
    return replace(graph, nodes=tuple(_packed(node) for node in graph.nodes))


def _packed(node: Node) -> Node:
    if "filter" not in node.constants:
        return node
    encoding = narrowest(node)
    return replace(node, filter_bits=encoding.bits if encoding in NARROW else 0)
