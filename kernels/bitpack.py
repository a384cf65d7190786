"""The one bit convention: bit 1 means -1, bit 0 means +1, and padding bits are 0.

Value i of a packed row is bit i % 8 of byte i // 8 (little-endian bit order, so that bytes read as 16, 32 or 64-bit little-endian words
keep the order). With it the dot product of n packed +-1 values is n - 2 * popcount(a xor b); padding bits are 0 in both operands and
add nothing.
"""

from __future__ import annotations

import numpy as np


def pack(bits: np.ndarray, row_bytes: int) -> np.ndarray:
    """Bools (..., n), True for -1, as uint8 (..., row_bytes); raises ValueError if n bits do not fit."""
    count = bits.shape[-1]
    if count > 8 * row_bytes:
        raise ValueError(f"{count} bits do not fit {row_bytes} bytes")
    packed = np.packbits(bits.astype(bool), axis=-1, bitorder="little")
    padding = [(0, 0)] * (bits.ndim - 1) + [(0, row_bytes - packed.shape[-1])]
    return np.pad(packed, padding)


def unpack(packed: np.ndarray, count: int) -> np.ndarray:
    """The first `count` bits of uint8 rows (..., row_bytes) as bools (..., count)."""
    return np.unpackbits(np.ascontiguousarray(packed), axis=-1, count=count, bitorder="little").astype(bool)


def signs(bits: np.ndarray) -> np.ndarray:
    """Bools as float32 +1 (False) and -1 (True)."""
    return np.where(bits, np.float32(-1), np.float32(1))


def negative(values: np.ndarray) -> np.ndarray:
    """The bits of values: True where the sign is -1. sign(0) = +1, -0.0 included; not-a-number has no sign and gives +1."""
    return np.asarray(values < 0)
