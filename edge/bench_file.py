"""Runs of `edge bench` in files, in pytest-benchmark's format: its own tools read them, and one run compares with another.

    pytest-benchmark compare old.json new.json        with pytest-benchmark
    edge bench MODEL --compare old.json               with edge, at equal clocks

A file holds no name of the machine or of its user. `stats` are of all warm calls; what else was measured is in `extra_info`, and the state
of the clock in `machine_info`.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench import Row, Run, Seconds
from edge.bench_rounds import changed
from edge.errors import InputError
from edge.files import write_atomically
from edge.paths import require_file

FORMAT = "4.0.0"  # the version of pytest-benchmark that the keys are those of


# -- writing -------------------------------------------------------------------------------------------------------------------


def save(run: Run, path: str | os.PathLike[str]) -> None:
    """Write a run. Raises `EdgeError` where that fails."""
    write_atomically(path, [(json.dumps(to_pytest_benchmark(run), indent=1, allow_nan=False) + "\n").encode()])


def check_replaceable(path: Path) -> None:
    """Raise InputError where a file is in the way that no run was saved to, or where there is no folder; before anything is measured."""
    if path.exists():
        load(path)
    elif not path.parent.is_dir():
        raise InputError(f"cannot save to {path}: expected a folder that exists, got none; make it first")


def to_pytest_benchmark(run: Run) -> dict[str, Any]:
    """The document that pytest-benchmark would write."""
    return {
        "machine_info": _machine_info(run),
        "commit_info": {"id": "unknown", "time": None, "author_time": None, "dirty": False, "project": "edge", "branch": "(unknown)"},
        "benchmarks": [_benchmark(row, run) for row in run.rows],
        "datetime": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": FORMAT,
    }


def _machine_info(run: Run) -> dict[str, Any]:
    return {
        "node": "",
        "processor": platform.processor(),
        "machine": platform.machine(),
        "python_compiler": platform.python_compiler(),
        "python_implementation": platform.python_implementation(),
        "python_implementation_version": platform.python_version(),
        "python_version": platform.python_version(),
        "python_build": list(platform.python_build()),
        "release": platform.release(),
        "system": platform.system(),
        "cpu": {"brand_raw": run.machine["processor"], "count": run.machine["cores"]},
        "edge": {
            **run.machine,
            "spin_s": run.spin_s,
            "clock_before": run.before.to_json(),
            "clock_after": run.after.to_json(),
            "not_available": list(run.after.missing),
            "absent": [{"name": name, "reason": reason} for name, reason in run.absent],
            "remarks": list(run.remarks),
            "flush_bytes": run.flush_bytes,
        },
    }


def _benchmark(row: Row, run: Run) -> dict[str, Any]:
    return {
        "group": f"{row.threads} thread{'s' if row.threads > 1 else ''}",
        "name": row.name,
        "fullname": row.full_name,
        "params": {"threads": row.threads},
        "param": str(row.threads),
        "extra_info": row.to_json(),
        "options": {"disable_gc": False, "timer": "perf_counter", "max_time": run.seconds, "warmup": True},
        "stats": statistics(row.latencies_s),
    }


def statistics(seconds: Seconds) -> dict[str, Any]:
    """The figures of pytest-benchmark for the seconds of calls; its quartiles are those of numpy but for the last part of a step."""
    low, median, high = (float(value) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    mean, deviation, spread = float(seconds.mean()), float(seconds.std(ddof=1)) if len(seconds) > 1 else 0.0, high - low
    inside = seconds[(seconds >= low - 1.5 * spread) & (seconds <= high + 1.5 * spread)]
    far, beyond = int((abs(seconds - mean) > deviation).sum()), len(seconds) - len(inside)
    return {
        "min": float(seconds.min()),
        "max": float(seconds.max()),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": median,
        "iqr": spread,
        "q1": low,
        "q3": high,
        "iqr_outliers": beyond,
        "stddev_outliers": far,
        "outliers": f"{far};{beyond}",
        "ld15iqr": float(inside.min()),
        "hd15iqr": float(inside.max()),
        "ops": 1 / mean,
        "total": float(seconds.sum()),
        "iterations": 1,
    }


# -- reading and comparing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A row of a file: its median and quartiles, seconds of a call."""

    median_s: float
    quartiles_s: tuple[float, float]


