"""The pure parts of the benchmarks: timings and ratios, rows and limits, what is asked, comparison and pages. No time is asserted."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import bench_compare
import bench_pages
import numpy as np
import pytest
from bench_checklist import THREE_BY_THREE, Check, checklist
from bench_rows import (
    BITS_BITS,
    BITS_FLOAT,
    EDGE,
    FLOAT,
    INT8,
    LARQ,
    LARQ_INDIRECT,
    LARQ_LAYERS,
    LAYERS,
    LIMITS,
    LITERT_FLOAT,
    LITERT_INT8,
    NET_BINARY,
    NETWORKS,
    OVERHEAD,
    ZOO,
    Figure,
    Row,
    Run,
    in_order,
    load,
    make_row,
    save,
)
from bench_tables import bytes_text, limits_table, main_table, seconds_text, tables
from bench_timing import Timing, interleave, ratio, ratio_quartiles
from hypothesis import given
from hypothesis import strategies as st

ENVIRONMENT = {
    "processor": "a <processor>", "cores": 2, "instruction_set": "avx2", "threads": 1, "system": "Linux", "versions": {"numpy": "2.4"},
}  # fmt: skip


def figure(seconds: float, *, spread: float = 0.01) -> Figure:
    return Figure(seconds, (seconds * (1 - spread), seconds * (1 + spread)), 60, 10)


def row(
    group: str,
    name: str,
    kind: str,
    seconds: float,
    peers: Mapping[str, float] | None = None,
    *,
    threads: int = 1,
    work: Mapping[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Row:
    """A row in which each peer takes as many times as long as `peers` says."""
    times = peers or {}
    figures = {EDGE: figure(seconds), **{peer: figure(seconds * much) for peer, much in times.items()}}
    ratios = {peer: (0.9 * much, much, 1.1 * much) for peer, much in times.items()}
    return Row(group, name, kind, threads, figures, ratios, dict(work or {}), dict(facts or {}))


def probe(kind: str, rate: float) -> Row:
    return row(LIMITS, "registers", kind, 1.0, work={kind: rate})


PROBES = [probe("binary", 1.25e12), probe("int8", 2.3e11), probe("float32", 5.8e10)]


def run_of(*rows: Row, absent: tuple[tuple[str, str], ...] = ()) -> Run:
    return Run(ENVIRONMENT, in_order([*PROBES, *rows]), list(absent))


# -- timings -------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(1e-7, 1e-2), st.floats(0.1, 50)), min_size=1, max_size=40), st.floats(0.1, 10))
def test_ratio_is_the_median_of_neighbouring_rounds_whatever_the_clock_does(pairs: list[tuple[float, float]], factor: float) -> None:
    ours = Timing(tuple(seconds for seconds, _ in pairs), 5)
    peer = Timing(tuple(seconds * times for seconds, times in pairs), 5)
    low, middle, high = ratio_quartiles(peer, ours)
    assert low <= middle <= high
    assert middle == ratio(peer, ours) == pytest.approx(float(np.median([times for _, times in pairs])), rel=1e-6)
    # A clock that slows both in a round moves nothing.
    clocks = [factor if i % 2 else 1.0 for i in range(len(pairs))]
    slowed = [Timing(tuple(s * c for s, c in zip(timing.seconds, clocks, strict=True)), 5) for timing in (peer, ours)]
    assert ratio(*slowed) == pytest.approx(middle, rel=1e-6)


class Benchmark:
    """What `interleave` uses of pytest-benchmark's fixture."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, target: Callable[[], object], *, setup: Callable[[], None], rounds: int, iterations: int) -> None:
        for _ in range(rounds * iterations):
            setup()
            target()


class Slow:
    """A contender that times itself: every call takes a second, as it says."""

    def seconds(self, calls: int) -> float:
        return float(calls)


def test_contenders_take_turns_and_a_budget_cuts_rounds() -> None:
    benchmark, order = Benchmark(), []
    peers: dict[str, Any] = {"a": lambda: order.append("a"), "b": lambda: order.append("b"), "slow": Slow()}
    timings = interleave(benchmark, EDGE, lambda: order.append(EDGE), peers, rounds=40, budget_s=3.0)
    assert list(timings) == [EDGE, "a", "b", "slow"]
    assert {len(timing.seconds) for timing in timings.values()} == {11}
    assert timings["slow"].median_s == 1.0 and timings["slow"].calls == 1
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns[-9:] == ["a", "b", EDGE] * 3
    assert benchmark.extra_info["a"]["rounds"] == 11


