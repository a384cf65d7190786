"""The parts of the clocks of `edge.clocks`: dials, numerals of three stroke fonts and one for tests, and hands, as polygons and discs.

Points are shares of the dial's radius from its centre, to the right and up, 12 o'clock at (0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """A polygon of `points`, or, with a `radius`, a disc around the first of them."""

    points: tuple[Point, ...]
    radius: float = 0.0


@dataclass(frozen=True)
class Dial:
    """numerals: the hours that are written. font: of `FONTS`. hour_marks, minute_marks: kinds of `_marks`. twelve: what marks 12."""

    name: str
    numerals: tuple[int, ...] = ()
    font: str = "round"
    hour_marks: str = "bars"
    minute_marks: str = "none"
    twelve: str = "none"
    rim: float = 0.04


_ALL, _QUARTERS = tuple(range(1, 13)), (3, 6, 9, 12)

DIALS = (
    Dial("all numerals", _ALL, "round", "none", "ticks"),
    Dial("roman", _ALL, "roman", "bars", "none", rim=0.02),
    Dial("segments", _ALL, "segments", "dots", "none", rim=0.06),
    Dial("triangle", hour_marks="bars", minute_marks="ticks", twelve="triangle"),
    Dial("quarters", _QUARTERS, "round", "bars", "none", rim=0.02),
    Dial("double bar", hour_marks="dots", minute_marks="none", twelve="double bar", rim=0.03),
    # never trained on
    Dial("slanted", _ALL, "slanted", "dots", "ticks", rim=0.05),
    Dial("quarters slanted", _QUARTERS, "slanted", "wedges", "none", rim=0.03),
)
TRAINED_DIALS = range(6)

HANDS = ("baton", "taper", "leaf", "line", "arrow", "sword")
TRAINED_HANDS = range(4)
"""The first four; the others are for tests alone."""

# -- fonts: lines through points of a box 1 wide and 1 high ---------------------------------------------------------------------

Strokes = tuple[tuple[Point, ...], ...]

_SIX: tuple[Point, ...] = (
    (0.82, 0.95), (0.45, 0.98), (0.15, 0.65), (0.06, 0.3), (0.25, 0.03), (0.6, 0), (0.9, 0.2), (0.86, 0.47), (0.5, 0.58), (0.12, 0.42),
)  # fmt: skip
_ROUND: Mapping[str, Strokes] = {
    "0": (((0.5, 1), (0.16, 0.82), (0.05, 0.5), (0.16, 0.18), (0.5, 0), (0.84, 0.18), (0.95, 0.5), (0.84, 0.82), (0.5, 1)),),
    "1": (((0.2, 0.72), (0.58, 1), (0.58, 0)),),
    "2": (((0.08, 0.75), (0.25, 0.96), (0.6, 1), (0.88, 0.8), (0.84, 0.58), (0.05, 0), (0.95, 0)),),
    "3": (((0.1, 0.9), (0.45, 1), (0.8, 0.9), (0.85, 0.7), (0.45, 0.54), (0.9, 0.36), (0.85, 0.1), (0.45, 0), (0.08, 0.12)),),
    "4": (((0.74, 0), (0.74, 1), (0.04, 0.3), (0.98, 0.3)),),
    "5": (((0.88, 1), (0.2, 1), (0.12, 0.55), (0.5, 0.63), (0.88, 0.45), (0.88, 0.17), (0.5, 0), (0.1, 0.1)),),
    "6": (_SIX,),
    "7": (((0.05, 1), (0.95, 1), (0.4, 0)),),
    "8": (
        ((0.5, 0.54), (0.16, 0.7), (0.2, 0.93), (0.5, 1), (0.8, 0.93), (0.84, 0.7), (0.5, 0.54)),
        ((0.5, 0.54), (0.1, 0.32), (0.15, 0.08), (0.5, 0), (0.85, 0.08), (0.9, 0.32), (0.5, 0.54)),
    ),
    "9": (tuple((1 - x, 1 - y) for x, y in _SIX),),
}
_SEGMENTS: Mapping[str, tuple[Point, Point]] = {
    "a": ((0, 1), (1, 1)), "b": ((1, 1), (1, 0.5)), "c": ((1, 0.5), (1, 0)), "d": ((0, 0), (1, 0)),
    "e": ((0, 0.5), (0, 0)), "f": ((0, 1), (0, 0.5)), "g": ((0, 0.5), (1, 0.5)),
}  # fmt: skip
_LIT = {
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc", "8": "abcdefg",
    "9": "abfgcd",
}  # fmt: skip
_ROMAN_LETTERS: Mapping[str, Strokes] = {
    "I": (((0.5, 0), (0.5, 1)),),
    "V": (((0.05, 1), (0.5, 0), (0.95, 1)),),
    "X": (((0.05, 0), (0.95, 1)), ((0.05, 1), (0.95, 0))),
}
_ROMAN = ("I", "II", "III", "IIII", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")


@dataclass(frozen=True)
class Font:
    """letters: strokes of each. height: of a numeral. width, advance: of a letter; slant: how far the top leans right; shares of height."""

    letters: Mapping[str, Strokes]
    height: float
    width: float
    advance: float
    stroke: float
    slant: float = 0.0


FONTS: Mapping[str, Font] = {
    "round": Font(_ROUND, 0.2, 0.55, 0.78, 0.03),
    "segments": Font({digit: tuple(_SEGMENTS[name] for name in lit) for digit, lit in _LIT.items()}, 0.17, 0.5, 0.8, 0.028),
    "roman": Font(_ROMAN_LETTERS, 0.17, 0.5, 0.5, 0.024),
    "slanted": Font(_ROUND, 0.22, 0.42, 0.6, 0.042, slant=0.3),
}
_NUMERALS_AT = 0.74  # of the radius, where the middle of a numeral lies


def _numeral(hour: int, font: Font, *, roman: bool) -> Iterator[Shape]:
    """A numeral, upright, at its hour; Roman ones stand on the centre."""
    text = _ROMAN[hour - 1] if roman else str(hour)
    angle = math.radians(30 * hour)
    middle = (_NUMERALS_AT * math.sin(angle), _NUMERALS_AT * math.cos(angle))
    width = font.height * (font.advance * (len(text) - 1) + font.width)
    for place, letter in enumerate(text):
        for line in font.letters[letter]:
            points = [_in_text(point, place, width, font) for point in line]
            if roman:
                points = [_turned(point, 30 * hour) for point in points]
            yield from _stroke([(x + middle[0], y + middle[1]) for x, y in points], font.stroke)


def _in_text(point: Point, place: int, width: float, font: Font) -> Point:
    """A point of a letter's box, from the middle of its numeral."""
    up = point[1] - 0.5
    return font.height * (font.advance * place + font.width * point[0] + font.slant * up) - width / 2, font.height * up


