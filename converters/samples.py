"""The example pictures of a conversion: what `--calibrate` and `--data` name, as arrays that the network takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import InputError
from edge.graph import Array
from edge.preprocess import Preprocess

if TYPE_CHECKING:  # reading pictures loads Pillow, which a conversion without examples does not need
    from edge.inputs import Inputs, Item

Source = str | os.PathLike[str] | Array | Sequence[str | os.PathLike[str]]
CALIBRATION_ARRAYS = ("x_train", "x", "images", "x_test")
DATA_ARRAYS = ("x_test", "x", "images", "x_train")


@dataclass(frozen=True, eq=False)
class Samples:
    """Examples, read anew in each pass: arrays of `shape` and `dtype`, with their class where the file tells it.

    `preprocess` turns pictures (uint8) into what the network sees; float arrays are taken as they are.
    """

    items: Inputs | tuple[Item, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    preprocess: Preprocess | None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[tuple[Array, int | None]]:
        for item in self.items:
            yield self._array(item), item.label

    def first(self, count: int) -> Samples:
        """At most `count` of them, spread over the whole."""
        if len(self) <= count:
            return self
        chosen = set(np.linspace(0, len(self) - 1, count).astype(int).tolist())
        return Samples(tuple(item for i, item in enumerate(self.items) if i in chosen), self.shape, self.dtype, self.preprocess)

    def _array(self, item: Item) -> Array:
        values = item.read()
        if item.is_picture and self.preprocess is not None:
            return self.preprocess.apply(values, self.shape, dtype=self.dtype)
        if values.shape != self.shape:
            raise InputError(f"{item.name} has the shape {values.shape}, but the network takes {self.shape}; give arrays of that shape")
        as_given = values.astype(self.dtype)
        if not np.array_equal(as_given, values):
            raise InputError(
                f"{item.name} holds values that are no whole numbers 0..255, but the network is converted to take bytes; "
                "give uint8 arrays, or convert with --input-dtype float32"
            )
        return as_given


def load_samples(
    source: Source, *, shape: tuple[int, ...], dtype: str, preprocess: Preprocess | None, array_names: Sequence[str]
) -> Samples:
    """The examples behind a path, several paths, or an array (uint8: pictures; float: what the network sees), of one example or more."""
    kind = np.dtype(dtype)
    if isinstance(source, np.ndarray):
        return Samples(_items(source, shape), shape, kind, preprocess)
    from edge.inputs import expand_inputs

    paths = [source] if isinstance(source, (str, os.PathLike)) else source
    return Samples(expand_inputs(paths, shape=shape, array_names=array_names), shape, kind, preprocess)


def _items(array: Array, shape: tuple[int, ...]) -> tuple[Item, ...]:
    from edge.inputs import Item

    batch = array[None] if array.ndim == len(shape) else array
    if batch.ndim != len(shape) + 1 or batch.dtype.kind not in "fiu":
        raise InputError(f"the examples should be numbers of the shape (N, {', '.join(map(str, shape))}), got {array.dtype} {array.shape}")
    is_picture = batch.dtype == np.uint8
    values = batch if is_picture else batch.astype(np.float32)
    return tuple(Item(f"example {i}", None, is_picture, values[i].copy) for i in range(len(values)))
