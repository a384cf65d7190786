"""A `.tflite` file layer by layer: its tensors, run from the input on, beside the source's of the same names.

An interpreter cannot be started in the middle, so every tensor carries what was lost before it; the first that differs is where it was
lost. The operators run one by one with LiteRT's own kernels, not XNNPACK's, which keeps nothing in between. Only files that edge wrote name
their tensors as the source does.

Where nothing was given up, an example is followed until a sign differs, by a tie or not: what comes after would be that sign's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.compare_layers import (
    EIGHT_BITS,
    EXACT,
    FEW_BITS,
    ONE_BIT,
    PRECISIONS,
    SIXTEEN_BITS,
    TIE_ULP,
    LayerComparison,
    Piece,
    Tally,
    by_channel,
    proportional,
)
from edge.graph import Array, Graph, Node
from edge.oracle import Truth
from edge.tensors import Encoding
from edge.tflite_listing import LiteOperation, LiteTensor, lite_operations
from edge.tflite_runner import load_tflite

_LEVELS = PRECISIONS[::-1]
_FEW = 8  # magnitude of a whole number of 4 bits
_SIGNS = {(1.0, 0), (2.0, 126)}  # scale and zero point of int8 tensors that hold two values: -1 and 1, and 0 and 2 on the way to them


class LiteLayers:
    """The tensors of a `.tflite` file over all examples."""

    fed_by_source = False

    def __init__(self, path: Path, graph: Graph) -> None:
        self._model = load_tflite(path, keep_tensors=True)
        self._graph = graph
        given_up = _given_up(path.read_bytes(), graph)
        known = [node.output for node in graph.nodes if node.output in given_up]
        self._tallies = {name: Tally(Piece(-1, (), (), _layers(graph, known, name), given_up[name])) for name in known}

    @property
    def names(self) -> set[str]:
        """The tensors of the source that `take` looks at."""
        return set(self._tallies)

    def take(self, example: Sequence[Array], truth: Truth, *, differs: bool) -> bool:
        """Add one example; whether its outputs, which are another's where `differs`, are explained by a tie."""
        if not self._tallies:
            return False
        self._model.run(*example)
        tensors = self._model.tensors(self._tallies)
        for name, each in self._tallies.items():
            if name not in tensors:
                continue
            got, want = tensors[name].reshape(-1), truth.real(name).reshape(-1)
            ties = truth.ties(name, TIE_ULP) if _is_signs(self._graph, name) else None
            each.add(got, want, ties)
            if ties is not None and each.piece.precision == EXACT and (got != want).any():
                return differs and bool(ties[got != want].all())
        return False

    def result(self) -> tuple[LayerComparison, ...]:
        """What was compared; what the conversion gave up is shown, not judged."""
        found = ((name, each) for name, each in self._tallies.items() if each.values)
        return tuple(_shown(each.compared(name, (), self._graph.types[name].encoding)) for name, each in found)


def _shown(layer: LayerComparison) -> LayerComparison:
    return layer if layer.precision == EXACT else replace(layer, tolerance=None, equal=True)


def _is_signs(graph: Graph, name: str) -> bool:
    return graph.types[name].encoding is Encoding.BITS


def _layers(graph: Graph, known: Sequence[str], name: str) -> tuple[str, ...]:
    """The layers between a tensor and those known before it."""
    waiting, between = [name], set()
    while waiting:
        node = graph.producer(waiting.pop())
        if node is not None and node.output not in between:
            between.add(node.output)
            waiting += [source for source in node.inputs if source not in known]
    nodes = [node for node in graph.nodes if node.output in between]
    return tuple(dict.fromkeys(layer for node in nodes for layer in node.layers if not _begins(node, layer)))


def _begins(node: Node, layer: str) -> bool:
    """Whether a node only takes the signs of what a layer is given: the layer itself comes after it."""
    return node.op == "binarize" and node.output != layer


# -- what was given up ---------------------------------------------------------------------------------------------------------


def _given_up(data: bytes, graph: Graph) -> dict[str, str]:
    """Of every tensor that the source has too, what was given up on the way to it: other weights, or integers where it has float32."""
    levels: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for operation in lite_operations(data):
        before = max((levels.get(tensor.name, 0) for tensor in operation.inputs), default=0)
        weights = max((_weights(name, array, graph) for name, array in operation.constants), default=0)
        for output in operation.outputs:
            levels[output.name] = max(before, weights, _made(output, operation, graph))
            sizes[output.name] = math.prod(output.shape)
    return {name: _LEVELS[level] for name, level in levels.items() if name in graph.types and sizes[name] == graph.types[name].elements}


def _weights(name: str, stored: Array, graph: Graph) -> int:
    """What a filter gives up: nothing where it has to be the source's, both being signs, or is, times a factor for each channel.

    name: "layer:number", as edge names the constants of a `.tflite` file.
    """
    if stored.size == max(stored.shape):  # one value for each channel: it is what its scale makes of it
        return 0
    layers = set(name.rpartition(":")[0].split("+"))
    sources = [node for node in graph.nodes if "filter" in node.constants and node.constants["filter"].size == stored.size]
    signs = bool((np.abs(stored) == np.abs(stored.flat[0])).all())
    for node in sources:
        source = node.constants["filter"]
        if signs and source.dtype == np.bool_ and layers.intersection(node.layers):
            return 0
        if proportional(by_channel(stored.reshape(source.shape), node.op), by_channel(source, node.op)):
            return 0
    if stored.dtype == np.float16:
        return _LEVELS.index(SIXTEEN_BITS)
    few = stored.dtype == np.int8 and int(np.abs(stored.astype(np.int16)).max()) <= _FEW
    return _LEVELS.index(ONE_BIT if signs else FEW_BITS if few else EIGHT_BITS)


def _made(output: LiteTensor, operation: LiteOperation, graph: Graph) -> int:
    """What storing a tensor gives up."""
    if output.dtype != "int8" or all(tensor.name in graph.inputs for tensor in operation.inputs):  # pixels are whole steps
        return 0
    if (output.scale, output.zero_point) not in _SIGNS:
        return _LEVELS.index(EIGHT_BITS)
    of_floats = all(tensor.dtype == "float32" for tensor in operation.inputs)
    of_source = output.name in graph.types and _is_signs(graph, output.name)
    return _LEVELS.index(ONE_BIT) if of_floats and not of_source else 0
