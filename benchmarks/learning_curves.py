"""How the networks of the results table learnt: docs/learning-curves.svg, from the curves in benchmarks/results/curves.

A panel for each recipe, a line for each precision: the share of the pictures held back that is wrong (clocks: minutes off) after each
epoch, on a logarithmic scale; dotted while weights were still floats. The dot is the epoch that was kept.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy_rows import CURVES, ROOT, Rows, is_minutes, is_whole
from panels import draw

from edge.recipes import TABLE

PICTURE = ROOT / "docs" / "learning-curves.svg"
COLOURS = {"float": "0.55", "xnor-weights": "#8b6fd6", "dorefa-weights": "#d97706", "xnor": "#0d9488", "xnor-k": "#2563eb"}
FINE_TICKS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 12, 15, 20, 30, 50, 100, 200)
TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
WIDE = 20  # times from the least to the largest, from which fine ticks stand too close


@dataclass(frozen=True)
class Curve:
    """One run of a recipe. wrong: of each epoch, percent or minutes. float_weights: epochs at the start with weights still floats."""

    precision: str
    wrong: Sequence[float]
    float_weights: int
    kept: int


@dataclass(frozen=True)
class Lesson:
    """The curves of a recipe at width 1 and seed 0."""

    recipe: str
    unit: str
    curves: Sequence[Curve]


def lessons(rows: Rows, folder: Path = CURVES) -> list[Lesson]:
    """Those of which a curve is stored, in the order of the table."""
    found = []
    for name in TABLE:
        mine = [row for row in rows if (row["recipe"], row["width"], row["seed"]) == (name, 1.0, 0) and is_whole(row)]
        paths = {row["precision"]: (row, folder / f"{row['run']}.csv") for row in mine}
        told = [paths[precision] for precision in COLOURS if precision in paths and paths[precision][1].exists()]
        if told:
            unit = "minutes off" if _in_minutes(told[0][0]) else "% wrong"
            found.append(Lesson(name, unit, [_curve(row, path) for row, path in told]))
    return found


def _curve(row: Mapping[str, Any], path: Path) -> Curve:
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    scores = [float(line["validation"]) for line in lines]
    wrong = scores if _in_minutes(row) else [100 * (1 - score) for score in scores]
    return Curve(row["precision"], wrong, sum(line["stage"] == "signs" for line in lines), row["best_epoch"])


def _in_minutes(row: Mapping[str, Any]) -> bool:
    return any(is_minutes(file) for file in row["files"].values())


def plot(rows: Rows, path: Path = PICTURE, folder: Path = CURVES) -> bool:
    """Draw all curves into `path`; whether there was any."""
    return draw(path, lessons(rows, folder), _panel)


def _panel(axes: Any, lesson: Lesson) -> None:
    for curve in lesson.curves:
        colour, epochs, before = COLOURS[curve.precision], range(1, len(curve.wrong) + 1), curve.float_weights
        axes.plot(epochs[:before], curve.wrong[:before], color=colour, linewidth=1, linestyle=":")
        axes.plot(epochs[before:], curve.wrong[before:], color=colour, linewidth=1, label=curve.precision)
        axes.scatter([curve.kept], [curve.wrong[curve.kept - 1]], color=colour, s=10, zorder=3)
    axes.set_title(f"{lesson.recipe}, {lesson.unit}", fontsize=8, loc="left")
    axes.set(yscale="log", xlim=(0, None), xlabel="epoch")
    low, high = axes.get_ylim()
    ticks = [tick for tick in (FINE_TICKS if high < WIDE * low else TICKS) if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize=6, frameon=False, loc="best")
