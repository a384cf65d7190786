"""The tables of a report, for the terminal, Markdown and HTML alike: sections of headings and cells, computed from the rows of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench_checklist import THREE_BY_THREE, times_smaller
from bench_rows import (
    BITS_BITS,
    BITS_FLOAT,
    CURVE,
    DEVICE,
    EXAMPLES,
    FLOAT,
    INT8,
    LARQ_LAYERS,
    LAYERS,
    LIMITS,
    LITERT_INT8,
    MEMORIES,
    NETWORKS,
    OVERHEAD,
    RESIDUAL,
    WEIGHTS_FLOAT,
    WEIGHTS_INT8,
    ZOO,
    Row,
    Run,
)


@dataclass(frozen=True)
class Cell:
    """A text, and where it is a share of something, how much of it (0 to 1), which a page may draw."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """A section: heading, a sentence of what it shows, headings of columns, and cells. The first `labels` columns are names."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    labels: int = 2


def seconds_text(seconds: float) -> str:
    """A time with its unit, three digits."""
    for factor, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        value = seconds * factor
        if value < 999.5:
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{seconds:.2f} s"


def bytes_text(count: float) -> str:
    if count < 1024:
        return f"{count:,.0f} B"
    return f"{count / 1024:,.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):,.2f} MiB"


def times_text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


# -- columns -------------------------------------------------------------------------------------------------------------------

Column = tuple[str, Callable[[Run, Row], Cell]]


def _median(run: Run, row: Row) -> Cell:
    return Cell("" if row.ours is None else seconds_text(row.ours.median_s))


def _spread(run: Run, row: Row) -> Cell:
    """Half the distance of the quartiles, of the median."""
    if row.ours is None:
        return Cell("")
    low, high = row.ours.quartiles_s
    return Cell(f"± {50 * (high - low) / row.ours.median_s:.1f} %")


def _rate(run: Run, row: Row) -> Cell:
    return Cell("" if row.rate is None else f"{row.rate / 1e9:,.0f}" if row.rate > 1e10 else f"{row.rate / 1e9:,.1f}")


def _share(run: Run, row: Row) -> Cell:
    share = run.share(row)
    return Cell("") if share is None else Cell(f"{100 * share:.0f} %", min(1.0, share))


def _floor(run: Run, row: Row) -> Cell:
    floor = run.floor_s(row)
    return Cell("" if floor is None else seconds_text(floor))


def _ratio_of(peer: str) -> Callable[[Run, Row], Cell]:
    return lambda run, row: Cell(times_text(row.ratio(peer)))


def _fact(key: str, text: Callable[[Any], str] = str) -> Callable[[Run, Row], Cell]:
    return lambda run, row: Cell(text(row.facts[key]) if key in row.facts else "")


def _smaller(run: Run, row: Row) -> Cell:
    return Cell(times_text(times_smaller(row, LITERT_INT8)))


_TIMES: tuple[Column, ...] = (("median", _median), ("spread", _spread))
_RATES: tuple[Column, ...] = (("G MAC/s", _rate), ("of the limit", _share))


def _table(run: Run, title: str, about: str, rows: Sequence[Row], columns: Iterable[Column]) -> Table:
    columns = tuple(columns)
    cells = [[Cell(row.name), Cell(row.kind), *(value(run, row) for _, value in columns)] for row in rows]
    used = [0, 1, *(i for i in range(2, len(columns) + 2) if any(line[i].text for line in cells))]
    headings = ("work", "kind", *(heading for heading, _ in columns))
    return Table(title, about, [headings[i] for i in used], [[line[i] for i in used] for line in cells])


def _peers(rows: Iterable[Row]) -> list[Column]:
    names = dict.fromkeys(name for row in rows for name in row.ratios)
    return [(f"x {name}", _ratio_of(name)) for name in names]


# -- sections ------------------------------------------------------------------------------------------------------------------

KINDS_OF_3X3 = (BITS_BITS, BITS_FLOAT, RESIDUAL, INT8, FLOAT, WEIGHTS_FLOAT, WEIGHTS_INT8)


