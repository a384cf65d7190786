"""Draw the example pictures: `digits/0.png` ... `digits/9.png`, `image.png` and `digit-photo.png`.

    python examples/draw_digits.py [FOLDER]

Every digit is a few pen strokes, written down here as points that a smooth curve passes through; no font is involved.
The small pictures look like MNIST's: 28x28, white ink on black, the digit 20 pixels high with its centre of mass in the
middle. `digit-photo.png` looks like a snapshot: 200x200, dark ink on paper that is not lit evenly, in colour.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
Stroke = list[tuple[float, float]]

SAMPLES_PER_SPAN = 40
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Digit:
    """Strokes as points (x to the right, y down, both about 0..1), turned by `turn` and sheared by `slant` radians."""

    strokes: tuple[Stroke, ...]
    slant: float = 0.0
    turn: float = 0.0


# fmt: off
DIGITS = (
    Digit(
        (
            [
                (0.56, 0.02), (0.30, 0.10), (0.12, 0.42), (0.18, 0.84), (0.46, 0.99), (0.76, 0.78), (0.86, 0.40),
                (0.70, 0.08), (0.44, 0.04),
            ],
        ),
        slant=0.10,
    ),
    Digit(([(0.36, 0.20), (0.52, 0.02)], [(0.52, 0.02), (0.50, 0.50), (0.47, 1.00)]), slant=0.12),
    Digit(
        (
            [(0.16, 0.26), (0.30, 0.05), (0.58, 0.02), (0.76, 0.22), (0.66, 0.50), (0.40, 0.76), (0.14, 0.97)],
            [(0.14, 0.97), (0.48, 0.93), (0.88, 0.98)],
        ),
        slant=0.05,
    ),
    Digit(
        (
            [(0.18, 0.14), (0.40, 0.01), (0.68, 0.06), (0.74, 0.26), (0.58, 0.42), (0.38, 0.47)],
            [(0.38, 0.47), (0.66, 0.53), (0.80, 0.74), (0.64, 0.96), (0.36, 1.00), (0.12, 0.86)],
        )
    ),
    Digit(
        (
            [(0.34, 0.04), (0.24, 0.32), (0.14, 0.58)],
            [(0.14, 0.58), (0.46, 0.57), (0.84, 0.53)],
            [(0.68, 0.10), (0.64, 0.54), (0.60, 1.00)],
        ),
        slant=0.05,
    ),
    Digit(
        (
            [(0.78, 0.03), (0.54, 0.04), (0.30, 0.05)],
            [(0.30, 0.05), (0.26, 0.24), (0.22, 0.44)],
            [(0.22, 0.44), (0.46, 0.36), (0.72, 0.48), (0.78, 0.72), (0.60, 0.94), (0.34, 0.99), (0.12, 0.88)],
        ),
        slant=0.08,
    ),
    Digit(
        (
            [
                (0.68, 0.02), (0.40, 0.20), (0.20, 0.52), (0.18, 0.82), (0.42, 0.99), (0.70, 0.88), (0.76, 0.66),
                (0.56, 0.52), (0.32, 0.62), (0.20, 0.80),
            ],
        )
    ),
    Digit(([(0.12, 0.08), (0.44, 0.07), (0.82, 0.04)], [(0.82, 0.04), (0.62, 0.42), (0.46, 0.74), (0.36, 1.00)])),
    Digit(
        (
            [
                (0.76, 0.14), (0.52, 0.01), (0.28, 0.10), (0.30, 0.32), (0.52, 0.47), (0.72, 0.66), (0.70, 0.90),
                (0.46, 1.00), (0.24, 0.88), (0.28, 0.66), (0.52, 0.47), (0.72, 0.32), (0.76, 0.14),
            ],
        ),
        slant=0.08,
    ),
    Digit(
        (
            [(0.74, 0.18), (0.54, 0.02), (0.28, 0.12), (0.22, 0.36), (0.44, 0.50), (0.68, 0.38), (0.74, 0.18)],
            [(0.74, 0.18), (0.71, 0.58), (0.64, 1.00)],
        ),
        slant=0.06,
    ),
)
# fmt: on


def smooth(stroke: Stroke) -> Floats:
    """Return points (N, 2) along the Catmull-Rom curve through those of `stroke`."""
    p = np.asarray([stroke[0], *stroke, stroke[-1]], dtype=np.float64)
    t = np.linspace(0, 1, SAMPLES_PER_SPAN)[:, None]
    spans = [
        b + t * (c - a) / 2 + t**2 * (a - 2.5 * b + 2 * c - d / 2) + t**3 * (1.5 * (b - c) + (d - a) / 2)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return np.concatenate(spans)


def path(digit: Digit) -> Floats:
    """Return all points (N, 2) of the digit's strokes, slanted and turned about its middle."""
    points = np.concatenate([smooth(stroke) for stroke in digit.strokes]) - 0.5
    cos, sin = np.cos(digit.turn), np.sin(digit.turn)
    shear = np.array([[1.0, -np.tan(digit.slant)], [0.0, 1.0]])
    return np.asarray(points @ (np.array([[cos, -sin], [sin, cos]]) @ shear).T)


