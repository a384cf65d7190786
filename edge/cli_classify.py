"""From what a user names to answers: items are read, shown to the model one by one, and ranked; a bad one does not stop the others."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.answers import Ranked, class_count, class_output, names_classes, top
from edge.cli_model import Head, Info, Model
from edge.errors import EdgeError, InputError
from edge.feeds import Feeds, JointInputs, JointItem, read_feeds
from edge.inputs import Inputs
from edge.items import Item
from edge.labels import check_labels, labels_fit
from edge.preprocess import Preprocess

Values = NDArray[np.float32]
Seen = NDArray[Any] | list[NDArray[Any]]


@dataclass(frozen=True)
class Answer:
    """What one output said. ranked: None where it names no classes (pictures, maps, sequences)."""

    head: Head
    values: Values
    ranked: tuple[Ranked, ...] | None


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one item.

    label: its true class, where the file tells. seen: the array that the net saw, or a list of those of its inputs.
    read_s, preprocess_s: seconds once; run_s: seconds of one inference, the median where it was repeated.
    """

    name: str
    label: int | None
    answers: tuple[Answer, ...]
    seen: Seen
    read_s: float
    preprocess_s: float
    run_s: float

    @property
    def classes(self) -> Answer | None:
        """The answer that names classes, where there is one such output."""
        number = class_output([(answer.head.kind, answer.head.shape) for answer in self.answers])
        return None if number is None else self.answers[number]

    @property
    def correct(self) -> bool | None:
        """Whether the best class is the true one; None where either is not known."""
        ranked = self.classes.ranked if self.classes else None
        return None if self.label is None or not ranked else ranked[0].index == self.label


@dataclass(frozen=True)
class Failure:
    """An item, or a whole file, that could not be run, and why."""

    name: str
    error: str