def main_rows(run: Run) -> list[Row]:
    """The 3x3 convolutions of one thread, kind by kind."""
    rows = {(row.kind, row.name): row for row in run.select(LAYERS)}
    return [rows[kind, name] for kind in KINDS_OF_3X3 for name in THREE_BY_THREE if (kind, name) in rows]


def main_table(run: Run) -> Table:
    """The main figures alone: 3x3 convolutions and networks against what they replace."""
    rows = [*main_rows(run), *run.select(EXAMPLES), *run.select(NETWORKS), *run.select(ZOO)]
    about = "One thread; medians over rounds taken in turns; x: how many times as long the peer takes."
    return _table(run, "Main figures", about, rows, [*_TIMES, *_RATES, *_peers(rows)])


_ABOUT = {
    LAYERS: "The kernel through the engine's loop against the same layer in LiteRT (a layer of signs: against what it replaces).",
    CURVE: "3x3 convolutions of a 14x14 image, as many channels out as in.",
    NETWORKS: "From an array to an array, Python call included, against the ReLU twins in LiteRT. The floor is what the limits allow.",
    EXAMPLES: "Trained networks: the example that ships, and MLPerf Tiny's ResNet-8, with their accuracy.",
    ZOO: "Random weights and statistics, 224x224 pictures, against Larq Compute Engine with and without its indirect kernel.",
    LARQ_LAYERS: "The same binary layers in Larq Compute Engine.",
    OVERHEAD: "What a trivial instruction costs, the engine's loop included.",
    DEVICE: "Predicted by llvm-mca for cores that are not here.",
}
_TITLES = {
    LAYERS: "Layers",
    CURVE: "Time against width",
    EXAMPLES: "Trained networks",
    NETWORKS: "Networks",
    ZOO: "Larq zoo",
    LARQ_LAYERS: "Layers in Larq Compute Engine",
    OVERHEAD: "Engine",
    DEVICE: "Other devices",
}


def limits_table(run: Run) -> Table:
    """The highest rates of the run, and what the probes reached."""
    probes = {row.kind: row.rate for row in run.select(LIMITS)}
    limits = run.limits()
    rows = []
    for kind, limit in limits.items():
        unit, probe = ("GB/s" if kind in MEMORIES else "G MAC/s"), probes.get(kind)
        rows.append([Cell(kind), Cell(unit), Cell(f"{limit / 1e9:,.1f}"), Cell("" if probe is None else f"{probe / 1e9:,.1f}")])
    about = "The highest rate on one thread that a probe on registers (or of memory) or any kernel of this run reached."
    return Table("Limits of this machine", about, ("limit", "unit", "highest", "probe"), rows)


def tables(run: Run) -> list[Table]:
    """Every table of the full report, by group and number of threads."""
    found = [limits_table(run)]
    for group, title in _TITLES.items():
        by_threads: dict[int, list[Row]] = defaultdict(list)
        for row in run.rows:
            if row.group == group:
                by_threads[row.threads].append(row)
        for threads, rows in sorted(by_threads.items()):
            heading = title if len(by_threads) == 1 else f"{title}, {threads} thread{'s' if threads > 1 else ''}"
            found.append(_table(run, heading, _ABOUT[group], rows, _columns(group, rows)))
    return found


def _columns(group: str, rows: Sequence[Row]) -> list[Column]:
    if group in (EXAMPLES, NETWORKS, ZOO):
        sizes = [("file", _fact("file_bytes", bytes_text)), (f"x file of {LITERT_INT8}", _smaller)]
        return [*_TIMES, ("floor", _floor), ("of the limit", _share), *_peers(rows), *sizes, *_more_facts(rows)]
    if group in (OVERHEAD, DEVICE):
        return [*_TIMES, *_more_facts(rows)]
    return [*_TIMES, *_RATES, *_peers(rows), ("kernel", _fact("kernel"))]


_SHOWN_ELSEWHERE = {"file_bytes", "peer_bytes", "kernel"}


def _more_facts(rows: Iterable[Row]) -> list[Column]:
    """Facts that are single values, under their own names."""
    keys = dict.fromkeys(
        key for row in rows for key, value in row.facts.items() if key not in _SHOWN_ELSEWHERE and isinstance(value, int | float | str)
    )
    return [(key.replace("_", " "), _fact(key, _plain)) for key in keys]


def _plain(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
