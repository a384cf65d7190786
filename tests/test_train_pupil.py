"""How pictures are changed on their way into a network that is trained (`edge.train_pupil`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.recipes import RECIPES, Augment
from edge.zoo import build
from edge.zoo_writer import keras_package

pytest.importorskip("keras")


def changed(pictures: NDArray[np.float32], change: Augment) -> NDArray[Any]:
    """What a network sees of them in training."""
    from edge.train_pupil import _augmented

    keras = keras_package()
    keras.utils.set_random_seed(0)
    picture = keras.Input(pictures.shape[1:])
    found: NDArray[Any] = np.asarray(keras.Model(picture, _augmented(picture, change))(pictures, training=True))
    return found


def noise(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).integers(1, 256, (count, 12, 12, 3)).astype(np.float32)


def shifts_of(picture: NDArray[Any], source: NDArray[Any], most: int) -> list[tuple[int, int]]:
    """By how many whole pixels the source was shifted, to give this picture away from its edges."""
    inner = np.s_[most:-most, most:-most]
    steps = [(down, right) for down in range(-most, most + 1) for right in range(-most, most + 1)]
    return [step for step in steps if np.array_equal(picture[inner], np.roll(source, step, (0, 1))[inner])]


def test_shifts_are_of_whole_pixels_and_fill_with_black() -> None:
    """A shift by a share of a pixel would blur pictures in training alone."""
    pictures = noise(24)
    found = [shifts_of(after, before, 2) for before, after in zip(pictures, changed(pictures, Augment(shift=0.2)), strict=True)]
    assert all(len(each) == 1 for each in found)
    assert len({each[0] for each in found}) > 6
    (down, right), after = found[0][0], changed(pictures, Augment(shift=0.2))[0]
    black = np.zeros((12, 12), bool)
    black[: max(down, 0)], black[12 + min(down, 0) :] = True, True
    black[:, : max(right, 0)], black[:, 12 + min(right, 0) :] = True, True
    np.testing.assert_array_equal((after == 0).all(-1), black)


def test_a_flip_is_left_to_right() -> None:
    pictures = noise(24)
    after = changed(pictures, Augment(flip=True))
    flipped = [np.array_equal(a, b[:, ::-1]) for a, b in zip(after, pictures, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(after, pictures, strict=True)]
    assert any(flipped) and any(kept) and all(a != b for a, b in zip(flipped, kept, strict=True))


def test_no_change_is_no_layer() -> None:
    pictures = noise(2)
    np.testing.assert_array_equal(changed(pictures, Augment()), pictures)


def test_a_teacher_answers_without_dropout() -> None:
    from edge.train_pupil import logits_of, pupil

    keras, made = keras_package(), RECIPES["mlp-base-fashion"]
    network, teacher = build(made.network, "xnor-weights", width=0.1), build(made.network, "float", width=0.1)
    assert any(isinstance(layer, keras.layers.Dropout) for layer in teacher.layers)
    model = pupil(network, made, made.schedule("xnor-weights"), 1, epochs=1, teacher=teacher)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1)).astype(np.float32)
    theirs = logits_of(teacher)(pictures, training=False)
    for training in (True, False):
        np.testing.assert_allclose(model(pictures, training=training)[:, 10:], theirs, atol=1e-5)
    assert len(model.trainable_variables) == len(network.trainable_variables)


BEGIN_AS_TEACHER = sorted({made.network for made in RECIPES.values() if made.schedules.weights.from_teacher})


@pytest.mark.parametrize("name", BEGIN_AS_TEACHER)
def test_a_network_may_begin_as_its_teacher(name: str) -> None:
    """Kernels of layers of the same name, which are all; biases and norms stay."""
    from edge.train_pupil import begin_as

    network, teacher = build(name, "xnor", width=0.125), build(name, "float", width=0.125)
    before = {weight.path: np.asarray(weight) for weight in network.weights}
    begin_as(teacher, network)
    theirs = {layer.name: np.asarray(layer.kernel) for layer in teacher.layers if hasattr(layer, "kernel")}
    for layer in network.layers:
        for weight in layer.weights:
            kernel = theirs[layer.name] if weight.name == "kernel" else before[weight.path]
            np.testing.assert_array_equal(weight, kernel)


def test_what_a_recipe_leaves_as_it_was_is_not_told_of_its_results() -> None:
    """Else every stored result would tell of another recipe when a field is added."""
    assert "from_teacher" not in RECIPES["mlp-base"].how("xnor") and "turning" not in RECIPES["mlp-base"].how("xnor")
    assert RECIPES["clock"].how("xnor")["from_teacher"] is True and RECIPES["clock"].how("float")["turning"] == 0.2
