"""What the loop needs of the machine and the C library: calls by address, atomic words, and semaphores."""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edge.kernels.isa import Machine

_WORD = ir.IntType(64)
_OCTETS = types.CPointer(types.uint8)


@intrinsic
def call_kernel(context: Any, kernel: Any, args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> Any:
    """Call the kernel at an address with the argument row at an address."""
    kind = types.void(types.int64, types.int64, _OCTETS, _OCTETS, _OCTETS, types.int64, types.int64)

    def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        kernel, args, *rest = values
        arguments = [builder.inttoptr(args, _WORD.as_pointer()), *rest]
        function = ir.FunctionType(ir.VoidType(), [value.type for value in arguments]).as_pointer()
        builder.call(builder.inttoptr(kernel, function), arguments)
        return context.get_dummy_value()

    return kind, code


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, _WORD.as_pointer())


@intrinsic
def word(context: Any, address: Any) -> Any:
    """The int64 at an address."""
    return types.int64(types.int64), lambda c, b, s, v: b.load(_pointer(b, v[0]))


@intrinsic
def fetch_add(context: Any, address: Any, value: Any) -> Any:
    """Add to the word at an address, as one step in the order of all threads; the value before."""
    return types.int64(types.int64, types.int64), lambda c, b, s, v: b.atomic_rmw("add", _pointer(b, v[0]), v[1], "seq_cst")


@intrinsic
def load_acquire(context: Any, address: Any) -> Any:
    """The word at an address; what its writer wrote before is seen after."""
    return types.int64(types.int64), lambda c, b, s, v: b.load_atomic(_pointer(b, v[0]), "seq_cst", 8)


@intrinsic
def store(context: Any, address: Any, value: Any) -> Any:
    """Write the word at an address after all that was written before, as one step in the order of all threads."""

    def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        builder.store_atomic(values[1], _pointer(builder, values[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def exchange(context: Any, address: Any, value: Any) -> Any:
    """Write the word at an address, as one step in the order of all threads; the value before."""
    return types.int64(types.int64, types.int64), lambda c, b, s, v: b.atomic_rmw("xchg", _pointer(b, v[0]), v[1], "seq_cst")


@intrinsic
def replace(context: Any, address: Any, expected: Any, value: Any) -> Any:
    """Write the word at an address if it is `expected`, as one step in the order of all threads; whether it was."""

    def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        address, expected, value = values
        both = builder.cmpxchg(_pointer(builder, address), expected, value, "seq_cst", "seq_cst")
        return builder.extract_value(both, 1)

    return types.boolean(types.int64, types.int64, types.int64), code


@functools.cache
def pause(machine: Machine) -> Any:
    """pause(): tell the core that this thread waits in a loop; nothing where there is no such instruction."""
    architecture = machine.triple.split("-")[0]
    number = ir.IntType(32)
    hints: dict[str, tuple[str, list[ir.Constant]]] = {"x86_64": ("llvm.x86.sse2.pause", []), "aarch64": ("llvm.aarch64.hint", [number(1)])}

    def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        if architecture in hints:
            name, arguments = hints[architecture]
            kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
        return context.get_dummy_value()

    return intrinsic(lambda context: (types.void(), code))


def _library_call(name: str, arity: int) -> Any:
    """A function of the C library that takes words and returns an int."""

    def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        kind = ir.FunctionType(ir.IntType(32), [_WORD] * arity)
        return builder.sext(builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values), _WORD)

    if arity == 0:
        return intrinsic(lambda context: (types.int64(), code))
    if arity == 1:
        return intrinsic(lambda context, first: (types.int64(types.int64), code))
    return intrinsic(lambda context, first, second: (types.int64(types.int64, types.int64), code))


sem_wait = _library_call("sem_wait", 1)
sem_post = _library_call("sem_post", 1)
sched_yield = _library_call("sched_yield", 0)
clock_gettime = _library_call("clock_gettime", 2)
