"""From a graph to a program: halos for the windows of convolutions, constants in their stored layout, tensors in the arena."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edge import arena
from edge.errors import ModelError
from edge.graph import Graph, Node
from edge.layout import pack_constant
from edge.memory import aligned
from edge.ops import ConstantType, OpCall, OpDef
from edge.program import Constant, Instruction, Program, Tensor
from edge.tensors import NO_HALO, Halo


def to_program(graph: Graph, metadata: Mapping[str, Any] | None = None) -> Program:
    """The program of a graph.

    `metadata` is stored in the file; `name`, `inputs` (names), `outputs` (a list of objects with the key `name`), `notes` and `tensors`
    (the name each tensor has in the graph, by which it can be found in the source) come from the graph where it does not hold them.
    Raises `ModelError` if the graph is not consistent.
    """
    graph = with_halos(_rounded(graph)).verify("lowering")
    numbers = {name: i for i, name in enumerate((*graph.inputs, *(name for node in graph.nodes for name in node.outputs)))}
    store = _ConstantStore()
    instructions = tuple(_instruction(graph, node, numbers, store) for node in graph.nodes)
    offsets, arena_bytes = _plan(graph, numbers)
    return Program(
        tensors=tuple(Tensor(graph.types[name], offsets[i]) for name, i in numbers.items()),
        constants=tuple(store.constants),
        instructions=instructions,
        inputs=tuple(numbers[name] for name in graph.inputs),
        outputs=tuple(numbers[name] for name in graph.outputs),
        arena_bytes=arena_bytes,
        blob=store.take_blob(),
        layers=tuple(node.layers for node in graph.nodes),
        metadata={**_metadata(graph), "tensors": list(numbers), **(metadata or {})},
    )


def with_halos(graph: Graph) -> Graph:
    """`graph` with the halo of every tensor set to the largest that any of its readers needs."""
    halos: dict[str, Halo] = {}
    for node in graph.nodes:
        needed = node.definition.halo(graph.call(node))
        halos[node.inputs[0]] = halos.get(node.inputs[0], NO_HALO).union(needed)
    types = {name: replace(kind, halo=halos.get(name, NO_HALO)) for name, kind in graph.types.items()}
    return replace(graph, types=types)


def _rounded(graph: Graph) -> Graph:
    """`graph` with scales and attributes as the file keeps them, in float32."""
    types = {name: replace(kind, scale=_float32(kind.scale)) for name, kind in graph.types.items()}
    nodes = tuple(replace(node, attrs=_rounded_attrs(node)) for node in graph.nodes)
    return replace(graph, types=types, nodes=nodes)


def _rounded_attrs(node: Node) -> dict[str, int | float]:
    floats = node.definition.floats
    return {name: _float32(value) if name in floats else int(value) for name, value in node.attrs.items()}


def _float32(value: float) -> float:
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def _metadata(graph: Graph) -> dict[str, Any]:
    names = graph.output_names or graph.outputs
    return {
        "name": graph.name,
        "inputs": list(graph.inputs),
        "outputs": [{"name": name} for name in names],
        "notes": dict(graph.notes),
    }


# -- instructions and constants ------------------------------------------------------------------------------------------------


class _ConstantStore:
    """The constants of a program in the order of their first use; equal bytes are stored once."""

    def __init__(self) -> None:
        self.constants: list[Constant] = []
        self._numbers: dict[tuple[ConstantType, bytes], int] = {}  # by type and digest
        self._offsets: dict[bytes, int] = {}  # by digest
        self._pieces: list[tuple[int, bytes]] = []  # offset and bytes, in order
        self._end = 0

    def number(self, kind: ConstantType, data: bytes) -> int:
        """The number of the constant with this type and these bytes, added if it is new."""
        digest = hashlib.sha256(data).digest()
        key = (kind, digest)
        if key not in self._numbers:
            self._numbers[key] = len(self.constants)
            self.constants.append(Constant(kind, self._place(digest, data), len(data)))
        return self._numbers[key]

    def _place(self, digest: bytes, data: bytes) -> int:
        if digest not in self._offsets:
            self._offsets[digest] = arena.round_up(self._end)
            self._pieces.append((self._offsets[digest], data))
            self._end = self._offsets[digest] + len(data)
        return self._offsets[digest]

    def take_blob(self) -> np.ndarray:
        """All constants, each at its offset; gaps are zero. Each is let go of as it is written, so that they are not in memory twice."""
        blob = aligned(self._end)
        while self._pieces:
            offset, data = self._pieces.pop()
            blob[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        return blob


def _instruction(graph: Graph, node: Node, numbers: Mapping[str, int], store: _ConstantStore) -> Instruction:
    op, call = node.definition, graph.call(node)
    return Instruction(
        op=op.number,
        inputs=tuple(numbers[name] for name in node.inputs),
        output=numbers[node.output],
        constants=tuple(_constant(op, role, call, node, store) for role in op.constants),
        attrs=tuple(node.attrs[name] for name in op.attrs),
        signs=numbers[node.signs] if node.signs else -1,
    )


def _constant(op: OpDef, role: str, call: OpCall, node: Node, store: _ConstantStore) -> int:
    if role not in node.constants:
        return -1
    array = node.constants[role]
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ModelError(f"layer {'+'.join(node.layers) or node.output!r}: its {role} holds values that are not finite; train it again")
    return store.number(call.constants[role], pack_constant(op.name, role, call, array))


# -- the arena -----------------------------------------------------------------------------------------------------------------


def _plan(graph: Graph, numbers: Mapping[str, int]) -> tuple[tuple[int, ...], int]:
    lifetimes = _lifetimes(graph)
    in_place = {numbers[node.output]: numbers[source] for node, source in _overwriting(graph, lifetimes)}
    sizes = [graph.types[name].nbytes for name in numbers]
    return arena.plan(sizes, [lifetimes[name] for name in numbers], in_place=in_place)


def _lifetimes(graph: Graph) -> dict[str, arena.Lifetime]:
    """Inputs live from before the first instruction, outputs until after the last."""
    first = {name: -1 for name in graph.inputs} | {
        name: i for i, node in enumerate(graph.nodes) for name in node.outputs
    }
    last = dict(first)
    for i, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.inputs, i))
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    return {name: arena.Lifetime(first[name], last[name]) for name in first}


def _overwriting(graph: Graph, lifetimes: Mapping[str, arena.Lifetime]) -> list[tuple[Node, str]]:
    """The nodes that may write their output over one of their inputs, which nobody reads after them, and that input."""
    able = [(i, node, node.inputs[node.definition.in_place]) for i, node in enumerate(graph.nodes) if _writes_in_place(node)]
    return [
        (node, source)
        for i, node, source in able
        if lifetimes[source].last == i
        and node.inputs.count(source) == 1
        and arena.may_share(graph.types[source], graph.types[node.output])
    ]


def _writes_in_place(node: Node) -> bool:
    return 0 <= node.definition.in_place < len(node.inputs)
