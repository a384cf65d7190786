"""Quantizers: what values they give, against formulas written out for single numbers and against QKeras' own, and how files name them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import model_of

from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.quantizers import Quantizer, Weights, find, forms
from edge.errors import ModelError
from edge.kernels.reference import run_graph

FIXTURES = Path(__file__).parent / "fixtures"
# Halves of steps among them, and values far outside; no subnormal ones, which TensorFlow takes for 0.
NEAR, FAR = (st.floats(-size, size, width=32, allow_subnormal=False) for size in (3, 200))
VALUES = st.lists(st.one_of(st.integers(-96, 96).map(lambda k: k / 32), NEAR, FAR), min_size=1, max_size=12)
NONSENSE = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(), st.text(max_size=5)), st.lists(st.integers(), max_size=2)
)


def quantizer(spec: object, **options: Any) -> Quantizer:
    found = find(spec, "here", **options)
    assert found is not None
    return found


def weights(spec: object, values: Any, **options: Any) -> Weights:
    return quantizer(spec, **options).weights(np.asarray(values, np.float32))


def at_run_time(spec: object, values: list[float]) -> np.ndarray:
    """What a layer that quantizes its input gives, by the graph as it is read, which must give the same once it is simplified."""
    graph = read_graph(model_of(("QActivation", {"activation": spec}, {}), shape=(len(values),)))
    x = {"image": np.array(values, np.float32)}
    plain, simple = (run_graph(g, x)[g.outputs[0]] for g in (graph, run_passes(graph)))
    np.testing.assert_array_equal(plain, simple)
    return plain


# -- values, one by one --------------------------------------------------------------------------------------------------------


def clamp(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def sign(x: float) -> float:
    return -1.0 if x < 0 else 1.0


def steps(x: float, unit: float, low: int, high: int) -> float:
    """Python's own round is half to even too."""
    return clamp(round(x / unit), low, high) * unit


FORMULAS: dict[str, Callable[[float], float]] = {
    "ste_sign": sign,
    "approx_sign": sign,
    "swish_sign": sign,
    "ste_heaviside": lambda x: 1.0 if x > 0 else 0.0,
    "ste_tern": lambda x: math.copysign(1.0, x) if abs(x) >= np.float32(0.05) else 0.0,
    "dorefa_quantizer": lambda x: round(clamp(x, 0, 1) * 3) / 3,
    "Larq>clip_by_value_activation": lambda x: clamp(x, 0, 1),
    "binary(alpha=1)": sign,
    "binary(alpha=0.25)": lambda x: sign(x) / 4,
    "binary(use_01=True,alpha=2)": lambda x: 0.0 if x < 0 else 2.0,
    "stochastic_binary(alpha=3,temperature=8.0)": lambda x: 3 * sign(x),
    "ternary(alpha=1)": lambda x: math.copysign(1.0, x) if abs(x) >= np.float32(0.33) else 0.0,
    "stochastic_ternary(0.5,0.75)": lambda x: math.copysign(0.5, x) if abs(x) >= 0.75 else 0.0,
    "quantized_bits(4,1)": lambda x: steps(x, 1 / 4, -8, 7),
    "quantized_bits(4,0,1,alpha=0.5)": lambda x: steps(x, 1 / 8, -7, 7) / 2,
    "quantized_bits(8,0)": lambda x: steps(x, 1 / 128, -128, 127),
    "quantized_bits(3,2,keep_negative=False)": lambda x: steps(x, 1 / 2, 0, 7),
    "quantized_bits(8,3,0,False)": lambda x: steps(x, 1 / 32, 0, 255),
    "quantized_bits(1,0,alpha=1)": sign,
    "quantized_bits(1,1,0,False)": lambda x: 1.0 if x > 0.5 else 0.0,
    "quantized_bits(11,3)": lambda x: steps(x, 1 / 128, -1024, 1023),
    "quantized_bits(16,6)": lambda x: steps(x, 1 / 512, -32768, 32767),
    "quantized_relu(2)": lambda x: steps(x, 1 / 4, 0, 3),
    "quantized_relu(8,4)": lambda x: steps(x, 1 / 16, 0, 255),
    "quantized_relu(13,4)": lambda x: steps(x, 1 / 512, 0, 8191),
    "quantized_relu(1)": lambda x: 0.5 if x > 0.25 else 0.0,
    "quantized_relu(5,2,negative_slope=0.5)": lambda x: steps(x if x > 0 else x / 2, 1 / 4, -8, 15),
    "quantized_relu(4,2,is_quantized_clip=False,relu_upper_bound=1.1)": lambda x: min(steps(x, 1 / 4, 0, 15), np.float32(1.1)),
    "quantized_relu(5,2,0,1.0,is_quantized_clip=False,relu_upper_bound=1.25)": lambda x: min(steps(x, 1 / 4, -16, 15), 1.25),
    "quantized_tanh(4)": lambda x: steps(2 * clamp(x / 2 + 0.5, 0, 1) - 1, 1 / 8, -8, 7),
    "quantized_tanh(3,symmetric=1)": lambda x: steps(2 * clamp(x / 2 + 0.5, 0, 1) - 1, 1 / 4, -3, 3),
    "quantized_sigmoid(3)": lambda x: steps(clamp(x / 2 + 0.5, 0, 1), 1 / 8, 0, 7),
}


