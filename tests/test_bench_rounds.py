"""Rounds of `edge bench`: contenders take turns, and changes are told from noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bench_rounds import Contender, Timing, changed, take_turns


def test_every_call_of_a_round_is_kept_and_they_add_up_to_it() -> None:
    calls: list[int] = []
    contender = Contender(lambda: calls.append(len(calls)), warm_up_s=0.0, each=True)
    contender.calls = 7
    before = len(calls)
    for _ in range(3):
        contender.round()
    assert len(calls) - before == len(contender.latencies_s) == 21
    assert np.reshape(contender.latencies_s, (3, 7)).mean(axis=1) == pytest.approx(contender.timing.seconds)
    assert min(contender.latencies_s) >= 0


def test_contenders_take_turns_until_time_and_least_rounds_are_over() -> None:
    contenders = {name: Contender(lambda: None, warm_up_s=0.0) for name in "ab"}
    shares: list[float] = []
    take_turns(contenders, seconds=1e-6, least=4, progress=shares.append)
    assert [len(each.seconds) for each in contenders.values()] == [4, 4]
    assert shares == sorted(shares) and shares[-1] == 1.0


TIMES = st.floats(1e-6, 1e-1)


@given(st.lists(TIMES, min_size=1, max_size=30), st.floats(0.1, 10))
def test_a_change_is_that_of_the_medians_and_a_clock_cancels(seconds: list[float], factor: float) -> None:
    before = Timing(tuple(seconds), 1)
    now = Timing(tuple(factor * value for value in seconds), 1)
    assert changed(before, now)[0] == pytest.approx(factor)
    times, clear = changed(before, now, clocks=1 / factor)
    assert times == pytest.approx(1.0) and (not clear or before.quartiles_s[0] == pytest.approx(before.quartiles_s[1]))


def test_a_change_is_clear_where_quartiles_do_not_overlap() -> None:
    before = Timing((1.0, 1.1, 1.2, 1.3), 1)
    assert changed(before, Timing((2.0, 2.1, 2.2), 1))[1] and changed(before, Timing((0.5, 0.6), 1))[1]
    assert not changed(before, Timing((1.0, 1.4, 1.5), 1))[1]
