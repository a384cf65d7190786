"""The ReLU twin of the example network: what its user would run without edge, the peer of `benchmarks/test_digits.py`.

    python benchmarks/digits_twin.py                      # fetches MNIST through Keras
    python benchmarks/digits_twin.py --data mnist.npz     # x_train, y_train, x_test, y_test

It has the widths, kernels and strides of `examples/train_digits.py`, float weights, and ReLU where that network takes signs. TensorFlow's
converter makes a fully integer int8 model of it, input and output included, calibrated on training pictures. Two choices favour the twin:
each batch norm stands directly behind its convolution, where the converter folds it away (a pool in between would keep it as two operations
at run time), and pictures come already rescaled to 0..1, which in int8 is pixel - 128.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from bench_litert import LiteRt
from keras import layers
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "examples"))

from train_digits import PIXEL_STEP, Batches, Digits, accuracy, learning_rate, load  # noqa: E402

CACHE = HERE / ".cache"
INT8_FILE, FLOAT_FILE = "digits_twin_int8.tflite", "digits_twin_float32.tflite"
CALIBRATION_PICTURES = 500

Pictures = NDArray[np.uint8]


def twin() -> Any:
    """Return the untrained twin: 28x28x1 pictures of 0..255 to 10 probabilities."""
    return keras.Sequential(
        [
            layers.Input((28, 28, 1), name="picture"),
            layers.Rescaling(PIXEL_STEP, name="rescale"),
            *_block(layers.Conv2D(32, 5, padding="same", use_bias=False, name="conv1"), "1"),
            layers.MaxPooling2D(2, name="pool1"),
            *_block(layers.Conv2D(64, 5, padding="same", use_bias=False, name="conv2"), "2"),
            layers.MaxPooling2D(2, name="pool2"),
            *_block(layers.Conv2D(64, 3, padding="same", use_bias=False, name="conv3"), "3"),
            layers.Flatten(name="flatten"),
            *_block(layers.Dense(128, use_bias=False, name="dense1"), "4"),
            layers.Dense(10, name="logits"),
            layers.Softmax(name="probabilities"),
        ],
        name="digits_twin",
    )


def _block(layer: Any, number: str) -> tuple[Any, ...]:
    return layer, layers.BatchNormalization(momentum=0.9, name=f"norm{number}"), layers.ReLU(name=f"relu{number}")


def train(model: Any, digits: Digits, *, epochs: int, batch: int) -> None:
    """Train in place, on pictures distorted as the example's were."""
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: learning_rate(epoch, epochs, warm_up=1))
    model.fit(Batches(digits, batch, 1, 0), shuffle=False, epochs=epochs, callbacks=[rates], verbose=2)


def float_tflite(model: Any) -> bytes:
    """Return the twin as a float32 `.tflite`, from pictures of 0..1 (its first layer, the rescaling, left out)."""
    return _converted(model, lambda converter: None)


def int8_tflite(model: Any, pictures: Pictures) -> bytes:
    """Return the twin as an integer-only int8 `.tflite`, calibrated on `pictures` (N, 28, 28, 1) of 0..255."""
    import tensorflow as tf

    def quantize(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([rescaled(picture[np.newaxis])] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    return _converted(model, quantize)


def _converted(model: Any, configure: Callable[[Any], None]) -> bytes:
    """Convert all but the first layer of `model`, for one picture at a time."""
    import tensorflow as tf

    behind_rescaling = keras.Sequential([layers.Input((28, 28, 1), batch_size=1), *model.layers[1:]])
    with tempfile.TemporaryDirectory() as folder:
        behind_rescaling.export(folder, verbose=False, input_signature=[keras.InputSpec(shape=(1, 28, 28, 1), dtype="float32")])
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        configure(converter)
        return bytes(converter.convert())


def rescaled(pictures: Pictures) -> NDArray[np.float32]:
    """What the `.tflite` files take of pictures of 0..255."""
    return pictures.astype(np.float32) * np.float32(PIXEL_STEP)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    keras.utils.set_random_seed(1)
    digits, test = load(options.data)
    model = twin()
    train(model, digits, epochs=options.epochs, batch=options.batch)
    options.output.mkdir(parents=True, exist_ok=True)
    model.save(options.output / "digits_twin.keras", include_optimizer=False)
    integer = int8_tflite(model, digits.x[:CALIBRATION_PICTURES])
    (options.output / FLOAT_FILE).write_bytes(float_tflite(model))
    (options.output / INT8_FILE).write_bytes(integer)
    right = LiteRt(integer).classify(rescaled(test.x)) == test.y
    print(f"test accuracy: float32 {100 * accuracy(model, test):.2f} %, int8 {100 * right.mean():.2f} %: {options.output / INT8_FILE}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the ReLU twin of the example network and convert it to int8.")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="local MNIST; default: fetched through Keras")
    parser.add_argument("--output", type=Path, default=CACHE, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