# -- rows and limits -----------------------------------------------------------------------------------------------------------


def test_a_row_of_timings_has_figures_and_ratios() -> None:
    timings = {EDGE: Timing((1.0, 2.0, 4.0), 3), "peer": Timing((2.0, 6.0, 8.0), 1)}
    made = make_row(LAYERS, "3x3", INT8, timings, work={"int8": 100.0})
    assert made.ours == Figure(2.0, (1.5, 3.0), 3, 3)
    assert made.ratios == {"peer": (2.0, 2.0, 2.5)}
    assert made.rate == 50.0


def test_a_ratio_is_that_of_the_fastest_peer() -> None:
    made = row(ZOO, "QuickNet", NET_BINARY, 1.0, {LARQ: 8.0, LARQ_INDIRECT: 5.0})
    assert made.ratio(LARQ, LARQ_INDIRECT) == 5.0
    assert made.ratio(LARQ) == 8.0
    assert made.ratio("another") is None


def test_the_limit_is_the_highest_rate_of_probes_and_layers_on_one_thread() -> None:
    faster = row(LAYERS, "a", INT8, 1.0, work={"int8": 2.4e11})
    slower = row(LAYERS, "b", FLOAT, 1.0, work={"float32": 5.0e10})
    two_threads = row(LAYERS, "a", INT8, 1.0, threads=2, work={"int8": 4.0e11})
    mixed = row(NETWORKS, "c", NET_BINARY, 1.0, work={"binary": 9e12, "int8": 1.0})
    limits = run_of(faster, slower, two_threads, mixed).limits()
    assert limits == {"binary": 1.25e12, "int8": 2.4e11, "float32": 5.8e10}


def test_the_floor_adds_arithmetic_and_takes_memory_where_it_is_slower() -> None:
    run = run_of(row(LIMITS, "memory", "DRAM bytes", 1.0, work={"DRAM bytes": 2e10}))
    both = row(NETWORKS, "n", NET_BINARY, 4.0, work={"binary": 1.25e12, "float32": 5.8e10})
    assert run.floor_s(both) == pytest.approx(2.0) and run.share(both) == pytest.approx(0.5)
    assert run.floor_s(replace(both, threads=2)) == pytest.approx(1.0)
    moving = row(LAYERS, "dense", FLOAT, 4.0, work={"float32": 5.8e10, "DRAM bytes": 6e10})
    assert run.floor_s(moving) == pytest.approx(3.0)
    assert run.floor_s(row(LAYERS, "x", INT8, 1.0, work={"L3 bytes": 5.0})) is None
    assert run.floor_s(row(OVERHEAD, "x", "y", 1.0)) is None


def test_a_stored_run_is_read_as_it_was(tmp_path: Path) -> None:
    run = run_of(
        row(LAYERS, "3x3 7x7x512", BITS_BITS, 1e-4, {LITERT_INT8: 5.0}, work={"binary": 1e8}, facts={"kernel": "k"}),
        absent=(("test_x.py::test_y", "no such thing"),),
    )
    path = tmp_path / "results" / "run.json"
    save(run, path)
    assert load(path) == run
    derived = json.loads(path.read_text())["rows"][3]["derived"]
    assert derived == {"rate_per_s": pytest.approx(1e12), "share_of_limit": pytest.approx(0.8)}


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text('{"title": "another"}')
    with pytest.raises(ValueError, match="run `make bench` again"):
        load(path)


# -- what is asked -------------------------------------------------------------------------------------------------------------


def found(run: Run, what: str, asked: str = "") -> Check:
    (check,) = [check for check in checklist(run) if what in check.what and asked in check.asked]
    return check


def test_a_run_of_nothing_says_that_everything_is_absent() -> None:
    checks = checklist(Run(ENVIRONMENT, []))
    assert len(checks) > 20
    assert all(check.reached is None and "absent" in check.measured for check in checks)


@pytest.mark.parametrize(("times", "reached"), [(1.0, True), (0.9, False)])
def test_binary_convolutions_are_asked_for_rate_and_ratio(times: float, reached: bool) -> None:
    peers = {LITERT_INT8: 5.0 * times, LITERT_FLOAT: 20.0 * times}
    macs = 1.05e8 * times
    rows = [row(LAYERS, name, kind, 1e-4, peers, work={"binary": macs}) for name in THREE_BY_THREE for kind in (BITS_BITS, BITS_FLOAT)]
    run = run_of(*rows)
    mean = found(run, "four binary", "mean 1,000")
    assert mean.reached is reached and f"{1050 * times:,.0f} G MAC/s" in mean.measured
    assert found(run, "four binary", "LiteRT int8").reached is True
    assert found(run, "four binary", "LiteRT float").reached is True
    slow = run_of(*rows[:-1], replace(rows[-1], ratios={LITERT_INT8: (3.0, 3.5, 3.9), LITERT_FLOAT: (20.0, 20.0, 20.0)}))
    check = found(slow, "four binary", "LiteRT int8")
    assert check.reached is False and rows[-1].name in check.measured and "7 of 8" in check.measured


