"""Runs in Larq's environment: build networks with random weights and keep what the comparison needs of each.

    python zoo.py OUT NETWORK...

For every network OUT/NAME.h5 (as Keras 2.15 writes it), OUT/NAME.tflite (as Larq Compute Engine converts it) and OUT/NAME.npz: a few
pictures, what Keras answers, and on the first picture the value of every layer (`layer/NAME`). Nothing is downloaded.

Weights are random with a fixed seed. Batch norm takes its statistics from a batch of pictures, so that signs stay balanced all the way down
as in a trained network, then each channel's mean, variance, gamma and beta are moved at random, so that nothing is trivially one or zero.
The classifier is centred and widened, so that different pictures get different classes.

Beside the zoo's networks there are stacks of one binary 3x3 convolution, `stack-KIND-SIZE-CHANNELS-DEPTH`: the time of a layer alone is
the difference of a deep and a shallow stack. KIND `signs` is a chain, batch norm and sign between the layers, which Larq Compute Engine
fuses to thresholds; KIND `floats` are layers side by side on one input, each with a float32 output of which one pixel is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import larq
import larq_compute_engine as lce
import numpy as np
import tensorflow as tf
from larq_zoo import literature, sota
from larq_zoo.literature import meliusnet
from zookeeper import factory

SEED = 20
SIZE = 224
PICTURES = 16
BATCH = 4  # pictures of which batch norm takes its statistics
SPREAD = 2.0  # standard deviation of the classifier's outputs


@factory
class PlainMeliusNet22(meliusnet.MeliusNet22Factory):
    """MeliusNet22 without Lambda layers, whose Python code no reader of files can know: the operators inside them, recorded as such."""

    def group_conv(self, x: Any, filters: int, kernel: Any, groups: int, name: str | None = None) -> Any:
        depth, start = filters // groups, self.kernel_initializer
        layers = [tf.keras.layers.Conv2D(depth, kernel, padding="same", use_bias=False, kernel_initializer=start) for _ in range(groups)]
        convolved = [layer(part) for layer, part in zip(layers, tf.split(x, groups, axis=-1), strict=True)]
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


# -- single layers -------------------------------------------------------------------------------------------------------------


def _stack(kind: str, size: int, channels: int, depth: int) -> Any:
    source = x = tf.keras.layers.Input((size, size, channels))
    if kind == "signs":
        for _ in range(depth):
            x = tf.keras.layers.BatchNormalization(scale=False)(_binary(channels)(x))
        return tf.keras.Model(source, x)
    pixels = [tf.keras.layers.MaxPool2D(1, strides=size)(_binary(channels)(x)) for _ in range(depth)]
    return tf.keras.Model(source, tf.keras.layers.Concatenate()(pixels) if depth > 1 else pixels[0])


def _binary(channels: int) -> Any:
    """Padded with ones: zeros would keep Larq Compute Engine from writing packed outputs."""
    return larq.layers.QuantConv2D(
        channels, 3, padding="same", pad_values=1.0, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
    )


def build(name: str) -> Any:
    """A network of the zoo, or a stack, by name."""
    if name in NETWORKS:
        return NETWORKS[name]()
    _, kind, *numbers = name.split("-")
    return _stack(kind, *map(int, numbers))


# -- weights and inputs --------------------------------------------------------------------------------------------------------


def pictures(count: int, shape: tuple[int, int, int], random: np.random.Generator) -> np.ndarray:
    """Smooth pictures with some noise, values about -2..2, (count, *shape)."""
    coarse = random.normal(size=(count, 8, 8, shape[2])).astype(np.float32)
    smooth = tf.image.resize(coarse, shape[:2], method="bicubic").numpy()
    return (smooth + 0.3 * random.normal(size=smooth.shape)).astype(np.float32)


def randomize(model: Any, batch: np.ndarray, random: np.random.Generator) -> None:
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
    model(batch, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        layer.moving_mean.assign(mean + 0.1 * np.sqrt(variance) * random.normal(size=mean.shape))
        layer.moving_variance.assign(np.maximum(variance * random.uniform(0.8, 1.2, mean.shape), 1e-4))
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Dense):
            _centre(model, layer, batch)


def _centre(model: Any, dense: Any, batch: np.ndarray) -> None:
    """Give the classifier outputs of mean 0 and deviation `SPREAD` on `batch`."""
    outputs = np.asarray(tf.keras.Model(model.inputs, dense.output)(batch, training=False)) - dense.bias.numpy()
    factor = SPREAD / np.std(outputs - outputs.mean(axis=0))
    dense.kernel.assign(dense.kernel * factor)
    dense.bias.assign(-factor * outputs.mean(axis=0))


def values(model: Any, picture: np.ndarray) -> dict[str, np.ndarray]:
    """What every layer gives for one picture, by the layer's name, without the batch axis; layers of several outputs left out."""
    layers = [layer for layer in model.layers if not isinstance(layer.output, (list, tuple))]
    outputs = tf.keras.Model(model.inputs, [layer.output for layer in layers])(picture[None], training=False)
    return {f"layer/{layer.name}": np.asarray(output)[0] for layer, output in zip(layers, outputs, strict=True)}


def answered(name: str, make: Callable[[], Any], count: int, out: Path) -> Any:
    """A network with random weights; pictures, its answers and its values on the first are stored."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(SEED)
    random = np.random.default_rng(SEED)
    model = make()
    shape = tuple(model.inputs[0].shape[1:])
    randomize(model, pictures(BATCH, shape, random), random)
    x = pictures(count, shape, random)
    answers = np.concatenate([np.asarray(model(picture[None], training=False)) for picture in x])
    np.savez(out / f"{name}.npz", pictures=x, answers=answers, **values(model, x[0]))
    return model


def prepare(name: str, out: Path) -> None:
    model = answered(name, lambda: build(name), PICTURES if name in NETWORKS else 1, out)
    (out / f"{name}.tflite").write_bytes(lce.convert_keras_model(model))
    model.save(out / f"{name}.h5", save_format="h5")  # last: its presence says that the others are complete


def main(arguments: list[str], prepare: Callable[[str, Path], None] = prepare) -> None:
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments[1:]:
        prepare(name, out)
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
