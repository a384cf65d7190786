"""From outputs to ranked names, numbers as text, JSON and pictures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.answers import (
    KINDS,
    Ranked,
    class_output,
    format_top,
    format_value,
    kind_of,
    output_picture,
    top,
    top_to_json,
)
from edge.errors import EdgeError, InputError

RANKED_KINDS = ["probabilities", "sigmoid", "logits"]
VECTORS = arrays(
    np.float32, st.integers(2, 40), elements=st.floats(-9, 9, width=32) | st.sampled_from([0.0, -0.0, 1.0])
)


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@settings(max_examples=150, deadline=None)
@given(VECTORS, st.sampled_from(RANKED_KINDS), st.integers(1, 50))
def test_the_best_come_first_and_equal_ones_by_index(output: np.ndarray, kind: str, k: int) -> None:
    ranked = top(output, None, kind, k=k)
    expected = sorted(range(output.size), key=lambda index: (-output[index], index))[:k]
    assert [entry.index for entry in ranked] == expected
    assert [entry.value for entry in ranked] == [float(output[index]) for index in expected]


@settings(max_examples=60, deadline=None)
@given(VECTORS, st.integers(1, 50))
def test_values_of_a_regression_keep_their_places(output: np.ndarray, k: int) -> None:
    assert [entry.index for entry in top(output, None, "values", k=k)] == list(range(min(k, output.size)))


def test_names_go_with_their_classes() -> None:
    ranked = top(vector(0.1, 0.7, 0.2), ("cat", "dog", "bird"), "probabilities", k=2)
    assert [(entry.index, entry.label, entry.name) for entry in ranked] == [(1, "dog", "dog"), (2, "bird", "bird")]
    assert top(vector(1, 2), None, "logits")[0] == Ranked(1, None, 2.0)
    assert top(vector(1, 2), None, "logits")[0].name == "1"


def test_axes_of_length_one_do_not_matter() -> None:
    assert top(vector(1, 3, 2).reshape(1, 1, 3), None, "logits") == top(vector(1, 3, 2), None, "logits")
    assert top(np.array([3, 200], np.uint8), None, "logits")[0].value == 200.0


@pytest.mark.parametrize(
    ("labels", "names"), [(None, ("1", "0")), (("cat", "dog"), ("dog", "cat")), (("cat",), ("cat", "not cat"))]
)
def test_a_single_sigmoid_tells_two_classes_apart(labels: Any, names: tuple[str, str]) -> None:
    ranked = top(vector(0.75), labels, "sigmoid")
    assert [(entry.index, entry.name, entry.value) for entry in ranked] == [(1, names[0], 0.75), (0, names[1], 0.25)]
    assert [entry.index for entry in top(vector(0.25), labels, "sigmoid")] == [0, 1]
    assert [entry.index for entry in top(vector(0.5), labels, "sigmoid")] == [0, 1]


def test_a_single_logit_tells_two_classes_apart() -> None:
    assert top(vector(-2), ("cat", "dog"), "logits") == (Ranked(0, "cat", 2.0), Ranked(1, "dog", -2.0))
    assert format_top(top(vector(0), None, "logits"), "logits") == "0  0\n1  0"


def test_a_single_value_is_one_value() -> None:
    assert top(vector(3.5), ("minutes",), "values") == (Ranked(0, "minutes", 3.5),)
    with pytest.raises(InputError, match="expected 1 name"):
        top(vector(3.5), ("hours", "minutes"), "values")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "picture"])
def test_an_output_that_is_not_finite_is_said(bad: float, kind: str) -> None:
    with pytest.raises(EdgeError, match="expected 3 finite values, got 1 NaN or infinite"):
        top(vector(1, bad, 2), None, kind)


@pytest.mark.parametrize("shape", [(2, 3), (0,), (4, 4, 3)])
def test_outputs_with_several_axes_are_not_ranked(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot rank an output of shape"):
        top(np.zeros(shape, np.float32), None, "logits")


def test_requests_that_do_not_fit_are_refused() -> None:
    for kind in ("picture", "softmax"):
        with pytest.raises(InputError, match="cannot rank an output of kind"):
            top(vector(1, 2), None, kind)
    with pytest.raises(InputError, match="at least 1 class"):
        top(vector(1, 2), None, "logits", k=0)
    with pytest.raises(InputError, match=r"expected 2 names, .* got 3"):
        top(vector(1, 2), ("a", "b", "c"), "logits")


VALUES = [
    (0.998, "probabilities", "99.8 %"), (1.0000001, "sigmoid", "100.0 %"), (-1e-9, "sigmoid", "0.0 %"),
    (12.345678, "logits", "12.346"), (-3.0, "logits", "-3"), (1.5e-7, "values", "1.5e-07"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "text"), VALUES)
def test_values_read_well(value: float, kind: str, text: str) -> None:
    assert format_value(value, kind) == text


def test_lines_are_in_columns() -> None:
    ranked = top(vector(0.002, 0.998), ("7", "nine"), "probabilities")
    assert format_top(ranked, "probabilities") == "nine  99.8 %\n7      0.2 %"
    assert format_top(ranked[:1], "probabilities") == "nine  99.8 %"
    assert format_top((), "logits") == ""


@settings(max_examples=60, deadline=None)
@given(VECTORS, st.sampled_from(RANKED_KINDS))
def test_answers_survive_json(output: np.ndarray, kind: str) -> None:
    ranked = top(output, [f"class {index}" for index in range(output.size)], kind)
    data = json.loads(json.dumps(top_to_json(ranked, kind), allow_nan=False))
    assert data["kind"] == kind
    assert tuple(Ranked(**entry) for entry in data["top"]) == ranked


GUESSES = [
    ("softmax", (10,), "probabilities"), ("sigmoid", (10,), "sigmoid"), ("sigmoid", (1,), "sigmoid"),
    (None, (10,), "logits"), ("linear", (1,), "values"), ("relu", (10,), "logits"), ("linear", (1, 1, 1), "values"),
    ("tanh", (28, 28, 1), "picture"), ("sigmoid", (64, 64, 3), "picture"), ("softmax", (1, 1, 3), "probabilities"),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "shape", "kind"), GUESSES)
def test_the_kind_is_guessed_from_activation_and_shape(activation: str | None, shape: Any, kind: str) -> None:
    assert kind_of(activation, shape) == kind and kind in KINDS


PICTURES = [
    ("tanh", [-1, 0, 1, 3], [0, 128, 255, 255]), ("sigmoid", [0, 0.5, 1, -1], [0, 128, 255, 0]),
    (None, [5, 7, 9, 6], [0, 128, 255, 64]), ("linear", [2, 2, 2, 2], [0, 0, 0, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "values", "levels"), PICTURES)
def test_a_picture_output_becomes_levels(activation: str | None, values: list[float], levels: list[int]) -> None:
    picture = output_picture(vector(*values).reshape(2, 2, 1), activation=activation)
    assert picture.dtype == np.uint8 and picture.shape == (2, 2, 1)
    assert picture.reshape(-1).tolist() == levels


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))))
def test_a_scaled_picture_comes_back(picture: np.ndarray) -> None:
    np.testing.assert_array_equal(output_picture(picture / np.float32(127.5) - 1, activation="tanh"), picture)
    np.testing.assert_array_equal(output_picture(picture / np.float32(255), activation="sigmoid"), picture)


def test_what_is_no_picture_output_is_refused() -> None:
    for shape in ((4,), (4, 4, 2), (0, 4, 1)):
        with pytest.raises(InputError, match="no picture"):
            output_picture(np.zeros(shape, np.float32))
    with pytest.raises(EdgeError, match="NaN"):
        output_picture(np.full((2, 2, 1), np.nan), activation="tanh")


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([("probabilities", (4,))], 0),
        ([("values", (4,)), ("logits", (3,))], 1),
        ([("logits", (4,)), ("probabilities", (1, 1, 3))], 1),
        ([("logits", (4,)), ("sigmoid", (1,))], None),
        ([("probabilities", (4,)), ("probabilities", (3,))], None),
        ([("probabilities", (5, 5, 4)), ("picture", (8, 8, 3))], None),
    ],
)
def test_one_output_names_classes(outputs: list[tuple[str, tuple[int, ...]]], expected: int | None) -> None:
    assert class_output(outputs) == expected
