"""What networks of few bits answer, and what they learn in a few steps, on the Keras backend of this process.

`python backend_answers.py FILE.npz`: `test_training_backends` runs it once for each backend and compares what comes out.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from edge.recipes import RECIPES
from edge.train_pupil import pupil
from edge.zoo import build

NETWORKS = ("cnn-mnist", "mlp-base", "resnet(2)-shortcuts")
PRECISIONS = ("xnor-weights", "dorefa-weights", "xnor", "xnor-k", "dorefa-2")
STEPS, PICTURES = 3, 16


def network(name: str, precision: str) -> Any:
    """With the same weights on every backend: fans of plausible size, and variances that are positive."""
    random = np.random.default_rng(0)
    made = build(name, precision, width=0.25)
    made.set_weights([_weight(random, variable.path, variable.shape) for variable in made.weights])
    return made


def _weight(random: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    if "kernel" in path:
        return random.normal(0.0, 0.3, shape).astype(np.float32)
    if "gamma" in path or "variance" in path:
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    return random.normal(0.0, 0.1, shape).astype(np.float32)


def pictures(made: Any) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (PICTURES, *made.input_shape[1:])).astype(np.float32)


def learnt(precision: str) -> np.ndarray:
    """The answers of a dense net after a few steps that learn from a teacher too; nothing in it is random, or else backends differ."""
    recipe = RECIPES["mlp-base-fashion"]
    made, teacher = network(recipe.network, precision), network(recipe.network, "float")
    for layer in made.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    schedule = replace(recipe.schedule(precision), optimizer="sgd", rate=0.1)  # Adam's first steps go by signs, of nearly 0 too
    model = pupil(made, recipe, schedule, STEPS, epochs=2, teacher=teacher)
    labels = np.arange(PICTURES) % 10
    for _ in range(STEPS):
        model.train_on_batch(pictures(made), labels)
    return np.asarray(keras.ops.convert_to_numpy(made(pictures(made), training=False)))


def main(path: str) -> None:
    found = {}
    for precision in PRECISIONS:
        for name in NETWORKS:
            made = network(name, precision)
            found[f"{name} {precision}"] = np.asarray(keras.ops.convert_to_numpy(made(pictures(made), training=False)))
        found[f"learnt {precision}"] = learnt(precision)
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
