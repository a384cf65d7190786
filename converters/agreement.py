"""How a converted network answers beside its source."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edge.answers import class_count, class_output
from edge.converters.report import Agreement
from edge.converters.samples import Samples
from edge.graph import Graph
from edge.lower import to_program
from edge.program import Program

Progress = Callable[[str, int, int], None]
_MOST_IN_MEMORY = 64 << 20  # bytes of answers


class Answers:
    """What the network gives as it was read, in float32, for each of `examples`: kept beside memory, on disk where it is much.

    The network runs before it is made smaller, so that no more than one copy of its weights is needed beside itself at any time.
    """

    def __init__(self, source: Graph, examples: Samples) -> None:
        from edge.engine import Engine

        self._shapes = [source.types[name].shape for name in source.outputs]
        self._file = tempfile.SpooledTemporaryFile(max_size=_MOST_IN_MEMORY)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        engine = Engine(to_program(source))
        for array, _ in examples:
            for output in _listed(engine.run(array)):
                self._file.write(np.ascontiguousarray(output, np.float32).data)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The outputs of one example after the other."""
        self._file.seek(0)
        while first := self._file.read(4 * math.prod(self._shapes[0])):
            rest = (self._file.read(4 * math.prod(shape)) for shape in self._shapes[1:])
            yield [np.frombuffer(data, np.float32).reshape(shape) for data, shape in zip((first, *rest), self._shapes, strict=True)]


def compare(answers: Answers, program: Program, examples: Samples, tell: Progress) -> Agreement:
    """The answers of the program beside those of the network as it was read, in float32, on the same `examples`."""
    from edge.engine import Engine

    tell("comparing", 0, len(examples))
    engine = Engine(program)
    kinds = [each["kind"] for each in program.metadata["outputs"]]
    outputs = [(kind, info.shape) for kind, info in zip(kinds, engine.outputs, strict=True)]
    number = class_output(outputs)
    rows = []
    for done, ((array, label), expected) in enumerate(zip(examples, answers, strict=True), 1):
        got = _listed(engine.run(array))
        difference = max(float(np.abs(a - b).max()) for a, b in zip(expected, got, strict=True))
        classes = [None if number is None else _class(outputs[number], kinds[number]) for outputs in (expected, got)]
        rows.append((classes[0], classes[1], difference, label))
        tell("comparing", done, len(examples))
    return replace(_agreement(rows), classes=class_count(outputs))


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
