"""Batch norms of a training as one operation: the same steps, and nothing left behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge.zoo_writer import keras_package

pytest.importorskip("keras")
pytest.importorskip("tensorflow", reason="only TensorFlow's are fused")


def network(shape: tuple[int, ...], **norm: Any) -> Any:
    """Weights, a batch norm, classes."""
    keras = keras_package()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    first = layers.Conv2D(5, 3) if len(shape) == 3 else layers.Dense(5)
    return keras.Sequential(
        [keras.Input(shape), first, layers.BatchNormalization(**norm), layers.ReLU(), layers.Flatten(), layers.Dense(3)]
    )


def steps(model: Any, count: int = 4) -> list[float]:
    """The losses of some steps of its training."""
    random = np.random.default_rng(0)
    x = random.normal(3, 2, (8, *model.input_shape[1:])).astype(np.float32)
    y = random.integers(0, 3, 8)
    model.compile("sgd", keras_package().losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return [model.train_on_batch(x, y) for _ in range(count)]


@pytest.mark.parametrize("shape", [(7, 6, 2), (9,)], ids=["pictures", "vectors"])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(("policy", "close"), [("float32", 1e-5), ("mixed_bfloat16", 0.02)])
def test_fused_norms_train_as_those_of_keras(shape: tuple[int, ...], trainable: bool, policy: str, close: float) -> None:
    from edge.train_fused import fused_norms

    plain, fused = (network(shape, momentum=0.8, dtype=policy) for _ in range(2))
    for model in (plain, fused):
        model.layers[1].trainable = trainable
    expected = steps(plain)
    with fused_norms(fused):
        assert type(fused.layers[1]).__name__ == "Fused"
        losses = steps(fused)
    np.testing.assert_allclose(losses, expected, rtol=close)
    for after, wanted in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(after, wanted, rtol=10 * close, atol=close)


def test_layers_are_those_of_keras_again() -> None:
    from edge.train_fused import fused_norms

    model = network((4, 4, 1))
    with pytest.raises(KeyError), fused_norms(model, None):
        raise KeyError
    assert type(model.layers[1]) is keras_package().layers.BatchNormalization


@pytest.mark.parametrize("norm", [{"axis": 1}, {"scale": False}, {"center": False}, {"dtype": "float64"}, {"dtype": "bfloat16"}], ids=str)
def test_other_norms_stay(norm: dict[str, Any]) -> None:
    from edge.train_fused import fused_norms

    model = network((4, 4, 2), **norm)
    with fused_norms(model):
        assert type(model.layers[1]) is keras_package().layers.BatchNormalization