@pytest.mark.parametrize("spec", FORMULAS)
@settings(max_examples=25)
@given(values=VALUES)
def test_values_follow_their_formula_as_weights_and_at_run_time(spec: str, values: list[float]) -> None:
    expected = np.array([FORMULAS[spec](x) for x in values], np.float32)
    np.testing.assert_allclose(weights(spec, values).values, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(at_run_time(spec, values), expected, rtol=1e-6, atol=1e-7)


KERNELS = st.integers(0, 1 << 32).map(lambda seed: np.random.default_rng(seed).uniform(-1.2, 1.2, (3, 2, 4)).astype(np.float32))


@given(kernel=KERNELS, bits=st.integers(1, 10))
def test_dorefa_weights(kernel: np.ndarray, bits: int) -> None:
    top = max(math.tanh(abs(w)) for w in kernel.reshape(-1))
    levels = 2**bits - 1
    found = weights({"class_name": "Larq>DoReFa", "config": {"k_bit": bits, "mode": "weights"}}, kernel)
    exact = [levels * (math.tanh(w) / (2 * top) + 0.5) for w in kernel.reshape(-1)]
    settled = np.array([abs(x % 1 - 0.5) > 1e-4 for x in exact])  # where rounding does not hang on the last bit of tanh
    expected = np.array([2 * round(x) / levels - 1 for x in exact], np.float32)
    np.testing.assert_allclose(found.values.reshape(-1)[settled], expected[settled], atol=1e-6)
    assert found.bits == bits and np.abs(found.whole).max() <= levels


@given(kernel=KERNELS)
def test_scales_of_filters_are_the_best_ones(kernel: np.ndarray) -> None:
    """With "auto" no other scale comes closer; "auto_po2" is the power of two nearest to it; magnitude_aware_sign takes the same."""
    for name in ("binary", "binary(use_01=1)"):
        best = weights(f"{name[:-1]},alpha='auto')" if "(" in name else f"{name}(alpha='auto')", kernel)
        error = ((kernel - best.values) ** 2).sum(axis=(0, 1))
        for factor in (0.99, 1.01):
            assert (((kernel - best.values * np.float32(factor)) ** 2).sum(axis=(0, 1)) >= error - 1e-5).all()
    mean = weights("magnitude_aware_sign", kernel)
    np.testing.assert_allclose(mean.scale, weights("binary(alpha='auto')", kernel).scale, rtol=1e-5)
    power = np.log2(weights("binary(alpha='auto_po2')", kernel).scale)
    np.testing.assert_array_equal(power, np.rint(power))
    assert np.abs(power - np.log2(mean.scale)).max() <= 0.5 + 1e-5


@given(kernel=KERNELS, bits=st.integers(2, 8))
def test_scaled_levels_reach_their_largest(kernel: np.ndarray, bits: int) -> None:
    found = weights(f"quantized_bits({bits},0,1,alpha='auto')", kernel)
    top = 2 ** (bits - 1) - 1
    np.testing.assert_array_equal(np.abs(found.whole).max(axis=(0, 1)), top)
    assert np.abs(kernel - found.values).max() <= (found.scale / 2).max() + 1e-6
    power = weights(f"quantized_bits({bits},0,1,alpha='auto_po2')", kernel)
    np.testing.assert_array_equal(np.frexp(power.scale)[0], 0.5)


@given(kernel=KERNELS)
def test_ternary_networks_take_their_threshold_from_the_mean(kernel: np.ndarray) -> None:
    found = weights({"class_name": "SteTern", "config": {"ternary_weight_networks": True}}, kernel).values
    threshold = 0.7 * float(np.abs(kernel.astype(np.float64)).mean())
    clear = np.abs(np.abs(kernel) - threshold) > 1e-5
    np.testing.assert_array_equal(found[clear], (np.sign(kernel) * (np.abs(kernel) > threshold))[clear])


@given(values=VALUES, bits=st.integers(3, 6))
def test_powers_of_two(values: list[float], bits: int) -> None:
    found = weights(f"quantized_po2({bits},4)", values).values
    low, high = -(2 ** (bits - 2)), 2 ** (bits - 2) - 1
    for x, got in zip(np.array(values, np.float32), found, strict=True):
        size = clamp(abs(float(x)), 1e-7, 4)
        exponent = clamp(round(math.log2(size)), low, high) if abs(x) >= np.float32(1e-7) else low
        if abs(math.log2(size) % 1 - 0.5) > 1e-5:
            assert got == sign(x) * 2.0**exponent


def test_functions_of_the_larq_zoo() -> None:
    """Scales over each filter, clipped to 1, and over the whole layer."""
    kernel = np.array([[0.5, -3.0], [-0.25, 0.5]], np.float32)
    for spec, scales in (("xnor_weight_scale", [0.375, 0.75]), ("magnitude_aware_sign_unclipped", [1.0625] * 2)):
        entry = {"class_name": "function", "config": f"Larq>{spec}"}
        np.testing.assert_array_equal(weights(entry, kernel).values, np.array([[1, -1], [-1, 1]]) * scales)


def test_filters_of_zeros_stay_zeros() -> None:
    zeros = np.zeros((2, 2, 3, 4), np.float32)
    for spec in ("ternary(alpha='auto')", "ternary(alpha='auto_po2')", "quantized_bits(4,0,1,alpha='auto')", "magnitude_aware_sign",
                 "quantized_bits(4,0,1,alpha='auto_po2')", "binary(alpha='auto')"):  # fmt: skip
        np.testing.assert_array_equal(weights(spec, zeros).values, zeros)
    dorefa = weights({"class_name": "DoReFa", "config": {"mode": "weights"}}, zeros).values  # tf.round(1.5) / 3 * 2 - 1
    np.testing.assert_allclose(dorefa, np.full_like(zeros, 1 / 3), rtol=1e-6)


def test_values_equal_those_of_qkeras() -> None:
    known = np.load(FIXTURES / "qkeras_values.npz")
    numbers = [key.partition("/")[0] for key in known.files if key.endswith("/text")]
    assert len(numbers) > 35
    for number in numbers:
        text, expected = str(known[f"{number}/text"]), known[f"{number}/values"]
        np.testing.assert_allclose(weights(text, known["x"]).values, expected, rtol=1e-6, atol=3e-7, err_msg=text)


# -- names ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        "ste_sign",
        "SteSign",
        {"class_name": "Larq>SteSign", "config": {"name": "ste_sign", "trainable": True, "dtype": "float32", "clip_value": 1.0}},
        {"class_name": "SteSign", "config": {"clip_value": None}},
        {"class_name": "function", "config": "ste_sign"},
        {"module": "builtins", "class_name": "function", "config": "ste_sign", "registered_name": "function"},
        {"module": "larq.quantizers", "class_name": "SteSign", "config": {"name": "q"}, "registered_name": "Larq>SteSign"},
        {"module": "qkeras.quantizers", "class_name": "binary", "config": {"use_01": False, "alpha": 1.0}, "registered_name": "binary"},
        "binary",
        "binary()",
        "stochastic_binary(alpha=1)",
        "quantized_bits(1, alpha=1.0)",
        {"class_name": "quantized_bits", "config": {"bits": 1, "alpha": 1, "of_a_later_version": None}},
    ],
)
def test_signs_by_every_name(spec: object) -> None:
    assert quantizer(spec) == quantizer("ste_sign")


