"""How ranges of int8 activations are found from what tensors take on pictures.

    min-max      the least and the largest value that occurs
    percentile   the range that leaves out one value in 20,000 at each end
    mse          the range whose 255 steps give the least mean squared error: values beyond it are cut off, those inside are off by up to
                 half a step; zeros, which every range holds exactly, do not count

The last two look at histograms of `BINS` bins between the least and the largest value, from a second run over the pictures.
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


def refined(graph: Graph, pictures: Iterable[Example], known: Mapping[str, Statistics], method: str) -> dict[str, Statistics]:
    """The statistics with the ranges of `method`; `pictures` are those that `known` was measured on."""
    if method == MIN_MAX:
        return dict(known)
    histograms = _histograms(graph, pictures, known)
    return {name: _refined(known[name], counts, method) for name, counts in histograms.items()}


def _histograms(graph: Graph, pictures: Iterable[Example], known: Mapping[str, Statistics]) -> dict[str, _Histogram]:
    found = {name: _Histogram(np.zeros(BINS, np.int64)) for name in known}
    for values in activations(graph, pictures):
        for name, value in values.items():
            found[name].add(value, known[name])
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


def _refined(known: Statistics, histogram: _Histogram, method: str) -> Statistics:
    if not histogram.counts.any():
        return known
    edges = np.linspace(known.low, known.high, BINS + 1)
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


def _error(centres: Array, counts: Array, low: float, high: float) -> float:
    """The squared error of 255 steps: a twelfth of a step's square inside, the square of the distance outside."""
    outside = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
    inside = float(counts[outside == 0].sum()) * ((high - low) / _STEPS) ** 2 / 12
    return inside + float((counts * outside**2).sum())
