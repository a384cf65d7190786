"""Every layer of Keras that converts, with random options: kernels higher than wide, odd sizes, other channels out than in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

IMAGE, ROW, FLAT = "image", "row", "flat"
JOINS = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
ACTIVATIONS = (
    None,
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "silu", "gelu", "softplus", "softsign", "mish"),
    *("exponential", "hard_sigmoid", "hard_silu", "hard_tanh", "celu", "log_sigmoid", "tanh_shrink", "soft_shrink"),
    *("sparse_plus", "sparse_sigmoid", "squareplus", "softmax", "log_softmax"),
)


class Draw:
    """Random options; `k` is `keras.layers`."""

    def __init__(self, k: Any, seed: int) -> None:
        self.k, self.random = k, np.random.default_rng(seed)

    def one(self, *values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def sides(self, rank: int, most: int = 3) -> Any:
        """A number for each axis, or for one axis the number."""
        found = tuple(int(n) for n in self.random.integers(1, most + 1, rank))
        return found if rank > 1 else found[0]

    def window(self, rank: int, *, equal_strides: bool = False) -> dict[str, Any]:
        """Of a convolution: strides or dilation, padding, bias, an activation of its own."""
        steps = self.one({"strides": self.one(1, 2) if equal_strides else self.sides(rank)}, {"dilation_rate": self.sides(rank, 2)}, {})
        common = {"use_bias": self.one(True, False), "activation": self.one(None, "relu", "tanh"), "padding": self.one("same", "valid")}
        return {"kernel_size": self.sides(rank), **common, **steps}


def _conv(rank: int) -> Callable[[Draw], Any]:
    def make(d: Draw) -> Any:
        options = d.window(rank)
        if rank == 1 and d.one(True, False):
            options["padding"] = "causal"
        groups = d.one(1, 1, 2, 3)
        return (d.k.Conv1D if rank == 1 else d.k.Conv2D)(d.one(3, 9, 12) if groups == 1 else 6 * d.one(1, 2), groups=groups, **options)

    return make


def _transposed(rank: int) -> Callable[[Draw], Any]:
    def make(d: Draw) -> Any:
        options = {key: value for key, value in d.window(rank).items() if key != "dilation_rate"}
        steps = d.one(1, 2, 3)
        options["strides"] = steps if rank == 1 else (steps, d.one(1, 2))
        return (d.k.Conv1DTranspose if rank == 1 else d.k.Conv2DTranspose)(d.one(2, 5, 9), **options)

    return make


def _pool(name: str) -> Callable[[Draw], Any]:
    def make(d: Draw) -> Any:
        rank = 1 if name.endswith("1D") else 2
        return getattr(d.k, name)(d.sides(rank), strides=d.one(None, d.sides(rank)), padding=d.one("same", "valid"))

    return make


def _separable(rank: int) -> Callable[[Draw], Any]:
    make = {1: "SeparableConv1D", 2: "SeparableConv2D"}[rank]
    return lambda d: getattr(d.k, make)(d.one(4, 9), depth_multiplier=d.one(1, 2), **d.window(rank, equal_strides=True))


def _depthwise(rank: int) -> Callable[[Draw], Any]:
    make = {1: "DepthwiseConv1D", 2: "DepthwiseConv2D"}[rank]
    return lambda d: getattr(d.k, make)(depth_multiplier=d.one(1, 2), **d.window(rank, equal_strides=True))


def _join(name: str) -> Callable[[Draw], Any]:
    """A join of a tensor with what a convolution and a gate make of it, some with an axis of 1 in place of another."""

    def make(d: Draw) -> Any:
        def join(x: Any) -> Any:
            others = [d.k.Conv2D(6, d.sides(2), padding="same")(x) for _ in range(1 if name == "Subtract" else d.one(1, 2))]
            if name != "Concatenate" and d.one(True, False):
                others[0] = d.k.GlobalAveragePooling2D(keepdims=True)(others[0])
            options = {"axis": d.one(-1, 1, 2, 3)} if name == "Concatenate" else {}
            return getattr(d.k, name)(**options)([x, *others])

        return join

    return make


def _norm(d: Draw) -> Any:
    return d.k.BatchNormalization(scale=d.one(True, False), center=d.one(True, False), epsilon=d.one(1e-3, 1e-2))


# By the name of the layer: what it reads, and the layer with random options.
LAYERS: Mapping[str, tuple[str, Callable[[Draw], Any]]] = {
    **{name: (IMAGE, _join(name)) for name in JOINS},
    "Activation": (IMAGE, lambda d: d.k.Activation(d.one(*ACTIVATIONS[1:]))),
    "AveragePooling1D": (ROW, _pool("AveragePooling1D")),
    "AveragePooling2D": (IMAGE, _pool("AveragePooling2D")),
    "BatchNormalization": (IMAGE, _norm),
    "CenterCrop": (IMAGE, lambda d: d.k.CenterCrop(d.one(3, 4), d.one(2, 5))),
    "Conv1D": (ROW, _conv(1)),
    "Conv1DTranspose": (ROW, _transposed(1)),
    "Conv2D": (IMAGE, _conv(2)),
    "Conv2DTranspose": (IMAGE, _transposed(2)),
    "Cropping1D": (ROW, lambda d: d.k.Cropping1D(d.one(1, (0, 2), (2, 1)))),
    "Cropping2D": (IMAGE, lambda d: d.k.Cropping2D(d.one(1, (2, 1), ((0, 2), (1, 0))))),
    "Dense": (IMAGE, lambda d: d.k.Dense(d.one(3, 9), use_bias=d.one(True, False), activation=d.one(*ACTIVATIONS))),
    "DepthwiseConv1D": (ROW, _depthwise(1)),
    "DepthwiseConv2D": (IMAGE, _depthwise(2)),
    "ELU": (IMAGE, lambda d: d.k.ELU(d.one(1.0, 0.3))),
    "Flatten": (IMAGE, lambda d: d.k.Flatten()),
    "GlobalAveragePooling1D": (ROW, lambda d: d.k.GlobalAveragePooling1D(keepdims=d.one(True, False))),
    "GlobalAveragePooling2D": (IMAGE, lambda d: d.k.GlobalAveragePooling2D(keepdims=d.one(True, False))),
    "GlobalMaxPooling1D": (ROW, lambda d: d.k.GlobalMaxPooling1D(keepdims=d.one(True, False))),
    "GlobalMaxPooling2D": (IMAGE, lambda d: d.k.GlobalMaxPooling2D(keepdims=d.one(True, False))),
    "GroupNormalization": (IMAGE, lambda d: d.k.GroupNormalization(d.one(1, 2, 3, -1), epsilon=0.1)),
    "LayerNormalization": (IMAGE, lambda d: d.k.LayerNormalization(axis=d.one(-1, (1, 2, 3)), epsilon=0.1, center=d.one(True, False))),
    "LeakyReLU": (IMAGE, lambda d: d.k.LeakyReLU(d.one(0.01, 0.3))),
    "MaxPooling1D": (ROW, _pool("MaxPooling1D")),
    "MaxPooling2D": (IMAGE, _pool("MaxPooling2D")),
    "Normalization": (IMAGE, lambda d: d.k.Normalization(**d.one(
        {"mean": 0.5, "variance": 2.0}, {"mean": [0.1, 0.2, 0.3, 0.0, -1.0, 1.0], "variance": [1.0, 0.5, 2.0, 3.0, 0.1, 9.0]}))),
    "PReLU": (IMAGE, lambda d: d.k.PReLU(alpha_initializer="random_normal", shared_axes=d.one(None, [1, 2], [2]))),
    "Permute": (IMAGE, lambda d: d.k.Permute(d.one((2, 1, 3), (3, 1, 2), (1, 3, 2)))),
    "ReLU": (IMAGE, lambda d: d.k.ReLU(max_value=d.one(None, 6.0, 0.5), negative_slope=d.one(0.0, 0.2))),
    "RepeatVector": (FLAT, lambda d: d.k.RepeatVector(d.one(2, 3))),
    "Rescaling": (IMAGE, lambda d: d.k.Rescaling(d.one(0.5, -2.0), offset=d.one(0.0, 1.5))),
    "Reshape": (IMAGE, lambda d: d.k.Reshape(d.one((35, 6), (-1, 7, 6), (210,), (5, 6, 7)))),
    "Resizing": (IMAGE, lambda d: d.k.Resizing(
        d.one(4, 7, 9), d.one(3, 11), interpolation=d.one("nearest", "bilinear"), crop_to_aspect_ratio=d.one(True, False))),
    "SeparableConv1D": (ROW, _separable(1)),
    "SeparableConv2D": (IMAGE, _separable(2)),
    "Softmax": (IMAGE, lambda d: d.k.Softmax()),
    "UnitNormalization": (IMAGE, lambda d: d.k.UnitNormalization(axis=d.one(-1, 1, (1, 2, 3)))),
    "UpSampling1D": (ROW, lambda d: d.k.UpSampling1D(d.one(2, 3))),
    "UpSampling2D": (IMAGE, lambda d: d.k.UpSampling2D(d.one(2, (1, 3)), interpolation=d.one("nearest", "bilinear"))),
    "ZeroPadding1D": (ROW, lambda d: d.k.ZeroPadding1D(d.one(1, (0, 2)))),
    "ZeroPadding2D": (IMAGE, lambda d: d.k.ZeroPadding2D(d.one(1, (0, 2), ((1, 0), (2, 1))))),
}  # fmt: skip


def model_with(keras: Any, name: str, seed: int) -> Any:
    """A layer with its options between two others with weights: at 1 bit, first and last layers keep 8."""
    kind, make = LAYERS[name]
    d = Draw(keras.layers, seed)
    if kind == FLAT:
        source = keras.Input((5,))
        x = d.k.Dense(6)(source)
    elif kind == ROW:
        source = keras.Input((d.one(9, 11), 3))
        x = d.k.Conv1D(6, 1)(source)
    else:
        source = keras.Input((7, 5, 3))
        x = d.k.Conv2D(6, 1)(source)
    x = _norm(d)(make(d)(x))
    x = d.k.Flatten()(x) if len(x.shape) > 2 else x
    return keras.Model(source, d.k.Dense(3)(x))


def of_one_magnitude(model: Any, seed: int) -> None:
    """Weights of layers +-alpha, one alpha for each layer, which every width can hold; all others random, some gammas negative."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        value = random.normal(size=weight.shape).astype(np.float32)
        if "kernel" in weight.path:
            value = np.where(value < 0, -1, 1).astype(np.float32) * np.float32(random.uniform(0.1, 0.5))
        elif "variance" in weight.path:
            value = np.abs(value) + np.float32(0.3)
        weight.assign(value)
