"""Train the example network on MNIST and write `digits.h5`.

    python examples/train_digits.py                      # fetches MNIST through Keras
    python examples/train_digits.py --data mnist.npz     # x_train, y_train, x_test, y_test
    python examples/train_digits.py --resume             # go on after an interruption

Weights and activations of the convolutions and of the hidden dense layer are -1 or +1. The first convolution and the
logits have weights on a grid that 8 bits hold, which they are trained on: the first on q/256, so that with pixels k/256
every sum is exact in float32, in whatever order it is added up. Each batch norm before a sign changes sign halfway
between two sums that can occur, so that no rounding decides a bit. The last 5,000 training pictures choose the best
epoch; the test pictures are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from edge.training import QuantConv2D, QuantDense, Quantizer, WeightClip, pass_where_small, register_quantizer

PIXEL_STEP, FIRST_STEP, LOGITS_STEP, LEVELS = 2.0**-8, 2.0**-8, 2.0**-7, 127
# What neighbouring values before the batch norms that a sign follows differ by: sums of pixels and of +1 and -1.
SUM_STEPS = {"norm1": PIXEL_STEP * FIRST_STEP, "norm2": 1.0, "norm3": 1.0}
VALIDATION_PICTURES = 5_000
HERE = Path(__file__).resolve().parent

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Pictures (N, 28, 28, 1) of 0..255 and labels (N,) of 0..9."""

    x: Pictures
    y: Labels

    def __getitem__(self, rows: slice) -> Digits:
        return Digits(self.x[rows], self.y[rows])


# The network


@register_quantizer("grid")
class Grid(Quantizer):
    """Round to q * step for whole q in [-127, 127]; the gradient passes inside that range."""

    precision = 8

    def __init__(self, step: float) -> None:
        self.step = step

    def forward(self, x: Any) -> Any:
        return ops.clip(ops.round(x / self.step), -LEVELS, LEVELS) * self.step

    def gradient(self, x: Any, upstream: Any) -> Any:
        return pass_where_small(x, upstream, LEVELS * self.step)

    def get_config(self) -> dict[str, Any]:
        return {"step": self.step}


def binary(layer: Callable[..., Any], *args: Any, name: str, **kwargs: Any) -> Any:
    """A quantized layer with binary input and weights and no bias: the batch norm after it has one."""
    return layer(
        *args,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        kernel_constraint="weight_clip",
        use_bias=False,
        name=name,
        **kwargs,
    )


def on_grid(layer: Callable[..., Any], *args: Any, step: float, **kwargs: Any) -> Any:
    """A quantized layer that is trained with 8-bit weights; `shippable` makes it an ordinary one."""
    clip = WeightClip(LEVELS * step)
    return layer(*args, kernel_quantizer=Grid(step), kernel_constraint=clip, **kwargs)


def batch_norm(name: str) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=name)


