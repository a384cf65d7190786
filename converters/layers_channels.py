"""Functions that move channels: padding with channels of zeros, and splitting into parts.

An image can be seen as one of its pixels times its channels, so that channels are padded like columns. A part of the channels is a 1x1
convolution whose filter is a row of the identity for each channel; `edge.converters.passes_groups` makes grouped convolutions of those.
"""

from __future__ import annotations

import numpy as np

from edge.converters.builder import Builder, Layer, reads
from edge.converters.layers_shape import reshaped
from edge.ops import MAX_ATTRIBUTE, WINDOW_ATTRS

PAD = "ops.Pad"
_Pair = tuple[int, int]


@reads(PAD)
def pad(layer: Layer, build: Builder) -> str:
    """Zeros around an image, and channels of zeros: `keras.ops.pad(x, [[0, 0], [top, bottom], [left, right], [before, after]])`."""
    mode, value = layer.call.config.get("mode"), layer.call.arguments.get("constant_values")
    return _padded(layer, build, layer.call.config.get("pad_width"), mode, value)


def tf_pad(layer: Layer, build: Builder) -> str:
    """The same by `tf.pad(x, paddings)`."""
    given = layer.call.arguments
    return _padded(layer, build, given.get("paddings"), str(given.get("mode", "constant")).lower(), given.get("constant_values"))


def _padded(layer: Layer, build: Builder, widths: object, mode: object, value: object) -> str:
    height, width, channels = layer.image()
    rows, columns, depth = _pad_widths(layer, widths, mode, value)
    tensor = layer.input
    if sum(rows + columns):
        tensor = build.add("pad2d", layer, tensor, attrs=dict(zip(WINDOW_ATTRS[2:], (*rows, *columns), strict=True)))
    if not sum(depth):
        return tensor
    pixels = (height + sum(rows)) * (width + sum(columns))
    flat = reshaped(layer, build, tensor, (pixels, channels, 1))
    padded = build.add("pad2d", layer, flat, attrs={"pad_left": depth[0], "pad_right": depth[1]})
    return reshaped(layer, build, padded, (height + sum(rows), width + sum(columns), channels + sum(depth)))


def _pad_widths(layer: Layer, widths: object, mode: object, value: object) -> tuple[_Pair, _Pair, _Pair]:
    pairs = widths if isinstance(widths, list) and len(widths) == 4 and all(_is_pair(pair) for pair in widths) else [[1, 1]]
    if any(pairs[0]) or mode != "constant" or value not in (None, 0):
        raise layer.error(
            f"pads by {widths!r} with {value!r} in mode {mode!r}, which is not supported; expected zeros, "
            "[[0, 0], [top, bottom], [left, right], [before, after]]"
        )
    rows, columns, depth = ((int(first), int(last)) for first, last in pairs[1:])
    return rows, columns, depth


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int) and 0 <= n <= MAX_ATTRIBUTE for n in pair)


def tf_split(layer: Layer, build: Builder) -> tuple[str, ...]:
    """Parts of the channels, as many equal ones as a number says, or of the given sizes: `tf.split(x, 4, axis=-1)`."""
    sizes = _part_sizes(layer)
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    used = len(layer.call.outputs)
    return tuple(_part(layer, build, start, size) for start, size in list(zip(starts, sizes, strict=True))[:used])


def _part_sizes(layer: Layer) -> tuple[int, ...]:
    given, channels = layer.call.arguments, layer.shape[-1]
    parts, axis = given.get("num_or_size_splits"), given.get("axis", 0)
    if isinstance(parts, int) and not isinstance(parts, bool) and 1 <= parts <= channels and channels % parts == 0:
        parts = [channels // parts] * parts
    sound = isinstance(parts, list) and all(isinstance(size, int) and 1 <= size <= channels for size in parts) and sum(parts) == channels
    if not sound or not isinstance(parts, list) or axis not in (-1, len(layer.shape)) or len(layer.call.outputs) > len(parts):
        raise layer.error(
            f"splits {channels} channels into {given.get('num_or_size_splits')!r} along axis {axis!r}, which is not supported; "
            "expected a number of equal parts, or sizes that add up to the channels, along the last axis"
        )
    return tuple(parts)


def _part(layer: Layer, build: Builder, start: int, size: int) -> str:
    layer.image()
    rows = np.eye(layer.shape[-1], dtype=np.float32)[start : start + size]
    return build.add("conv2d", layer, layer.input, constants={"filter": rows[:, None, None]})
