"""A model that takes a picture and a number, and gives classes and a place, made in memory."""

from __future__ import annotations

import numpy as np
from keras_models import kernel

from edge.converters.keras_model import Call, KerasModel, Value


def two_inputs(*, pictures: tuple[int, ...] = (6, 5, 3)) -> KerasModel:
    """A picture through a convolution and a number through a table of vectors, joined; two heads."""
    random = np.random.default_rng(7)
    rows = (pictures[0] - 2) * (pictures[1] - 2) * 4 + 8
    calls = (
        Call("scaled", "Rescaling", None, {"scale": 1 / 255}, {}, ("image",), ("scaled",)),
        Call("conv", "Conv2D", None, {"kernel_size": 3, "use_bias": False}, {"kernel": kernel(random, 3, 3, 3, 4)}, ("scaled",), ("conv",)),
        Call("flat", "Flatten", None, {}, {}, ("conv",), ("flat",)),
        Call("vectors", "Embedding", None, {}, {"embeddings": kernel(random, 10, 8)}, ("label",), ("vectors",)),
        Call("vector", "Flatten", None, {}, {}, ("vectors",), ("vector",)),
        Call("both", "Concatenate", None, {}, {}, ("flat", "vector"), ("both",)),
        Call("scores", "Dense", None, {"use_bias": False, "activation": "softmax"}, {"kernel": kernel(random, rows, 4)}, ("both",),
             ("scores",)),
        Call("place", "Dense", None, {"use_bias": False}, {"kernel": kernel(random, rows, 2)}, ("both",), ("place",)),
    )  # fmt: skip
    inputs = (Value("image", pictures), Value("label", (1,), "int32"))
    outputs = ("scores", "place")
    return KerasModel("two", "3.0", calls, inputs, outputs, outputs, "two.keras", "0" * 64, None)
