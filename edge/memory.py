"""Aligned memory that kernels read and write, with spare bytes behind its end."""

from __future__ import annotations

import numpy as np

from edge.program import ALIGNMENT, SPARE_BYTES


def aligned(nbytes: int) -> np.ndarray:
    """Zeroed uint8 of `nbytes`, starting on a 64-byte boundary and followed by 64 spare bytes."""
    raw = np.zeros(nbytes + SPARE_BYTES + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
