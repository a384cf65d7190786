"""Memory that kernels read and write, in whole pages of its own, so that it can be seen from outside.

Where the system has POSIX mappings, every buffer is a private mapping between two pages that nobody may touch: it is one line of
`/proc/self/smaps`, of a size known beforehand (`mapped_bytes`), and a kernel that left it would be stopped. Elsewhere it is NumPy's memory.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os

import numpy as np

from edge.program import ALIGNMENT, SPARE_BYTES

PAGE_BYTES = mmap.PAGESIZE
_HUGE_BYTES = 4 << 20  # from here on large pages are asked for, as NumPy does
_RESERVED_BYTES = 1 << 20
_SHIFT_BYTES = 9 * ALIGNMENT  # lines of a page by which tensors lie apart from constants
_NO_ACCESS, _READ_WRITE, READ_EXECUTE = 0, 3, 5  # PROT_NONE, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC


def aligned(nbytes: int) -> np.ndarray:
    """Zeroed uint8 of `nbytes`, starting on a 64-byte boundary and followed by 64 spare bytes. Raises MemoryError where there is none."""
    mapped = mapped_bytes(nbytes)
    return _fenced(mapped, mapped)[:nbytes]


def mapped_bytes(nbytes: int) -> int:
    """Bytes of the pages that `aligned` takes for `nbytes`."""
    return _whole(nbytes + SPARE_BYTES, PAGE_BYTES)


def aligned_apart(nbytes: int) -> np.ndarray:
    """As `aligned`, but some lines behind the start of a page.

    A first-level cache has few places for lines that lie whole pages apart. Filters and pixels of many channels do, so that a depthwise
    convolution of 512 channels took a third longer where constants and tensors both began with a page.
    """
    return aligned(nbytes + _SHIFT_BYTES)[_SHIFT_BYTES:]


def mapped_bytes_apart(nbytes: int) -> int:
    """Bytes of the pages that `aligned_apart` takes for `nbytes`."""
    return mapped_bytes(nbytes + _SHIFT_BYTES)


class Pages:
    """Buffers as `aligned` gives them, one behind the other in few mappings that grow page by page: for many small ones."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._used = 0
        self._before = (0, 0)  # bytes used and mapped of the mappings that are full

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, each filled up to a multiple of 64."""
        return self._before[0] + self._used

    @property
    def mapped_bytes(self) -> int:
        """Bytes of their pages."""
        return self._before[1] + (mapped_bytes(self._used) if self._used else 0)

    def take(self, nbytes: int) -> np.ndarray:
        """A buffer that lives as long as somebody refers to it or to one of its mapping."""
        taken = _whole(nbytes, ALIGNMENT)
        if mapped_bytes(self._used + taken) > len(self._memory):
            self._before = self.nbytes, self.mapped_bytes
            self._used, self._memory = 0, _fenced(0, mapped_bytes(max(_RESERVED_BYTES, 2 * taken)))
        before, after = mapped_bytes(self._used) if self._used else 0, mapped_bytes(self._used + taken)
        if after > before:
            protect(self._memory.ctypes.data + before, after - before, _READ_WRITE)
        start, self._used = self._used, self._used + taken
        return self._memory[start : start + nbytes]


def _fenced(usable: int, reserved: int) -> np.ndarray:
    """Zeroed uint8 of `reserved` bytes between two fences, of which the first `usable` may be touched; both are whole pages."""
    if os.name != "posix":
        return _numpy(reserved)
    try:
        whole = mmap.mmap(-1, reserved + 2 * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=_READ_WRITE)
    except (OSError, OverflowError, ValueError) as err:
        raise MemoryError(f"cannot map {reserved} bytes") from err
    if usable >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        _ask_for_large_pages(whole)
    # Of the memory between the fences, so that no array, nor a base of one, has the fences in it.
    memory: np.ndarray = np.frombuffer(memoryview(whole)[PAGE_BYTES : PAGE_BYTES + reserved], np.uint8)
    protect(memory.ctypes.data - PAGE_BYTES, PAGE_BYTES, _NO_ACCESS)
    protect(memory.ctypes.data + usable, reserved - usable + PAGE_BYTES, _NO_ACCESS)
    return memory


def _ask_for_large_pages(memory: mmap.mmap) -> None:
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return  # a kernel without them


def _numpy(nbytes: int) -> np.ndarray:
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def protect(address: int, nbytes: int, access: int) -> None:
    """Allow this `access` to whole pages, where the system is a POSIX one. Raises MemoryError."""
    if os.name != "posix":
        return
    if _library().mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), ctypes.c_int(access)) != 0:
        raise MemoryError(f"cannot protect {nbytes} bytes of memory: {os.strerror(ctypes.get_errno())}")


def _whole(nbytes: int, unit: int) -> int:
    return -(-nbytes // unit) * unit
