"""Random numbers that are the same on every machine and in every version: splitmix64 (Steele, Lea and Flood, 2014) of a counter.

Number i of stream s of a seed is mix(mix(mix(seed) + s) + i): nothing is kept between calls, and any part can be made by itself. NumPy's
generators promise less: their streams may change with its version.
"""

from __future__ import annotations

import numpy as np

from edge.tensors import Encoding, TensorType

GENERATOR = "splitmix64"  # its name where files say what their numbers come from

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
MAX_SEED = (1 << 64) - 1


def words(seed: int, stream: int, count: int) -> np.ndarray:
    """`count` uniform uint64 of a stream; seed and stream are 0 to `MAX_SEED`."""
    start = _mixed(_mixed(np.array([seed], np.uint64)) + np.uint64(stream))
    return _mixed(start + np.arange(count, dtype=np.uint64))


def levels(seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform uint8."""
    return (words(seed, stream, int(np.prod(shape))) >> np.uint64(56)).astype(np.uint8).reshape(shape)


def whole(bound: int, seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers from 0 to `bound` - 1 as float32; `bound` is 1 to 2**24."""
    return (words(seed, stream, int(np.prod(shape))) % np.uint64(bound)).astype(np.float32).reshape(shape)


def signs(seed: int, stream: int, count: int) -> np.ndarray:
    """float64 +-1, each as likely."""
    return 1.0 - 2.0 * (words(seed, stream, count) >> np.uint64(63)).astype(np.float64)


def between(low: float, high: float, seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 from `low` to `high`, on a grid of 2**24 steps."""
    steps = (words(seed, stream, int(np.prod(shape))) >> np.uint64(40)).astype(np.float64)
    return np.asarray(low + steps * ((high - low) / (1 << 24)), np.float32).reshape(shape)


def network_input(kind: TensorType, domain: tuple[float, float], seed: int, stream: int, *, rows: int | None = None) -> np.ndarray:
    """Noise for an input: pixels, each level as likely, as bytes or scaled to `domain`; or numbers of the `rows` it looks up."""
    if rows is not None:
        return whole(rows, seed, stream, kind.shape)
    pixels = levels(seed, stream, kind.shape)
    if kind.encoding is Encoding.UINT8:
        return pixels
    low, high = domain
    return np.asarray(low + pixels * ((high - low) / 255), np.float32)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64, on arrays, whose uint64 arithmetic wraps silently."""
    x = x + _STEP
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return np.asarray(x ^ (x >> np.uint64(31)))
