"""Bilinear resizing without antialiasing, as `tf.image.resize(method="bilinear", antialias=False)` computes it.

Keras' loaders (`image_dataset_from_directory`, the `Resizing` layer) resize this way, so a net trained through them
sees here what it saw in training. With half-pixel centres, output index i of an axis of n values scaled from m takes

    position = (i + 0.5) * (m / n) - 0.5
    value    = v[floor] + (v[ceil] - v[floor]) * (position - floor),   indexes clamped to 0..m-1

in float32 throughout, horizontally first: the order and precision matter, because a coordinate near 1000 rounded in
float32 moves a steep edge by more than 1e-4 of a grey level.

Only the (2 * height) x (2 * width) neighbours are ever touched. Work done pixel by pixel (grey, inversion) is done on
these neighbours instead of on a picture of 100 megapixels, with the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESIZES = ("stretch", "crop", "letterbox")


@dataclass(frozen=True)
class Window:
    """The rectangle of a picture (in its pixels) that becomes the net's input; it may reach outside the picture."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Taps:
    """One axis: indexes of the two neighbours of each output value, interleaved (2n,), and the second's weight (n,)."""

    index: NDArray[np.intp]
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """The pixels that a resize reads.

    values: uint8 (2H, 2W, C), the four neighbours of every output pixel.
    rows, columns: bool (2H,) and (2W,), True inside the picture; values outside are to be filled by the caller.
    weight_y, weight_x: float32 (H,) and (W,), the weight of the lower and of the right neighbour.
    """

    values: NDArray[np.uint8]
    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]
    weight_y: NDArray[np.float32]
    weight_x: NDArray[np.float32]


def window_of(resize: str, picture: tuple[int, int], size: tuple[int, int]) -> Window:
    """The window of a picture (height, width) that a net of input `size` (height, width) sees.

    stretch: all of it. crop: the largest centred part of the net's aspect ratio. letterbox: the smallest centred
    rectangle of that ratio around the picture, so that bands appear on two sides (rounded to whole, equal bands).
    The last two round as Keras' `crop_to_aspect_ratio` and `pad_to_aspect_ratio` do.
    """
    height, width = picture
    fitting_height = width * size[0] // size[1]
    fitting_width = height * size[1] // size[0]
    if resize == "crop":
        rows, columns = max(min(height, fitting_height), 1), max(min(width, fitting_width), 1)
        return Window((height - rows) // 2, (width - columns) // 2, rows, columns)
    if resize == "letterbox":
        band_y, band_x = max(fitting_height - height, 0) // 2, max(fitting_width - width, 0) // 2
        return Window(-band_y, -band_x, height + 2 * band_y, width + 2 * band_x)
    return Window(0, 0, height, width)


@lru_cache(maxsize=16)
def _taps(length: int, outputs: int) -> Taps:
    scale = np.float32(length) / np.float32(outputs)
    half = np.float32(0.5)
    position = (np.arange(outputs, dtype=np.float32) + half) * scale - half
    floor = np.floor(position)
    index = np.stack([floor, np.ceil(position)], axis=1).reshape(-1)
    # Clamped as whole numbers: beyond 2^24 pixels float32 rounds the last positions up to the length itself.
    return Taps(index.astype(np.intp).clip(0, length - 1), position - floor)


def neighbours(picture: NDArray[np.uint8], window: Window, size: tuple[int, int]) -> Neighbours:
    """What a resize of `window` of a picture (h, w, C) to `size` (H, W) reads."""
    height, width = picture.shape[:2]
    y, x = _taps(window.height, size[0]), _taps(window.width, size[1])
    rows, columns = y.index + window.top, x.index + window.left
    values = picture[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    return Neighbours(values, inside_rows, inside_columns, y.weight, x.weight)


def blend(
    values: NDArray[np.uint8], weight_y: NDArray[np.float32], weight_x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Neighbours (2H, 2W, C) and weights (H,), (W,) to the interpolated picture, float32 (H, W, C)."""
    corners = values.astype(np.float32)
    left, right = corners[:, 0::2], corners[:, 1::2]
    across = left + (right - left) * weight_x[:, None]
    upper, lower = across[0::2], across[1::2]
    return upper + (lower - upper) * weight_y[:, None, None]
