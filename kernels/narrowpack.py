"""Whole numbers of 4 and 2 bits, packed into bytes: a value v of b bits, -2^(b-1) <= v < 2^(b-1), is the field v + 2^(b-1).

Fields without a sign need no sign extension. The values that share a byte lie in it from its lowest bit on.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def offset(bits: int) -> int:
    """What is added to a value to make it a field."""
    return 1 << bits - 1


def pack(values: Array, bits: int) -> Array:
    """(..., 8 / bits) int8 to a byte each (uint8). ValueError for what does not fit."""
    if values.size and not -offset(bits) <= values.min() <= values.max() < offset(bits):
        raise ValueError(f"values of {bits} bits are {-offset(bits)} to {offset(bits) - 1}, got {values.min()} to {values.max()}")
    fields = values.astype(np.uint8) + np.uint8(offset(bits)) << np.arange(0, 8, bits, dtype=np.uint8)
    packed: Array = np.bitwise_or.reduce(fields, axis=-1)
    return packed


def unpack(data: Array, bits: int) -> Array:
    """The inverse of `pack`: (...) bytes to (..., 8 / bits) int8."""
    fields = data[..., None] >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8((1 << bits) - 1)
    values: Array = fields.astype(np.int8) - np.int8(offset(bits))
    return values
