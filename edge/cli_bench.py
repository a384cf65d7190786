"""`edge bench`: latency of models on this machine, side by side, and against a saved run."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, Number, json_option, numbers
from edge.console import Column, Progress, bytes_text, compiling, out, out_facts, out_json, out_table, printable, say, seconds_text, warn
from edge.widths import CHOICES, width

if TYPE_CHECKING:
    from edge.bench import Row, Run
    from edge.bench_file import Comparison, StoredRun
    from edge.bench_machine import Clock

NOTABLE = 1.05  # a smaller change gets no colour
_PER_CENT = 100

EPILOG = """
\b
Examples:
  edge bench model.edge                           p50, p95, p99, cold and warm, on one thread and on all
  edge bench model.edge model.tflite --threads 1  two files in turns, with their ratio
  edge bench model.h5                             edge at 1 bit against LiteRT float32 and int8 of the same model
  edge bench model.h5 --bits 1 --bits 8 --calibrate photos/ --seconds 20
  edge bench model.edge --save before.json        for pytest-benchmark compare, or for later:
  edge bench model.edge --compare before.json --fail-above 1.1

\b
warm: calls in a row. first: the first call after a load. flushed: a call after the caches were written over.
x: how many times as long as the first model on as many threads, by neighbouring rounds, with the quartiles.
"""


@click.command(epilog=EPILOG)
@click.argument("models", nargs=-1, required=True, type=PATH, metavar="MODEL...")
@click.option("--threads", type=numbers(int), metavar="N,...", help="Numbers of threads (default: 1, 2, 4 and so on up to all cores).")
@click.option("--seconds", type=Number(0.1, 3600), default=5.0, show_default=True, help="About how long to measure in all.")
@click.option("--bits", type=click.Choice(CHOICES), multiple=True, help="Bits of the .edge made of a Keras file (default: 1); repeatable.")
@click.option("--calibrate", type=PATH, metavar="FILE|FOLDER", help="Pictures for ranges of 8 bits (default: random ones).")
@click.option("--input-shape", type=numbers(int), metavar="H,W,C", help="Sizes of an input that a Keras file leaves open.")
@click.option("--litert/--no-litert", default=True, show_default=True, help="Of a Keras file, measure LiteRT float32 and int8 too.")
@click.option("--save", type=PATH, metavar="FILE", help="Write the run, as JSON that pytest-benchmark reads.")
@click.option("--compare", type=PATH, metavar="OLD", help="Show what changed since a saved run, at equal clocks.")
@click.option("--fail-above", type=Number(min=0, min_open=True), metavar="RATIO", help="Exit with 1 where --compare shows more.")
@json_option
def bench(models: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Measure the latency of MODELs (.edge, .tflite, Keras files, or examples such as digits) on this machine.

    All take turns, so that whatever slows the machine slows all of them. A .edge file is called from Python, from an array to an array; of
    a .tflite file LiteRT's invoke() alone is timed. A Keras file is converted first.
    """
    from edge.bench_file import check_replaceable, compare, load, save

    if options["fail_above"] is not None and options["compare"] is None:
        raise click.UsageError("--fail-above compares with a saved run: name one with --compare OLD.")
    if options["save"]:
        check_replaceable(Path(options["save"]))
    old: StoredRun | None = load(options["compare"]) if options["compare"] else None
    run = _run(models, options)
    if options["save"]:
        save(run, options["save"])
    compared = compare(run, old) if old is not None else None
    if as_json:
        out_json(run.to_json() | ({"compared": compared.to_json()} if compared else {}))
    else:
        _print(run)
        if compared:
            _print_comparison(compared)
    if options["save"]:
        say(f"the run was saved to {options['save']}")
    _judge(compared, options["fail_above"])


def _run(models: Sequence[str], options: dict[str, Any]) -> Run:
    from edge.bench import bench as measure
    from edge.bench_models import Sources, find_subjects
    from edge.cli_cache import is_cached

    bits = tuple(dict.fromkeys(width(text) for text in options["bits"] or CHOICES[:1]))
    sources = Sources(bits, options["calibrate"], options["input_shape"], options["litert"])
    with tempfile.TemporaryDirectory() as folder, Progress("reading") as progress, compiling(is_cached()) as told:
        found = find_subjects(models, Path(folder), sources, tell=lambda step: progress.update(0, 0, step))

        def tell(what: str, share: float) -> None:
            progress.update(round(_PER_CENT * share), _PER_CENT, f"measuring on {what}")

        def compiled(done: int, total: int) -> None:
            progress.clear()
            told(done, total)

        return measure(found, threads=options["threads"], seconds=options["seconds"], progress=tell, compiling=compiled)


