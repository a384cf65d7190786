"""Vectors for kernels: LLVM vector types as values in Numba code, and typed access to raw memory.

`vector("f32", 16)` gives the operations of <16 x float> as Numba intrinsics; LLVM turns any number of lanes into what the machine has, so
kernels are written once. Addresses are byte pointers plus a byte offset; nothing here checks bounds (the verifier did).

Element names: f32, i8, u8, i16, i32, i64.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic, lower_builtin, type_callable

from edge.kernels.build import STAND_IN

ELEMENTS: dict[str, ir.Type] = {
    "f32": ir.FloatType(),
    "i8": ir.IntType(8),
    "u8": ir.IntType(8),
    "i16": ir.IntType(16),
    "i32": ir.IntType(32),
    "i64": ir.IntType(64),
}
SCALARS: dict[str, types.Type] = {
    "f32": types.float32,
    "i8": types.int8,
    "u8": types.uint8,
    "i16": types.int16,
    "i32": types.int32,
    "i64": types.int64,
}
# What kernels know of a float32.
MANTISSA_BITS = 23
WITHOUT_SIGN = 0x7FFFFFFF
ROUND = 12582912.0  # 1.5 * 2**23: adding it to a float32 below 2**22 leaves the nearest whole number, half to even, in the low bits
INDEX = ir.IntType(64)
LANE = ir.IntType(32)


class Vec(types.Type):
    """The Numba type of <lanes x element>."""

    def __init__(self, element: str, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"Vec({element},{lanes})")

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(ELEMENTS[self.element], self.lanes)

    @property
    def mangled(self) -> str:
        """The type in the names of LLVM's intrinsics."""
        return f"v{self.lanes}{self.element.replace('u', 'i')}"


@register_default(Vec)
class VecModel(models.PrimitiveModel):
    """A vector is an LLVM value of its own."""

    def __init__(self, dmm: Any, fe_type: Vec) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def address(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value, kind: ir.Type) -> ir.Value:
    """pointer + offset bytes, as a pointer to `kind`."""
    octet = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(octet, [offset]), kind.as_pointer())


