"""Functions in models with their channels first: the same on tensors whose channels are last (`edge.converters.layouts`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edge.converters.keras_model import Call
from edge.converters.operations import KERAS_2, constant_value, operation_name

FIRST, LAST = "channels_first", "channels_last"

Following = tuple[Call, bool]
"""A call on turned tensors, and whether what it gives is turned, too."""

_EACH_VALUE = frozenset((
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "clip", "negative", "absolute", "square", "power"),
    *("relu", "relu6", "sigmoid", "tanh", "silu", "hard_silu", "hard_sigmoid", "gelu", "leaky_relu", "elu", "softplus", "softsign", "exp"),
    *("sqrt", "rsqrt", "reciprocal", "squared_difference", "identity", "stop_gradient", "cast"),
))  # fmt: skip
_ALONG_AN_AXIS = frozenset(("softmax", "log_softmax", "normalize", "glu", "concatenate", "flip", "take", "split"))
_LAST_ALONE = ("softmax", "log_softmax", "glu")
_OVER_AXES = frozenset(("mean", "sum", "max", "min", "var", "std", "norm"))
_DATA_FORMATS = {"NCHW": FIRST, "NCW": FIRST, "NHWC": LAST, "NWC": LAST, FIRST: FIRST, LAST: LAST}
_PER_AXIS = ("ksize", "strides", "pool_size")  # lists that may have an entry for each axis, the batch and the channels among them


def data_format(call: Call) -> str | None:
    """FIRST or LAST, of a layer or a function that says so; None of others."""
    given = call.config.get("data_format", call.arguments.get("data_format"))
    return _DATA_FORMATS.get(given) if isinstance(given, str) else None


def with_channels_last(call: Call) -> Call:
    """A call with data_format 'channels_first' as the same with 'channels_last'."""
    if "data_format" in call.config:
        return replace(call, config={**call.config, "data_format": LAST})
    windows = {key: value for key, value in call.arguments.items() if key in _PER_AXIS and isinstance(value, list) and len(value) > 2}
    turned = {key: [value[0], *value[2:], value[1]] for key, value in windows.items()}
    return replace(call, arguments={**call.arguments, **turned, "data_format": LAST})


def turned_axis(axis: Any, rank: int) -> int | None:
    """An axis (1 to rank, or from the end) of the source as one of the turned tensor, -1 for the channels; None for several, or none."""
    (axis,) = axis if isinstance(axis, (list, tuple)) and len(axis) == 1 else (axis,)
    if not isinstance(axis, int) or isinstance(axis, bool) or not -rank <= axis <= rank or axis == 0:
        return None
    place = axis if axis > 0 else axis + rank + 1
    return -1 if place == 1 else place - 1


def turned_function(call: Call, rank: int) -> Following | None:
    """The function on turned tensors of this rank that gives the result of its own; None where there is none."""
    name = operation_name(call)
    if name in _EACH_VALUE:
        return _with_turned_constants(call, rank)
    if call.class_name == "TensorFlowOpLayer" or (call.class_name in KERAS_2 and any(key.isdigit() for key in call.arguments)):
        return None  # axes have a place among the operands
    if name in _ALONG_AN_AXIS:
        return _along_an_axis(call, name, rank)
    if name == "pad":
        return _padded(call, rank)
    return _over_axes(call, rank) if name in _OVER_AXES else None


def _along_an_axis(call: Call, name: str, rank: int) -> Following | None:
    last_unless_said = name in _LAST_ALONE or (name == "normalize" and call.class_name not in KERAS_2)
    axis = turned_axis(_option(call, "axis", "dim", default=-1 if last_unless_said else None), rank)
    return None if axis is None or (name in _LAST_ALONE and axis != -1) else (_with(call, "axis", axis), True)


def _over_axes(call: Call, rank: int) -> Following | None:
    """Without the channels, what is left is in the order of the source."""
    given = _option(call, "axis")
    axes = [turned_axis(axis, rank) for axis in (given if isinstance(given, (list, tuple)) else [given])]
    if None in axes:
        return None
    return _with(call, "axis", axes), bool(_option(call, "keepdims", "keep_dims")) or -1 not in axes


def _option(call: Call, *names: str, default: Any = None) -> Any:
    found = (holder[name] for holder in (call.config, call.arguments) for name in names if holder.get(name) is not None)
    return next(found, default)


def _padded(call: Call, rank: int) -> Following | None:
    """(before, after) for the batch and each axis."""
    name = "paddings" if call.class_name in KERAS_2 else "pad_width"
    widths = _option(call, name)
    if not isinstance(widths, (list, tuple)) or len(widths) != rank + 1:
        return None
    return _with(call, name, [widths[0], *widths[2:], widths[1]]), True


def _with(call: Call, name: str, value: Any) -> Call:
    if call.class_name in KERAS_2:
        return replace(call, arguments={**{key: value for key, value in call.arguments.items() if key != "dim"}, name: value})
    return replace(call, config={**call.config, name: value})


def _with_turned_constants(call: Call, rank: int) -> Following | None:
    """The constants turned with the tensors; numbers, and one for each channel, can be."""
    if "constants" in call.config:  # of a node of TensorFlow's graph
        return None
    arguments = {key: _turned_constant(value, rank) for key, value in call.arguments.items() if value is not None}
    return None if None in arguments.values() else (replace(call, arguments=arguments), True)


def _turned_constant(value: Any, rank: int) -> Any:
    """A constant (..., C, 1, 1) as (..., 1, 1, C); None of one that has other values along the image. What is no array stays."""
    if not isinstance(value, list) and not (isinstance(value, Mapping) and "class_name" in value):
        return value
    try:
        array = np.asarray(constant_value(value), np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    padded = array.reshape((1,) * (rank + 1 - array.ndim) + array.shape)
    fits = padded.ndim == rank + 1 and padded.size == math.prod(padded.shape[1:2])
    return np.moveaxis(padded, 1, -1).tolist() if fits else None