@dataclass(frozen=True)
class Classifier:
    """A model and how to use it. feeds: where its inputs come from. labels: by head, None where the classes have no names."""

    model: Model
    preprocess: Preprocess
    feeds: Feeds
    heads: tuple[Head, ...]
    labels: tuple[tuple[str, ...] | None, ...]
    k: int
    repeat: int

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the input which takes pictures, else of the first."""
        return self.model.input.shape

    @property
    def classes(self) -> int | None:
        """The classes told apart, two where by a single value; None where no output names classes, or several do."""
        return class_count([(head.kind, head.shape) for head in self.heads])

    def remarks(self, batch: Batch) -> tuple[str, ...]:
        """Why labels that files hold are not used."""
        several = [head.name for head in self.heads if names_classes(head.kind, head.shape)]
        if self.classes is None and len(several) > 1 and batch.has_labels:
            return (f"the labels may be those of {' or '.join(several)}: expected one output that names classes, got {len(several)}",)
        return batch.remarks if self.classes else ()

    def run(self, item: Item | JointItem) -> Result:
        """The answers for one item. Raises EdgeError where it cannot be read or does not fit."""
        parts = item.parts if isinstance(item, JointItem) else (item,)
        started = time.perf_counter()
        values = [part.read() for part in parts]
        read = time.perf_counter()
        arrays = [self._seen(*each) for each in zip(values, parts, self.model.inputs, strict=True)]
        seen: Seen = arrays if len(arrays) > 1 else arrays[0]
        ready = time.perf_counter()
        outputs, run_s = self._outputs(seen)
        answers = tuple(self._answer(*each) for each in zip(self.heads, self.labels, outputs, strict=True))
        return Result(item.name, item.label, answers, seen, read - started, ready - read, run_s)

    def _seen(self, values: NDArray[Any], item: Item, wanted: Info) -> NDArray[Any]:
        if item.is_picture:
            return self.preprocess.apply(values, wanted.shape, dtype=np.uint8 if self.model.takes_bytes else np.float32)
        if values.shape != wanted.shape:
            expected, got = (" x ".join(map(str, shape)) for shape in (wanted.shape, values.shape))
            raise InputError(f"{item.name} does not fit the model: expected an array of {expected} values, got {got}; reshape it")
        return values

    def _outputs(self, seen: Seen) -> tuple[list[Values], float]:
        seconds = []
        for _ in range(self.repeat):
            started = time.perf_counter()
            outputs = self.model.runner.run(seen)
            seconds.append(time.perf_counter() - started)
        return (outputs if isinstance(outputs, list) else [outputs]), statistics.median(seconds)

    def _answer(self, head: Head, labels: tuple[str, ...] | None, values: Values) -> Answer:
        if is_ranked(head):
            return Answer(head, values, top(values, labels, head.kind, k=self.k))
        if not np.isfinite(values).all():
            raise EdgeError(f"the output {head.name} holds NaN or infinite values: expected finite ones; check the input and its range")
        return Answer(head, values, None)


def is_ranked(head: Head) -> bool:
    """Whether an output is one value for each class: neither a picture nor an array of several axes."""
    return head.kind != "picture" and math.prod(head.shape) == max(head.shape, default=1)


def classifier(
    model: Model,
    preprocess: Preprocess,
    *,
    labels: Sequence[str] | None,
    kind: str | None,
    k: int,
    repeat: int,
    given: Sequence[str] = (),
) -> Classifier:
    """`given` are inputs as texts NAME=VALUE. Raises InputError where one of them, or the labels, fit nothing of the model."""
    heads = tuple(replace(head, kind=kind or head.kind) for head in model.heads)
    return Classifier(model, preprocess, read_feeds(model.inputs, given), heads, _labels_of(heads, labels), k, repeat)


def _labels_of(heads: Sequence[Head], labels: Sequence[str] | None) -> tuple[tuple[str, ...] | None, ...]:
    """The names for each output: of several outputs, those get them that have as many classes."""
    if labels is None:
        return (None,) * len(heads)
    named = [is_ranked(head) and labels_fit(labels, math.prod(head.shape), kind=head.kind) for head in heads]
    fitting = tuple(tuple(labels) if fits else None for fits in named)
    if not any(fitting):
        check_labels(labels, math.prod(heads[0].shape), kind=heads[0].kind)
    return fitting


# -- items -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """All that was asked for, in order: items by path, or why a path has none."""

    parts: tuple[tuple[str, Inputs | JointInputs] | Failure, ...]

    def __len__(self) -> int:
        return sum(1 if isinstance(part, Failure) else len(part[1]) for part in self.parts)

    def __iter__(self) -> Iterator[Item | JointItem | Failure]:
        for part in self.parts:
            if isinstance(part, Failure):
                yield part
            else:
                yield from _until_damage(*part)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why labels that files hold are not used."""
        return tuple(remark for part in self.parts if not isinstance(part, Failure) for remark in part[1].remarks)

    @property
    def has_labels(self) -> bool:
        return any(part[1].has_labels for part in self.parts if not isinstance(part, Failure))


def expand(paths: Sequence[str], feeds: Feeds, classes: int | None = None) -> Batch:
    """The items behind each path; a path that cannot be read becomes a Failure. classes: how many labels may tell apart.

    Without a path the inputs that are given by name are all there is; raises InputError where that is not all of them.
    """
    if not paths:
        return Batch((("--input", feeds.alone()),))
    return Batch(tuple(_part(path, feeds, classes) for path in paths))


def _part(path: str, feeds: Feeds, classes: int | None) -> tuple[str, Inputs | JointInputs] | Failure:
    try:
        inputs = feeds.items(path)
        return path, inputs if classes is None else inputs.labelled_for(classes)
    except EdgeError as err:
        return Failure(path, str(err))


def _until_damage(path: str, inputs: Inputs | JointInputs) -> Iterator[Item | JointItem | Failure]:
    items: Iterator[Item | JointItem] = iter(inputs)
    while True:
        try:
            item = next(items, None)
        except EdgeError as err:
            # An archive is read whole when its first item is reached.
            yield Failure(path, str(err))
            return
        if item is None:
            return
        yield item


def attempt(classify: Classifier, item: Item | JointItem | Failure) -> Result | Failure:
    """The result for one item, or why there is none."""
    if isinstance(item, Failure):
        return item
    try:
        return classify.run(item)
    except EdgeError as err:
        said = str(err)
        return Failure(item.name, said if item.name in said else f"{item.name}: {said}")
