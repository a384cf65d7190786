"""What the kernel says of a process's memory: the lines of `/proc/self/smaps`, in place of what the process says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SMAPS = Path("/proc/self/smaps")
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)")


@dataclass(frozen=True)
class Mapping:
    """Addresses [start, end), what may be done there ("rw-p"), the file ("" for memory), and the Size the kernel gives, bytes."""

    start: int
    end: int
    access: str
    file: str
    size_bytes: int


def mappings() -> list[Mapping]:
    lines = SMAPS.read_text().splitlines()
    heads = [(i, match) for i, line in enumerate(lines) if (match := _HEAD.fullmatch(line))]
    return [
        Mapping(int(m[1], 16), int(m[2], 16), m[3], m[4], 1024 * int(lines[i + 1].removeprefix("Size:").removesuffix("kB")))
        for i, m in heads
    ]


def holding(arrays: Iterable[np.ndarray]) -> list[Mapping]:
    """The mappings that hold the first bytes of arrays, each once."""
    starts = {int(array.ctypes.data) for array in arrays}
    return [each for each in mappings() if any(each.start <= start < each.end for start in starts)]
