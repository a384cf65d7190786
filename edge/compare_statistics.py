"""How sure a share of right answers is, and a difference of two measured on the same examples.

A share k of n has Wilson's score interval (1927): it stays inside 0 to 1 and holds at shares near them, where the textbook's does not.
Two networks that answer the same examples differ only where one is right and the other is not; McNemar's exact test (1947) asks whether
those b and c examples could be a fair coin's, and the difference (c - b) / n has the interval of Bonett and Price (2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIDENCE = 0.95
Z = 1.959963984540054  # of the normal distribution: 95 % of it lie within


@dataclass(frozen=True)
class Share:
    """`count` of `total`, and the 95 % interval of the share that they are a sample of."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.total


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy less the source's, on the same examples: the value, its 95 % interval, and the p of McNemar's exact test.

    `gained` examples only the converted network gets right, `lost` ones only the source.
    """

    value: float
    low: float
    high: float
    gained: int
    lost: int
    p: float


def share(count: int, total: int) -> Share:
    """A share of `total` >= 1 with Wilson's interval."""
    centre = (count + Z * Z / 2) / (total + Z * Z)
    half = Z / (total + Z * Z) * math.sqrt(count * (total - count) / total + Z * Z / 4)
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return Share(count, total, low, high)


def paired_difference(gained: int, lost: int, total: int) -> PairedDifference:
    """The difference (gained - lost) / total of two shares of the same `total` >= 1 examples.

    Bonett and Price: p1 = (gained + 1) / (n + 2), p2 = (lost + 1) / (n + 2); p1 - p2 +- z sqrt((p1 + p2 - (p1 - p2)^2) / (n + 2)).
    """
    first, second = (gained + 1) / (total + 2), (lost + 1) / (total + 2)
    half = Z * math.sqrt((first + second - (first - second) ** 2) / (total + 2))
    low, high = max(-1.0, first - second - half), min(1.0, first - second + half)
    return PairedDifference((gained - lost) / total, low, high, gained, lost, mcnemar(gained, lost))


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p of `gained` and `lost` where each of their sum is as likely to be the one as the other; 1 where there are none."""
    total = gained + lost
    whole = math.lgamma(total + 1) - total * math.log(2)
    tail = math.fsum(math.exp(whole - math.lgamma(k + 1) - math.lgamma(total - k + 1)) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail)
