"""A generator and its discriminator trained in turns, epoch after epoch, with a checkpoint after each.

What both are given follows from the names of their inputs: noise is drawn, `label` and `grey` are those of the real pictures of the batch.
Order, noise and dropout follow from seed and epoch, so that a training that is killed and resumed ends as one that is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.datasets import Part
from edge.errors import EdgeError
from edge.recipes_gan import GanRecipe
from edge.train_loop import Batch, Epoch, State, read_checkpoint, write_checkpoint
from edge.train_pupil import reseed
from edge.zoo_generative import NOISE, logit_of
from edge.zoo_writer import Model, keras_package

Array = NDArray[Any]
GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
_FIRST_MOMENT = 0.5
_LEVELS = 127.5  # of bytes, from the middle to either end


def as_levels(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes as -1..1."""
    return np.asarray(pictures / np.float32(_LEVELS) - 1, np.float32)


def as_bytes(pictures: Array) -> NDArray[np.uint8]:
    """-1..1 as bytes."""
    return np.asarray(np.rint((np.clip(pictures, -1, 1) + 1) * _LEVELS), np.uint8)


def grey_of(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) to (N, H, W, 1)."""
    return np.asarray(np.rint(pictures @ np.array(GREY))[..., np.newaxis], np.uint8)


def given(name: str, part: Part, random: np.random.Generator) -> Array:
    """What an input of this name takes, for each picture of `part`."""
    if name == "noise":
        return random.normal(size=(len(part), NOISE)).astype(np.float32)
    return part.y[:, np.newaxis].astype(np.int32) if name == "label" else grey_of(part.x).astype(np.float32)


@dataclass(frozen=True)
class Pair:
    """Two networks, and what decides how they are trained. rate: of the generator. held_back: pictures that neither learns from."""

    generator: Model
    discriminator: Model
    recipe: GanRecipe
    rate: float
    discriminator_steps: int
    train: Part
    held_back: Part
    seed: int

    @property
    def steps(self) -> int:
        """Of the generator in an epoch, each with a batch for each of the discriminator's; an epoch sees every picture about once."""
        return max(len(self.train) // (self.recipe.batch * self.discriminator_steps), 1)

    @cached_property
    def tells(self) -> Model:
        """The discriminator as it is trained, before its sigmoid."""
        model = logit_of(self.discriminator)
        model.compile(_adam(self.recipe.rate), loss=_real_or_not(), jit_compile=False)
        return model

    @cached_property
    def fools(self) -> Model:
        """The generator as it is trained: through the discriminator, and to its pictures where these are compared with real ones."""
        keras = keras_package()
        picture = self.generator(self.generator.input)
        answer = logit_of(self.discriminator)(_one_or_all([picture, *self._conditions]))
        outputs, losses, weights = [answer], [_real_or_not()], [1.0]
        if self.recipe.pixels:
            outputs, losses, weights = [answer, picture], [*losses, "mean_absolute_error"], [1.0, self.recipe.pixels]
        model = keras.Model(self.generator.input, _one_or_all(outputs))
        model.compile(_adam(self.rate), loss=_one_or_all(losses), loss_weights=_one_or_all(weights), jit_compile=False)
        return model

    @property
    def _conditions(self) -> list[Any]:
        """Inputs of the generator that the discriminator sees too."""
        return [each for each in self.generator.inputs if each.name != "noise"]

    def made(self, feeds: Sequence[Array]) -> Array:
        """Pictures of the generator as it runs, for `feeds` in the order of its inputs."""
        return np.asarray(self.generator.predict_on_batch(_one_or_all(feeds)))

    def feeds(self, part: Part, random: np.random.Generator) -> list[Array]:
        """What the generator takes for as many pictures."""
        return [given(each.name, part, random) for each in self.generator.inputs]

    def seen(self, pictures: Array, feeds: Sequence[Array]) -> list[Array]:
        """What the discriminator takes: pictures, and what they were asked to be."""
        names = [each.name for each in self.generator.inputs]
        return [pictures, *(feed for name, feed in zip(names, feeds, strict=True) if name != "noise")]


def _adam(rate: float) -> Any:
    return keras_package().optimizers.Adam(rate, beta_1=_FIRST_MOMENT)


def _real_or_not() -> Any:
    return keras_package().losses.BinaryCrossentropy(from_logits=True)


def _one_or_all(listed: Sequence[Any]) -> Any:
    """Keras takes the tensor itself where there is one."""
    return listed[0] if len(listed) == 1 else list(listed)


# -- epochs --------------------------------------------------------------------------------------------------------------------


def run(pair: Pair, folder: Path, epochs: int, *, told: Callable[[Epoch], None], batch: Batch) -> State:
    """Train to `epochs`, or go on from the checkpoint in `folder`; the generator keeps the weights of the last one."""
    state = read_checkpoint(folder)
    _restore(pair, state)
    for epoch in range(len(state.curve), epochs):
        row = _epoch(pair, epoch, batch)
        _record(pair, state, row)
        write_checkpoint(state, folder)
        told(row)
    return state


def _networks(pair: Pair) -> tuple[Model, Model]:
    return pair.generator, pair.discriminator


def _models(pair: Pair) -> tuple[Model, Model]:
    """Those that are trained, each with its optimizer built for what it changes."""
    found = []
    for model, changes in ((pair.fools, pair.generator), (pair.tells, pair.discriminator)):
        _change_only(pair, changes)
        model.optimizer.build(model.trainable_variables)
        found.append(model)
    return found[0], found[1]


def _change_only(pair: Pair, network: Model) -> None:
    for each in _networks(pair):
        each.trainable = each is network


def _restore(pair: Pair, state: State) -> None:
    variables = [variable for model in _models(pair) for variable in model.optimizer.variables]
    if state.weights:
        count = len(pair.generator.get_weights())
        pair.generator.set_weights(state.weights[:count])
        pair.discriminator.set_weights(state.weights[count:])
        for variable, value in zip(variables, state.optimizer, strict=True):
            variable.assign(value)


def _record(pair: Pair, state: State, row: Epoch) -> None:
    state.weights = [value for network in _networks(pair) for value in network.get_weights()]
    state.optimizer = [np.asarray(variable) for model in _models(pair) for variable in model.optimizer.variables]
    state.curve.append(row)
    state.best_epoch = row.epoch


def _epoch(pair: Pair, epoch: int, batch: Batch) -> Epoch:
    random = np.random.default_rng((pair.seed, epoch, 0))
    reseed(pair.discriminator, pair.seed, epoch)
    started, cpu, total = time.monotonic(), time.process_time(), 0.0
    parts = _batches(pair, random)
    for step in range(pair.steps):
        _change_only(pair, pair.discriminator)
        for _ in range(pair.discriminator_steps):
            part = next(parts)
            total += _tell_apart(pair, part, random)
        _change_only(pair, pair.generator)
        total += _fool(pair, part, random)
        batch(epoch, step + 1, pair.steps)
    if not np.isfinite(total):
        raise EdgeError(f"the training diverged: expected finite losses, got {total} in epoch {epoch + 1}; start anew with another --seed")
    told_apart = _told_apart(pair, random)
    return Epoch(epoch + 1, "", pair.rate, total / pair.steps, told_apart, time.monotonic() - started, time.process_time() - cpu)


def _batches(pair: Pair, random: np.random.Generator) -> Iterator[Part]:
    """Pictures in a random order, over and over."""
    size = min(pair.recipe.batch, len(pair.train))
    while True:
        order = random.permutation(len(pair.train))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield Part(pair.train.x[rows], pair.train.y[rows])


def _tell_apart(pair: Pair, part: Part, random: np.random.Generator) -> float:
    """One step of the discriminator, on real pictures and as many that are made."""
    feeds = pair.feeds(part, random)
    pairs = zip(pair.seen(as_levels(part.x), feeds), pair.seen(pair.made(feeds), feeds), strict=True)
    answers = np.repeat(np.array([pair.recipe.real, 0.0], np.float32), len(part))[:, np.newaxis]
    return _step(pair.tells, [np.concatenate(both) for both in pairs], answers) / pair.discriminator_steps


def _fool(pair: Pair, part: Part, random: np.random.Generator) -> float:
    """One step of the generator, which wants its pictures to be taken for real."""
    wanted = [np.ones((len(part), 1), np.float32)]
    if pair.recipe.pixels:
        wanted.append(as_levels(part.x))
    return _step(pair.fools, pair.feeds(part, random), _one_or_all(wanted))


def _step(model: Model, inputs: Sequence[Array], answers: Any) -> float:
    model.reset_metrics()
    return float(model.train_on_batch(_one_or_all(inputs), answers, return_dict=True)["loss"])


def _told_apart(pair: Pair, random: np.random.Generator) -> float:
    """The share of pictures held back, and of as many made ones, that the discriminator takes for what they are; 0.5 is by chance."""
    feeds = pair.feeds(pair.held_back, random)
    real, made = as_levels(pair.held_back.x), pair.made(feeds)
    logits = [np.asarray(pair.tells.predict_on_batch(_one_or_all(pair.seen(each, feeds)))) for each in (real, made)]
    return float(np.mean([(logits[0] > 0).mean(), (logits[1] <= 0).mean()]))