def opaque(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The same pointer or vector, of which LLVM knows nothing.

    Addresses are then computed from the pointer, instead of kept running one by one in a loop; and what is done with the vector (on x86-64
    alone) is done as it is written.
    """
    register = "r" if isinstance(value.type, ir.PointerType) else "v"
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", f"={register},0", [value], side_effect=False)


def splat(builder: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType) -> ir.Value:
    """A vector with every lane equal to `scalar`."""
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, scalar, LANE(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(LANE, kind.count), [0] * kind.count))


def machine_intrinsic(builder: ir.IRBuilder, name: str, kind: ir.VectorType, *operands: ir.Value) -> ir.Value:
    """Call an LLVM intrinsic of the machine that code is made for, which the one that makes it may lack: Numba compiles for its own first.

    So a function stands in, which `edge.kernels.build` replaces; nothing may be concluded from what it does.
    """
    stand_in = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [o.type for o in operands]), STAND_IN + name)
    if stand_in.is_declaration:
        stand_in.linkage = "linkonce"
        for attribute in ("noinline", "optnone"):
            stand_in.attributes.add(attribute)
        ir.IRBuilder(stand_in.append_basic_block()).ret(ir.Constant(kind, None))
    return builder.call(stand_in, operands)


Emit = Callable[[Any, ir.IRBuilder, list[ir.Value]], ir.Value]


def _intrinsic(emit: Emit, result: types.Type, *arguments: types.Type) -> Any:
    """A Numba intrinsic of fixed types whose code `emit` writes."""

    def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        made = emit(context, builder, values)
        return context.get_dummy_value() if result == types.void else made

    signature = result(*arguments)
    typers = {
        1: lambda context, a: (signature, code),
        2: lambda context, a, b: (signature, code),
        3: lambda context, a, b, c: (signature, code),
        4: lambda context, a, b, c, d: (signature, code),
    }
    return intrinsic(typers[len(arguments)])


def _namespace(name: str, **members: Any) -> ModuleType:
    """Functions under one name. Numba resolves attributes of modules, and of no other objects, when it types a kernel."""
    made = ModuleType(name)
    vars(made).update(members)
    return made


# -- vectors -------------------------------------------------------------------------------------------------------------------


@functools.cache
def vector(element: str, lanes: int) -> Any:
    """The operations of a vector type:

    load(p, bytes), store(p, bytes, v), splat(x); low(a, b) and high(a, b) for minimum and maximum, which give b where a is not a
    number; atmost(a, b) and atleast(a, b), the same but a not-a-number stays; less(a, b) as a lane mask in an integer, lane 0 in bit 0;
    where_less(a, b, x, y) takes x where a < b; to_f32, to_i32, to_i8 (truncating). Operators + - * / ^ & | work on equal types.

    Of a vector's first lanes: store_first(p, bytes, v, count) stores them alone; first(count, a, b) takes b in the others.
    choose(mask, x, y) takes x in the lanes whose bit is 1; bounded(a, low, otherwise) is a where a >= low. total(v) and largest(v) combine
    lanes by halves, so their result depends on no machine. f32 and i32 have of_bits(i32 or f32), f32 sqrt(v), and i32 shift_left and
    shift_right(v, n).
    """
    kind = Vec(element, lanes)
    octets, scalar = types.CPointer(types.uint8), SCALARS[element]
    op: Any = _namespace(f"{element}x{lanes}", kind=kind, lanes=lanes)
    op.load = _intrinsic(lambda c, b, v: b.load(address(b, v[0], v[1], kind.llvm), align=1), kind, octets, types.int64)
    op.store = _intrinsic(lambda c, b, v: b.store(v[2], address(b, v[0], v[1], kind.llvm), align=1), types.void, octets, types.int64, kind)
    op.splat = _intrinsic(lambda c, b, v: splat(b, v[0], kind.llvm), kind, scalar)
    op.low = _intrinsic(lambda c, b, v: b.select(_less(b, kind, v[0], v[1]), v[0], v[1]), kind, kind, kind)
    op.high = _intrinsic(lambda c, b, v: b.select(_less(b, kind, v[1], v[0]), v[0], v[1]), kind, kind, kind)
    op.atmost = _intrinsic(lambda c, b, v: b.select(_less(b, kind, v[1], v[0]), v[1], v[0]), kind, kind, kind)
    op.atleast = _intrinsic(lambda c, b, v: b.select(_less(b, kind, v[0], v[1]), v[1], v[0]), kind, kind, kind)
    op.where_less = _intrinsic(lambda c, b, v: b.select(_less(b, kind, v[0], v[1]), v[2], v[3]), kind, kind, kind, kind, kind)
    op.less = _intrinsic(lambda c, b, v: _mask(b, _less(b, kind, v[0], v[1]), lanes), types.int64, kind, kind)
    for target in ("f32", "i32", "i8"):
        setattr(op, f"to_{target}", _conversion(kind, Vec(target, lanes)))
    vars(op).update(_lane_operations(kind, octets))
    if element in ("f32", "i32"):
        vars(op).update(_bit_operations(kind))
    return op


def _lane_operations(kind: Vec, octets: types.Type) -> dict[str, Any]:
    """Operations that tell lanes apart."""
    lanes, index, scalar = kind.lanes, types.int64, SCALARS[kind.element]
    return {
        "store_first": _intrinsic(lambda c, b, v: _store_first(b, kind, *v), types.void, octets, index, kind, index),
        "first": _intrinsic(lambda c, b, v: b.select(_below(b, lanes, v[0]), v[1], v[2]), kind, index, kind, kind),
        "choose": _intrinsic(lambda c, b, v: b.select(_mask_lanes(b, lanes, v[0]), v[1], v[2]), kind, index, kind, kind),
        "bounded": _intrinsic(lambda c, b, v: b.select(_not_less(b, kind, v[0], v[1]), v[0], v[2]), kind, kind, kind, kind),
        "total": _intrinsic(lambda c, b, v: _halves(b, v[0], lambda x, y: _sum(b, kind, x, y)), scalar, kind),
        "largest": _intrinsic(lambda c, b, v: _halves(b, v[0], lambda x, y: b.select(_less(b, kind, x, y), y, x)), scalar, kind),
    }


def _bit_operations(kind: Vec) -> dict[str, Any]:
    """float32 and int32 as each other's bits, and shifts of integers."""
    if kind.element == "f32":
        return {
            "of_bits": _intrinsic(lambda c, b, v: b.bitcast(v[0], kind.llvm), kind, Vec("i32", kind.lanes)),
            "sqrt": _intrinsic(lambda c, b, v: _square_root(b, kind, v[0]), kind, kind),
        }

    def count(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
        return splat(builder, builder.trunc(bits, ELEMENTS["i32"]), kind.llvm)

    return {
        "of_bits": _intrinsic(lambda c, b, v: b.bitcast(v[0], kind.llvm), kind, Vec("f32", kind.lanes)),
        "shift_left": _intrinsic(lambda c, b, v: b.shl(v[0], count(b, v[1])), kind, kind, types.int64),
        "shift_right": _intrinsic(lambda c, b, v: b.ashr(v[0], count(b, v[1])), kind, kind, types.int64),
    }


def _square_root(builder: ir.IRBuilder, kind: Vec, value: ir.Value) -> ir.Value:
    """An instruction of every machine that has float32."""
    function = ir.FunctionType(kind.llvm, [kind.llvm])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.sqrt.{kind.mangled}"), [value])


def _less(builder: ir.IRBuilder, kind: Vec, a: ir.Value, b: ir.Value) -> ir.Value:
    if kind.element == "f32":
        return builder.fcmp_ordered("<", a, b)
    compare = builder.icmp_unsigned if kind.element.startswith("u") else builder.icmp_signed
    return compare("<", a, b)


def _not_less(builder: ir.IRBuilder, kind: Vec, a: ir.Value, b: ir.Value) -> ir.Value:
    if kind.element == "f32":
        return builder.fcmp_ordered(">=", a, b)
    return builder.not_(_less(builder, kind, a, b))


def _below(builder: ir.IRBuilder, lanes: int, count: ir.Value) -> ir.Value:
    """Which lanes have a number below `count`."""
    kind = ir.VectorType(LANE, lanes)
    return builder.icmp_signed("<", ir.Constant(kind, list(range(lanes))), splat(builder, builder.trunc(count, LANE), kind))


def _store_first(builder: ir.IRBuilder, kind: Vec, pointer: ir.Value, offset: ir.Value, value: ir.Value, count: ir.Value) -> None:
    where = address(builder, pointer, offset, kind.llvm)
    mask = _below(builder, kind.lanes, count)
    function = ir.FunctionType(ir.VoidType(), [kind.llvm, where.type, LANE, mask.type])
    name = f"llvm.masked.store.{kind.mangled}.p0"
    builder.call(cgutils.get_or_insert_function(builder.module, function, name), [value, where, LANE(1), mask])


def _mask_lanes(builder: ir.IRBuilder, lanes: int, word: ir.Value) -> ir.Value:
    bits = word if lanes == INDEX.width else builder.trunc(word, ir.IntType(lanes))
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), lanes))


