"""Functions recorded like layers that bring axes to one value: sums, means, extremes, deviations, lengths, and dividing by these."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge.converters.builder import Builder, Layer, reads
from edge.converters.layers_merge import pair, scaled
from edge.converters.layers_shape import reshaped
from edge.converters.operations import Operation, computes
from edge.converters.operations_shape import axes_of, with_shape
from edge.ops import Activation

_TINY = 1e-12  # least sum of squares that TensorFlow divides by, and least length that Keras 3 does


@computes("mean", "sum", "max", "min", "var", "std", "norm")
def reduce(op: Operation, build: Builder) -> str:
    """Over any axes but the batch."""
    tensor = op.tensors[0]
    shape = build.types[tensor].shape
    axes = axes_of(op, op.constant(1, "axis", "reduction_indices"), len(shape))
    if op.name == "norm" and op.option("ord", default=2) not in (2, "euclidean"):
        op.refuse(f"takes the norm {str(op.option('ord'))[:40]}, expected the root of the sum of squares")
    result = _REDUCTIONS[op.name](op.layer, build, tensor, axes)
    dropped = tuple(size for axis, size in enumerate(shape) if axis not in axes) or (1,)
    return result if op.option("keepdims", "keep_dims", default=False) else with_shape(op, build, result, dropped)


def _pooled(layer: Layer, build: Builder, tensor: str, axes: Sequence[int], kind: str) -> str:
    """The mean or maximum over axes, which stay with one value: of pixels as a pool, then of channels as one along columns."""
    shape = build.types[tensor].shape
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    pixels = [axis for axis in axes if axis < len(shape) - 1]
    if pixels:
        sizes = [1] * (3 - len(shape)) + [size if axis in pixels else 1 for axis, size in enumerate(shape[:-1])]
        image = _as(layer, build, tensor, build.types[tensor].hwc)
        tensor = build.add(kind, layer, image, attrs={"window_h": sizes[0], "window_w": sizes[1]})
    if len(shape) - 1 in axes:
        columns = _as(layer, build, tensor, (build.types[tensor].elements // shape[-1], shape[-1], 1))
        tensor = build.add(kind, layer, columns, attrs={"window_h": 1, "window_w": shape[-1]})
    return _as(layer, build, tensor, kept)


def _as(layer: Layer, build: Builder, tensor: str, shape: tuple[int, ...]) -> str:
    return tensor if build.types[tensor].shape == shape else reshaped(layer, build, tensor, shape)


def _mean(layer: Layer, build: Builder, tensor: str, axes: Sequence[int]) -> str:
    return _pooled(layer, build, tensor, axes, "average_pool2d")


def _max(layer: Layer, build: Builder, tensor: str, axes: Sequence[int]) -> str:
    return _pooled(layer, build, tensor, axes, "max_pool2d")


def _min(layer: Layer, build: Builder, tensor: str, axes: Sequence[int]) -> str:
    return scaled(layer, build, _max(layer, build, scaled(layer, build, tensor, -1.0), axes), -1.0)


def _sum(layer: Layer, build: Builder, tensor: str, axes: Sequence[int]) -> str:
    count = math.prod(build.types[tensor].shape[axis] for axis in axes)
    return scaled(layer, build, _mean(layer, build, tensor, axes), float(count))


def _variance(layer: Layer, build: Builder, tensor: str, axes: Sequence[int]) -> str:
    """The mean square of the distance from the mean."""
    distance = pair(layer, build, "subtract", tensor, _mean(layer, build, tensor, axes))
    return _mean(layer, build, pair(layer, build, "multiply", distance, distance), axes)


def _root(layer: Layer, build: Builder, tensor: str) -> str:
    return build.add("activation", layer, tensor, attrs={"activation": Activation.SQRT})


def _deviation(layer: Layer, build: Builder, tensor: str, axes: Sequence[int]) -> str:
    return _root(layer, build, _variance(layer, build, tensor, axes))


def _length(layer: Layer, build: Builder, tensor: str, axes: Sequence[int]) -> str:
    return _root(layer, build, _sum(layer, build, pair(layer, build, "multiply", tensor, tensor), axes))


_REDUCTIONS: Mapping[str, Callable[[Layer, Builder, str, Sequence[int]], str]] = {
    **{"mean": _mean, "sum": _sum, "max": _max, "min": _min, "var": _variance, "std": _deviation, "norm": _length},
}


# -- divided by -----------------------------------------------------------------------------------------------------------------


def _unit(layer: Layer, build: Builder, tensor: str, axes: Sequence[int], least: float) -> str:
    """x / max(length of x, least)."""
    return pair(layer, build, "divide", tensor, _at_least(layer, build, _length(layer, build, tensor, axes), least))


def _at_least(layer: Layer, build: Builder, tensor: str, least: float) -> str:
    """max(x, least) for numbers that are not negative."""
    above = build.add("activation", layer, scaled(layer, build, tensor, 1.0, -least), attrs={"activation": Activation.RELU})
    return scaled(layer, build, above, 1.0, least)


@computes("normalize")
def normalize(op: Operation, build: Builder) -> str:
    """`tf.math.l2_normalize(x, axis)` and `keras.ops.normalize(x)`: the vectors along an axis with length 1."""
    own = op.layer.call.class_name.startswith("ops.")
    axes = axes_of(op, op.constant(1, "axis") if not own else op.option("axis", default=-1), len(op.layer.shape))
    epsilon = op.option("epsilon", default=1e-7 if own else _TINY)
    if op.option("order", "ord", default=2) not in (2, "euclidean") or not isinstance(epsilon, float) or not 0 < epsilon < 1:
        op.refuse("normalizes by another length than the root of the sum of squares")
    return _unit(op.layer, build, op.tensors[0], axes, epsilon if own else math.sqrt(epsilon))


@reads("UnitNormalization")
def unit_normalization(layer: Layer, build: Builder) -> str:
    rank = len(layer.shape)
    axes = sorted({axis - 1 if axis > 0 else axis + rank for axis in layer.options.wholes("axis", (-1,))})
    if not axes or not set(axes) <= set(range(rank)):
        raise layer.error(f"axis {layer.call.config.get('axis')!r} is not supported, expected some of 1 to {rank}")
    return _unit(layer, build, layer.input, axes, _TINY if build.keras_major >= 3 else math.sqrt(_TINY))


@computes("per_image_standardization")
def standardize(op: Operation, build: Builder) -> str:
    """(x - mean) / max(standard deviation, 1 / sqrt(number of values))."""
    layer, tensor = op.layer, op.tensors[0]
    axes: Any = range(len(layer.shape))
    centred = pair(layer, build, "subtract", tensor, _mean(layer, build, tensor, axes))
    deviation = _deviation(layer, build, tensor, axes)
    return pair(layer, build, "divide", centred, _at_least(layer, build, deviation, 1 / math.sqrt(build.types[tensor].elements)))
