"""The scaling of XNOR-Net: the map K, products with it, and both around a binary convolution, against the paper's formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from draws import Case
from hypothesis import given
from hypothesis import strategies as st
from kernel_runs import Run
from sample_programs import BITS, CONV, FLOAT32, INT8, NO_PADDING, POOL, Builder, bits_type, float_type

from edge.engine import Engine
from edge.errors import FormatError
from edge.kernels.arithmetic import magnitudes
from edge.kernels.isa import available, detect
from edge.kernels.reference import evaluate
from edge.lower import to_program
from edge.op_check import check, infer
from edge.ops import OPS, OpCall, OpError
from edge.tensors import NO_HALO, Encoding, TensorType
from edge.verifier import verify

MACHINES = {isa.name: detect(isa.name) for isa in available()}
WINDOW = {"window_h": 3, "window_w": 3, "stride_h": 1, "stride_w": 1, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1}


def same(size: int, stride: int) -> tuple[int, int]:
    """Keras' padding of a window of 3 along an axis."""
    total = max(0, (-(-size // stride) - 1) * stride + 3 - size)
    return total // 2, total - total // 2


def geometry(height: int, width: int, stride: int) -> dict[str, int]:
    (top, bottom), (left, right) = same(height, stride), same(width, stride)
    return {"stride_h": stride, "stride_w": stride, "pad_top": top, "pad_bottom": bottom, "pad_left": left, "pad_right": right}


def windows(image: np.ndarray, geometry: dict[str, int]) -> np.ndarray:
    """(rows, columns, 3, 3, C): what windows of 3x3 see, zeros outside, in float64."""
    pads = ((geometry["pad_top"], geometry["pad_bottom"]), (geometry["pad_left"], geometry["pad_right"]), (0, 0))
    seen = np.lib.stride_tricks.sliding_window_view(np.pad(image.astype(np.float64), pads), (3, 3), axis=(0, 1))
    return np.moveaxis(seen, 2, -1)[:: geometry["stride_h"], :: geometry["stride_w"]]


def xnor_net(x: np.ndarray, weights: np.ndarray, geometry: dict[str, int]) -> np.ndarray:
    """conv(sign x, sign w) * alpha * K; weights (O, 3, 3, C)."""
    signs, alpha = np.where(x >= 0, 1.0, -1.0), np.abs(weights).mean(axis=(1, 2, 3))
    k = windows(np.abs(x), geometry).mean(axis=(2, 3, 4))
    return np.einsum("rchwi,ohwi->rco", windows(signs, geometry), np.where(weights >= 0, 1.0, -1.0)) * alpha * k[..., np.newaxis]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(8, 8, 64), (7, 9, 24), (12, 33, 3)])
def test_a_binary_layer_with_its_map_is_xnor_net(shape: tuple[int, int, int], stride: int) -> None:
    b = Builder(3)
    window = geometry(*shape[:2], stride)
    weights = b.random.normal(size=(16, 3, 3, shape[2])).astype(np.float32)
    x = b.input(TensorType(shape))
    constants = {"filter": weights < 0, "scale": np.abs(weights).mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)}
    y = b.add("conv2d", b.add("binarize", x, output=bits_type()), output=float_type(), constants=constants, **{**CONV, **window})
    k = b.add("magnitude_map", x, window_h=3, window_w=3, **window)
    program = to_program(b.graph("xnor", b.add("multiply", y, k)))
    verify(program)
    image = b.values(FLOAT32, shape)
    want = xnor_net(image, weights, window)
    for threads in (1, 2):
        got = Engine(program, threads=threads).run(image)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_gating_by_channels_and_by_a_tensor_of_the_same_shape() -> None:
    b = Builder(4)
    x = b.input(TensorType((5, 6, 20)))
    pooled = b.add("average_pool2d", x, **{**POOL, "window_h": 5, "window_w": 6, "stride_h": 1, "stride_w": 1})
    gated = b.add("multiply", x, pooled)
    program = to_program(b.graph("gate", b.add("multiply", gated, x)))
    verify(program)
    image = b.values(FLOAT32, (5, 6, 20))
    want = image.astype(np.float64) ** 2 * image.mean(axis=(0, 1), dtype=np.float64)
    np.testing.assert_allclose(Engine(program).run(image), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_square_is_not_written_over_its_factor() -> None:
    b = Builder(5)
    x = b.input(TensorType((3, 20)))
    y = b.add("prelu", x, constants={"slope": b.vector(20)})
    program = to_program(b.graph("square", b.add("multiply", y, y)))
    verify(program)
    image = b.values(FLOAT32, (3, 20))
    value = np.where(image < 0, image * program.array(program.instructions[0], "slope"), image)
    np.testing.assert_array_equal(Engine(program).run(image), value * value)


# -- the meaning ---------------------------------------------------------------------------------------------------------------


def test_the_map_averages_the_zeros_outside_in() -> None:
    x = np.array([[[1, -2], [3, 0]], [[-4, 5], [np.nan, 1]]], np.float32)
    call = OpCall((TensorType(x.shape),), {}, WINDOW)
    got = evaluate("magnitude_map", call, TensorType((2, 2, 1)), [np.nan_to_num(x)], {})
    np.testing.assert_array_equal(got, np.full((2, 2, 1), np.float32(16) * np.float32(1 / 18)))
    assert np.isnan(evaluate("magnitude_map", call, TensorType((2, 2, 1)), [x], {})).all()


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_magnitudes_are_sums_of_absolute_values(channels: int, seed: int) -> None:
    """Of whole numbers, so that no sum is rounded."""
    x = np.random.default_rng(seed).integers(-1000, 1000, (2, 3, channels)).astype(np.float32)
    np.testing.assert_array_equal(magnitudes(x), np.abs(x).sum(axis=2, keepdims=True))


@pytest.mark.parametrize("isa", MACHINES)
def test_infinite_and_missing_values_spread_over_their_windows_alone(isa: str) -> None:
    """A running sum with subtraction would carry them along the row."""
    x = np.ones((6, 40, 17), np.float32)
    x[2, 5, 16], x[3, 30, 0], x[5, 20, 3] = np.inf, np.nan, 3e38
    x[5, 20, 4] = 3e38
    b = Builder(0)
    graph = b.graph("map", b.add("magnitude_map", b.input(TensorType(x.shape)), **WINDOW))
    got = Run(Case(graph, (x,), dict.fromkeys(graph.types, NO_HALO)), MACHINES[isa]).run().values[..., 0]
    infinite, missing = np.zeros((6, 40), bool), np.zeros((6, 40), bool)
    infinite[1:4, 4:7] = infinite[4:6, 19:22] = missing[2:5, 29:32] = True
    np.testing.assert_array_equal(np.isinf(got), infinite)
    np.testing.assert_array_equal(np.isnan(got), missing)
    inside = got[1:5, 1:39]
    whole = ~(infinite | missing)[1:5, 1:39]
    np.testing.assert_allclose(inside[whole], 1, rtol=1e-6)


# -- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (TensorType((4, 5, 3)), r"the second input is \(4, 5, 3\), each axis must be 1 or that of \(4, 5, 6\)"),
        (TensorType((5, 1, 6)), "each axis must be 1"),
        (TensorType((1, 2, 1)), "each axis must be 1"),
        (TensorType((6,), BITS), "the second input must be float32, got bits"),
        (TensorType((6,), INT8), "the second input must be float32, got int8"),
    ],
)
def test_factors_that_do_not_fit_are_refused(second: TensorType, message: str) -> None:
    with pytest.raises(OpError, match=message):
        infer(OPS["multiply"], OpCall((TensorType((4, 5, 6)), second)))


