"""`edge train` of networks that make pictures: generator and discriminator in turns, the generator converted and run by the engine.

    result = train(settings_for("cgan-digits", precision="xnor"), Path("runs/cgan-digits-xnor"))

A run's folder holds what that of a classifier does, and `samples.png`, pictures that the converted file made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.datasets import Dataset, load
from edge.errors import InputError
from edge.files import write_atomically
from edge.recipes_gan import GANS, GanRecipe
from edge.train import LEAST_PICTURES, MODEL, Settings, Told, decisive, facts, finished, training_facts
from edge.train_folder import RESULT, claim
from edge.train_gan_loop import Pair, run
from edge.train_gan_result import Judge, convert_and_make
from edge.zoo import DISCRIMINATORS, build
from edge.zoo_generative import CLASSES
from edge.zoo_writer import Model, keras_package, save

_HELD_BACK = 1_000  # pictures that tell how well the discriminator does


@dataclass(frozen=True, kw_only=True)
class GanSettings(Settings):
    """What decides a run; discriminator_steps: for each step of the generator."""

    discriminator_steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discriminator_steps < 1:
            raise InputError(f"the discriminator takes 1 step or more for each of the generator, got {self.discriminator_steps}")

    @property
    def name(self) -> str:
        own = self.discriminator_steps == GANS[self.recipe].discriminator_steps
        return super().name + ("" if own else f"-{self.discriminator_steps}to1")

    @property
    def command(self) -> str:
        return f"{super().command} --discriminator-steps {self.discriminator_steps}"


def settings_for(
    name: str, *, precision: str = "float", width: float = 1.0, seed: int = 0, epochs: int | None = None, data: str | None = None,
    discriminator_steps: int | None = None,
) -> GanSettings:  # fmt: skip
    """The settings of a run; what is not given is the recipe's."""
    made = GANS[name]
    steps = made.discriminator_steps if discriminator_steps is None else discriminator_steps
    return GanSettings(name, precision, width, seed, made.epochs if epochs is None else epochs, data, discriminator_steps=steps)


def train(
    settings: GanSettings, folder: Path, *, resume: bool = False, told: Told | None = None, classifier: Path | None = None
) -> dict[str, Any]:
    """Train in `folder`, or with `resume` go on where a run with the same settings was cut off; the content of its `result.json`.

    classifier: an `.edge` file that judges what is made; without it that of the recipe's `judge`, where such a run stands in the folder
    beside this one. Raises `EdgeError` for settings and data that do not fit, and where the folder holds another run.
    """
    told = told or Told()
    made = GANS[settings.recipe]
    if (done := finished(settings, folder, resume=resume)) is not None:
        told.say(f"{folder} is done already")
        return done
    pair, data = _pair(settings, made, told)
    path = classifier or _judge_beside(made, folder, told)
    judge = Judge(path, tuple(pair.generator.output_shape[1:])) if path else None
    claim(folder, decisive(settings, data), resume=resume)
    state = run(pair, folder, settings.epochs, told=lambda row: told.epoch(settings, row), batch=told.batch)
    save(pair.generator, folder / MODEL)
    found = convert_and_make(folder, settings.precision, data.test, judge)
    result = {**facts(settings, made.network, data), "discriminator_steps": settings.discriminator_steps, **training_facts(state), **found}
    write_atomically(folder / RESULT, [json.dumps(result, indent=2).encode()])
    return result


def _judge_beside(made: GanRecipe, folder: Path, told: Told) -> Path | None:
    """The converted float net of the recipe's judge, in the folder beside this one."""
    if made.judge is None:
        return None
    path = folder.parent / f"{made.judge}-float" / "model.edge"
    if path.exists():
        return path
    told.say(f"no classifier judges what is made, since {path} is missing: edge train {made.judge}, or give --classifier")
    return None


def _pair(settings: GanSettings, made: GanRecipe, told: Told) -> tuple[Pair, Dataset]:
    keras_package().utils.set_random_seed(settings.seed)
    generator = build(made.network, settings.precision, width=settings.width)
    discriminator = DISCRIMINATORS[made.network](width=settings.width)
    data = load(made.data, path=settings.data, shape=tuple(generator.output_shape[1:]), say=told.say)
    _check(data, generator)
    part = max(min(_HELD_BACK, len(data.train) // 5), 1)
    rate = made.rate if settings.precision in ("float", "folded") else made.rate_of_signs
    networks = (generator, discriminator, made, rate, settings.discriminator_steps)
    return Pair(*networks, data.train[:-part], data.train[-part:], settings.seed), data


def _check(data: Dataset, generator: Model) -> None:
    if len(data.train) < LEAST_PICTURES:
        raise InputError(f"a training needs {LEAST_PICTURES} pictures or more, got {len(data.train)}; give more")
    if "label" not in [each.name for each in generator.inputs]:
        return
    for part, pictures in (("train", data.train), ("test", data.test)):
        if pictures.y.ndim != 1 or pictures.y.max() >= CLASSES:
            raise InputError(
                f"the network makes pictures of {CLASSES} classes, from 0, but the labels of the {part} pictures are {pictures.y.shape} "
                f"up to {pictures.y.max()}; give data of as many classes"
            )
