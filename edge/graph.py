"""The graph: a network as a list of nodes in an order in which they can run, each giving one tensor (static single assignment).

Readers build it, passes rewrite it, the program and the TFLite file are made from it. Nodes are applications of the operations of
`edge.ops`; every tensor has a `TensorType`. `Graph.verify` proves that all of it fits, and runs after every pass.

Constants are arrays whose dtype says the encoding: float32, int8, int32, and bool for bits (True is bit 1, the value -1). Filters are
conv2d (O, kh, kw, I / groups), depthwise_conv2d (kh, kw, O) with output channel o reading input channel o // (O / C), and dense
(O, H, W, C) for an input seen as (H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edge.errors import ModelError
from edge.op_check import check
from edge.ops import NO_ACTIVATION, OPS, ConstantType, OpCall, OpDef, OpError
from edge.tensors import NARROW, Encoding, TensorType

Array = np.ndarray

_ENCODINGS = {
    np.dtype(np.float32): Encoding.FLOAT32,
    np.dtype(np.float16): Encoding.FLOAT16,
    np.dtype(np.int8): Encoding.INT8,
    np.dtype(np.int32): Encoding.INT32,
    np.dtype(np.bool_): Encoding.BITS,
}
_NARROW = {encoding.bits: encoding for encoding in NARROW}


def constant_type(array: Array) -> ConstantType:
    """The encoding and shape of a constant of the graph."""
    if array.dtype not in _ENCODINGS:
        raise OpError(f"a constant of {array.dtype} is none of float32, int8, int32, bool")
    return ConstantType(_ENCODINGS[array.dtype], tuple(array.shape))


def narrowed(filters: ConstantType, bits: int) -> ConstantType:
    """An int8 filter as one of `bits` bits."""
    if filters.encoding is not Encoding.INT8 or bits not in _NARROW:
        raise OpError(f"a filter of {filters.encoding.name.lower()} is not stored in {bits} bits")
    return ConstantType(_NARROW[bits], filters.shape)


@dataclass(frozen=True)
class Node:
    """One application of an operation.

    `output` names the tensor it gives and `signs` its second one, "" where there is none; `layers` names the source layers it stands for,
    first to last, for reports and traces. An int8 filter whose values fit is stored in `filter_bits` bits, 4 or 2 (0: in 8).
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, int | float] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    signs: str = ""
    filter_bits: int = 0

    @property
    def definition(self) -> OpDef:
        return OPS[self.op]

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output, self.signs) if self.signs else (self.output,)


@dataclass(frozen=True)
class Graph:
    """A network. `inputs` and `outputs` are tensor names; `output_names` are what users call the outputs.

    `notes` says per source layer why it is not at the bits that were asked, and what to change (shown in reports); `trained` to how many
    bits a layer's weights were quantized in training.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    output_names: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    trained: Mapping[str, int] = field(default_factory=dict)

    def call(self, node: Node) -> OpCall:
        """The node as an application of its operation."""
        constants = {role: constant_type(array) for role, array in node.constants.items()}
        if node.filter_bits:
            constants["filter"] = narrowed(constants["filter"], node.filter_bits)
        return OpCall(tuple(self.types[name] for name in node.inputs), constants, node.attrs)

    def producer(self, tensor: str) -> Node | None:
        """The node that gives a tensor; None for an input."""
        return next((node for node in self.nodes if tensor in node.outputs), None)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read a tensor, in order."""
        return tuple(node for node in self.nodes if tensor in node.inputs)

    def only_consumer(self, tensor: str) -> Node | None:
        """The node that reads a tensor, if exactly one does and it is no output of the network."""
        readers = self.consumers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def verify(self, after: str = "reading") -> Graph:
        """Prove the graph consistent and return it; raises `ModelError` naming the layer and the step it came `after`."""
        defined = set(self.inputs)
        for node in self.nodes:
            self._verify_node(node, defined, after)
            defined.update(node.outputs)
        missing = [name for name in self.outputs if name not in defined]
        if missing or not self.outputs:
            raise ModelError(f"after {after}: the outputs {missing or '(none)'} are computed by no layer")
        return self

    def _verify_node(self, node: Node, defined: set[str], after: str) -> None:
        where = f"layer {'+'.join(node.layers) or node.output!r} ({node.op}) after {after}"
        if node.op not in OPS:
            raise ModelError(f"{where}: no such operation; there are {', '.join(OPS)}")
        undefined = [name for name in node.inputs if name not in defined]
        if undefined or defined.intersection(node.outputs):
            raise ModelError(f"{where}: reads {undefined} before they are computed, or computes one of {node.outputs} twice")
        try:
            check(node.definition, self.call(node), *(self.types[name] for name in node.outputs))
        except OpError as err:
            raise ModelError(f"{where}: {err}") from err

    def text(self) -> str:
        """The graph as lines of text, one a node, for tests of passes and for people."""
        lines = [f"{name}: {self.types[name]} = input" for name in self.inputs]
        lines += [self._line(node) for node in self.nodes]
        return "\n".join([*lines, "outputs " + ", ".join(self.outputs)])

    def _line(self, node: Node) -> str:
        neutral = {**NO_ACTIVATION, "pad_ones": 0, "groups": 1, "dilation_h": 1, "dilation_w": 1}
        attrs = [f"{key}={value:g}" for key, value in node.attrs.items() if neutral.get(key) != value]
        constants = [f"{role}:{kind.encoding.name.lower()}" for role, kind in self.call(node).constants.items()]
        words = " ".join([*node.inputs, *constants, *attrs])
        outputs = ", ".join(f"{name}: {self.types[name]}" for name in node.outputs)
        return f"{outputs} = {node.op} {words}"


def rebuild(graph: Graph, nodes: Iterable[Node], types: Mapping[str, TensorType] | None = None) -> Graph:
    """`graph` with other nodes and with the types of tensors that no longer exist dropped."""
    nodes = tuple(nodes)
    known = {**graph.types, **(types or {})}
    live = {*graph.inputs, *(name for node in nodes for name in node.outputs)}
    return replace(graph, nodes=nodes, types={name: kind for name, kind in known.items() if name in live})


Pass = Callable[[Graph], Graph]
