"""What a user gives to be run: pictures, folders of pictures, arrays (`edge.items`); each as a stream of named items.

A folder stands for the picture files in it (one level, by name, hidden files left out). A `.npy` file is read item by
item. Of an `.npz` file one array is taken: the first there is of x_test, x, images, else the only one that can be
pictures; and its labels under y_test, y or labels: whole numbers, or one-hot rows (N, classes). What models with
several inputs are given is in `edge.feeds`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from edge.errors import InputError
from edge.items import Item as Item
from edge.items import StoredArray, npy_array, npz_array
from edge.paths import require_file
from edge.pictures import SUFFIXES, WHITE, read_picture

ARRAY_NAMES = ("x_test", "x", "images")


@dataclass(frozen=True)
class Picture:
    """A picture file; it is its only item."""

    path: Path
    background: tuple[int, int, int]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Item]:
        yield Item(str(self.path), None, True, partial(read_picture, self.path, background=self.background))


@dataclass(frozen=True)
class Inputs:
    """All items, in the order given; `len()` is their number, and each pass reads anew."""

    sources: tuple[Picture | StoredArray, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why labels that a file holds are not used."""
        return tuple(source.remark for source in self.sources if isinstance(source, StoredArray) and source.remark)

    @property
    def has_labels(self) -> bool:
        return any(isinstance(source, StoredArray) and source.labels is not None for source in self.sources)

    @property
    def has_pictures(self) -> bool:
        """Whether some are pictures, rather than arrays of what the net sees."""
        return any(isinstance(source, Picture) or source.layout.is_picture for source in self.sources)

    def labelled_for(self, classes: int) -> Inputs:
        """The same items; an array whose labels are not all of 0 .. classes - 1 is left without any, with a remark."""
        return Inputs(tuple(_labelled_for(source, classes) for source in self.sources))

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(self.sources)


def expand_inputs(
    paths: Iterable[str | os.PathLike[str]],
    *,
    shape: tuple[int, ...] | None = None,
    array_names: Sequence[str] = ARRAY_NAMES,
    background: tuple[int, int, int] = WHITE,
) -> Inputs:
    """The items behind files and folders. Headers are read now, pixels when an item is.

    shape: the net's input shape without batch; decides whether a float array is one item or many, and allows items
        that are no pictures.
    array_names: which array of an `.npz` is preferred, first to last; ("x_train", "x", "images") for calibration.
    background: RGB behind transparent pixels.
    Raises InputError for a path that does not exist, an empty folder, an array that fits no rule, or no path at all.
    """
    paths = tuple(paths)
    if not all(os.fspath(path) for path in paths):
        raise InputError("an input has no name: expected a file or folder, got an empty text; name one, such as . for this folder")
    sources = [source for path in paths for source in _sources(Path(path), shape, array_names, background)]
    if not sources:
        raise InputError("no input was given: expected pictures, folders of pictures, .npy or .npz files; name one")
    return Inputs(tuple(sources))


def _sources(
    path: Path, shape: tuple[int, ...] | None, array_names: Sequence[str], background: tuple[int, int, int]
) -> list[Picture | StoredArray]:
    if os.path.isdir(path):
        return [Picture(file, background) for file in pictures_in(path)]
    require_file(path, "input")
    match path.suffix.lower():
        case ".npy":
            return [npy_array(path, shape)]
        case ".npz":
            return [npz_array(path, shape, array_names)]
        case _:
            return [Picture(path, background)]


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder (one level, hidden ones left out), by name. Raises InputError where there is none."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as err:
        raise InputError(f"cannot read the folder {folder}: {err.strerror or err}; check its permissions") from err
    found = [entry for entry in entries if _looks_like_a_picture(entry)]
    if not found:
        endings = ", ".join(SUFFIXES)
        raise InputError(f"no picture in the folder {folder}: expected files ending in {endings}; name another folder")
    return found


def _looks_like_a_picture(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and not entry.is_dir()


def _labelled_for(source: Picture | StoredArray, classes: int) -> Picture | StoredArray:
    if isinstance(source, Picture) or source.labels is None:
        return source
    wrong = next((label for label in source.labels if not 0 <= label < classes), None)
    if wrong is None:
        return source
    remark = f"the labels of {source.name} are not used: expected classes 0 to {classes - 1}, as the model has, got {wrong}; number them so"
    return replace(source, labels=None, remark=remark)
