"""Cases of `tflite_cases` for operations that cut, resize, turn, join, look up and normalize, and for activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.ops import Activation
from edge.tensors import Encoding

U8, I8, BITS = Encoding.UINT8, Encoding.INT8, Encoding.BITS
QUANTIZED = {"scale": 0.03, "zero": -5}
PAIRS = ("multiply", "subtract", "divide", "maximum", "minimum")


def cut(rows: tuple[int, int, int], columns: tuple[int, int, int], channels: tuple[int, int]) -> dict[str, int]:
    """Start, size and step of rows and columns, start and size of channels."""
    names = [f"{what}_{axis}" for axis in "hw" for what in ("start", "size", "step")]
    return dict(zip((*names, "start_c", "size_c"), (*rows, *columns, *channels), strict=True))


def turned(*axes: int) -> dict[str, int]:
    return {f"axis_{i}": axis for i, axis in enumerate(axes)}


def _activated(kind: Activation) -> Callable[[Any], Any]:
    """Of what is at least 0, so that there is a square root."""
    relu = {"activation": int(Activation.RELU), "alpha": 0.0, "limit": math.inf}
    start = (lambda n: n.input((5, 4, 6)).op("activation", **relu)) if kind is Activation.SQRT else (lambda n: n.input((5, 4, 6)))
    return lambda n: start(n).op("activation", activation=int(kind), alpha=0.0, limit=math.inf)


def _pair(op: str, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda n: n.input((4, 5, 6)).input(shape).op(op, inputs=("input0", "input1"))


BLOCKS = {"block_h": 2, "block_w": 2}
MOVES: dict[str, Callable[[Any], Any]] = {
    "slice_float": lambda n: n.input((6, 7, 5)).op("slice", **cut((1, 4, 1), (2, 5, 1), (1, 3))),
    "slice_steps": lambda n: n.input((6, 7, 5)).op("slice", **cut((1, 2, 3), (0, 4, 2), (0, 5))),
    "slice_int8": lambda n: n.input((6, 7, 5), I8, **QUANTIZED).op("slice", **cut((1, 2, 3), (0, 4, 2), (2, 3))),
    "slice_bytes": lambda n: n.input((6, 7, 3), U8).op("slice", **cut((1, 4, 1), (0, 7, 1), (0, 3))).op("dequantize", Encoding.FLOAT32),
    "slice_bits": lambda n: n.input((6, 7, 24), BITS).op("slice", **cut((1, 4, 1), (2, 5, 1), (8, 16))),
    "nearest_float": lambda n: n.input((3, 4, 5)).op("resize_nearest", size_h=6, size_w=12),
    "nearest_odd": lambda n: n.input((5, 7, 5)).op("resize_nearest", size_h=8, size_w=3),
    "nearest_int8": lambda n: n.input((3, 4, 5), I8, **QUANTIZED).op("resize_nearest", size_h=6, size_w=8),
    "nearest_bytes": lambda n: n.input((3, 4, 3), U8).op("resize_nearest", size_h=6, size_w=8).op("dequantize", Encoding.FLOAT32),
    "nearest_bits": lambda n: n.input((3, 4, 10), BITS).op("resize_nearest", size_h=9, size_w=8),
    "bilinear": lambda n: n.input((3, 4, 5)).op("resize_bilinear", size_h=6, size_w=12),
    "bilinear_odd": lambda n: n.input((5, 7, 3)).op("resize_bilinear", size_h=8, size_w=3),
    "transpose_float": lambda n: n.input((3, 4, 5)).op("transpose", **turned(2, 0, 1)),
    "transpose_int8": lambda n: n.input((3, 4, 5), I8, **QUANTIZED).op("transpose", **turned(1, 0, 2)),
    "transpose_bytes": lambda n: n.input((3, 4, 5), U8).op("transpose", **turned(0, 2, 1)).op("dequantize", Encoding.FLOAT32),
    "space_float": lambda n: n.input((3, 4, 20)).op("depth_to_space", **BLOCKS),
    "space_oblong": lambda n: n.input((3, 4, 24)).op("depth_to_space", block_h=1, block_w=3),
    "space_int8": lambda n: n.input((3, 4, 20), I8, **QUANTIZED).op("depth_to_space", **BLOCKS),
    "space_bits": lambda n: n.input((3, 4, 64), BITS).op("depth_to_space", **BLOCKS),
    "layer_norm": lambda n: n.input((4, 5, 7)).op("layer_norm", epsilon=1e-3, mul=n.vector(7), add=n.vector(7)),
    "layer_norm_bare": lambda n: n.input((40,)).op("layer_norm", epsilon=1e-3),
    "local_response": lambda n: n.input((4, 5, 9)).op("local_response_norm", radius=2, bias=1.5, alpha=0.3, beta=0.75),
    "embedding": lambda n: n.input((6,)).op("embedding", table=n.vector(20).reshape(5, 4)),
    "log_softmax": lambda n: n.input((4, 7)).op("log_softmax"),
    **{f"activation_{kind.name.lower()}": _activated(kind) for kind in Activation if kind >= Activation.HARD_SWISH},
    **{f"{op}_channels": _pair(op, (6,)) for op in PAIRS if op != "divide"},
    **{f"{op}_same": _pair(op, (4, 5, 6)) for op in PAIRS if op != "divide"},
    "divide": lambda n: n.input((4, 5, 6)).op("affine", add=np.full(6, 9, np.float32), activation=0, alpha=0.0, limit=math.inf)
    .op("divide", inputs=("input0", "t0")),
}  # fmt: skip
