"""Depthwise convolutions: lowering (the code is `edge.kernels.depthwise_code`).

The kernel reads the input's halo, which holds zeros; of integers the zero point. It multiplies integers as stored (or, by vpdpbusd, int8
plus 128), so what the zero point adds, zero_point * sum of w, is taken off by a table of one number per channel. The tables of packed
signs are those of `edge.kernels.conv`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge.kernels.arguments import OVERREAD, epilogue, fused
from edge.kernels.conv import NEVER, class_table, packed_table, window_of
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering, Place
from edge.kernels.shapes import DepthwiseVariant, depthwise_dot, depthwise_lanes, depthwise_pixels, depthwise_repeats
from edge.tensors import Encoding

_KINDS = {
    (Encoding.UINT8, Encoding.INT8): "u8i8",
    (Encoding.INT8, Encoding.INT8): "i8i8",
    (Encoding.FLOAT32, Encoding.FLOAT32): "f32f32",
    (Encoding.FLOAT32, Encoding.FLOAT16): "f32f16",
    (Encoding.FLOAT32, Encoding.INT8): "f32i8",
    (Encoding.FLOAT32, Encoding.BITS): "f32bits",
    (Encoding.BITS, Encoding.BITS): "bits",
}
_MOST_BYTE_TAPS = 255  # of which the differing signs are counted in a byte


def _variant(low: Lowering) -> DepthwiseVariant:
    return _variant_of_signs(low) if low.call.inputs[0].encoding is Encoding.BITS else _variant_of_numbers(low)


def _variant_of_signs(low: Lowering) -> DepthwiseVariant:
    out = low.output
    taps_h, taps_w, _ = low.call.constants["filter"].shape
    lanes, repeats = _sign_lanes(out, _multiplier(low))
    pixels = depthwise_pixels(low.machine, max(8, lanes // 4), out.width, gathered=repeats == 0)
    kind = "bits" if taps_h * taps_w <= _MOST_BYTE_TAPS else "bits32"
    return DepthwiseVariant(kind, out.type.encoding.name.lower(), pixels, lanes, repeats, low.has("scale"), fused(low))


def _sign_lanes(out: Place, multiplier: int) -> tuple[int, int]:
    """Lanes, and how often they repeat an input channel, 0 if that is not found on whole bytes.

    As many lanes as a packed output has bits, up to 64, so that all of them are written; else 8 input channels if that suits better.
    """
    lanes = next(lanes for lanes in (8, 16, 32, 64) if lanes >= out.channels or lanes == 64)
    if lanes % multiplier == 0 and (lanes // multiplier >= 8 or out.channels <= lanes):
        return lanes, multiplier
    return (8 * multiplier, multiplier) if multiplier <= 8 and out.type.encoding is not Encoding.BITS else (lanes, 0)


def _variant_of_numbers(low: Lowering) -> DepthwiseVariant:
    out = low.output
    kind = _KINDS[low.call.inputs[0].encoding, low.call.constants["filter"].encoding]
    lanes = depthwise_lanes(low.machine, out.channels)
    repeats = depthwise_repeats(lanes, _multiplier(low))
    pixels = depthwise_pixels(low.machine, lanes, out.width, gathered=repeats == 0)
    variant = DepthwiseVariant(kind, out.type.encoding.name.lower(), pixels, lanes, repeats, low.has("scale"), fused(low))
    return variant if kind.startswith("f32") or repeats != 1 else _with_dot(low, variant)


def _with_dot(low: Lowering, variant: DepthwiseVariant) -> DepthwiseVariant:
    """The variant of an int8 kernel that sums several columns at once, where the machine can."""
    taps_w = low.call.constants["filter"].shape[1]
    dot = depthwise_dot(low.machine, taps_w)
    neighbours = low.i("stride_w") == low.i("dilation_w") == 1 and variant.pixels > 1
    return replace(variant, dot=dot, taps_w=taps_w, pair=2 if neighbours else 1) if dot else variant


def _multiplier(low: Lowering) -> int:
    """Filters that read the same channel."""
    return low.output.channels // low.input().channels


def _tap_bytes(low: Lowering) -> int:
    """Bytes of one tap of all filters."""
    return -(-low.output.channels * low.call.constants["filter"].encoding.bits // 8)


def _filters(low: Lowering, variant: DepthwiseVariant) -> tuple[int, int]:
    """The offset of the filters, and the bytes of a tap of all of them, or of a row of those of a vector of channels."""
    if not variant.dot:
        return low.constant("filter"), _tap_bytes(low)
    rows, taps_w, channels = low.call.constants["filter"].shape
    blocks, groups = -(-channels // variant.lanes), -(-(taps_w + variant.pair - 1) // variant.dot)
    filters = np.zeros((rows, taps_w, blocks * variant.lanes), np.int8)
    filters[..., :channels] = low.array("filter")
    by_block = filters.reshape(rows, taps_w, blocks, variant.lanes).transpose(2, 0, 1, 3)
    laid = np.zeros((blocks, rows, variant.pair, groups, variant.lanes, variant.dot), np.int8 if variant.dot == 4 else np.int16)
    for pixel in range(variant.pair):
        for tap in range(taps_w):
            group, place = divmod(tap + pixel, variant.dot)
            laid[:, :, pixel, group, :, place] = by_block[:, :, tap]
    return low.derived.add(laid), laid[0, 0].nbytes


def _tables(low: Lowering, variant: DepthwiseVariant) -> tuple[int, int, int]:
    """The offset of what ends the sums of every channel; of packed signs also those of the border classes of rows and columns."""
    if low.call.inputs[0].encoding is not Encoding.BITS:
        return _zero_table(low, variant), 0, 0
    signs = 1 - 2 * low.array("filter").astype(np.int8)
    table, borders = packed_table(low, window_of(low), signs.transpose(2, 0, 1)[..., None])
    offset, _, rows, columns = class_table(low, table, borders, NEVER, OVERREAD + variant.lanes)
    return offset, rows, columns


def _zero_table(low: Lowering, variant: DepthwiseVariant) -> int:
    """The offset of what is added to every channel's sum: minus the zero point (and 128) times the sum of its filter."""
    kind = low.call.inputs[0]
    if kind.encoding is Encoding.FLOAT32:
        return 0
    offset = kind.zero_point + (128 if variant.dot == 4 and kind.encoding is Encoding.INT8 else 0)
    table = np.zeros(low.output.channels + OVERREAD, np.int32)
    table[: low.output.channels] = -offset * low.array("filter").sum(axis=(0, 1), dtype=np.int64)
    return low.derived.add(table)


