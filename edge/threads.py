"""Helper threads of an engine: parked in a semaphore between inferences, dropped after a fork.

Where the C library has no unnamed semaphores (macOS, Windows), engines run on one thread.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.arena import round_up
from edge.kernels.cache import KERNEL
from edge.kernels.loop import CLOSED, CONTROL_WORDS, GROUP, LINE_BYTES, MOST_PARTS, NOTHING_TO_DO, STATE_BYTES, TICKET
from edge.memory import aligned
from edge.program import SPARE_BYTES

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@functools.cache
def _semaphores() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        found = all(hasattr(library, name) for name in ("sem_init", "sem_post", "sem_wait", "sched_yield", "sched_getcpu"))
    except (OSError, TypeError):
        return None
    return library if found and os.uname().sysname == "Linux" else None


def _this_core() -> int:
    """The core the calling thread runs on."""
    library = _semaphores()
    return -1 if library is None else int(library.sched_getcpu())


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


# Work (`Lowered.work`) that one thread of a core with AVX-512 does in a microsecond, by the start of the kernel's name: rounded from the
# layers of benchmarks/results/bench.json, and from elementwise operations on 50,000 to 200,000 float32 (10,000 to 20,000 values). It says
# what is worth splitting, and into how many parts. Narrower vectors and slower cores take two to ten times as long, as do layers of few
# pixels, which wait for memory: what is split there is worth it all the more, and of what is left whole they could have shared some.
_WORK_PER_MICROSECOND = {
    "conv2d_bits": 1_000_000, "conv2d_u8": 200_000, "conv2d_i8": 200_000, "conv2d_f32": 50_000, "depthwise_conv2d": 30_000, "": 12_000,
}  # fmt: skip
_WORTH_SPLITTING_MICROSECONDS = 10.0
_PARTS_PER_THREAD = 4


def parts_for(kernel: str, work: int, threads: int) -> int:
    """Into how many parts to split a kernel call so that `threads` share it well; 1 where it is too short to be shared."""
    rate = next(rate for start, rate in _WORK_PER_MICROSECOND.items() if kernel.startswith(start))
    microseconds = work / rate
    if threads == 1 or microseconds < _WORTH_SPLITTING_MICROSECONDS:
        return 1
    return min(MOST_PARTS, _PARTS_PER_THREAD * threads, max(threads, int(microseconds / _WORTH_SPLITTING_MICROSECONDS)))


_TRIAL = 3
_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 16, {False: 256, True: 64}  # by whether inferences are shared
_RECENT = 1 / 8  # weight of the last inference in what is typical
_SLOWER = 1.3
_HOPELESS = 1.5


class Sharing:
    """Whether the next inference shall be shared with the helpers, judged by how long the last ones took.

    One way is in use, the other is tried from time to time: `_TRIAL` inferences in a row, of which the first warms up. Whichever was faster
    stays; while that is the same one, trials become rarer. Shared inferences that become slower bring on a trial at once. So helpers that
    come late, or cores that are busy with something else, cost a few inferences, not all of them. The first inferences run on one thread.
    """

    def __init__(self) -> None:
        self.shared = False
        self._used = False  # the way in use; `shared` differs from it during a trial
        self._typical = 0.0  # seconds of the way in use, smoothed; 0 before the first
        self._expected = 0.0  # what that was when the way was chosen
        self._interval = _SHORTEST_INTERVAL
        self._wait = _TRIAL
        self._trial: list[float] = []

    def note(self, seconds: float) -> None:
        """Take note of how long an inference took that was run the way `shared` says, and decide on the next."""
        if self.shared != self._used:
            self._note_trial(seconds)
            return
        self._typical += (seconds - self._typical) * (_RECENT if self._typical else 1.0)
        self._wait -= 1
        got_slower = self._used and self._typical > _SLOWER * self._expected
        if self._wait <= 0 or got_slower:
            self.shared = not self._used

    def _note_trial(self, seconds: float) -> None:
        self._trial.append(seconds)
        counted = self._trial[1:]
        hopeless = bool(counted) and counted[-1] > _HOPELESS * self._typical
        if len(self._trial) < _TRIAL and not hopeless:
            return
        mean = sum(counted) / len(counted)
        if mean < self._typical:
            self._used, self._typical, self._interval = self.shared, mean, _SHORTEST_INTERVAL
        else:
            self._interval = min(self._interval * (4 if hopeless else 2), _LONGEST_INTERVAL[self._used])
        self.shared, self._expected, self._wait, self._trial = self._used, self._typical, self._interval, []


def pool_sizes(helpers: int, groups: int, scratch_bytes: int) -> tuple[int, ...]:
    """Bytes of the parts of a pool's memory: state, helpers' lines, control block, groups, and a scratch for each helper."""
    own = round_up(scratch_bytes + SPARE_BYTES) if scratch_bytes else 0
    return STATE_BYTES, LINE_BYTES * helpers, round_up(8 * CONTROL_WORDS), round_up(8 * GROUP * groups), *(own,) * helpers


def _cut(memory: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [memory[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _as_rows(memory: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A copy of `rows` in `memory`."""
    copy: np.ndarray = memory[: rows.nbytes].view(rows.dtype).reshape(rows.shape)
    copy[...] = rows
    return copy


