"""Timing calls against each other: in turns, within one run, so that whatever slows the machine slows all of them.

A *round* is some calls of one contender in a row: about `ROUND_SECONDS`, long enough for its caches to be its own again, and short enough
that on a busy machine most rounds pass undisturbed. The figure of a contender is the median of its rounds; a ratio is the median of the
ratios of rounds that followed each other, which a changing clock frequency leaves alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

ROUNDS = 300
LEAST_ROUNDS = 11
ROUND_SECONDS = 0.002
LONG_SECONDS = 10 * ROUND_SECONDS
PAUSE_SECONDS = 0.001  # before each round; the scheduler then lets it run, whatever else wants the processor
WARM_UP_SECONDS = 0.1

Call = Callable[[], object]


class Remote(Protocol):
    """A contender that times itself, in another process: `seconds(calls)` makes that many calls in a row and tells how long they took."""

    def seconds(self, calls: int) -> float: ...


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


def interleave(
    benchmark: Any,
    name: str,
    call: Call | Remote,
    peers: Mapping[str, Call | Remote],
    *,
    calls: int | None = None,
    rounds: int = ROUNDS,
    budget_s: float | None = None,
) -> dict[str, Timing]:
    """Time `call` and its peers in turns; return all timings by name.

    `benchmark` is pytest-benchmark's fixture: it shows and stores the rounds of `call`, of `calls` calls each (default: about
    `ROUND_SECONDS`); all figures, per call, are in its `extra_info`. Where `rounds` of all would take more than `budget_s`, there are
    fewer, but at least `LEAST_ROUNDS`.
    """
    contenders = {each: _Contender(run) for each, run in {name: call, **peers}.items()}
    ours = contenders[name]
    if calls is not None:
        ours.calls = calls
    cycle_s = sum(contender.expected_s for contender in contenders.values())
    if budget_s is not None:
        rounds = min(rounds, max(LEAST_ROUNDS, int(budget_s / cycle_s)))

    def before_ours() -> None:
        for peer in peers:
            contenders[peer].prepare()
            contenders[peer].round()
        ours.prepare()

    benchmark.pedantic(ours.round, setup=before_ours, rounds=rounds, iterations=1)
    timings = {each: Timing(tuple(contender.seconds), contender.calls) for each, contender in contenders.items()}
    benchmark.extra_info.update({each: timing.to_json() for each, timing in timings.items()})
    return timings


class _Contender:
    """A call, warmed up; how often it is called in a round, and the seconds a call took in each round."""

    def __init__(self, call: Call | Remote) -> None:
        self._run: Callable[[int], float] = call.seconds if hasattr(call, "seconds") else lambda calls: _seconds(call, calls)
        self.calls, self._call_s = self._warm_up()
        self.seconds: list[float] = []

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
        self.seconds.append(self._run(self.calls) / self.calls)

    def _warm_up(self) -> tuple[int, float]:
        """How many calls take `ROUND_SECONDS`, and seconds of one."""
        spent, calls, per_call = 0.0, 1, 0.0
        while spent < WARM_UP_SECONDS:
            seconds = self._run(calls)
            spent += seconds
            per_call = seconds / calls
            calls = max(1, min(2 * calls + 8, round(ROUND_SECONDS / max(per_call, 1e-9))))
        return calls, per_call


def _seconds(call: Call, calls: int) -> float:
    repeats = range(calls)
    started = time.perf_counter()
    for _ in repeats:
        call()
    return time.perf_counter() - started
