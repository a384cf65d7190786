"""Cutting, resizing, turning and looking up: lowering (the code is `edge.kernels.gather_code`).

Each output pixel is copied from one place of the input, the sum of a number for its row and a number for its column: two tables made at
load from the shapes. Columns whose sources follow each other are copied at once. Where a transposition moves the channels, values
are copied one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.kernels.isa import Machine
from edge.kernels.places import bilinear_places, nearest_places
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering, Place

Array = np.ndarray


def _code(name: str, *arguments: int) -> Code:
    """The kernel function that `edge.kernels.gather_code` makes under this name."""

    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import gather_code

        make: Callable[..., KernelFunction] = getattr(gather_code, name)
        return make(*arguments)

    return Code("_".join((name, *map(str, arguments))), build)


def _copied(low: Lowering, rows: Array, columns: Array, used_bytes: int) -> Lowered:
    """Pixels of `used_bytes` from input bytes rows[y] + columns[x], counted from its pixel (0, 0); the rest of a pixel becomes 0."""
    out, source = low.output, low.input()
    spare = out.pixel_bytes - used_bytes
    group = 1 if spare else _following(columns, used_bytes)
    tables = (_table(low, source.offset + rows), _table(low, columns[::group]))
    args = (
        out.height, out.width // group, used_bytes * group, spare, out.offset, out.row_bytes, out.pixel_bytes * group, *tables,
    )  # fmt: skip
    return Lowered(_code("copy_pixels"), args, work=out.height * out.width * out.pixel_bytes // 8)


def _following(columns: Array, used_bytes: int) -> int:
    """How many columns lie one behind the other in the input, again and again: the largest divisor of their number that does."""
    joined = np.diff(columns) == used_bytes
    divisors = [n for n in range(len(columns), 0, -1) if len(columns) % n == 0]
    return next(n for n in divisors if np.delete(joined, np.arange(n - 1, len(joined), n)).all())


def _table(low: Lowering, values: Array) -> int:
    return low.derived.add(values.astype(np.int64))


def _steps(place: Place, rows: Array, columns: Array) -> tuple[Array, Array]:
    """Bytes from pixel (0, 0) to rows and columns of pixels."""
    return rows * place.row_bytes, columns * place.pixel_bytes


def _value_bytes(place: Place, channels: int) -> int:
    return -(-channels * place.type.encoding.bits // 8)


def _lower_slice(low: Lowering) -> Lowered:
    source, out = low.input(), low.output
    rows, columns = (low.i(f"start_{axis}") + np.arange(low.i(f"size_{axis}")) * low.i(f"step_{axis}") for axis in "hw")
    whole = out.channels == source.channels
    down, across = _steps(source, rows, columns)
    first = _value_bytes(source, low.i("start_c"))
    return _copied(low, down + first, across, out.pixel_bytes if whole else _value_bytes(out, out.channels))


def _lower_nearest(low: Lowering) -> Lowered:
    source, out = low.input(), low.output
    places = nearest_places(source.height, out.height), nearest_places(source.width, out.width)
    return _copied(low, *_steps(source, *places), out.pixel_bytes)


def _lower_to_space(low: Lowering) -> Lowered:
    source, out = low.input(), low.output
    rows, columns = low.i("block_h"), low.i("block_w")
    used = _value_bytes(out, out.channels)
    y, x = np.arange(out.height), np.arange(out.width)
    down, across = _steps(source, y // rows, x // columns)
    return _copied(low, down + y % rows * columns * used, across + x % columns * used, used)


def _lower_transpose(low: Lowering) -> Lowered:
    source, out = low.input(), low.output
    value = _value_bytes(source, 1)
    steps = (source.row_bytes, source.pixel_bytes, value)
    down, across, inside = (steps[low.i(f"axis_{axis}")] for axis in range(3))
    rows, columns = np.arange(out.height) * down, np.arange(out.width) * across
    if inside == value:
        return _copied(low, rows, columns, out.pixel_bytes)
    args = (
        out.height, out.width, out.channels, inside, out.offset, out.row_bytes, out.pixel_bytes,
        _table(low, source.offset + rows), _table(low, columns),
    )  # fmt: skip
    return Lowered(_code("copy_values", value), args, work=out.type.elements)


# -- between pixels ------------------------------------------------------------------------------------------------------------


def _lower_bilinear(low: Lowering) -> Lowered:
    source, out = low.input(), low.output
    top, bottom, down = bilinear_places(source.height, out.height)
    left, right, across = bilinear_places(source.width, out.width)
    tables = [_table(low, source.offset + rows * source.row_bytes) for rows in (top, bottom)]
    tables += [_table(low, columns * source.pixel_bytes) for columns in (left, right)]
    shares = [low.derived.add(share) for share in (down, across)]
    args = (out.height, out.width, out.channels, out.offset, out.row_bytes, out.pixel_bytes, *tables, *shares)
    return Lowered(_code("between_pixels"), args, work=4 * out.type.elements)


# -- tables --------------------------------------------------------------------------------------------------------------------


def _lower_embedding(low: Lowering) -> Lowered:
    """A pixel of indices gives a row of pixels. Indices are bounded by the table's rows, so no value leads out of it."""
    source, out = low.input(), low.output
    rows, values = low.call.constants["table"].shape
    args = (
        source.width, source.channels, source.offset, source.pixel_bytes, out.offset, out.row_bytes, out.pixel_bytes,
        low.constant("table"), rows, 4 * values,
    )  # fmt: skip
    return Lowered(_code("copy_rows"), args, work=out.type.elements)


KERNELS = (
    Kernel("slice", "slice", lambda low: True, _lower_slice),
    Kernel("resize_nearest", "resize_nearest", lambda low: True, _lower_nearest),
    Kernel("depth_to_space", "depth_to_space", lambda low: True, _lower_to_space),
    Kernel("transpose", "transpose", lambda low: True, _lower_transpose),
    Kernel("resize_bilinear", "resize_bilinear", lambda low: True, _lower_bilinear),
    Kernel("embedding", "embedding", lambda low: True, _lower_embedding),
)
