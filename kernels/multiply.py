"""Products of two tensors and their like, the second repeated along its axes of 1: lowering (the code is `edge.kernels.multiply_code`).

Every row of the first input is cut into segments, each joined with one value of the second input or with as many values as it has. A
segment is a pixel, or the whole row where the second input's values follow each other as those of the first do, or are one for the row.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering


def _lower(low: Lowering) -> Lowered:
    x, m, out = low.input(), low.input(1), low.output
    splat = m.channels == 1 and (x.channels > 1 or m.width == 1)
    whole_row = m.width == (1 if splat else x.width)
    segments, values = (1, x.width * x.channels) if whole_row else (x.width, x.channels)
    m_row = m.row_bytes if m.height > 1 else 0
    m_segment = m.pixel_bytes if m.width > 1 else 0
    args = (x.height, segments, values, x.offset, x.row_bytes, m.offset, m_row, m_segment, out.offset, out.row_bytes)
    return Lowered(Code(f"{low.op}_splat" if splat else low.op, _builder(low.op, splat)), args, work=x.type.elements)


def _builder(op: str, splat: bool) -> Callable[[Machine], KernelFunction]:
    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import multiply_code

        return multiply_code.kernel(op, splat)

    return build


OPERATIONS = ("multiply", "subtract", "divide", "maximum", "minimum")
KERNELS = tuple(Kernel(op, op, lambda low: True, _lower) for op in OPERATIONS)
