"""Passes that merge scaling, batch norm and activations into the node before or after them. They round differently from the source,
within a few units in the last place; where a sign depends on every bit, `find_thresholds` has run before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.converters.passes_exact import per_channel
from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, is_plain, merge, stored, sweep, with_attrs
from edge.graph import Array, Graph, Node
from edge.ops import FUSED_ACTIVATIONS, NO_ACTIVATION, Activation
from edge.tensors import Encoding

F32 = Encoding.FLOAT32


def absorb_affine(graph: Graph) -> Graph:
    """A sign of a scaled tensor scales by itself, in the same arithmetic: no bit changes."""
    return sweep(graph, _absorb_affine)


def _absorb_affine(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if node.op != "binarize" or node.constants or source is None or source.op != "affine" or not is_plain(source):
        return None
    if encoding(graph, source.inputs[0]) is not F32 or graph.only_consumer(source.output) is not node:
        return None
    new = replace(node, inputs=source.inputs, constants=source.constants, layers=merge(source, node).layers)
    return edit(graph, replacing={node.output: (new,)})


def fold_batch_norm(graph: Graph) -> Graph:
    """Batch norm after a weight layer becomes part of its filter, or of its scale, and of its bias; after another scaling, one of both.

    Not where the result goes to a sign alone: there the source's own arithmetic is kept (`absorb_affine`).
    """
    return sweep(graph, _fold_batch_norm)


def _fold_batch_norm(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if node.op != "affine" or source is None or graph.only_consumer(source.output) is not node:
        return None
    if source.op not in (*WEIGHT_OPS, "affine") or not is_plain(source) or encoding(graph, source.output) is not F32:
        return None
    readers = graph.consumers(node.output)
    if node.output not in graph.outputs and all(reader.op == "binarize" for reader in readers):
        return None
    attrs = {**source.attrs, **{name: node.attrs[name] for name in NO_ACTIVATION}}
    new = merge(source, node, constants=_folded(source, node), attrs=attrs)
    return edit(graph, replacing={node.output: (new,)})


def _folded(source: Node, node: Node) -> dict[str, Array]:
    """(x * a + b) * mul + add = x * (a * mul) + (b * mul + add), each rounded to float32 once; absent steps stay absent."""
    factor, shift = ("mul", "add") if source.op == "affine" else ("scale", "bias")
    constants = dict(source.constants)
    mul = node.constants["mul"].astype(np.float64) if "mul" in node.constants else None
    if mul is not None and source.op in WEIGHT_OPS and stored(source) is F32:
        constants["filter"] = (constants["filter"] * per_channel(source, mul)).astype(np.float32)
    elif mul is not None:
        constants[factor] = (constants.get(factor, 1.0) * mul).astype(np.float32)
    moved = constants[shift] * (1.0 if mul is None else mul) if shift in constants else None
    if moved is not None or "add" in node.constants:
        constants[shift] = np.add(0.0 if moved is None else moved, node.constants.get("add", 0.0)).astype(np.float32)
    return constants


def fuse_activations(graph: Graph) -> Graph:
    """ReLU and leaky ReLU become part of the node before them."""
    return sweep(graph, _fuse_activation)


def _fuse_activation(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if node.op != "activation" or source is None or Activation(int(node.attrs["activation"])) not in FUSED_ACTIVATIONS:
        return None
    if source.op not in (*WEIGHT_OPS, "affine", "add") or not is_plain(source) or graph.only_consumer(source.output) is not node:
        return None
    new = with_attrs(merge(source, node), **{name: node.attrs[name] for name in NO_ACTIVATION})
    return edit(graph, replacing={node.output: (new,)})