def test_networks_are_asked_for_time_and_bytes() -> None:
    facts = {"file_bytes": 100, "peer_bytes": {LITERT_INT8: 750}}
    lenet = row(NETWORKS, "lenet", NET_BINARY, 1.0, {LITERT_INT8: 3.5}, facts=facts)
    assert found(run_of(lenet), "lenet").reached is True
    assert found(run_of(replace(lenet, facts={**facts, "file_bytes": 120})), "lenet").reached is False
    assert found(run_of(replace(lenet, ratios={LITERT_INT8: (2.0, 2.9, 3.0)})), "lenet").reached is False
    assert found(run_of(lenet), "resnet(18)").reached is None


def test_a_network_of_the_zoo_may_be_near_its_floor_instead() -> None:
    near = row(ZOO, "QuickNet", NET_BINARY, 1.0, {LARQ: 9.0, LARQ_INDIRECT: 4.0}, work={"binary": 1e12})
    far = replace(near, work={"binary": 5e11})
    for made, reached in ((near, True), (far, False)):
        assert [check.reached for check in checklist(run_of(made)) if check.what == "QuickNet"] == [reached]


def test_never_slower_means_every_row() -> None:
    rows = [row(LAYERS, name, INT8, 1.0, {LITERT_INT8: times}) for name, times in (("a", 1.2), ("b", 0.996), ("c", 0.9))]
    check = found(run_of(*rows), "int8 convolution")
    assert check.reached is False and "0.90 (c, int8)" in check.measured and "2 of 3" in check.measured
    assert found(run_of(*rows[:2]), "int8 convolution").reached is True


def test_engine_and_forced_avx2() -> None:
    engine = row(OVERHEAD, "engine", "an instruction", 1e-6, facts={"instruction_ns": 20.0})
    forced = [row(LARQ_LAYERS, name, f"{BITS_BITS}, avx2", 1.0, {LARQ: 9.0, LARQ_INDIRECT: 3.9}) for name in THREE_BY_THREE]
    run = run_of(engine, *forced)
    assert found(run, "engine").reached is True
    assert found(run, "AVX2 forced").reached is False


# -- comparison ----------------------------------------------------------------------------------------------------------------


def test_runs_at_different_clocks_compare_by_their_limits() -> None:
    layer = row(LAYERS, "3x3", INT8, 1.0, work={"int8": 1e11})
    baseline = Run(ENVIRONMENT, [*PROBES, layer])
    slowed = [replace(probe(p.kind, p.rate / 2)) for p in PROBES if p.rate is not None]
    run = Run(ENVIRONMENT, [*slowed, row(LAYERS, "3x3", INT8, 2.0, work={"int8": 1e11})])
    (same,) = bench_compare.compare(run, baseline)
    assert same.times == pytest.approx(1.0) and not same.clear
    worse = Run(ENVIRONMENT, [*slowed, row(LAYERS, "3x3", INT8, 3.0, work={"int8": 1e11})])
    (change,) = bench_compare.compare(worse, baseline)
    assert change.times == pytest.approx(1.5) and change.clear
    assert bench_compare.worst([change, same]) == pytest.approx(1.5)


def test_rows_without_probes_compare_by_time() -> None:
    run, baseline = (Run(ENVIRONMENT, [row(OVERHEAD, "engine", "x", seconds)]) for seconds in (1.2, 1.0))
    (change,) = bench_compare.compare(run, baseline)
    assert change.times == pytest.approx(1.2)


def test_rows_that_are_gone_are_counted_in_the_groups_that_ran() -> None:
    a, b, network = row(LAYERS, "a", INT8, 1.0), row(LAYERS, "b", INT8, 1.0), row(NETWORKS, "lenet", NET_BINARY, 1.0)
    assert bench_compare.missing(run_of(a), run_of(a, b, network)) == [b]


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("--fail-above", "1.15"), 1), (("--fail-above", "1.6", "--all"), 0)])
def test_the_command_fails_only_where_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int
) -> None:
    for name, seconds in (("now", 1.5), ("before", 1.0)):
        save(run_of(row(LAYERS, "3x3", INT8, seconds, work={"int8": 1e11})), tmp_path / f"{name}.json")
    files = [str(tmp_path / "now.json"), "--baseline", str(tmp_path / "before.json")]
    assert bench_compare.main([*files, *arguments]) == status
    out = capsys.readouterr().out
    assert "1.50" in out and "1 slower" in out


