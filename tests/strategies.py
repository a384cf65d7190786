"""Random applications of every operation: graphs of one node with values for its inputs, halos around its tensors, and where they lie.

`CASES` has a generator for every operation. A generator is given a random source and a signature (input, filter and output encoding) and
draws everything else; sizes lie on the edges of words and vectors. `case` makes one from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from draws import BITS, FLOAT32, FUSED, Axis, Case, Draw, Signature, random_axis, window_attrs
from strategies_conv import Fixed, conv2d, dense, depthwise_conv2d, residual_conv2d
from strategies_moves import cut, depth_to_space, embedding, layer_norm, local_response_norm, log_softmax, resize, transpose

from edge.ops import OPS, Activation

# -- pools ---------------------------------------------------------------------------------------------------------------------


def _pool_window(draw: Draw) -> tuple[tuple[int, int], Axis, Axis]:
    """A window and its axes, some of them the whole image, some 2 x 2 without padding."""
    window = draw.integer(1, 4), draw.integer(1, 4)
    rows, columns = (random_axis(draw, draw.integer(1, 5), size) for size in window)
    if draw.chance(0.2):  # a global pool
        window = rows.size, columns.size
        rows, columns = (replace(axis, before=0, after=0) for axis in (rows, columns))
    elif draw.chance(0.4):
        window = 2, 2
        rows, columns = (replace(axis, size=axis.size + 1, before=0, after=0) for axis in (rows, columns))
    return window, rows, columns


def _pool(op: str) -> Callable[[Draw, Signature], Case]:
    def generate(draw: Draw, signature: Signature) -> Case:
        encoding = signature[0]
        window, rows, columns = _pool_window(draw)
        kind = draw.kind((rows.size, columns.size, draw.channels()), encoding)
        flip = {"flip": draw.builder.values(BITS, kind.shape[-1:])} if encoding is BITS and draw.chance(0.6) else {}
        attrs = {"window_h": window[0], "window_w": window[1], **window_attrs(rows, columns)}
        return draw.finish(op, [kind], kind, flip, attrs)

    return generate


def magnitude_map(draw: Draw, signature: Signature) -> Case:
    """As other pools; some images are wider than a vector of pixels."""
    window, rows, columns = _pool_window(draw)
    if draw.chance(0.4):
        columns = replace(columns, size=columns.size + draw.one_of(11, 16, 40))
    kind = draw.kind((rows.size, columns.size, draw.channels()), FLOAT32)
    attrs = {"window_h": window[0], "window_w": window[1], **window_attrs(rows, columns)}
    return draw.finish("magnitude_map", [kind], kind, {}, attrs)


# -- the rest ------------------------------------------------------------------------------------------------------------------


def _channelwise_constants(draw: Draw, channels: int) -> dict[str, np.ndarray]:
    return {role: draw.builder.vector(channels) for role in ("mul", "add") if draw.chance(0.6)}


def affine(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), signature[0])
    constants = _channelwise_constants(draw, kind.shape[-1])
    return draw.finish("affine", [kind], draw.kind((1,), FLOAT32), constants, draw.activation(*FUSED))


def activation(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("activation", [kind], kind, {}, draw.activation(*Activation))


def prelu(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("prelu", [kind], kind, {"slope": draw.builder.vector(kind.shape[-1])}, {})


def softmax(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("softmax", [kind], kind, {}, {})


def binarize(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("binarize", [kind], draw.kind((1,), BITS), _channelwise_constants(draw, kind.shape[-1]), {})


def _conversion(op: str) -> Callable[[Draw, Signature], Case]:
    def generate(draw: Draw, signature: Signature) -> Case:
        return draw.finish(op, [draw.kind(draw.shape(), signature[0])], draw.kind((1,), signature[2]), {}, {})

    return generate


def add(draw: Draw, signature: Signature) -> Case:
    shape, encoding = draw.shape(), signature[0]
    kinds = [draw.kind(shape, encoding) for _ in range(2)]
    return draw.finish("add", kinds, draw.kind((1,), encoding), {}, draw.activation(*FUSED))


def _pair(op: str) -> Callable[[Draw, Signature], Case]:
    def generate(draw: Draw, signature: Signature) -> Case:
        """The second input has 1 along some axes, and a leading one of them may be left out."""
        kind = draw.kind(draw.shape(), FLOAT32)
        shape = tuple(1 if draw.chance(0.4) else size for size in kind.shape)
        if len(shape) > 1 and shape[0] == 1 and draw.chance(0.5):
            shape = shape[1:]
        return draw.finish(op, [kind, draw.kind(shape, FLOAT32)], kind, {}, {})

    return generate


def concat(draw: Draw, signature: Signature) -> Case:
    *leading, channels = draw.shape()
    kind = draw.kind((*leading, channels), signature[0])
    widths = [draw.one_of(8, 16, 24, 64, 72) if kind.encoding is BITS else draw.channels() for _ in range(draw.integer(0, 3))]
    kinds = [replace(kind, shape=(*leading, width)) for width in [*widths, channels]]
    return draw.finish("concat", kinds, kind, {}, {})


def reshape(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), signature[0])
    elements = kind.elements
    first = draw.one_of(*(n for n in range(1, 1 + elements) if elements % n == 0))
    second = draw.one_of(*(n for n in range(1, 1 + elements // first) if elements // first % n == 0))
    sizes = ((elements,), (first, elements // first), (first, second, elements // first // second))[draw.integer(0, 2)]
    padded = (*sizes, 0, 0)
    return draw.finish("reshape", [kind], kind, {}, {"rank": len(sizes), "size_0": padded[0], "size_1": padded[1], "size_2": padded[2]})


def pad2d(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), signature[0])
    attrs = {name: draw.integer(0, 3) for name in ("pad_top", "pad_bottom", "pad_left", "pad_right")}
    value = 0.0 if draw.chance(0.4) else float(np.float32(draw.random.normal()))
    return draw.finish("pad2d", [kind], kind, {}, {**attrs, "value": value})


CASES: Mapping[str, Callable[..., Case]] = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "dense": dense,
    "max_pool2d": _pool("max_pool2d"),
    "average_pool2d": _pool("average_pool2d"),
    "affine": affine,
    "activation": activation,
    "softmax": softmax,
    "binarize": binarize,
    "unpack": _conversion("unpack"),
    "quantize": _conversion("quantize"),
    "dequantize": _conversion("dequantize"),
    "add": add,
    "concat": concat,
    "reshape": reshape,
    "pad2d": pad2d,
    "residual_conv2d": residual_conv2d,
    "prelu": prelu,
    "magnitude_map": magnitude_map,
    **{op: _pair(op) for op in ("multiply", "subtract", "divide", "maximum", "minimum")},
    "slice": cut,
    "resize_nearest": resize("resize_nearest"),
    "resize_bilinear": resize("resize_bilinear"),
    "transpose": transpose,
    "depth_to_space": depth_to_space,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
    "embedding": embedding,
    "log_softmax": log_softmax,
}
SPECIALISED = ("conv2d", "depthwise_conv2d", "dense", "residual_conv2d")  # whose generators take a `Fixed`


def signatures(op: str) -> list[Signature]:
    """All signatures of an operation, in an order that does not change."""
    return sorted(OPS[op].signatures, key=lambda s: tuple(0 if e is None else int(e) for e in s))


def case(op: str, signature: Signature, seed: int, given: Fixed | None = None) -> Case:
    """The case of a seed."""
    draw = Draw(seed)
    return CASES[op](draw, signature, given) if op in SPECIALISED else CASES[op](draw, signature)
