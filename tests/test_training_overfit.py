"""Tiny networks at 1 bit and at 2 bits learn 64 pictures by heart, with every algorithm; and the same seed gives the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="training needs Keras")
training = pytest.importorskip("edge.training")
L: Any = keras.layers

PICTURES, CLASSES = 64, 4


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Noise, which nothing but learning by heart tells apart."""
    random = np.random.default_rng(7)
    return random.normal(size=(PICTURES, 8, 8, 2)).astype(np.float32), random.integers(0, CLASSES, PICTURES)


def network(algorithm: str) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            L.Input((8, 8, 2)),
            L.Conv2D(32, 3, use_bias=False),
            L.BatchNormalization(momentum=0.5),
            L.Conv2D(64, 3, use_bias=False),
            L.MaxPooling2D(),
            L.BatchNormalization(momentum=0.5),
            L.Flatten(),
            L.Dense(64, use_bias=False),
            L.BatchNormalization(momentum=0.5),
            L.Dense(CLASSES),
        ]
    )
    found = training.binarize(model, algorithm)
    found.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return found


SLOW = ("xnor-weights", "dorefa-weights", "xnor-k", "dorefa-2")


@pytest.mark.parametrize("algorithm", ["xnor", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_tiny_network_overfits(algorithm: str) -> None:
    x, y = pictures()
    model = network(algorithm)
    model.fit(x, y, batch_size=PICTURES, epochs=40, verbose=0, shuffle=False)
    assert model.evaluate(x, y, batch_size=PICTURES, verbose=0, return_dict=True)["accuracy"] >= 0.98


@pytest.mark.slow
def test_a_seed_reproduces_the_weights() -> None:
    x, y = pictures()
    first, second = network("xnor"), network("xnor")
    for model in (first, second):
        model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
