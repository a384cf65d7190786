"""Is a converted network the one that Keras computes? Layer by layer on Keras' own tensors, and end to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge.compare_layers import LayerComparison, Tally, anchors, pieces, tally, tensor_names
from edge.engine import Engine
from edge.graph import Graph, Node
from edge.lower import to_program
from edge.ops import NO_ACTIVATION, Activation
from edge.oracle import Oracle, Truth, sign_sources
from edge.program import Program
from edge.tensors import Encoding, TensorType

BITS = Encoding.BITS


@dataclass(frozen=True)
class Accumulators:
    """The sums of one binary layer fed with Keras' own input: how many there are, and how many are another whole number than Keras' own."""

    layer: str
    values: int
    wrong: int


def truth_of(graph: Graph, picture: np.ndarray, layers: Mapping[str, np.ndarray], program: Program) -> Truth:
    """Every tensor that a comparison needs, from what Keras gave for each layer on `picture`."""
    oracle = Oracle(graph, "Keras", lambda batch: {name: array[None] for name, array in layers.items()})
    names = set(anchors(program, graph).values())
    binary = {node.inputs[0] for node in binary_layers(graph)}
    (truth,) = oracle.truths({graph.inputs[0]: picture[None]}, names | binary | sign_sources(graph, names))
    return truth


def binary_layers(graph: Graph) -> Iterator[Node]:
    """The nodes with signs as input and as filter."""
    for node in graph.nodes:
        if "filter" in node.constants and node.constants["filter"].dtype == np.bool_ and graph.types[node.inputs[0]].encoding is BITS:
            yield node


# -- layer by layer ------------------------------------------------------------------------------------------------------------


def accumulators(graph: Graph, truth: Truth, layers: Mapping[str, np.ndarray]) -> list[Accumulators]:
    """Every binary layer of a plain graph alone, on the signs of Keras' own input, against Keras' output divided by the layer's scale."""
    return [_accumulators(graph, node, truth, layers[node.layers[-1]]) for node in binary_layers(graph)]


def _accumulators(graph: Graph, node: Node, truth: Truth, output: np.ndarray) -> Accumulators:
    got = _sums(graph, node, truth.real(node.inputs[0])).reshape(-1)
    scaled = output.astype(np.float64) / node.constants["scale"]
    expected = np.rint(scaled).reshape(-1)
    if _rectified(graph, node):
        got = np.maximum(got, 0)
    # Keras may multiply weights by the scale first: then its sums are whole numbers but for rounding, which is far below one.
    uneven = np.abs(scaled.reshape(-1) - expected) > 0.1
    return Accumulators(node.layers[-1], got.size, int((uneven | (got != expected)).sum()))


def _sums(graph: Graph, node: Node, signs: np.ndarray) -> np.ndarray:
    """What the kernel of `node` sums up, for an input of +-1."""
    channels = graph.types[node.output].shape[-1]
    constants = {"filter": node.constants["filter"], "scale": np.ones(channels, np.float32)}
    attrs = {**node.attrs, **{name: value for name, value in NO_ACTIVATION.items() if name in node.attrs}}
    types = {node.inputs[0]: graph.types[node.inputs[0]], node.output: TensorType(graph.types[node.output].shape)}
    alone = Graph("layer", (node.inputs[0],), (node.output,), (replace(node, constants=constants, attrs=attrs),), types)
    return Engine(to_program(alone)).run_instruction(0, [signs])


def _rectified(graph: Graph, node: Node) -> bool:
    """Whether the layer itself has a ReLU after its sums, as its configuration may ask for."""
    following = graph.only_consumer(node.output)
    inside = following is not None and following.layers == node.layers and following.op == "activation"
    return inside and following is not None and Activation(int(following.attrs["activation"])) is Activation.RELU


def instructions(engine: Engine, graph: Graph, truth: Truth) -> list[LayerComparison]:
    """The program's own instructions, as fused as they are, each fed with Keras' own tensors."""
    known = anchors(engine.program, graph)
    tallies = [Tally(piece) for piece in pieces(engine.program, graph)]
    tally(engine, tallies, known, truth)
    return [each.result(engine.program, tensor_names(engine.program)) for each in tallies]


# -- end to end ----------------------------------------------------------------------------------------------------------------


def flipped_bits(engine: Engine, graph: Graph, picture: np.ndarray, truth: Truth) -> tuple[int, int]:
    """(signs that differ from Keras' own, signs) of all packed tensors that both have, one picture through the whole network."""
    known = anchors(engine.program, graph)
    flipped = total = 0
    for step, made in zip(engine.trace(picture), engine.program.instructions, strict=True):
        for number, got in zip(made.outputs, (step.output, step.signs), strict=False):
            if number in known and got is not None and engine.program.tensors[number].type.encoding is BITS:
                want = truth.real(known[number])
                flipped += int((got.reshape(-1) != want.reshape(-1)).sum())
                total += want.size
    return flipped, total


def first_flips(engine: Engine, graph: Graph, picture: np.ndarray, truth: Truth) -> float:
    """How far from 0 the values are whose signs differ from Keras' own where signs first do, of the largest of that tensor; 0 for none.

    Behind them everything may differ: a sign is one way or the other. So this says whether rounding was the cause.
    """
    known = anchors(engine.program, graph)
    for step, made in zip(engine.trace(picture), engine.program.instructions, strict=True):
        for number, got in zip(made.outputs, (step.output, step.signs), strict=False):
            if number not in known or got is None or engine.program.tensors[number].type.encoding is not BITS:
                continue
            wrong = got.reshape(-1) != truth.real(known[number]).reshape(-1)
            if wrong.any():
                return _distance(graph, known[number], truth, wrong)
    return 0.0


def _distance(graph: Graph, signs: str, truth: Truth, wrong: np.ndarray) -> float:
    source = graph.producer(signs)
    if source is None or source.op != "binarize":
        return float("inf")
    values = np.abs(truth.real(source.inputs[0])).reshape(-1)
    return float(values[wrong].max() / values.max())


def agreement(answers: np.ndarray, expected: np.ndarray) -> float:
    """The share of pictures of which the largest answer is of the same class."""
    return float((answers.argmax(axis=-1) == expected.argmax(axis=-1)).mean())
