"""Runs in Larq's environment: build the zoo's networks with random weights and keep what the comparison needs of each.

    python zoo.py OUT [NETWORK...]

For every network OUT/NAME.h5 (as Keras 2.15 writes it), OUT/NAME.tflite (as Larq Compute Engine converts it) and OUT/NAME.npz: a few
pictures, what Keras answers, and on the first picture the value of every layer (`layer/NAME`). Nothing is downloaded.

Weights are random with a fixed seed. Batch norm takes its statistics from a batch of pictures, so that signs stay balanced all the way down
as in a trained network, then each channel's mean, variance, gamma and beta are moved at random, so that nothing is trivially one or zero.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import larq_compute_engine as lce
import numpy as np
import tensorflow as tf
from larq_zoo import literature, sota
from larq_zoo.literature import meliusnet
from zookeeper import factory

SEED = 20
SIZE = 224
PICTURES = 8
EASY_BATCH = 4  # pictures of which batch norm takes its statistics


@factory
class PlainMeliusNet22(meliusnet.MeliusNet22Factory):
    """MeliusNet22 without Lambda layers, which hold Python code that no file reader can know: the operators inside them, recorded as such."""

    def group_conv(self, x: Any, filters: int, kernel: Any, groups: int, name: str | None = None) -> Any:
        parts = tf.split(x, groups, axis=-1)
        convolved = [
            tf.keras.layers.Conv2D(filters // groups, kernel, padding="same", use_bias=False, kernel_initializer=self.kernel_initializer)(part)
            for part in parts
        ]
        return tf.keras.layers.Concatenate()(convolved)

    def dense_block(self, x: Any, name: str | None = None) -> Any:
        return tf.keras.layers.Concatenate(name=f"{name}_concat")([x, self._branch(x, name)])

    def improvement_block(self, x: Any, name: str | None = None) -> Any:
        before = int(x.shape[-1]) - 64
        return x + tf.pad(self._branch(x, name), [[0, 0], [0, 0], [0, 0], [before, 0]])

    def _branch(self, x: Any, name: str | None) -> Any:
        return self.quant_conv(self.norm(x, name=f"{name}_bn"), 64, 3, name=f"{name}_binconv")


def _melius() -> Any:
    return PlainMeliusNet22(include_top=True, weights=None, input_shape=(SIZE, SIZE, 3), num_classes=1000).build()


def _dense() -> Any:
    """As a plain Keras model: the zoo's own class of the same network adds nothing."""
    model = literature.BinaryDenseNet28(weights=None, input_shape=(SIZE, SIZE, 3))
    return tf.keras.Model(model.inputs, model.outputs, name=model.name)


def _zoo(build: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: build(weights=None, input_shape=(SIZE, SIZE, 3))


NETWORKS: dict[str, Callable[[], Any]] = {
    "QuickNetSmall": _zoo(sota.QuickNetSmall),
    "QuickNet": _zoo(sota.QuickNet),
    "QuickNetLarge": _zoo(sota.QuickNetLarge),
    "BiRealNet": _zoo(literature.BiRealNet),
    "BinaryAlexNet": _zoo(literature.BinaryAlexNet),
    "BinaryResNetE18": _zoo(literature.BinaryResNetE18),
    "BinaryDenseNet28": _dense,
    "MeliusNet22": _melius,
}


def pictures(count: int, random: np.random.Generator) -> np.ndarray:
    """Smooth pictures with some noise, values about -2..2, (count, SIZE, SIZE, 3)."""
    coarse = random.normal(size=(count, 8, 8, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, (SIZE, SIZE), method="bicubic").numpy()
    return (smooth + 0.3 * random.normal(size=smooth.shape)).astype(np.float32)


def randomize(model: Any, random: np.random.Generator) -> None:
    """Random scales first, statistics that fit them next, then every statistic a little off."""
    norms = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    for layer in norms:
        count = layer.moving_mean.shape[0]
        if layer.gamma is not None:
            sign = np.where(random.random(count) < 0.1, -1.0, 1.0)
            layer.gamma.assign(sign * random.uniform(0.5, 1.5, count))
        if layer.beta is not None:
            layer.beta.assign(random.normal(0.0, 0.3, count))
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(pictures(EASY_BATCH, random), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        layer.moving_mean.assign(mean + 0.1 * np.sqrt(variance) * random.normal(size=mean.shape))
        layer.moving_variance.assign(np.maximum(variance * random.uniform(0.8, 1.2, mean.shape), 1e-4))


def values(model: Any, picture: np.ndarray) -> dict[str, np.ndarray]:
    """What every layer gives for one picture, by the layer's name, without the batch axis; layers of several outputs left out."""
    layers = [layer for layer in model.layers if not isinstance(layer.output, (list, tuple))]
    outputs = tf.keras.Model(model.inputs, [layer.output for layer in layers])(picture[None], training=False)
    return {f"layer/{layer.name}": np.asarray(output)[0] for layer, output in zip(layers, outputs, strict=True)}


def prepare(name: str, out: Path) -> None:
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(SEED)
    random = np.random.default_rng(SEED)
    model = NETWORKS[name]()
    randomize(model, random)
    x = pictures(PICTURES, random)
    answers = np.concatenate([np.asarray(model(picture[None], training=False)) for picture in x])
    np.savez(out / f"{name}.npz", pictures=x, answers=answers, **values(model, x[0]))
    (out / f"{name}.tflite").write_bytes(lce.convert_keras_model(model))
    model.save(out / f"{name}.h5", save_format="h5")  # last: its presence says that the others are complete


def main(arguments: list[str]) -> None:
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments[1:] or NETWORKS:
        prepare(name, out)
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
