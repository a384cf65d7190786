"""The meaning of convolutions and dense layers: against loops over the definition, and their epilogues by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reference_runs import apply
from sample_programs import BITS, CONV, FLOAT32, INT8, UINT8, Builder

from edge.ops import NO_ACTIVATION
from edge.tensors import Encoding, TensorType


def _loops(image: np.ndarray, weights: np.ndarray, attrs: Mapping[str, float], outside: int) -> np.ndarray:
    """Exact sums of products; image (H, W, C) and weights (O, kh, kw, depth) of integers or floats."""
    height, width = image.shape[:2]
    outputs, taps_h, taps_w, depth = weights.shape
    i = {name: int(value) for name, value in attrs.items() if name not in ("alpha", "limit")}
    rows = (height + i["pad_top"] + i["pad_bottom"] - (taps_h - 1) * i["dilation_h"] - 1) // i["stride_h"] + 1
    columns = (width + i["pad_left"] + i["pad_right"] - (taps_w - 1) * i["dilation_w"] - 1) // i["stride_w"] + 1
    result = np.zeros((rows, columns, outputs))
    for row, column, o, kh, kw in itertools.product(range(rows), range(columns), range(outputs), range(taps_h), range(taps_w)):
        y = row * i["stride_h"] - i["pad_top"] + kh * i["dilation_h"]
        x = column * i["stride_w"] - i["pad_left"] + kw * i["dilation_w"]
        first = o // (outputs // i["groups"]) * depth
        inside = 0 <= y < height and 0 <= x < width
        values = image[y, x, first : first + depth].astype(np.float64) if inside else np.full(depth, outside, np.float64)
        result[row, column, o] += values @ weights[o, kh, kw].astype(np.float64)
    return result


@st.composite
def _windows(draw: st.DrawFn) -> dict[str, Any]:
    """Image, filter and attributes of a small convolution that fits."""
    groups, taps = draw(st.integers(1, 3)), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    depth, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sides = {f"pad_{side}": draw(st.integers(0, 2)) for side in ("top", "bottom", "left", "right")}
    steps = {name: draw(st.integers(1, 3)) for name in ("stride_h", "stride_w", "dilation_h", "dilation_w")}
    image = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), groups * depth)
    assume((taps[0] - 1) * steps["dilation_h"] < image[0] + sides["pad_top"] + sides["pad_bottom"])
    assume((taps[1] - 1) * steps["dilation_w"] < image[1] + sides["pad_left"] + sides["pad_right"])
    attrs = {**CONV, **sides, **steps, "groups": groups}
    return {"image": image, "filter": (outputs * groups, *taps, depth), "attrs": attrs, "seed": draw(st.integers(0, 99))}


@given(_windows())
def test_integer_convolutions_are_exact(case: dict[str, Any]) -> None:
    b = Builder(case["seed"])
    image, weights = b.values(UINT8, case["image"]), b.values(INT8, case["filter"])
    ones = np.ones(len(weights), np.float32)
    kind = TensorType(image.shape, UINT8, 1.0, 17)
    got = apply("conv2d", image, types=(kind,), constants={"filter": weights, "scale": ones}, **case["attrs"])
    np.testing.assert_array_equal(got, _loops(image.astype(np.int64) - 17, weights, case["attrs"], 0))


@given(_windows(), st.booleans())
def test_packed_convolutions_are_exact_and_pad_with_zero_or_one(case: dict[str, Any], ones: bool) -> None:
    b = Builder(case["seed"])
    image, weights = b.values(BITS, case["image"]), b.values(BITS, case["filter"])
    scale = np.ones(len(weights), np.float32)
    attrs = {**case["attrs"], "pad_ones": int(ones)}
    got = apply("conv2d", image, types=(TensorType(image.shape, BITS),), constants={"filter": weights, "scale": scale}, **attrs)
    signs = [np.where(bits, -1, 1) for bits in (image, weights)]
    np.testing.assert_array_equal(got, _loops(signs[0], signs[1], attrs, int(ones)))


@given(_windows(), st.sampled_from([FLOAT32, INT8, BITS]))
def test_float_convolutions_are_close_to_exact_sums(case: dict[str, Any], stored: Encoding) -> None:
    b = Builder(case["seed"])
    image, weights = b.values(FLOAT32, case["image"]), b.values(stored, case["filter"])
    constants = {"filter": weights} | ({} if stored is FLOAT32 else {"scale": np.ones(len(weights), np.float32)})
    got = apply("conv2d", image, constants=constants, **case["attrs"])
    numbers = np.where(weights, -1, 1) if stored is BITS else weights
    expected = _loops(image, numbers, case["attrs"], 0)
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, np.abs(numbers).max()))


@pytest.mark.parametrize("position", range(8))
def test_float_sums_run_over_rows_columns_and_channels_in_this_order(position: int) -> None:
    """Ones added to 2^24 are lost or doubled by rounding, so that the sum tells how many came before it."""
    weights = np.ones((1, 2, 2, 2), np.float32)
    weights.reshape(-1)[position] = 2**24
    total = np.float32(0)
    for weight in weights.reshape(-1):
        total = total + weight
    x = np.ones((2, 2, 2), np.float32)
    assert apply("conv2d", x, constants={"filter": weights}, **CONV).item() == total
    assert apply("dense", x, constants={"filter": weights}, **NO_ACTIVATION).item() == total


@given(_windows(), st.sampled_from([FLOAT32, INT8, BITS]), st.integers(1, 3))
def test_depthwise_is_a_convolution_with_a_group_for_each_channel(case: dict[str, Any], stored: Encoding, multiplier: int) -> None:
    b = Builder(case["seed"])
    image = b.values(FLOAT32, case["image"])
    channels, taps = image.shape[2], case["filter"][1:3]
    weights = b.values(stored, (*taps, channels * multiplier))
    constants = {"bias": b.vector(channels * multiplier)} | ({} if stored is FLOAT32 else {"scale": b.vector(channels * multiplier)})
    attrs = {**case["attrs"], "groups": channels}
    got = apply("depthwise_conv2d", image, constants={"filter": weights, **constants}, **attrs)
    grouped = np.ascontiguousarray(weights.transpose(2, 0, 1)[..., None])
    np.testing.assert_array_equal(got, apply("conv2d", image, constants={"filter": grouped, **constants}, **attrs))


def test_the_epilogue_scales_shifts_activates_and_quantizes() -> None:
    x, weights = np.array([3, -5], np.int8), np.array([[[[2, 1]]], [[[-128, 1]]]], np.int8)
    kinds = (TensorType((2,), INT8, 0.1, 1),)  # values 2 and -6
    constants = {"filter": weights, "scale": np.array([0.5, 2], np.float32), "bias": np.array([1.25, -1], np.float32)}
    assert apply("dense", x, types=kinds, constants=constants, **NO_ACTIVATION).tolist() == [0.25, -525]
    limited = {"activation": 1, "alpha": 0.0, "limit": 0.125}
    assert apply("dense", x, types=kinds, constants=constants, **limited).tolist() == [0.125, 0]
    output = TensorType((1,), INT8, 0.1, -3)
    assert apply("dense", x, types=kinds, constants=constants, output=output, **NO_ACTIVATION).tolist() == [-1, -128]


def test_a_packed_output_is_plus_one_from_its_threshold_on() -> None:
    x, weights = np.array([False, False, True]), np.zeros((4, 1, 1, 3), np.bool_)  # accumulator 1
    constants = {"filter": weights, "threshold": np.array([0, 1, 2, 3], np.int32)}
    got = apply("dense", x, types=(TensorType((3,), BITS),), constants=constants, output=TensorType((1,), BITS), **NO_ACTIVATION)
    assert got.tolist() == [False, False, True, True]
