"""What a user gives to be run: pictures, folders of pictures, arrays; each as a stream of named items.

A folder stands for the picture files in it (one level, by name, hidden files left out). A `.npy` file is read item by
item. Of an `.npz` file one array is taken: the first there is of x_test, x, images, else the only one that can be
pictures; and its labels under y_test, y or labels: whole numbers, or one-hot rows (N, classes).

**uint8 arrays are pictures** (preprocessing applies to them), **float arrays are what the net sees** (it does not).
Shapes are N H W C, H W C (one picture) or H W (one grey picture); N H W, as MNIST comes, is N grey pictures wherever
the last axis is not 1 or 3 long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Header, npy_header, npy_reader, npz_header, npz_members, read_npz
from edge.errors import InputError
from edge.paths import require_file
from edge.pictures import SUFFIXES, WHITE, read_picture

ARRAY_NAMES = ("x_test", "x", "images")
_LABELS_OF = {"x_test": "y_test", "x_train": "y_train", "x": "y", "images": "labels"}
_LABEL_NAMES = ("y_test", "y_train", "y", "labels")


@dataclass(frozen=True)
class Item:
    """One thing to run.

    name: the file, with [i] for item i of an array.
    label: the true class where the file tells, else None.
    is_picture: True: `read()` gives a picture, uint8 (h, w, 1 or 3), to be preprocessed. False: it gives what the net
        sees, float32, finite.
    read: loads it; raises InputError where it is damaged. A damaged picture leaves the other items readable; a damaged
        `.npz`, being read whole, raises when its first item is reached.
    """

    name: str
    label: int | None
    is_picture: bool
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class _Picture:
    path: Path
    background: tuple[int, int, int]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Item]:
        yield Item(str(self.path), None, True, partial(read_picture, self.path, background=self.background))


@dataclass(frozen=True)
class _Layout:
    """How an array divides into items. single: it is itself the only one."""

    count: int
    single: bool
    item_shape: tuple[int, ...]
    is_picture: bool


@dataclass(frozen=True)
class _Array:
    """A stored array.

    open: gives the function that reads item i, once per pass over the items. remark: why its labels are not used.
    """

    name: str
    layout: _Layout
    open: Callable[[], Callable[[int], NDArray[Any]]]
    labels: tuple[int, ...] | None = None
    remark: str | None = None

    def __len__(self) -> int:
        return self.layout.count

    def __iter__(self) -> Iterator[Item]:
        read = self.open()
        for index in range(len(self)):
            name = self.name if self.layout.single else f"{self.name}[{index}]"
            label = None if self.labels is None else self.labels[index]
            yield Item(name, label, self.layout.is_picture, partial(_item, read, index, name, self.layout))


@dataclass(frozen=True)
class Inputs:
    """All items, in the order given; `len()` is their number, and each pass reads anew."""

    sources: tuple[_Picture | _Array, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why labels that a file holds are not used."""
        return tuple(source.remark for source in self.sources if isinstance(source, _Array) and source.remark)

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
) -> list[_Picture | _Array]:
    if os.path.isdir(path):
        return [_Picture(file, background) for file in _pictures_in(path)]
    require_file(path, "input")
    match path.suffix.lower():
        case ".npy":
            return [_npy(path, shape)]
        case ".npz":
            return [_npz(path, shape, array_names)]
        case _:
            return [_Picture(path, background)]


def _pictures_in(folder: Path) -> list[Path]:
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


def _npy(path: Path, shape: tuple[int, ...] | None) -> _Array:
    header = npy_header(path)
    layout = _layout(header, str(path), shape)
    return _Array(str(path), layout, partial(npy_reader, path, header, single=layout.single))


def _npz(path: Path, shape: tuple[int, ...] | None, array_names: Sequence[str]) -> _Array:
    members = npz_members(path)
    member = _chosen(path, members, array_names)
    name = f"{path}:{member}"
    layout = _layout(npz_header(path, member), name, shape)
    return _Array(name, layout, partial(_npz_reader, path, member, layout), *_labels(path, members, member, layout))


def _npz_reader(path: Path, member: str, layout: _Layout) -> Callable[[int], NDArray[Any]]:
    whole = read_npz(path, member)
    return lambda index: whole if layout.single else whole[index]


