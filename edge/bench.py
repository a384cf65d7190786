"""Latency of models on this machine: warm, cold, on one thread and on several, each beside the others.

Subjects of one number of threads take turns in rounds (`edge.bench_rounds`), so that a ratio is that of neighbouring rounds. Of each are
taken

    warm      every call of its rounds: the calls before kept what they need in the caches
    first     the first call after the file was loaded, once for each of up to `LOADS` loads
    flushed   a call after memory of twice the largest cache was written: model, input and Python are out of the caches of the calling
              core and the shared ones

The input is in place; a call from Python is what is timed. `bench` is for programs, `edge bench` for people.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bench_machine import Clock, clock_now, clock_remarks, flush_bytes, processor_name, spin, versions
from edge.bench_models import Loaded, Subject, Subjects, load
from edge.bench_rounds import WARM_UP_SECONDS, Call, Contender, Timing, ratio_quartiles, take_turns
from edge.errors import InputError, MissingPackage
from edge.threads import most_threads, usable_cores

SECONDS = 5.0
LOADS, FLUSHED = 5, 30  # at most
LEAST_FLUSHED, LEAST_ROUNDS = 3, 3
_LOADING, _WARMING, _ROUNDS, _FLUSHING = 0.1, 0.1, 0.6, 0.2  # shares of the time
_SPIN = ""  # among the names of subjects
_CALLS_FOR = {95: 20, 99: 100}  # a percentile of fewer calls is that of one of them

Seconds = NDArray[np.float64]
Progress = Callable[[str, float], None]
"""Told of what is being measured and of the share of the time that is over."""


@dataclass(frozen=True, eq=False)
class Row:
    """One subject on so many threads.

    latencies_s: of every warm call; rounds: the means of calls in a row; first_s, flushed_s: cold calls.
    times: lower quartile, median and upper quartile of how many times as long it took as the first subject, over neighbouring rounds.
    """

    name: str
    backend: str
    threads: int
    latencies_s: Seconds
    rounds: Timing
    first_s: tuple[float, ...]
    flushed_s: tuple[float, ...]
    times: tuple[float, float, float]

    @property
    def full_name(self) -> str:
        return f"{self.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def percentile_s(self, percent: int) -> float | None:
        """A percentile of the warm calls; None where there were too few to tell it from the slowest."""
        return float(np.percentile(self.latencies_s, percent)) if len(self.latencies_s) >= _CALLS_FOR.get(percent, 1) else None

    def to_json(self) -> dict[str, Any]:
        low, middle, high = self.times
        return {
            "name": self.name,
            "backend": self.backend,
            "threads": self.threads,
            "calls": len(self.latencies_s),
            "min_s": float(self.latencies_s.min()),
            "mean_s": float(self.latencies_s.mean()),
            "p50_s": self.percentile_s(50),
            "p95_s": self.percentile_s(95),
            "p99_s": self.percentile_s(99),
            "first_s": list(self.first_s),
            "flushed_s": list(self.flushed_s),
            "rounds": self.rounds.to_json(),
            "times_as_long": {"median": middle, "quartiles": [low, high]},
        }


@dataclass(frozen=True)
class Run:
    """All rows, what is absent and why, and the machine.

    flush_bytes: what was written before each flushed call.
    spin_s: of `edge.bench_machine.spin` amid the rounds, the shortest: that tells the clock, not who else kept the core busy.
    """

    rows: tuple[Row, ...]
    absent: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    before: Clock
    after: Clock
    seconds: float
    flush_bytes: int
    machine: Mapping[str, Any]
    spin_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [row.to_json() for row in self.rows],
            "absent": [{"name": name, "reason": reason} for name, reason in self.absent],
            "remarks": list(self.remarks),
            "seconds": self.seconds,
            "flush_bytes": self.flush_bytes,
            "spin_s": self.spin_s,
            "machine": dict(self.machine),
            "clock": {"before": self.before.to_json(), "after": self.after.to_json(), "not_available": list(self.after.missing)},
        }


def thread_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on up to `most`, which is the last."""
    doubled = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return (*doubled, most)


def bench(
    found: Subjects,
    *,
    threads: Sequence[int] | None = None,
    seconds: float = SECONDS,
    progress: Progress = lambda what, share: None,
    compiling: Callable[[int, int], None] | None = None,
) -> Run:
    """Time subjects in about so many seconds (more where a few calls take longer).

    threads     numbers of threads, each measured by itself; by default 1, 2, 4 and so on up to the usable cores
    compiling   told of kernels being compiled, (done, total); that is not timed and not part of the seconds

    Raises `InputError` for threads that are not there, `FormatError` for a damaged file, `MissingPackage` where nothing can be run.
    """
    counts = _checked(threads)
    before = clock_now()
    rows, absent, spins = [], list(found.absent), list[float]()
    for i, count in enumerate(counts):

        def tell(share: float, count: int = count, done: int = i) -> None:
            progress(f"{count} thread{'s' if count > 1 else ''}", (done + share) / len(counts))

        group = _Group(count, seconds / len(counts), tell)
        rows += group.measure(found.subjects, compiling)
        absent += [each for each in group.absent if each not in absent]
        spins += group.spins
    after = clock_now()
    remarks = (*found.remarks, *clock_remarks(before, after))
    return Run(tuple(rows), tuple(absent), remarks, before, after, seconds, flush_bytes(), machine(), min(spins))


