"""The rendered clocks: the same each time, their hands where the label says, and a 12 that tells how they are turned."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from edge import clocks
from edge.clock_shapes import DIALS, HANDS, TRAINED_DIALS, TRAINED_HANDS, dial_shapes
from edge.clocks import Scene, pictures, render, scene

# Of version 2. Scenes follow from NumPy's generator alone; pixels from Pillow's drawing, and so pictures are compared coarsely.
SCENES = "b8a41cb7a13b5c68"
MEANS = (155, 164, 172, 112, 174, 80, 71, 137, 225, 182, 153, 185, 192, 146, 184, 175, 82, 62, 170, 160)


def plain(hour: int, minute: int, turn: float = 0.0, **changes: object) -> Scene:
    return replace(Scene(0, hour, minute, dial=3, hands_shape=0, turn=turn), **changes)  # type: ignore[arg-type]


def grey_at(picture: np.ndarray, degrees: float, distance: float) -> int:
    """The pixel at a direction, clockwise from up, and a distance from the centre, of the dial's radius."""
    reach = distance * 0.46 * clocks.SIZE
    angle = math.radians(degrees)
    return int(picture[round(clocks.SIZE / 2 - reach * math.cos(angle) - 0.5), round(clocks.SIZE / 2 + reach * math.sin(angle) - 0.5)])


@pytest.mark.parametrize(("hour", "minute"), [(0, 0), (3, 0), (6, 30), (9, 47), (11, 59), (1, 13)])
@pytest.mark.parametrize("turn", [0.0, 77.0, 200.5])
@pytest.mark.parametrize("shape", range(len(HANDS)))
def test_hands_point_where_the_label_says(hour: int, minute: int, turn: float, shape: int) -> None:
    picture = render(plain(hour, minute, turn, hands_shape=shape, ink=235))  # an empty dial
    hour_angle, minute_angle = 30 * hour + minute / 2 + turn, 6 * minute + turn
    assert grey_at(picture, minute_angle, 0.6) < 128 and grey_at(picture, hour_angle, 0.35) < 128
    for degrees, distance in ((minute_angle, 0.6), (hour_angle, 0.35)):
        others = [grey_at(picture, degrees + off, distance) for off in (-25, 25)]
        apart = abs((hour_angle - minute_angle + 180) % 360 - 180)
        assert max(others) > 200 and (min(others) > 200 or abs(apart - 25) < 12), "a hand is narrow"
    assert grey_at(picture, hour_angle, 0.7) > 200 or abs((hour_angle - minute_angle + 180) % 360 - 180) < 8, "the hour hand is short"


@pytest.mark.parametrize("dial", range(len(DIALS)))
def test_a_turned_clock_shows_where_its_12_is(dial: int) -> None:
    """No dial looks the same turned by hours: the time could not be told."""
    upright = render(plain(0, 0, dial=dial, hands=235)).astype(int)
    for hours in range(1, 12):
        turned = render(plain(0, 0, 30 * hours, dial=dial, hands=235)).astype(int)
        assert (np.abs(upright - turned) > 100).sum() > 40
    assert len(list(dial_shapes(DIALS[dial]))) > 12


def test_pictures_are_the_same_each_time() -> None:
    first, again = pictures(range(12)), pictures(range(12))
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.x[7], pictures([7]).x[0])
    assert first.x.shape == (12, 150, 150, 1) and first.x.dtype == np.uint8
    assert first.y.tolist() == [list(scene(i).label) for i in range(12)]


def test_version_2_is_what_it_was() -> None:
    shown = [asdict(scene(i, unseen=unseen)) for unseen in (False, True) for i in range(50)]
    digest = hashlib.sha256(repr([[round(v, 6) if isinstance(v, float) else v for v in each.values()] for each in shown]).encode())
    assert clocks.VERSION == 2 and digest.hexdigest()[:16] == SCENES
    means = pictures(range(20)).x.reshape(20, -1).mean(axis=1)
    np.testing.assert_allclose(means, MEANS, atol=1.0)


def test_dials_and_hands_of_tests_are_never_learnt() -> None:
    seen, unseen = ([scene(i, unseen=which) for i in range(600)] for which in (False, True))
    assert {each.dial for each in seen} == set(TRAINED_DIALS) and {each.hands_shape for each in seen} == set(TRAINED_HANDS)
    assert {each.dial for each in unseen} == {6, 7} and {each.hands_shape for each in unseen} == {4, 5}
    assert {DIALS[i].font for i in TRAINED_DIALS}.isdisjoint(DIALS[i].font for i in (6, 7))
    assert all(each.shadow > 0 and each.blur > 0 and each.noise > 0 for each in unseen)
    assert {each.hour for each in seen} == set(range(12)) and len({each.minute for each in seen}) == 60
    assert np.histogram([each.turn for each in seen], 8, (0, 360))[0].min() > 40


def test_the_set_is_rendered_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("TRAIN", 6), ("HELD_BACK", 2), ("TEST", 3), ("UNSEEN", 2)):
        monkeypatch.setattr(clocks, name, count)
    told: list[str] = []
    first = clocks.dataset(cache=tmp_path, say=told.append)
    assert "rendering 11 clocks" in told[0] and [len(first.train), len(first.test), len(first.further["unseen"])] == [6, 3, 2]
    again = clocks.dataset(cache=tmp_path, say=pytest.fail)
    np.testing.assert_array_equal(first.test.x, again.test.x)
    np.testing.assert_array_equal(first.test.x, pictures(range(6, 9)).x)
    np.testing.assert_array_equal(first.further["unseen"].y, pictures(range(2), unseen=True).y)
    np.testing.assert_array_equal(first.train.x, np.concatenate((pictures(range(4), upright=True).x, pictures(range(4, 6)).x)))
    np.testing.assert_array_equal(first.train.y, pictures(range(6)).y)


def test_upright_pictures_show_the_same_clocks() -> None:
    standing = render(replace(scene(5), turn=0.0))
    np.testing.assert_array_equal(pictures([5], upright=True).x[0, :, :, 0], standing)
    assert (standing != render(scene(5))).any()


def test_shadow_blur_and_noise_change_a_picture_and_leave_its_time() -> None:
    clean = plain(4, 20)
    for change in ({"shadow": 0.4}, {"blur": 0.7}, {"noise": 9.0}):
        spoilt = replace(clean, **change)
        assert (render(spoilt) != render(clean)).mean() > 0.02 and spoilt.label == clean.label
