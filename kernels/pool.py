"""Pools: lowering (the code is `edge.kernels.pool_code`).

Windows are clipped to the image, so no halo is read. Packed pixels are pooled as words of 8, 16, 32 or 64 bits: the maximum of signs is the
AND of their bits, and the minimum of flipped channels the OR, which is the AND of the inverted bits, inverted.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering
from edge.kernels.shapes import PoolVariant, pool_lanes
from edge.tensors import Encoding

_ELEMENTS = {Encoding.FLOAT32: ("f32", 4), Encoding.INT8: ("i8", 1), Encoding.UINT8: ("u8", 1)}
_UNROLLED = (2, 3)
_WORDS = {1: "i8", 2: "i16", 4: "i32"}  # of packed pixels; longer ones are of 64-bit words


def _element(low: Lowering) -> tuple[str, int]:
    """What a pixel consists of for the kernel, and its bytes."""
    image = low.input()
    if image.type.encoding is not Encoding.BITS:
        return _ELEMENTS[image.type.encoding]
    nbytes = min(image.pixel_bytes, 8)
    return _WORDS.get(nbytes, "i64"), nbytes


def _variant(low: Lowering) -> PoolVariant:
    element, nbytes = _element(low)
    averaged = low.op == "average_pool2d"
    width = 4 if averaged else nbytes  # of a lane of the accumulator
    lanes = pool_lanes(low.machine, width, low.output.pixel_bytes // nbytes)
    packed = low.call.inputs[0].encoding is Encoding.BITS
    return PoolVariant("average" if averaged else "max", element, lanes, packed, _flips(low), *_known_window(low))


def _known_window(low: Lowering) -> tuple[int, bool]:
    """The size of a square window whose taps the code unrolls, 0 for others, and whether some windows reach out of the image."""
    height, width = low.i("window_h"), low.i("window_w")
    known = height if height == width and height in _UNROLLED else 0
    return known, not known or any(low.i(f"pad_{side}") for side in ("top", "bottom", "left", "right"))


def _flips(low: Lowering) -> bool:
    return low.op == "max_pool2d" and low.has("flip")


def _lower(low: Lowering) -> Lowered:
    image, out = low.input(), low.output
    variant = _variant(low)
    args = (
        image.offset, image.row_bytes, image.pixel_bytes, image.height, image.width,
        out.offset, out.row_bytes, out.pixel_bytes, out.height, out.width, out.pixel_bytes // _element(low)[1],
        low.i("window_h"), low.i("window_w"), low.i("stride_h"), low.i("stride_w"), low.i("pad_top"), low.i("pad_left"),
        low.constant("flip") if variant.flipped else 0,
    )  # fmt: skip
    return Lowered(Code(variant.name, _builder(variant)), args, work=_work(low))


def _work(low: Lowering) -> int:
    """Values touched; a vector that is begun takes as long as a whole one of 16 float32."""
    image, out = low.input(), low.output
    taps = min(low.i("window_h"), image.height) * min(low.i("window_w"), image.width)
    return out.height * out.width * taps * 16 * -(-out.pixel_bytes // 64)


def _builder(variant: PoolVariant) -> Callable[[Machine], KernelFunction]:
    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import pool_code

        return pool_code.kernel(variant)

    return build


KERNELS = tuple(Kernel(op, op, lambda low: True, _lower) for op in ("max_pool2d", "average_pool2d"))
