"""How much each layer minds fewer bits: one layer at a width, all others float, and what that does to the answers.

For every layer with float weights and every width: its weights are rounded as a conversion would round them (by example pictures, where
they have 4 or 2 bits), the network that is float otherwise runs on the pictures, and its answers are held against the float network's
(`edge.converters.damage`). Nothing else is converted, so that a layer and a width cost as much as running the pictures.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.chance import doubt
from edge.converters.bits import Request, with_weights
from edge.converters.damage import Reference, Score, reference, score
from edge.converters.keras_file import read_keras
from edge.converters.keras_model import KerasModel
from edge.converters.levels import LEVEL_OPS, LEVELS
from edge.converters.passes import run_passes
from edge.converters.rewriting import WEIGHT_OPS, stored
from edge.converters.rounding import rounded_alone
from edge.converters.samples import CALIBRATION_ARRAYS, Example, Samples, Source
from edge.converters.setup import Setup, outputs_of, prepare
from edge.errors import InputError
from edge.graph import Array, Graph, Node
from edge.lower import to_program
from edge.preprocess import Preprocess
from edge.tensors import Encoding
from edge.widths import WIDTHS, Bits, is_calibrated

LOWERED: tuple[Bits, ...] = tuple(bits for bits in reversed(WIDTHS) if is_calibrated(bits) or bits == 1)  # the highest first
MAX_PICTURES = 512  # whose answers are compared
MAX_ROUNDING = 128  # by which weights are rounded

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Layer:
    """A layer of the source with float weights, which may be at several places of the network: the tensors it gives."""

    name: str
    outputs: tuple[str, ...]
    weights: int


@dataclass(frozen=True)
class LayerSensitivity:
    """What each width of one layer does to the answers; widths that this layer does not take are missing."""

    layer: Layer
    scores: Mapping[Bits, Score]


@dataclass(frozen=True)
class Sensitivity:
    """Of a model, by layer, in their order."""

    model: str
    pictures: int
    bits: tuple[Bits, ...]
    activation_bits: int
    layers: tuple[LayerSensitivity, ...]
    remarks: tuple[str, ...] = ()
    """Why labels of the pictures are not used, or why the network may be given other pixels than it should."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "model": self.model,
            "pictures": self.pictures,
            "bits": list(self.bits),
            "activation_bits": self.activation_bits,
            "remarks": list(self.remarks),
            "layers": [
                {
                    "name": each.layer.name,
                    "weights": each.layer.weights,
                    "scores": [_score_json(bits, found) for bits, found in each.scores.items()],
                }
                for each in self.layers
            ],
        }


def _score_json(bits: Bits, found: Score) -> dict[str, Any]:
    damage = found.damage if np.isfinite(found.damage) else None
    return {"bits": bits, **dataclasses.asdict(found), "damage": damage, "drop_points": found.drop_points}