def test_what_is_no_quantizer_is_none() -> None:
    for spec in (None, "relu", "", 3, ["ste_sign"], {}, {"class_name": 3}, {"class_name": "ReLU", "config": {}}, "relu(6)", ")", "()"):
        assert find(spec, "here") is None


def test_layers_of_qkeras_scale_weights_unless_told_otherwise() -> None:
    kernel = np.array([[0.2, -0.5], [0.3, 0.6]], np.float32)
    assert quantizer("binary", trained=True) == quantizer("binary(alpha='auto_po2')")
    np.testing.assert_array_equal(weights("quantized_bits(3)", kernel, trained=True).values,
                                  weights("quantized_bits(3,0,1,alpha='auto_po2')", kernel).values)  # fmt: skip
    assert quantizer("ternary(alpha=2)", trained=True) == quantizer("ternary(alpha=2)")
    assert quantizer("quantized_tanh(4)", trained=True).weights(kernel).values.max() == 0.625


def test_functions_of_qkeras_count_in_its_layers_alone() -> None:
    assert find("hard_sigmoid", "here") is None
    np.testing.assert_allclose(weights("hard_sigmoid", [-2, 0.2, 3], qkeras=True).values, [0, 0.6, 1])
    np.testing.assert_allclose(weights("binary_tanh", [-2, 0, 3], qkeras=True).values, [-1, -1, 1])


