"""The pictures of a fine-tuning: read, and parted into those learnt from, those that choose the epoch, and those held back."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.batches import takes_pictures
from edge.converters.samples import load_examples
from edge.datasets import Part
from edge.errors import InputError
from edge.preprocess import Preprocess
from edge.tensors import TensorInfo
from edge.zoo_writer import Model

TRAINING_ARRAYS, TEST_ARRAYS = ("x_train", "x", "images"), ("x_test", "x", "images")
LEAST_PICTURES = 20
_SHARE, _MOST = 0.1, 2_500  # of the pictures, that choose the epoch; as many again are held back


@dataclass(frozen=True, eq=False)
class Pictures:
    """What the network sees (N, *shape), uint8 where that is bytes; y: (N,) classes, or None for pictures without labels.

    remarks: why labels that the file holds are not used. seen: how pictures became that, None where arrays of it were given.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | None
    remarks: tuple[str, ...] = ()
    seen: Preprocess | None = None

    @property
    def sha256(self) -> str:
        """Of pictures and labels."""
        content = hashlib.sha256(np.ascontiguousarray(self.x).data)
        content.update(b"" if self.y is None else np.ascontiguousarray(self.y).data)
        return content.hexdigest()


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows of the pictures; all in one order that follows from the seed."""

    learn: Part
    choose: Part
    held_back: Part


def read_pictures(
    path: str | os.PathLike[str], network: Model, preprocess: Preprocess, array_names: tuple[str, ...] = TRAINING_ARRAYS
) -> Pictures:
    """The pictures behind a file or folder, with labels where the file has one for each.

    Raises `InputError` where it cannot be read, or does not fit the network.
    """
    shape, classes = tuple(network.input_shape[1:]), network.output_shape[-1]
    if None in shape:
        raise InputError(f"fine-tuning takes a network that knows the size of its input, got {shape}; build it with one")
    as_bytes = takes_pictures(shape) and preprocess.is_bytes
    seen = TensorInfo("input", shape, "uint8" if as_bytes else "float32")
    samples = load_examples(path, inputs=(seen,), preprocess=preprocess if takes_pictures(shape) else None, array_names=array_names)
    x = np.empty((len(samples), *shape), np.uint8 if as_bytes else np.float32)
    labels: list[int] = []
    samples = samples.labelled_for(classes)
    for row, (values, label) in enumerate(samples):
        x[row] = values
        labels += [] if label is None else [label]
    return Pictures(x, np.array(labels, np.int64) if len(labels) == len(x) else None, samples.remarks, samples.seen)


def parted(pictures: Pictures, y: NDArray[np.int64], *, seed: int) -> Parts:
    """The three parts of pictures with the labels `y`; files often hold one class after the other, hence the new order."""
    count = len(pictures.x)
    if count < LEAST_PICTURES:
        raise InputError(f"fine-tuning needs {LEAST_PICTURES} pictures or more, got {count}; give more with --data")
    part = min(max(int(count * _SHARE), 1), _MOST)
    order = np.random.default_rng((seed, 2)).permutation(count)
    rows = order[: count - 2 * part], order[count - 2 * part : count - part], order[count - part :]
    return Parts(*(Part(pictures.x[each], y[each]) for each in rows))
