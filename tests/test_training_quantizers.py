"""Every quantizer of `edge.training`: its values and its gradient against their formulas in NumPy, and its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edge.errors import InputError

pytest.importorskip("keras", reason="training needs Keras")
tf = pytest.importorskip("tensorflow", reason="gradients are taken with TensorFlow")
training = pytest.importorskip("edge.training")

Array = np.ndarray
Formula = Callable[[Array], Array]


def signs(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def within(limit: float | None) -> Formula:
    return lambda x: np.ones_like(x) if limit is None else (np.abs(x) <= limit).astype(np.float64)


def ternary(threshold: float) -> Formula:
    return lambda x: np.where(np.abs(x) >= threshold, np.sign(x), 0.0)


def swish(beta: float) -> Formula:
    return lambda x: beta * (2 - beta * x * np.tanh(beta * x / 2)) / (1 + np.cosh(beta * x))


def k_bits(bits: int) -> Formula:
    steps = 2**bits - 1
    return lambda x: np.rint(np.clip(x, 0, 1).astype(np.float32) * np.float32(steps)) / steps


def k_bit_weights(bits: int) -> Formula:
    steps = 2**bits - 1
    return lambda w: 2 * np.rint((np.tanh(w) / (2 * np.abs(np.tanh(w)).max()) + 0.5) * steps) / steps - 1


def k_bit_weight_slope(w: Array) -> Array:
    return (1 - np.tanh(w) ** 2) / np.abs(np.tanh(w)).max()


@dataclass(frozen=True)
class Case:
    """A quantizer by name and config, and per value its formula and the factor of the upstream gradient."""

    name: str
    values: Formula
    slope: Formula
    config: Mapping[str, Any] = field(default_factory=dict)
    precision: int = 1

    def make(self) -> Any:
        return training.get_quantizer({"class_name": self.name, "config": dict(self.config)})


CASES = [
    Case("SteSign", signs, within(1.0)),
    Case("SteSign", signs, within(0.5), {"clip_value": 0.5}),
    Case("SteSign", signs, within(None), {"clip_value": None}),
    Case("ApproxSign", signs, lambda x: np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0)),
    Case("SwishSign", signs, swish(5.0)),
    Case("SwishSign", signs, swish(2.0), {"beta": 2.0}),
    Case("SteHeaviside", lambda x: (x > 0).astype(float), within(1.0)),
    Case("SteHeaviside", lambda x: (x > 0).astype(float), within(None), {"clip_value": None}),
    Case("SteTern", ternary(0.05), within(1.0), precision=2),
    Case("SteTern", ternary(0.5), within(0.75), {"threshold_value": 0.5, "clip_value": 0.75}, precision=2),
    *(Case("DoReFa", k_bits(k), lambda x: ((x >= 0) & (x <= 1)) * 1.0, {"k_bit": k}, precision=k) for k in (1, 2, 3, 4, 8)),
    Case("NoOp", lambda x: x, within(None), {"precision": 3}, precision=3),
]
WEIGHT_CASES = [
    Case("DoReFa", k_bit_weights(k), k_bit_weight_slope, {"k_bit": k, "mode": "weights"}, precision=k) for k in (2, 3, 4)
]

# No subnormals: TensorFlow's kernels may flush them to zero, whose sign is +1.
FLOATS = st.floats(-4, 4, width=32, allow_subnormal=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 0.05, 2e-38, -2e-38])
ARRAYS = arrays(np.float32, array_shapes(max_dims=4, max_side=6), elements=FLOATS)


def gradient(quantizer: Any, x: Array, upstream: Array) -> Array:
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = quantizer(variable)
    return np.asarray(tape.gradient(y, variable, output_gradients=tf.constant(upstream)))


def upstream_of(x: Array) -> Array:
    return np.linspace(-3, 3, x.size, dtype=np.float32).reshape(x.shape)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}{dict(case.config)}")
@settings(max_examples=25, deadline=None)
@given(ARRAYS)
def test_values_and_gradients_are_those_of_the_formula(case: Case, x: Array) -> None:
    np.testing.assert_allclose(np.asarray(case.make()(x)), case.values(x), rtol=1e-6, atol=0)
    found = gradient(case.make(), x, upstream_of(x))
    np.testing.assert_allclose(found, upstream_of(x) * case.slope(x.astype(np.float64)), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("case", WEIGHT_CASES, ids=lambda case: f"{case.name}{dict(case.config)}")
@pytest.mark.parametrize("seed", range(5))
def test_k_bit_weights_are_those_of_the_formula(case: Case, seed: int) -> None:
    w = np.random.default_rng(seed).normal(size=(3, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(case.make()(w)), case.values(w), atol=1e-6)
    found = gradient(case.make(), w, upstream_of(w))
    np.testing.assert_allclose(found, upstream_of(w) * case.slope(w.astype(np.float64)), rtol=1e-4, atol=1e-6)


def test_k_bit_weights_take_all_levels_and_the_largest_is_one() -> None:
    w = np.linspace(-2, 1.5, 1000, dtype=np.float32)[:, None]
    for bits in (2, 3, 4):
        steps = 2**bits - 1
        found = np.asarray(training.DoReFa(bits, "weights")(w)) * steps
        assert sorted({round(float(v)) for v in found.reshape(-1)}) == list(range(-steps, steps + 1, 2))
        largest = np.asarray(training.DoReFa(bits, "weights")(-w))
        assert largest.max() == 1


@pytest.mark.parametrize("zeros", [np.zeros((3, 4), np.float32), np.zeros((2, 2, 3, 1), np.float32)])
@pytest.mark.parametrize("name", ["xnor_weights", "dorefa_weights", "magnitude_aware_sign"])
def test_weights_that_are_all_zero_give_zeros_and_finite_gradients(name: str, zeros: Array) -> None:
    quantizer = training.get_quantizer(name)
    np.testing.assert_array_equal(np.asarray(quantizer(zeros)), zeros)
    assert np.isfinite(gradient(quantizer, zeros, np.zeros_like(zeros))).all()


# Weights with a scale


SHAPES = [((3, 3, 4, 5), (0, 1, 2)), ((4, 6), (0,)), ((3, 3, 6, 2), (0, 1)), ((3, 3, 5, 4), (0, 1, 3))]


@pytest.mark.parametrize(("shape", "axes"), SHAPES, ids=["convolution", "dense", "depthwise", "transposed"])
def test_xnor_weights_have_one_alpha_for_each_output_and_differentiate_it(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    w = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    upstream, quantizer = upstream_of(w), training.XnorWeights()
    alpha = np.abs(w).mean(axis=axes, keepdims=True)
    values, scale = quantizer.factors(w, axes)
    np.testing.assert_array_equal(np.asarray(values), signs(w))
    np.testing.assert_allclose(np.asarray(scale), alpha, rtol=1e-6)
    count = np.prod([shape[axis] for axis in axes])
    expected = alpha * upstream + signs(w) / count * (upstream * signs(w)).sum(axis=axes, keepdims=True)
    found = gradient(lambda x: _product(quantizer, x, axes), w, upstream)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def _product(quantizer: Any, w: Any, axes: tuple[int, ...]) -> Any:
    values, scale = quantizer.factors(w, axes)
    return values * scale


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (4, 6)])
def test_dorefa_weights_have_one_alpha_and_pass_the_gradient_straight_through(shape: tuple[int, ...]) -> None:
    w = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(np.asarray(training.DorefaWeights()(w)), np.abs(w).mean() * signs(w), rtol=1e-6)
    np.testing.assert_allclose(gradient(training.DorefaWeights(), w, upstream_of(w)), upstream_of(w), rtol=1e-5)
    clipped = gradient(training.DorefaWeights(0.5), w, upstream_of(w))
    np.testing.assert_allclose(clipped, upstream_of(w) * within(0.5)(w), rtol=1e-5)


def test_magnitude_aware_sign_does_not_differentiate_alpha() -> None:
    w = np.random.default_rng(3).normal(size=(3, 3, 4, 5)).astype(np.float32)
    alpha = np.abs(w).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(np.asarray(training.MagnitudeAwareSign()(w)), alpha * signs(w), rtol=1e-6)
    found = gradient(training.MagnitudeAwareSign(), w, upstream_of(w))
    np.testing.assert_allclose(found, alpha * upstream_of(w) * within(1.0)(w), rtol=1e-5, atol=1e-6)


def test_ternary_weight_networks_threshold_is_a_share_of_the_mean() -> None:
    w = np.random.default_rng(4).normal(size=(50, 20)).astype(np.float32)
    expected = ternary(0.7 * np.abs(w).mean())(w)
    np.testing.assert_array_equal(np.asarray(training.SteTern(ternary_weight_networks=True)(w)), expected)


# Names and configs


@pytest.mark.parametrize("case", [*CASES, *WEIGHT_CASES, Case("XnorWeights", signs, signs), Case("DorefaWeights", signs, signs),
                                  Case("MagnitudeAwareSign", signs, signs, {"clip_value": 2.0})], ids=lambda case: case.name)  # fmt: skip
def test_configs_come_back(case: Case) -> None:
    quantizer = case.make()
    entry = training.serialize_quantizer(quantizer)
    assert entry["class_name"] == case.name
    assert {**entry["config"], **case.config} == entry["config"]
    again = training.get_quantizer(entry)
    assert type(again) is type(quantizer)
    assert again.get_config() == quantizer.get_config()
    assert again.precision == case.precision


@pytest.mark.parametrize("name", ["xnor-weights", "dorefa-weights", "Larq>ApproxSign", "no_op"])
def test_names_are_found_with_dashes_and_with_packages(name: str) -> None:
    entry: Any = {"class_name": name, "config": {"precision": 1}} if name == "no_op" else name
    assert isinstance(training.get_quantizer(entry), training.Quantizer)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("xnor", "expected one of approx_sign, dorefa_quantizer, dorefa_weights"),
        ({"class_name": "SteSign", "config": {"clip": 1.0}}, "SteSign does not take the arguments"),
        ({"class_name": "DoReFa", "config": {"mode": "both"}}, "activations or weights, got 'both'"),
        ({"class_name": "DoReFa", "config": {"k_bit": 0}}, "from 1 to 8, got 0"),
        ({"class_name": "DoReFa", "config": {"k_bit": 2.5}}, r"from 1 to 8, got 2\.5"),
    ],
)
def test_nonsense_is_refused_with_what_was_expected(entry: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        training.get_quantizer(entry)
