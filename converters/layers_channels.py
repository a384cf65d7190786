"""Functions that move channels: padding, with channels of a value too, and splitting into parts.

An image can be seen as one of its pixels times its channels, so that channels are padded like columns. A part of the channels is a 1x1
convolution whose filter is a row of the identity for each channel; `edge.converters.passes_groups` makes grouped convolutions of those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from edge.converters.builder import Builder, Layer
from edge.converters.layers_shape import reshaped
from edge.ops import MAX_ATTRIBUTE, WINDOW_ATTRS


def are_widths(widths: object, rank: int) -> TypeGuard[list[list[int]]]:
    """Whether these are the widths of a padding: none around the batch, and two whole numbers for each of `rank` axes."""
    return isinstance(widths, list) and len(widths) == rank + 1 and all(_is_pair(pair) for pair in widths) and not any(widths[0])


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int) and 0 <= n <= MAX_ATTRIBUTE for n in pair)


def padded(layer: Layer, build: Builder, tensor: str, widths: Sequence[Sequence[int]], value: float = 0.0) -> str:
    """A value around an image or a row, and channels of it: (before, after) for each axis of the tensor."""
    shape = build.types[tensor].shape
    *outer, depth = widths
    rows, columns = [(0, 0)] * (2 - len(outer)) + [tuple(pair) for pair in outer]
    if any(rows + columns):
        attrs = dict(zip(WINDOW_ATTRS[2:], (*rows, *columns), strict=True))
        tensor = build.add("pad2d", layer, tensor, attrs={**attrs, "value": value}, rank=len(shape))
    if not any(depth):
        return tensor
    *sizes, channels = build.types[tensor].shape
    flat = reshaped(layer, build, tensor, (math.prod(sizes), channels, 1))
    wide = build.add("pad2d", layer, flat, attrs={"pad_left": depth[0], "pad_right": depth[1], "value": value})
    return reshaped(layer, build, wide, (*sizes, channels + sum(depth)))


def channels_of(layer: Layer, build: Builder, start: int, size: int) -> str:
    """Some of the channels of an image."""
    layer.image()
    rows = np.eye(layer.shape[-1], dtype=np.float32)[start : start + size]
    return build.add("conv2d", layer, layer.input, constants={"filter": rows[:, None, None]})
