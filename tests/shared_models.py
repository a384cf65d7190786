"""Keras models as people share them: the networks of `keras.applications` for small pictures, and models of common tutorials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Build = Callable[[Any], Any]
"""From the module `keras` to an untrained model."""


def _application(name: str, size: int, **options: Any) -> Build:
    return lambda keras: getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10, **options)


def augmented(keras: Any) -> Any:
    """The image classification tutorial of TensorFlow: augmentation and rescaling inside the model."""
    k = keras.layers
    augment = keras.Sequential([k.RandomFlip("horizontal"), k.RandomRotation(0.1), k.RandomZoom(0.1)], name="augment")
    body = [k.Rescaling(1 / 255)]
    for filters in (16, 32, 64):
        body += [k.Conv2D(filters, 3, padding="same", activation="relu"), k.MaxPooling2D()]
    return keras.Sequential(
        [keras.Input((48, 48, 3)), augment, *body, k.Dropout(0.2), k.Flatten(), k.Dense(128, activation="relu"), k.Dense(5)]
    )


def transfer(keras: Any) -> Any:
    """The transfer learning tutorial: MobileNetV2 inside a functional model, behind its `preprocess_input`."""
    k = keras.layers
    base = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    picture = keras.Input((32, 32, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(k.RandomFlip()(picture))
    x = k.Dropout(0.2)(k.GlobalAveragePooling2D()(base(x, training=False)))
    return keras.Model(picture, k.Dense(1, activation="sigmoid")(x))


def cifar(keras: Any) -> Any:
    """A common CNN of Kaggle for CIFAR-10: pairs of convolutions with ELU and batch normalization."""
    k = keras.layers
    body: list[Any] = []
    for filters in (32, 64):
        for _ in range(2):
            body += [k.Conv2D(filters, 3, padding="same"), k.Activation("elu"), k.BatchNormalization()]
        body += [k.MaxPooling2D(2), k.Dropout(0.3)]
    return keras.Sequential([keras.Input((32, 32, 3)), *body, k.Flatten(), k.Dense(10, activation="softmax")])


def caffe(keras: Any) -> Any:
    """A small VGG behind the `preprocess_input` of VGG16: blue first, means of the channels off."""
    k = keras.layers
    picture = keras.Input((32, 32, 3))
    x = keras.applications.vgg16.preprocess_input(picture)
    for filters in (16, 32):
        x = k.MaxPooling2D()(k.Conv2D(filters, 3, padding="same", activation="relu")(x))
    return keras.Model(picture, k.Dense(4, activation="softmax")(k.Flatten()(x)))


SMALL: Mapping[str, Build] = {
    "image classification tutorial": augmented,
    "transfer learning tutorial": transfer,
    "CIFAR-10 CNN": cifar,
    "VGG behind preprocess_input": caffe,
}
LARGE: Mapping[str, Build] = {
    "MobileNet": _application("MobileNet", 64, alpha=0.25),
    "MobileNetV2": _application("MobileNetV2", 64, alpha=0.35),
    "MobileNetV3Small": _application("MobileNetV3Small", 64),
    "ResNet50": _application("ResNet50", 32),
    "ResNet50V2": _application("ResNet50V2", 32),
    "DenseNet121": _application("DenseNet121", 32),
    "VGG16": lambda keras: keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), include_top=False, pooling="avg"),
    "EfficientNetB0": _application("EfficientNetB0", 32),
    "EfficientNetV2B0": _application("EfficientNetV2B0", 32),
    "NASNetMobile": _application("NASNetMobile", 64),
    "Xception": _application("Xception", 71),
    "InceptionV3": _application("InceptionV3", 75),
    "InceptionResNetV2": _application("InceptionResNetV2", 75),
    "ConvNeXtTiny": _application("ConvNeXtTiny", 32),
}


def randomize(model: Any, seed: int = 1) -> Any:
    """Batch norms as training leaves them (some gammas negative), biases that are not 0; kernels as Keras initialised them."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif "gamma" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1, 1, 1], weight.shape))
        elif any(part in weight.path for part in ("mean", "beta", "bias")):
            weight.assign(rng.normal(size=weight.shape) * 0.1)
    return model
