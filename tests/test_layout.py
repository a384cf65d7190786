"""The stored layout of constants: packing and unpacking are inverse, sizes are known beforehand, and bytes lie where the table says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.graph import constant_type
from edge.layout import BLOCK, constant_bytes, filter_layout, lanes, pack_constant, unpack_constant
from edge.op_check import infer
from edge.ops import NO_ACTIVATION, OPS, ConstantType, OpCall
from edge.tensors import NARROW, Encoding, TensorType

BITS, FLOAT32, INT8, UINT8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8
CHANNELS = st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 100])
NUMBERS = [(source, stored) for source in (UINT8, INT8, FLOAT32) for stored in (INT8, *NARROW)]
PAIRS = st.sampled_from([(BITS, BITS), *NUMBERS, (FLOAT32, FLOAT32), (FLOAT32, BITS)])


def _values(encoding: Encoding, shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if encoding is FLOAT32:
        return random.normal(size=shape).astype(np.float32)
    if encoding is BITS:
        return random.integers(0, 2, shape).astype(np.bool_)
    half = 1 << encoding.bits - 1
    return random.integers(-half, half, shape).astype(np.int8)


def _conv_call(source: Encoding, stored: Encoding, array: np.ndarray, groups: int, dilation: int) -> OpCall:
    _, taps_h, taps_w, depth = array.shape
    image = TensorType((taps_h * 3, taps_w * 3, depth * groups), source)
    attrs = {"stride_h": 1, "stride_w": 1, "pad_top": 0, "pad_bottom": 0, "pad_left": 0, "pad_right": 0, "dilation_h": 1}
    own = {"dilation_w": dilation, "groups": groups, "pad_ones": 0}
    call = OpCall((image,), {"filter": ConstantType(stored, array.shape)}, {**attrs, **own, **NO_ACTIVATION})
    infer(OPS["conv2d"], call)
    return call


@given(PAIRS, CHANNELS, CHANNELS, st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9))
def test_unpacking_a_conv2d_filter_is_the_inverse_of_packing(
    pair: tuple[Encoding, Encoding], outputs: int, depth: int, taps_h: int, taps_w: int, groups: int, dilation: int, seed: int
) -> None:
    source, stored = pair
    array = _values(stored, (outputs * groups, taps_h, taps_w, depth), seed)
    call = _conv_call(source, stored, array, groups, dilation)
    data = pack_constant("conv2d", "filter", call, array)
    assert len(data) == constant_bytes("conv2d", "filter", call)
    np.testing.assert_array_equal(unpack_constant("conv2d", "filter", call, data), array)


@given(PAIRS, CHANNELS, CHANNELS, st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_unpacking_a_dense_filter_is_the_inverse_of_packing(
    pair: tuple[Encoding, Encoding], outputs: int, depth: int, height: int, width: int, seed: int
) -> None:
    source, stored = pair
    array = _values(stored, (outputs, height, width, depth), seed)
    call = OpCall((TensorType((height, width, depth), source),), {"filter": ConstantType(stored, array.shape)}, NO_ACTIVATION)
    infer(OPS["dense"], call)
    data = pack_constant("dense", "filter", call, array)
    assert len(data) == constant_bytes("dense", "filter", call)
    np.testing.assert_array_equal(unpack_constant("dense", "filter", call, data), array)


@given(st.sampled_from([FLOAT32, INT8, BITS]), CHANNELS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_unpacking_a_depthwise_filter_is_the_inverse_of_packing(
    stored: Encoding, channels: int, multiplier: int, taps_h: int, taps_w: int, seed: int
) -> None:
    array = _values(stored, (taps_h, taps_w, channels * multiplier), seed)
    call = OpCall((TensorType((8, 8, channels)),), {"filter": constant_type(array)})
    data = pack_constant("depthwise_conv2d", "filter", call, array)
    assert len(data) == constant_bytes("depthwise_conv2d", "filter", call)
    np.testing.assert_array_equal(unpack_constant("depthwise_conv2d", "filter", call, data), array)


@given(st.sampled_from([np.float32, np.int32, np.bool_]), CHANNELS, st.integers(0, 9))
def test_unpacking_a_vector_is_the_inverse_of_packing(dtype: type[np.generic], channels: int, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 2, channels).astype(dtype)
    call = OpCall((), {"vector": constant_type(array)})
    data = pack_constant("any", "vector", call, array)
    assert len(data) == constant_bytes("any", "vector", call)
    np.testing.assert_array_equal(unpack_constant("any", "vector", call, data), array)


@given(st.integers(1, 1000))
def test_lanes_hold_all_channels_in_few_blocks(channels: int) -> None:
    widths = lanes(channels)
    assert channels <= sum(widths) < channels + 8
    assert all(width == BLOCK for width in widths[:-1]) and widths[-1] in (8, 16, 24, 32)


@pytest.mark.parametrize(("kind", "dtype", "values"), [(FLOAT32, np.float32, 4), (INT8, np.int8, 1), (BITS, np.bool_, 8)])
def test_a_single_output_is_stored_without_lanes_for_others(kind: Encoding, dtype: type[np.generic], values: int) -> None:
    """64 inputs to 1 output: 64 floats, 64 bytes, or 64 bits in one word."""
    array = np.ones((1, 1, 1, 64), dtype)
    call = _conv_call(kind, constant_type(array).encoding, array, 1, 1)
    assert constant_bytes("conv2d", "filter", call) == (8 if kind is BITS else 64 * values)


def test_a_filter_of_two_billion_outputs_is_sized_at_once() -> None:
    array = np.broadcast_to(np.float32(1), (1 << 31, 1, 1, 1))
    call = OpCall((TensorType((4, 4, 1)),), {"filter": constant_type(array)}, {"groups": 1, "dilation_w": 1})
    assert constant_bytes("conv2d", "filter", call) == 4 << 31


def test_the_words_of_a_packed_row_follow_the_image() -> None:
    """Three taps of 16 channels are 48 neighbouring bits; lane 1 of position 0 of the second row starts 32 words in, and 1 more."""
    array = np.zeros((40, 2, 3, 16), np.bool_)
    array[1, 1, 2, 5] = True
    call = _conv_call(BITS, BITS, array, 1, 1)
    words = np.frombuffer(pack_constant("conv2d", "filter", call, array), "<u8")
    assert filter_layout("conv2d", call).positions == 1
    assert np.flatnonzero(words).tolist() == [32 + 1] and words[33] == 1 << (2 * 16 + 5)
    assert len(words) == 2 * 32 + 2 * 8  # 40 channels: a block of 32 and one of 8


def test_four_neighbouring_int8_share_a_lane() -> None:
    array = np.arange(24, dtype=np.int8).reshape(2, 1, 3, 4)
    data = np.frombuffer(pack_constant("conv2d", "filter", _conv_call(INT8, INT8, array, 1, 1), array), np.int8)
    lanes_of = data.reshape(3, 2, 4)  # position, lane, value
    np.testing.assert_array_equal(lanes_of[:, 0], array[0, 0])
    np.testing.assert_array_equal(lanes_of[:, 1], array[1, 0])


@pytest.mark.parametrize(("groups", "dilation", "segments"), [(1, 1, 2), (1, 2, 6), (2, 1, 6)])
def test_a_segment_is_a_row_where_taps_are_neighbours(groups: int, dilation: int, segments: int) -> None:
    array = np.zeros((8, 2, 3, 4), np.float32)
    assert filter_layout("conv2d", _conv_call(FLOAT32, FLOAT32, array, groups, dilation)).segments == segments
