"""int8 inputs and outputs of a network, as accelerators and microcontrollers take them; between them it stays what it is.

    byte picture         q = x - 128: what reads it reads int8 in place of uint8
    another input        the int8 form that layers read, or one by the range seen on pictures
    softmax, sigmoid     steps of 1/256 from 0, as every runtime has them; tanh: of 1/128; a reshape behind them changes nothing
    another output       the int8 form that a layer gives, or one by the range seen on pictures

Of several inputs those that are pictures become int8; packed outputs stay signs. Scales of filters include that of their input: a layer
reads an int8 tensor where it was made to, else what that stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge.batches import takes_pictures
from edge.converters.calibration import Statistics
from edge.converters.int8 import int8_type
from edge.converters.rewriting import edit, encoding, fresh, new_node
from edge.errors import InputError
from edge.graph import Graph, Node
from edge.ops import OPS, Activation
from edge.tensors import BYTE_SHIFT, Encoding, TensorType

F32, I8, U8 = Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8
_SHARES, _SIGNED_SHARES = (1 / 256, -128), (1 / 128, 0)  # scale and zero point that runtimes insist on
_FIXED_ACTIVATIONS = {Activation.SIGMOID: _SHARES, Activation.TANH: _SIGNED_SHARES}


def fixed_quantization(node: Node | None) -> tuple[float, int] | None:
    """Scale and zero point of what a node gives, where its values have bounds of their own; None for others."""
    if node is None:
        return None
    if node.op == "activation":
        return _FIXED_ACTIVATIONS.get(Activation(int(node.attrs["activation"])))
    return _SHARES if node.op == "softmax" else None


def before_ends(graph: Graph) -> frozenset[str]:
    """The tensors that layers should give as int8 for the sake of the outputs: these, and what their last activation reads."""
    producers = ((name, graph.producer(name)) for name in graph.outputs)
    return frozenset(node.inputs[0] if node is not None and fixed_quantization(node) else name for name, node in producers)


# -- inputs --------------------------------------------------------------------------------------------------------------------


def with_int8_inputs(graph: Graph, statistics: Mapping[str, Statistics]) -> Graph:
    """`graph` with its pictures, or its only input, as int8. Raises `InputError` for none, one without a range or no quantity."""
    chosen = [name for name in graph.inputs if len(graph.inputs) == 1 or takes_pictures(graph.types[name].shape)]
    if not chosen:
        raise InputError(f"none of the inputs {', '.join(graph.inputs)} is a picture, which alone becomes int8; leave --input-dtype out")
    graph = _byte_inputs(graph)
    for name in chosen:
        if encoding(graph, name) is F32:
            graph = _real_input(graph, name, statistics)
    return graph


def _byte_inputs(graph: Graph) -> Graph:
    """Every tensor of bytes as int8; nodes that read bytes alone read what they stand for."""
    types = {name: _shifted(kind) if kind.encoding is U8 else kind for name, kind in graph.types.items()}
    whole = [name for name, kind in graph.types.items() if kind.encoding is U8]
    graph = replace(graph, types=types)
    for name in whole:
        graph = _read_real(graph, name, [node for node in graph.consumers(name) if not _takes_int8(graph, node)])
    return graph


def _shifted(kind: TensorType) -> TensorType:
    return replace(kind, encoding=I8, zero_point=kind.zero_point - BYTE_SHIFT)


def _takes_int8(graph: Graph, node: Node) -> bool:
    call = graph.call(node)
    filters = call.constants.get("filter")
    return (I8, filters.encoding if filters else None, encoding(graph, node.output)) in OPS[node.op].signatures


def _real_input(graph: Graph, name: str, statistics: Mapping[str, Statistics]) -> Graph:
    """A float32 input as the int8 that its readers make of it, or by its range; readers of floats read what that stands for."""
    if any(node.op == "embedding" for node in graph.consumers(name)):
        raise InputError(f"the input {name} numbers the rows of a table, which int8 cannot do for it; leave --input-dtype out")
    made = next((graph.types[node.output] for node in graph.consumers(name) if node.op == "quantize"), None)
    kind = made or _by_range(graph, name, statistics, f"the input {name}")
    same = [node for node in graph.consumers(name) if node.op == "quantize" and graph.types[node.output] == kind]
    others = [node for node in graph.consumers(name) if node not in same]
    graph = _read_real(replace(graph, types={**graph.types, name: kind}), name, others)
    return edit(graph, redirect={node.output: name for node in same})


def _read_real(graph: Graph, name: str, readers: Sequence[Node]) -> Graph:
    """`readers` of int8 `name` read the floats that it stands for, from a `dequantize` in front of all."""
    if not readers:
        return graph
    real = fresh(graph, f"{name}/real")
    turned = {node.output: replace(node, inputs=tuple(real if each == name else each for each in node.inputs)) for node in readers}
    nodes = tuple(turned.get(node.output, node) for node in graph.nodes)
    place = next(i for i, node in enumerate(nodes) if real in node.inputs)
    types = {**graph.types, real: TensorType(graph.types[name].shape)}
    return replace(graph, nodes=(*nodes[:place], new_node("dequantize", (name,), real, ()), *nodes[place:]), types=types)


# -- outputs -------------------------------------------------------------------------------------------------------------------


def with_int8_outputs(graph: Graph, statistics: Mapping[str, Statistics]) -> Graph:
    """`graph` with int8 for its float32 outputs. Raises `InputError` where one has no range."""
    for name in graph.outputs:
        if encoding(graph, name) is F32:
            graph = _int8_output(graph, name, statistics)
    return edit(graph)


def _int8_output(graph: Graph, name: str, statistics: Mapping[str, Statistics]) -> Graph:
    node = graph.producer(name)
    if node is not None and node.op == "dequantize" and encoding(graph, node.inputs[0]) is I8:
        return _with_output(graph, name, node.inputs[0])
    fixed = fixed_quantization(_behind_moves(graph, node))
    shape = graph.types[name].shape
    kind = TensorType(shape, I8, *fixed) if fixed else _by_range(graph, name, statistics, f"the output {_called(graph, name)}")
    stored = fresh(graph, f"{name}/int8")
    nodes = (*graph.nodes, new_node("quantize", (name,), stored, node.layers if node else ()))
    return _with_output(replace(graph, nodes=nodes, types={**graph.types, stored: kind}), name, stored)


def _behind_moves(graph: Graph, node: Node | None) -> Node | None:
    """The node that makes the values which `node` only arranges."""
    while node is not None and node.op in ("reshape", "transpose"):
        node = graph.producer(node.inputs[0])
    return node


def _with_output(graph: Graph, before: str, now: str) -> Graph:
    return replace(graph, outputs=tuple(now if name == before else name for name in graph.outputs))


def _called(graph: Graph, tensor: str) -> str:
    return dict(zip(graph.outputs, graph.output_names, strict=False)).get(tensor, tensor)


def _by_range(graph: Graph, name: str, statistics: Mapping[str, Statistics], what: str) -> TensorType:
    if name not in statistics:
        raise InputError(f"{what} as int8 needs a range, which pictures show, got none; give --calibrate a file or folder with pictures")
    return int8_type(graph.types[name].shape, min(0.0, statistics[name].low), max(0.0, statistics[name].high))