def _turned(point: Point, degrees: float) -> Point:
    """Clockwise around the centre."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return point[0] * cosine + point[1] * sine, point[1] * cosine - point[0] * sine


def _stroke(points: Sequence[Point], width: float) -> Iterator[Shape]:
    """A line of this width, round at its points."""
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        across, along = (width / 2 * (y1 - y0) / length, width / 2 * (x0 - x1) / length)
        yield Shape(((x0 + across, y0 + along), (x1 + across, y1 + along), (x1 - across, y1 - along), (x0 - across, y0 - along)))
    yield from (Shape((point,), width / 2) for point in points)


# -- dials ---------------------------------------------------------------------------------------------------------------------


def _ray(degrees: float, inner: float, outer: float, inner_width: float, outer_width: float) -> Shape:
    """A mark that points to the centre, its widths at both ends."""
    corners = ((-inner_width / 2, inner), (inner_width / 2, inner), (outer_width / 2, outer), (-outer_width / 2, outer))
    return Shape(tuple(_turned(corner, degrees) for corner in corners))


def _marks(kind: str, degrees: float) -> Iterator[Shape]:
    if kind == "bars":
        yield _ray(degrees, 0.87, 0.95, 0.03, 0.03)
    elif kind == "ticks":
        yield _ray(degrees, 0.91, 0.95, 0.012, 0.012)
    elif kind == "dots":
        yield Shape((_turned((0, 0.92), degrees),), 0.022)
    elif kind == "wedges":
        yield _ray(degrees, 0.86, 0.96, 0.01, 0.06)


def dial_shapes(dial: Dial) -> Iterator[Shape]:
    """Everything on the face but the hands."""
    for minute in range(60):
        if minute % 5:
            yield from _marks(dial.minute_marks, 6 * minute)
        elif dial.twelve == "none" or minute:
            yield from _marks(dial.hour_marks, 6 * minute)
    if dial.twelve == "triangle":
        yield _ray(0, 0.72, 0.95, 0.0, 0.2)
    elif dial.twelve == "double bar":
        yield from (Shape(tuple((x + offset, y) for x, y in _ray(0, 0.72, 0.94, 0.05, 0.05).points)) for offset in (-0.05, 0.05))
    for hour in dial.numerals:
        yield from _numeral(hour, FONTS[dial.font], roman=dial.font == "roman")


# -- hands ---------------------------------------------------------------------------------------------------------------------


def hand_shapes(kind: str, length: float, width: float) -> tuple[Shape, ...]:
    """A hand that points to 12; all but the line reach a little beyond the centre."""
    back, half = -0.1, width / 2
    tip = (0.0, length)
    if kind == "baton":
        return (Shape(((-half, back), (half, back), (half, length), (-half, length))),)
    if kind == "taper":
        return (Shape(((-1.3 * half, back), (1.3 * half, back), (0.25 * half, length), (-0.25 * half, length))),)
    if kind == "leaf":
        return (Shape(((0, back), (1.6 * half, 0.4 * length), tip, (-1.6 * half, 0.4 * length))),)
    if kind == "line":
        return (Shape(((-0.6 * half, 0), (0.6 * half, 0), (0.6 * half, length), (-0.6 * half, length))),)
    if kind == "arrow":
        shaft = ((-0.5 * half, back), (0.5 * half, back), (0.5 * half, 0.8 * length), (-0.5 * half, 0.8 * length))
        return Shape(shaft), Shape(((-2 * half, 0.75 * length), (2 * half, 0.75 * length), tip))
    return (Shape(((0, back), (0.5 * half, 0), (1.5 * half, 0.75 * length), tip, (-1.5 * half, 0.75 * length), (-0.5 * half, 0))),)
