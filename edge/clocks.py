"""Rendered pictures of analog clocks, for the network `clock`: any time, any orientation, eight dials of which two are for tests alone.

    data = dataset()                       # 14,400 to learn from, 3,600 of the same dials to test on, 1,000 of dials never seen
    picture = render(scene(5))             # uint8 (150, 150)

There is no public set of the pictures that the network was described with; these are ours, and figures on them are not comparable. Each
picture follows from `VERSION` and its number alone. A dial has all numerals, some, or none and a marked 12, without which the time of a
turned clock could not be told. Labels are (hour 0..11, minute 0..59); the hour hand moves with the minutes.

Pictures to learn from stand upright, but for the last 720, which choose the epoch: a training turns them itself, further and further, to
any angle (`edge.recipes.Recipe.turning`). A network that sees clocks at any angle from the start does not begin to learn for many epochs.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.clock_shapes import DIALS, HANDS, TRAINED_DIALS, TRAINED_HANDS, Shape, dial_shapes, hand_shapes
from edge.datasets import Dataset, Part, Pictures
from edge.errors import InputError
from edge.files import write_atomically
from edge.recipes import CLOCKS_HELD_BACK as HELD_BACK

VERSION = 2  # of the pictures; another one, other pictures
SIZE = 150
TRAIN, TEST, UNSEEN = 14_400, 3_600, 1_000
_OVERSAMPLING = 3
_RADIUS = 0.46  # of the dial, of the picture's side, before it is scaled
HOUR_HAND, MINUTE_HAND = 0.52, 0.84  # lengths, of the radius


@dataclass(frozen=True)
class Scene:
    """What a picture shows. turn: of the clock, degrees clockwise. shift: of its centre, shares of the side. scale: of its radius.

    paper, face, ink, hands: grey levels. shadow: how much darker one side is (0 none), lying to `shadow_side` degrees. blur: pixels; noise:
    standard deviation in grey levels, drawn from `number`.
    """

    number: int
    hour: int
    minute: int
    dial: int
    hands_shape: int
    turn: float
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    paper: int = 255
    face: int = 235
    ink: int = 20
    hands: int = 20
    shadow: float = 0.0
    shadow_side: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    @property
    def label(self) -> tuple[int, int]:
        return self.hour, self.minute

    @property
    def angles(self) -> tuple[float, float]:
        """Of the hour and the minute hand in the picture, degrees clockwise from up."""
        return 30 * (self.hour + self.minute / 60) + self.turn, 6 * self.minute + self.turn


def scene(number: int, *, unseen: bool = False) -> Scene:
    """What picture `number` shows. `unseen`: with dials and hands that others never have, always with shadow, blur and noise."""
    random = np.random.default_rng((VERSION, int(unseen), number))
    dials = [i for i in range(len(DIALS)) if (i in TRAINED_DIALS) != unseen]
    hands = [i for i in range(len(HANDS)) if (i in TRAINED_HANDS) != unseen]
    is_dark = random.random() < 0.25
    face, ink = int(random.integers(190, 256)), int(random.integers(0, 60))
    spoilt = unseen or random.random() < 0.5
    low = 0.3 if unseen else 0.0
    return Scene(
        number=number,
        hour=int(random.integers(12)),
        minute=int(random.integers(60)),
        dial=int(random.choice(dials)),
        hands_shape=int(random.choice(hands)),
        turn=float(random.uniform(0, 360)),
        shift=(float(random.uniform(-0.02, 0.02)), float(random.uniform(-0.02, 0.02))),
        scale=float(random.uniform(0.9, 1.0)),
        paper=int(random.integers(120, 256)),
        face=ink if is_dark else face,
        ink=face if is_dark else ink,
        hands=int(np.clip((face if is_dark else ink) + random.integers(-25, 26), 0, 255)),
        shadow=float(random.uniform(low, 1) * 0.5) if spoilt else 0.0,
        shadow_side=float(random.uniform(0, 360)),
        blur=float(random.uniform(low, 1) * 0.8) if spoilt else 0.0,
        noise=float(random.uniform(low, 1) * 12) if spoilt else 0.0,
    )


# -- pictures ------------------------------------------------------------------------------------------------------------------


def render(shown: Scene) -> Pictures:
    """The picture, uint8 (150, 150)."""
    from PIL import Image, ImageDraw, ImageFilter

    side = SIZE * _OVERSAMPLING
    picture = Image.new("L", (side, side), shown.paper)
    draw = ImageDraw.Draw(picture)
    place = _Placement(shown, side)
    dial = DIALS[shown.dial]
    draw.ellipse(place.circle((0.0, 0.0), 1.0), fill=shown.ink)
    draw.ellipse(place.circle((0.0, 0.0), 1.0 - dial.rim), fill=shown.face)
    _fill(draw, dial_shapes(dial), place, shown.turn, shown.ink)
    for length, width, angle in ((HOUR_HAND, 0.075, shown.angles[0]), (MINUTE_HAND, 0.05, shown.angles[1])):
        _fill(draw, hand_shapes(HANDS[shown.hands_shape], length, width), place, angle, shown.hands)
    draw.ellipse(place.circle((0.0, 0.0), 0.06), fill=shown.hands)
    small = picture.reduce(_OVERSAMPLING)
    if shown.blur:
        small = small.filter(ImageFilter.GaussianBlur(shown.blur))
    return _spoilt(np.asarray(small, np.float32), shown)


@dataclass(frozen=True)
class _Placement:
    """Where the clock lies: its points are shares of the radius from the centre, up and to the right."""

    scene: Scene
    side: int

    @property
    def radius(self) -> float:
        return _RADIUS * self.scene.scale * self.side

    @property
    def centre(self) -> tuple[float, float]:
        return (0.5 + self.scene.shift[0]) * self.side, (0.5 + self.scene.shift[1]) * self.side

    def point(self, point: tuple[float, float], turn: float = 0.0) -> tuple[float, float]:
        """In pixels from the upper left corner, the clock turned clockwise by degrees."""
        sine, cosine = math.sin(math.radians(turn)), math.cos(math.radians(turn))
        right, up = point[0] * cosine + point[1] * sine, point[1] * cosine - point[0] * sine
        return self.centre[0] + self.radius * right, self.centre[1] - self.radius * up

    def circle(self, centre: tuple[float, float], radius: float, turn: float = 0.0) -> tuple[float, float, float, float]:
        x, y = self.point(centre, turn)
        return x - radius * self.radius, y - radius * self.radius, x + radius * self.radius, y + radius * self.radius


def _fill(draw: object, shapes: Iterable[Shape], place: _Placement, turn: float, grey: int) -> None:
    for shape in shapes:
        if shape.radius:
            draw.ellipse(place.circle(shape.points[0], shape.radius, turn), fill=grey)  # type: ignore[attr-defined]
        else:
            draw.polygon([place.point(point, turn) for point in shape.points], fill=grey)  # type: ignore[attr-defined]


def _spoilt(picture: NDArray[np.float32], shown: Scene) -> Pictures:
    """With shadow and noise."""
    if shown.shadow:
        across = np.linspace(-1, 1, SIZE)
        toward = across[None, :] * math.sin(math.radians(shown.shadow_side)) - across[:, None] * math.cos(math.radians(shown.shadow_side))
        picture = (picture * (1 - shown.shadow / (1 + np.exp(-8 * toward)))).astype(np.float32)
    if shown.noise:
        picture = (picture + np.random.default_rng((VERSION, 2, shown.number)).normal(0, shown.noise, picture.shape)).astype(np.float32)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


# -- sets ----------------------------------------------------------------------------------------------------------------------


def pictures(numbers: Iterable[int], *, unseen: bool = False, upright: bool = False) -> Part:
    """The pictures of these numbers (N, 150, 150, 1), and their labels (N, 2). upright: with 12 at the top."""
    numbers = list(numbers)
    x, y = np.empty((len(numbers), SIZE, SIZE, 1), np.uint8), np.empty((len(numbers), 2), np.int64)
    for i, number in enumerate(numbers):
        shown = scene(number, unseen=unseen)
        if upright:
            shown = replace(shown, turn=0.0)
        x[i, :, :, 0], y[i] = render(shown), shown.label
    return Part(x, y)


def dataset(*, cache: Path | None = None, say: Callable[[str], None] = lambda text: None) -> Dataset:
    """All of them, rendered once (a minute or two) and kept in a cache: EDGE_CACHE, or ~/.cache/edge. say: told so."""
    path = (cache or _cache()) / f"clocks-{VERSION}.npz"
    if not path.exists():
        say(f"rendering {TRAIN + TEST + UNSEEN:,} clocks (once), into {path}")
        _write(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    train, test, unseen = (Part(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test", "unseen"))
    return Dataset("clocks", train, test, further={"unseen": unseen})


def _cache() -> Path:
    from edge.kernels.cache import folder

    found = folder()
    if found is None:
        raise InputError("the rendered clocks need a folder to be kept in, and there is no home directory; set EDGE_CACHE to one")
    return found


def _write(path: Path) -> None:
    """Render every set into one file, there whole or not at all."""
    learnt, chosen = pictures(range(TRAIN - HELD_BACK), upright=True), pictures(range(TRAIN - HELD_BACK, TRAIN))
    parts = {
        "train": Part(np.concatenate((learnt.x, chosen.x)), np.concatenate((learnt.y, chosen.y))),
        "test": pictures(range(TRAIN, TRAIN + TEST)),
        "unseen": pictures(range(UNSEEN), unseen=True),
    }
    arrays = {f"{axis}_{name}": getattr(part, axis) for name, part in parts.items() for axis in ("x", "y")}
    content = io.BytesIO()
    np.savez(content, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [content.getbuffer()])


def contact_sheet(*, columns: int = 8) -> Pictures:
    """Every dial, a row each: the trained ones with trained hands, then those for tests, as a picture."""
    rows = []
    for dial in range(len(DIALS)):
        shown: list[Pictures] = []
        number = 0
        while len(shown) < columns:
            each = scene(number, unseen=dial not in TRAINED_DIALS)
            shown += [render(each)] if each.dial == dial else []
            number += 1
        rows.append(np.hstack([np.pad(picture, 2, constant_values=255) for picture in shown]))
    return np.vstack(rows)
