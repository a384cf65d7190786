"""Layers without arithmetic of their own: pools, shapes, joins, padding, and those that only train."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edge.converters.builder import Builder, Layer, Options, reads, same_padding
from edge.ops import WINDOW_ATTRS


@reads("MaxPooling2D", "AveragePooling2D", "MaxPooling1D", "AveragePooling1D")
def pooling(layer: Layer, build: Builder) -> str:
    height, width, _ = layer.plane()
    window = layer.pair("pool_size", (2, 2))
    strides = layer.pair("strides", window)
    pads = ((0, 0), (0, 0))
    if layer.options.choice("padding", ("valid", "same"), "valid") == "same":
        pads = (same_padding(height, window[0], strides[0]), same_padding(width, window[1], strides[1]))
    return _pool(layer, build, window, strides, pads)


_Pair = tuple[int, int]


def _pool(layer: Layer, build: Builder, window: _Pair, strides: _Pair, pads: tuple[_Pair, _Pair]) -> str:
    names = ("window_h", "window_w", *WINDOW_ATTRS)
    attrs = dict(zip(names, (*window, *strides, *pads[0], *pads[1]), strict=True))
    return build.add(_pool_op(layer), layer, layer.input, attrs=attrs, rank=len(layer.shape))


def _pool_op(layer: Layer) -> str:
    return "max_pool2d" if "Max" in layer.call.class_name else "average_pool2d"


@reads("GlobalMaxPooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalAveragePooling1D")
def global_pooling(layer: Layer, build: Builder) -> str:
    height, width, _ = layer.plane()
    rank = len(layer.shape) if layer.options.flag("keepdims", False) else 1
    return build.add(_pool_op(layer), layer, layer.input, rank=rank, attrs={"window_h": height, "window_w": width})


@reads("Flatten")
def flatten(layer: Layer, build: Builder) -> str:
    layer.options.choice("data_format", ("channels_last",), "channels_last")
    return reshaped(layer, build, layer.input, (math.prod(layer.shape),))


@reads("Reshape")
def reshape(layer: Layer, build: Builder) -> str:
    """To `target_shape`, of which one entry may be -1."""
    target = layer.options.wholes("target_shape", ())
    count, known = math.prod(layer.shape), math.prod(size for size in target if size != -1)
    if target.count(-1) == 1 and known > 0 and count % known == 0:
        target = tuple(count // known if size == -1 else size for size in target)
    if not 1 <= len(target) <= 3 or min(target) < 1 or math.prod(target) != count:
        raise layer.error(f"cannot bring the shape {layer.shape} to {target}; expected one to three axes with as many values")
    return reshaped(layer, build, layer.input, target)


def reshaped(layer: Layer, build: Builder, tensor: str, shape: tuple[int, ...]) -> str:
    """A tensor in another shape of as many values."""
    sizes = {f"size_{axis}": (*shape, 1, 1)[axis] for axis in range(3)}
    return build.add("reshape", layer, tensor, attrs={"rank": len(shape), **sizes})


def transposed(layer: Layer, build: Builder, tensor: str, dims: Sequence[int]) -> str:
    """A tensor with its axes in another order; `dims` counts them from 1, without the batch. Of two turns in a row one is made, or none."""
    maker = next((node for node in build.nodes if node.output == tensor and node.op == "transpose"), None)
    rank = len(build.types[tensor].shape)
    if maker is not None and len(build.types[maker.inputs[0]].shape) == rank:
        before = [int(maker.attrs[f"axis_{axis}"]) - (2 - rank) for axis in range(3 - rank, 3)]
        return transposed(layer, build, maker.inputs[0], [before[dim - 1] for dim in dims])
    if list(dims) == sorted(dims):
        return tensor
    shape = build.types[tensor].shape
    moved = [dim for dim in dims if shape[dim - 1] > 1]
    if moved == sorted(moved):  # no value gets another place
        return reshaped(layer, build, tensor, tuple(shape[dim - 1] for dim in dims))
    axes = (*range(3 - rank), *(2 - rank + dim for dim in dims))
    return build.add("transpose", layer, tensor, attrs={f"axis_{i}": axis for i, axis in enumerate(axes)}, rank=rank)


def single_axis(options: Options, rank: int) -> int:
    """The option `axis`, by default the last, as a place in a shape of `rank` axes without the batch."""
    axes = options.wholes("axis", (-1,))
    if len(axes) != 1 or not -rank <= axes[0] <= rank or axes[0] == 0:
        raise options.error(f"axis {options.config.get('axis')!r} is not supported, expected one of 1 to {rank}; train along the last, -1")
    return axes[0] - 1 if axes[0] > 0 else axes[0] + rank


def along(layer: Layer, build: Builder, tensor: str, axis: int, function: Callable[[str], str]) -> str:
    """What `function` gives, which acts along the last axis, for an axis of the shape: turned so that it is the last, and back."""
    rank = len(build.types[tensor].shape)
    if axis == rank - 1:
        return function(tensor)
    order = [*(place for place in range(rank) if place != axis), axis]
    made = function(transposed(layer, build, tensor, [place + 1 for place in order]))
    return transposed(layer, build, made, [order.index(place) + 1 for place in range(rank)])


@reads("Concatenate")
def concatenate(layer: Layer, build: Builder) -> str:
    """Along the channels; along other axes, as rows that hold all that lies within these."""
    rank, (axis, *more) = len(layer.shape), layer.options.wholes("axis", (-1,)) or (0,)
    axis = axis - 1 if axis > 0 else axis + rank
    shapes = [kind.shape for kind in layer.types]
    if more or not 0 <= axis < rank or len({(*shape[:axis], 0, *shape[axis + 1 :]) for shape in shapes}) > 1:
        raise layer.error(f"cannot join the shapes {', '.join(map(str, shapes))} along axis {layer.call.config.get('axis')!r}")
    if axis == rank - 1:
        return build.add("concat", layer, *layer.inputs)
    rows = math.prod(layer.shape[:axis])
    flat = [reshaped(layer, build, name, (rows, math.prod(shape[axis:]))) for name, shape in zip(layer.inputs, shapes, strict=True)]
    joined = build.add("concat", layer, *flat)
    total = sum(shape[axis] for shape in shapes)
    return reshaped(layer, build, joined, (*layer.shape[:axis], total, *layer.shape[axis + 1 :]))


@reads("RepeatVector")
def repeat_vector(layer: Layer, build: Builder) -> str:
    if len(layer.shape) != 1:
        raise layer.error(f"needs an input of one axis, got the shape {layer.shape}")
    count = layer.options.whole("n", 0)
    return build.add("resize_nearest", layer, layer.input, attrs={"size_h": 1, "size_w": count}, rank=2)


@reads("ZeroPadding2D", "ZeroPadding1D")
def zero_padding(layer: Layer, build: Builder) -> str:
    layer.plane()
    (top, bottom), (left, right) = sides(layer, "padding")
    attrs = dict(zip(WINDOW_ATTRS[2:], (top, bottom, left, right), strict=True))
    return build.add("pad2d", layer, layer.input, attrs=attrs, rank=len(layer.shape))


def sides(layer: Layer, name: str) -> tuple[_Pair, _Pair]:
    """An option n, (rows, columns) or ((top, bottom), (left, right)); of layers along one axis n, (n,) or (left, right)."""
    value = layer.call.config.get(name, 1)
    if layer.is_row:
        value = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        rows, columns = 0, value
    else:
        rows, columns = (value, value) if isinstance(value, int) else tuple(value) if _is_pair(value) else (None, None)
    pairs = [(v, v) if isinstance(v, int) else tuple(v) if _is_pair(v) else (-1, -1) for v in (rows, columns)]
    if not all(isinstance(size, int) and size >= 0 for pair in pairs for size in pair):
        raise layer.error(f"{name} should be a whole number, two, or two pairs of them, got {layer.call.config.get(name)!r}")
    return (pairs[0][0], pairs[0][1]), (pairs[1][0], pairs[1][1])


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2


TRAINING_ONLY = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
    *("ActivityRegularization", "Identity"),
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness", "RandomErasing"),
    *("RandomHue", "RandomSaturation", "RandomColorJitter", "RandomGrayscale", "RandomColorDegeneration", "RandomInvert"),
    *("RandomPosterization", "RandomSharpness", "RandomShear", "RandomGaussianBlur", "RandomPerspective", "RandomElasticTransform"),
)


@reads(*TRAINING_ONLY)
def training_only(layer: Layer, build: Builder) -> str:
    """Does nothing once trained."""
    return layer.input
