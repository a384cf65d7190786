"""Shapes of operations that move, join and normalize values: each proves its operands and gives the shape of the output."""

from __future__ import annotations

import math

from edge.op_call import BITS, F32, MAX_ATTRIBUTE, MAX_ELEMENTS, ConstantType, OpCall, need

SLICE_ATTRS = ("start_h", "start_w", "start_c", "size_h", "size_w", "size_c", "step_h", "step_w")

MAX_NORMALIZED = 1 << 16  # channels of which kernels keep a copy in scratch memory

Shape = tuple[int, ...]


def pairwise(call: OpCall) -> Shape:
    """The second input is repeated along its axes of 1."""
    x, m = call.inputs
    need(m.encoding is F32, f"the second input must be float32, got {m.encoding.name.lower()}")
    fits = all(size in (whole, 1) for whole, size in zip(x.hwc, m.hwc, strict=True))
    need(fits, f"the second input is {m.hwc}, each axis must be 1 or that of {x.hwc}")
    return x.shape


def cut(call: OpCall) -> Shape:
    """Pixels from (start_h, start_w) on, every step_h-th row and step_w-th column, and of their channels those from start_c on."""
    image = call.inputs[0]
    for axis, whole, step in zip("hwc", image.hwc, (call.i("step_h"), call.i("step_w"), 1), strict=True):
        start, size = call.i(f"start_{axis}"), call.i(f"size_{axis}")
        within = 1 <= size <= whole and 0 <= start < whole and 1 <= step <= MAX_ATTRIBUTE
        need(within, f"a slice of {size} from {start} on by {step} does not fit {whole}")
        need(start + (size - 1) * step < whole, f"a slice of {size} from {start} on by {step} reaches beyond {whole}")
    first, last = call.i("start_c"), call.i("start_c") + call.i("size_c")
    whole_bytes = first % 8 == 0 and (last % 8 == 0 or last == image.hwc[2])
    need(image.encoding is not BITS or whole_bytes, "packed channels are cut at multiples of 8")
    return call.i("size_h"), call.i("size_w"), call.i("size_c")


def resized(call: OpCall) -> Shape:
    size = call.i("size_h"), call.i("size_w")
    need(all(1 <= n <= MAX_ATTRIBUTE for n in size), f"an image of {size} cannot be made")
    return *size, call.inputs[0].hwc[2]


def transposed(call: OpCall) -> Shape:
    axes = tuple(call.i(f"axis_{axis}") for axis in range(3))
    need(sorted(axes) == [0, 1, 2], f"{axes} is no order of three axes")
    image = call.inputs[0].hwc
    return image[axes[0]], image[axes[1]], image[axes[2]]


def interleaved(call: OpCall) -> Shape:
    height, width, channels = call.inputs[0].hwc
    rows, columns = call.i("block_h"), call.i("block_w")
    need(1 <= rows <= MAX_ATTRIBUTE and 1 <= columns <= MAX_ATTRIBUTE, f"a block of {rows} x {columns} cannot be")
    need(channels % (rows * columns) == 0, f"{channels} channels do not fall into blocks of {rows} x {columns}")
    depth = channels // (rows * columns)
    need(call.inputs[0].encoding is not BITS or depth % 8 == 0, "packed channels of a block's pixel must be a multiple of 8")
    return height * rows, width * columns, depth


def normalized(call: OpCall) -> Shape:
    channels = call.inputs[0].shape[-1]
    for role, constant in call.constants.items():
        need(constant == ConstantType(F32, (channels,)), f"{role} must be {channels} x float32")
    need(0 < call.attrs["epsilon"] < math.inf, f"epsilon must be positive, got {call.attrs['epsilon']}")
    return call.inputs[0].shape


def local_response(call: OpCall) -> Shape:
    channels = call.inputs[0].shape[-1]
    need(channels <= MAX_NORMALIZED, f"local response normalization takes at most {MAX_NORMALIZED} channels, got {channels}")
    need(0 <= call.i("radius") <= channels, f"the radius must be 0 to {channels}, got {call.i('radius')}")
    for name in ("bias", "alpha", "beta"):
        need(math.isfinite(call.attrs[name]), f"{name} must be finite, got {call.attrs[name]}")
    return call.inputs[0].shape


def embedded(call: OpCall) -> Shape:
    need("table" in call.constants, "embedding needs a table")
    table, indices = call.constants["table"], call.inputs[0]
    need(table.encoding is F32 and len(table.shape) == 2, f"the table must be rows x values of float32, got {table.shape}")
    need(len(indices.shape) <= 2, f"indices have one or two axes, got {indices.shape}")
    need(indices.elements * table.shape[1] <= MAX_ELEMENTS, "the output is too large")
    return *indices.shape, table.shape[1]
