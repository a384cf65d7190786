"""The tables of packed convolutions with zero padding: what the outside taps added, per border class."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.kernels.conv import _axis_classes, _sums_inside

Axis = tuple[int, int, int, int, int, int]


@st.composite
def _axes(draw: st.DrawFn) -> Axis:
    """Size, outputs, taps, stride, dilation and padding before of one axis; also with windows wholly outside."""
    size, taps = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    stride, dilation, before, after = (draw(st.integers(low, high)) for low, high in ((1, 3), (1, 3), (0, 9), (0, 9)))
    window = (taps - 1) * dilation + 1
    after += max(0, window - size - before - after)
    return size, (size + before + after - window) // stride + 1, taps, stride, dilation, before


def _inside(axis: Axis) -> np.ndarray:
    """For each output and tap, whether it lies inside the image."""
    size, outputs, taps, stride, dilation, pad = axis
    at = np.arange(outputs)[:, None] * stride - pad + np.arange(taps) * dilation
    return (at >= 0) & (at < size)


@given(_axes(), _axes(), st.integers(0, 99))
def test_sums_of_border_classes_are_the_sums_of_every_place(vertical: Axis, horizontal: Axis, seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-9, 10, (3, vertical[2], horizontal[2]))
    (rows, row_ranges), (columns, column_ranges) = _axis_classes(*vertical), _axis_classes(*horizontal)
    got = _sums_inside(weights, row_ranges, column_ranges)[rows][:, columns]
    expected = np.einsum("rh,chw,sw->rsc", _inside(vertical).astype(int), weights, _inside(horizontal).astype(int))
    np.testing.assert_array_equal(got, expected)


def test_a_window_as_long_as_the_image_takes_little_memory() -> None:
    """30,000 places times 15,001 taps would be gigabytes."""
    tracemalloc.start()
    _, ranges = _axis_classes(30_000, 30_000, 15_001, 1, 1, 7500)
    sums = _sums_inside(np.ones((8, 15_001, 1), np.int64), ranges, np.array([[0, 1]]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sums.max() == 15_001 and sums.min() == 7501 and peak < 32 << 20
