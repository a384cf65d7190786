"""Arrays in files as streams of named items: `.npy` files, and the arrays of an `.npz` with their labels.

**uint8 arrays are pictures** (preprocessing applies to them), **float arrays are what the net sees** (it does not); arrays of `numbers`,
for inputs that take no pictures, are of any type. Shapes are N H W C, H W C (one picture) or H W (one grey picture); N H W, as MNIST comes,
is N grey pictures wherever the last axis is not 1 or 3 long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Header, npy_header, npy_reader, npz_header, npz_members, read_npz
from edge.errors import InputError

LABEL_NAMES = ("y_test", "y_train", "y", "labels")
_LABELS_OF = {"x_test": "y_test", "x_train": "y_train", "x": "y", "images": "labels"}


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
class Layout:
    """How an array divides into items. single: it is itself the only one."""

    count: int
    single: bool
    item_shape: tuple[int, ...]
    is_picture: bool


@dataclass(frozen=True)
class StoredArray:
    """A stored array.

    open: gives the function that reads item i, once per pass over the items. remark: why its labels are not used.
    """

    name: str
    layout: Layout
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


def npy_array(path: Path, shape: tuple[int, ...] | None, *, numbers: bool = False) -> StoredArray:
    """A `.npy` file, read item by item.

    shape: the input's, without batch; see `edge.inputs.expand_inputs`. numbers: it takes no pictures, and numbers of every type.
    Raises InputError for a file that cannot be read, or that fits no rule.
    """
    header = npy_header(path)
    layout = _layout(header, str(path), shape, numbers=numbers)
    return StoredArray(str(path), layout, partial(npy_reader, path, header, single=layout.single))


def npz_array(path: Path, shape: tuple[int, ...] | None, array_names: Sequence[str]) -> StoredArray:
    """The array of an `.npz` file that is meant, the first there is of `array_names` or the only one, with its labels."""
    members = npz_members(path)
    return npz_member(path, _chosen(path, members, array_names), shape, members=members)


def npz_member(
    path: Path, member: str, shape: tuple[int, ...] | None, *, members: Sequence[str] = (), numbers: bool = False
) -> StoredArray:
    """An array of an `.npz` file by its name, with labels where `members`, the arrays that are no inputs, hold some."""
    name = f"{path}:{member}"
    layout = _layout(npz_header(path, member), name, shape, numbers=numbers)
    return StoredArray(name, layout, partial(_npz_reader, path, member, layout), *_labels(path, members, member, layout))


def _npz_reader(path: Path, member: str, layout: Layout) -> Callable[[int], NDArray[Any]]:
    whole = read_npz(path, member)
    return lambda index: whole if layout.single else whole[index]


def _chosen(path: Path, members: Sequence[str], array_names: Sequence[str]) -> str:
    for name in array_names:
        if name in members:
            return name
    candidates = [member for member in members if member not in LABEL_NAMES and _rank(path, member) >= 2]
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


def _labels(path: Path, members: Sequence[str], member: str, layout: Layout) -> tuple[tuple[int, ...] | None, str | None]:
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


def _layout(header: Header, name: str, shape: tuple[int, ...] | None, *, numbers: bool) -> Layout:
    is_picture = not numbers and _is_picture(header.dtype, name)
    single, item_shape = _division(header.shape, None if is_picture else shape)
    if item_shape is None or (is_picture and item_shape[-1] not in (1, 3)) or (numbers and item_shape != shape):
        pictures = "pictures of shape N H W C, H W C or H W with 1 or 3 channels"
        items = f"items of the net input {shape}" if shape else ""
        expected = items if numbers else ", or ".join(filter(None, (pictures, items)))
        raise InputError(f"cannot read {name}: expected {expected}, got {header.dtype} of shape {header.shape}; reshape it")
    return Layout(1 if single else header.shape[0], single, item_shape, is_picture)


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
    if shape == (1,) and len(stored) == 1:
        return False, shape
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


def _item(read: Callable[[int], NDArray[Any]], index: int, name: str, layout: Layout) -> NDArray[Any]:
    values = np.ascontiguousarray(read(index)).reshape(layout.item_shape)
    if layout.is_picture:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite values: expected finite float32; check how it was made")
    return values
