"""What models with several inputs are fed with: the arrays of an `.npz` by the inputs' names, or one input's files and the rest by name.

What is given by name (`--input label=3`) is a number, numbers separated by commas, or a file; one example of it goes with everything that
is run, several go with as many items, one with each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from edge.arrays import npz_members
from edge.batches import Input, inputs_text, size_text
from edge.errors import InputError
from edge.inputs import ARRAY_NAMES, Inputs, expand_inputs
from edge.items import Item, Layout, StoredArray, npy_array, npz_member
from edge.paths import require_file


@dataclass(frozen=True)
class JointItem:
    """One thing to run on a model with several inputs: an item for each, in their order."""

    name: str
    label: int | None
    parts: tuple[Item, ...]

    @property
    def is_picture(self) -> bool:
        return any(part.is_picture for part in self.parts)


@dataclass(frozen=True)
class JointInputs:
    """The items of all inputs, side by side; a single item goes with every other. `main` tells names and labels."""

    sources: tuple[Inputs, ...]
    main: int

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why labels that a file holds are not used."""
        return self.sources[self.main].remarks

    @property
    def has_labels(self) -> bool:
        return self.sources[self.main].has_labels

    @property
    def has_pictures(self) -> bool:
        return any(source.has_pictures for source in self.sources)

    def labelled_for(self, classes: int) -> JointInputs:
        """See `edge.inputs.Inputs.labelled_for`."""
        main = self.sources[self.main].labelled_for(classes)
        return replace(self, sources=(*self.sources[: self.main], main, *self.sources[self.main + 1 :]))

    def __len__(self) -> int:
        return max(map(len, self.sources))

    def __iter__(self) -> Iterator[JointItem]:
        many = len(self) > 1
        rows = [repeat(next(iter(source)), len(self)) if many and len(source) == 1 else iter(source) for source in self.sources]
        for parts in zip(*rows, strict=True):
            yield JointItem(parts[self.main].name, parts[self.main].label, parts)


@dataclass(frozen=True)
class Feeds:
    """How the inputs of a model are fed: `given` by name, what goes with everything; the rest by what is run.

    by_name: whether the command takes inputs by name at all, which errors then advise.
    """

    inputs: tuple[Input, ...]
    given: Mapping[str, Inputs]
    by_name: bool = True

    @property
    def open(self) -> tuple[Input, ...]:
        """The inputs that are not given."""
        return tuple(each for each in self.inputs if each.name not in self.given)

    def items(self, path: str | os.PathLike[str], *, array_names: Sequence[str] = ARRAY_NAMES) -> Inputs | JointInputs:
        """The items behind a file or folder. Raises InputError where it cannot be read, or does not go with what is given."""
        found = self._items_of(path, array_names)
        return found[self.inputs[0].name] if len(self.inputs) == 1 else self._joined(found, self.open[0].name)

    def alone(self) -> Inputs | JointInputs:
        """The items of what is given, where that is every input. Raises InputError where it is not."""
        if self.open:
            raise InputError(
                f"nothing was given for {inputs_text(self.open)}: expected a file, or --input {self.open[0].name}=...; name one"
            )
        first = self.inputs[0].name
        return self.given[first] if len(self.inputs) == 1 else self._joined({}, first)

    def _items_of(self, path: str | os.PathLike[str], array_names: Sequence[str]) -> dict[str, Inputs]:
        names = tuple(each.name for each in self.inputs)
        if not self.open:
            raise InputError(f"{os.fspath(path)} is for no input: all of {inputs_text(self.inputs)} are given by --input; leave it out")
        if len(self.open) > 1:
            self._check_archive(path)
        main = self.open[0]
        return {each.name: _of_path(path, each, names, array_names=array_names, labelled=each is main) for each in self.open}

    def _check_archive(self, path: str | os.PathLike[str]) -> None:
        expected = f"an .npz file with an array for each of {inputs_text(self.open)}"
        if not _is_file(path, ".npz"):
            where = path if os.path.isdir(path) else require_file(path, "input")
            or_else = ", or give all but one by --input" if self.by_name else ""
            raise InputError(f"cannot tell which input {where} is for: expected {expected}; save one{or_else}")
        members = npz_members(Path(path))
        missing = [each.name for each in self.open if each.name not in members]
        if missing:
            raise InputError(
                f"{os.fspath(path)} does not fit the model: expected {expected}, got {', '.join(members) or 'none'}; "
                f"save {', '.join(missing)} under that name{', or give it by --input' if self.by_name else ''}"
            )

    def _joined(self, found: Mapping[str, Inputs], main: str) -> JointInputs:
        sources = {each.name: found.get(each.name) or self.given[each.name] for each in self.inputs}
        if len({len(source) for source in sources.values()} - {1}) > 1:
            counts = ", ".join(f"{len(source)} for {name}" for name, source in sources.items())
            raise InputError(f"the inputs do not fit together: expected as many examples of each, or one, got {counts}; give equally many")
        return JointInputs(tuple(sources.values()), list(sources).index(main))


