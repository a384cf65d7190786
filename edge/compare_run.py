"""One converted file over all examples: its answers beside the source's, and its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from edge.cli_model import Model
from edge.compare_data import Example, Examples
from edge.compare_layers import EngineLayers, LayerComparison
from edge.compare_lite import LiteLayers
from edge.graph import Array, Graph
from edge.oracle import Oracle, Truth, sign_sources

OUTPUT_TOLERANCE = 1e-4
_CHUNK_VALUES = 1 << 24  # of all tensors of the examples computed together


class Layers(Protocol):
    """What `EngineLayers` and `LiteLayers` have in common."""

    fed_by_source: bool

    @property
    def names(self) -> set[str]: ...
    def take(self, example: Sequence[Array], truth: Truth, *, differs: bool) -> bool: ...
    def result(self) -> tuple[LayerComparison, ...]: ...


@dataclass(frozen=True)
class Answers:
    """The outputs of one example, the source's and the converted network's."""

    want: tuple[Array, ...]
    got: tuple[Array, ...]
    label: int | None

    @property
    def difference(self) -> float:
        largest = max(float(np.abs(got - want).max(initial=0.0)) for got, want in zip(self.got, self.want, strict=True))
        return math.inf if math.isnan(largest) else largest

    @property
    def magnitude(self) -> float:
        """The largest of the source's values."""
        return max(float(np.abs(want).max(initial=0.0)) for want in self.want)

    @property
    def within(self) -> bool:
        """Whether the outputs differ by rounding alone."""
        return self.difference <= OUTPUT_TOLERANCE * max(1.0, self.magnitude)


@dataclass
class Run:
    """What differs, collected over the examples. tied: those whose outputs differ because a tie flipped."""

    model: Model
    oracle: Oracle
    layers: Layers
    answers: list[Answers] = field(default_factory=list)
    tied: list[int] = field(default_factory=list)

    @property
    def wanted(self) -> set[str]:
        """The tensors of the source that are looked at."""
        names = self.layers.names
        return names | sign_sources(self.oracle.graph, names) | set(self.oracle.graph.outputs)

    def take(self, example: Example, truth: Truth, label: int | None) -> None:
        want = tuple(truth.real(name) for name in self.oracle.graph.outputs)
        given = self._given(example)
        outputs = self.model.runner.run(*given)
        got = tuple(array.reshape(w.shape) for array, w in zip(outputs if isinstance(outputs, list) else [outputs], want, strict=True))
        answers = Answers(want, got, label)
        if self.layers.take(given, truth, differs=not answers.within):
            self.tied.append(len(self.answers))
        self.answers.append(answers)

    def _given(self, example: Example) -> tuple[Array, ...]:
        """The arrays in the order of the converted file's inputs: by name where it has the source's names."""
        names = [info.name for info in self.model.runner.inputs]
        by_name = dict(zip(self.oracle.graph.inputs, example, strict=True))
        return tuple(by_name[name] for name in names) if set(names) == set(by_name) else example


def start(model: Model, oracle: Oracle) -> Run:
    return Run(model, oracle, _layers(model, oracle.graph))


def _layers(model: Model, graph: Graph) -> Layers:
    return EngineLayers(model.engine, graph) if model.engine is not None else LiteLayers(Path(model.path), graph)


def run_all(runs: Sequence[Run], examples: Examples, progress: Callable[[int, int], None]) -> None:
    """Take all examples; what the source computes, which is the same for all runs, is computed once. progress: (done, total) examples."""
    oracle = runs[0].oracle
    wanted = set().union(*(run.wanted for run in runs))
    size = max(1, min(64, _CHUNK_VALUES // sum(kind.elements for kind in oracle.graph.types.values())))
    done = 0
    for batch, labels in examples.chunks(size):
        arrays = {name: np.stack([example[i] for example in batch]) for i, name in enumerate(oracle.graph.inputs)}
        for example, truth, label in zip(batch, oracle.truths(arrays, wanted), labels, strict=True):
            for run in runs:
                run.take(example, truth, label)
            done += 1
            progress(done, examples.count)