@dataclass(frozen=True)
class StoredRun:
    """A run as a file holds it: rows by full name. spin_s: of the fixed loop amid its rounds; None in files of others."""

    rows: Mapping[str, Stored]
    spin_s: float | None
    processor: str | None
    python: str | None


@dataclass(frozen=True)
class Change:
    """A row of both runs. times: how many times as long it takes now, at equal clocks; clear: the quartiles do not overlap."""

    name: str
    before_s: float
    now_s: float
    times: float
    clear: bool


@dataclass(frozen=True)
class Comparison:
    """changes: those that became slower first; clocks: how many times as fast the fixed loop ran now, 1 where that cannot be told."""

    changes: tuple[Change, ...]
    clocks: float
    missing: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def worst(self) -> Change | None:
        """What became slower most, or faster least, of the clear changes."""
        return next((each for each in self.changes if each.clear), None)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "worst": self.worst.times if self.worst else None}


def load(path: str | os.PathLike[str]) -> StoredRun:
    """Read what `save`, or pytest-benchmark, wrote. Raises `InputError` for anything else."""
    file = require_file(path, "run to compare with")
    try:
        document = json.loads(file.read_text("utf-8"))
        rows = {str(each["fullname"]): _stored(each["stats"]) for each in document["benchmarks"]}
        info = document["machine_info"]
        known = info.get("edge", {})
        spin = known["spin_s"] if known else None
        return StoredRun(rows, None if spin is None else _positive(spin), known.get("processor"), info.get("python_version"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as err:
        raise InputError(
            f"cannot read {os.fspath(path)} as a saved run: expected JSON of edge bench --save or pytest-benchmark, got something else "
            f"({type(err).__name__}: {str(err)[:80]}); name another file"
        ) from err


def _stored(stats: Mapping[str, Any]) -> Stored:
    return Stored(_positive(stats["median"]), (_positive(stats["q1"]), _positive(stats["q3"])))


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{value!r} is no time")
    return float(value)


def compare(run: Run, old: StoredRun) -> Comparison:
    """What became slower or faster, at equal clocks where both runs are of one processor and one Python.

    Raises `InputError` where no row is in both.
    """
    now = {row.full_name: _stored(statistics(row.latencies_s)) for row in run.rows}
    both = [name for name in now if name in old.rows]
    if not both:
        known = ", ".join(old.rows) or "nothing"
        raise InputError(f"the saved run has no row of this one: it holds {known}, this one {', '.join(now)}; bench the same files")
    clocks, remarks = _clocks(run, old)
    changes = [
        Change(name, old.rows[name].median_s, now[name].median_s, *changed(old.rows[name], now[name], clocks=clocks)) for name in both
    ]
    missing = tuple(name for name in old.rows if name not in now)
    return Comparison(tuple(sorted(changes, key=lambda each: -each.times)), clocks, missing, remarks)


def _clocks(run: Run, old: StoredRun) -> tuple[float, tuple[str, ...]]:
    """How many times as fast the fixed loop ran now, and what makes the two runs differ."""
    processor, python = run.machine["processor"], platform.python_version()
    if old.spin_s is None:
        return 1.0, ("the saved run does not tell its clock: times are compared as they are",)
    if old.processor != processor:
        return 1.0, (f"the saved run is of another processor, {old.processor}: times are compared as they are",)
    if old.python != python:
        return 1.0, (f"the saved run is of Python {old.python}, this one of {python}: times are compared as they are",)
    return old.spin_s / run.spin_s, ()
