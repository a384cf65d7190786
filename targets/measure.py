"""Timing an engine on this machine: whole inferences by threads, and instructions."""

from __future__ import annotations

import numpy as np

from edge.engine import Engine
from edge.program import Program
from edge.tensors import Encoding, TensorType
from edge.threads import most_threads

REPEATS = 30
_BUDGET_S = 1.0  # for all repeats of one number of threads
_FEWEST = 5
_BEFORE_SHARING = 12  # inferences after which an engine has tried its helpers


def example(program: Program) -> np.ndarray | list[np.ndarray]:
    """A random picture: bytes, int8, or float32 of 0..1; of several inputs a list of one for each."""
    random = np.random.default_rng(0)
    drawn = [_drawn(random, program.tensors[number].type) for number in program.inputs]
    return drawn[0] if len(drawn) == 1 else drawn


def _drawn(random: np.random.Generator, kind: TensorType) -> np.ndarray:
    pixels = random.integers(0, 256, kind.shape).astype(np.uint8)
    if kind.encoding is Encoding.INT8:
        return pixels.view(np.int8)
    return pixels if kind.encoding is Encoding.UINT8 else pixels.astype(np.float32) / np.float32(255)


def seconds_by_threads(program: Program, *, repeats: int = REPEATS) -> dict[int, float]:
    """The median seconds of whole inferences on 1, 2, ... threads, as many as this process may use."""
    picture = example(program)
    return {
        threads: _median(Engine(program, threads=threads), picture, repeats)
        for threads in range(1, most_threads() + 1)
    }


def _median(engine: Engine, picture: np.ndarray | list[np.ndarray], repeats: int) -> float:
    """Warm; fewer repeats of what takes long."""
    last = float(engine.times(picture, 2, whole=True)[-1, 0])
    count = max(_FEWEST, min(repeats, int(_BUDGET_S / max(last, 1e-9))))
    if engine.threads > 1:
        engine.times(picture, max(_FEWEST, min(_BEFORE_SHARING, count)), whole=True)
    return float(np.median(engine.times(picture, count, whole=True)))


def instruction_seconds(engine: Engine, *, whole_s: float | None = None, repeats: int = REPEATS) -> np.ndarray:
    """Median seconds of every instruction on one thread, without what calling them one by one adds: together they take `whole_s`."""
    picture = example(engine.program)
    engine.times(picture, 2)  # warm caches
    medians: np.ndarray = np.median(engine.times(picture, repeats), axis=0)
    if whole_s is None:
        return medians
    # What a call adds is about the same for each; no instruction takes less than a tenth of what was seen.
    added = max(0.0, (float(medians.sum()) - whole_s) / len(medians))
    left = np.maximum(medians - added, medians / 10)
    scaled: np.ndarray = left * (whole_s / left.sum())
    return scaled
