"""How a converted network answers beside its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edge.answers import class_output
from edge.converters.report import Agreement
from edge.converters.samples import Samples
from edge.graph import Graph
from edge.lower import to_program
from edge.program import Program

Progress = Callable[[str, int, int], None]


def compare(source: Graph, program: Program, examples: Samples, tell: Progress) -> Agreement:
    """The answers of the program beside those of the network as it was read, in float32, on `examples`."""
    from edge.engine import Engine

    tell("comparing", 0, len(examples))
    engines = Engine(to_program(source)), Engine(program)
    kinds = [each["kind"] for each in program.metadata["outputs"]]
    number = class_output([(kind, info.shape) for kind, info in zip(kinds, engines[1].outputs, strict=True)])
    rows = []
    for done, (array, label) in enumerate(examples, 1):
        expected, got = (_listed(engine.run(array)) for engine in engines)
        difference = max(float(np.abs(a - b).max()) for a, b in zip(expected, got, strict=True))
        classes = [None if number is None else _class(outputs[number], kinds[number]) for outputs in (expected, got)]
        rows.append((classes[0], classes[1], difference, label))
        tell("comparing", done, len(examples))
    return _agreement(rows)


def _listed(outputs: Any) -> list[np.ndarray]:
    return outputs if isinstance(outputs, list) else [outputs]


def _class(output: np.ndarray, kind: str) -> int:
    """The class that an output names; of one value, whether it speaks for class 1."""
    if output.size == 1:
        return int(output.reshape(-1)[0] > (0.5 if kind == "sigmoid" else 0.0))
    return int(output.argmax())


def _agreement(rows: Iterable[tuple[int | None, int | None, float, int | None]]) -> Agreement:
    rows = list(rows)
    classes = [(expected, got) for expected, got, _, _ in rows if expected is not None]
    known = [(expected == label, got == label) for expected, got, _, label in rows if label is not None and expected is not None]
    accuracies = np.mean(known, axis=0).tolist() if known else (None, None)
    return Agreement(
        pictures=len(rows),
        equal=sum(expected == got for expected, got in classes) if classes else None,
        largest_difference=max(difference for _, _, difference, _ in rows),
        source_accuracy=accuracies[0],
        accuracy=accuracies[1],
    )
