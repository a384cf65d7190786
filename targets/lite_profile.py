"""What a `.tflite` file costs: bytes and multiply-accumulates of its operators from its tables, time by an interpreter on this machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from edge.errors import InputError
from edge.tflite_listing import list_tflite
from edge.threads import most_threads

MEASURED = "measured"
_REPEATS, _FEWEST, _BUDGET_S = 30, 5, 1.0
_ERROR = 0.1  # of a median on a machine that does other things too


@dataclass(frozen=True)
class LiteLayer:
    """An operator. `constants_bytes` are those of constants no operator before it reads; `output_bytes` of its first output."""

    operator: str
    output: str
    precision: str
    macs: int
    constants_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class LiteProfile:
    """A `.tflite` file on this machine; `seconds_by_threads` of whole inferences, the input in place. RAM is the interpreter's secret."""

    model: str
    backend: str
    storage_bytes: int
    layers: tuple[LiteLayer, ...]
    macs: dict[str, int]
    seconds_by_threads: dict[int, float]
    time_basis: str = MEASURED
    expected_error: float = _ERROR

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        times = {str(threads): seconds for threads, seconds in self.seconds_by_threads.items()}
        return {**dataclasses.asdict(self), "target": "host", "seconds_by_threads": times}


def profile_tflite(path: str | os.PathLike[str], *, threads: int | None = None) -> LiteProfile:
    """Profile a `.tflite` file on 1 to `threads` threads (as many as this process may use, if None).

    Raises `FormatError` for a damaged file, `MissingPackage` where no interpreter is installed, `InputError` for one without input.
    """
    from edge.tflite_runner import load_tflite

    where = Path(path)
    layers = _layers(where.read_bytes())
    times: dict[int, float] = {}
    for count in range(1, (threads or most_threads()) + 1):
        model = load_tflite(where, threads=count)
        if not model.inputs:
            raise InputError(f"{where} takes no input, expected one or more; run it with its own interpreter")
        random = np.random.default_rng(0)
        times[count] = _seconds(model.placed(*(random.random(info.shape, np.float32) for info in model.inputs)))
    return LiteProfile(os.fspath(path), model.backend, where.stat().st_size, layers, _macs(layers), times)


def _layers(data: bytes) -> tuple[LiteLayer, ...]:
    return tuple(
        LiteLayer(each.name, each.output.name, each.precision, each.macs, each.constant_bytes, each.output.nbytes)
        for each in list_tflite(data).operators
    )


def _macs(layers: tuple[LiteLayer, ...]) -> dict[str, int]:
    """Multiply-accumulates by precision."""
    total: dict[str, int] = {}
    for layer in layers:
        if layer.macs:
            total[layer.precision] = total.get(layer.precision, 0) + layer.macs
    return total


def _seconds(call: Callable[[], None]) -> float:
    """The median of warm calls."""
    call()
    first = _timed(call)
    count = max(_FEWEST, min(_REPEATS, int(_BUDGET_S / max(first, 1e-9))))
    return median(_timed(call) for _ in range(count))


def _timed(call: Callable[[], None]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started
