"""Passes by which layers read quantized tensors as they are stored: int8 instead of what `dequantize` makes of it, signs instead of ternary
values, zeros and ones, or scaled signs. Sums are the same whole numbers; the scales join the layer's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge.converters.passes_exact import channel_axis, over_filter
from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, fresh, is_plain, new_node, pads, stored, sweep
from edge.graph import Array, Graph, Node
from edge.layout import reads_packed_groups
from edge.ops import MAX_ACCUMULATOR, OPS
from edge.tensors import Encoding, TensorType

BITS, I8 = Encoding.BITS, Encoding.INT8
_LARGEST_PRODUCT = 255 * 128
_QUANTIZING = ("quantize", "dequantize", "binarize", "unpack")
_COMPARED = (*_QUANTIZING, "activation", "affine", "add", "subtract")  # what quantizers are made of, without filters
# Move values without computing any.
_MOVERS = ("max_pool2d", "reshape", "slice", "resize_nearest", "transpose", "depth_to_space")


def share_quantized(graph: Graph) -> Graph:
    """Layers that quantize a tensor alike read one quantized tensor, and what is made of it alike.

    Each tensor is told by the first that is computed in the same way of the same tensors.
    """
    found: dict[tuple[object, ...], str] = {}
    first: dict[str, str] = {}
    quantized: set[str] = set()
    for node in graph.nodes:
        first[node.output] = found.setdefault(_computation(graph, node, first), node.output) if node.op in _COMPARED else node.output
        if node.op in _QUANTIZING or (node.op in _COMPARED and quantized.intersection(node.inputs)):
            quantized.add(node.output)
    redirect = {name: first[name] for name in quantized.difference(graph.outputs) if first[name] != name}
    if not redirect:
        return graph
    return edit(graph, redirect=redirect, replacing={name: (_of_all(graph, first, name),) for name in set(redirect.values())})


def _computation(graph: Graph, node: Node, first: Mapping[str, str]) -> tuple[object, ...]:
    """What a node computes: equal for those that give the same values."""
    inputs = tuple(first.get(name, name) for name in node.inputs)
    constants = tuple((role, node.constants[role].tobytes()) for role in sorted(node.constants))
    return node.op, inputs, tuple(sorted(node.attrs.items())), constants, graph.types[node.output]


def _of_all(graph: Graph, first: Mapping[str, str], name: str) -> Node:
    """The node that gives a tensor, for the layers of all that give the same."""
    nodes = [node for node in graph.nodes if first[node.output] == name]
    return replace(nodes[0], layers=tuple(dict.fromkeys(layer for node in nodes for layer in node.layers)))


def keep_integers(graph: Graph) -> Graph:
    """Values are moved as int8 where they are made of it."""
    return sweep(graph, _keep_integer)


def _keep_integer(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if node.op not in _MOVERS or source is None or source.op != "dequantize" or encoding(graph, source.inputs[0]) is not I8:
        return None
    inner = fresh(graph, f"{node.output}/int8")
    nodes = (replace(node, inputs=source.inputs, output=inner), replace(source, inputs=(inner,), output=node.output, layers=node.layers))
    types = {inner: replace(graph.types[source.inputs[0]], shape=graph.types[node.output].shape)}
    return edit(graph, replacing={node.output: nodes}, types=types)


def read_integers(graph: Graph) -> Graph:
    """Layers with integer filters read int8 where a float32 copy of it was made for them."""
    return sweep(graph, _read_integer)


def _read_integer(graph: Graph, node: Node) -> Graph | None:
    if node.op not in WEIGHT_OPS or stored(node) not in (I8, BITS):
        return None
    factor, copy = _common_factor(graph, graph.producer(node.inputs[0]))
    if factor is None or copy is None or copy.op != "dequantize" or encoding(graph, copy.inputs[0]) is not I8:
        return None
    terms = node.constants["filter"].size // node.constants["filter"].shape[channel_axis(node)]
    signature = (I8, stored(node), encoding(graph, node.output))
    if signature not in OPS[node.op].signatures or terms * _LARGEST_PRODUCT > MAX_ACCUMULATOR:
        return None
    scale = node.constants["scale"].astype(np.float64) * factor * graph.types[copy.inputs[0]].scale
    new = replace(node, inputs=copy.inputs, constants={**node.constants, "scale": scale.astype(np.float32)})
    return edit(graph, replacing={node.output: (new,)})


def _common_factor(graph: Graph, source: Node | None) -> tuple[float | None, Node | None]:
    """A factor that is the same for all channels, and the node before it; 1 and the node itself where it is no scaling."""
    mul, add, before = _common_scaling(graph, source)
    return (mul if add == 0 else None), before


def _common_scaling(graph: Graph, source: Node | None) -> tuple[float, float, Node | None]:
    """(factor, addend, node before) of a scaling that is the same for all channels; (1, 0, the node itself) for any other node."""
    if source is None or source.op != "affine" or not is_plain(source):
        return 1.0, 0.0, source
    rows = [source.constants.get(role, np.full(1, neutral, np.float32)) for role, neutral in (("mul", 1.0), ("add", 0.0))]
    if any((row != row[0]).any() for row in rows):
        return 1.0, 0.0, source
    return float(rows[0][0]), float(rows[1][0]), graph.producer(source.inputs[0])


def read_signs(graph: Graph) -> Graph:
    """Layers with filters of -1, 0 and 1 read signs, where their input is signs, scaled and shifted alike in all channels.

    With x = m s + a: sum(w x) = m sum(w s) + a sum(w). Outside the image x is 0, which is s = +1 where a = -m; where a = 0 nothing is
    added there, as ever. A filter with zeros is the mean of two of signs, w = (u + v) / 2: one on the signs twice.
    """
    return sweep(graph, _read_signs)


def _read_signs(graph: Graph, node: Node) -> Graph | None:
    if node.op not in WEIGHT_OPS or stored(node) not in (I8, BITS):
        return None
    mul, add, copy = _common_scaling(graph, graph.producer(node.inputs[0]))
    if copy is None or copy.op != "unpack" or (any(pads(node) if node.op != "dense" else ()) and add not in (0.0, -mul)):
        return None
    filters = node.constants["filter"]
    weights = np.where(filters, -1, 1) if stored(node) is BITS else filters
    if np.abs(weights.astype(np.int64)).max() > 1 or not _readable(graph, node, copy.inputs[0], 1 + int((weights == 0).any())):
        return None
    return _on_signs(graph, node, copy.inputs[0], weights, mul, add)


def _readable(graph: Graph, node: Node, signs: str, times: int) -> bool:
    """Whether the layer can read the signs, `times` over."""
    channels, groups = graph.types[signs].shape[-1], int(node.attrs.get("groups", 1))
    if node.op == "depthwise_conv2d":
        return times == 1
    if times > 1 and (groups > 1 or channels % 8):
        return False
    return node.op == "dense" or reads_packed_groups(channels * times, groups)


def _on_signs(graph: Graph, node: Node, signs: str, weights: Array, mul: float, add: float) -> Graph:
    scale = node.constants["scale"].astype(np.float64)
    constants = {**node.constants, "filter": weights < 0, "scale": (scale * mul).astype(np.float32)}
    if add:
        shift = add * scale * over_filter(node, weights.astype(np.float64), np.add)
        constants["bias"] = (constants.get("bias", 0.0) + shift).astype(np.float32)
    attrs = {**node.attrs, "pad_ones": 1} if add and "pad_ones" in node.attrs and any(pads(node)) else node.attrs
    if not (weights == 0).any():
        return edit(graph, replacing={node.output: (replace(node, inputs=(signs,), constants=constants, attrs=attrs),)})
    constants["filter"] = np.concatenate([weights < 0, weights <= 0], axis=-1)
    constants["scale"] = (scale * mul / 2).astype(np.float32)
    twice, making = _twice(graph, node, signs)
    kind = graph.types[signs]
    types = {twice: TensorType((*kind.shape[:-1], 2 * kind.shape[-1]), BITS)}
    new = replace(node, inputs=(twice,), constants=constants, attrs=attrs)
    return edit(graph, replacing={node.output: (*making, new)}, types=types)


def _twice(graph: Graph, node: Node, signs: str) -> tuple[str, tuple[Node, ...]]:
    """The tensor of the signs side by side with themselves, and the node that makes it, if there is none yet."""
    known = next((reader.output for reader in graph.consumers(signs) if reader.op == "concat" and reader.inputs == (signs, signs)), None)
    if known is not None:
        return known, ()
    name = fresh(graph, f"{signs}/twice")
    return name, (new_node("concat", (signs, signs), name, node.layers),)
