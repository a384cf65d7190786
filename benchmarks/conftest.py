"""What benchmarks share: the fixture `bench`, which times contenders and records rows, and the report at the end of a run.

    pytest benchmarks --bench-run benchmarks/results/bench.json     measures, and writes bench.json, bench.md and bench.html
    pytest benchmarks -m quick --bench-rounds 15                    the main rows alone, printed in the terminal
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bench_pages
import bench_report
import bench_terminal
import pytest
from bench_compare import LAST
from bench_rows import Row, Run, in_order, make_row, save
from bench_timing import Call, Remote, Timing, interleave

ROUNDS = 60
BUDGET_SECONDS = 5.0  # for the rounds of one row

ROOT = Path(__file__).resolve().parent.parent

_ROWS: list[Row] = []
_ABSENT: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench")
    group.addoption("--bench-run", type=Path, metavar="FILE.json", help="store the rows of this run here, and a report beside it")
    group.addoption("--bench-own-report", action="store_true", help="write the report of its own that a benchmark has, in many rounds")
    group.addoption("--bench-rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds of every row (default: {ROUNDS})")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: belongs to `make bench-quick`")


class Bench:
    """Times the contenders of one test in turns and records them as a row of the run. One row a test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request, self._rounds = request, request.config.getoption("--bench-rounds")
        self.own_report = request.config.getoption("--bench-own-report")  # many rounds, and a report of the test's own

    def row(
        self,
        group: str,
        name: str,
        kind: str,
        contenders: Mapping[str, Call | Remote],
        *,
        threads: int = 1,
        work: Mapping[str, float] | None = None,
        facts: Mapping[str, Any] | None = None,
        budget_s: float = BUDGET_SECONDS,
    ) -> Row:
        """Time `contenders`, edge's first, and record the row. Results must have been asserted before."""
        timings = self.time(contenders, budget_s=budget_s)
        return self.add(group, name, kind, timings, threads=threads, work=work, facts=facts)

    def time(
        self, contenders: Mapping[str, Call | Remote], *, rounds: int | None = None, budget_s: float = BUDGET_SECONDS
    ) -> dict[str, Timing]:
        """The timings alone, of contenders that took turns; `rounds` as the command line says where they are not given."""
        (name, call), *others = contenders.items()
        benchmark = self._request.getfixturevalue("benchmark")
        return interleave(benchmark, name, call, dict(others), rounds=rounds or self._rounds, budget_s=budget_s)

    def add(self, group: str, name: str, kind: str, timings: Mapping[str, Timing], **about: Any) -> Row:
        """Record a row of timings taken with `time` (`about`: threads, work, facts); raises `ValueError` if there is one already."""
        return _recorded(make_row(group, name, kind, timings, **about))

    def fact(self, group: str, name: str, kind: str, facts: Mapping[str, Any]) -> Row:
        """Record a row of facts alone, which nothing was timed for."""
        return _recorded(Row(group, name, kind, 1, {}, facts=dict(facts)))


def _recorded(row: Row) -> Row:
    if any(row.key == other.key for other in _ROWS):
        raise ValueError(f"there are two rows {row.key}: give each its own name")
    _ROWS.append(row)
    return row


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    """Times contenders and records rows."""
    return Bench(request)


# -- what is absent ------------------------------------------------------------------------------------------------------------


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped or report.failed:
        _ABSENT[report.nodeid.split("/")[-1]] = _reason(report)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped, or the message it failed with, without places of this machine."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else str(report.longrepr)
    return f"failed: {message.splitlines()[0].replace(str(ROOT), '.')}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


# -- the report ----------------------------------------------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Keep the run for `make bench-compare`, store it where that was asked for, and print its main figures."""
    if not _ROWS:
        return
    run = Run(bench_report.environment(threads=1), in_order(_ROWS), sorted(_ABSENT.items()))
    save(run, LAST)
    bench_terminal.show(run)
    path = config.getoption("--bench-run")
    if path is not None:
        save(run, path)
        for made in bench_pages.write(path):
            terminalreporter.write_line(f"wrote {made}")
