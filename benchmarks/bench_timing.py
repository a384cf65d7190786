"""Timing a call and its peers against each other: in turns, within one run, so that whatever slows the machine slows all of them.

A *round* is some calls of one contender in a row: about `ROUND_SECONDS`, long enough for its caches to be its own again, and short enough
that on a busy machine most rounds pass undisturbed. The figure of a contender is the median of its rounds; a ratio is the median of the
ratios of rounds that followed each other, which a changing clock frequency leaves alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS = 300
ROUND_SECONDS = 0.002
PAUSE_SECONDS = 0.001  # before each round; the scheduler then lets it run, whatever else wants the processor
WARM_UP_SECONDS = 0.3

Call = Callable[[], object]


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
    return float(np.median(np.divide(slower.seconds, faster.seconds)))


def interleave(benchmark: Any, name: str, call: Call, peers: Mapping[str, Call], *, calls: int, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Time `call` and its peers in turns; return all timings by name.

    `benchmark` is pytest-benchmark's fixture: it shows and stores the rounds of `call`, of `calls` calls each, and compares them with
    earlier runs; all figures, per call, are in its `extra_info`.
    """
    contenders = {name: _Contender(call, calls), **{peer: _Contender(run, _calls_per_round(run)) for peer, run in peers.items()}}
    _calls_per_round(call)  # to warm it up

    def rounds_of_peers() -> None:
        for peer in peers:
            contenders[peer].round()

    benchmark.pedantic(contenders[name].round, setup=rounds_of_peers, rounds=rounds, iterations=1)
    timings = {each: Timing(tuple(contender.seconds), contender.calls) for each, contender in contenders.items()}
    benchmark.extra_info.update({each: timing.to_json() for each, timing in timings.items()})
    return timings


class _Contender:
    """A call, and the seconds it took in each round."""

    def __init__(self, call: Call, calls: int) -> None:
        self.call, self.calls = call, calls
        self.seconds: list[float] = []

    def round(self) -> None:
        time.sleep(PAUSE_SECONDS)
        self.call()  # what the pause let go cold
        self.seconds.append(_seconds(self.call, self.calls) / self.calls)


def _calls_per_round(call: Call) -> int:
    """Warm up, and tell how many calls take `ROUND_SECONDS`."""
    spent, calls = 0.0, 1
    while spent < WARM_UP_SECONDS:
        seconds = _seconds(call, calls)
        spent += seconds
        calls = max(1, round(calls * ROUND_SECONDS / max(seconds, 1e-9)))
    return calls


def _seconds(call: Call, calls: int) -> float:
    repeats = range(calls)
    started = time.perf_counter()
    for _ in repeats:
        call()
    return time.perf_counter() - started