def network() -> Any:
    """Return the network as it is trained: 28x28x1 pictures of 0..255 to 10 probabilities."""
    return keras.Sequential(
        [
            layers.Input((28, 28, 1), name="picture"),
            layers.Rescaling(PIXEL_STEP, name="rescale"),
            on_grid(QuantConv2D, 32, 5, step=FIRST_STEP, padding="same", use_bias=False, name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            batch_norm("norm1"),
            binary(QuantConv2D, 64, 5, padding="same", name="conv2"),
            layers.MaxPooling2D(2, name="pool2"),
            batch_norm("norm2"),
            binary(QuantConv2D, 64, 3, padding="same", name="conv3"),
            batch_norm("norm3"),
            layers.Flatten(name="flatten"),
            binary(QuantDense, 128, name="dense1"),
            batch_norm("norm4"),
            layers.ReLU(name="relu"),
            on_grid(QuantDense, 10, step=LOGITS_STEP, name="logits"),
            layers.Softmax(name="probabilities"),
        ],
        name="digits",
    )


def shippable(trained: Any) -> Any:
    """Return `trained` with Keras' own first and last layer, whose weights lie on their grids, and centred thresholds."""
    plain = keras.Sequential([trained.inputs[0], *map(_shippable_layer, trained.layers)], name=trained.name)
    for old, new in zip(trained.layers, plain.layers, strict=True):
        new.set_weights(old.get_weights())
        if isinstance(getattr(old, "kernel_quantizer", None), Grid):
            new.kernel.assign(old.kernel_quantizer(old.kernel))
    for name, step in SUM_STEPS.items():
        _centre_threshold(plain.get_layer(name), step)
    return plain


def _centre_threshold(norm: Any, step: float) -> None:
    """Change beta a little, so that the sign of the output changes halfway between two multiples of `step`.

    No multiple of `step` gets another sign by this; none stays so close to the threshold that rounding could give it one.
    """
    gamma, beta, mean, variance = (np.asarray(weight, np.float64) for weight in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    threshold = (np.floor((mean - beta / scale) / step) + 0.5) * step
    norm.beta.assign(scale * (mean - threshold))


def _shippable_layer(layer: Any) -> Any:
    config = layer.get_config()
    if not isinstance(getattr(layer, "kernel_quantizer", None), Grid):
        return type(layer).from_config(config)
    plain = layers.Conv2D if isinstance(layer, QuantConv2D) else layers.Dense
    ours = ("input_quantizer", "kernel_quantizer", "kernel_constraint", "pad_values", "magnitude_map")
    return plain.from_config({key: value for key, value in config.items() if key not in ours})


# The data


def load(path: Path | None) -> tuple[Digits, Digits]:
    """Return the training and the test pictures, from an .npz or, without one, through Keras."""
    if path is None:
        train, test = keras.datasets.mnist.load_data()
    else:
        with np.load(path) as data:
            train, test = ((data[f"x_{part}"], data[f"y_{part}"]) for part in ("train", "test"))
    return _digits(*train), _digits(*test)


def _digits(x: NDArray[Any], y: NDArray[Any]) -> Digits:
    return Digits(x.reshape(-1, 28, 28, 1).astype(np.uint8), y.reshape(-1).astype(np.int64))


def distort(x: Floats, random: np.random.Generator) -> Floats:
    """Shift by up to 2 pixels, turn and slant by up to about 10 degrees, scale by up to 10 %: (N, H, W, 1), bilinear."""
    count, height, width, _ = x.shape
    angle, slant = random.uniform(-0.18, 0.18, (2, count))
    scale_y, scale_x = random.uniform(0.9, 1.1, (2, count))
    shift = random.uniform(-2, 2, (2, count))
    down, right = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")

    def source(a: NDArray[Any], b: NDArray[Any], offset: NDArray[Any], centre: float) -> NDArray[Any]:
        return np.asarray(a[:, None, None] * down + b[:, None, None] * right + (offset + centre)[:, None, None])

    rows = source(np.cos(angle) * scale_y, np.sin(angle), shift[0], (height - 1) / 2)
    columns = source(slant - np.sin(angle), np.cos(angle) * scale_x, shift[1], (width - 1) / 2)
    return np.expand_dims(_bilinear(x[..., 0], rows, columns), -1)


def _bilinear(x: Floats, rows: NDArray[Any], columns: NDArray[Any]) -> Floats:
    """Sample each picture of (N, H, W) at its own (N, H, W) positions; outside is 0."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    row = np.clip(rows + 1, 0, padded.shape[1] - 1.001)
    column = np.clip(columns + 1, 0, padded.shape[2] - 1.001)
    top, left = row.astype(np.intp), column.astype(np.intp)
    below, beside = (row - top).astype(np.float32), (column - left).astype(np.float32)
    which = np.arange(len(x))[:, None, None]
    upper = padded[which, top, left] * (1 - beside) + padded[which, top, left + 1] * beside
    lower = padded[which, top + 1, left] * (1 - beside) + padded[which, top + 1, left + 1] * beside
    return np.asarray(upper * (1 - below) + lower * below, dtype=np.float32)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled, distorted batches; the order and the distortion follow from seed, epoch and batch alone."""

    def __init__(self, digits: Digits, batch: int, seed: int, epoch: int) -> None:
        super().__init__()
        self.digits, self.batch, self.seed, self.epoch = digits, batch, seed, epoch
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.digits.x))

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def __len__(self) -> int:
        return len(self.order) // self.batch

    def __getitem__(self, index: int) -> tuple[Floats, Labels]:
        rows = self.order[index * self.batch : (index + 1) * self.batch]
        random = np.random.default_rng((self.seed, self.epoch, index))
        return distort(self.digits.x[rows].astype(np.float32), random), self.digits.y[rows]


