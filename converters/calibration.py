"""What values tensors take on example pictures: the ranges that int8 needs, and the centres that signs need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edge.converters.samples import Example
from edge.errors import InputError
from edge.graph import Array, Graph
from edge.tensors import Encoding

_LARGEST = 2.0**40  # steps of such values, times those of weights, stay below what .tflite files are read with

@dataclass(frozen=True)
class Statistics:
    """Of one tensor over all pictures: least and largest value, mean, and mean distance from it (0 where it was not asked for)."""

    low: float
    high: float
    mean: float
    deviation: float = 0.0


def activations(graph: Graph, pictures: Iterable[Example]) -> Iterator[dict[str, Array]]:
    """For each picture (one example, in the dtype of the graph's input, or a list of those of its inputs) all float32 tensors by name."""
    from edge.engine import Engine
    from edge.lower import to_program

    engine = Engine(to_program(graph))
    floats = {name for name, kind in graph.types.items() if kind.encoding is Encoding.FLOAT32}
    for picture in pictures:
        values = {node.output: step.output for node, step in zip(graph.nodes, engine.trace(picture), strict=True)}
        given = dict(zip(graph.inputs, picture if isinstance(picture, list) else [picture], strict=True))
        yield {name: value for name, value in {**given, **values}.items() if name in floats}


def measure(graph: Graph, pictures: Iterable[Example], *, deviations: bool = False) -> dict[str, Statistics]:
    """Statistics of every float32 tensor over `pictures`, which are iterated a second time if `deviations` are asked for.

    Raises `InputError` for no pictures, and where a tensor becomes not a number or larger than files hold steps for.
    """
    ranges = _ranges(graph, activations(graph, pictures))
    if not deviations:
        return ranges
    distances: dict[str, list[float]] = {name: [] for name in ranges}
    for values in activations(graph, pictures):
        for name, value in values.items():
            distances[name].append(float(np.abs(value - np.float32(ranges[name].mean)).mean(dtype=np.float64)))
    return {name: Statistics(s.low, s.high, s.mean, float(np.mean(distances[name]))) for name, s in ranges.items()}


def _ranges(graph: Graph, runs: Iterator[Mapping[str, Array]]) -> dict[str, Statistics]:
    found: dict[str, list[tuple[float, float, float]]] = {}
    for values in runs:
        for name, value in values.items():
            found.setdefault(name, []).append((float(value.min()), float(value.max()), float(value.mean(dtype=np.float64))))
    if not found:
        raise InputError(f"calibrating {graph.name} needs at least one picture, got none; give --calibrate a file or folder with pictures")
    tables = {name: np.array(rows) for name, rows in found.items()}
    for name, table in tables.items():
        largest = float(np.abs(table).max())
        if not largest <= _LARGEST:  # nor for nan
            raise InputError(
                f"calibrating {graph.name}: the tensor {name!r} reaches {largest:.3g}, expected at most {_LARGEST:.3g}; "
                "check the range of the pictures (--preset)"
            )
    return {name: Statistics(table[:, 0].min(), table[:, 1].max(), table[:, 2].mean()) for name, table in tables.items()}
