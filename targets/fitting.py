"""Cycles of each feature of a kind of kernel from samples of what kernels took: the same fit for this machine's and for counted cycles.

Samples are weighed by their cycles, so that relative errors count (of very short ones, absolute errors), and no cost is negative. The
expected error of a kind is found by leaving out every sample in turn and predicting it from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDS = 4  # of reweighing: samples far off the others (a disturbed timing) count less
_FAR = 0.1  # relative; what is off by less counts in full
_TOLERANCE = 1e-9
_SHORT_CYCLES = 30.0  # what is timed no better than that


@dataclass(frozen=True)
class Sample:
    """What an instruction consists of, by feature, and the cycles it took."""

    features: Mapping[str, float]
    cycles: float


@dataclass(frozen=True)
class Fit:
    """Cycles of one of each feature, and the mean relative error of predicting a sample that was not fitted."""

    cycles: dict[str, float]
    error: float


def fit(samples: Sequence[Sample]) -> Fit:
    """Fit the samples of one kind."""
    names = sorted({name for sample in samples for name, count in sample.features.items() if count})
    taken = np.array([sample.cycles for sample in samples])
    weights = 1 / (taken + _SHORT_CYCLES)
    terms = np.array([[sample.features.get(name, 0.0) for name in names] for sample in samples]) * weights[:, None]
    target = taken * weights
    costs = _robust(terms, target)
    found = {name: float(cost) for name, cost in zip(names, costs, strict=True) if cost > 0}
    return Fit(found or {"call": 0.0}, _left_out(terms, target))


def _left_out(terms: np.ndarray, target: np.ndarray) -> float:
    """The mean of |predicted - taken| / taken over samples that are left out one by one, none counted as more than 1."""
    if len(terms) < 2:
        return 1.0
    errors = [
        abs(float(terms[i] @ _robust(np.delete(terms, i, axis=0), np.delete(target, i))) - target[i]) for i in range(len(terms))
    ]
    return float(np.mean(np.minimum(errors, 1.0)))


def _robust(terms: np.ndarray, target: np.ndarray) -> np.ndarray:
    """x >= 0 for which terms @ x is near the target, by least squares in which what is far off counts less (Huber's weights)."""
    scale = np.abs(terms).max(axis=0)
    scaled = terms / np.where(scale > 0, scale, 1.0)
    weights = np.ones(len(terms))
    found = np.zeros(terms.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        found = _nonnegative(scaled * root[:, None], target * root)
        weights = np.minimum(1.0, _FAR / np.maximum(np.abs(scaled @ found - target), _TOLERANCE))
    return found / np.where(scale > 0, scale, 1.0)


def _nonnegative(terms: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with x >= 0, by the active set method of Lawson and Hanson (Solving Least Squares Problems, 1974)."""
    found = np.zeros(terms.shape[1])
    free: list[int] = []
    for _ in range(3 * terms.shape[1]):
        gradient = terms.T @ (target - terms @ found)
        gradient[free] = -np.inf
        best = int(gradient.argmax())
        if gradient[best] <= _TOLERANCE:
            break
        free.append(best)
        found = _inside(terms, target, found, free)
    return found


def _inside(terms: np.ndarray, target: np.ndarray, found: np.ndarray, free: list[int]) -> np.ndarray:
    """The least squares solution in the free variables; those that would become negative are taken off the list."""
    while True:
        solution = np.zeros_like(found)
        solution[free] = np.linalg.lstsq(terms[:, free], target, rcond=None)[0]
        below = [i for i in free if solution[i] <= 0]
        if not below:
            return solution
        step = min(found[i] / (found[i] - solution[i]) if found[i] > solution[i] else 0.0 for i in below)
        found = found + step * (solution - found)
        for i in [i for i in free if found[i] <= _TOLERANCE]:
            free.remove(i)
            found[i] = 0.0
        if not free:
            return found
