"""Keras itself as the oracle: random models, and how far what edge makes of them is from what Keras computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import edge
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.format import read
from edge.kernels.reference import run_graph, run_program


def randomize(model: Any, seed: int) -> None:
    """Every weight random: variances positive, gammas negative, zero and positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(size=weight.shape).astype(np.float32)
        if "variance" in weight.path:
            value = np.abs(value) + np.float32(0.1)
        elif "gamma" in weight.path:
            value[rng.random(weight.shape) < 0.2] = 0
        weight.assign(value)


def examples(shape: tuple[int, ...], seed: int, scale: float = 1.0, count: int = 2) -> np.ndarray:
    return (np.random.default_rng(seed + 1).normal(size=(count, *shape)) * scale).astype(np.float32)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert got.shape == expected.shape and np.isfinite(expected).all()
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def difference(model: Any, path: Path, seed: int = 0, scale: float = 1.0, x: np.ndarray | None = None) -> float:
    """Between Keras and the graph, on two random examples."""
    model.save(path)
    graph = read_graph(read_keras(path))
    x = examples(graph.types[graph.inputs[0]].shape, seed, scale) if x is None else x
    got = np.stack([run_graph(graph, {graph.inputs[0]: example})[graph.outputs[0]] for example in x])
    return relative(got, model.predict(x, verbose=0))


def converted(model: Any, folder: Path, x: np.ndarray, bits: int, **options: Any) -> dict[str, float]:
    """The differences of `model.edge` from Keras ("keras") and from the reference ("reference"), and of `model.tflite` from it ("tflite").

    Differences are relative to the largest value.
    """
    from edge.tflite_runner import load_tflite

    source = folder / "model.keras"
    model.save(source)
    edge.convert(source, folder, bits=bits, **options)
    got = np.stack([edge.load(folder / "model.edge").run(example) for example in x])
    program = read(folder / "model.edge")
    reference = np.stack([run_program(program, [example])[program.outputs[0]] for example in x])
    lite = load_tflite(folder / "model.tflite").run(x)
    expected = model.predict(x, verbose=0)
    return {"keras": relative(got, expected), "reference": relative(got, reference), "tflite": relative(np.asarray(lite), got)}