@dataclass(frozen=True)
class Entries:
    """Addresses of the machine code that runs an inference: on one thread, by the leader of several, and in a helper."""

    loop: int
    lead: int
    helper: int


class Pool:
    """The helper threads of one engine, and the memory they share with the thread that calls it.

    Memory is taken at once, threads are started by the first inference that is shared. They are kept off the core of the calling thread and
    off each other's: woken ones are otherwise put on the caller's core every now and then, and stay there, waiting for it to be done.
    """

    def __init__(
        self, helpers: int, records: np.ndarray, entries: Entries, arena: np.ndarray, constants: np.ndarray, scratch: np.ndarray
    ) -> None:
        self.helpers = helpers
        self.sharing = Sharing()
        parts = [int(count) for count in records[:, 2]]
        groups = groups_of(parts)
        sizes = pool_sizes(helpers, len(groups), scratch.nbytes)
        self._owned = aligned(sum(sizes))
        self._state, self._lines, control, listed, *self._scratch = _cut(self._owned, sizes)
        self._control, self._groups = control[: 8 * CONTROL_WORDS].view(np.int64), _as_rows(listed, groups)
        shared = [i for i, (_, _, count) in enumerate(self._groups) if count > 1]
        addresses = (records.ctypes.data, self._groups.ctypes.data, len(self._groups), shared[-1], self._state.ctypes.data)
        self._control[:] = *addresses, scratch.nbytes
        self._keep = (records, arena, constants, scratch)
        alone, owned, block = (array.ctypes.data for array in (records, scratch, self._control))
        memory = (arena.ctypes.data, constants.ctypes.data)
        self._memory = memory
        self._alone = functools.partial(KERNEL(entries.loop), alone, *memory, owned, 0, len(records))
        self._shared = functools.partial(KERNEL(entries.lead), block, *memory, owned, self._lines.ctypes.data, helpers)
        self._helper = KERNEL(entries.helper)
        self._threads: list[threading.Thread] = []
        self._core = -1

    def infer(self) -> None:
        """Run one inference, on one thread or several, whichever is faster."""
        started = time.perf_counter()
        if self.sharing.shared:
            self.infer_shared()
        else:
            self._alone()
        self.sharing.note(time.perf_counter() - started)

    def infer_shared(self) -> None:
        """Run one inference with the helpers."""
        if not self._threads:
            self._start()
        core = _this_core()
        if core != self._core:
            self._place(core)
        self._shared()

    def _start(self) -> None:
        library = _semaphores()
        assert library is not None
        self._state[:] = 0
        self._lines[:] = 0
        self._word(TICKET)[0] = NOTHING_TO_DO
        for number, scratch in enumerate(self._scratch):
            line = self._line(number)
            library.sem_init(ctypes.c_void_p(line), 0, 0)
            args = (self._control.ctypes.data, *self._memory, scratch.ctypes.data, line, 0)
            thread = threading.Thread(target=self._helper, args=args, daemon=True, name=f"edge-helper-{number}")
            thread.start()
            self._threads.append(thread)

    def _place(self, core: int) -> None:
        """Share the cores the calling thread may use, but for its own, among the helpers."""
        others = sorted(os.sched_getaffinity(0) - {core})
        for number, thread in enumerate(self._threads):
            cores = others[number :: self.helpers] or others
            if cores and thread.native_id is not None:
                os.sched_setaffinity(thread.native_id, cores)
        self._core = core

    def _line(self, number: int) -> int:
        """The address of a helper's line: the semaphore (32 bytes of glibc's) and whether it sleeps."""
        return int(self._lines.ctypes.data) + LINE_BYTES * number

    def _word(self, offset: int) -> np.ndarray:
        return self._state[offset : offset + 8].view(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the helpers' scratch memory and of what threads share."""
        return self._owned.nbytes

    def forget(self) -> None:
        """In a process forked from the one that started the threads: they are not there."""
        self._threads, self._core = [], -1

    def close(self) -> None:
        """Let the threads end, and wait for them."""
        library = _semaphores()
        if not self._threads or library is None:
            return
        self._word(CLOSED)[0] = 1
        for number in range(self.helpers):
            library.sem_post(ctypes.c_void_p(self._line(number)))
        for thread in self._threads:
            thread.join()
        self._threads = []


def close_with(owner: object, pool: Pool) -> None:
    """End the pool's threads when its owner is gone."""
    weakref.finalize(owner, pool.close)
