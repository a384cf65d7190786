"""Explicit padding of the graph as what TFLite has: SAME, VALID, or an operator that pads before a VALID window."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edge.converters.tflite_lowering import Lowering
from edge.ops import OpCall

SAME, VALID = 0, 1  # Padding of the schema


@dataclass(frozen=True)
class Axis:
    """A window along one axis: sizes of the image and the window (dilation included), stride, and padding on both sides."""

    size: int
    window: int
    stride: int
    before: int
    after: int

    @property
    def outputs(self) -> int:
        return (self.size + self.before + self.after - self.window) // self.stride + 1

    @property
    def reached(self) -> int:
        """Pixels of padding after the image that some window reads."""
        return max(0, (self.outputs - 1) * self.stride + self.window - self.before - self.size)

    @property
    def is_valid(self) -> bool:
        return self.before == 0 and self.reached == 0

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME puts the windows where they are here."""
        total = max(0, (self.outputs - 1) * self.stride + self.window - self.size)
        return self.outputs == math.ceil(self.size / self.stride) and self.before == total // 2


def axes(call: OpCall, window_h: int, window_w: int) -> tuple[Axis, Axis]:
    """The window of a convolution or pool along height and width."""
    height, width, _ = call.inputs[0].hwc
    return (
        Axis(height, window_h, call.i("stride_h"), call.i("pad_top"), call.i("pad_bottom")),
        Axis(width, window_w, call.i("stride_w"), call.i("pad_left"), call.i("pad_right")),
    )


def padding(window: tuple[Axis, Axis]) -> int | None:
    """SAME or VALID, None where neither fits."""
    if all(axis.is_valid for axis in window):
        return VALID
    return SAME if all(axis.is_same for axis in window) else None


def pad_for(low: Lowering, number: int, window: tuple[Axis, Axis], value: float | None) -> int:
    """The image (1, H, W, C) padded so that VALID windows fall as `window` says; `value` as in `pad`."""
    rows, columns = window
    return pad(low, number, (rows.before, rows.reached, columns.before, columns.reached), value)


def pad(low: Lowering, number: int, sides: tuple[int, int, int, int], value: float | None) -> int:
    """The image with (top, bottom, left, right) pixels of a stored `value` around it; None is the value that stands for 0."""
    top, bottom, left, right = sides
    if not any(sides):
        return number
    tensor = low.like(number)
    _, height, width, channels = tensor.shape
    amounts = low.builder.constant(np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
    output = replace(tensor, shape=(1, top + height + bottom, left + width + right, channels))
    if value is None:
        return low.op("PAD", [number, amounts], output)
    fill = low.builder.constant(np.array([value], tensor.dtype), scales=tensor.scales, zero_point=tensor.zero_point)
    return low.op("PADV2", [number, amounts, fill], output)