def test_every_quantizer_is_described() -> None:
    assert len(forms()) >= 18
    assert all(form.activations and form.weights and form.package in ("Larq", "Larq zoo", "QKeras", "edge") for form in forms())


# -- nonsense ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("quantized_bits(99)", "quantized_bits: bits should be 1 to 32, got 99; save the model again"),
        ("quantized_bits(0)", "bits should be 1 to 32, got 0"),
        ("quantized_bits(4.5)", "bits should be whole numbers, got 4.5"),
        ("quantized_bits('4')", "bits should be whole numbers, got '4'"),
        ({"class_name": "quantized_bits", "config": {"bits": True}}, "bits should be whole numbers, got True"),
        ({"class_name": "quantized_bits", "config": {"bits": [4, 4]}}, r"bits should be 1 to 32, got \[4, 4\]"),
        ({"class_name": "quantized_bits", "config": {"bit": 4}}, "has no option bit, there are bits, integer"),
        ("quantized_bits(4,99)", "integer should be 0 to 31, got 99"),
        ("quantized_bits(4,-1)", "integer should be 0 to 31, got -1"),
        ("quantized_bits(4,alpha='best')", "alpha should be a number, 'auto' or 'auto_po2', got 'best'"),
        ("quantized_bits(4,alpha=[1,2])", r"alpha should be a number, got \[1, 2\]"),
        ("quantized_bits(4,symmetric='no')", "symmetric should be true or false, got 'no'"),
        ("quantized_bits(4,qnoise_factor=0.5)", "qnoise_factor 0.5 mixes in values that are not quantized"),
        ("quantized_bits(4,alpha='auto',scale_axis=0)", "scale_axis is not supported"),
        ("quantized_bits(1,2,3,4,5,6,7,8,9,10,11,12)", "is no call of quantized_bits"),
        ("quantized_bits(4,", None),
        ("quantized_bits(4,)(5)", "is no call of quantized_bits"),
        ("quantized_bits(__import__('os').getcwd())", "is no call of quantized_bits"),
        ("quantized_bits(" + "-" * 200 + "4)", "is no call of quantized_bits"),
        ("quantized_bits(" + "(" * 5000 + ")", "is no call of quantized_bits"),
        ("quantized_bits(**{'bits': 4})", "is no call of|has no option"),
        ("quantized_relu(4,negative_slope=0.3)", "negative_slope should be 0 or a power of two, got 0.3"),
        ("quantized_relu(3,negative_slope=0.125)", "leaves no level below 0 at 3 bits"),
        ("quantized_relu(4,use_sigmoid=1,negative_slope=0.5)", "use_sigmoid together with"),
        ("quantized_tanh(1)", "bits should be 2 to 32, got 1"),
        ("quantized_sigmoid(4,symmetric=1)", "symmetric is not supported"),
        ("quantized_po2(4,-1)", "max_value should not be negative"),
        ("quantized_po2(4,log2_rounding='up')", "log2_rounding 'up' is not supported, expected rnd or floor"),
        ("ternary(alpha='auto',threshold=0.3)", "threshold does not go with alpha 'auto'"),
        ("ternary(number_of_unrolls=1e9)", "number_of_unrolls should be whole numbers"),
        ("bernoulli", "draws at random whenever it is used"),
        ({"class_name": "DoReFa", "config": {"k_bit": 99}}, "k_bit should be 1 to 16, got 99"),
        ({"class_name": "DoReFa", "config": {"mode": "both"}}, "mode 'both' is not supported, expected activations or weights"),
        ({"class_name": "SteTern", "config": {"threshold_value": "x"}}, "threshold_value should be a number, got 'x'"),
        ({"class_name": "SteTern", "config": {"threshold": 1}}, "has no option threshold, there are threshold_value"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(spec: object, says: str | None) -> None:
    if says is None:
        assert find(spec, "here") is None
        return
    with pytest.raises(ModelError, match=says) as refused:
        find(spec, "layer 'a' (QDense): kernel_quantizer")
    assert str(refused.value).startswith("layer 'a' (QDense): kernel_quantizer ") and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("magnitude_aware_sign", "magnitude_aware_sign is for weights"),
        ("binary(alpha='auto')", "alpha 'auto' is for weights: of activations it would depend on the whole batch"),
        ("quantized_bits(4,alpha='auto_po2')", "alpha 'auto_po2' is for weights"),
        ("quantized_bits(24)", "activations of 24 bits are not supported, expected at most 20"),
        ("quantized_po2(4)", "powers of two are supported for weights"),
        ({"class_name": "SteTern", "config": {"ternary_weight_networks": True}}, "takes its threshold from the whole batch"),
        ({"class_name": "DoReFa", "config": {"mode": "weights"}}, "divides by the largest value of the whole batch"),
        ("quantized_ulaw(8)", "the activation .* is not supported, there are linear, relu"),
    ],
)
def test_what_depends_on_the_batch_is_refused_for_activations(spec: object, says: str) -> None:
    with pytest.raises(ModelError, match=says) as refused:
        at_run_time(spec, [1.0, 2.0])
    assert "layer0" in str(refused.value)


@given(
    name=st.sampled_from([form.name for form in forms()]),
    config=st.dictionaries(
        st.sampled_from(sorted({option for form in forms() for option in form.options})), NONSENSE, max_size=4
    ),
)
def test_any_configuration_gives_numbers_or_one_sentence(name: str, config: dict[str, Any]) -> None:
    kernel = np.random.default_rng(0).uniform(-1, 1, (2, 2, 3)).astype(np.float32)
    try:
        found = find({"class_name": name, "config": config}, "here")
    except ModelError as err:
        assert "\n" not in str(err)
        return
    assert found is not None and found.weights(kernel).values.shape == kernel.shape