def _chosen(path: Path, members: Sequence[str], array_names: Sequence[str]) -> str:
    for name in array_names:
        if name in members:
            return name
    candidates = [member for member in members if member not in _LABEL_NAMES and _rank(path, member) >= 2]
    if len(candidates) != 1:
        raise InputError(
            f"cannot tell which array of {path} to read: expected {', '.join(array_names)} or a single one, "
            f"got {', '.join(members) or 'none'}; save the pictures under the name {array_names[0]}"
        )
    return candidates[0]


def _rank(path: Path, member: str) -> int:
    header = _header_of_numbers(path, member)
    return 0 if header is None else len(header.shape)


def _header_of_numbers(path: Path, member: str) -> Header | None:
    try:
        return npz_header(path, member)
    except InputError:
        # Names of classes, say: of no concern, since it is not what was asked for.
        return None


def _labelled_for(source: _Picture | _Array, classes: int) -> _Picture | _Array:
    if isinstance(source, _Picture) or source.labels is None:
        return source
    wrong = next((label for label in source.labels if not 0 <= label < classes), None)
    if wrong is None:
        return source
    remark = f"the labels of {source.name} are not used: expected classes 0 to {classes - 1}, as the model has, got {wrong}; number them so"
    return replace(source, labels=None, remark=remark)


def _labels(path: Path, members: Sequence[str], member: str, layout: _Layout) -> tuple[tuple[int, ...] | None, str | None]:
    """The true classes: whole numbers of shape (N,) or (N, 1), or one-hot rows; or why what is stored as such is neither."""
    name = next((name for name in (_LABELS_OF.get(member), "y", "labels", "y_test") if name in members), None)
    if name is None:
        return None, None
    try:
        header = npz_header(path, name)
    except InputError as err:
        return None, f"the labels of {path}:{member} are not used: {err}"
    if header.shape[0] != layout.count:
        raise InputError(
            f"{path} is inconsistent: expected {layout.count} labels in {name} for the items of {member}, "
            f"got {header.shape[0]}; save both again"
        )
    classes = _classes(header, path, name)
    if classes is not None:
        return classes, None
    return None, (
        f"the labels of {path}:{member} are not used: expected whole numbers of shape (N,), or one-hot rows, in {name}, "
        f"got {header.dtype} of shape {header.shape}; save the number of each class"
    )


def _classes(header: Header, path: Path, name: str) -> tuple[int, ...] | None:
    if header.dtype.kind in "ui" and header.shape[1:] in ((), (1,)):
        return tuple(read_npz(path, name).reshape(-1).tolist())
    if len(header.shape) != 2 or header.shape[1] < 2:
        return None
    rows = read_npz(path, name)
    one_hot = np.isin(rows, (0, 1)).all() and (np.count_nonzero(rows, axis=1) == 1).all()
    return tuple(rows.argmax(axis=1).tolist()) if one_hot else None


def _layout(header: Header, name: str, shape: tuple[int, ...] | None) -> _Layout:
    is_picture = _is_picture(header.dtype, name)
    single, item_shape = _division(header.shape, None if is_picture else shape)
    if item_shape is None or (is_picture and item_shape[-1] not in (1, 3)):
        raise InputError(
            f"cannot read {name}: expected pictures of shape N H W C, H W C or H W with 1 or 3 channels"
            f"{f', or items of the net input {shape}' if shape else ''}, got {header.dtype} of shape {header.shape}; "
            "reshape it"
        )
    return _Layout(1 if single else header.shape[0], single, item_shape, is_picture)


def _is_picture(dtype: np.dtype[Any], name: str) -> bool:
    if dtype != np.uint8 and dtype.kind != "f":
        raise InputError(
            f"cannot read {name}: expected uint8 (pictures) or floats (what the net sees), got {dtype}; "
            "convert it with astype"
        )
    return dtype == np.uint8


def _division(stored: tuple[int, ...], shape: tuple[int, ...] | None) -> tuple[bool, tuple[int, ...] | None]:
    """Whether an array is a single item, and the shape of its items; None where no rule fits."""
    if shape is not None and shape in (stored, stored[1:]):
        return shape == stored, shape
    match len(stored):
        case 4:
            return False, stored[1:]
        case 3 if stored[2] in (1, 3):
            return True, stored
        case 3:
            return False, (*stored[1:], 1)
        case 2:
            return True, (*stored, 1)
        case _:
            return False, None


def _item(read: Callable[[int], NDArray[Any]], index: int, name: str, layout: _Layout) -> NDArray[Any]:
    values = np.ascontiguousarray(read(index)).reshape(layout.item_shape)
    if layout.is_picture:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite values: expected finite float32; check how it was made")
    return values
