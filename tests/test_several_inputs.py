"""Networks with several inputs: what engines take for them, and what they give, against the reference."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from two_inputs import two_inputs

from edge.batches import by_input, inputs_text, together
from edge.converters.keras_model import KerasModel
from edge.converters.layers import read_graph, rescales_itself
from edge.engine import Engine
from edge.errors import InputError, ModelError
from edge.graph import Graph
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.tensors import TensorInfo

COUNT = 5


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph(two_inputs(), input_dtype="uint8")


@pytest.fixture(scope="module")
def engine(graph: Graph) -> Engine:
    return Engine(to_program(graph))


@pytest.fixture(scope="module")
def examples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(8)
    return random.integers(0, 256, (COUNT, 6, 5, 3), dtype=np.uint8), random.integers(0, 10, (COUNT, 1))


def expected(graph: Graph, image: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
    found = run_graph(graph, {"image": image, "label": label.astype(np.float32)})
    return [found[name] for name in graph.outputs]


def test_only_pictures_are_bytes(engine: Engine) -> None:
    assert engine.inputs == (TensorInfo("image", (6, 5, 3), "uint8"), TensorInfo("label", (1,), "float32"))
    assert [info.name for info in engine.outputs] == ["scores", "place"]


def test_arrays_a_list_and_names_mean_the_same(graph: Graph, engine: Engine, examples: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = examples
    want = [np.stack(rows) for rows in zip(*map(lambda i: expected(graph, images[i], labels[i]), range(COUNT)), strict=True)]
    for given in ((images, labels), ([images, labels],), ({"label": labels, "image": images},)):
        for got, right in zip(engine(*given), want, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)


def test_one_example_goes_with_every_other(engine: Engine, examples: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = examples
    for label in (3, np.array([3]), np.full((COUNT, 1), 3)):
        np.testing.assert_array_equal(engine.run(images, label)[0], engine.run(images, np.full((COUNT, 1), 3))[0])
    assert [out.shape for out in engine.run(images[0], 3)] == [(4,), (2,)]
    assert [out.shape for out in engine.run(images[:1], 3)] == [(1, 4), (1, 2)]
    assert [out.shape for out in engine.run(images[0], labels)] == [(COUNT, 4), (COUNT, 2)]
    assert [out.shape for out in engine.run(images[:0], 3)] == [(0, 4), (0, 2)]


def test_traces_and_times_take_the_same(engine: Engine, examples: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = examples
    scores = next(step.output for step in reversed(engine.trace(images[1], labels[1])) if "scores" in step.layers)
    np.testing.assert_array_equal(scores.reshape(-1), engine.run(images[1], labels[1])[0])
    assert engine.times({"image": images[0], "label": 3}, 2, whole=True).shape == (2, 1)
    with pytest.raises(InputError, match=f"one example, got {COUNT}"):
        engine.trace([images, labels])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0,), r"expected image \(6 x 5 x 3\) and label \(1\), received 1 of them"),
        ((0, 0, 0), "received 3 of them"),
        (({"image": 0},), "by name, received image; give one array for each"),
        (({"image": 0, "label": 0, "more": 0},), "received image, label, more"),
        (({},), "received none"),
        ((np.zeros((2, 6, 5, 3), np.uint8), np.zeros((3, 1))), "received 2 for image, 3 for label"),
        ((np.zeros((2, 5, 6, 3), np.uint8), 0), r"input image does not fit: expected \(N, 6 x 5 x 3\)"),
        ((np.zeros((6, 5, 3)) + 0.5, 0), "input image does not fit: expected pixels"),
        ((np.zeros((6, 5, 3)), "a"), "input label does not fit: expected float32, uint8 or int8 values, received <U1"),
    ],
)
def test_what_does_not_fit_is_named(engine: Engine, given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine.run(*given)


def test_one_input_by_name() -> None:
    inputs = [TensorInfo("x", (3,), "float32")]
    assert by_input([{"x": 5}], inputs) == (5,)
    assert by_input([[1, 2, 3]], inputs) == ([1, 2, 3],)
    assert inputs_text(inputs) == "x (3)"


def test_examples_are_repeated_without_a_copy() -> None:
    inputs = [TensorInfo(name, (2,), "float32") for name in "ab"]
    one, many = np.ones((1, 2), np.float32), np.zeros((1000, 2), np.float32)
    (first, second), single = together([(one, True), (many, False)], inputs)
    assert first.shape == (1000, 2) and np.shares_memory(first, one) and second is many and not single


def test_inferences_keep_no_memory(engine: Engine, examples: tuple[np.ndarray, np.ndarray]) -> None:
    example = [array[0] for array in examples]
    engine.times(example, 50, whole=True)
    tracemalloc.start()
    try:
        engine.times(example, 50, whole=True)
        before = tracemalloc.get_traced_memory()[0]
        engine.times(example, 500, whole=True)
        assert tracemalloc.get_traced_memory()[0] - before < 2000
    finally:
        tracemalloc.stop()


def test_rescaling_counts_for_pictures_alone() -> None:
    model = two_inputs()
    assert rescales_itself(model)
    assert not rescales_itself(two_inputs(pictures=(6, 5, 4)))


def test_a_network_that_gives_an_input_back_is_refused() -> None:
    model = two_inputs()
    with pytest.raises(ModelError, match="gives its input back"):
        read_graph(KerasModel(**{**vars(model), "outputs": ("scores", "label")}))
