"""Arrays in `.npy` and `.npz` files, read item by item, trusting nothing in the file.

The header is read and checked against the size of the file before any memory is asked for. Objects (pickles) are never
loaded. A `.npy` file is read item by item, by seeking (a memory map would kill the process where the file is rewritten
underneath); a member of an `.npz`, being compressed, is read whole.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

# What is read whole must fit in memory; this also bounds what a small, highly compressed file can ask for.
MAX_WHOLE_BYTES = 2 << 30

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_HEADER_ERRORS = (
    ValueError, TypeError, LookupError, EOFError, SyntaxError, OverflowError, RecursionError, MemoryError,
    AttributeError, UnicodeError, struct.error, tokenize.TokenError,
)  # fmt: skip
_ARCHIVE_ERRORS = (
    OSError, ValueError, EOFError, RuntimeError, NotImplementedError, LookupError, OverflowError, UnicodeError,
    struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
# Others have their own exceptions and are not what numpy.savez_compressed writes.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_CHUNK_BYTES = 1 << 20
# NumPy itself refuses more than 10,000 bytes of header, behind at most 12 of magic, version and length.
_MAX_HEADER_BYTES = 10_012


@dataclass(frozen=True)
class Header:
    """What a stored array says of itself. data_offset: bytes from the beginning to the values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    data_offset: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], name: str) -> Header:
    """The header of an array in NumPy's format, of plain numbers, from a file at its beginning.

    The position of the file is left undefined. Raises InputError naming `name` for anything else.
    """
    # NumPy asks the file for as many bytes as the header says, up to 4 GiB: it gets a piece of the file instead.
    start = io.BytesIO(file.read(_MAX_HEADER_BYTES))
    try:
        with warnings.catch_warnings():
            # NumPy warns of headers that Python 2 wrote, and reads them.
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(start)
            shape, fortran_order, dtype = _READERS[version](start)
    except _HEADER_ERRORS as err:
        raise InputError(
            f"cannot read {name}: expected an array written by numpy.save or numpy.savez, but its header is damaged or "
            f"of another kind ({_reason(err)}); save it again"
        ) from err
    if dtype.hasobject or dtype.kind not in "uif":
        raise InputError(f"cannot read {name}: expected an array of numbers, got {dtype}; save it as uint8")
    if not shape or min(shape) < 1:
        raise InputError(f"cannot read {name}: expected an array that holds pictures, got one of shape {shape}")
    return Header(shape, dtype, fortran_order, start.tell())


def npy_header(path: Path) -> Header:
    """The header of a `.npy` file. Raises InputError where it is damaged, or the file is shorter than it says."""
    try:
        with path.open("rb") as file:
            header = read_header(file, str(path))
            stored_bytes = path.stat().st_size - header.data_offset
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror or err}; check the path") from err
    if stored_bytes < header.data_bytes:
        raise _too_short(str(path), header, stored_bytes)
    return header


def npy_reader(path: Path, header: Header, *, single: bool = False) -> Callable[[int], NDArray[Any]]:
    """A function that reads item i (along the first axis) of a `.npy` file.

    single: the array is itself the one item, whatever the index. The function raises InputError where the file has
    changed or cannot be read.
    """
    if single:
        return lambda index: _read_npy(path, header, None)
    if not header.fortran_order:
        return lambda index: _read_npy(path, header, index)
    whole = _read_npy(path, header, None)
    return lambda index: whole[index]


def npz_members(path: Path) -> tuple[str, ...]:
    """The names of the arrays in an `.npz` file. Raises InputError where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    except _ARCHIVE_ERRORS as err:
        raise _damaged_archive(path, err) from err


def npz_header(path: Path, member: str) -> Header:
    """The header of one array of an `.npz` file. Raises InputError where it is damaged or no array of numbers."""
    with _member(path, member) as file:
        return read_header(file, f"{member} of {path}")


def read_npz(path: Path, member: str) -> NDArray[Any]:
    """One array of an `.npz` file. Raises InputError where it is damaged, no array of numbers, or over 2 GiB."""
    name = f"{member} of {path}"
    header = npz_header(path, member)
    with _member(path, member) as file:
        file.read(header.data_offset)
        values = _read_values(file, header, name)
        if file.read(1):  # At the end of a member its checksum is verified.
            raise InputError(f"cannot read {name}: it is longer than its header says; save it again")
    return values


def _read_npy(path: Path, header: Header, index: int | None) -> NDArray[Any]:
    """Item `index` of a file in C order, or all of a file in any."""
    name = str(path)
    part = header if index is None else replace(header, shape=header.shape[1:] or (1,))
    try:
        with path.open("rb") as file:
            file.seek(header.data_offset + (index or 0) * part.data_bytes)
            return _read_values(file, part, name)
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror or err}; check the path") from err


def _read_values(file: IO[bytes], header: Header, name: str) -> NDArray[Any]:
    if header.data_bytes > MAX_WHOLE_BYTES:
        raise InputError(
            f"cannot read {name}: expected at most {MAX_WHOLE_BYTES >> 30} GiB at once, got {header.data_bytes} bytes; "
            "save it as .npy in C order, which is read item by item"
        )
    try:
        content = bytearray(header.data_bytes)
    except MemoryError as err:
        raise InputError(f"cannot read {name}: not enough memory for {header.data_bytes} bytes; save less") from err
    read_bytes = _fill(file, memoryview(content))
    if read_bytes < header.data_bytes:
        raise _too_short(name, header, read_bytes)
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.fortran_order else "C")


def _fill(file: IO[bytes], content: memoryview) -> int:
    """Bytes read, in pieces: a compressed member would otherwise be held twice."""
    position = 0
    while piece := file.read(min(_CHUNK_BYTES, len(content) - position)):
        content[position : position + len(piece)] = piece
        position += len(piece)
    return position


@contextmanager
def _member(path: Path, member: str) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{member}.npy")
            if info.compress_type not in _COMPRESSIONS:
                raise zipfile.BadZipFile(f"compression {info.compress_type}")
            with archive.open(info) as file:
                yield file
    except _ARCHIVE_ERRORS as err:
        raise _damaged_archive(path, err) from err


def _damaged_archive(path: Path, err: Exception) -> InputError:
    return InputError(
        f"cannot read {path}: expected an archive written by numpy.savez, but it is damaged or of another kind "
        f"({_reason(err)}); save it again"
    )


def _too_short(name: str, header: Header, stored_bytes: int) -> InputError:
    return InputError(
        f"cannot read {name}: expected {header.data_bytes} bytes of values for shape {header.shape} of {header.dtype}, "
        f"got {stored_bytes}; the file was cut short, copy it again"
    )


def _reason(err: BaseException) -> str:
    """The first line of an error, shortened: NumPy quotes whole headers."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:120]
