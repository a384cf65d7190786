"""What operations mean that resize, rearrange, look up and normalize, in plain NumPy; part of `edge.kernels.reference`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge.kernels.places import bilinear_places, nearest_places
from edge.ops import OpCall

Array = np.ndarray


def maximum(x: Array, m: Array) -> Array:
    """x where it is larger, else m: m too where one is not a number."""
    larger: Array = np.where(x > m, x, m)
    return larger


def minimum(x: Array, m: Array) -> Array:
    smaller: Array = np.where(x < m, x, m)
    return smaller


def log_softmax(x: Array) -> Array:
    """x - max - log of the sum of exp(x - max), over the channels."""
    shifted = (x - x.max(axis=-1, keepdims=True)).astype(np.float64)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs.astype(np.float32)


def cut(image: Array, call: OpCall) -> Array:
    """Rows, columns and channels from the first on, as many as `call` says, some left out between rows and columns."""
    (top, rows, down), (left, columns, right) = ((call.i(f"start_{a}"), call.i(f"size_{a}"), call.i(f"step_{a}")) for a in "hw")
    first, count = call.i("start_c"), call.i("size_c")
    return image[top::down, left::right, first : first + count][:rows, :columns]


def nearest(image: Array, shape: tuple[int, int, int]) -> Array:
    """The image with as many rows and columns as `shape`."""
    rows, columns = (nearest_places(image.shape[axis], shape[axis]) for axis in (0, 1))
    repeated: Array = image[rows][:, columns]
    return repeated


def bilinear(image: Array, shape: tuple[int, int, int]) -> Array:
    """Between columns first, then between rows: a + (b - a) * share, each step rounded."""
    (top, bottom, down), (left, right, across) = (bilinear_places(image.shape[axis], shape[axis]) for axis in (0, 1))
    columns = _between(image[:, left], image[:, right], across[:, np.newaxis])
    return _between(columns[top], columns[bottom], down[:, np.newaxis, np.newaxis])


def _between(first: Array, second: Array, share: Array) -> Array:
    found: Array = first + (second - first) * share
    return found


def to_space(image: Array, rows: int, columns: int) -> Array:
    """(H, W, rows * columns * C) to (H * rows, W * columns, C): pixel (y, x) of a block takes C channels from (y * columns + x) * C on."""
    height, width, channels = image.shape
    blocks = image.reshape(height, width, rows, columns, -1).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(height * rows, width * columns, channels // (rows * columns))


def normalized(x: Array, constants: Mapping[str, Array], epsilon: float) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * mul + add, over the channels; from float64, so kernels agree within a tolerance."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    found: Array = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    found = found * constants["mul"] if "mul" in constants else found
    return (found + constants["add"] if "add" in constants else found).astype(np.float32)


def local_response(x: Array, attrs: Mapping[str, int | float]) -> Array:
    """x / (bias + alpha * sum of squares)^beta, the sum over the channels at most `radius` away (Krizhevsky et al., 2012, section 3.3).

    From float64, so kernels agree within a tolerance.
    """
    radius, channels = int(attrs["radius"]), x.shape[-1]
    squares = x.astype(np.float64) ** 2
    total = np.stack([squares[..., max(0, c - radius) : c + radius + 1].sum(axis=-1) for c in range(channels)], axis=-1)
    base: Array = attrs["bias"] + attrs["alpha"] * total
    shares: Array = x * base ** -attrs["beta"]
    return shares.astype(np.float32)


def rows_of(table: Array, indices: Array) -> Array:
    """The rows of `table` that `indices` name, rounded towards 0; beyond its ends the nearest row, for what is not a number the first."""
    bounded = np.where(indices > 0, np.where(indices < len(table) - 1, indices, np.float32(len(table) - 1)), np.float32(0))
    return table[bounded.astype(np.int64)]
