"""How ranges of int8 activations are found from what tensors take on pictures.

    min-max      the least and the largest value that occurs
    percentile   the range that leaves out one value in 20,000 at each end
    mse          the range whose 255 steps give the least mean squared error: values beyond it are cut off, those inside are off by up to
                 half a step; zeros, which every range holds exactly, do not count

Tensors of 4 and 2 bits take the range of least squared error, of 15 and 3 steps, whatever the others have.

All but `min-max` look at histograms of `BINS` bins between the least and the largest value, from a second run over the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge.converters.calibration import Statistics, activations
from edge.converters.samples import Example
from edge.graph import Array, Graph
from edge.widths import MIN_MAX, PERCENTILE

BINS = 2048
_LEFT_OUT = 1 / 20000  # of all values, at each end
_STEPS = 255
_PARTS = np.linspace(1.0, 0.1, 91)  # of a bound, which `mse` tries
_STEP_PARTS = np.geomspace(1.0, 0.02, 60)  # of the largest step, which tensors of less than 8 bits try


def refined(
    graph: Graph, pictures: Iterable[Example], known: Mapping[str, Statistics], method: str, few: Mapping[str, int] | None = None
) -> dict[str, Statistics]:
    """The statistics with the ranges of `method`; `pictures` are those that `known` was measured on.

    `few` has the tensors of 4 or 2 bits, and how many.
    """
    bits = {name: (few or {}).get(name, 8) for name in known if method != MIN_MAX or name in (few or {})}
    if not bits:
        return dict(known)
    histograms = _histograms(graph, pictures, {name: known[name] for name in bits})
    return {**known, **{name: _refined(known[name], histogram, method, bits[name]) for name, histogram in histograms.items()}}


def _histograms(graph: Graph, pictures: Iterable[Example], known: Mapping[str, Statistics]) -> dict[str, _Histogram]:
    found = {name: _Histogram(np.zeros(BINS, np.int64)) for name in known}
    for values in activations(graph, pictures):
        for name, histogram in found.items():
            histogram.add(values[name], known[name])
    return found


@dataclass
class _Histogram:
    """Of the values of a tensor: in each bin, those that are not 0, and how many are 0."""

    counts: Array
    zeros: int = 0

    def add(self, values: Array, known: Statistics) -> None:
        given = values[values != 0]
        self.zeros += values.size - given.size
        if known.high > known.low:
            self.counts += np.histogram(given, BINS, (known.low, known.high))[0]


def _refined(known: Statistics, histogram: _Histogram, method: str, bits: int = 8) -> Statistics:
    if not histogram.counts.any():
        return known
    edges = np.linspace(known.low, known.high, BINS + 1)
    if bits < 8:
        low, high = _best_levels(edges, histogram, 2**bits - 1)
    else:
        low, high = (_quantiles if method == PERCENTILE else _least_error)(edges, histogram)
    return replace(known, low=float(low), high=float(high))


def _quantiles(edges: Array, histogram: _Histogram) -> tuple[float, float]:
    """The bounds of all values but the smallest and largest; whole bins, so that little is left out where a bin holds much."""
    counts = histogram.counts.copy()
    counts[np.clip(np.searchsorted(edges, 0.0, "right") - 1, 0, BINS - 1)] += histogram.zeros
    most = _LEFT_OUT * counts.sum()
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])
    return edges[np.searchsorted(below, most, "right")], edges[BINS - np.searchsorted(above, most, "right")]


def _least_error(edges: Array, histogram: _Histogram) -> tuple[float, float]:
    """Bounds with 0 between them, each the best for the other in turn."""
    centres = (edges[:-1] + edges[1:]) / 2
    least, largest = min(edges[0], 0.0), max(edges[-1], 0.0)
    low, high = least, largest
    for _ in range(3):
        high = min(_PARTS * largest, key=lambda bound: _error(centres, histogram.counts, low, bound))
        low = min(_PARTS * least, key=lambda bound: _error(centres, histogram.counts, bound, high))
    return low, high


def _best_levels(edges: Array, histogram: _Histogram, steps: int) -> tuple[float, float]:
    """The bounds of so few steps that it counts among which of them values lie: of all places for 0 and many sizes of a step the best."""
    centres, low, high = (edges[:-1] + edges[1:]) / 2, edges[0], edges[-1]
    best, least = (0.0, 0.0), np.inf
    for zero in range(steps + 1) if low < 0 < high else (0,) if low >= 0 else (steps,):
        whole = max(-low / zero if zero else 0.0, high / (steps - zero) if zero < steps else 0.0)
        for step in whole * _STEP_PARTS:
            nearest = np.clip(np.rint(centres / step), -zero, steps - zero)
            error = float((histogram.counts * (nearest * step - centres) ** 2).sum())
            if error < least:
                best, least = (-zero * step, (steps - zero) * step), error
    return best


def _error(centres: Array, counts: Array, low: float, high: float) -> float:
    """The squared error of 255 steps: a twelfth of a step's square inside, the square of the distance outside."""
    outside = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
    inside = float(counts[outside == 0].sum()) * ((high - low) / _STEPS) ** 2 / 12
    return inside + float((counts * outside**2).sum())
