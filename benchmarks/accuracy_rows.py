"""What the runs of `edge train` measured: read from their folders, kept in `benchmarks/results`, looked up by recipe and precision."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.recipes import RECIPES, TABLE
from edge.train import RESULT
from edge.train_loop import CURVE
from edge.train_scores import MINUTES_OFF

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "benchmarks" / "results" / "accuracy.json"
CURVES = ROOT / "benchmarks" / "results" / "curves"
RUNS = ROOT / "runs"

COLUMNS = ("float", "int8", "xnor-weights", "dorefa-weights", "xnor", "xnor-k")
RUN_OF = {"float": "float", "int8": "float"}
"""The precision of the run that fills a column, where it has another name."""

TIMED_RUNS = 300
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """The scores of one recipe at one precision, by seed; `file` is that of the lowest seed."""

    scores: tuple[float, ...]
    file: Mapping[str, Any]

    @property
    def is_minutes(self) -> bool:
        return is_minutes(self.file)

    @property
    def value(self) -> float:
        """The mean, in percent or minutes, as it is printed."""
        return round(statistics.mean(self._values()), 2)

    @property
    def merit(self) -> float:
        """Larger is better."""
        return -self.value if self.is_minutes else self.value

    def reaches(self, figure: float) -> bool:
        """Whether the value is as good as `figure`, in percent or minutes."""
        return self.value <= figure if self.is_minutes else self.value >= figure

    def text(self) -> str:
        values = self._values()
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{self.value:.2f}{spread}"

    def _values(self) -> list[float]:
        return [(1 if self.is_minutes else 100) * score for score in self.scores]


def collect(runs: Path, stored: Rows) -> Rows:
    """The stored rows, with those of finished runs in `runs` in place of older ones of the same name."""
    found = {row["run"]: row for row in stored}
    for path in sorted(runs.glob(f"*/{RESULT}")):
        row = json.loads(path.read_text(encoding="utf-8"))
        if row["recipe"] not in RECIPES:  # it makes pictures
            continue
        _keep_latencies(row, found.get(row["run"]))
        found[row["run"]] = row
    return [found[name] for name in sorted(found)]


def _keep_latencies(row: dict[str, Any], before: Mapping[str, Any] | None) -> None:
    """Those of the same files, which a run does not measure itself."""
    for name, file in row["files"].items():
        old = before["files"].get(name, {}) if before else {}
        if "latency_us" in old and all(old[fact] == file[fact] for fact in ("bytes", "score")):
            file["latency_us"] = old["latency_us"]


def measure_latencies(rows: Rows, runs: Path) -> None:
    """The time of one picture on one thread, from array to array: the median of many, microseconds, of files that have none yet."""
    import edge

    for row in rows:
        for file in row["files"].values():
            path = runs / row["run"] / file["file"]
            if "latency_us" in file or not path.exists():
                continue
            engine = edge.load(path)
            picture = np.random.default_rng(0).integers(0, 256, engine.inputs[0].shape).astype(np.uint8)
            engine.times(picture, 10, whole=True)
            file["latency_us"] = round(1e6 * float(np.median(engine.times(picture, TIMED_RUNS, whole=True))), 1)


def read_rows() -> Rows:
    return list(json.loads(STORED.read_text(encoding="utf-8"))["rows"]) if STORED.exists() else []


def keep(rows: Rows, runs: Path) -> None:
    """Store the rows, and the curves of the runs behind them."""
    STORED.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    CURVES.mkdir(exist_ok=True)
    for row in rows:
        curve = runs / row["run"] / CURVE
        if curve.exists() and (curve.parent / RESULT).exists():  # one without may be of the same run begun anew
            (CURVES / f"{row['run']}.csv").write_text(curve.read_text(encoding="utf-8"), encoding="utf-8")


def absent(rows: Rows) -> list[str]:
    """The cells that no run fills: RECIPE PRECISION."""
    return [f"{name} {column}" for name in TABLE for column in COLUMNS if cell(rows, name, column) is None]


def cell(rows: Rows, recipe: str, column: str, width: float = 1.0) -> Cell | None:
    """What was measured of a recipe at one precision; None where nothing was."""
    precision = RUN_OF.get(column, column)
    mine = [row for row in rows if (row["recipe"], row["precision"], row["width"]) == (recipe, precision, width) and is_whole(row)]
    mine.sort(key=lambda row: row["seed"])
    return Cell(tuple(row["files"][column]["score"] for row in mine), mine[0]["files"][column]) if mine else None


def is_minutes(file: Mapping[str, Any]) -> bool:
    """Whether the score of a file is minutes, not a share."""
    return bool(file["measure"] == MINUTES_OFF.name)


def is_whole(row: Mapping[str, Any]) -> bool:
    """Whether a run had all epochs of its recipe, not a try's, and was trained as the recipe says now (where the row tells how)."""
    recipe, precision = RECIPES[row["recipe"]], row["precision"]
    return bool(row["epochs"] >= recipe.schedule(precision).epochs and row.get("how") in (None, recipe.how(precision)))
