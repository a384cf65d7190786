"""Functions recorded like layers of Keras on pictures: pools, blocks of pixels and channels, resizing."""

from __future__ import annotations

import itertools
from typing import Any

from edge.converters.builder import Builder
from edge.converters.operations import Operation, computes
from edge.converters.operations_shape import window


@computes("max_pool", "average_pool")
def pool(op: Operation, build: Builder) -> str:
    """The window and the strides may have entries for batch and channels, which are 1."""
    window, strides = (_pair(value) for value in (op.option("pool_size", "ksize"), op.option("strides")))
    config = {"pool_size": window, "strides": strides, "padding": str(op.option("padding", default="valid")).lower()}
    _check_channels_last(op)
    return op.through("MaxPooling2D" if op.name == "max_pool" else "AveragePooling2D", config, build, op.tensors[0])


def _check_channels_last(op: Operation) -> None:
    """`edge.converters.layouts` has brought what can be to this order."""
    if op.option("data_format", default="NHWC") not in ("NHWC", "channels_last"):
        op.refuse(f"takes data_format {str(op.option('data_format'))[:40]!r}, expected 'channels_last'")


def _pair(value: Any) -> Any:
    return value[1:3] if isinstance(value, list) and len(value) == 4 else value


@computes("depth_to_space")
def depth_to_space(op: Operation, build: Builder) -> str:
    """Channels as pixels of blocks, as TensorFlow orders them."""
    block = _block(op)
    return build.add("depth_to_space", op.layer, op.tensors[0], attrs={"block_h": block, "block_w": block})


@computes("space_to_depth")
def space_to_depth(op: Operation, build: Builder) -> str:
    """The pixels of blocks as channels."""
    block, (height, width, _) = _block(op), op.layer.image()
    if height % block or width % block:
        op.refuse(f"takes blocks of {block} x {block} of an image of {height} x {width}, expected a divisor of both")
    places = itertools.product(range(block), repeat=2)
    parts = [window(op, build, op.tensors[0], (row, height, block), (column, width, block)) for row, column in places]
    return op.through("Concatenate", {"axis": -1}, build, *parts)


def _block(op: Operation) -> int:
    block = op.constant(1, "block_size")
    _check_channels_last(op)
    if not isinstance(block, int) or not 2 <= block <= 64:
        op.refuse(f"takes blocks of {str(block)[:40]}, expected a whole number from 2 to 64")
    return block


@computes("resize")
def resize(op: Operation, build: Builder) -> str:
    """To (height, width), as the layer Resizing does it."""
    size = op.constant(1, "size")
    if not isinstance(size, list) or len(size) != 2:
        op.refuse(f"resizes to {str(size)[:40]}, expected a height and a width")
    if any(op.option(name) for name in ("antialias", "preserve_aspect_ratio", "crop_to_aspect_ratio", "pad_to_aspect_ratio")):
        op.refuse("resizes with antialiasing, or keeps the aspect ratio, which is not supported")
    if op.option("align_corners") or op.option("half_pixel_centers") is False:
        op.refuse("resizes by the corners of pixels, as TensorFlow 1 did, expected their centres; use tf.image.resize of TensorFlow 2")
    method = str(op.option("interpolation", "method", default="bilinear")).lower()
    return op.through("Resizing", {"height": size[0], "width": size[1], "interpolation": method}, build, op.tensors[0])
