"""The map K of XNOR-Net, mean(abs(x)) over channels and window: lowering (the code is `edge.kernels.magnitude_code`).

The scratch memory of a part holds the magnitudes of the last rows of the input in a ring, which a window's rows fit, and behind it the
sums of a window's rows with the padding at both ends. All rows there end with zeros up to whole vectors.
"""

from __future__ import annotations

from edge.kernels.arithmetic import mean_factor
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering, float_bits
from edge.kernels.shapes import VALUES

_VECTOR_BYTES = 4 * VALUES


def _lower(low: Lowering) -> Lowered:
    image, out = low.input(), low.output
    ring_rows, ring_row_bytes = min(low.i("window_h"), image.height), _whole(image.width)
    ring_bytes = ring_rows * ring_row_bytes
    sums_bytes = _whole(_reached(low) + VALUES)
    args = (
        image.offset, image.row_bytes, image.pixel_bytes, image.height, image.width, image.channels,
        out.offset, out.row_bytes, out.height, out.width,
        low.i("window_h"), low.i("window_w"), low.i("stride_h"), low.i("stride_w"), low.i("pad_top"), low.i("pad_left"),
        float_bits(float(mean_factor(low.call))),
        ring_rows, ring_row_bytes, ring_bytes, ring_bytes + sums_bytes,
    )  # fmt: skip
    return Lowered(Code("magnitude_map", _build), args, scratch_bytes=ring_bytes + sums_bytes, work=_work(low))


def _whole(values: int) -> int:
    """The bytes of so many float32, in whole vectors."""
    return -(-values // VALUES) * _VECTOR_BYTES


def _reached(low: Lowering) -> int:
    """The columns, padding included, that are written or that a window reads."""
    last = (low.output.width - 1) * low.i("stride_w") + low.i("window_w")
    return max(last, low.i("pad_left") + low.input().width)


def _work(low: Lowering) -> int:
    """Values added: those of the image once, and sums of rows and columns."""
    image, out = low.input(), low.output
    rows = out.height * min(low.i("window_h"), image.height) * image.width
    return image.type.elements + rows + out.height * out.width * low.i("window_w")


def _build(machine: Machine) -> KernelFunction:
    from edge.kernels import magnitude_code

    return magnitude_code.kernel()


KERNELS = (Kernel("magnitude_map", "magnitude_map", lambda low: True, _lower),)
