"""Pictures that a training turns (`edge.train_turned`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.clocks import render, scene
from edge.recipes import RECIPES
from edge.zoo_writer import keras_package

pytest.importorskip("keras")


def model(side: int) -> Any:
    from edge.train_turned import turned

    keras = keras_package()
    keras.utils.set_random_seed(0)
    picture = keras.Input((side, side, 1))
    return keras.Model(picture, turned(picture))


def upright(count: int) -> NDArray[np.float32]:
    """Clocks without what is not turned with them."""
    shown = [replace(scene(i), turn=0.0, shift=(0.0, 0.0), noise=0.0, shadow=0.0) for i in range(count)]
    return np.stack([render(each) for each in shown]).astype(np.float32)[..., None]


def off(pictures: NDArray[Any], others: NDArray[Any]) -> float:
    """Mean difference in grey levels away from the corners."""
    return float(np.abs(pictures.astype(np.float32) - others)[..., 30:-30, 30:-30, :].mean())


def test_a_turned_clock_is_the_clock_rendered_turned() -> None:
    from edge.train_turned import _turns

    ops, shown = keras_package().ops, replace(scene(3), shift=(0.0, 0.0), noise=0.0, shadow=0.0)
    standing = render(replace(shown, turn=0.0)).astype(np.float32)[None, :, :, None]
    for degrees in (40.0, 90.0, 200.0):
        after = np.asarray(ops.image.affine_transform(standing, _turns(np.radians([-degrees]).astype(np.float32), standing.shape)))
        assert off(after, render(replace(shown, turn=degrees))[None, :, :, None]) < 0.3 * off(
            standing, render(replace(shown, turn=degrees))[None, :, :, None]
        )


def test_pictures_are_turned_in_training_alone_each_by_its_own_angle_and_no_further_than_told() -> None:
    from edge.train_turned import turn_up_to

    clocks = upright(8)
    network = model(150)
    np.testing.assert_array_equal(network(clocks, training=False), clocks)
    turn_up_to(network, 0.0)
    np.testing.assert_allclose(network(clocks, training=True), clocks, atol=1e-2)
    distances = []
    for reach in (0.02, 1.0):
        turn_up_to(network, reach)
        distances.append([off(after, before) for after, before in zip(np.asarray(network(clocks, training=True)), clocks, strict=True)])
    assert np.mean(distances[0]) < 0.5 * np.mean(distances[1]) and len(set(distances[1])) == 8


def test_angles_grow_over_the_first_epochs_of_recipes_that_turn() -> None:
    from edge.train_loop import Training

    def reaches(name: str, epochs: int) -> list[float]:
        recipe: Any = RECIPES[name]
        nothing: Any = None
        training = Training(nothing, recipe, replace(recipe.schedule("float"), epochs=epochs), nothing, nothing, 0)
        return [round(training.reach(epoch), 3) for epoch in range(epochs)]

    assert reaches("clock", 20)[:6] == [0.125, 0.375, 0.625, 0.875, 1.0, 1.0] and reaches("clock", 1) == [1.0]
    assert set(reaches("lenet", 4)) == {0.0}