def test_a_factor_larger_than_the_first_input_is_refused() -> None:
    with pytest.raises(OpError, match="each axis must be 1"):
        infer(OPS["multiply"], OpCall((TensorType((1, 1, 6)), TensorType((4, 5, 6)))))


@pytest.mark.parametrize("op", ["multiply", "magnitude_map"])
@pytest.mark.parametrize("encoding", [BITS, INT8])
def test_other_encodings_are_refused(op: str, encoding: Encoding) -> None:
    kind = TensorType((4, 5, 6), encoding)
    call = OpCall((kind, TensorType((6,))), {}, {}) if op == "multiply" else OpCall((kind,), {}, WINDOW)
    with pytest.raises(OpError, match=f"{op} does not exist for"):
        check(OPS[op], call, TensorType(infer(OPS[op], call)))


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"pad_top": 3}, "padding must be narrower than the window"),
        ({"window_h": 0}, "a window is at least 1 x 1"),
        ({"stride_w": 0}, "stride along width"),
        ({"window_w": 9}, "does not fit the padded width"),
    ],
)
def test_windows_that_do_not_fit_are_refused(attrs: dict[str, int], message: str) -> None:
    with pytest.raises(OpError, match=message):
        infer(OPS["magnitude_map"], OpCall((TensorType((4, 5, 6)),), {}, {**WINDOW, **attrs}))


def test_the_map_has_one_channel() -> None:
    call = OpCall((TensorType((4, 5, 6)),), {}, WINDOW)
    with pytest.raises(OpError, match=r"output is \(4, 5, 6\), expected \(4, 5, 1\)"):
        check(OPS["magnitude_map"], call, TensorType((4, 5, 6)))


def test_the_work_on_rows_that_few_windows_read_is_bounded() -> None:
    """One output column: the rows of the window are added all the same."""
    b = Builder(0)
    x = b.input(TensorType((1000, 1 << 18, 1)))
    attrs = {**WINDOW, **NO_PADDING, "window_h": 800, "window_w": 1, "stride_w": 1 << 19, "pad_top": 799, "pad_bottom": 799}
    made = to_program(b.graph("slow", b.add("magnitude_map", x, **attrs)))
    assert made.tensors[1].type.hwc[1] == 1
    with pytest.raises(FormatError, match="the work up to here"):
        verify(made)
