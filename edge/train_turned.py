"""Pictures of a training turned by any angle, at first by a little.

`keras.ops` alone, so that any backend does it. What fills the corners is the nearest pixel of the picture.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from edge.zoo_writer import Model, Tensor, keras_package

_NAME = "turned"  # of the layer


def turned(pictures: Tensor) -> Tensor:
    """`pictures` (N, H, W, C), each turned in training by an angle of its own; how far at most, `turn_up_to` says."""
    return _turned_class()(name=_NAME)(pictures)


def turn_up_to(model: Model, reach: float) -> None:
    """How far a pupil's pictures are turned, as a share of half a turn; nothing where its recipe does not turn them."""
    for layer in model.layers:
        if layer.name == _NAME:
            layer.reach.assign(reach)


@cache
def _turned_class() -> type:
    """A layer that turns each picture of a training by an angle of its own, up to `reach` times half a turn either way."""
    keras = keras_package()
    ops = keras.ops

    class Turned(keras_package().layers.Layer):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.seeds = keras.random.SeedGenerator(0)
            self.reach = self.add_weight(shape=(), initializer="ones", trainable=False, name="reach")

        def call(self, pictures: Tensor, training: bool | None = None) -> Tensor:
            if not training:
                return pictures
            angles = self.reach * keras.random.uniform(ops.shape(pictures)[:1], -math.pi, math.pi, seed=self.seeds)
            return ops.image.affine_transform(pictures, _turns(angles, pictures.shape), interpolation="bilinear", fill_mode="nearest")

    return Turned


def _turns(angles: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Turns about the centre of pictures (N, H, W, C) by `angles` (N,) as `keras.ops.image.affine_transform` takes them, (N, 8)."""
    ops = keras_package().ops
    cosine, sine, zero = ops.cos(angles), ops.sin(angles), ops.zeros_like(angles)
    y, x = ((size - 1) / 2 for size in shape[1:3])
    return ops.stack([cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, zero, zero], axis=1)
