"""The Pareto front of a search for bits as an SVG file: across what choices cost, up the damage that is expected of them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge.console import bytes_text, printable, seconds_text
from edge.converters.search import Candidate, Choice
from edge.widths import described

WIDTH, HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 28, 52, 56
_LEAST = 1e-6  # damage that is drawn; less lies on the bottom
_INK, _SOFT, _LINE, _CHOSEN = "#222", "#666", "#2b6cb0", "#c53030"


@dataclass(frozen=True)
class _Axes:
    """Costs and powers of ten of the damage."""

    low: float
    high: float
    least: int
    most: int

    def at(self, each: Candidate) -> tuple[float, float]:
        across = (each.cost - self.low) / (self.high - self.low)
        power = (_power(each.damage) - self.least) / (self.most - self.least)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - power * (HEIGHT - _TOP - _BOTTOM)


def plot(choice: Choice, model: str) -> str:
    """A whole file."""
    axes = _axes([*choice.front, *choice.uniform.values(), choice.chosen])
    body = "".join((*_grid(axes, choice), *_front(axes, choice), *_uniform(axes, choice), *_chosen(axes, choice)))
    title = _text(_LEFT, 24, f"{printable(model)}: the best choices of bits by layer", "font-weight='600' font-size='14'")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>{title}{body}</svg>\n'
    )


def _power(damage: float) -> float:
    return math.log10(min(max(damage, _LEAST), 1e6))


def _axes(points: Sequence[Candidate]) -> _Axes:
    costs, powers = [each.cost for each in points], [_power(each.damage) for each in points]
    room = 0.06 * (max(costs) - min(costs)) or abs(costs[0]) * 0.1 or 1.0
    least = math.floor(min(powers))
    return _Axes(max(0.0, min(costs) - room), max(costs) + room, least, max(math.ceil(max(powers)), least + 1))


def _grid(axes: _Axes, choice: Choice) -> Iterator[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for power in range(axes.least, axes.most + 1):
        _, y = axes.at(Candidate(axes.low, 10.0**power))
        yield f"<line x1='{_LEFT}' y1='{y:.1f}' x2='{right}' y2='{y:.1f}' stroke='#e5e5e5'/>"
        yield _text(_LEFT - 8, y + 4, f"{10.0**power:g}", f"fill='{_SOFT}' text-anchor='end'")
    for i in range(6):
        cost = axes.low + (axes.high - axes.low) * i / 5
        x, _ = axes.at(Candidate(cost, 1.0))
        yield f"<line x1='{x:.1f}' y1='{bottom}' x2='{x:.1f}' y2='{bottom + 5}' stroke='#999'/>"
        yield _text(x, bottom + 20, _cost(cost, choice.by), f"fill='{_SOFT}' text-anchor='middle'")
    what = "bytes of the file" if choice.by == "bytes" else f"time on {printable(choice.target)}"
    yield _text((_LEFT + right) / 2, HEIGHT - 14, what, f"fill='{_SOFT}' text-anchor='middle'")
    turned = f"fill='{_SOFT}' text-anchor='middle' transform='rotate(-90 16 {(_TOP + bottom) / 2})'"
    yield _text(16, (_TOP + bottom) / 2, "expected damage to the answers", turned)


def _front(axes: _Axes, choice: Choice) -> Iterator[str]:
    places = [axes.at(each) for each in choice.front]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f"<polyline points='{line}' fill='none' stroke='{_LINE}' stroke-width='1.5'/>"
    for each, (x, y) in zip(choice.front, places, strict=True):
        yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.2' fill='{_LINE}'>{_title(each, choice, 'on the front')}</circle>"


def _uniform(axes: _Axes, choice: Choice) -> Iterator[str]:
    for i, (bits, each) in enumerate(choice.uniform.items()):
        x, y = axes.at(each)
        name = described(bits)
        yield f"<g>{_title(each, choice, f'all layers {name}')}<rect x='{x - 4:.1f}' y='{y - 4:.1f}' width='8' height='8' fill='#888'/></g>"
        yield _text(x + 8, y + (14 if i % 2 else -6), f"all {name}", f"fill='{_SOFT}'")  # ternary and 2 bits lie close together


def _chosen(axes: _Axes, choice: Choice) -> Iterator[str]:
    x, y = axes.at(choice.chosen)
    mark = f"<circle cx='{x:.1f}' cy='{y:.1f}' r='6' fill='none' stroke='{_CHOSEN}' stroke-width='2.5'/>"
    yield f"<g>{_title(choice.chosen, choice, 'chosen')}{mark}</g>"
    measured = Candidate(choice.chosen.cost, choice.measured.damage)
    if math.isfinite(measured.damage) and 10.0**axes.least <= measured.damage <= 10.0**axes.most:
        _, at = axes.at(measured)
        cross = f"<path d='M{x - 5:.1f} {at:.1f}h10M{x:.1f} {at - 5:.1f}v10' stroke='{_CHOSEN}'/>"
        yield f"<g>{_title(measured, choice, 'measured')}{cross}</g>"
    text = f"○ chosen: {_cost(choice.chosen.cost, choice.by)}   + its damage as measured on pictures held back"
    yield _text(WIDTH - _RIGHT, _TOP - 8, text, f"fill='{_CHOSEN}' text-anchor='end'")


def _title(each: Candidate, choice: Choice, what: str) -> str:
    return f"<title>{html.escape(f'{what}: {_cost(each.cost, choice.by)}, damage {each.damage:.2g}')}</title>"


def _cost(cost: float, by: str) -> str:
    return bytes_text(round(cost)) if by == "bytes" else seconds_text(cost)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {_inked(style)}>{html.escape(text)}</text>"


def _inked(style: str) -> str:
    return style if "fill=" in style else f"fill='{_INK}' {style}"
