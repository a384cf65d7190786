"""The plots of a report, as SVG text that takes its colour from the page: dark on light and light on dark.

Texts and lines are drawn in marker colours that are replaced by the page's own; those of contenders are readable on both. Every plot is a
function from a run to SVG, or None where the run has no rows for it. Needs matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench_checklist import THREE_BY_THREE
from bench_rows import (
    BITS_BITS,
    BITS_FLOAT,
    CURVE,
    EDGE,
    FLOAT,
    INT8,
    LARQ,
    LARQ_INDIRECT,
    LARQ_LAYERS,
    LAYERS,
    LITERT_FLOAT,
    LITERT_INT8,
    NETWORKS,
    PICTURE_BITS,
    PICTURE_FLOAT,
    RESIDUAL,
    WEIGHTS_FLOAT,
    WEIGHTS_INT8,
    ZOO,
    Row,
    Run,
)
from bench_tables import seconds_text

_TEXT, _LINES = "#010203", "#040506"  # replaced by the page's colours
_PAGE_COLOURS = {_TEXT: "var(--text)", _LINES: "var(--line)"}
COLOURS: Mapping[str, str] = {
    EDGE: "#0d9488",
    LITERT_INT8: "#e0872b",
    LITERT_FLOAT: "#8b6fd6",
    LARQ: "#d9486e",
    LARQ_INDIRECT: "#e88aa3",
}
KIND_COLOURS: Mapping[str, str] = {
    BITS_BITS: "#0d9488", BITS_FLOAT: "#5bb8ae", INT8: "#e0872b", FLOAT: "#8b6fd6", WEIGHTS_FLOAT: "#4a86d8", WEIGHTS_INT8: "#b3924a",
    PICTURE_FLOAT: "#c2569b", PICTURE_BITS: "#7fa650", RESIDUAL: "#2563a8",
}  # fmt: skip
_OTHER = "#8a8f98"
_STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "text.color": _TEXT, "axes.labelcolor": _TEXT, "xtick.color": _TEXT, "ytick.color": _TEXT, "axes.edgecolor": _LINES,
    "grid.color": _LINES, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.titlelocation": "left", "axes.titlesize": 10,
    "legend.frameon": False, "axes.titleweight": "bold", "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}  # fmt: skip


@contextmanager
def _figure(name: str, height: float, columns: int = 1, rows: int = 1, **options: Any) -> Iterator[tuple[Any, Any, list[str]]]:
    """A figure with its axes; after the block, the list holds its SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure, axes = plt.subplots(rows, columns, figsize=(10, height), layout="constrained", **options)
        made: list[str] = []
        yield figure, axes, made
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    made.append(_for_page(text.getvalue(), name))


def _for_page(svg: str, name: str) -> str:
    """The SVG element alone, with the page's colours and with ids that no other plot of the page has."""
    svg = svg[svg.index("<svg") :]
    for marker, colour in _PAGE_COLOURS.items():
        svg = svg.replace(marker, colour)
    for attribute in ('id="', 'xlink:href="#', "url(#"):
        svg = svg.replace(attribute, f"{attribute}{name}-")
    return svg


# -- rates ---------------------------------------------------------------------------------------------------------------------


def rates(run: Run) -> str | None:
    """G MAC/s of the 3x3 convolutions, signs in, beside the same in LiteRT, under the machine's limit."""
    rows = {(row.name, row.kind): row for row in run.select(LAYERS, BITS_BITS, BITS_FLOAT)}
    names = [name for name in THREE_BY_THREE if (name, BITS_BITS) in rows]
    if not names:
        return None
    larq = {row.name: row for row in run.select(LARQ_LAYERS, BITS_FLOAT)}
    series: dict[str, list[float]] = {"edge, packed output": [], "edge, float output": []}
    for name in names:
        packed, real = rows[name, BITS_BITS], rows.get((name, BITS_FLOAT))
        series["edge, packed output"].append((packed.rate or 0) / 1e9)
        series["edge, float output"].append((real.rate or 0) / 1e9 if real else 0.0)
        peers = {**packed.contenders, **(larq[name].contenders if name in larq else {})}
        for peer in (LITERT_INT8, LITERT_FLOAT, LARQ, LARQ_INDIRECT):
            if peer in peers:
                series.setdefault(peer, []).append(packed.macs / peers[peer].median_s / 1e9)
    complete = {label: values for label, values in series.items() if len(values) == len(names)}
    with _figure("rates", 3.4) as (_, axes, made):
        _grouped_bars(axes, names, complete, dict(zip(("edge, packed output", "edge, float output"), ("#0d9488", "#5bb8ae"), strict=True)))
        limit = run.limits().get("binary")
        if limit:
            axes.axhline(limit / 1e9, color=_TEXT, linewidth=1, linestyle=(0, (4, 3)))
            place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 8}
            axes.annotate(f"limit {limit / 1e9:,.0f}", (1, limit / 1e9), **place)
        axes.margins(y=0.1)
    return made[0]


