"""The sensitivity of every layer as an SVG file: a row for each layer, a column for each width, the darker the more damage."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator

from edge.console import printable
from edge.converters.damage import Score
from edge.converters.sensitivity import LayerSensitivity, Sensitivity
from edge.widths import described

_ROW, _COLUMN, _TOP, _BOTTOM, _RIGHT = 26, 92, 62, 46, 12
_LETTER = 7.2  # width of one
_LONGEST = 32  # of a name
_LEAST, _MOST = -5.0, 1.0  # powers of ten of the damage that are white and dark
_LIGHT, _DARK = (255, 255, 255), (140, 20, 30)


def plot(found: Sensitivity) -> str:
    """A whole file."""
    names = [_name(each) for each in found.layers]
    left = 24 + _LETTER * max(12, *map(len, names)) + 78
    width, height = left + _COLUMN * len(found.bits) + _RIGHT, _TOP + _ROW * len(names) + _BOTTOM
    cells = "".join(_row(each, names[i], left, _TOP + _ROW * i, found) for i, each in enumerate(found.layers))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(_head(found, left))}{cells}{_foot(found, height)}</svg>\n"
    )


def _name(each: LayerSensitivity) -> str:
    name = printable(each.layer.name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _head(found: Sensitivity, left: float) -> Iterator[str]:
    yield _text(12, 22, f"{printable(found.model)}: damage by one layer of fewer bits", "font-weight='600' font-size='14'")
    yield _text(12, _TOP - 10, "layer", "fill='#555'")
    yield _text(left - 12, _TOP - 10, "weights", "fill='#555' text-anchor='end'")
    for i, bits in enumerate(found.bits):
        yield _text(left + _COLUMN * (i + 0.5), _TOP - 10, described(bits), "fill='#555' text-anchor='middle'")


def _row(each: LayerSensitivity, name: str, left: float, y: float, found: Sensitivity) -> str:
    middle = y + _ROW / 2 + 4
    parts = [_text(12, middle, name), _text(left - 12, middle, f"{each.layer.weights:,}", "fill='#555' text-anchor='end'")]
    for i, bits in enumerate(found.bits):
        parts.append(_cell(each.scores.get(bits), left + _COLUMN * i, y, f"{name}, {described(bits)}"))
    return "".join(parts)


def _cell(score: Score | None, x: float, y: float, what: str) -> str:
    if score is None:
        return _text(x + _COLUMN / 2, y + _ROW / 2 + 4, "-", "fill='#999' text-anchor='middle'")
    share = _share(score.damage)
    fill = "#{:02x}{:02x}{:02x}".format(*(round(a + (b - a) * share) for a, b in zip(_LIGHT, _DARK, strict=True)))
    box = f"<rect x='{x:.1f}' y='{y:.1f}' width='{_COLUMN - 2}' height='{_ROW - 2}' rx='3' fill='{fill}' stroke='#ddd'/>"
    ink = "#fff" if share > 0.55 else "#222"
    shown = _text(x + _COLUMN / 2 - 1, y + _ROW / 2 + 3, number(score.damage), f"fill='{ink}' text-anchor='middle'")
    return f"<g><title>{html.escape(f'{what}: {words(score)}')}</title>{box}{shown}</g>"


def _share(damage: float) -> float:
    """Where a damage lies between the lightest and the darkest, on a logarithmic scale."""
    power = _MOST if not math.isfinite(damage) else math.log10(max(damage, 1e-30))
    return (min(max(power, _LEAST), _MOST) - _LEAST) / (_MOST - _LEAST)


def number(damage: float) -> str:
    """A damage, to two digits."""
    return f"{damage:.2g}" if math.isfinite(damage) else "infinite"


def words(score: Score) -> str:
    """A score in words."""
    parts = [f"damage {number(score.damage)}"]
    parts += [f"{score.changed_points:.1f} % of answers changed"] if score.changed_points is not None else []
    parts += [f"accuracy {-score.drop_points:+.1f} points"] if score.drop_points is not None else []
    return ", ".join(parts)


def _foot(found: Sensitivity, height: float) -> str:
    text = f"damage to the answers on {found.pictures} pictures, one layer at that width and all others float; hover for more"
    return _text(12, height - 16, text, "fill='#555'")


def _text(x: float, y: float, text: str, style: str = "fill='#222'") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{html.escape(text)}</text>"
