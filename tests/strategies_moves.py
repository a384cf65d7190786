"""Generators of `strategies` for operations that cut, resize, turn, look up and normalize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from draws import BITS, FLOAT32, Case, Draw, Signature

from edge.tensors import TensorType


def cut(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind((draw.integer(1, 9), draw.integer(1, 9), draw.channels()), signature[0])
    attrs = {}
    for axis, whole in zip("hw", kind.shape, strict=False):
        step = draw.integer(1, 3)
        start = draw.integer(0, whole - 1)
        attrs |= {f"start_{axis}": start, f"step_{axis}": step, f"size_{axis}": draw.integer(1, 1 + (whole - 1 - start) // step)}
    channels, unit = kind.shape[2], 8 if signature[0] is BITS else 1
    first = unit * draw.integer(0, (channels - 1) // unit) if draw.chance(0.6) else 0
    count = channels - first
    if draw.chance(0.5):
        count = max(1, draw.integer(1, count) // unit) * unit if count >= unit else count
    return draw.finish("slice", [kind], kind, {}, {**attrs, "start_c": first, "size_c": count})


def resize(op: str) -> Callable[[Draw, Signature], Case]:
    def generate(draw: Draw, signature: Signature) -> Case:
        kind = draw.kind((draw.integer(1, 6), draw.integer(1, 6), draw.channels()), signature[0])
        sizes = [size * draw.integer(1, 3) if draw.chance(0.5) else draw.integer(1, 13) for size in kind.shape[:2]]
        return draw.finish(op, [kind], kind, {}, {"size_h": sizes[0], "size_w": sizes[1]}, special=op == "resize_nearest")

    return generate


def transpose(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind((draw.integer(1, 6), draw.integer(1, 9), draw.channels()), signature[0])
    order = draw.random.permutation(3)
    return draw.finish("transpose", [kind], kind, {}, {f"axis_{axis}": int(order[axis]) for axis in range(3)})


def depth_to_space(draw: Draw, signature: Signature) -> Case:
    rows, columns = draw.integer(1, 3), draw.integer(1, 3)
    depth = draw.one_of(8, 16, 24, 40, 64, 72) if signature[0] is BITS else draw.channels()
    kind = draw.kind((draw.integer(1, 5), draw.integer(1, 5), rows * columns * depth), signature[0])
    return draw.finish("depth_to_space", [kind], kind, {}, {"block_h": rows, "block_w": columns})


def layer_norm(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    constants = {role: draw.builder.vector(kind.shape[-1]) for role in ("mul", "add") if draw.chance(0.6)}
    epsilon = float(np.float32(draw.random.uniform(1e-3, 0.1)))
    return draw.finish("layer_norm", [kind], kind, constants, {"epsilon": epsilon}, special=False)


def local_response_norm(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    bias, alpha, beta = (float(np.float32(draw.random.uniform(low, high))) for low, high in ((0.5, 2), (0, 1), (0.2, 1)))
    attrs = {"radius": draw.integer(0, min(5, kind.shape[-1])), "bias": bias, "alpha": alpha, "beta": beta}
    return draw.finish("local_response_norm", [kind], kind, {}, attrs, special=False)


def embedding(draw: Draw, signature: Signature) -> Case:
    """Indices within the table, beyond both of its ends, between whole numbers, and none."""
    rows = draw.integer(1, 20)
    kind = TensorType((draw.integer(1, 9),) if draw.chance(0.5) else (draw.integer(1, 5), draw.integer(1, 9)))
    table = draw.builder.vector(rows * draw.channels()).reshape(rows, -1)
    made = draw.finish("embedding", [kind], kind, {"table": table}, {})
    indices = draw.random.uniform(-2, rows + 2, kind.shape).astype(np.float32)
    return replace(made, inputs=(np.where(draw.random.random(kind.shape) < 0.2, made.inputs[0], np.rint(indices)),))


def log_softmax(draw: Draw, signature: Signature) -> Case:
    kind = draw.kind(draw.shape(), FLOAT32)
    return draw.finish("log_softmax", [kind], kind, {}, {}, special=False)
