"""The error of every layer as SVG text that takes its colours from the page.

Across are the layers in their order; up, on a logarithmic scale, is how far each is from its source: a float layer's largest error relative
to its largest value (a dot), the share of a packed layer's signs that flipped (a square), and that tipped over in ties (an empty square).
What is equal stands on the line at the bottom.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence

from edge.compare_layers import EXACT_TOLERANCE, LayerComparison
from edge.console import printable

WIDTH, HEIGHT = 860, 390
INKS = ("one", "eight", "float", "mixed", "none")  # the page's colours, one for each file in turn
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 14, 120
_LOWEST, _HIGHEST = -9, 1  # powers of ten
_GAP = 26  # between the lowest power and the line of what is equal
_LABELS = 48  # more names would lie on each other
_LONGEST = 18


def plot(rows: Sequence[Sequence[LayerComparison | None]], names: Sequence[str]) -> str:
    """`rows`: of every layer a cell for each file, None where it was not compared there; `names` of the layers."""
    parts = [*_grid(), *_axis(names)]
    for file in range(len(rows[0])):
        parts += _series([row[file] for row in rows], names, file, len(rows[0]))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Error of every layer">{"".join(parts)}</svg>'


def _height(value: float) -> float:
    """The place of a relative error or a share."""
    bottom = HEIGHT - _BOTTOM
    if value <= 0:
        return bottom
    power = min(max(math.log10(value) if math.isfinite(value) else _HIGHEST, _LOWEST), _HIGHEST)
    low = bottom - _GAP
    return low - (power - _LOWEST) / (_HIGHEST - _LOWEST) * (low - _TOP)


def _across(layer: int, layers: int, file: int = 0, files: int = 1) -> float:
    step = (WIDTH - _LEFT - _RIGHT) / layers
    return _LEFT + step * (layer + 0.5) + min(step / (files + 1), 9) * (file - (files - 1) / 2)


def _grid() -> Iterator[str]:
    right = WIDTH - _RIGHT
    for power in range(_LOWEST, _HIGHEST + 1, 2):
        y = _height(10.0**power)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>'
    bottom = _height(0.0)
    yield f'<line class="grid" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    yield f'<text x="{_LEFT - 6}" y="{bottom + 4}" text-anchor="end">0</text>'
    y = _height(EXACT_TOLERANCE)
    yield f'<line class="slope" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
    yield f'<text x="{right}" y="{y - 4:.1f}" text-anchor="end">rounding, {EXACT_TOLERANCE:g}</text>'


def _axis(names: Sequence[str]) -> Iterator[str]:
    bottom = HEIGHT - _BOTTOM
    every = -(-len(names) // _LABELS)
    for i in range(0, len(names), every):
        name = printable(names[i])
        shown = html.escape(name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…")
        x = _across(i, len(names))
        yield f'<text transform="translate({x + 3:.1f} {bottom + 14}) rotate(-45)" text-anchor="end">{shown}</text>'
    middle = (_TOP + bottom) / 2
    yield f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">error / largest value, share of signs</text>'


def _series(layers: Sequence[LayerComparison | None], names: Sequence[str], file: int, files: int) -> Iterator[str]:
    marks = []
    for i, layer in enumerate(layers):
        if layer is not None:
            x, y = _across(i, len(layers), file, files), _height(value_of(layer))
            marks.append((x, y, _mark(layer, names[i], x, y)))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in marks)
    line = f'<polyline fill="none" stroke="var(--ink)" stroke-width="1" opacity="0.5" points="{points}"/>'
    yield f'<g class="{INKS[file % len(INKS)]}">{line}{"".join(mark for _, _, mark in marks)}</g>'


def value_of(layer: LayerComparison) -> float:
    """What is drawn: the share of flipped signs, or the relative error."""
    return layer.flipped_bits / max(1, layer.values) if layer.encoding == "bits" else layer.relative_error


def _mark(layer: LayerComparison, name: str, x: float, y: float) -> str:
    title = f"<title>{html.escape(printable(name))}: {html.escape(_words(layer))}</title>"
    if layer.encoding != "bits":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle>'
    square = f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="var(--ink)">{title}</rect>'
    if not layer.tied_bits:
        return square
    tie = _height(layer.tied_bits / layer.values)
    return square + f'<rect x="{x - 4:.1f}" y="{tie - 4:.1f}" width="8" height="8" fill="none" stroke="var(--ink)">{title}</rect>'


def _words(layer: LayerComparison) -> str:
    if layer.encoding == "bits":
        return f"{layer.flipped_bits:,} of {layer.values:,} signs flipped, {layer.tied_bits:,} ties"
    return f"by at most {layer.max_abs_error:.3g}, {layer.relative_error:.3g} of the largest value"
