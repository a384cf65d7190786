"""The loop that runs a program: one native call for all kernel calls of an inference.

A call record is `RECORD` int64: the kernel's address, the address of its argument row, its parts.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.isa import Machine
from edge.kernels.registry import Code, KernelFunction

RECORD = 3


def _build(machine: Machine) -> KernelFunction:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    octets = types.CPointer(types.uint8)

    @intrinsic
    def call(context: Any, kernel: Any, args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> Any:
        kind = types.void(types.int64, types.int64, octets, octets, octets, types.int64, types.int64)

        def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            kernel, args, *rest = values
            arguments = [builder.inttoptr(args, ir.IntType(64).as_pointer()), *rest]
            function = ir.FunctionType(ir.VoidType(), [value.type for value in arguments]).as_pointer()
            builder.call(builder.inttoptr(kernel, function), arguments)
            return context.get_dummy_value()

        return kind, code

    def loop(records: Any, arena: Any, constants: Any, scratch: Any, first: Any, last: Any) -> None:
        for i in range(first, last):
            parts = records[RECORD * i + 2]
            for part in range(parts):
                call(records[RECORD * i], records[RECORD * i + 1], arena, constants, scratch, part, parts)

    return loop


LOOP = Code("loop", _build)
