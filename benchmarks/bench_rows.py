"""The figures of a run: rows as tests record them, the file they are stored in, and what follows from them (rates, limits, shares).

A row is one piece of work: its group and name, what kind of arithmetic was asked for, and the contenders that did it in turns, edge first.
`work` says what edge's own form of it takes: multiply-accumulates by arithmetic ("binary", "int8", "float32") and bytes by where they come
from ("L2 bytes", "L3 bytes", "DRAM bytes").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench_timing import Timing, ratio_quartiles

FORMAT = 1
RESULTS = Path(__file__).resolve().parent / "results"

EDGE, LITERT_INT8, LITERT_FLOAT = "edge", "LiteRT int8", "LiteRT float"
LARQ, LARQ_INDIRECT = "Larq Compute Engine", "Larq Compute Engine, indirect"
LARQ_PEERS = (LARQ, LARQ_INDIRECT)

# Groups, in the order of the report.
LIMITS, LAYERS, CURVE, LARQ_LAYERS, EXAMPLES, NETWORKS, ZOO, OVERHEAD, DEVICE = GROUPS = (
    "limits", "layers", "width", "larq layers", "examples", "networks", "zoo", "overhead", "device",
)  # fmt: skip

ARITHMETICS = ("binary", "int8", "float32")
MEMORIES = ("L2 bytes", "L3 bytes", "DRAM bytes")

# Kinds of layers: input, weights and output.
BITS_BITS, BITS_FLOAT, INT8, FLOAT = "signs to signs", "signs to float32", "int8", "float32"
WEIGHTS_FLOAT, WEIGHTS_INT8 = "1-bit weights, float32", "1-bit weights, int8"
RESIDUAL = "signs, fused residual"
PICTURE_FLOAT, PICTURE_BITS = "pictures to float32", "pictures to signs"
# Kinds of networks.
NET_FLOAT, NET_INT8, NET_WEIGHTS, NET_BINARY = "float", "int8", "1-bit weights", "1/1 bit"


@dataclass(frozen=True)
class Figure:
    """Seconds per call of one contender: median, quartiles, how many rounds of how many calls."""

    median_s: float
    quartiles_s: tuple[float, float]
    rounds: int
    calls_per_round: int


@dataclass(frozen=True)
class Row:
    """One piece of work. `ratios[peer]` is (lower quartile, median, upper quartile) of how many times as long as edge the peer took."""

    group: str
    name: str
    kind: str
    threads: int
    contenders: Mapping[str, Figure]
    ratios: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.group, self.name, self.kind, self.threads

    @property
    def ours(self) -> Figure | None:
        """Edge's figure, of the first contender; None in a row of facts alone."""
        return next(iter(self.contenders.values()), None)

    @property
    def macs(self) -> float:
        return sum(self.work.get(kind, 0) for kind in ARITHMETICS)

    @property
    def rate(self) -> float | None:
        """Multiply-accumulates (of a row of memory, bytes) a second."""
        if self.ours is None or not self.work:
            return None
        return (self.macs or sum(self.work.values())) / self.ours.median_s

    def ratio(self, *peers: str) -> float | None:
        """How many times as long as edge the fastest of `peers` took; None where none of them ran."""
        return min((self.ratios[peer][1] for peer in peers if peer in self.ratios), default=None)


def make_row(
    group: str,
    name: str,
    kind: str,
    timings: Mapping[str, Timing],
    *,
    threads: int = 1,
    work: Mapping[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Row:
    """A row of timings that were taken in turns; the first of them is edge's."""
    ours, *peers = timings
    figures = {each: Figure(t.median_s, t.quartiles_s, len(t.seconds), t.calls) for each, t in timings.items()}
    ratios = {peer: ratio_quartiles(timings[peer], timings[ours]) for peer in peers}
    return Row(group, name, kind, threads, figures, ratios, dict(work or {}), dict(facts or {}))


@dataclass(frozen=True)
class Run:
    """All rows of a run, and why others are absent: what was skipped or failed, and the reason."""

    environment: Mapping[str, Any]
    rows: Sequence[Row]
    absent: Sequence[tuple[str, str]] = ()

    def select(self, group: str, *kinds: str, threads: int = 1) -> list[Row]:
        """The rows of a group, of the given kinds where any are given."""
        return [row for row in self.rows if row.group == group and row.threads == threads and (not kinds or row.kind in kinds)]

    def limits(self) -> dict[str, float]:
        """By arithmetic and memory: the highest rate that a probe or a tile reached on one thread, a second."""
        found: dict[str, float] = {}
        for row in self.rows:
            if row.threads == 1 and len(row.work) == 1 and row.rate is not None:
                (kind,) = row.work
                found[kind] = max(found.get(kind, 0.0), row.rate)
        return found

    def floor_s(self, row: Row) -> float | None:
        """The least seconds that the limits allow for a row: its arithmetic one after the other, or its bytes where these take longer."""
        limits = self.limits()
        if not row.work or any(kind not in limits for kind in row.work):
            return None
        seconds = {kind: amount / limits[kind] / row.threads for kind, amount in row.work.items()}
        moving = max((seconds.get(kind, 0.0) for kind in MEMORIES), default=0.0)
        return max(sum(seconds.get(kind, 0.0) for kind in ARITHMETICS), moving)

    def share(self, row: Row) -> float | None:
        """What part of its limit a row reaches, 0 to 1."""
        floor = self.floor_s(row)
        return None if floor is None or row.ours is None else floor / row.ours.median_s


# -- the file ------------------------------------------------------------------------------------------------------------------


def save(run: Run, path: Path) -> None:
    """Write a run as JSON: rows with what follows from them, for readers of the file (`load` derives it again)."""
    rows = [{**asdict(row), "derived": {"rate_per_s": row.rate, "share_of_limit": run.share(row)}} for row in run.rows]
    content = {
        "format": FORMAT,
        "environment": dict(run.environment),
        "limits_per_s": run.limits(),
        "rows": rows,
        "absent": [{"what": what, "reason": reason} for what, reason in run.absent],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Run:
    """Read a stored run. Raises `ValueError` for a file of another format."""
    return parsed(json.loads(path.read_text(encoding="utf-8")), str(path))


def parsed(content: Mapping[str, Any], name: str) -> Run:
    """The run that a file of this `name` holds."""
    if content.get("format") != FORMAT:
        raise ValueError(f"{name} is no run of format {FORMAT}, it says {content.get('format')!r}; run `make bench` again")
    absent = [(entry["what"], entry["reason"]) for entry in content["absent"]]
    return Run(content["environment"], [_row(entry) for entry in content["rows"]], absent)


def _row(entry: Mapping[str, Any]) -> Row:
    figures = {
        name: Figure(each["median_s"], (each["quartiles_s"][0], each["quartiles_s"][1]), each["rounds"], each["calls_per_round"])
        for name, each in entry["contenders"].items()
    }
    ratios = {name: (low, middle, high) for name, (low, middle, high) in entry["ratios"].items()}
    plain = (entry["group"], entry["name"], entry["kind"], entry["threads"])
    return Row(*plain, figures, ratios, entry["work"], entry["facts"])


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows by group, in the order of the report, and within a group as they came."""
    return sorted(rows, key=lambda row: GROUPS.index(row.group) if row.group in GROUPS else len(GROUPS))