def _grouped_bars(axes: Any, names: Sequence[str], series: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    width = 0.84 / len(series)
    for i, (label, values) in enumerate(series.items()):
        places = [place + (i - (len(series) - 1) / 2) * width for place in range(len(names))]
        bars = axes.bar(places, values, 0.92 * width, label=label, color=colours.get(label, COLOURS.get(label, _OTHER)))
        inside = max(values) > 0.5 * max(max(other) for other in series.values())
        place: dict[str, Any] = {"padding": -11, "color": "white"} if inside else {"padding": 1}
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], fontsize=7.5, **place)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.legend(ncols=len(series), loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8)


# -- ratios --------------------------------------------------------------------------------------------------------------------

_NATURAL_PEERS: Mapping[str, tuple[str, Sequence[str]]] = {
    "signs\nagainst LiteRT int8": (LITERT_INT8, (BITS_BITS, BITS_FLOAT, RESIDUAL)),
    "int8 and pictures\nagainst LiteRT int8": (LITERT_INT8, (INT8, WEIGHTS_INT8, PICTURE_FLOAT, PICTURE_BITS)),
    "float32\nagainst LiteRT float": (LITERT_FLOAT, (FLOAT, WEIGHTS_FLOAT)),
}


def ratios(run: Run) -> str | None:
    """How many times as long LiteRT takes, layer by layer, with quartiles; left of 1 it is faster."""
    names = list(dict.fromkeys(row.name for row in run.select(LAYERS)))
    if not names:
        return None
    with _figure("ratios", 1.4 + 0.2 * len(names), len(_NATURAL_PEERS), sharey=True) as (_, axes, made):
        for panel, (title, (peer, kinds)) in zip(axes, _NATURAL_PEERS.items(), strict=True):
            for kind in kinds:
                _dots(panel, [row for row in run.select(LAYERS, kind) if peer in row.ratios], names, peer, kind)
            panel.axvline(1, color=_TEXT, linewidth=1)
            panel.set_title(title)
            panel.grid(True)
            _times_axis(panel)
            if panel.get_legend_handles_labels()[0]:
                panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / len(names) - 0.01), ncols=2, fontsize=8, handletextpad=0.2)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
    return made[0]


def _dots(panel: Any, rows: Sequence[Row], names: Sequence[str], peer: str, kind: str) -> None:
    if not rows:
        return
    low, middle, high = zip(*(row.ratios[peer] for row in rows), strict=True)
    places = [names.index(row.name) for row in rows]
    spread = [[m - x for m, x in zip(middle, low, strict=True)], [x - m for m, x in zip(middle, high, strict=True)]]
    colour = KIND_COLOURS.get(kind, _OTHER)
    panel.errorbar(middle, places, xerr=spread, fmt="o", markersize=4, elinewidth=1.2, color=colour, label=kind)


def _times_axis(panel: Any) -> None:
    """A logarithmic axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.set_xlim(min(low, 0.66), max(high, 1.5))
    dense = panel.get_xlim()[1] / panel.get_xlim()[0] < 30
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if panel.get_xlim()[1] < 6 else (1, 2, 5) if dense else (1, 3)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


# -- width ---------------------------------------------------------------------------------------------------------------------


def widths(run: Run) -> str | None:
    """Time and rate of a 3x3 convolution against its channels, by contender."""
    curves = _curves(run.select(CURVE))
    if not curves:
        return None
    with _figure("widths", 3.8, 2) as (_, axes, made):
        for label, (colour, line, points) in curves.items():
            channels, seconds, gmacs = zip(*sorted(points), strict=True)
            for panel, values in zip(axes, ([1e6 * s for s in seconds], gmacs), strict=True):
                panel.plot(channels, values, line, color=colour, marker="o", markersize=3.5, label=label)
        ticks = sorted({point[0] for _, _, points in curves.values() for point in points})
        for panel, title in zip(axes, ("microseconds", "G MAC/s"), strict=True):
            _log_log(panel, ticks)
            panel.set_title(title)
        _legend_below(axes)
    return made[0]


_Curve = tuple[str, str, list[tuple[int, float, float]]]


def _curves(rows: Sequence[Row]) -> dict[str, _Curve]:
    """By label: colour, line style, and (channels, seconds, G MAC/s) of every width."""
    found: dict[str, _Curve] = {}
    for row in rows:
        for name, figure in row.contenders.items():
            label = f"edge, {row.kind}" if name == EDGE else name
            colour = KIND_COLOURS.get(row.kind, _OTHER) if name == EDGE else COLOURS.get(name, _OTHER)
            curve = found.setdefault(label, (colour, "-" if name == EDGE else "--", []))
            if name == EDGE or row.kind != BITS_BITS:  # of a peer, the row of its own arithmetic
                curve[2].append((row.facts["channels"], figure.median_s, row.macs / figure.median_s / 1e9))
    return {label: curve for label, curve in found.items() if curve[2]}


def _log_log(panel: Any, ticks: Sequence[int]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.grid(True)
    panel.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("channels in and out")


def _legend_below(axes: Any) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)


# -- networks ------------------------------------------------------------------------------------------------------------------


def networks(run: Run) -> str | None:
    """Time of every network at every precision, with its floor."""
    return _network_bars(run, NETWORKS, "networks")


def zoo(run: Run) -> str | None:
    """Time of the zoo's networks beside Larq Compute Engine."""
    return _network_bars(run, ZOO, "zoo")