# -- pages ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234e-8, "12.3 ns"), (9.999e-7, "1.00 µs"), (1.2345e-4, "123 µs"), (2.054e-3, "2.05 ms"), (0.0123, "12.3 ms"), (3.0, "3.00 s")],
)
def test_times_have_units(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(512, "512 B"), (2048, "2.0 KiB"), (3 << 20, "3.00 MiB")])
def test_sizes_have_units(count: int, text: str) -> None:
    assert bytes_text(count) == text


def full_run() -> Run:
    """A run with a row of every group that has plots."""
    peers = {LITERT_INT8: 5.0, LITERT_FLOAT: 20.0}
    layers = [row(LAYERS, name, kind, 1e-4, peers, work={"binary": 1e8}) for name in THREE_BY_THREE for kind in (BITS_BITS, BITS_FLOAT)]
    others = [
        row(LAYERS, "1x1 <script>", INT8, 1e-4, {LITERT_INT8: 0.9}, work={"int8": 1e7}),
        row(LAYERS, "3x3", FLOAT, 1e-4, {LITERT_FLOAT: 1.1}, threads=2, work={"float32": 1e6}),
        *(row("width", str(c), BITS_BITS, 1e-6 * c, peers, work={"binary": 1e4 * c}, facts={"channels": c}) for c in (16, 64)),
        row(NETWORKS, "lenet", NET_BINARY, 1e-4, peers, work={"binary": 1e7}, facts={"file_bytes": 9, "peer_bytes": {LITERT_INT8: 99}}),
        row(ZOO, "QuickNet", NET_BINARY, 1e-3, {LARQ: 8.0, LARQ_INDIRECT: 5.0}, work={"binary": 1e8}, facts={"top1_percent": 100.0}),
    ]
    return run_of(*layers, *others, absent=(("test_a.py::test_b[1]", "no <such> thing"), ("test_a.py::test_b[2]", "no <such> thing")))


def test_tables_hold_every_row_once() -> None:
    run = full_run()
    made = tables(run)
    assert sum(len(table.rows) for table in made[1:]) == len(run.rows) - len(PROBES)
    assert all(len(cells) == len(table.columns) for table in made for cells in table.rows)
    assert [cell.text for cell in limits_table(run).rows[0]] == ["binary", "G MAC/s", "1,250.0", "1,250.0"]
    assert len(main_table(run).rows) == 10


def test_columns_without_a_value_are_left_out() -> None:
    (table,) = [table for table in tables(full_run()) if table.title == "Larq zoo"]
    assert list(table.columns[:5]) == ["work", "kind", "median", "spread", "floor"]
    assert "file" not in table.columns and "top1 percent" in table.columns


def test_markdown_has_the_checklist_the_tables_and_what_is_absent() -> None:
    text = bench_pages.markdown(full_run())
    assert "| 3 x LiteRT int8, at most 1/7 of its bytes | 5.00 x, 1/11.0 of its bytes | reached |" in text
    assert "## Layers, 2 threads" in text
    assert "- test_a.py (2): no <such> thing" in text


class _Page(HTMLParser):
    """Collects ids, tags left open and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.fetched += [str(values[name]) for name in ("src", "href", "xlink:href") if not str(values.get(name) or "#").startswith("#")]
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br", "link"):
            self.open.pop()


def test_the_page_stands_alone_and_is_made_from_the_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install 'edge-lowbit[bench]'")
    save(full_run(), tmp_path / "bench.json")
    made = bench_pages.write(tmp_path / "bench.json")
    assert [path.name for path in made] == ["bench.md", "bench.html"]
    text = made[1].read_text(encoding="utf-8")
    assert bench_pages.page(load(tmp_path / "bench.json")) == text
    page = _Page()
    page.feed(text)
    assert not page.open and not page.fetched
    assert len(page.ids) == len(set(page.ids)) > 0
    assert text.count("<svg") == 5
    assert "1x1 &lt;script&gt;" in text and "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_every_benchmark_is_found_beside_the_tests() -> None:
    # Modules of benchmarks/ and tests/ are imported by bare names: one of theirs under a name of ours would stop `make bench`.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--collect-only", "benchmarks"]
    found = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
