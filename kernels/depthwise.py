"""Depthwise convolutions: lowering (the code is `edge.kernels.depthwise_code`).

The kernel reads the input's halo, which holds zeros; of integers the zero point. It multiplies integers as stored, so what the zero point
adds, zero_point * sum of w, is taken off by a table of one number per channel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.kernels.arguments import OVERREAD, epilogue, is_leaky
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering
from edge.kernels.shapes import DepthwiseVariant, depthwise_pixels, depthwise_repeats
from edge.tensors import Encoding

_KINDS = {
    (Encoding.UINT8, Encoding.INT8): "u8i8",
    (Encoding.INT8, Encoding.INT8): "i8i8",
    (Encoding.FLOAT32, Encoding.FLOAT32): "f32f32",
    (Encoding.FLOAT32, Encoding.INT8): "f32i8",
    (Encoding.FLOAT32, Encoding.BITS): "f32bits",
}


def _variant(low: Lowering) -> DepthwiseVariant:
    out = low.output
    lanes = 16 if low.machine.isa.vector_bytes == 64 else 8
    kind = _KINDS[low.call.inputs[0].encoding, low.call.constants["filter"].encoding]
    repeats = depthwise_repeats(lanes, _multiplier(low))
    pixels = depthwise_pixels(low.machine, lanes, out.width, gathered=repeats == 0)
    return DepthwiseVariant(kind, out.type.encoding.name.lower(), pixels, lanes, repeats, low.has("scale"), is_leaky(low))


def _multiplier(low: Lowering) -> int:
    """Filters that read the same channel."""
    return low.output.channels // low.input().channels


def _tap_bytes(low: Lowering) -> int:
    """Bytes of one tap of all filters."""
    return -(-low.output.channels * low.call.constants["filter"].encoding.bits // 8)


def _zero_table(low: Lowering) -> int:
    """The offset of what is added to every channel's sum: minus the zero point times the sum of its filter."""
    kind = low.call.inputs[0]
    if kind.encoding is Encoding.FLOAT32:
        return 0
    table = np.zeros(low.output.channels + OVERREAD, np.int32)
    table[: low.output.channels] = -kind.zero_point * low.array("filter").sum(axis=(0, 1), dtype=np.int64)
    return low.derived.add(table)


def _channel_bytes(low: Lowering) -> int:
    """The offset of the bytes, in a pixel, of the channel that every output channel reads."""
    channels = low.output.channels
    table = np.zeros(channels + OVERREAD, np.int32)
    table[:channels] = np.arange(channels) // _multiplier(low) * (low.call.inputs[0].encoding.bits // 8)
    return low.derived.add(table)


def _lower(low: Lowering) -> Lowered:
    image, out = low.input(), low.output
    variant = _variant(low)
    taps_h, taps_w, _ = low.call.constants["filter"].shape
    args = (
        low.i("stride_w") * image.pixel_bytes,
        taps_h, low.i("dilation_h") * image.row_bytes, taps_w, low.i("dilation_w") * image.pixel_bytes, _tap_bytes(low),
        image.offset - low.i("pad_top") * image.row_bytes - low.i("pad_left") * image.pixel_bytes,
        low.i("stride_h") * image.row_bytes, low.constant("filter"),
        out.height, out.width, out.offset, out.pixel_bytes, out.row_bytes, out.channels,
        _zero_table(low), _multiplier(low) if variant.repeats else _channel_bytes(low),
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