# The training


def learning_rate(epoch: int, epochs: int, *, peak: float = 3e-3, last: float = 1e-5, warm_up: int = 2) -> float:
    """Rise over the first epochs, then follow half a cosine from `peak` down to `last`."""
    if epoch < warm_up:
        return peak * (epoch + 1) / (warm_up + 1)
    done = (epoch - warm_up) / max(epochs - warm_up - 1, 1)
    return last + (peak - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


class Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """After each epoch write `last.keras`, with the optimizer, and, if it is the best so far, `best.keras`."""

    def __init__(self, folder: Path, best: float) -> None:
        super().__init__()
        self.folder, self.best = folder, best

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        accuracy = (logs or {})["val_accuracy"]
        if accuracy >= self.best:
            self.best = accuracy
            _save(self.model, self.folder / "best.keras")
        # Written second: after a kill in between, the epoch is done again and ends in the same two files.
        _save(self.model, self.folder / "last.keras")


def _save(model: Any, path: Path, **options: Any) -> None:
    """Write beside `path`, then rename: a kill leaves the old file or the new one."""
    partial = path.with_stem(f".partial-{path.stem}")
    model.save(partial, **options)
    os.replace(partial, path)


def train(digits: Digits, *, epochs: int, batch: int, seed: int, folder: Path, resume: bool) -> Any:
    """Train, keep checkpoints in `folder` and return the model of the epoch that validates best."""
    folder.mkdir(parents=True, exist_ok=True)
    held_out = min(VALIDATION_PICTURES, len(digits.x) // 10)
    learn, validate = digits[:-held_out], digits[-held_out:]
    model, best = _start(folder, resume, validate, seed)
    epoch = int(model.optimizer.iterations) // (len(learn.x) // batch)
    model.fit(
        Batches(learn, batch, seed, epoch),
        validation_data=(validate.x.astype(np.float32), validate.y),
        validation_batch_size=500,
        shuffle=False,
        initial_epoch=epoch,
        epochs=epochs,
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda epoch: learning_rate(epoch, epochs)),
            Checkpoints(folder, best),
        ],
        verbose=2,
    )
    return keras.saving.load_model(folder / "best.keras")


def _start(folder: Path, resume: bool, validate: Digits, seed: int) -> tuple[Any, float]:
    """Return the model to go on with and the best validation accuracy so far."""
    if resume and (folder / "last.keras").exists():
        best = keras.saving.load_model(folder / "best.keras")
        return keras.saving.load_model(folder / "last.keras"), accuracy(best, validate)
    keras.utils.set_random_seed(seed)
    model = network()
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, 0.0


def accuracy(model: Any, digits: Digits) -> float:
    """Return the share of the pictures that `model` classifies rightly."""
    predicted = model.predict(digits.x.astype(np.float32), batch_size=500, verbose=0).argmax(axis=1)
    return float((predicted == digits.y).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    digits, test = load(options.data)
    model = shippable(
        train(
            digits,
            epochs=options.epochs,
            batch=options.batch,
            seed=options.seed,
            folder=options.checkpoints,
            resume=options.resume,
        )
    )
    _save(model, options.output, include_optimizer=False)
    print(f"{model.count_params():,} parameters, test accuracy {100 * accuracy(model, test):.2f} %: {options.output}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the example network on MNIST.")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="local MNIST; default: fetched through Keras")
    parser.add_argument("--output", type=Path, default=HERE / "digits.h5", metavar="FILE.h5")
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints", metavar="FOLDER")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
