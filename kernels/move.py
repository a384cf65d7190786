"""Moving data: halos, reshape, padding, concatenation, packing and unpacking bits.

Lowering above, code (with Numba imported inside the builders) below each.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Place
from edge.tensors import Encoding

# -- halos ---------------------------------------------------------------------------------------------------------------------


def lower_halo(tensor: Place) -> Lowered:
    """Fill the halo of a tensor (`tensor.offset` is where the halo starts) with the encoding's zero, +1 for bits."""
    kind = tensor.type
    halo = kind.halo
    value = kind.zero_point & 0xFF if kind.encoding in (Encoding.INT8, Encoding.UINT8) else 0
    inner = tensor.width * kind.pixel_bytes
    args = (
        tensor.offset, kind.row_bytes, tensor.height, halo.top, halo.bottom,
        halo.left * kind.pixel_bytes, halo.right * kind.pixel_bytes, inner, value,
    )  # fmt: skip
    return Lowered(Code("fill_halo", _build_halo), args, work=kind.nbytes - inner * tensor.height)


def _build_halo(machine: Machine) -> KernelFunction:
    from edge.kernels.simd import fill

    put = fill()

    def fill_halo(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        if part != 0:
            return
        start, row, height, value = args[0], args[1], args[2], args[8]
        put(arena, start, value, args[3] * row)
        first = start + args[3] * row
        for y in range(height):
            line = first + y * row
            put(arena, line, value, args[5])
            put(arena, line + args[5] + args[7], value, args[6])
        put(arena, first + height * row, value, args[4] * row)

    return fill_halo


KERNELS: tuple[Kernel, ...] = ()
