"""The model that is trained: a network behind random changes of its pictures, its answers beside those of a teacher.

Keras is imported when it is built; nothing but `keras.ops` and Keras' own layers is used, so that any backend trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import numpy as np

from edge.recipes import Augment, Recipe, Schedule
from edge.train_turned import turned
from edge.zoo_writer import Model, Tensor, keras_package

HALF = "mixed_bfloat16"
TEMPERATURE = 3.0  # of the answers that a pupil compares with its teacher's
MOMENTUM = 0.9
_GREY_LEVELS = 255


def logits_of(network: Model) -> Model:
    """The same network up to the inputs of the softmax layers it ends in, sharing its weights; without any it gives logits itself."""
    keras = keras_package()
    softmax = [layer for layer in network.layers if isinstance(layer, keras.layers.Softmax)]
    ends = [layer.input for layer in softmax if any(layer.output is output for output in network.outputs)]
    return keras.Model(network.input, ends or network.outputs)


def begin_as(teacher: Model, network: Model) -> None:
    """Give the layers of `network` the kernels of the teacher's layers of the same name; its biases and norms stay."""
    kernels = {layer.name: layer.kernel for layer in teacher.layers if hasattr(layer, "kernel")}
    for layer in network.layers:
        if hasattr(layer, "kernel") and layer.name in kernels:
            layer.kernel.assign(kernels[layer.name])


def pupil(network: Model, recipe: Recipe, schedule: Schedule, steps: int, *, epochs: int, teacher: Model | None = None) -> Model:
    """The compiled model that trains `network` for `epochs` of `steps` batches: pictures 0..255 in, one tensor for each output.

    With a `teacher` that is the logits of the network (N, classes) and behind them the teacher's, along the last axis.
    """
    keras = keras_package()
    picture = keras.Input(network.input_shape[1:])
    seen = _augmented(picture, recipe.augment)
    if recipe.turning:
        seen = turned(seen)
    answers = logits_of(network)(seen)
    if teacher is not None:
        teacher.trainable = False
        theirs = _untrained_class()(logits_of(teacher))(seen)
        answers = [keras.ops.concatenate(pair, axis=-1) for pair in zip(answers, theirs, strict=True)]
    share = schedule.teacher if teacher is not None else 0.0
    model = keras.Model(picture, answers)
    model.compile(
        optimizer(schedule, steps, epochs),
        loss=[loss(share) for _ in answers],
        loss_weights=list(recipe.loss_weights),
        jit_compile=False,  # on processors XLA takes twice the time
    )
    return model


@cache
def _untrained_class() -> type:
    """A layer that asks a network as it answers outside a training, without dropout.

    `network(x, training=False)` does not: within a model a network is told anew whether it is trained, each time that the model is.
    """

    class Untrained(keras_package().layers.Layer):  # type: ignore[misc]
        def __init__(self, network: Model, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.network = network

        def call(self, inputs: Tensor) -> list[Tensor]:
            answers = self.network(inputs, training=False)
            return list(answers) if isinstance(answers, (list, tuple)) else [answers]

    return Untrained


def _augmented(picture: Tensor, change: Augment) -> Tensor:
    layers = keras_package().layers
    x = picture
    if change.flip:
        x = layers.RandomFlip("horizontal")(x)
    for amount, layer in ((change.turn, layers.RandomRotation), (change.zoom, layers.RandomZoom)):
        if amount:
            x = layer(amount, fill_mode="constant")(x)
    if change.shift:
        # Whole pixels where nothing else mixes neighbours: parts of pixels would blur what is sharp outside the training.
        mixing = "bilinear" if change.turn or change.zoom else "nearest"
        x = layers.RandomTranslation(change.shift, change.shift, fill_mode="constant", interpolation=mixing)(x)
    return layers.GaussianNoise(change.noise)(x) if change.noise else x


def loss(teacher_share: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross entropy with the labels and, to `teacher_share`, with what a teacher answers (Hinton et al., arXiv:1503.02531)."""
    keras = keras_package()
    ops = keras.ops

    def cross_entropy(labels: Tensor, answers: Tensor) -> Tensor:
        return keras.losses.sparse_categorical_crossentropy(labels, answers, from_logits=True)

    def taught(labels: Tensor, answers: Tensor) -> Tensor:
        mine, theirs = ops.split(answers, 2, axis=-1)
        soft = ops.log_softmax(ops.stop_gradient(theirs) / TEMPERATURE)
        divergence = ops.sum(ops.exp(soft) * (soft - ops.log_softmax(mine / TEMPERATURE)), axis=-1)
        imitation = TEMPERATURE**2 * divergence  # the gradient of softened answers is smaller by that square
        return (1 - teacher_share) * cross_entropy(labels, mine) + teacher_share * imitation

    return taught if teacher_share else cross_entropy


def optimizer(schedule: Schedule, steps: int, epochs: int) -> Any:
    """A linear warm-up to the schedule's rate, then half a cosine down to 0 at the end of `epochs`."""
    optimizers = keras_package().optimizers
    warm_up = min(round(schedule.warm_up * steps), epochs * steps // 2)
    rate = optimizers.schedules.CosineDecay(
        initial_learning_rate=schedule.rate / 100,
        decay_steps=max(epochs * steps - warm_up, 1),
        warmup_target=schedule.rate,
        warmup_steps=warm_up,
    )
    if schedule.optimizer == "sgd":
        return optimizers.SGD(rate, momentum=MOMENTUM, nesterov=True, weight_decay=schedule.decay or None)
    return optimizers.Adam(rate)


def float_weights(network: Model) -> AbstractContextManager[None]:
    """Weights of 1 bit as floats for a while: signs are taken between layers alone."""
    return meanwhile([layer for layer in network.layers if hasattr(layer, "kernel_quantizer")], "kernel_quantizer", None)


def half_precision(*networks: Model | None) -> AbstractContextManager[None]:
    """Layers compute in bfloat16 for a while, whose range is float32's, so that no loss needs a scale; weights stay float32.

    What was traced before keeps its types: only functions first called within compute so (https://arxiv.org/abs/1710.03740).
    """
    return meanwhile([layer for network in networks if network is not None for layer in network.layers], "dtype_policy", HALF)


@contextmanager
def meanwhile(layers: Iterable[Any], name: str, value: Any) -> Iterator[None]:
    """The attribute of these layers as `value`, and at the end as it was."""
    before = {layer: getattr(layer, name) for layer in layers}
    try:
        for layer in before:
            setattr(layer, name, value)
        yield
    finally:
        for layer, own in before.items():
            setattr(layer, name, own)


def reseed(model: Model, seed: int, epoch: int) -> None:
    """Give every layer with random numbers (dropout, changes of pictures) a state that follows from seed and epoch alone."""
    random = np.random.default_rng((seed, epoch, 1))
    for state in model.variables:
        if state.path.endswith("seed_generator_state"):
            state.assign(random.integers(0, 2**31, state.shape).astype(state.dtype))
