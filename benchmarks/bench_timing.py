"""The rounds of `edge.bench_rounds` within pytest-benchmark, which shows and stores those of the first contender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.bench_rounds import Call, Contender, Remote, Timing, ratio, ratio_quartiles

__all__ = ["ROUNDS", "Call", "Remote", "Timing", "interleave", "ratio", "ratio_quartiles"]

ROUNDS = 300
LEAST_ROUNDS = 11


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
    contenders = {each: Contender(run) for each, run in {name: call, **peers}.items()}
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
    timings = {each: contender.timing for each, contender in contenders.items()}
    benchmark.extra_info.update({each: timing.to_json() for each, timing in timings.items()})
    return timings
