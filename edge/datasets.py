"""The data that networks are trained on: by name through Keras, or from a file or folder.

    data = load("mnist")                                     # fetched once by Keras
    data = load("mnist", path="mnist.npz")                   # x_train, y_train, x_test, y_test, and names of the classes
    data = load("mnist", path="pictures", shape=(28, 28, 1)) # train/CLASS/*.png and test/CLASS/*.png

Pictures are uint8 (N, H, W, C), labels whole numbers (N,), or (N, outputs) where a network has several.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError, MissingPackage, unknown_name
from edge.labels import plain_names

Pictures = NDArray[np.uint8]
Labels = NDArray[np.int64]
Say = Callable[[str], None]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
PERMUTATION_SEED = 0  # of the one order of pixels that every permuted recipe uses
_LARGEST_CLASS = 10_000

NAMES = {
    "fashion_mnist": ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
"""The classes of data that Keras fetches without names."""


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures and their labels."""

    x: Pictures
    y: Labels

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Part:
        return Part(self.x[rows], self.y[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a network learns from and what it is tested on; `further` are more test sets, by name. names: of the classes, where known."""

    name: str
    train: Part
    test: Part
    names: tuple[str, ...] = ()
    further: Mapping[str, Part] = field(default_factory=dict)

    def permuted(self) -> Dataset:
        """With the pixels of every picture in one fixed other order."""
        size = int(np.prod(self.train.x.shape[1:3]))
        order = np.random.default_rng(PERMUTATION_SEED).permutation(size)
        return replace(self, train=_reordered(self.train, order), test=_reordered(self.test, order))

    def digest(self) -> str:
        """Of all pictures and labels."""
        content = hashlib.sha256()
        for part in (self.train, self.test):
            for array in (part.x, part.y):
                content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()[:16]


def _reordered(part: Part, order: NDArray[np.int64]) -> Part:
    flat = part.x.reshape(len(part), -1, part.x.shape[-1])
    return Part(np.ascontiguousarray(flat[:, order]).reshape(part.x.shape), part.y)


def load(
    name: str, *, path: str | os.PathLike[str] | None = None, shape: tuple[int, ...] | None = None, say: Say = lambda text: None
) -> Dataset:
    """The data set of this name, from `path` where it is given: an .npz file or a folder of pictures.

    shape: (H, W, C) of the network; pictures of a folder are brought to it, other data must have it. say: told of what takes long.
    Raises InputError for data that are missing or do not fit, and MissingPackage where Keras is needed and missing.
    """
    if path is not None:
        data = _from_folder(name, Path(path), shape) if os.path.isdir(path) else _from_npz(name, Path(path))
    elif name in SOURCES:
        data = SOURCES[name](say)
    else:
        raise unknown_name("data set", name, SOURCES, ", or a file or folder given by --data")
    if shape is not None and data.train.x.shape[1:] != shape:
        raise InputError(
            f"the pictures of {path or name} are {data.train.x.shape[1:]}, but the network takes {shape}; give pictures of that size"
        )
    return data


# -- through Keras -------------------------------------------------------------------------------------------------------------


def _from_keras(name: str, say: Say) -> Dataset:
    try:
        import keras
    except ModuleNotFoundError as err:
        raise MissingPackage(
            f"the data set {name} comes through Keras, which cannot be imported; install it with: pip install tensorflow, or give --data"
        ) from err
    say(f"fetching {name} through Keras, where it is not there yet")
    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as err:  # Keras raises bare Exception where a download fails
        raise InputError(
            f"the data set {name} could not be fetched through Keras: {' '.join(str(err).split()) or type(err).__name__}; "
            "check the connection, or give --data an .npz file with x_train, y_train, x_test and y_test"
        ) from err
    return _checked(name, name, *train, *test, names=NAMES.get(name, ()))


def _clocks(say: Say) -> Dataset:
    from edge.clocks import dataset

    return dataset(say=say)


SOURCES: Mapping[str, Callable[[Say], Dataset]] = {
    **{name: partial(_from_keras, name) for name in ("mnist", "fashion_mnist", "cifar10", "cifar100")},
    "clocks": _clocks,
}


# -- from files ----------------------------------------------------------------------------------------------------------------


def _from_npz(name: str, path: Path) -> Dataset:
    from edge.paths import require_file

    require_file(path, "data set")
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            missing = [array for array in ARRAYS if array not in file.files]
            if missing:
                raise InputError(
                    f"the data set {path} has no array {missing[0]}, expected {', '.join(ARRAYS)}, got {', '.join(file.files) or 'none'}"
                )
            arrays = [np.asarray(file[array]) for array in ARRAYS]
            names = _names(file, path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
        expected = f"expected an .npz file with {', '.join(ARRAYS)}, got none or a damaged one"
        raise InputError(f"the data set {path} cannot be read: {expected}; check the file") from err
    return _checked(name, str(path), *arrays, names=_plain(names, str(path)))


def _names(file: Any, path: Path) -> list[str]:
    """The array of names, where there is one; a single string is the name of something else."""
    if "names" not in file.files:
        return []
    try:
        found = file["names"]
        return list(found.astype(str).ravel().tolist()) if found.ndim else []
    except ValueError as err:  # objects, or bytes beyond ASCII
        raise InputError(f"names of {path} should be an array of strings, one for each class, got none: {err}; store them as such") from err


def _checked(name: str, where: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any, *, names: tuple[str, ...]) -> Dataset:
    found = Dataset(name, _part(where, "train", x_train, y_train), _part(where, "test", x_test, y_test), names)
    largest = max(int(found.train.y.max()), int(found.test.y.max()))
    if names and largest >= len(names):
        raise InputError(f"{where} has names of {len(names)} classes, but labels up to {largest}; give a name for each, or none")
    return found


def _part(where: str, part: str, x: NDArray[Any], y: NDArray[Any]) -> Part:
    """Grey pictures may come without an axis of channels, labels as a column."""
    if x.ndim == 3:
        x = x[..., np.newaxis]
    if x.ndim != 4 or x.dtype != np.uint8:
        raise InputError(f"x_{part} of {where} should be pictures, uint8 (N, H, W, C), got {x.dtype} {x.shape}; give pixels 0..255")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    whole = y.dtype.kind in "iu"
    if y.ndim not in (1, 2) or not whole or len(y) != len(x) or not len(y) or y.min() < 0 or y.max() > _LARGEST_CLASS:
        raise InputError(f"y_{part} of {where} should be the class of each of {len(x)} pictures, whole numbers, got {y.dtype} {y.shape}")
    return Part(np.ascontiguousarray(x), y.astype(np.int64))


def _plain(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Names that files can carry and terminals print, said before a training and not behind it."""
    try:
        return plain_names(names) if names else ()
    except InputError as err:
        raise InputError(f"the names of the classes in {where} cannot be used: {err}") from err


# -- from folders --------------------------------------------------------------------------------------------------------------


def _from_folder(name: str, folder: Path, shape: tuple[int, ...] | None) -> Dataset:
    if shape is None:
        raise InputError(f"the pictures of {folder} need a size to be brought to; give the shape of the network")
    names = tuple(sorted(each.name for each in _entries(folder / "train") if each.is_dir()))
    _plain(names, str(folder / "train"))
    if not names:
        raise InputError(f"the folder {folder} should hold train/CLASS/*.png and test/CLASS/*.png, got no folder of a class in train")
    return Dataset(name, _folder_part(folder / "train", names, shape), _folder_part(folder / "test", names, shape), names=names)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as err:
        raise InputError(f"the folder {folder} cannot be read: {err.strerror}; expected folders train and test, of classes") from err


def _folder_part(folder: Path, names: tuple[str, ...], shape: tuple[int, ...]) -> Part:
    from edge.pictures import SUFFIXES, read_picture
    from edge.preprocess import preset

    unknown = [each.name for each in _entries(folder) if each.is_dir() and each.name not in names]
    if unknown:
        raise InputError(f"the folder {folder} has the class {unknown[0]}, which train has not, expected some of {', '.join(names)}")
    fit = preset("byte")
    x, y = [], []
    for number, name in enumerate(names):
        for file in _entries(folder / name) if (folder / name).is_dir() else ():
            if file.suffix.lower() in SUFFIXES:
                x.append(fit.apply(read_picture(file), shape, dtype=np.dtype(np.uint8)))
                y.append(number)
    if not x:
        raise InputError(f"the folder {folder} holds no pictures, expected {', '.join(SUFFIXES)} in {', '.join(names)}")
    return Part(np.stack(x), np.array(y, np.int64))
