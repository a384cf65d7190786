"""How good answers are: the share that is right, or for clocks how many minutes they are off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF_DAY_MINUTES = 12 * 60


@dataclass(frozen=True)
class Measure:
    """of: (answers of each output, labels) -> a score. text: how it is printed."""

    name: str
    of: Callable[[Sequence[NDArray[Any]], NDArray[np.int64]], float]
    lower_is_better: bool
    text: Callable[[float], str]

    def is_better(self, score: float, than: float) -> bool:
        """Whether `score` is as good or better."""
        return score <= than if self.lower_is_better else score >= than


def accuracy(answers: Sequence[NDArray[Any]], labels: NDArray[np.int64]) -> float:
    """The share of pictures whose class is the largest answer."""
    return float(np.mean(answers[0].argmax(-1) == labels))


def minutes_off(answers: Sequence[NDArray[Any]], labels: NDArray[np.int64]) -> float:
    """Mean absolute error of the times that hours (N, 12) and minutes (N, 60) tell, the short way round twelve hours."""
    hours, minutes = (answer.argmax(-1) for answer in answers)
    off = np.abs(60 * hours + minutes - (60 * labels[:, 0] + labels[:, 1])) % HALF_DAY_MINUTES
    return float(np.mean(np.minimum(off, HALF_DAY_MINUTES - off)))


ACCURACY = Measure("accuracy", accuracy, False, lambda score: f"{100 * score:.2f} %")
MINUTES_OFF = Measure("minutes off", minutes_off, True, lambda score: f"{score:.2f} minutes off")


MEASURES = {each.name: each for each in (ACCURACY, MINUTES_OFF)}


def measure_for(labels: NDArray[np.int64]) -> Measure:
    """Hours and minutes (N, 2) are those of clocks; classes are (N,)."""
    return ACCURACY if labels.ndim == 1 else MINUTES_OFF
