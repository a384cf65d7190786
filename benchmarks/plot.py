"""Draw docs/results.png from benchmarks/results/digits.json: `python benchmarks/plot.py` (needs matplotlib)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "results" / "digits.json"
PICTURE = HERE.parent / "docs" / "results.png"
COLOURS = ("#0b7285", "#adb5bd")


def main() -> None:
    """Two bar charts side by side: time of a picture, bytes of the file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    report = json.loads(SOURCE.read_text(encoding="utf-8"))
    rows = report["rows"]
    names = [f"{row['name']}\n{row['accuracy_percent']:.2f} % right" for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.3), dpi=150, layout="constrained")
    _bars(axes[0], names, [row["median_us"] for row in rows], "microseconds a picture, one thread", "{:.0f} µs")
    _bars(axes[1], [""] * len(rows), [row["file_bytes"] / 1024 for row in rows], "file", "{:.0f} KiB")
    environment = report["environment"]
    figure.suptitle(f"Handwritten digits on {environment['processor']}", fontsize=10)
    figure.savefig(PICTURE)


def _bars(axes: Any, names: list[str], values: list[float], title: str, form: str) -> None:
    """Horizontal bars, the first on top, with their values behind them and nothing else."""
    places = range(len(values), 0, -1)
    bars = axes.barh(list(places), values, color=COLOURS, height=0.6)
    axes.bar_label(bars, [form.format(value) for value in values], padding=4, fontsize=9)
    axes.set_yticks(list(places), names, fontsize=9)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlim(0, 1.25 * max(values))
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)


if __name__ == "__main__":
    main()
