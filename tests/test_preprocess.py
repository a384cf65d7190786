"""From a picture to what a net sees: equal to Keras and TensorFlow; settings survive JSON and refuse nonsense."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge.errors import EdgeError, FormatError, InputError
from edge.preprocess import PRESETS, Preprocess, combine, default_for, picture_of, preset
from edge.resize import RESIZES, Window, blend, neighbours, window_of

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
SEEDS = st.integers(0, 2**32 - 1)
LEVELS = st.floats(-300, 300, width=32)


@st.composite
def preprocesses(draw: st.DrawFn) -> Preprocess:
    low = draw(st.floats(-10, 10))
    per_channel = st.sampled_from([0, 1, 3])
    means, stds = draw(per_channel), draw(per_channel)
    return Preprocess(
        range=(low, low + draw(st.floats(0.01, 300))),
        mean=tuple(draw(st.lists(LEVELS, min_size=means, max_size=means))),
        std=tuple(draw(st.lists(st.floats(0.01, 100), min_size=stds, max_size=stds))),
        channel_order=draw(st.sampled_from(["rgb", "bgr"])),
        gray=draw(st.sampled_from([None, True, False])),
        invert=draw(st.booleans()),
        resize=draw(st.sampled_from(RESIZES)),
        pad_value=draw(st.integers(0, 255)),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def random_picture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def tf() -> Any:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    return pytest.importorskip("tensorflow", reason="the resize is compared with TensorFlow's")


@pytest.fixture(scope="module")
def keras(tf: Any) -> Any:
    return pytest.importorskip("keras", reason="the presets are compared with Keras'")


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    near = neighbours(picture, Window(0, 0, *picture.shape[:2]), size)
    return blend(near.values, near.weight_y, near.weight_x)


SIZES = [((1, 1), (7, 5)), ((5, 7), (1, 1)), ((2, 3), (64, 48)), ((31, 33), (32, 32)), ((1080, 1919), (96, 97))]
SIZES += [((28, 28), (32, 32)), ((3, 3), (3, 3)), ((1, 900), (17, 2)), ((1, 70001), (3, 129))]


@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_bilinear_resizing_gives_the_values_of_tensorflow(tf: Any, source: Any, size: Any, channels: int) -> None:
    picture = random_picture((*source, channels), seed=sum(source))
    expected = tf.image.resize(picture, size, method="bilinear", antialias=False).numpy()
    np.testing.assert_allclose(resized(picture, size), expected, rtol=0, atol=1e-4)


def test_bilinear_resizing_of_random_sizes_gives_the_values_of_tensorflow(tf: Any) -> None:
    random = np.random.default_rng(20)
    for seed in range(60):
        height, width, to_height, to_width = (int(side) for side in random.integers(1, 120, 4))
        picture = random_picture((height, width, 3), seed)
        expected = tf.image.resize(picture, (to_height, to_width)).numpy()
        np.testing.assert_allclose(resized(picture, (to_height, to_width)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), [("crop", "crop_to_aspect_ratio"), ("letterbox", "pad_to_aspect_ratio")])
@pytest.mark.parametrize("source", [(40, 60), (61, 40), (33, 33), (2, 90), (90, 3)])
@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_crop_and_letterbox_see_what_keras_sees(keras: Any, ours: str, theirs: str, source: Any, size: Any) -> None:
    picture = random_picture((*source, 3), seed=7)
    options = {theirs: True, **({"fill_value": 9.0} if ours == "letterbox" else {})}
    image = picture.astype(np.float32)
    expected = np.asarray(keras.ops.image.resize(image, size, data_format="channels_last", **options))
    seen = Preprocess(range=(0, 255), mean=(1.0,), resize=ours, pad_value=9).apply(picture, (*size, 3)) + 1
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "mode"), [("mobilenet", "tf"), ("caffe", "caffe"), ("torch", "torch")])
def test_presets_give_the_bits_of_keras_preprocessing(keras: Any, name: str, mode: str) -> None:
    utils = pytest.importorskip("keras.src.applications.imagenet_utils", reason="a private module of Keras")
    picture = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=2)
    picture[:, :, 1] += 85
    picture[:, :, 2] += 170
    expected = utils.preprocess_input(picture.astype(np.float32), data_format="channels_last", mode=mode)
    np.testing.assert_array_equal(preset(name).apply(picture, picture.shape), expected)


def test_unit_is_division_by_255_and_the_grid_of_256ths_is_exact() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(preset("unit").apply(picture, picture.shape), picture / np.float32(255))
    grid = Preprocess(range=(0, 255 / 256)).apply(picture, picture.shape)
    np.testing.assert_array_equal(grid * 256, picture)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_maps_black_and_white_where_it_should(name: str) -> None:
    white = preset(name).apply(np.full((1, 1, 3), 255, np.uint8), (1, 1, 3))[0, 0]
    black = preset(name).apply(np.zeros((1, 1, 3), np.uint8), (1, 1, 3))[0, 0]
    expected = {
        "unit": ([0] * 3, [1] * 3),
        "byte": ([0] * 3, [255] * 3),
        "mobilenet": ([-1] * 3, [1] * 3),
        "caffe": ([-103.939, -116.779, -123.68], [151.061, 138.221, 131.32]),
        "torch": ([-2.117904, -2.0357141, -1.8044444], [2.2489083, 2.4285715, 2.64]),
    }
    np.testing.assert_allclose([black, white], expected[name], rtol=1e-6)


@settings(max_examples=80, deadline=None)
@given(SHAPES, SHAPES, st.sampled_from(RESIZES), st.booleans(), SEEDS)
def test_bytes_are_whole_and_the_same_in_both_dtypes(shape: Any, to: Any, resize: str, invert: bool, seed: int) -> None:
    preprocess = Preprocess(range=(0, 255), resize=resize, invert=invert, channel_order="bgr")
    picture = random_picture(shape, seed)
    as_float, as_uint8 = preprocess.apply(picture, to), preprocess.apply(picture, to, dtype=np.uint8)
    assert as_uint8.dtype == np.uint8 and as_float.dtype == np.float32 and as_uint8.flags.c_contiguous
    np.testing.assert_array_equal(as_float, as_uint8)


def test_a_byte_halfway_is_rounded_to_even() -> None:
    picture = np.array([[0, 1, 2, 3]], np.uint8)[:, :, None]
    np.testing.assert_array_equal(preset("byte").apply(picture, (1, 2, 1))[0, :, 0], [0, 2])


@settings(max_examples=80, deadline=None)
@given(preprocesses(), SHAPES, SHAPES, SEEDS)
def test_what_a_net_sees_has_its_shape_and_lies_in_range(
    preprocess: Preprocess, shape: Any, to: Any, seed: int
) -> None:
    channels = to[2] if len(preprocess.mean) != 3 and len(preprocess.std) != 3 and preprocess.gray is not False else 3
    seen = preprocess.apply(random_picture(shape, seed), (*to[:2], channels))
    assert seen.shape == (*to[:2], channels) and seen.dtype == np.float32 and seen.flags.c_contiguous
    restored = seen * np.array(preprocess.std or 1.0) + np.array(preprocess.mean or 0.0)
    low, high = preprocess.range
    # float32 rounds at the size of the largest value on the way.
    slack = 1e-6 * max(abs(low), abs(high), *map(abs, preprocess.mean), 1.0) * 4
    assert restored.min() >= low - slack and restored.max() <= high + slack


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(PRESETS), SHAPES, SEEDS, st.booleans())
def test_the_picture_of_what_a_net_sees_is_the_picture_itself(name: str, shape: Any, seed: int, invert: bool) -> None:
    picture = random_picture((*shape[:2], 3), seed)
    preprocess = combine(preset(name), {"invert": invert})
    seen = picture_of(preprocess.apply(picture, picture.shape), preprocess)
    np.testing.assert_array_equal(seen, 255 - picture if invert else picture)


def test_the_picture_of_an_array_clips_and_refuses_what_is_none() -> None:
    shown = picture_of(np.array([[[-3.0], [0.5], [7.0]]], np.float32), preset("unit"))
    np.testing.assert_array_equal(shown[0, :, 0], [0, 128, 255])
    for array in (np.zeros((2, 2)), np.zeros((2, 2, 4)), np.full((1, 1, 1), np.nan)):
        with pytest.raises(InputError, match="cannot be shown"):
            picture_of(array, preset("unit"))


def test_grey_is_pillows_grey() -> None:
    picture = random_picture((64, 64, 3), seed=3)
    expected = np.asarray(Image.fromarray(picture).convert("L"))
    np.testing.assert_array_equal(preset("byte").apply(picture, (64, 64, 1), dtype=np.uint8)[:, :, 0], expected)
    in_three = Preprocess(range=(0, 255), gray=True).apply(picture, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(in_three, np.repeat(expected[:, :, None], 3, axis=2))


def test_a_grey_picture_fills_every_channel_of_a_colour_net() -> None:
    picture = random_picture((4, 4, 1), seed=4)
    seen = preset("byte").apply(picture, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(seen, np.repeat(picture, 3, axis=2))


def test_bands_have_the_pad_value_also_where_the_picture_is_inverted() -> None:
    picture = np.full((2, 4, 3), 255, np.uint8)
    seen = Preprocess(range=(0, 255), resize="letterbox", pad_value=7, invert=True).apply(picture, (4, 4, 1))
    np.testing.assert_array_equal(seen[:, 0, 0], [7, 0, 0, 7])


def test_an_extreme_letterbox_costs_no_memory() -> None:
    picture = np.zeros((1, 1_000_000, 1), np.uint8)
    assert window_of("letterbox", (1, 1_000_000), (8, 8)).height == 999_999
    seen = Preprocess(resize="letterbox", pad_value=255).apply(picture, (8, 8, 1))
    assert seen[0].min() == 1.0


def test_a_window_cropped_from_the_middle_reads_nothing_outside_it() -> None:
    picture = np.zeros((4, 12, 1), np.uint8)
    picture[:, 4:8] = 100
    assert window_of("crop", (4, 12), (9, 9)) == Window(0, 4, 4, 4)
    np.testing.assert_array_equal(Preprocess(range=(0, 255), resize="crop").apply(picture, (9, 9, 1)), 100)


def test_the_callers_picture_is_neither_changed_nor_handed_back() -> None:
    picture = random_picture((4, 4, 3), seed=5)
    copy = picture.copy()
    for dtype in (np.uint8, np.float32):
        preset("byte").apply(picture, (4, 4, 3), dtype=dtype)[:] = 0
    np.testing.assert_array_equal(picture, copy)


@settings(max_examples=100, deadline=None)
@given(preprocesses())
def test_json_gives_back_the_same_settings(preprocess: Preprocess) -> None:
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess


FIELDS = st.sampled_from(list(Preprocess().to_json()))


@settings(max_examples=150, deadline=None)
@given(JSON | st.dictionaries(FIELDS, JSON, max_size=3))
def test_hostile_json_is_refused_or_gives_valid_settings(data: Any) -> None:
    try:
        preprocess = Preprocess.from_json(data)
    except EdgeError as err:
        assert isinstance(err, FormatError) and len(str(err)) < 600
        return
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    shape = (2, 2, 3)
    assert np.isfinite(preprocess.apply(random_picture((3, 3, 3), seed=0), shape)).all()


HOSTILE = [
    ("range", [1, 0]), ("range", [0, 0]), ("range", [0]), ("range", [0, float("inf")]), ("range", [0, 10**400]),
    ("range", [False, True]), ("range", "01"), ("mean", [float("nan")]), ("mean", [1, 2]), ("mean", [[1]]),
    ("std", [0]), ("std", [-1]), ("std", [1e-300]), ("mean", [1e38]), ("channel_order", "grb"), ("channel_order", []),
    ("gray", 1), ("invert", None), ("resize", "nearest"), ("resize", {}), ("pad_value", 256), ("pad_value", -1),
    ("pad_value", 1.5), ("pad_value", True), ("antialias", True), ("preset", "unit"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_each_field_refuses_what_does_not_fit_and_names_itself(field: str, value: object) -> None:
    with pytest.raises(FormatError, match=field):
        Preprocess.from_json({field: value})


def test_whole_numbers_and_numpy_numbers_are_the_same_settings() -> None:
    assert Preprocess(range=[0, 1]) == Preprocess(range=(0.0, np.float32(1.0)))  # type: ignore[arg-type]
    assert hash(Preprocess(mean=[1])) == hash(Preprocess(mean=(1.0,)))  # type: ignore[arg-type]


def test_options_given_at_run_replace_stored_ones() -> None:
    stored = Preprocess(range=(0, 2), invert=True, resize="crop", gray=True)
    assert combine(stored, {}) == stored
    assert combine(stored, {"resize": "letterbox", "range": None, "gray": False}).to_json() == {
        **stored.to_json(), "resize": "letterbox", "gray": False,
    }  # fmt: skip
    chosen = combine(stored, {"preset": "caffe", "mean": [1.0]})
    assert (chosen.range, chosen.mean, chosen.channel_order) == ((0.0, 255.0), (1.0,), "bgr")
    assert (chosen.invert, chosen.resize, chosen.gray) == (True, "crop", True)
    assert combine(preset("torch"), {"preset": "unit"}) == preset("unit")


@pytest.mark.parametrize("overrides", [{"preset": "imagenet"}, {"preset": []}, {"sice": 3}, {"mean": "1"}])
def test_unfit_options_are_refused(overrides: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"expected .*"):
        combine(Preprocess(), overrides)


def test_the_default_follows_the_model() -> None:
    assert default_for(True).is_bytes and default_for(True) == preset("byte")
    assert default_for(False) == preset("unit") and not default_for(False).is_bytes


@pytest.mark.parametrize(("name", "expected"), [(name, name == "byte") for name in PRESETS])
def test_only_plain_bytes_are_bytes(name: str, expected: bool) -> None:
    assert preset(name).is_bytes is expected


def test_a_mean_of_nothing_leaves_bytes_bytes() -> None:
    plain = Preprocess(range=(0, 255), mean=(0, 0, 0), std=(1,))
    assert plain.is_bytes and not Preprocess(range=(0, 255), std=(2,)).is_bytes


UNFIT = [
    (preset("unit"), (4, 4), "height x width"), (preset("unit"), (4, 4, 2), "arrays"), (preset("unit"), (0, 4, 3), "0"),
    (preset("caffe"), (4, 4, 1), "3 values of mean"), (Preprocess(std=(1, 1, 1)), (4, 4, 1), "std"),
    (Preprocess(gray=False), (4, 4, 1), "1 channel"),
]  # fmt: skip


@pytest.mark.parametrize(("preprocess", "shape", "words"), UNFIT)
def test_settings_that_do_not_fit_a_net_are_refused(preprocess: Preprocess, shape: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        preprocess.apply(np.zeros((4, 4, 3), np.uint8), shape)


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_what_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected a picture"):
        preset("unit").apply(array, (4, 4, 3))


def test_uint8_is_refused_where_values_are_no_bytes() -> None:
    with pytest.raises(InputError, match="asked for uint8"):
        preset("unit").apply(np.zeros((4, 4, 3), np.uint8), (4, 4, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="asked for int8"):
        preset("byte").apply(np.zeros((4, 4, 3), np.uint8), (4, 4, 3), dtype=np.int8)


def test_the_description_says_what_the_net_sees() -> None:
    assert preset("unit").describe((32, 32, 3)) == ("pixels 0..255 scaled to 0..1, RGB, stretched to 32x32 (bilinear)")
    assert combine(preset("byte"), {"invert": True, "resize": "letterbox"}).describe((24, 48, 1)) == (
        "inverted pixels 0..255 as they are, grey, fitted into 24x48 with bands of 0 (height x width, bilinear)"
    )
    assert combine(preset("caffe"), {"std": [2.0], "resize": "crop"}).describe() == (
        "pixels 0..255 as they are, BGR, less (103.939, 116.779, 123.68), divided by 2, "
        "cropped to the middle and resized to the net's size (bilinear)"
    )
    assert ", grey in every channel, " in Preprocess(gray=True).describe((8, 8, 3))
