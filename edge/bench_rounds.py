"""Timing calls against each other: in turns, within one run, so that whatever slows the machine slows all of them.

A *round* is some calls of one contender in a row: about `ROUND_SECONDS`, long enough for its caches to be its own again, and short enough
that on a busy machine most rounds pass undisturbed. The figure of a contender is the median of its rounds; a ratio is the median of the
ratios of rounds that followed each other, which a changing clock frequency leaves alone. `edge bench` and the repository's benchmarks share
this module; it needs numpy alone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

ROUND_SECONDS = 0.002
LONG_SECONDS = 10 * ROUND_SECONDS
PAUSE_SECONDS = 0.001  # before each round; the scheduler then lets it run, whatever else wants the processor
WARM_UP_SECONDS = 0.1

Call = Callable[[], object]


class Remote(Protocol):
    """A contender that times itself, in another process: `seconds(calls)` makes that many calls in a row and tells how long they took."""

    def seconds(self, calls: int) -> float: ...


# -- figures -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one value for each round of `calls` calls."""

    seconds: tuple[float, ...]
    calls: int

    @property
    def median_s(self) -> float:
        return float(np.median(self.seconds))

    @property
    def quartiles_s(self) -> tuple[float, float]:
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        low, high = self.quartiles_s
        return {"median_s": self.median_s, "quartiles_s": [low, high], "rounds": len(self.seconds), "calls_per_round": self.calls}


def ratio(slower: Timing, faster: Timing) -> float:
    """How many times as long `slower` took: the median over the rounds, taken pair by pair."""
    return ratio_quartiles(slower, faster)[1]


def ratio_quartiles(slower: Timing, faster: Timing) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of how many times as long `slower` took, over the rounds, taken pair by pair."""
    low, middle, high = np.quantile(np.divide(slower.seconds, faster.seconds), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


class Spread(Protocol):
    """A figure with its spread: seconds."""

    @property
    def median_s(self) -> float: ...
    @property
    def quartiles_s(self) -> tuple[float, float]: ...


def changed(before: Spread, now: Spread, *, clocks: float = 1.0) -> tuple[float, bool]:
    """How many times as long something takes now, and whether that is clear: the quartiles do not overlap.

    clocks: how many times as fast the machine was now; times of now are multiplied by it, so that two runs at different clocks compare.
    """
    (low, high), (old_low, old_high) = now.quartiles_s, before.quartiles_s
    return now.median_s * clocks / before.median_s, low * clocks > old_high or high * clocks < old_low


# -- contenders ----------------------------------------------------------------------------------------------------------------


class Contender:
    """A call, warmed up; how often it is called in a round, and the seconds a call took in each round.

    each: keep the seconds of every single call of the rounds too, in `latencies_s`; the clock is then read between calls.
    """

    def __init__(self, call: Call | Remote, *, warm_up_s: float = WARM_UP_SECONDS, each: bool = False) -> None:
        self._run: Callable[[int], float] = call.seconds if hasattr(call, "seconds") else lambda calls: _seconds(call, calls)
        self._measure = self._run
        self.latencies_s: list[float] = []
        if each and not hasattr(call, "seconds"):
            self._measure = lambda calls: _each(call, calls, self.latencies_s)
        self.calls, self._call_s = self._warm_up(warm_up_s)
        self.seconds: list[float] = []

    @property
    def timing(self) -> Timing:
        return Timing(tuple(self.seconds), self.calls)

    @property
    def expected_s(self) -> float:
        """About how long a round takes with what comes before it."""
        return PAUSE_SECONDS + (self.calls + self._warm_calls) * self._call_s

    @property
    def _warm_calls(self) -> int:
        """One before each round, for what the pause and the other contenders let go cold; a call of many milliseconds hardly notices."""
        return 1 if self._call_s < LONG_SECONDS else 0

    def prepare(self) -> None:
        time.sleep(PAUSE_SECONDS)
        if self._warm_calls:
            self._run(self._warm_calls)

    def round(self) -> None:
        self.seconds.append(self._measure(self.calls) / self.calls)

    def _warm_up(self, seconds: float) -> tuple[int, float]:
        """How many calls take `ROUND_SECONDS`, and seconds of one."""
        spent, calls, per_call = 0.0, 1, 0.0
        while not spent or spent < seconds:
            took = self._run(calls)
            spent += took
            per_call = took / calls
            calls = max(1, min(2 * calls + 8, round(ROUND_SECONDS / max(per_call, 1e-9))))
        return calls, per_call


def take_turns(
    contenders: Mapping[str, Contender], *, seconds: float, least: int, progress: Callable[[float], None] | None = None
) -> None:
    """Rounds of all contenders in turns, for about so many `seconds`, and `least` rounds of each however long they take.

    progress: told of the share of the time that is over.
    """
    started, rounds = time.perf_counter(), 0
    while rounds < least or time.perf_counter() - started < seconds:
        for contender in contenders.values():
            contender.prepare()
            contender.round()
        rounds += 1
        if progress is not None:
            progress(min(1.0, rounds / least, (time.perf_counter() - started) / seconds))


def _seconds(call: Call, calls: int) -> float:
    repeats = range(calls)
    started = time.perf_counter()
    for _ in repeats:
        call()
    return time.perf_counter() - started


def _each(call: Call, calls: int, latencies_s: list[float]) -> float:
    """As `_seconds`; those of every call are added to `latencies_s`."""
    clock, repeats = time.perf_counter, range(calls)
    marks = [clock()]
    for _ in repeats:
        call()
        marks.append(clock())
    latencies_s.extend(later - earlier for earlier, later in itertools.pairwise(marks))
    return marks[-1] - marks[0]
