"""The roofline of a profile as SVG text that takes its colours from the page: dark on light and light on dark.

Every point is a layer: across, the multiply-accumulates it does for a byte it reads or writes; up, how many it does a second. Slopes are
bandwidths of the device's memories; levels are what the fastest of the model's kernels of a precision does, before memory and overhead.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edge.console import printable, seconds_text
from edge.targets.devices import Device
from edge.targets.profile import LayerProfile, Profile

WIDTH, HEIGHT = 860, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 44
_BANDWIDTHS = {"l2_bytes_per_s": "second-level cache", "l3_bytes_per_s": "third-level cache", "memory_bytes_per_s": "memory"}
_POINT = 5


def precision_class(precision: str) -> str:
    """The page's class of colours for a precision: one, eight, float, mixed, or none where nothing is multiplied."""
    return {"1x1": "one", "8x8": "eight", "32x32": "float", "": "none"}.get(precision, "mixed")


@dataclass(frozen=True)
class _Point:
    layer: LayerProfile
    seconds: float

    @property
    def intensity(self) -> float:
        return self.layer.macs / max(1, self.layer.moved_bytes)

    @property
    def rate(self) -> float:
        return self.layer.macs / self.seconds


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from `low` to `high`, whole powers of ten, drawn from `start` to `end`."""

    low: int
    high: int
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> Iterable[int]:
        return range(self.low, self.high + 1)


def roofline(found: Profile, device: Device | None, roofs: Mapping[str, float]) -> str | None:
    """The SVG; None where no layer multiplies, or no time is known. Without a device there are points alone.

    roofs: multiply-accumulates a second by precision.
    """
    points = [_Point(layer, layer.seconds) for layer in found.layers if layer.macs and layer.seconds]
    if not points:
        return None
    slopes = _slopes(device)
    across = _axis([point.intensity for point in points], _LEFT, WIDTH - _RIGHT)
    up = _axis([*(point.rate for point in points), *roofs.values()], HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(across, up), *(line for name, rate in slopes for line in _slope(name, rate, across, up))]
    parts += [_roof(precision, rate, up) for precision, rate in roofs.items()]
    parts += _marks(points, across, up)
    label = html.escape(f"Roofline of {found.model} on {found.title}, times {found.time_basis}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _slopes(device: Device | None) -> list[tuple[str, float]]:
    return [(text, device.value(name)) for name, text in _BANDWIDTHS.items() if name in device.figures] if device else []


def _axis(values: list[float], start: float, end: float) -> _Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.15)
    return _Axis(low, max(high, low + 1), start, end)


def _grid(across: _Axis, up: _Axis) -> Iterator[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for power in across.ticks:
        x = across.at(10.0**power)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_short(10.0**power)}</text>'
    for power in up.ticks:
        y = up.at(10.0**power)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(10.0**power)}</text>'
    middle = (_TOP + bottom) / 2
    yield f'<text class="axis" x="{(_LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">multiply-accumulates a byte moved</text>'
    yield f'<text class="axis" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">multiply-accumulates a second</text>'


def _short(value: float) -> str:
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _slope(name: str, rate: float, across: _Axis, up: _Axis) -> Iterator[str]:
    """The part of a bandwidth's line that is inside the axes, its name along it."""
    low = max(10.0**across.low, 10.0**up.low / rate)
    high = min(10.0**across.high, 10.0**up.high / rate)
    if low >= high:
        return
    x1, y1, x2, y2 = across.at(low), up.at(low * rate), across.at(high), up.at(high * rate)
    yield f'<line class="slope" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
    length = math.hypot(x2 - x1, y2 - y1)
    text = f"{name}, {rate / 1e9:.3g} GB/s"
    if length > 7 * len(text):
        angle = math.degrees(math.atan2(y2 - y1, x2 - x1))
        place = f"translate({x1:.1f} {y1:.1f}) rotate({angle:.1f})"
        yield f'<text class="slope-name" transform="{place}" x="{length / 2:.1f}" y="-4" text-anchor="middle">{text}</text>'


def _roof(precision: str, rate: float, up: _Axis) -> str:
    y, right = up.at(rate), WIDTH - _RIGHT
    line = f'<line class="roof" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
    text = f'<text class="roof-name" x="{_LEFT + 5}" y="{y - 4:.1f}">{precision} bits: {_short(float(f"{rate:.3g}"))} MAC/s</text>'
    return f'<g class="{precision_class(precision)}">{line}{text}</g>'


def _marks(points: Iterable[_Point], across: _Axis, up: _Axis) -> Iterator[str]:
    """The points; a name that would lie on another one is left to the point's title."""
    taken: list[tuple[float, float, float]] = []  # left, right, baseline
    for point in sorted(points, key=lambda each: -(each.layer.seconds or 0.0)):
        x, y = across.at(point.intensity), up.at(point.rate)
        name = _name(point)
        length = 6.5 * len(name)
        left, anchor, shift = (x - 9 - length, "end", -9) if x + 9 + length > WIDTH else (x + 9, "start", 9)
        baselines = (y + 4 + move for move in (0, -13, 13, -26, 26))
        free = next((at for at in baselines if not any(abs(at - b) < 12 and left < r and left + length > s for s, r, b in taken)), None)
        text = ""
        if free is not None:
            taken.append((left, left + length, free))
            text = f'<text x="{x + shift:.1f}" y="{free:.1f}" text-anchor="{anchor}">{html.escape(name)}</text>'
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_POINT}"/>'
        yield f'<g class="{precision_class(point.layer.precision)}"><title>{_title(point)}</title>{circle}{text}</g>'


def _name(point: _Point) -> str:
    name = printable(next(iter(point.layer.layers), point.layer.operation))
    return name if len(name) <= 18 else name[:17] + "…"


def _title(point: _Point) -> str:
    layer = point.layer
    name, limit = "+".join(layer.layers) or layer.operation, f", limited by {layer.limit}" if layer.limit else ""
    return html.escape(printable(f"{name}: {layer.precision} bits, {point.rate / 1e9:.3g} G MAC/s, {seconds_text(point.seconds)}{limit}"))
