"""What the windows of convolutions and pools see, in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Window:
    """The taps of a window: (row, column) of each and how far windows are apart."""

    taps_h: int
    taps_w: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    def taps(self, padded: Array) -> Iterator[tuple[int, int, Array]]:
        """For each tap, in order, its row and column and what all windows see there: (rows, columns, C)."""
        rows, columns = (
            (size - (taps - 1) * dilation - 1) // stride + 1
            for size, taps, stride, dilation in zip(padded.shape[:2], (self.taps_h, self.taps_w), self.stride, self.dilation, strict=True)
        )
        for row in range(self.taps_h):
            for column in range(self.taps_w):
                top, left = row * self.dilation[0], column * self.dilation[1]
                below, right = top + (rows - 1) * self.stride[0] + 1, left + (columns - 1) * self.stride[1] + 1
                yield row, column, padded[top : below : self.stride[0], left : right : self.stride[1]]

    def total(self, padded: Array) -> Array:
        """The sum of every window, its taps added in order (np.sum would pair terms)."""
        seen = (tap for _, _, tap in self.taps(padded))
        result = next(seen).copy()
        for tap in seen:
            result = result + tap
        return result