def read_feeds(inputs: Sequence[Input], given: Sequence[str] | None = None) -> Feeds:
    """The feeds of a model, of texts NAME=VALUE; None for commands that take no such texts.

    Raises InputError for an unknown name, one given twice, and a value that does not fit.
    """
    values: dict[str, Inputs] = {}
    known = {each.name: each for each in inputs}
    for text in given or ():
        name, _, value = text.partition("=")
        if name not in known or name in values or not value:
            problem = "a second value" if name in values else "no value" if name in known else f"the name {name!r}"
            raise InputError(
                f"--input {text} is not understood: expected NAME=VALUE, once for each of {inputs_text(inputs)}, got {problem}; correct it"
            )
        values[name] = _value(known[name], value, tuple(known))
    return Feeds(tuple(inputs), values, given is not None)


def _of_path(
    path: str | os.PathLike[str], wanted: Input, names: Sequence[str], *, array_names: Sequence[str] = ARRAY_NAMES, labelled: bool = False
) -> Inputs:
    """The items for one of the inputs `names`; of several, one of a single axis (a class, a vector) takes numbers of every type."""
    numbers = len(names) > 1 and len(wanted.shape) == 1
    if _is_file(path, ".npy") and numbers:
        return Inputs((npy_array(Path(path), wanted.shape, numbers=True),))
    members = npz_members(Path(path)) if _is_file(path, ".npz") and len(names) > 1 else ()
    if wanted.name not in members:
        return expand_inputs([path], shape=wanted.shape, array_names=(*array_names, wanted.name))
    labels = [member for member in members if member not in names] if labelled else []
    return Inputs((npz_member(Path(path), wanted.name, wanted.shape, members=labels, numbers=numbers),))


def _value(wanted: Input, value: str, names: Sequence[str]) -> Inputs:
    if os.path.exists(value):
        return _of_path(value, wanted, names)
    numbers = _numbers(value)
    if numbers is None or numbers.size != np.prod(wanted.shape):
        got = f"{value!r}, which is neither" if numbers is None else f"{numbers.size} of them"
        raise InputError(
            f"--input {wanted.name}={value} does not fit: expected a file, or as many numbers as {size_text(wanted.shape)} separated by "
            f"commas, got {got}; check the path, or store them with numpy.save"
        )
    array = numbers.reshape(wanted.shape)
    layout = Layout(1, True, tuple(wanted.shape), False)
    return Inputs((StoredArray(f"{wanted.name}={value}", layout, lambda: lambda _: array),))


def _numbers(text: str) -> np.ndarray | None:
    """The numbers in a text, None where it holds anything else."""
    try:
        return np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        return None


def _is_file(path: str | os.PathLike[str], suffix: str) -> bool:
    return os.path.isfile(path) and Path(path).suffix.lower() == suffix
