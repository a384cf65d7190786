"""Where the pixels of a resized image lie in the image it is made of: for kernels, which find it at load, and for their reference."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def nearest_places(size: int, wanted: int) -> Array:
    """The pixel in which the centre of each of `wanted` lies along an axis of `size`, in float32 as TensorFlow computes it."""
    centres = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(size / np.float32(wanted))
    places: Array = np.minimum(np.floor(centres).astype(np.int64), size - 1)
    return places


def bilinear_places(size: int, wanted: int) -> tuple[Array, Array, Array]:
    """The two neighbours of each of `wanted` pixels along an axis of `size`, and the share of the second, float32.

    The centre of pixel i lies at (i + 0.5) * size / wanted - 0.5 (half-pixel centres, as Keras has them).
    """
    scale = np.float32(size) / np.float32(wanted)
    centres = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    below = np.floor(centres)
    first = np.clip(below, 0, size - 1).astype(np.int64)
    second = np.clip(below + 1, 0, size - 1).astype(np.int64)
    return first, second, centres - below