def _channel_bytes(low: Lowering) -> int:
    """The offset of the bytes (packed: the bits), in a pixel, of the channel that every output channel reads."""
    channels = low.output.channels
    table = np.zeros(channels + 2 * OVERREAD, np.int32)
    table[:channels] = np.arange(channels) // _multiplier(low) * max(1, low.call.inputs[0].encoding.bits // 8)
    return low.derived.add(table)


def _lower(low: Lowering) -> Lowered:
    image, out = low.input(), low.output
    variant = _variant(low)
    filters, filter_step = _filters(low, variant)
    table, row_classes, column_classes = _tables(low, variant)
    taps_h, taps_w, _ = low.call.constants["filter"].shape
    args = (
        low.i("stride_w") * image.pixel_bytes,
        taps_h, low.i("dilation_h") * image.row_bytes, taps_w, low.i("dilation_w") * image.pixel_bytes, filter_step,
        image.offset - low.i("pad_top") * image.row_bytes - low.i("pad_left") * image.pixel_bytes,
        low.i("stride_h") * image.row_bytes, filters,
        out.height, out.width, out.offset, out.pixel_bytes, out.row_bytes, out.channels,
        table, _multiplier(low) if variant.repeats else _channel_bytes(low), row_classes, column_classes,
        *epilogue(low, scaled=variant.scaled, biased=True),
    )  # fmt: skip
    macs = low.instruction.definition.macs(low.call, out.type.shape)
    return Lowered(Code(variant.name, _builder(variant)), args, 4 * variant.pixels * variant.lanes, macs)


def _builder(variant: DepthwiseVariant) -> Callable[[Machine], KernelFunction]:
    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import depthwise_code

        return depthwise_code.kernel(variant, machine)

    return build


KERNELS = (Kernel("depthwise_conv2d", "depthwise_conv2d", lambda low: True, _lower),)
