"""How the networks that make pictures are trained: one `GanRecipe` each.

    from edge.recipes_gan import GANS

    GANS["gan-digits"].discriminator_steps

What the descriptions leave open is the field's standard for such networks (https://arxiv.org/abs/1511.06434): Adam with a first moment of
0.5, a rate of 2e-4, pictures of -1..1, labels of real pictures a little below 1. Colours are compared with the real ones besides
(https://arxiv.org/abs/1611.07004). The discriminator stays float at every precision: it runs nowhere but in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GanRecipe:
    """How one generator is trained.

    network: a name of `edge.zoo.GENERATORS`. data: a name of `edge.datasets`. discriminator_steps: for each step of the generator.
    rate: of both networks; rate_of_signs: of a generator with weights of few bits. pixels: weight of the mean distance from the real
    picture. real: what the discriminator is asked to answer to real pictures. judge: the recipe of the classifier of what is made.
    """

    name: str
    network: str
    data: str
    epochs: int
    batch: int = 128
    discriminator_steps: int = 1
    rate: float = 2e-4
    rate_of_signs: float = 1e-3
    pixels: float = 0.0
    real: float = 0.9
    judge: str | None = None


def _recipes() -> tuple[GanRecipe, ...]:
    digits = GanRecipe("gan-digits", "gan-digits", "mnist", epochs=50, discriminator_steps=5, judge="lenet")
    return (
        digits,
        GanRecipe("cgan-digits", "cgan-digits", "mnist", epochs=50, discriminator_steps=5, judge="lenet"),
        # Any folder of colour pictures; the description's are of 200,000 faces.
        GanRecipe("dcgan-faces", "dcgan-faces", "faces", epochs=25),
        GanRecipe("dcgan-color", "dcgan-color", "cifar10", epochs=50, pixels=100.0),
    )


GANS: Mapping[str, GanRecipe] = {each.name: each for each in _recipes()}
