"""Functions recorded like layers that move values or reduce axes: slices, reshapes, joins, splits, paddings, means and maxima.

Axes count the batch in the file; here they do not: axis 1 of the file is axis 0 of a tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge.converters.builder import READERS, Builder, Layer
from edge.converters.layers_channels import PAD, tf_pad, tf_split
from edge.converters.layers_shape import reshaped
from edge.converters.operations import Operation, Tensor, computes, linear
from edge.ops import WINDOW_ATTRS

_FLOATS = ("float16", "bfloat16", "float32", "float64", "DT_HALF", "DT_BFLOAT16", "DT_FLOAT", "DT_DOUBLE")


# -- nothing -------------------------------------------------------------------------------------------------------------------


@computes("identity", "stop_gradient", "convert_to_tensor", "check_numerics", "copy")
def identity(op: Operation, build: Builder) -> str:
    return op.tensors[0]


@computes("cast")
def cast(op: Operation, build: Builder) -> str:
    """To another floating type, which changes nothing here: everything is computed in float32."""
    wanted = op.option("dtype", "DstT", default=op.constant(1, "dtype"))
    if wanted not in _FLOATS:
        op.refuse(f"casts to {str(wanted)[:40]!r}, expected a floating type")
    return op.tensors[0]


# -- shapes --------------------------------------------------------------------------------------------------------------------


def _axis(op: Operation, value: Any, rank: int) -> int:
    """An axis of the file as one of a tensor with `rank` axes."""
    if not isinstance(value, int) or isinstance(value, bool) or not -rank <= value <= rank or value == 0:
        op.refuse(f"works along axis {str(value)[:40]}, expected one of 1 to {rank}, or -1 to {-rank}")
    return value - 1 if value > 0 else value + rank


def _axes(op: Operation, value: Any, rank: int) -> list[int]:
    if value is None:
        op.refuse("works along all axes, the batch among them, which is not supported")
    return sorted({_axis(op, item, rank) for item in (value if isinstance(value, list) else [value])})


@computes("reshape")
def reshape(op: Operation, build: Builder) -> str:
    shape = op.constant(1, "newshape", "shape", "target_shape")
    if not isinstance(shape, list) or len(shape) < 2:
        op.refuse(f"brings tensors to the shape {str(shape)[:60]}, expected a list of sizes whose first is the batch, -1")
    if shape[0] not in (-1, None, 1):
        op.refuse(f"brings tensors to the shape {shape}, which joins the batch with other axes")
    return op.through("Reshape", {"target_shape": shape[1:]}, build, op.tensors[0])


@computes("flatten")
def flatten(op: Operation, build: Builder) -> str:
    return op.through("Flatten", {}, build, op.tensors[0])


@computes("expand_dims")
def expand_dims(op: Operation, build: Builder) -> str:
    shape = build.types[op.tensors[0]].shape
    axis = _axis(op, op.constant(1, "axis"), len(shape) + 1)
    return _reshaped(op, build, op.tensors[0], (*shape[:axis], 1, *shape[axis:]))


@computes("squeeze")
def squeeze(op: Operation, build: Builder) -> str:
    """Without the axes given, or without all of size 1."""
    shape = build.types[op.tensors[0]].shape
    given = op.option("axis", "squeeze_dims")
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axes = ones if given in (None, []) else _axes(op, given, len(shape))
    if not set(axes) <= set(ones) or len(axes) == len(shape):
        op.refuse(f"squeezes axes of the shape {shape} that are not 1, or all of them")
    return _reshaped(op, build, op.tensors[0], tuple(size for axis, size in enumerate(shape) if axis not in axes))


def _reshaped(op: Operation, build: Builder, tensor: str, shape: tuple[int, ...]) -> str:
    if len(shape) > 3:
        op.refuse(f"makes a tensor of the shape {shape}, expected at most three axes beside the batch")
    return tensor if shape == build.types[tensor].shape else reshaped(op.layer, build, tensor, shape)


@computes("transpose")
def transpose(op: Operation, build: Builder) -> str:
    axes = op.constant(1, "axes", "perm")
    rank = len(build.types[op.tensors[0]].shape)
    if not isinstance(axes, list) or axes[:1] != [0] or sorted(map(str, axes)) != sorted(map(str, range(rank + 1))):
        op.refuse(f"orders axes as {str(axes)[:60]}, expected all of them, the batch first")
    return op.tensors[0] if axes == sorted(axes) else op.through("Permute", {"dims": axes[1:]}, build, op.tensors[0])


# -- joining and taking apart --------------------------------------------------------------------------------------------------


@computes("concatenate")
def concatenate(op: Operation, build: Builder) -> str:
    constants = [operand for operand in op.operands if not isinstance(operand, Tensor)]
    axis = op.option("axis", default=constants[0] if constants else -1)
    return op.tensors[0] if len(op.tensors) == 1 else op.through("Concatenate", {"axis": axis}, build)


@computes("stack")
def stack(op: Operation, build: Builder) -> str:
    """Tensors side by side along a new last axis."""
    shape = build.types[op.tensors[0]].shape
    if _axis(op, op.option("axis", default=0), len(shape) + 1) != len(shape):
        op.refuse(f"stacks along axis {op.option('axis')}, expected the last, -1")
    columns = [_reshaped(op, build, tensor, (*shape, 1)) for tensor in op.tensors]
    return columns[0] if len(columns) == 1 else op.through("Concatenate", {"axis": -1}, build, *columns)


@computes("split")
def split(op: Operation, build: Builder) -> tuple[str, ...]:
    """Parts of the channels, by their number, by their sizes (TensorFlow), or by where they begin (NumPy)."""
    call = op.layer.call
    if call.class_name == "TFOpLambda":
        return tf_split(op.layer, build)
    parts, channels = op.constant(1, "indices_or_sections"), op.layer.shape[-1]
    if isinstance(parts, list):
        bounds = [0, *parts, channels] if all(isinstance(n, int) for n in parts) else []
        parts = [last - first for first, last in itertools.pairwise(bounds)]
    arguments = {"num_or_size_splits": parts, "axis": op.option("axis", default=0)}
    return tf_split(Layer(replace(call, arguments=arguments), op.layer.inputs, op.layer.types), build)


@computes("pad")
def pad(op: Operation, build: Builder) -> str:
    if op.layer.call.class_name == PAD:
        output = READERS[PAD](op.layer, build)
        assert isinstance(output, str)  # only splitting gives several
        return output
    arguments = {"paddings": op.constant(1, "paddings"), "mode": op.option("mode", default="constant"),
                 "constant_values": op.constant(2, "constant_values")}  # fmt: skip
    return tf_pad(Layer(replace(op.layer.call, arguments=arguments), op.layer.inputs, op.layer.types), build)


# -- slices --------------------------------------------------------------------------------------------------------------------

_Range = tuple[int, int, int]  # start, stop, step
_ELLIPSIS = "..."


@computes("get_item")
def get_item(op: Operation, build: Builder) -> str:
    """x[:, 1:-1, ::2, :3]: ranges, numbers (whose axis goes), `...` and `None` (a new axis)."""
    key = op.constant(1, "slice_spec", "key")
    items = [_item(op, item) for item in (key if isinstance(key, list) else [key])]
    shape = build.types[op.tensors[0]].shape
    full: list[Any] = _without_ellipsis(op, items, len(shape) + 1)
    if full[0] not in ((None, None, None), (0, None, None), (None, None, 1), (0, None, 1)):
        op.refuse("takes a part of the batch, expected `:` as the first index")
    ranges = [_range(op, item, size) for item, size in zip((item for item in full[1:] if item is not None), shape, strict=True)]
    tensor = _taken(op, build, op.tensors[0], ranges)
    kept = iter(build.types[tensor].shape)
    sizes = [1 if item is None else (0 if isinstance(item, int) and next(kept) else next(kept)) for item in full[1:]]
    return _reshaped(op, build, tensor, tuple(size for size in sizes if size) or (1,))


def _item(op: Operation, item: Any) -> Any:
    """One index: a number, None, `_ELLIPSIS`, or (start, stop, step)."""
    if item is None or (isinstance(item, int) and not isinstance(item, bool)):
        return item
    if item == _ELLIPSIS or (isinstance(item, Mapping) and item.get("class_name") == "__ellipsis__"):
        return _ELLIPSIS
    config = item.get("config", item) if isinstance(item, Mapping) else None
    if isinstance(config, Mapping) and {"start", "stop", "step"} <= set(config):
        bounds = tuple(config[name] for name in ("start", "stop", "step"))
        if all(bound is None or isinstance(bound, int) for bound in bounds):
            return bounds
    op.refuse(f"takes {str(item)[:60]!a} as an index, expected numbers and ranges of numbers")


def _without_ellipsis(op: Operation, items: list[Any], rank: int) -> list[Any]:
    missing = rank - sum(item is not None and item != _ELLIPSIS for item in items)
    if missing < 0 or items.count(_ELLIPSIS) > 1:
        op.refuse(f"takes {len(items)} indices of a tensor with {rank} axes, the batch among them")
    place = items.index(_ELLIPSIS) if _ELLIPSIS in items else len(items)
    return [*items[:place], *[(None, None, None)] * missing, *items[place + 1 :]]


def _range(op: Operation, item: Any, size: int) -> _Range:
    if isinstance(item, int):
        if not -size <= item < size:
            op.refuse(f"takes the index {item} of an axis of {size}")
        return item % size, item % size + 1, 1
    start, stop, step = item
    if step == 0:
        op.refuse("takes a range whose step is 0, expected another")
    return slice(start, stop, step).indices(size)


def _taken(op: Operation, build: Builder, tensor: str, ranges: list[_Range]) -> str:
    """The values of a tensor within `ranges`; the channels are taken from a view in which they are columns."""
    if any(len(range(*part)) == 0 for part in ranges):
        op.refuse("takes nothing of an axis, expected at least one value")
    shape = build.types[tensor].shape
    channels = ranges.pop()
    rows, columns = [(0, 1, 1)] * (2 - len(ranges)) + ranges
    if len(shape) > 1 and (rows, columns) != tuple((0, size, 1) for size in (1,) * (3 - len(shape)) + shape[:-1]):
        image = _reshaped(op, build, tensor, (*(1,) * (3 - len(shape)), *shape))
        tensor = _window(op, build, image, rows, columns)
    if channels == (0, shape[-1], 1):
        return _reshaped(op, build, tensor, build.types[tensor].shape[-len(shape) :])
    pixels = math.prod(build.types[tensor].shape[:-1])
    sizes = build.types[tensor].shape[-len(shape) : -1]
    flat = _reshaped(op, build, tensor, (pixels, shape[-1], 1))
    part = _window(op, build, flat, (0, pixels, 1), channels)
    return _reshaped(op, build, part, (*sizes, len(range(*channels))))


def _window(op: Operation, build: Builder, image: str, rows: _Range, columns: _Range) -> str:
    """Part of an image (H, W, C)."""
    if columns[2] == -1 and len(range(*columns)) > 1:
        parts = [_window(op, build, image, rows, (column, column + 1, 1)) for column in range(*columns)]
        return _side_by_side(op, build, parts)
    if rows[2] < 0 or columns[2] < -1:
        op.refuse("takes values backwards, which is supported for the last axes by steps of -1 alone")
    height, width, _ = build.types[image].hwc
    cropping = [[rows[0], height - rows[1]], [columns[0], width - max(columns[1], columns[0] + 1)]]
    if any(map(any, cropping)):
        image = op.through("Cropping2D", {"cropping": cropping}, build, image)
    strides = (rows[2], abs(columns[2]))
    if strides == (1, 1):
        return image
    attrs = dict(zip(("window_h", "window_w", *WINDOW_ATTRS), (1, 1, *strides, 0, 0, 0, 0), strict=True))
    return build.add("max_pool2d", op.layer, image, attrs=attrs)


def _side_by_side(op: Operation, build: Builder, columns: list[str]) -> str:
    """Columns (H, 1, C) as an image (H, columns, C)."""
    height, _, channels = build.types[columns[0]].hwc
    flat = [_reshaped(op, build, column, (height, channels)) for column in columns]
    return _reshaped(op, build, op.through("Concatenate", {"axis": -1}, build, *flat), (height, len(columns), channels))


@computes("get_item_strided")
def strided_slice(op: Operation, build: Builder) -> str:
    """TensorFlow's StridedSlice: bounds in three lists, and masks whose bits say which of them count."""
    lists = [op.constant(k, name) for k, name in ((1, "begin"), (2, "end"), (3, "strides"))]
    masks = [int(op.option(f"{name}_mask", default=0)) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")]
    begin, end, strides = lists
    if not all(isinstance(bounds, list) for bounds in (begin, end)) or len(begin) != len(end):
        op.refuse(f"takes the bounds {str(lists)[:60]}, expected three lists of as many numbers")
    key = []
    for k, (start, stop, step) in enumerate(zip(begin, end, strides or [1] * len(begin), strict=False)):
        no_start, no_stop, ellipsis, new_axis, number = (bool(mask >> k & 1) for mask in masks)
        bounds = {"start": None if no_start else start, "stop": None if no_stop else stop, "step": step}
        key.append(_ELLIPSIS if ellipsis else None if new_axis else start if number else bounds)
    return get_item(replace(op, operands=(Tensor(op.tensors[0]), key)), build)  # type: ignore[return-value]


# -- reductions ----------------------------------------------------------------------------------------------------------------

_REDUCTIONS = {"mean": "Average", "sum": "Average", "max": "Max"}


@computes("mean", "sum", "max")
def reduce(op: Operation, build: Builder) -> str:
    """Over the pixels of an image, or over its channels, as pooling."""
    tensor = op.tensors[0]
    shape = build.types[tensor].shape
    axes = _axes(op, op.constant(1, "axis", "reduction_indices"), len(shape))
    count = math.prod(shape[axis] for axis in axes)
    spatial = list(range(len(shape) - 1))
    if axes == spatial and spatial:
        image = _reshaped(op, build, tensor, (*(1,) * (3 - len(shape)), *shape))
        pooled = op.through(f"Global{_REDUCTIONS[op.name]}Pooling2D", {}, build, image)
    elif axes == [len(shape) - 1]:
        columns = _reshaped(op, build, tensor, (math.prod(shape[:-1]), shape[-1], 1))
        pooled = op.through(f"{_REDUCTIONS[op.name]}Pooling2D", {"pool_size": [1, shape[-1]]}, build, columns)
    else:
        op.refuse(f"reduces the axes {[axis + 1 for axis in axes]} of {len(shape)}, expected all but the last, or the last")
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    dropped = tuple(size for axis, size in enumerate(shape) if axis not in axes) or (1,)
    result = _reshaped(op, build, pooled, kept if op.option("keepdims", "keep_dims", default=False) else dropped)
    return linear(op, build, result, mul=float(count)) if op.name == "sum" else result


# -- windows and pictures ------------------------------------------------------------------------------------------------------


@computes("max_pool", "average_pool")
def pool(op: Operation, build: Builder) -> str:
    """The window and the strides may have entries for batch and channels, which are 1."""
    window, strides = (_pair(value) for value in (op.option("pool_size", "ksize"), op.option("strides")))
    config = {"pool_size": window, "strides": strides, "padding": str(op.option("padding", default="valid")).lower()}
    layout = op.option("data_format", default="channels_last")
    given = {"NHWC": "channels_last", "NCHW": "channels_first"}.get(layout, layout)
    name = "MaxPooling2D" if op.name == "max_pool" else "AveragePooling2D"
    return op.through(name, {**config, "data_format": given}, build, op.tensors[0])


def _pair(value: Any) -> Any:
    return value[1:3] if isinstance(value, list) and len(value) == 4 else value


@computes("resize")
def resize(op: Operation, build: Builder) -> str:
    """To (height, width), as the layer Resizing does it."""
    size = op.constant(1, "size")
    if not isinstance(size, list) or len(size) != 2:
        op.refuse(f"resizes to {str(size)[:40]}, expected a height and a width")
    if any(op.option(name) for name in ("antialias", "preserve_aspect_ratio", "crop_to_aspect_ratio", "pad_to_aspect_ratio")):
        op.refuse("resizes with antialiasing, or keeps the aspect ratio, which is not supported")
    method = str(op.option("interpolation", "method", default="bilinear")).lower()
    return op.through("Resizing", {"height": size[0], "width": size[1], "interpolation": method}, build, op.tensors[0])
