"""The meaning of every operation: its arithmetic, against TensorFlow where it is installed, and by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reference_runs import apply
from sample_programs import BITS, CONV, FLOAT32, GRAPHS, INT8, NO_PADDING, UINT8, Builder, inputs_of

from edge.kernels import reference
from edge.kernels.arithmetic import activate, dequantize, fma, inverse_scale, quantize
from edge.kernels.reference import evaluate, run_graph, run_program
from edge.lower import to_program
from edge.ops import NO_ACTIVATION, OPS, Activation, OpCall, OpError
from edge.tensors import TensorType


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


# -- arithmetic ----------------------------------------------------------------------------------------------------------------

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)


def _nearest(exact: Fraction, near: float) -> np.float32:
    """The float32 nearest to `exact`, ties to even, looked for around `near`."""
    middle = np.float32(near)
    candidates = [np.nextafter(middle, np.float32(-np.inf)), middle, np.nextafter(middle, np.float32(np.inf))]
    return min(candidates, key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(np.int32)) & 1))


@given(FLOATS, FLOATS, FLOATS)
def test_fma_rounds_once(x: float, y: float, total: float) -> None:
    exact = Fraction(x) * Fraction(y) + Fraction(total)
    assume(abs(exact) > Fraction(1, 2**100) or exact == 0)
    got = fma(np.array([x], np.float32), np.array([y], np.float32), np.array([total], np.float32))[0]
    assert got == _nearest(exact, float(exact))


def test_fma_where_rounding_twice_is_wrong() -> None:
    """1 + 2^-24 is a tie for float32; 2^-70 more decides it, and is lost in float64."""
    x, y = np.float32(1 + 2**-23), np.float32(2**-24 * (1 - 2**-23))  # product 2^-24 (1 - 2^-46)
    assert fma(np.array([x]), np.array([y]), np.array([1], np.float32))[0] == 1
    above = fma(np.array([x]), np.array([np.float32(2**-24)]), np.array([1], np.float32))[0]
    assert above == np.float32(1 + 2**-23)
    tiny = fma(np.array([np.float32(2**-35)]), np.array([np.float32(2**-35)]), np.array([1 + 2**-23], np.float32))[0]
    assert tiny == np.float32(1 + 2**-23)


def test_fma_keeps_infinities_and_what_is_not_a_number() -> None:
    with np.errstate(all="ignore"):
        got = fma(*(np.array(v, np.float32) for v in ([np.inf, np.nan, 3e38, 0], [1, 1, 10, np.inf], [1, 1, 1, 1])))
    np.testing.assert_array_equal(got, np.array([np.inf, np.nan, np.inf, np.nan], np.float32))


def test_quantize_rounds_half_to_even_and_clamps() -> None:
    kind = TensorType((1,), INT8, 0.5, 10)
    real = np.array([0.25, 0.75, -0.25, 1.25, 1e9, -1e9, np.inf, np.nan], np.float32)
    assert quantize(real, kind).tolist() == [10, 12, 10, 12, 127, -128, 127, -128]
    assert dequantize(np.array([10, 12, -128], np.int8), kind).tolist() == [0, 1, -69]


@given(st.floats(2.0**-60, 2.0**60, width=32))
def test_the_inverse_scale_is_the_float32_nearest_to_it(scale: float) -> None:
    assert inverse_scale(TensorType((1,), INT8, scale)) == _nearest(1 / Fraction(scale), 1 / scale)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Activation.NONE, [-2, -0.5, 0, 1, 7]),
        (Activation.RELU, [0, 0, 0, 1, 6]),
        (Activation.LEAKY_RELU, [-0.5, -0.125, 0, 1, 7]),
        (Activation.ELU, [0.25 * np.expm1(-2.0), 0.25 * np.expm1(-0.5), 0, 1, 7]),
        (Activation.SIGMOID, [0.11920292, 0.37754067, 0.5, 0.7310586, 0.9990889]),
        (Activation.TANH, [-0.9640276, -0.46211717, 0, 0.7615942, 0.9999983]),
    ],
)
def test_activations(kind: Activation, expected: list[float]) -> None:
    got = activate(np.array([-2, -0.5, 0, 1, 7], np.float32), {"activation": int(kind), "alpha": 0.25, "limit": 6.0})
    np.testing.assert_allclose(got, np.array(expected, np.float32), rtol=1e-6)
    assert got.dtype == np.float32


# -- against TensorFlow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_conv2d_and_depthwise_equal_tensorflow(tf: Any, padding: str, stride: int, dilation: int) -> None:
    b = Builder(stride)
    x = b.values(FLOAT32, (9, 10, 4))
    attrs = {**CONV, "stride_h": stride, "stride_w": stride, "dilation_h": dilation, "dilation_w": dilation}
    attrs |= _keras_padding(x.shape, (3, 2), stride, dilation) if padding == "SAME" else {}
    weights = b.values(FLOAT32, (6, 3, 2, 4))
    expected = tf.nn.conv2d(x[None], weights.transpose(1, 2, 3, 0), stride, padding, dilations=dilation)[0].numpy()
    np.testing.assert_allclose(apply("conv2d", x, constants={"filter": weights}, **attrs), expected, atol=1e-5)
    filters = b.values(FLOAT32, (3, 2, 4, 2))
    expected = tf.nn.depthwise_conv2d(x[None], filters, [1, stride, stride, 1], padding, dilations=[dilation] * 2)[0].numpy()
    got = apply("depthwise_conv2d", x, constants={"filter": filters.reshape(3, 2, 8)}, **{**attrs, "groups": 4})
    np.testing.assert_allclose(got, expected, atol=1e-5)


def _keras_padding(image: tuple[int, ...], taps: tuple[int, int], stride: int, dilation: int) -> dict[str, int]:
    """What Keras' `same` adds: the output has ceil(size / stride) places, the odd one of the padding comes last."""
    pads = {}
    for size, count, names in zip(image, taps, (("pad_top", "pad_bottom"), ("pad_left", "pad_right")), strict=False):
        total = max((-(-size // stride) - 1) * stride + (count - 1) * dilation + 1 - size, 0)
        pads |= {names[0]: total // 2, names[1]: total - total // 2}
    return pads


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pools_equal_tensorflow(tf: Any, padding: str, stride: int) -> None:
    x = Builder(stride).values(FLOAT32, (8, 9, 3))
    attrs = {"window_h": 3, "window_w": 2, "stride_h": stride, "stride_w": stride, **NO_PADDING}
    attrs |= _keras_padding(x.shape, (3, 2), stride, 1) if padding == "SAME" else {}
    expected = tf.nn.max_pool2d(x[None], (3, 2), stride, padding)[0].numpy()
    np.testing.assert_array_equal(apply("max_pool2d", x, **attrs), expected)
    expected = tf.nn.avg_pool2d(x[None], (3, 2), stride, padding)[0].numpy()
    np.testing.assert_allclose(apply("average_pool2d", x, **attrs), expected, atol=1e-6)


def test_activations_and_softmax_equal_tensorflow(tf: Any) -> None:
    x = Builder(0).values(FLOAT32, (5, 20)) * np.float32(4)
    functions: dict[Activation, Callable[[np.ndarray], Any]] = {
        Activation.RELU: tf.nn.relu6,
        Activation.LEAKY_RELU: lambda v: tf.nn.leaky_relu(v, 0.3),
        Activation.ELU: tf.nn.elu,
        Activation.SIGMOID: tf.nn.sigmoid,
        Activation.TANH: tf.nn.tanh,
    }
    for kind, function in functions.items():
        alpha = 0.3 if kind is Activation.LEAKY_RELU else 1.0
        got = apply("activation", x, activation=int(kind), alpha=alpha, limit=6.0)
        np.testing.assert_allclose(got, function(x).numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(apply("softmax", x), tf.nn.softmax(x).numpy(), rtol=1e-5, atol=1e-7)


# -- pools by hand -------------------------------------------------------------------------------------------------------------

POOL_3 = {"window_h": 1, "window_w": 3, "stride_h": 1, "stride_w": 2, "pad_top": 0, "pad_bottom": 0, "pad_left": 1, "pad_right": 1}


def test_max_pools_ignore_padding() -> None:
    x = np.array([[[-4], [-2], [-9]]], np.float32)
    assert apply("max_pool2d", x, **POOL_3).ravel().tolist() == [-2, -2]
    kind = TensorType((1, 3, 1), INT8)
    assert apply("max_pool2d", x.astype(np.int8), types=(kind,), output=kind, **POOL_3).ravel().tolist() == [-2, -2]


def test_a_packed_max_pool_takes_the_minimum_of_flipped_channels() -> None:
    x = np.array([[[1, 1], [0, 0], [1, 1]]], np.bool_)
    kind = TensorType((1, 3, 2), BITS)
    flip = np.array([False, True])
    got = apply("max_pool2d", x, types=(kind,), output=kind, constants={"flip": flip}, **POOL_3)
    assert got[0].tolist() == [[False, True], [False, True]]
    assert apply("max_pool2d", x, types=(kind,), output=kind, **POOL_3)[0].tolist() == [[False, False], [False, False]]


def test_an_average_pool_divides_by_the_pixels_inside_the_image() -> None:
    x = np.array([[[4], [2], [9]]], np.float32)
    assert apply("average_pool2d", x, **POOL_3).ravel().tolist() == [3, 5.5]
    kind = TensorType((1, 3, 1), INT8, 0.1, 77)
    got = apply("average_pool2d", np.array([[[4], [1], [-2]]], np.int8), types=(kind,), output=kind, **POOL_3)
    assert got.ravel().tolist() == [2, 0]  # 2.5 and -0.5, half to even


# -- the rest ------------------------------------------------------------------------------------------------------------------


def test_affine_of_bytes_takes_their_values() -> None:
    kind = TensorType((2, 2), UINT8, 0.5, 100)
    constants = {"mul": np.array([2, 4], np.float32), "add": np.array([1, 0], np.float32)}
    x = np.array([[102, 101], [98, 99]], np.uint8)
    got = apply("affine", x, types=(kind,), constants=constants, **{**NO_ACTIVATION, "activation": 1})
    assert got.tolist() == [[3, 2], [0, 0]]


def test_binarize_gives_plus_one_for_zero_and_for_what_is_not_a_number() -> None:
    x = np.array([0, -0.0, 1, -1, 1e-45, -1e-45, np.nan], np.float32)
    got = apply("binarize", x, output=TensorType((1,), BITS))
    assert got.tolist() == [False, False, False, True, False, True, False]
    shifted = {"mul": np.full(7, -1, np.float32), "add": np.full(7, -0.5, np.float32)}
    got = apply("binarize", x, constants=shifted, output=TensorType((1,), BITS))
    assert got.tolist() == [True, True, True, False, True, True, False]


def test_unpack_gives_signs() -> None:
    assert apply("unpack", np.array([True, False]), types=(TensorType((2,), BITS),)).tolist() == [-1, 1]


def test_quantize_and_dequantize_of_bytes() -> None:
    kind = TensorType((3,), UINT8, 0.5, 10)
    output = TensorType((1,), INT8, 0.25, -1)
    got = apply("quantize", np.array([10, 11, 255], np.uint8), types=(kind,), output=output)
    assert got.tolist() == [-1, 1, 127]
    assert apply("dequantize", np.array([10, 11, 0], np.uint8), types=(kind,)).tolist() == [0, 0.5, -5]


def test_adding_int8_adds_their_values() -> None:
    kinds = (TensorType((3,), INT8, 0.5, 1), TensorType((3,), INT8, 0.25, -1))
    x, y = np.array([3, 1, -128], np.int8), np.array([3, -1, -128], np.int8)  # 1, 0, -64.5 and 1, 0, -31.75
    got = apply("add", x, y, types=kinds, output=TensorType((1,), INT8, 0.5, 2), **NO_ACTIVATION)
    assert got.tolist() == [6, 2, -128]
    got = apply("add", x, y, types=kinds, output=TensorType((1,), INT8, 0.5, 2), **{**NO_ACTIVATION, "activation": 1, "limit": 1.5})
    assert got.tolist() == [5, 2, 2]


def test_moving_operations() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(apply("concat", x, x[..., :1]), np.concatenate([x, x[..., :1]], axis=2))
    np.testing.assert_array_equal(apply("reshape", x, rank=2, size_0=4, size_1=3, size_2=0), x.reshape(4, 3))
    padded = apply("pad2d", x, pad_top=1, pad_bottom=0, pad_left=0, pad_right=2, value=-1.5)
    np.testing.assert_array_equal(padded, np.pad(x, ((1, 0), (0, 2), (0, 0)), constant_values=-1.5))
    kind = TensorType((1, 1, 1), INT8, 0.5, 4)
    padded = apply("pad2d", np.zeros((1, 1, 1), np.int8), types=(kind,), output=kind, **{**NO_PADDING, "pad_left": 1}, value=1.0)
    assert padded.ravel().tolist() == [6, 0]


# -- the whole -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_a_program_computes_what_its_graph_does(name: str) -> None:
    graph = GRAPHS[name]()
    program = to_program(graph)
    inputs = inputs_of(program)
    by_name = run_graph(graph, dict(zip(graph.inputs, inputs, strict=True)))
    by_number = run_program(program, inputs)
    assert len(by_number) == len(by_name) == len(graph.inputs) + sum(len(node.outputs) for node in graph.nodes)
    for number, value in enumerate(by_name.values()):
        np.testing.assert_array_equal(by_number[number], value)


def test_every_operation_has_a_meaning() -> None:
    assert set(reference._MEANINGS) == set(OPS)


def test_inputs_that_do_not_fit_are_refused() -> None:
    call = OpCall((TensorType((3,)),))
    with pytest.raises(ValueError, match=r"expected \(3,\) of float32, got \(2,\) of float32"):
        evaluate("softmax", call, TensorType((3,)), [np.zeros(2, np.float32)], {})
    with pytest.raises(ValueError, match=r"got \(3,\) of float64"):
        evaluate("softmax", call, TensorType((3,)), [np.zeros(3)], {})
    with pytest.raises(ValueError, match="no meaning for the operation 'sofmax'; there are conv2d"):
        evaluate("sofmax", call, TensorType((3,)), [np.zeros(3, np.float32)], {})


def test_sums_that_may_overflow_are_no_operation() -> None:
    weights = np.zeros((1, 1, 1, 70_000), np.int8)
    with pytest.raises(OpError, match="may overflow"):
        apply("dense", np.zeros(70_000, np.int8), types=(TensorType((70_000,), INT8),), constants={"filter": weights}, **NO_ACTIVATION)


def test_the_reference_loads_no_compiler() -> None:
    code = "import sys, edge.kernels.reference; sys.exit(bool({'numba', 'llvmlite', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
