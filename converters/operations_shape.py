"""Functions recorded like layers that move values: slices, reshapes, joins, splits, paddings.

Axes count the batch in the file; here they do not: axis 1 of the file is axis 0 of a tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge.converters.builder import Builder
from edge.converters.layers_channels import are_widths, channels_of, padded
from edge.converters.layers_shape import reshaped
from edge.converters.operations import Operation, Tensor, computes

_Range = tuple[int, int, int]  # start, stop, step
_EVERYTHING: Mapping[str, None] = {"start": None, "stop": None, "step": None}
_MOST_TURNED = 256  # values of an axis in reverse or picked, which are parts of their own
_LARGEST = 1e30
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


def axis_of(op: Operation, value: Any, rank: int) -> int:
    """An axis of the file as one of a tensor with `rank` axes."""
    if not isinstance(value, int) or isinstance(value, bool) or not -rank <= value <= rank or value == 0:
        op.refuse(f"works along axis {str(value)[:40]}, expected one of 1 to {rank}, or -1 to {-rank}")
    return value - 1 if value > 0 else value + rank


def axes_of(op: Operation, value: Any, rank: int) -> list[int]:
    if value is None:
        op.refuse("works along all axes, the batch among them, which is not supported")
    return sorted({axis_of(op, item, rank) for item in (value if isinstance(value, list) else [value])})


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
    axis = axis_of(op, op.constant(1, "axis"), len(shape) + 1)
    return with_shape(op, build, op.tensors[0], (*shape[:axis], 1, *shape[axis:]))


@computes("squeeze")
def squeeze(op: Operation, build: Builder) -> str:
    """Without the axes given, or without all of size 1."""
    shape = build.types[op.tensors[0]].shape
    given = op.option("axis", "squeeze_dims")
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axes = ones if given in (None, []) else axes_of(op, given, len(shape))
    if not set(axes) <= set(ones) or len(axes) == len(shape):
        op.refuse(f"squeezes axes of the shape {shape} that are not 1, or all of them")
    return with_shape(op, build, op.tensors[0], tuple(size for axis, size in enumerate(shape) if axis not in axes))


def with_shape(op: Operation, build: Builder, tensor: str, shape: tuple[int, ...]) -> str:
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


@computes("swapaxes", "moveaxis")
def exchange(op: Operation, build: Builder) -> str:
    """Two axes in each other's place, or one in another."""
    rank = len(build.types[op.tensors[0]].shape)
    given = (op.constant(1, "axis1", "source"), op.constant(2, "axis2", "destination"))
    first, second = (axis_of(op, value[0] if isinstance(value, list) and len(value) == 1 else value, rank) for value in given)
    order = list(range(rank))
    if op.name == "moveaxis":
        order.insert(second, order.pop(first))
    else:
        order[first], order[second] = second, first
    return op.tensors[0] if first == second else op.through("Permute", {"dims": [axis + 1 for axis in order]}, build, op.tensors[0])


# -- joining and taking apart --------------------------------------------------------------------------------------------------


@computes("concatenate")
def concatenate(op: Operation, build: Builder) -> str:
    constants = [operand for operand in op.operands if not isinstance(operand, Tensor)]
    axis = op.option("axis", default=constants[0] if constants else -1)
    return op.tensors[0] if len(op.tensors) == 1 else op.through("Concatenate", {"axis": axis}, build)


@computes("stack")
def stack(op: Operation, build: Builder) -> str:
    """Tensors side by side along a new axis."""
    shape = build.types[op.tensors[0]].shape
    axis = axis_of(op, op.option("axis", default=0), len(shape) + 1)
    parts = [with_shape(op, build, tensor, (*shape[:axis], 1, *shape[axis:])) for tensor in op.tensors]
    return parts[0] if len(parts) == 1 else op.through("Concatenate", {"axis": axis + 1}, build, *parts)


