"""What the kernels are asked to reach, and what a run shows: ratios of one run, one thread, on a core with VPOPCNTDQ."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench_rows import (
    BITS_BITS,
    BITS_FLOAT,
    DEVICE,
    FLOAT,
    INT8,
    LARQ_LAYERS,
    LARQ_PEERS,
    LAYERS,
    LITERT_FLOAT,
    LITERT_INT8,
    NET_BINARY,
    NETWORKS,
    OVERHEAD,
    WEIGHTS_FLOAT,
    WEIGHTS_INT8,
    ZOO,
    Row,
    Run,
)

THREE_BY_THREE = ("3x3 56x56x64", "3x3 28x28x128", "3x3 14x14x256", "3x3 7x7x512")
ZOO_NETWORKS = (
    "QuickNetSmall", "QuickNet", "QuickNetLarge", "BiRealNet", "BinaryAlexNet", "BinaryResNetE18", "BinaryDenseNet28", "MeliusNet22",
)  # fmt: skip
DEVICES = ("cortex-a72", "neoverse-n1")


@dataclass(frozen=True)
class Check:
    """One line of the checklist; `reached` is None where the run has no rows for it."""

    what: str
    asked: str
    measured: str
    reached: bool | None


def checklist(run: Run) -> list[Check]:
    """Every figure that is asked, in order."""
    parts = (_binary, _zoo, _never_slower, _networks, _overhead, _forced_avx2, _neon)
    return [check for part in parts for check in part(run)]


def absent(what: str, asked: str) -> Check:
    return Check(what, asked, "absent: not in this run", None)


def geometric_mean(values: Sequence[float]) -> float:
    return statistics.geometric_mean(values)


def _three_by_three(run: Run, group: str, *kinds: str) -> list[Row]:
    return [row for row in run.select(group, *kinds) if row.name in THREE_BY_THREE]


def _binary(run: Run) -> Iterator[Check]:
    what = "four binary 3x3 convolutions, packed and float output"
    rows = _three_by_three(run, LAYERS, BITS_BITS, BITS_FLOAT)
    rates = [row.rate / 1e9 for row in rows if row.rate]
    limit = run.limits().get("binary", float("inf")) / 1e9
    asked = "mean 1,000 G MAC/s or 80 % of the limit"
    if rates:
        mean, expected = geometric_mean(rates), 2 * len(THREE_BY_THREE)
        part = f" (of {len(rates)} of {expected} rows)" if len(rates) < expected else ""
        measured = f"{mean:,.0f} G MAC/s, {100 * mean / limit:.0f} % of {limit:,.0f}{part}"
        yield Check(what, asked, measured, mean >= min(1000, 0.8 * limit))
        yield Check(what, "none under 850 G MAC/s", f"{min(rates):,.0f} to {max(rates):,.0f}", min(rates) >= 850)
    else:
        yield absent(what, f"{asked}, none under 850")
    yield _ratios(rows, what, (LITERT_INT8,), each=4.0, mean=4.5)
    yield _ratios(rows, what, (LITERT_FLOAT,), each=18.0)
    yield _ratios(_three_by_three(run, LARQ_LAYERS, BITS_BITS, BITS_FLOAT), what, LARQ_PEERS, each=9.0)


def _ratios(rows: Sequence[Row], what: str, peers: Sequence[str], *, each: float, mean: float | None = None) -> Check:
    """Every row is `each` times as fast as the best of the peers, and their geometric mean `mean` times."""
    peer = peers[0] + ("'s best" if len(peers) > 1 else "")
    asked = f"each {each:g} x {peer}" + (f", mean {mean:g} x" if mean else "")
    pairs = [(ratio, row) for row in rows if (ratio := row.ratio(*peers)) is not None]
    found = sorted(pairs, key=lambda pair: pair[0])
    if not found:
        return absent(what, asked)
    ratios = [ratio for ratio, _ in found]
    slow = sum(round(ratio, 2) < each for ratio in ratios)
    worst = f" ({found[0][1].name}, {found[0][1].kind})" if slow else ""
    measured = f"{ratios[0]:.2f}{worst} to {ratios[-1]:.2f}, mean {geometric_mean(ratios):.2f}; {len(ratios) - slow} of {len(ratios)}"
    return Check(what, asked, measured, slow == 0 and (mean is None or geometric_mean(ratios) >= mean))


def _zoo(run: Run) -> Iterator[Check]:
    rows = {row.name: row for row in run.select(ZOO)}
    asked = f"5 x {LARQ_PEERS[0]}'s best, or within 1.3 x of its floor"
    for name in ZOO_NETWORKS:
        row = rows.get(name)
        ratio, share = (row.ratio(*LARQ_PEERS), run.share(row)) if row else (None, None)
        if ratio is None:
            yield absent(name, asked)
            continue
        floor = f", {1 / share:.2f} x its floor" if share else ""
        yield Check(name, asked, f"{ratio:.2f} x{floor}", ratio >= 5 or (share is not None and 1 / share <= 1.3))


_FLOORS: Sequence[tuple[str, str, str]] = (
    ("float convolution and dense", FLOAT, LITERT_FLOAT),
    ("int8 convolution and dense", INT8, LITERT_INT8),
    ("weight-only 1-bit, float activations", WEIGHTS_FLOAT, LITERT_FLOAT),
    ("weight-only 1-bit, int8 activations", WEIGHTS_INT8, LITERT_INT8),
)


def _never_slower(run: Run) -> Iterator[Check]:
    for what, kind, peer in _FLOORS:
        yield _ratios(run.select(LAYERS, kind), what, (peer,), each=1.0)


def _networks(run: Run) -> Iterator[Check]:
    rows = {row.name: row for row in run.select(NETWORKS, NET_BINARY)}
    for name, times, part in (("lenet", 3.0, 7), ("alexnet", 3.0, 7), ("resnet(18)", 2.0, None)):
        asked = f"{times:g} x {LITERT_INT8}" + (f", at most 1/{part} of its bytes" if part else "")
        row = rows.get(name)
        ratio = row.ratio(LITERT_INT8) if row else None
        what = f"{name}, weights and activations 1 bit"
        if row is None or ratio is None:
            yield absent(what, asked)
            continue
        smaller = times_smaller(row, LITERT_INT8)
        bytes_too = part is None or (smaller is not None and smaller >= part)
        yield Check(what, asked, f"{ratio:.2f} x" + (f", 1/{smaller:.1f} of its bytes" if smaller else ""), ratio >= times and bytes_too)


def times_smaller(row: Row, peer: str) -> float | None:
    """How many times as large as ours the peer's file is; None where that is not known."""
    ours, theirs = row.facts.get("file_bytes"), row.facts.get("peer_bytes", {}).get(peer)
    return theirs / ours if ours and theirs else None


def _overhead(run: Run) -> Iterator[Check]:
    what, asked = "engine, per instruction", "under 50 ns"
    found = [row.facts["instruction_ns"] for row in run.select(OVERHEAD) if "instruction_ns" in row.facts]
    yield Check(what, asked, f"{found[0]:.1f} ns", found[0] < 50) if found else absent(what, asked)


def _forced_avx2(run: Run) -> Iterator[Check]:
    rows = _three_by_three(run, LARQ_LAYERS, f"{BITS_BITS}, avx2", f"{BITS_FLOAT}, avx2")
    yield _ratios(rows, "binary 3x3 convolutions, AVX2 forced", LARQ_PEERS, each=4.0)


def _neon(run: Run) -> Iterator[Check]:
    rows = {row.name: row for row in run.select(DEVICE)}
    asked = "80 binary MAC a cycle (llvm-mca)"
    for name in DEVICES:
        what, row = f"NEON tile on {name}", rows.get(name)
        rate = row.facts.get("binary_mac_per_cycle") if row else None
        yield absent(what, asked) if rate is None else Check(what, asked, f"{rate:.1f}", rate >= 80)
