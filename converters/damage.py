"""What lower precision does to a network's answers: how far they are from those of the float network on the same pictures.

The damage needs no labels, and damages of different layers add up well while they are small:

    probabilities, logits   mean KL divergence of the classes' probabilities, sum p log(p / q), in nats, p of the float network
    sigmoid                 the same of every output by itself, added
    values, pictures        mean squared error, relative to the variance of the float network's values

Of several outputs the damages are added. Where an output names classes, answers that changed are counted, and right ones where the classes
are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.answers import class_output
from edge.converters.samples import Samples
from edge.engine import Engine
from edge.graph import Array
from edge.program import Program

CHUNK = 32  # pictures that are run between two reports
MAX_BYTES = 256 << 20  # of pictures in memory
_LEAST = 1e-7  # of a probability
_OF_CLASSES = ("probabilities", "logits", "sigmoid")

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Score:
    """How a network answers `pictures` beside the float one.

    `damage` is that of the module's text; `changed` counts answers of another class, None where no output names classes; `right` and
    `source_right` those of the known class, `gained` and `lost` those that only this or only the float network gets, None without labels.
    """

    pictures: int
    damage: float
    changed: int | None = None
    right: int | None = None
    source_right: int | None = None
    gained: int | None = None
    lost: int | None = None

    @property
    def changed_points(self) -> float | None:
        """Answers that changed, per cent."""
        return None if self.changed is None else 100 * self.changed / self.pictures

    @property
    def drop_points(self) -> float | None:
        """Accuracy that was lost, in points of a per cent; without labels None."""
        return None if self.lost is None or self.gained is None else 100 * (self.lost - self.gained) / self.pictures


@dataclass(frozen=True, eq=False)
class Reference:
    """Pictures, by chunks of one array for each input, and what the float network gives for them, (N, *output) for each output.

    `labels` are the known classes, None where one is not; `number` is the output that names classes, None if none does.
    """

    chunks: tuple[tuple[Array, ...], ...]
    outputs: tuple[Array, ...]
    kinds: tuple[str, ...]
    number: int | None
    labels: Array | None

    def __len__(self) -> int:
        return len(self.outputs[0])

    @property
    def classes(self) -> int | None:
        """How many classes the network tells apart, two where by a single value."""
        return None if self.number is None else max(2, self.outputs[self.number][0].size)

    @property
    def accuracy(self) -> float | None:
        """The share of right answers, None where no classes are known."""
        if self.number is None or self.labels is None:
            return None
        return float(np.mean(_classes(self.outputs[self.number], self.kinds[self.number]) == self.labels))


def reference(program: Program, samples: Samples, kinds: Sequence[str], *, count: int, tell: Tell | None = None) -> Reference:
    """What the float `program` gives for at most `count` of the samples, spread over all; `kinds` are those of its outputs."""
    chosen = samples.first(min(count, max(CHUNK, MAX_BYTES // _bytes(samples))))
    arrays, labels = [], []
    for array, label in chosen:
        arrays.append(array if isinstance(array, list) else [array])
        labels.append(label)
    columns = [np.stack(column) for column in zip(*arrays, strict=True)]
    chunks = tuple(tuple(column[at : at + CHUNK] for column in columns) for at in range(0, len(arrays), CHUNK))
    engine = Engine(program)
    number = class_output([(kind, info.shape) for kind, info in zip(kinds, engine.outputs, strict=True)])
    known = np.array(labels) if all(label is not None for label in labels) else None
    return Reference(chunks, _run(engine, chunks, tell), tuple(kinds), number, known if number is not None else None)


def _bytes(samples: Samples) -> int:
    return sum(int(np.prod(info.shape)) * np.dtype(info.dtype).itemsize for info in samples.inputs)


def _run(engine: Engine, chunks: Sequence[tuple[Array, ...]], tell: Tell | None) -> tuple[Array, ...]:
    found: list[list[Array]] = []
    for done, chunk in enumerate(chunks, 1):
        outputs: Any = engine.run(*chunk)
        found.append(outputs if isinstance(outputs, list) else [outputs])
        if tell is not None:
            tell(min(done * CHUNK, sum(len(each[0]) for each in chunks)))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def score(program: Program, known: Reference, *, tell: Tell | None = None) -> Score:
    """How `program` answers the pictures of a reference."""
    outputs = _run(Engine(program), known.chunks, tell)
    damage = sum(divergence(*each) for each in zip(known.outputs, outputs, known.kinds, strict=True))
    if known.number is None:
        return Score(len(known), damage)
    before, after = (_classes(each[known.number], known.kinds[known.number]) for each in (known.outputs, outputs))
    counts: Mapping[str, int] = {"changed": int((before != after).sum())}
    if known.labels is not None:
        was, is_ = before == known.labels, after == known.labels
        counts = {**counts, "right": int(is_.sum()), "source_right": int(was.sum())}
        counts = {**counts, "gained": int((is_ & ~was).sum()), "lost": int((was & ~is_).sum())}
    return Score(len(known), damage, **counts)


def _classes(outputs: Array, kind: str) -> Array:
    """The class that each answer names; of one value, whether it speaks for class 1."""
    rows = outputs.reshape(len(outputs), -1)
    found: Array = (rows[:, 0] > (0.5 if kind == "sigmoid" else 0.0)).astype(int) if rows.shape[1] == 1 else rows.argmax(axis=1)
    return found


def divergence(expected: Array, got: Array, kind: str) -> float:
    """The damage to an output of `kind` (`edge.answers.KINDS`), (N, *output); infinite where answers are not finite."""
    if not np.isfinite(got).all():
        return float("inf")
    real, now = (each.astype(np.float64) for each in (expected, got))
    if kind not in _OF_CLASSES:
        variance = float(real.var())
        return float(((real - now) ** 2).mean()) / (variance if variance > 0 else 1.0)
    if kind == "sigmoid" or real[0].size == 1:
        p, q = (_two_sided(each, kind) for each in (real, now))
    else:
        p, q = (_softmax(each) if kind == "logits" else each for each in (real, now))
    p, q = (np.clip(each, _LEAST, 1.0) for each in (p, q))
    return max(0.0, float((p * np.log(p / q)).sum()) / len(real))


def _two_sided(values: Array, kind: str) -> Array:
    """The probabilities of both classes of each value."""
    p = values if kind == "sigmoid" else 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return np.stack([p, 1 - p], axis=-1)


def _softmax(values: Array) -> Array:
    power = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: Array = power / power.sum(axis=-1, keepdims=True)
    return shares
