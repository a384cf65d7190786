"""Memory between pages that nobody may touch: an access out of bounds ends the process, where it would otherwise go unnoticed.

In place of `edge.memory.aligned`, with its promises: 64-byte alignment and 64 spare bytes behind the end, which may be read but mean
nothing.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import edge.engine
import edge.kernels.registry
import edge.memory
from edge.kernels.isa import Machine
from edge.program import ALIGNMENT, SPARE_BYTES, Program

_NOBODY = 0  # PROT_NONE


def fenced(nbytes: int, *, at_end: bool, spare: int) -> np.ndarray:
    """Zeroed uint8 that end (`at_end`) or start at a fence, up to the alignment; the spare bytes are filled with `spare`."""
    page = mmap.PAGESIZE
    inside = -(-(nbytes + SPARE_BYTES) // page) * page
    whole: np.ndarray = np.frombuffer(mmap.mmap(-1, inside + 2 * page), np.uint8)
    for fence in (0, page + inside):
        _protect(whole.ctypes.data + fence, page)
    start = page + inside - SPARE_BYTES - -(-nbytes // ALIGNMENT) * ALIGNMENT if at_end else page
    whole[start + nbytes : start + nbytes + SPARE_BYTES] = spare
    return whole[start : start + nbytes]


def _protect(address: int, nbytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), _NOBODY) != 0:
        raise OSError(ctypes.get_errno(), "mprotect failed")


@contextmanager
def fences(program: Program, *, at_end: bool, spare: int) -> Iterator[Program]:
    """`program` with fenced constants; while it lasts, arena, scratch and tables of engines that are made are fenced too."""

    def aligned(nbytes: int) -> np.ndarray:
        return fenced(nbytes, at_end=at_end, spare=spare)

    blob = aligned(program.blob.nbytes)
    blob[:] = program.blob
    class Pages(edge.memory.Pages):
        def take(self, nbytes: int) -> np.ndarray:
            return aligned(nbytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge.engine, "aligned", aligned)
        patch.setattr(edge.kernels.registry, "Pages", Pages)
        yield replace(program, blob=blob)


def run_fenced(program: Program, x: np.ndarray, *, machine: Machine | None = None) -> list[np.ndarray]:
    """The outputs for `x`, with the memory's end and with its start at a fence, and with other spare bytes; all must be the same."""
    first, second = (_run(program, x, machine, at_end, spare) for at_end, spare in ((True, 0xFF), (False, 0x00)))
    if [output.tobytes() for output in first] != [output.tobytes() for output in second]:
        raise ArithmeticError("an output depends on bytes that mean nothing")
    return first


def _run(program: Program, x: np.ndarray, machine: Machine | None, at_end: bool, spare: int) -> list[np.ndarray]:
    with fences(program, at_end=at_end, spare=spare) as moved:
        outputs = edge.engine.Engine(moved, machine=machine).run(x)
    return outputs if isinstance(outputs, list) else [outputs]
