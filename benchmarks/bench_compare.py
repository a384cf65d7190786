"""What became slower or faster between two runs, each seen against its own limits, so that runs at different clocks compare.

    python benchmarks/bench_compare.py [RUN.json] [--baseline FILE.json] [--all] [--fail-above 1.15]

The run is the last one that was measured; the baseline is the committed `benchmarks/results/bench.json`. A time is multiplied by what the
register probes of its run reached (of the row's own arithmetic): operations that the machine could have done meanwhile. Rows that move a
large filter from memory, and rows of no arithmetic, are compared by all probes together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_rows import ARITHMETICS, LIMITS, RESULTS, Row, Run, load, parsed
from bench_tables import seconds_text
from bench_terminal import wide_console

from edge.bench_rounds import changed

LAST = Path(__file__).resolve().parent / ".cache" / "last.json"
COMMITTED = "benchmarks/results/bench.json"
NOTABLE = 1.05  # a smaller change is not worth a line


@dataclass(frozen=True)
class Change:
    """A row of both runs. `times` is how many times as long it takes now, against the limits; `clear`: the quartiles do not overlap."""

    row: Row
    before: Row
    times: float
    clear: bool

    @property
    def name(self) -> str:
        threads = f", {self.row.threads} threads" if self.row.threads > 1 else ""
        return f"{self.row.name}, {self.row.kind}{threads}"


def compare(run: Run, baseline: Run) -> list[Change]:
    """The rows that both runs have, those that became slowest first; the limits themselves left out."""
    before = {row.key: row for row in baseline.rows}
    found = []
    for row in run.rows:
        old = before.get(row.key)
        if row.group != LIMITS and row.ours is not None and old is not None and old.ours is not None:
            found.append(_change(row, old, clock(run, row) / clock(baseline, old)))
    return sorted(found, key=lambda change: -change.times)


def _change(row: Row, old: Row, clocks: float) -> Change:
    assert row.ours is not None and old.ours is not None
    return Change(row, old, *changed(old.ours, row.ours, clocks=clocks))


def clock(run: Run, row: Row) -> float:
    """Operations a second of the probes that a row is measured by; 1 where the run has none."""
    rates = {probe.kind: probe.rate for probe in run.select(LIMITS) if probe.kind in ARITHMETICS and probe.rate}
    plain = bool(row.work) and set(row.work) <= set(rates)
    kinds = row.work if plain else rates
    return statistics.geometric_mean([rates[kind] for kind in kinds if rates[kind]]) if kinds else 1.0


def missing(run: Run, baseline: Run) -> list[Row]:
    """Rows of the baseline that the run has no more, of the groups that it has."""
    groups, keys = {row.group for row in run.rows}, {row.key for row in run.rows}
    return [row for row in baseline.rows if row.group in groups and row.key not in keys]


def worst(changes: Sequence[Change]) -> float:
    """The largest clear change."""
    return max((change.times for change in changes if change.clear), default=1.0)


# -- the command ---------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    run, baseline = load(options.run), load(options.baseline) if options.baseline else committed()
    changes = compare(run, baseline)
    _print(changes, len(missing(run, baseline)), everything=options.all)
    if options.fail_above is not None and worst(changes) > options.fail_above:
        return 1
    return 0


def committed() -> Run:
    """The run that is committed; that of the working tree where there is no git."""
    root = Path(__file__).resolve().parent.parent
    try:
        shown = subprocess.run(["git", "show", f"HEAD:{COMMITTED}"], cwd=root, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return load(RESULTS / "bench.json")
    content: Mapping[str, Any] = json.loads(shown.stdout)
    return parsed(content, f"HEAD:{COMMITTED}")


def _print(changes: Sequence[Change], gone: int, *, everything: bool) -> None:
    from rich.table import Table

    shown = [change for change in changes if everything or (change.clear and not 1 / NOTABLE < change.times < NOTABLE)]
    table = Table(title="Time against the machine's limits, now and before", title_justify="left")
    table.add_column("work")
    for heading in ("before", "now", "times as long"):
        table.add_column(heading, justify="right")
    for change in shown:
        assert change.row.ours is not None and change.before.ours is not None
        style = "red" if change.times >= NOTABLE and change.clear else "green" if change.times <= 1 / NOTABLE and change.clear else ""
        cells = (change.name, seconds_text(change.before.ours.median_s), seconds_text(change.row.ours.median_s), f"{change.times:.2f}")
        table.add_row(*cells, style=style)
    console = wide_console()
    if shown:
        console.print(table)
    console.print(_summary(changes, gone))


def _summary(changes: Sequence[Change], gone: int) -> str:
    slower = sum(change.clear and change.times >= NOTABLE for change in changes)
    faster = sum(change.clear and change.times <= 1 / NOTABLE for change in changes)
    text = f"{len(changes)} rows in both runs: {slower} slower, {faster} faster by {100 * (NOTABLE - 1):.0f} % or more beyond their spread"
    return text + (f"; {gone} rows of the baseline are missing" if gone else "")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the last run of the benchmarks with a stored one.")
    parser.add_argument("run", nargs="?", type=Path, default=LAST, metavar="RUN.json", help="default: the last run that was measured")
    parser.add_argument("--baseline", type=Path, metavar="FILE.json", help=f"default: the committed {COMMITTED}")
    parser.add_argument("--all", action="store_true", help="every row, not those that changed alone")
    parser.add_argument("--fail-above", type=float, metavar="TIMES", help="exit with status 1 where a row takes more than TIMES as long")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
