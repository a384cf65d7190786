"""The multiple-choice knapsack: of each group one option, so that no choice of as little cost has less damage.

Both add up over groups. The best choices are found exactly, group by group: of all sums of a best choice so far and an option of the next
group, those stay that no other one beats in cost and damage (Nemhauser and Ullmann, 1969). Costs are whole numbers. Where choices would be
more than `MAX_STATES`, what options cost beyond the least of their group is rounded up to a coarser step: a choice then never costs more
than it says, and is best up to one step a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.graph import Array

MAX_STATES = 1 << 16


@dataclass(frozen=True)
class Option:
    """One way for a group: its cost (whole, 0 or more) and its damage."""

    cost: int
    damage: float


@dataclass(frozen=True)
class Point:
    """A best choice: its cost and damage, and the number of the option of each group."""

    cost: int
    damage: float
    chosen: tuple[int, ...]


def front(groups: Sequence[Sequence[Option]]) -> tuple[Point, ...]:
    """All best choices, the cheapest first; each costs more than the one before and does less damage. Of equals the first option counts."""
    step = _step(groups)
    costs, damages = np.zeros(1, np.int64), np.zeros(1)
    trail: list[tuple[Array, Array]] = []
    for options in groups:
        least = min(option.cost for option in options)
        own = np.array([least + -(-(option.cost - least) // step) * step for option in options], np.int64)
        harm = np.array([option.damage for option in options])
        all_costs, all_damages = (costs[:, None] + own).reshape(-1), (damages[:, None] + harm).reshape(-1)
        kept = _unbeaten(all_costs, all_damages)
        trail.append((kept // len(options), kept % len(options)))
        costs, damages = all_costs[kept], all_damages[kept]
    points = [_point(groups, trail, last) for last in range(len(costs))]
    exact_costs, exact_damages = np.array([each.cost for each in points]), np.array([each.damage for each in points])
    return tuple(points[i] for i in _unbeaten(exact_costs, exact_damages))


def _step(groups: Sequence[Sequence[Option]]) -> int:
    spans = [max(option.cost for option in options) - min(option.cost for option in options) for options in groups]
    common = int(np.gcd.reduce([0, *(option.cost - options[0].cost for options in groups for option in options)])) or 1
    return common * max(1, -(-sum(spans) // (common * MAX_STATES)))


def _unbeaten(costs: Array, damages: Array) -> Array:
    """Which are beaten by none that costs as little, by rising cost."""
    order = np.lexsort((np.arange(len(costs)), damages, costs))
    sorted_damages = damages[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(sorted_damages)[:-1]])
    first = np.arange(len(order)) == 0  # where all damages are infinite one is left
    found: Array = order[(sorted_damages < before) | first]
    return found


def _point(groups: Sequence[Sequence[Option]], trail: Sequence[tuple[Array, Array]], last: int) -> Point:
    chosen = []
    for came_from, option in reversed(trail):
        chosen.append(int(option[last]))
        last = int(came_from[last])
    taken = [options[number] for options, number in zip(groups, reversed(chosen), strict=True)]
    return Point(sum(each.cost for each in taken), float(sum(each.damage for each in taken)), tuple(reversed(chosen)))