def _checked(threads: Sequence[int] | None) -> tuple[int, ...]:
    if threads is None:
        return thread_counts(most_threads())
    wrong = [count for count in threads if not 1 <= count <= usable_cores()]
    if wrong or not threads:
        received = wrong[0] if wrong else "none"
        raise InputError(f"threads should be 1 to {usable_cores()}, the cores this process may use, got {received}; ask for fewer")
    return tuple(dict.fromkeys(threads))


def machine() -> dict[str, Any]:
    """What figures depend on, without names of the machine or its user."""
    from edge.kernels.isa import detect

    found = detect()
    return {
        "processor": f"{processor_name()} ({found.cpu})",
        "cores": usable_cores(),
        "instruction_set": found.isa.name,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }


# -- one number of threads -----------------------------------------------------------------------------------------------------


class _Group:
    """Subjects on one number of threads, measured in about so many seconds.

    absent: those that nothing here runs, and why; spins: seconds of the fixed loop, which took its turn in every round.
    """

    def __init__(self, threads: int, seconds: float, tell: Callable[[float], None]) -> None:
        self._threads, self._seconds, self._tell = threads, seconds, tell
        self.absent: list[tuple[str, str]] = []
        self.spins: list[float] = []

    def measure(self, subjects: Sequence[Subject], compiling: Callable[[int, int], None] | None) -> list[Row]:
        self._tell(0.0)
        loaded, firsts = self._load(subjects, compiling)
        self._tell(_LOADING)
        warm_up_s = min(WARM_UP_SECONDS, _WARMING * self._seconds / len(loaded))
        contenders = {name: Contender(each.call, warm_up_s=warm_up_s, each=True) for name, each in loaded.items()}
        self._take_turns(contenders)
        flushed = self._flushed(loaded)
        reference = next(iter(contenders.values())).timing
        return [
            Row(
                name,
                each.backend,
                self._threads,
                np.array(contenders[name].latencies_s),
                contenders[name].timing,
                firsts[name],
                flushed[name],
                ratio_quartiles(contenders[name].timing, reference),
            )
            for name, each in loaded.items()
        ]

    def _take_turns(self, contenders: Mapping[str, Contender]) -> None:
        start, clock = _LOADING + _WARMING, Contender(spin, warm_up_s=0.0)
        take_turns(
            {_SPIN: clock, **contenders},
            seconds=_ROUNDS * self._seconds,
            least=LEAST_ROUNDS,
            progress=lambda share: self._tell(start + _ROUNDS * share),
        )
        self.spins = clock.seconds

    def _load(
        self, subjects: Sequence[Subject], compiling: Callable[[int, int], None] | None
    ) -> tuple[dict[str, Loaded], dict[str, tuple[float, ...]]]:
        """Every subject loaded, and the seconds of its first calls."""
        loaded: dict[str, Loaded] = {}
        firsts: dict[str, tuple[float, ...]] = {}
        missing: MissingPackage | None = None
        share_s = _LOADING * self._seconds / len(subjects)
        for subject in subjects:
            try:
                loaded[subject.name] = load(subject, threads=self._threads, progress=compiling)
            except MissingPackage as err:
                self.absent.append((subject.name, str(err)))
                missing = err
            else:
                firsts[subject.name] = self._first_calls(subject, loaded[subject.name].call, share_s)
        if missing is not None and not loaded:
            raise missing
        return loaded, firsts

    def _first_calls(self, subject: Subject, call: Call, seconds: float) -> tuple[float, ...]:
        """Of the load there is, and of some more within the time."""
        started = time.perf_counter()
        found = [_once(call)]
        while len(found) < LOADS and time.perf_counter() - started < seconds:
            found.append(_once(load(subject, threads=self._threads).call))
        return tuple(found)

    def _flushed(self, loaded: Mapping[str, Loaded]) -> dict[str, tuple[float, ...]]:
        """Seconds of calls after the caches were written over, in turns."""
        memory = np.zeros(flush_bytes(), np.uint8)
        started = time.perf_counter()
        found: dict[str, list[float]] = {name: [] for name in loaded}
        for done in range(FLUSHED):
            if done >= LEAST_FLUSHED and time.perf_counter() - started > _FLUSHING * self._seconds:
                break
            for name, each in loaded.items():
                np.add(memory, 1, out=memory)
                found[name].append(_once(each.call))
            self._tell(1 - _FLUSHING * (1 - done / FLUSHED))
        return {name: tuple(values) for name, values in found.items()}


def _once(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
