"""What passes are made of: local rules, swept over a graph, and the edits they return.

A rule is `(graph, node) -> graph | None`: None where it does not apply, else the graph after one edit. `sweep` tries it on each node in
order, again on what it left there, so that a chain collapses in one pass and a second pass finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from edge.converters.builder import attributes
from edge.graph import Array, Graph, Node, constant_type, rebuild
from edge.ops import Activation
from edge.tensors import Encoding, TensorType

Rule = Callable[[Graph, Node], Graph | None]
WEIGHT_OPS = ("conv2d", "depthwise_conv2d", "dense")


def sweep(graph: Graph, rule: Rule) -> Graph:
    """`graph` after `rule` has been applied wherever it applies, in the order of the nodes."""
    for name in [node.output for node in graph.nodes]:
        node = graph.producer(name)
        while node is not None and (changed := rule(graph, node)) is not None:
            graph, node = changed, changed.producer(name)
    return graph


def edit(
    graph: Graph,
    *,
    replacing: Mapping[str, tuple[Node, ...]] | None = None,
    redirect: Mapping[str, str] | None = None,
    types: Mapping[str, TensorType] | None = None,
    note: Mapping[str, str] | None = None,
) -> Graph:
    """A graph in which the nodes that give the tensors of `replacing` are others, and readers of the tensors of `redirect` read others.

    Nodes that nobody needs any more are dropped. `note` adds to the notes, without replacing any.
    """
    replacing, redirect = replacing or {}, redirect or {}
    nodes = [new for node in graph.nodes for new in replacing.get(node.output, (node,))]
    read = [replace(node, inputs=tuple(redirect.get(name, name) for name in node.inputs)) for node in nodes]
    outputs = tuple(redirect.get(name, name) for name in graph.outputs)
    changed = replace(graph, outputs=outputs, notes={**(note or {}), **graph.notes})
    return rebuild(changed, _needed(read, outputs), types)


def _needed(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def merge(first: Node, second: Node, **changes: object) -> Node:
    """`first` in the place of both: it gives `second`'s output and stands for the layers of both."""
    layers = (*first.layers, *(name for name in second.layers if name not in first.layers))
    return replace(first, **{"output": second.output, "layers": layers, **changes})  # type: ignore[arg-type]


def fresh(graph: Graph, wanted: str) -> str:
    """A tensor name that `graph` does not use yet."""
    name, count = wanted, 1
    while name in graph.types:
        count += 1
        name = f"{wanted}.{count}"
    return name


def new_node(op: str, inputs: tuple[str, ...], output: str, layers: tuple[str, ...], constants: Mapping[str, Array] | None = None,
             **attrs: int | float) -> Node:  # fmt: skip
    """A node with the attributes that are not given at their neutral values."""
    return Node(op, inputs, output, attributes(op, **attrs), dict(constants or {}), layers)


def encoding(graph: Graph, tensor: str) -> Encoding:
    return graph.types[tensor].encoding


def stored(node: Node) -> Encoding:
    """The encoding of a node's filter."""
    return constant_type(node.constants["filter"]).encoding


def is_plain(node: Node) -> bool:
    """Whether no activation is fused into a node."""
    return node.attrs.get("activation", Activation.NONE) == Activation.NONE


def pads(node: Node) -> tuple[int, int, int, int]:
    """top, bottom, left, right."""
    names = ("pad_top", "pad_bottom", "pad_left", "pad_right")
    top, bottom, left, right = (int(node.attrs[name]) for name in names)
    return top, bottom, left, right


def with_attrs(node: Node, **attrs: int | float) -> Node:
    return replace(node, attrs={**node.attrs, **attrs})
