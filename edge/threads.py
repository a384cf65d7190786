"""Helper threads of an engine: parked in a semaphore between inferences, dropped after a fork.

Where the C library has no unnamed semaphores (macOS, Windows), engines run on one thread.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.kernels.cache import KERNEL
from edge.kernels.loop import ACTIVE, CLOSED, CONTROL_WORDS, GROUP, LINE_BYTES, STATE_BYTES
from edge.memory import aligned

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@functools.cache
def _semaphores() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        found = all(hasattr(library, name) for name in ("sem_init", "sem_post", "sem_wait", "sched_yield"))
    except (OSError, TypeError):
        return None
    return library if found and os.uname().sysname == "Linux" else None


def usable_cores() -> int:
    """Cores this process may use: its affinity mask, and the quota of its control group rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or "max"
        return cores


def most_threads() -> int:
    """The threads an engine may use: all usable cores; 1 where threads cannot be parked."""
    return 1 if _semaphores() is None else usable_cores()


def groups_of(parts: Sequence[int]) -> np.ndarray:
    """(first record, last + 1, parts) of every group: neighbouring records of one part together, others alone."""
    groups: list[tuple[int, int, int]] = []
    for i, count in enumerate(parts):
        if count == 1 and groups and groups[-1][2] == 1:
            groups[-1] = (groups[-1][0], i + 1, 1)
        else:
            groups.append((i, i + 1, count))
    return np.array(groups, np.int64).reshape(-1, GROUP)


# Work a microsecond of one thread gets done, by the start of the kernel's name: rough, since it decides only what is worth splitting.
_WORK_PER_MICROSECOND = {
    "conv2d_bits": 300_000, "conv2d_u8i8": 80_000, "conv2d_i8i8": 80_000, "conv2d_f32": 30_000, "depthwise_conv2d": 20_000, "": 8_000,
}  # fmt: skip
_WORTH_SPLITTING_MICROSECONDS = 10.0
_PARTS_PER_THREAD = 4


def parts_for(kernel: str, work: int, threads: int) -> int:
    """Into how many parts to split a kernel call so that `threads` share it well; 1 where it is too short to be shared."""
    rate = next(rate for start, rate in _WORK_PER_MICROSECOND.items() if kernel.startswith(start))
    microseconds = work / rate
    if threads == 1 or microseconds < _WORTH_SPLITTING_MICROSECONDS:
        return 1
    return min(_PARTS_PER_THREAD * threads, max(threads, int(microseconds / _WORTH_SPLITTING_MICROSECONDS)))


class Pool:
    """The helper threads of one engine and the memory they share with the thread that calls it."""

    def __init__(self, helpers: int, records: np.ndarray, scratch_bytes: int, helper_address: int, pointers: tuple[int, int]) -> None:
        self.helpers = helpers
        self._groups = groups_of([int(parts) for parts in records[:, 2]])
        self._counters = aligned(2 * LINE_BYTES * max(1, len(self._groups)))
        self._state = aligned(STATE_BYTES)
        self._semaphores = aligned(LINE_BYTES * helpers)
        self._scratch = [aligned(scratch_bytes) for _ in range(helpers)]
        self._process = os.getpid()
        self.control = np.zeros(CONTROL_WORDS, np.int64)
        self.control[:] = (
            records.ctypes.data, self._groups.ctypes.data, len(self._groups), self._counters.ctypes.data, self._state.ctypes.data,
            scratch_bytes,
        )  # fmt: skip
        self._keep = records
        self._start(helper_address, pointers)

    def _start(self, helper_address: int, pointers: tuple[int, int]) -> None:
        library = _semaphores()
        assert library is not None
        helper = KERNEL(helper_address)
        self._threads = []
        for number, scratch in enumerate(self._scratch):
            semaphore = self.semaphore + LINE_BYTES * number
            library.sem_init(ctypes.c_void_p(semaphore), 0, 0)
            args = (self.control.ctypes.data, *pointers, scratch.ctypes.data, semaphore, 0)
            thread = threading.Thread(target=helper, args=args, daemon=True, name=f"edge-helper-{number}")
            thread.start()
            self._threads.append(thread)

    @property
    def semaphore(self) -> int:
        """The address of the first helper's semaphore (32 bytes of glibc's); the others follow at 128 bytes."""
        return int(self._semaphores.ctypes.data)

    @property
    def nbytes(self) -> int:
        """Bytes of the helpers' scratch memory and of what threads share."""
        shared = (self._groups, self._counters, self._state, self._semaphores, self.control, *self._scratch)
        return sum(array.nbytes for array in shared)

    @property
    def usable(self) -> bool:
        """False in a process forked from the one that started the threads: they are not there."""
        return os.getpid() == self._process

    @property
    def active(self) -> int:
        """Helpers inside an inference."""
        return int(self._state[ACTIVE : ACTIVE + 8].view(np.int64)[0])

    def close(self) -> None:
        """Let the threads end, and wait for them."""
        library = _semaphores()
        if not self.usable or library is None:
            return
        self._state[CLOSED : CLOSED + 8].view(np.int64)[0] = 1
        for number in range(self.helpers):
            library.sem_post(ctypes.c_void_p(self.semaphore + LINE_BYTES * number))
        for thread in self._threads:
            thread.join()


def close_with(owner: object, pool: Pool) -> None:
    """End the pool's threads when its owner is gone."""
    weakref.finalize(owner, pool.close)