@computes("unstack")
def unstack(op: Operation, build: Builder) -> tuple[str, ...]:
    """The parts along an axis, which goes."""
    shape = build.types[op.tensors[0]].shape
    axis = axis_of(op, op.constant(2, "axis") or 0, len(shape))
    keys = ([_EVERYTHING] * (axis + 1) + [number] for number in range(shape[axis])[: len(op.layer.call.outputs)])
    return tuple(get_item(replace(op, operands=(Tensor(op.tensors[0]), key)), build) for key in keys)


@computes("split")
def split(op: Operation, build: Builder) -> tuple[str, ...]:
    """Parts along an axis, by their number, by their sizes (TensorFlow), or by where they begin (NumPy)."""
    tensor, shape = op.tensors[0], op.layer.shape
    axis = axis_of(op, op.option("axis", default=0), len(shape))
    sizes = _part_sizes(op, shape[axis])
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    parts = list(zip(starts, sizes, strict=True))[: len(op.layer.call.outputs)]
    if len(shape) == 3 and axis == 2:
        return tuple(channels_of(op.layer, build, start, size) for start, size in parts)
    return tuple(_along(op, build, tensor, axis, (start, start + size, 1)) for start, size in parts)


def _part_sizes(op: Operation, whole: int) -> list[int]:
    of_tensorflow = op.layer.call.class_name == "TFOpLambda"
    given = parts = op.option("num_or_size_splits") if of_tensorflow else op.constant(1, "indices_or_sections")
    if isinstance(parts, int) and not isinstance(parts, bool) and 1 <= parts <= whole and whole % parts == 0:
        parts = [whole // parts] * parts
    elif isinstance(parts, list) and not of_tensorflow and all(isinstance(bound, int) for bound in parts):
        parts = [last - first for first, last in itertools.pairwise([0, *parts, whole])]
    sizes: list[int] = parts if isinstance(parts, list) and all(isinstance(size, int) and 1 <= size <= whole for size in parts) else []
    if sum(sizes) != whole or len(op.layer.call.outputs) > len(sizes):
        op.refuse(f"splits {whole} values of an axis into {str(given)[:40]}, expected a number of equal parts, or sizes that add up")
    return sizes


@computes("pad")
def pad(op: Operation, build: Builder) -> str:
    """A constant around an image or a row, or its own pixels, mirrored (`reflect` without the outermost, `symmetric` with it)."""
    widths, mode = op.constant(1, "pad_width", "paddings"), str(op.option("mode", default="constant")).lower()
    value = op.constant(2, "constant_values")
    value = 0.0 if value is None else value
    shape = build.types[op.tensors[0]].shape
    if mode not in ("constant", "reflect", "symmetric") or not isinstance(value, (int, float)) or not abs(value) < _LARGEST:
        op.refuse(f"pads with {value!r} in mode {mode!r}, expected a number, or the modes constant, reflect and symmetric")
    if not are_widths(widths, len(shape)):
        op.refuse(f"pads by {str(widths)[:60]}, expected [[0, 0], [top, bottom], [left, right], [before, after]] for {shape}")
    if mode == "constant":
        return padded(op.layer, build, op.tensors[0], widths[1:], float(value))
    tensor = op.tensors[0]
    for axis, (before, after) in enumerate(widths[1:]):
        tensor = _mirrored(op, build, tensor, axis, before, after, int(mode == "reflect"))
    return tensor


def _mirrored(op: Operation, build: Builder, tensor: str, axis: int, before: int, after: int, skipped: int) -> str:
    """A tensor with what lies at both ends of an axis repeated beyond them, in reverse; `skipped` is 1 without the outermost."""
    size = build.types[tensor].shape[axis]
    if max(before, after) > min(size - skipped, _MOST_TURNED):
        op.refuse(f"mirrors {max(before, after)} of {size} values, expected at most {min(size - skipped, _MOST_TURNED)}")
    places = [*range(before - 1 + skipped, skipped - 1, -1), *range(size - 1 - skipped, size - 1 - skipped - after, -1)]
    ends = [_along(op, build, tensor, axis, (place, place + 1, 1)) for place in places]
    parts = [*ends[:before], tensor, *ends[before:]]
    return tensor if not ends else op.through("Concatenate", {"axis": axis + 1}, build, *parts)


def _along(op: Operation, build: Builder, tensor: str, axis: int, part: _Range) -> str:
    """A range of one axis."""
    ranges = [(0, size, 1) for size in build.types[tensor].shape]
    ranges[axis] = part
    return _taken(op, build, tensor, ranges)


@computes("flip")
def flip(op: Operation, build: Builder) -> str:
    """The values of some axes in reverse."""
    tensor = op.tensors[0]
    shape = build.types[tensor].shape
    for axis in axes_of(op, op.constant(1, "axis"), len(shape)):
        tensor = _along(op, build, tensor, axis, (shape[axis] - 1, -1, -1))
    return tensor


@computes("take")
def take(op: Operation, build: Builder) -> str:
    """Some values along an axis, in any order: a part each, which are joined."""
    tensor, rank = op.tensors[0], len(build.types[op.tensors[0]].shape)
    places = op.constant(1, "indices")
    given = op.constant(2, "axis")
    axis = axis_of(op, given[0] if isinstance(given, list) and given else given, rank)
    size = build.types[tensor].shape[axis]
    if not isinstance(places, list) or not places or not all(isinstance(k, int) and -size <= k < size for k in places):
        op.refuse(f"takes {str(places)[:60]} of an axis of {size}, expected a list of whole numbers within it")
    if len(places) > _MOST_TURNED:
        op.refuse(f"takes {len(places)} parts, expected at most {_MOST_TURNED}")
    parts = [_along(op, build, tensor, axis, (k % size, k % size + 1, 1)) for k in places]
    return parts[0] if len(parts) == 1 else op.through("Concatenate", {"axis": axis + 1}, build, *parts)


# -- slices --------------------------------------------------------------------------------------------------------------------

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
    return with_shape(op, build, tensor, tuple(size for size in sizes if size) or (1,))


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
        image = with_shape(op, build, tensor, (*(1,) * (3 - len(shape)), *shape))
        tensor = window(op, build, image, rows, columns)
    if channels == (0, shape[-1], 1):
        return with_shape(op, build, tensor, build.types[tensor].shape[-len(shape) :])
    pixels = math.prod(build.types[tensor].shape[:-1])
    sizes = build.types[tensor].shape[-len(shape) : -1]
    flat = with_shape(op, build, tensor, (pixels, shape[-1], 1))
    part = window(op, build, flat, (0, pixels, 1), channels)
    return with_shape(op, build, part, (*sizes, len(range(*channels))))


def window(op: Operation, build: Builder, image: str, rows: _Range, columns: _Range) -> str:
    """Part of an image (H, W, C)."""
    for axis, part in enumerate((rows, columns)):
        if part[2] < 0 and len(range(*part)) > 1:
            ranges = [(rows, (k, k + 1, 1)) if axis else ((k, k + 1, 1), columns) for k in range(*part)]
            if len(ranges) > _MOST_TURNED:
                op.refuse(f"takes {len(ranges)} values of an axis backwards, expected at most {_MOST_TURNED}")
            return op.through("Concatenate", {"axis": axis + 1}, build, *(window(op, build, image, *both) for both in ranges))
    sizes = len(range(*rows)), len(range(*columns))
    height, width, channels = build.types[image].hwc
    if sizes == (height, width):
        return image
    attrs = {"start_h": rows[0], "start_w": columns[0], "start_c": 0, "size_h": sizes[0], "size_w": sizes[1], "size_c": channels}
    return build.add("slice", op.layer, image, attrs={**attrs, "step_h": max(rows[2], 1), "step_w": max(columns[2], 1)})


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
    return get_item(replace(op, operands=(Tensor(op.tensors[0]), key)), build)