def _sum(builder: ir.IRBuilder, kind: Vec, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.fadd(a, b) if kind.element == "f32" else builder.add(a, b)


def _halves(builder: ir.IRBuilder, value: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
    """All lanes combined: the upper half with the lower, until one lane is left."""
    lanes = value.type.count
    while lanes > 1:
        lanes //= 2
        halves = [
            builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(LANE, lanes), [first + i for i in range(lanes)]))
            for first in (0, lanes)
        ]
        value = combine(*halves)
    return builder.extract_element(value, LANE(0))


def _mask(builder: ir.IRBuilder, lanes_true: ir.Value, lanes: int) -> ir.Value:
    bits = builder.bitcast(lanes_true, ir.IntType(lanes))
    return bits if lanes == INDEX.width else builder.zext(bits, INDEX)


def _conversion(source: Vec, target: Vec) -> Any:
    def emit(context: Any, builder: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        return _convert(builder, values[0], source, target)

    return _intrinsic(emit, target, source)


def _convert(builder: ir.IRBuilder, value: ir.Value, source: Vec, target: Vec) -> ir.Value:
    if source.element == target.element:
        return value
    if target.element == "f32":
        return (builder.uitofp if source.element == "u8" else builder.sitofp)(value, target.llvm)
    if source.element == "f32":
        return builder.fptosi(value, target.llvm)
    widths = ELEMENTS[source.element].width, ELEMENTS[target.element].width
    if widths[0] > widths[1]:
        return builder.trunc(value, target.llvm)
    if widths[0] == widths[1]:
        return value
    return (builder.zext if source.element == "u8" else builder.sext)(value, target.llvm)


# LLVM's names of each operator, for integers and for floats; empty where there is none.
_OPERATORS: dict[Any, tuple[str, str]] = {
    operator.add: ("add", "fadd"),
    operator.sub: ("sub", "fsub"),
    operator.mul: ("mul", "fmul"),
    operator.truediv: ("", "fdiv"),
    operator.xor: ("xor", ""),
    operator.and_: ("and_", ""),
    operator.or_: ("or_", ""),
}


def _operators() -> None:
    """Teach Numba the operators of vectors of equal type. Products and sums are rounded one by one: nothing is contracted."""
    for function, (integer, floating) in _OPERATORS.items():
        _register_operator(function, integer, floating)


def _register_operator(function: Any, integer: str, floating: str) -> None:
    @type_callable(function)
    def typer(context: Any) -> Any:
        def typed(a: types.Type, b: types.Type) -> types.Type | None:
            usable = isinstance(a, Vec) and a == b and (floating if a.element == "f32" else integer)
            return a if usable else None

        return typed

    @lower_builtin(function, Vec, Vec)
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        name = floating if sig.return_type.element == "f32" else integer
        return getattr(builder, name)(*values)


_operators()


# -- memory --------------------------------------------------------------------------------------------------------------------


@functools.cache
def memory(element: str) -> Any:
    """Scalars in memory: get(p, bytes), put(p, bytes, x), and at(p, bytes), a pointer p2 whose elements are p2[i]."""
    scalar, kind = SCALARS[element], ELEMENTS[element]
    octets = types.CPointer(types.uint8)
    return _namespace(
        f"memory_{element}",
        get=_intrinsic(lambda c, b, v: b.load(address(b, v[0], v[1], kind), align=1), scalar, octets, types.int64),
        put=_intrinsic(lambda c, b, v: b.store(v[2], address(b, v[0], v[1], kind), align=1), types.void, octets, types.int64, scalar),
        at=_intrinsic(lambda c, b, v: address(b, v[0], v[1], kind), types.CPointer(scalar), octets, types.int64),
    )


@functools.cache
def float_of_bits() -> Any:
    """float32 from its bits in an integer: how attributes that are floats travel in the argument row."""

    def emit(context: Any, builder: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        return builder.bitcast(builder.trunc(values[0], ir.IntType(32)), ir.FloatType())

    return _intrinsic(emit, types.float32, types.int64)


@functools.cache
def bits_of_float() -> Any:
    """The bits of a float32 as int32."""
    return _intrinsic(lambda c, b, v: b.bitcast(v[0], ir.IntType(32)), types.int32, types.float32)


@functools.cache
def stack(nbytes: int) -> Any:
    """stack(): a pointer to `nbytes` bytes of the kernel's own. Where all accesses are at constant offsets LLVM keeps them in registers."""

    def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
        memory = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), nbytes))
        memory.align = 64
        return builder.bitcast(memory, ir.IntType(8).as_pointer())

    return intrinsic(lambda context: (types.CPointer(types.uint8)(), code))


@functools.cache
def fill() -> Any:
    """fill(p, bytes, value, count): count bytes become value (memset)."""

    @intrinsic
    def typed(context: Any, pointer: Any, offset: Any, value: Any, count: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            start = address(builder, values[0], values[1], ir.IntType(8))
            cgutils.memset(builder, start, values[3], builder.trunc(values[2], ir.IntType(8)))
            return context.get_dummy_value()

        return types.void(types.CPointer(types.uint8), types.int64, types.int64, types.int64), code

    return typed


@functools.cache
def copy() -> Any:
    """copy(to, bytes, source, bytes, count): count bytes, which must not overlap (memcpy)."""

    @intrinsic
    def typed(context: Any, to: Any, to_offset: Any, source: Any, source_offset: Any, count: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            target = address(builder, values[0], values[1], ir.IntType(8))
            origin = address(builder, values[2], values[3], ir.IntType(8))
            cgutils.raw_memcpy(builder, target, origin, values[4], 1)
            return context.get_dummy_value()

        octets = types.CPointer(types.uint8)
        return types.void(octets, types.int64, octets, types.int64, types.int64), code

    return typed
