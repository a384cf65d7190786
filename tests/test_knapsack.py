"""Best choices of one option in each group: by brute force, and by their definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.converters import knapsack
from edge.converters.knapsack import Option, Point, front

OPTIONS = st.builds(Option, st.integers(0, 40), st.integers(0, 30).map(float) | st.just(float("inf")))
GROUPS = st.lists(st.lists(OPTIONS, min_size=1, max_size=4), min_size=1, max_size=5)


def of_all(groups: list[list[Option]]) -> list[tuple[int, float]]:
    """Cost and damage of every choice."""
    return [(sum(each.cost for each in taken), sum(each.damage for each in taken)) for taken in itertools.product(*groups)]


def sums(groups: list[list[Option]], point: Point) -> tuple[int, float]:
    taken = [options[number] for options, number in zip(groups, point.chosen, strict=True)]
    return sum(each.cost for each in taken), sum(each.damage for each in taken)


@given(groups=GROUPS)
@settings(deadline=None)
def test_no_choice_beats_the_front_and_all_of_it_is_needed(groups: list[list[Option]]) -> None:
    points, choices = front(groups), of_all(groups)
    for point in points:
        assert sums(groups, point) == (point.cost, point.damage)
    assert min(cost for cost, _ in choices) == points[0].cost
    for limit in {cost for cost, _ in choices}:
        best = min(damage for cost, damage in choices if cost <= limit)
        assert min(point.damage for point in points if point.cost <= limit) == best
    for before, after in itertools.pairwise(points):
        assert before.cost < after.cost and before.damage > after.damage


def test_of_equals_the_first_option_counts() -> None:
    groups = [[Option(5, 1.0), Option(5, 1.0)], [Option(0, 0.0), Option(0, 0.0)]]
    assert [point.chosen for point in front(groups)] == [(0, 0)]


def test_many_layers_are_chosen_within_a_step_of_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    groups = [[Option(int(cost), float(damage)) for cost, damage in random.integers(1, 10**6, (5, 2))] for _ in range(40)]
    exact = front(groups[:8])
    monkeypatch.setattr(knapsack, "MAX_STATES", 2000)
    coarse = front(groups[:8])
    step = knapsack._step(groups[:8])
    assert step > 1 and len(coarse) <= len(exact)
    for point in exact:
        near = min((each.damage for each in coarse if each.cost <= point.cost + 8 * step), default=np.inf)
        assert near <= point.damage
    assert len(front(groups)) > 100