def fit(points: Floats, size: int, reach: float) -> Floats:
    """Scale and move `points` so that the longer side is `reach` pixels, in the middle of `size` pixels."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) * reach / (high - low).max() + (size - 1) / 2)


def ink(points: Floats, size: int, radius: float) -> Floats:
    """Return how much of each pixel (size, size) a round pen of `radius` covers on its way, from 0 to 1."""
    rows, columns = np.mgrid[:size, :size]
    nearest = np.full((size, size), np.inf)
    for x, y in points:
        np.minimum(nearest, np.hypot(columns - x, rows - y), out=nearest)
    return np.clip(radius + 0.5 - nearest, 0.0, 1.0)


def centred(points: Floats, size: int, radius: float) -> Floats:
    """Return `points` moved so that the centre of mass of their ink is the middle of the picture."""
    mass = ink(points, size, radius)
    rows, columns = np.mgrid[:size, :size]
    centre = np.array([(mass * columns).sum(), (mass * rows).sum()]) / mass.sum()
    return np.asarray(points + (size - 1) / 2 - centre)


def small(digit: Digit, *, radius: float = 1.2) -> Image.Image:
    """Return the digit as MNIST would show it: 28x28, gray, white on black."""
    points = centred(fit(path(digit), 28, 20 - 2 * radius), 28, radius)
    return Image.fromarray(np.rint(255 * ink(points, 28, radius)).astype(np.uint8))


def photo(digit: Digit, *, size: int = 200, radius: float = 9.5, seed: int = 7) -> Image.Image:
    """Return the digit in dark blue ink on paper, RGB: light falls from the upper left, and the sensor is noisy."""
    covered = ink(centred(fit(path(digit), size, 0.68 * size), size, radius), size, radius)[..., None]
    rows, columns = np.mgrid[:size, :size] / size
    light = (1.0 - 0.05 * (rows + columns) / 2)[..., None]
    paper, pen = np.array([250.0, 247.0, 240.0]), np.array([24.0, 26.0, 48.0])
    noise = np.random.default_rng(seed).normal(0.0, 2.0, (size, size, 1))
    colour = (paper * (1 - covered) + pen * covered) * light + noise
    return Image.fromarray(np.clip(np.rint(colour), 0, 255).astype(np.uint8))


def pictures() -> dict[str, Image.Image]:
    """Return every shipped picture by its path below `examples/`."""
    drawn = {f"digits/{value}.png": small(digit) for value, digit in enumerate(DIGITS)}
    return {**drawn, "image.png": small(replace(DIGITS[2], turn=-0.1), radius=1.4), "digit-photo.png": photo(DIGITS[3])}


def main(folder: Path) -> None:
    for name, picture in pictures().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, optimize=True)
        print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
