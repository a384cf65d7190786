"""HDF5 read with suspicion: a model file may be anybody's.

Only hard links are followed, so that nothing outside the file is ever opened; attributes are read if they are text, datasets if they
are numbers, in a plain or chunked layout, through HDF5's own filters (an unknown one makes the library search for a plugin to load).
Sizes are checked before memory is taken: an attribute is no larger than the file, and all weights together share one budget. What
cannot be checked from here is the length of a single text: where that is damaged, libhdf5 takes up to 4 GiB before it refuses.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import ModelError

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_WEIGHT_BYTES = 8 << 30
# Weights may be stored compressed: this far and no further.
MAX_EXPANSION = 64
# H5Z filters: deflate, shuffle, fletcher32, and h5py's own lzf.
_FILTERS = frozenset({1, 2, 3, 32000})
# A "global heap collection" of version 1, the only one there is.
_HEAP = b"GCOL\x01\0\0\0"
# What h5py raises for a damaged file, depending on where the damage is.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError, IndexError, AttributeError)


def printable(err: BaseException) -> str:
    """The message of another library, which may quote the file, on one line and without control characters."""
    return ascii(" ".join(str(err).split())[:120])[1:-1]


@contextmanager
def _damage_is_a_model_error(what: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as err:
        raise ModelError(f"{what} cannot be read ({printable(err)}): the file is damaged, copy or save it again") from err


class Hdf5Reader:
    """An HDF5 file in memory; a context manager. `file_bytes` is the size that bounds the weights, by default that of `data`."""

    def __init__(self, data: bytes, *, file_bytes: int | None = None) -> None:
        import h5py

        _check_heaps(data)
        self._size = len(data)
        self._budget = min(MAX_EXPANSION * (file_bytes or len(data)), MAX_WEIGHT_BYTES)
        with _damage_is_a_model_error("the HDF5 data"):
            self._file = h5py.File(io.BytesIO(data), "r")

    def __enter__(self) -> Hdf5Reader:
        return self

    def __exit__(self, *_: object) -> None:
        # A file so damaged that HDF5 cannot even let go of it has nothing to be flushed.
        with _damage_is_a_model_error("the HDF5 data"):
            self._file.close()

    def text(self, path: str, name: str) -> str | None:
        """Text attribute `name` of the group at `path`, None where there is none."""
        values = self._attribute(path, name)
        return None if values is None else "".join(values)

    def names(self, path: str, name: str) -> tuple[str, ...]:
        """List attribute `name`; Keras splits one over 64 KiB into name0, name1, ..."""
        values = self._attribute(path, name)
        if values is not None:
            return tuple(values)
        parts: list[str] = []
        chunk = 0
        while (values := self._attribute(path, f"{name}{chunk}")) is not None:
            parts += values
            chunk += 1
        return tuple(parts)

    def has(self, path: str) -> bool:
        """Is there a group or dataset at `path`, by hard links?"""
        return self._object(path) is not None

    def count(self, path: str) -> int:
        """Number of members of the group at `path`, 0 where there is none."""
        import h5py

        group = self._object(path)
        with _damage_is_a_model_error(f"group {path!r}"):
            return len(group) if isinstance(group, h5py.Group) else 0

    def array(self, path: str) -> np.ndarray[Any, Any]:
        """The numbers at `path`: float32 for every floating type (bfloat16 too), else as stored."""
        import h5py

        dataset = self._object(path)
        if not isinstance(dataset, h5py.Dataset):
            raise ModelError(f"weight {path!r} is missing from the file: save the model again")
        with _damage_is_a_model_error(f"weight {path!r}"):
            _check_storage(dataset, path)
            self._take(_declared_bytes(dataset), path)
            values = np.asarray(dataset[()])
        return _to_float32(values, path)

    def _take(self, size: int, path: str) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ModelError(
                f"weight {path!r} claims {size} bytes, by which the weights exceed {MAX_EXPANSION} times the file's size or "
                f"{MAX_WEIGHT_BYTES >> 30} GiB: the file is damaged or made to exhaust memory, save the model again"
            )

    def _object(self, path: str) -> h5py.Group | h5py.Dataset | None:
        here: Any = self._file
        for part in path.split("/"):
            with _damage_is_a_model_error(f"group {path!r}"):
                here = _child(here, part)
            if here is None:
                return None
        return here

    def _attribute(self, path: str, name: str) -> list[str] | None:
        holder = self._object(path) if path else self._file
        if holder is None:
            return None
        with _damage_is_a_model_error(f"attribute {name!r} of {path or 'the file'!r}"):
            return _read_text(holder, name, self._size)


def _check_heaps(data: bytes) -> None:
    """Walk the heaps that hold text as libhdf5 1.14 does: there, an unused piece of size 0 makes it loop for ever."""
    start = data.find(_HEAP)
    while start >= 0:
        end = start + int.from_bytes(data[start + 8 : start + 16], "little")
        # One that reaches beyond the file is not looped over: libhdf5 refuses to read it, and says that the file is truncated.
        if end <= len(data):
            _check_heap(data, start + 16, end)
        start = data.find(_HEAP, start + 1)


def _check_heap(data: bytes, place: int, end: int) -> None:
    """Each piece is its number (2 bytes, 0: unused), 6 bytes, its size (8 bytes, which counts the header where unused), its bytes."""
    while place + 16 <= end:
        number = int.from_bytes(data[place : place + 2], "little")
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        step = 16 + (size + 7) // 8 * 8 if number else size
        if step < 16 or place + step > end:
            raise ModelError("the HDF5 data cannot be read (a heap's sizes are wrong): the file is damaged, copy or save it again")
        place += step


def _child(group: Any, name: str) -> Any:
    import h5py

    if not isinstance(group, h5py.Group):
        return None
    if name in ("", "."):
        return group
    key = name.encode()
    if not group.id.links.exists(key):
        return None
    if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise ModelError(f"{name!r} is a link to elsewhere, which is not followed: save the model again, as one file")
    return group[name]


def _read_text(holder: Any, name: str, limit: int) -> list[str] | None:
    import h5py

    if name not in holder.attrs:
        return None
    attribute = holder.attrs.get_id(name)
    if h5py.check_string_dtype(attribute.dtype) is None:
        # Keras writes an empty list of names as an empty list of numbers.
        return [] if attribute.shape == (0,) else _refuse_attribute(name, attribute.dtype)
    if math.prod(attribute.shape) * max(attribute.dtype.itemsize, 1) > limit:
        raise ModelError(f"attribute {name!r} claims to be larger than the file: the file is damaged, save the model again")
    values = np.asarray(holder.attrs[name], dtype=object).reshape(-1)
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]


def _refuse_attribute(name: str, dtype: Any) -> list[str]:
    raise ModelError(f"attribute {name!r} should be text but is {dtype}: this is not a Keras model, or it is damaged")


def _check_storage(dataset: Any, path: str) -> None:
    import h5py

    creation = dataset.id.get_create_plist()
    if creation.get_layout() not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED) or creation.get_external_count():
        raise ModelError(f"weight {path!r} keeps its values in another file, which is not read: save the model again, as one file")
    for position in range(creation.get_nfilters()):
        code = creation.get_filter(position)[0]
        if code not in _FILTERS:
            raise ModelError(f"weight {path!r} is compressed by filter {code}, which is not supported: save it uncompressed")


def _declared_bytes(dataset: Any) -> int:
    """Bytes in memory of the dataset, or of one of its chunks if that is larger."""
    chunk = dataset.chunks or ()
    return int(max(math.prod(dataset.shape), math.prod(chunk)) * dataset.dtype.itemsize)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether values are those of bfloat16, which HDF5 does not know and h5py stores as two opaque bytes."""
    return dtype.kind == "V" and dtype.names is None and dtype.itemsize == 2


def widened(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values of bfloat16 as float32, of which they are the upper half."""
    return (np.ascontiguousarray(values).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _to_float32(values: np.ndarray[Any, Any], path: str) -> np.ndarray[Any, Any]:
    if is_bfloat16(values.dtype):
        return widened(values)
    if values.dtype.kind in "iub":
        return values
    if values.dtype.kind != "f":
        raise ModelError(f"weight {path!r} is of type {values.dtype}, expected numbers: save the model again")
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, copy=False)