def _judge(compared: Comparison | None, limit: float | None) -> None:
    worst = compared.worst if compared is not None else None
    if worst is not None and limit is not None and worst.times > limit:
        say(f"{worst.name} takes {worst.times:.2f} times as long as before, expected at most {limit:g}", style="red")
        raise click.exceptions.Exit(1)


# -- the run -------------------------------------------------------------------------------------------------------------------


def _print(run: Run) -> None:
    warm = [Column("warm", folds=True)]
    warm += [Column(title, right=True) for title in ("threads", "p50", "p95", "p99", "mean", "min", "x", "quartiles")]
    out_table(warm, [_warm(row) for row in run.rows])
    out()
    cold = [Column("cold", folds=True), *(Column(title, right=True) for title in ("threads", "first", "flushed")), Column("runs on")]
    out_table(cold, [_cold(row) for row in run.rows])
    out()
    out_facts(_facts(run))
    for name, reason in run.absent:
        warn(f"{name} is absent: {reason}")
    for remark in run.remarks:
        say(remark)


def _warm(row: Row) -> list[str]:
    low, middle, high = row.times
    percentiles = [row.percentile_s(percent) for percent in (50, 95, 99)]
    times = [*percentiles, float(row.latencies_s.mean()), float(row.latencies_s.min())]
    texts = ["-" if seconds is None else seconds_text(seconds) for seconds in times]
    return [row.name, str(row.threads), *texts, f"{middle:.2f}", f"{low:.2f}..{high:.2f}"]


def _cold(row: Row) -> list[str]:
    times = [seconds_text(statistics.median(values)) for values in (row.first_s, row.flushed_s)]
    return [row.name, str(row.threads), *times, row.backend]


def _facts(run: Run) -> list[tuple[str, str]]:
    calls = [len(row.latencies_s) for row in run.rows]
    loads, flushed = min(len(row.first_s) for row in run.rows), min(len(row.flushed_s) for row in run.rows)
    versions = ", ".join(f"{name} {version}" for name, version in run.machine["versions"].items())
    return [
        ("warm", f"{min(calls):,} calls or more of each, in rounds of about 2 ms that took turns; p95 takes 20 calls, p99 100"),
        ("first", f"the first call after a load, median of {loads} or more loads"),
        ("flushed", f"a call after {bytes_text(run.flush_bytes)} were written over the caches, median of {flushed} or more"),
        ("x", f"times as long as {run.rows[0].name} on as many threads: median of neighbouring rounds, and quartiles"),
        ("machine", "{processor}, {cores} cores, {instruction_set}, {system}".format_map(run.machine)),
        ("clock before", _clock(run.before)),
        ("clock after", _clock(run.after)),
        ("not available", ", ".join(run.after.missing) or "-"),
        ("versions", versions),
    ]


def _clock(clock: Clock) -> str:
    """The state of the clock in words, as far as it is known."""
    told = [f"fixed loop {seconds_text(clock.spin_s)}"]
    if clock.frequency_hz is not None:
        told.append(f"{clock.frequency_hz / 1e9:.2f} GHz")
    if clock.governor is not None:
        told.append(f"governor {clock.governor}")
    if clock.temperature_c is not None:
        told.append(f"{clock.temperature_c:.0f} degrees C")
    if clock.throttle_events is not None:
        told.append(f"slowed for heat {clock.throttle_events} times since the start")
    if clock.throttled is not None:
        told.append(", ".join(clock.throttled) or "not throttled")
    if clock.load is not None:
        told.append(f"load {clock.load:.2f}")
    return ", ".join(told)


# -- against a saved run -------------------------------------------------------------------------------------------------------


def _print_comparison(compared: Comparison) -> None:
    columns = [Column("against the saved run", folds=True), Column("p50 before", right=True), Column("p50 now", right=True)]
    columns += [Column("times as long", right=True), Column("")]
    rows, colours = [], []
    for each in compared.changes:
        notable = each.clear and not 1 / NOTABLE < each.times < NOTABLE
        word, colour = ("slower", "red") if each.times > 1 else ("faster", "green")
        times = [seconds_text(each.before_s), seconds_text(each.now_s), f"{each.times:.2f}"]
        rows.append([each.name, *times, word if notable else "about the same"])
        colours.append(colour if notable else None)
    out()
    out_table(columns, rows, colours=colours)
    if compared.clocks != 1:
        out(f"times as long: at equal clocks; a fixed loop ran {compared.clocks:.2f} times as fast now as then, at its best")
    for remark in compared.remarks:
        say(remark)
    for name in compared.missing:
        warn(f"the saved run has a row that this one has not: {printable(name)}")
