"""Passes that store float32 filters in 8 bits, and read pictures as bytes, where not a single value changes by it.

A filter on a power-of-two grid, w = q * 2^k with whole abs(q) <= 127, is the same filter as int8 q with scale 2^k: every product and sum
is scaled by an exact power of two, and so is their rounding. Networks trained with weights and inputs on such grids (x = byte * 2^j) have
integer accumulators from the first layer on, and thresholds there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge.converters.passes_simplify import is_bytes
from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, is_plain, stored, sweep
from edge.graph import Array, Graph, Node
from edge.ops import OPS
from edge.tensors import Encoding

_EXACT_FLOAT_INTEGER = 1 << 24  # below, sums of integers are exact in float32
_LARGEST_INT8 = 127
_PART = 1 << 20  # weights; what is computed from them takes many times their memory


def channel_axis(node: Node) -> int:
    """The axis of the output channels in a node's filter."""
    return -1 if node.op == "depthwise_conv2d" else 0


def per_channel(node: Node, vector: Array) -> Array:
    """A vector of one value per output channel, broadcastable with the filter."""
    axes = node.constants["filter"].ndim
    return vector if channel_axis(node) == -1 else vector.reshape(-1, *(1,) * (axes - 1))


def over_filter(node: Node, array: Array, reduce: np.ufunc) -> Array:
    """`array`, of the shape of the filter, reduced to one value per output channel."""
    keep = channel_axis(node) % array.ndim
    reduced: Array = reduce.reduce(array, axis=tuple(axis for axis in range(array.ndim) if axis != keep))
    return reduced


def real_weights(node: Node) -> Array:
    """The weights that a float32 or int8 filter stands for, float64."""
    weights: Array = node.constants["filter"].astype(np.float64)
    return weights * per_channel(node, node.constants["scale"]) if "scale" in node.constants else weights


def store_exact_int8(graph: Graph) -> Graph:
    """Float filters that lie on a grid of whole numbers times a power of two per output channel become int8, exactly."""
    return sweep(graph, _store_exact_int8)


def _store_exact_int8(graph: Graph, node: Node) -> Graph | None:
    if node.op not in WEIGHT_OPS or stored(node) is not Encoding.FLOAT32:
        return None
    found = []
    for part in parts(node):
        exact = _exact_int8(part)
        if exact is None:
            return None
        found.append(exact)
    return edit(graph, replacing={node.output: (replace(node, constants={**node.constants, **joined(node, found)}),)})


def parts(node: Node) -> list[Node]:
    """The node cut by output channels, so that what is computed from its filter in float64 takes little memory at a time."""
    filters, axis = node.constants["filter"], channel_axis(node)
    count = min(filters.shape[axis], 1 + filters.size // _PART)
    pieces = {"filter": np.array_split(filters, count, axis=axis)}
    if "scale" in node.constants:
        pieces["scale"] = np.array_split(node.constants["scale"], count)
    return [replace(node, constants={role: arrays[i] for role, arrays in pieces.items()}) for i in range(count)]


def joined(node: Node, found: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The filters and scales of the `parts` of a node, together again."""
    axes = {"filter": channel_axis(node), "scale": 0}
    return {role: np.concatenate([part[role] for part in found], axis=axes[role]) for role in found[0]}


def _exact_int8(node: Node) -> dict[str, Array] | None:
    """The filter as whole numbers, and the scale of each output channel; None where int8 does not hold them."""
    weights = node.constants["filter"].astype(np.float64)
    scale = _grid(node, weights)
    whole = weights / per_channel(node, scale)
    if np.abs(whole).max() > _LARGEST_INT8 or scale.min() < np.finfo(np.float32).tiny or scale.max() > 2.0**100:
        return None
    return {"filter": whole.astype(np.int8), "scale": scale.astype(np.float32)}


def _grid(node: Node, weights: Array) -> Array:
    """The largest power of two per output channel of which all weights are multiples (1 where all are zero)."""
    mantissa, exponent = np.frexp(weights)
    integer = np.abs(mantissa * 2.0**53).astype(np.int64)
    lowest = np.frexp((integer & -integer).astype(np.float64))[1] - 1  # the place of the last bit set
    place = np.where(integer == 0, np.iinfo(np.int32).max, exponent - 53 + lowest)
    least = over_filter(node, place, np.minimum)
    return np.ldexp(1.0, np.where(least == np.iinfo(np.int32).max, 0, least))


def read_exact_bytes(graph: Graph) -> Graph:
    """An int8 layer reads the bytes of the picture itself where scale and filter are on power-of-two grids: the same float32 values."""
    return sweep(graph, lambda graph, node: read_bytes(graph, node, exact=True))


def read_bytes(graph: Graph, node: Node, *, exact: bool) -> Graph | None:
    """The rule: `node`, with an int8 filter on a rescaled picture, takes the bytes and a scale that includes the rescaling.

    With `exact` only where the result is the same to the last bit; else the sum is merely rounded less often.
    """
    source = graph.producer(node.inputs[0])
    if node.op not in WEIGHT_OPS or source is None or stored(node) is not Encoding.INT8:
        return None
    factor = byte_factor(graph, source)
    if factor is None or (Encoding.UINT8, Encoding.INT8, encoding(graph, node.output)) not in OPS[node.op].signatures:
        return None
    scale = node.constants["scale"]
    if exact and not (_is_power_of_two(factor) and _is_power_of_two(scale) and _largest_sum(node) < _EXACT_FLOAT_INTEGER):
        return None
    constants = {**node.constants, "scale": (scale * factor).astype(np.float32)}
    layers = (*source.layers, *(name for name in node.layers if name not in source.layers))
    new = replace(node, inputs=source.inputs, constants=constants, layers=layers)
    return edit(graph, replacing={node.output: (new,)})


def byte_factor(graph: Graph, source: Node) -> Array | None:
    """The one factor by which `source` scales bytes to float32 values; None if it does something else."""
    if not is_bytes(graph, source.inputs[0]):
        return None
    if source.op == "dequantize":
        return np.ones(1, np.float32)
    mul = source.constants.get("mul", np.ones(1, np.float32))
    added = source.op == "affine" and "add" in source.constants and bool(source.constants["add"].any())
    return mul[:1] if source.op == "affine" and not added and is_plain(source) and bool((mul == mul[0]).all()) else None


def _is_power_of_two(values: Array) -> bool:
    return bool((np.abs(np.frexp(values)[0]) == 0.5).all())


def _largest_sum(node: Node) -> int:
    """The largest magnitude an accumulator over bytes can reach."""
    return 255 * int(over_filter(node, np.abs(node.constants["filter"].astype(np.int64)), np.add).max())