def sensitivity(
    source: str | os.PathLike[str],
    data: Source,
    *,
    bits: Sequence[Bits] = LOWERED,
    pictures: int = MAX_PICTURES,
    input_dtype: str = "auto",
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocess: Preprocess | str | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure a Keras model on at most so many `pictures` of `data`, spread over all; the other arguments are those of `edge.convert`.

    Of an `.npz` the array `x_train` is taken before others. Raises `EdgeError` where the model or the pictures can't be read, and
    `InputError` where no layer has float weights.
    """
    tell = progress or (lambda step, done, total: None)
    tell("reading", 0, 1)
    setup = prepare(read_keras(Path(source), input_shape=input_shape, weights=weights), input_dtype, preprocess)
    samples = setup.samples(data, CALIBRATION_ARRAYS)
    assert samples is not None
    with np.errstate(all="ignore"):
        return measured(setup, run_passes(setup.graph), samples, bits=bits, activation_bits=8, pictures=pictures, tell=tell)


def measured(
    setup: Setup, graph: Graph, samples: Samples, *, bits: Sequence[Bits], activation_bits: int, pictures: int, tell: Progress
) -> Sensitivity:
    """The sensitivity of `graph`, the network of `setup` after its passes; `activation_bits` decide which widths a layer takes."""
    layers = layers_of(setup.model, graph)
    if not layers:
        raise InputError(f"{setup.model.source} has no layer with float weights, whose bits could be lowered; give a float model")
    kinds = [each["kind"] for each in outputs_of(setup.model, graph)]
    known = reference(to_program(graph), samples, kinds, count=pictures, tell=lambda done: tell("float", done, min(pictures, len(samples))))
    work = _Work(graph, known, [array for array, _ in samples.first(min(MAX_ROUNDING, pictures))], tuple(bits), activation_bits)
    found = []
    for done, layer in enumerate(layers):
        tell(f"layer {layer.name}", done, len(layers))
        found.append(LayerSensitivity(layer, work.scores(layer)))
    remarks = (*samples.remarks, *doubt(known.accuracy, known.classes, len(known), samples.seen))
    return Sensitivity(setup.model.source, len(known), tuple(bits), activation_bits, tuple(found), remarks)


def layers_of(model: KerasModel, graph: Graph) -> tuple[Layer, ...]:
    """The layers with float weights, in the order of the network, each by a name that no other layer's weights have."""
    nodes = [node for node in graph.nodes if node.op in WEIGHT_OPS and stored(node) is Encoding.FLOAT32]
    holders = {call.name for call in model.calls if any("kernel" in name for name in call.weights)}
    sharing = {name: [node for node in nodes if name in node.layers] for node in nodes for name in node.layers}
    names = [min([each for each in node.layers if each in holders] or node.layers, key=lambda each: len(sharing[each])) for node in nodes]
    return tuple(
        Layer(name, tuple(node.output for node in sharing[name]), sum(node.constants["filter"].size for node in sharing[name]))
        for name in dict.fromkeys(names)
    )


def pattern(name: str) -> str:
    """The pattern of `--layer` that matches this name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@dataclass(frozen=True, eq=False)
class _Work:
    """What every layer and width is measured with."""

    graph: Graph
    known: Reference
    pictures: list[Example]
    bits: tuple[Bits, ...]
    activation_bits: int

    def scores(self, layer: Layer) -> dict[Bits, Score]:
        """By width; one that stores the same as a higher one is left out."""
        rounded = self._rounded(layer)
        found: dict[Bits, Score] = {}
        seen: list[list[Array]] = []
        for bits in self.bits:
            low = self._lowered(layer, bits, rounded.get(bits, {}))
            filters = [_producer(low, name).constants["filter"] for name in layer.outputs]
            if not any(_same(filters, each) for each in seen):
                seen.append(filters)
                found[bits] = score(to_program(low), self.known)
        return found

    def _lowered(self, layer: Layer, bits: Bits, rounded: Mapping[str, Mapping[str, Array]]) -> Graph:
        request = Request(8, self.activation_bits, layers=((pattern(layer.name), bits),), rounded=rounded)
        return with_weights(self.graph, request)

    def _rounded(self, layer: Layer) -> dict[Bits, dict[str, dict[str, Array]]]:
        """By width and tensor the filters that suit the pictures."""
        levels = {bits: LEVELS[bits] for bits in self.bits if bits in LEVELS}
        found: dict[Bits, dict[str, dict[str, Array]]] = {bits: {} for bits in levels}
        for node in self._able(layer) if levels else ():
            for bits, constants in rounded_alone(self.graph, node, levels, self.pictures).items():
                found[bits][node.output] = constants
        return found

    def _able(self, layer: Layer) -> Iterable[Node]:
        return (node for node in (_producer(self.graph, name) for name in layer.outputs) if node.op in LEVEL_OPS)


def _producer(graph: Graph, name: str) -> Node:
    node = graph.producer(name)
    assert node is not None  # a layer's node stays where it is at every width
    return node


def _same(one: Sequence[Array], other: Sequence[Array]) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))
