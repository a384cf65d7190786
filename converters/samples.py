"""The example pictures of a conversion: what `--calibrate` and `--data` name, as arrays that the network takes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge.batches import by_input, inputs_text, size_text
from edge.errors import InputError
from edge.graph import Array
from edge.items import Item
from edge.preprocess import Preprocess
from edge.tensors import TensorInfo

if TYPE_CHECKING:  # reading pictures loads Pillow, which a conversion without examples does not need
    from edge.feeds import JointInputs, JointItem
    from edge.inputs import Inputs

Source = str | os.PathLike[str] | Array | Sequence[str | os.PathLike[str]] | Mapping[str, Array]
Example = Array | list[Array]
"""What the network takes: an array, or for several inputs one for each."""
CALIBRATION_ARRAYS = ("x_train", "x", "images", "x_test")
DATA_ARRAYS = ("x_test", "x", "images", "x_train")


@dataclass(frozen=True, eq=False)
class Samples:
    """Examples, read anew in each pass: arrays of the shapes and dtypes of `inputs`, with their class where the file tells it.

    `preprocess` turns pictures (uint8) into what the network sees; other arrays are taken as they are.
    """

    items: Inputs | JointInputs | tuple[Item | JointItem, ...]
    inputs: tuple[TensorInfo, ...]
    preprocess: Preprocess | None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[tuple[Example, int | None]]:
        for item in self.items:
            if isinstance(item, Item):
                yield self._array(item, self.inputs[0]), item.label
            else:
                yield [self._array(*each) for each in zip(item.parts, self.inputs, strict=True)], item.label

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why labels that a file holds are not used."""
        return () if isinstance(self.items, tuple) else self.items.remarks

    @property
    def seen(self) -> Preprocess | None:
        """How pictures become what the network sees; None where arrays of that were given instead."""
        items = self.items
        given = any(item.is_picture for item in items) if isinstance(items, tuple) else items.has_pictures
        return self.preprocess if given else None

    def labelled_for(self, classes: int) -> Samples:
        """The same, without labels where they are not all of 0 .. classes - 1; a remark says so."""
        return self if isinstance(self.items, tuple) else replace(self, items=self.items.labelled_for(classes))

    def first(self, count: int) -> Samples:
        """At most `count` of them, spread over the whole."""
        if len(self) <= count:
            return self
        return self.split(count)[0]

    def split(self, count: int) -> tuple[Samples, Samples]:
        """`count` of them, spread over the whole, and the rest."""
        chosen = set(np.linspace(0, len(self) - 1, count).astype(int).tolist())
        items = list(enumerate(self.items))
        inside, outside = (tuple(item for i, item in items if (i in chosen) is kept) for kept in (True, False))
        return replace(self, items=inside), replace(self, items=outside)

    def _array(self, item: Item, wanted: TensorInfo) -> Array:
        values, dtype = item.read(), np.dtype(wanted.dtype)
        if item.is_picture and self.preprocess is not None:
            return self.preprocess.apply(values, wanted.shape, dtype=dtype)
        if values.shape != wanted.shape:
            raise InputError(f"{item.name} has the shape {values.shape}, but the network takes {wanted.shape}; give arrays of that shape")
        as_given = values.astype(dtype)
        if not np.array_equal(as_given, values):
            raise InputError(
                f"{item.name} holds values that are no whole numbers 0..255, but the network is converted to take bytes; "
                "give uint8 arrays, or convert with --input-dtype float32"
            )
        return as_given


def load_examples(source: Source, *, inputs: tuple[TensorInfo, ...], preprocess: Preprocess | None, array_names: Sequence[str]) -> Samples:
    """The examples behind a path, several paths, or arrays (uint8: pictures; else what the network sees), of one example or more.

    For several inputs a path is that of an `.npz` file with an array for each by name, and arrays come as a dict.
    """
    if isinstance(source, (np.ndarray, Mapping)):
        return Samples(_items(source, inputs), inputs, preprocess)
    from edge.feeds import read_feeds

    paths = [source] if isinstance(source, (str, os.PathLike)) else source
    feeds = read_feeds(inputs)
    if len(inputs) > 1:
        parts = [feeds.items(path, array_names=array_names) for path in paths]
        return Samples(parts[0] if len(parts) == 1 else tuple(itertools.chain.from_iterable(parts)), inputs, preprocess)
    from edge.inputs import expand_inputs

    return Samples(expand_inputs(paths, shape=inputs[0].shape, array_names=array_names), inputs, preprocess)


def _items(source: Array | Mapping[str, Array], inputs: tuple[TensorInfo, ...]) -> tuple[Item | JointItem, ...]:
    from edge.feeds import JointItem

    if len(inputs) > 1 and not isinstance(source, Mapping):
        raise InputError(f"the examples should be a dict with arrays for {inputs_text(inputs)}, got one array; give one for each, by name")
    columns = [_rows(array, wanted, several=len(inputs) > 1) for array, wanted in zip(by_input([source], inputs), inputs, strict=True)]
    if len(columns) == 1:
        return columns[0]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{len(column)} for {wanted.name}" for column, wanted in zip(columns, inputs, strict=True))
        raise InputError(f"the examples should be as many for each input, got {counts}; give equally many")
    return tuple(JointItem(parts[0].name, None, parts) for parts in zip(*columns, strict=True))


def _rows(array: Array, wanted: TensorInfo, *, several: bool) -> tuple[Item, ...]:
    shape = wanted.shape
    batch = array[None] if array.ndim == len(shape) else array
    if batch.ndim != len(shape) + 1 or batch.dtype.kind not in "fiu":
        raise InputError(f"the examples should be numbers of the shape (N, {size_text(shape)}), got {array.dtype} {array.shape}")
    is_picture = batch.dtype == np.uint8 and not (several and len(shape) == 1)
    values = batch if is_picture else batch.astype(np.float32)
    return tuple(Item(f"example {i}", None, is_picture, values[i].copy) for i in range(len(values)))