def _network_bars(run: Run, group: str, name: str) -> str | None:
    """A panel of horizontal bars for every network, each with an axis of its own."""
    rows = run.select(group)
    if not rows:
        return None
    panels = {network: list(_bars_of(run, [row for row in rows if row.name == network])) for network in dict.fromkeys(r.name for r in rows)}
    columns = min(_PANELS, len(panels))
    lines = -(-len(panels) // columns)
    most = max(len(bars) for bars in panels.values())
    with _figure(name, lines * (0.6 + 0.22 * most), columns, lines, squeeze=False) as (_, axes, made):
        for panel in axes.flat[len(panels) :]:
            panel.set_visible(False)
        for panel, (network, bars) in zip(axes.flat, panels.items(), strict=False):
            _bars(panel, bars)
            panel.set_title(network)
    return made[0]


_Bar = tuple[str, float, str, float | None]  # label, seconds, colour, floor


def _bars(panel: Any, bars: Sequence[_Bar]) -> None:
    values, places = [seconds for _, seconds, _, _ in bars], range(len(bars))
    drawn = panel.barh(places, values, 0.74, color=[colour for _, _, colour, _ in bars])
    panel.bar_label(drawn, [f" {seconds_text(value)}" for value in values], fontsize=8)
    for place, (_, _, _, floor) in zip(places, bars, strict=True):
        if floor is not None:
            panel.plot([floor, floor], [place - 0.37, place + 0.37], color=_TEXT, linewidth=1.6)
    panel.set_yticks(places, [label for label, _, _, _ in bars], fontsize=8)
    panel.set_ylim(len(bars) - 0.5, -0.5)
    panel.set_xlim(0, 1.3 * max(values))
    panel.set_xticks([])
    panel.spines["bottom"].set_visible(False)


_PANELS = 3  # side by side
_NETWORK_COLOURS = {"float": "#8b6fd6", "int8": "#e0872b", "1-bit weights": "#4a86d8", "1/1 bit": "#0d9488"}


def _bars_of(run: Run, rows: Sequence[Row]) -> Iterator[_Bar]:
    """The bars of a network: ours of every kind, then each peer once."""
    for row in rows:
        if row.ours is not None:
            yield f"edge, {row.kind}", row.ours.median_s, _NETWORK_COLOURS.get(row.kind, COLOURS[EDGE]), run.floor_s(row)
    peers = {name: figure.median_s for row in rows for name, figure in row.contenders.items() if name in row.ratios}
    for name, seconds in peers.items():
        colour = _OTHER if name in (LITERT_INT8, LITERT_FLOAT) else COLOURS.get(name, _OTHER)
        yield name.replace("Larq Compute Engine", "Larq CE"), seconds, colour, None


@dataclass(frozen=True)
class Plot:
    """A heading, a sentence, and what draws the plot."""

    title: str
    about: str
    draw: Callable[[Run], str | None]


PLOTS: Sequence[Plot] = (
    Plot("Binary 3x3 convolutions", "G MAC/s of one thread, beside what they replace and under the limit of the machine.", rates),
    Plot("Layer by layer", "How many times as long LiteRT takes, one thread, with quartiles; left of 1 it is the faster one.", ratios),
    Plot("Against width", "A 3x3 convolution of 14x14 pixels on one thread, by its channels; dashed: LiteRT.", widths),
    Plot("Networks", "Time of an inference on one thread, and its floor by the limits (|); grey: the ReLU twin in LiteRT.", networks),
    Plot("Larq zoo", "Time of an inference on one thread, and its floor by the limits (|), beside Larq Compute Engine.", zoo),
)
