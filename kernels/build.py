"""The one compile path: a Python function becomes the object code of a C function for a machine.

Numba types and lowers the function (without its CPython and C wrappers, so that nothing of Python is referred to), a few lines of LLVM
give it the kernel signature

    void kernel(const int64 *args, uint8 *arena, const uint8 *constants, uint8 *scratch, int64 part, int64 parts)

everything else becomes internal, and a target machine of our own emits the object. Such an object is loaded without Numba
(`edge.kernels.cache`). The Numba calls used here are private to Numba: no other module uses them, and the version is pinned.

Why not Numba's own @cfunc(cache=True): kernels made by a factory never hit its cache, it fails at import on a read-only install or a full
disk, it does not see changes in other files, and every object it makes refers to Python.
"""

from __future__ import annotations

import functools
import gc
import inspect
import re
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir

from edge.kernels.isa import Machine

KernelFunction = Callable[..., None]

_BYTES = ir.IntType(8).as_pointer()
_WORD = ir.IntType(64)
_POINTERS = 4
STAND_IN = "edge.stand_in."  # before the names of functions that stand for intrinsics until the code is the machine's (`edge.kernels.simd`)
_STACK_BYTES = 16  # what the stack is aligned to at a call
_INLINED: dict[Hashable, Any] = {}  # functions for kernels by what decides their code, until `forget`


def inlined(function: KernelFunction) -> Any:
    """Decorator of functions that kernels call: compiled with the options of kernels, with nothing of Python, and inlined by LLVM.

    Equal functions are one until `forget`, and Numba types and lowers it once: the kernels of a network share many.
    """
    from numba import njit

    key = _content(function)
    found = _INLINED.get(key) if key is not None else None
    if found is None:
        options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True, "_nrt": False}
        found = njit(**options, pipeline_class=_kernel_compiler())(function)
        if key is not None:
            _INLINED[key] = found
    return found


def forget() -> None:
    """Let go of the functions that kernels shared."""
    _INLINED.clear()


def _content(function: KernelFunction) -> Hashable | None:
    """What decides the code of a function: its instructions, and the values of all names in it; None where these have no fixed value."""
    code, known = function.__code__, function.__globals__
    cells = function.__closure__ or ()
    try:
        captured = [cell.cell_contents for cell in cells]
    except ValueError:  # a cell is empty yet
        return None
    if any(inspect.iscode(constant) for constant in code.co_consts):  # functions within, which name values of their own
        return None
    values = [function.__defaults__, *(function.__kwdefaults__ or {}).items(), *captured, *(known.get(name) for name in code.co_names)]
    return function.__module__, code, *map(_exactly, values)


def _exactly(value: Any) -> Hashable:
    """A value as a key, by which True, 1 and 1.0 differ, and so do 0.0 and -0.0; whatever is no plain value counts by identity."""
    if type(value) is tuple:
        return tuple(map(_exactly, value))
    if type(value) in (bool, int, float, str, type(None)):
        return type(value), repr(value)
    return _Same(value)


class _Same:
    """A key that only the same object equals, which it keeps alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


def repeated(body: Any, count: int, *, unrolled: bool) -> Any:
    """The kernel function that calls body(0, ...), body(1, ...) and so on, `count` times, with the arguments it is given itself.

    `unrolled`: one call after the other. LLVM unrolls long loops only half the time, and then keeps nothing in registers between them.
    """
    names = ", ".join(list(inspect.signature(body.py_func).parameters)[1:])
    loop = [f"for number in range({count}): body(number, {names})"]
    calls = [f"body({number}, {names})" for number in range(count)] if unrolled else loop
    scope: dict[str, Any] = {"body": body}
    exec("\n    ".join([f"def every({names}):", *calls]), scope)
    return inlined(scope["every"])


def signature() -> Any:
    """The kernel signature in Numba's types."""
    from numba import types

    octets = types.CPointer(types.uint8)
    return types.void(types.CPointer(types.int64), octets, octets, octets, types.int64, types.int64)


def object_code(name: str, function: KernelFunction, machine: Machine) -> bytes:
    """The object of `function` for `machine`, exporting one symbol `name`; it refers at most to memcpy, memmove and memset."""
    return bytes(_target_machine(machine).emit_object(optimised_module(name, function, machine)))


def data_object(name: str, content: bytes, machine: Machine) -> bytes:
    """An object for `machine` that holds `content` as read-only data under the symbol `name`."""
    module = ir.Module()
    module.triple = machine.triple
    data = ir.Constant(ir.ArrayType(ir.IntType(8), len(content)), bytearray(content))
    variable = ir.GlobalVariable(module, data.type, name)
    variable.initializer, variable.global_constant = data, True
    return bytes(_target_machine(machine).emit_object(llvm.parse_assembly(str(module))))


def assembly(name: str, function: KernelFunction, machine: Machine) -> str:
    """The same code as assembly text, for tests and for reading."""
    return str(_target_machine(machine).emit_assembly(optimised_module(name, function, machine)))


def optimised_module(name: str, function: KernelFunction, machine: Machine) -> llvm.ModuleRef:
    """The kernel as an optimised LLVM module for `machine`."""
    text, native = _native_ir(function)
    module = llvm.parse_assembly(_for_machine(text, machine))
    module.link_in(llvm.parse_assembly(_wrapper(name, native, machine, module.triple)))
    for defined in (*module.functions, *module.global_variables):  # variables: Numba leaves one for each function, which nothing reads
        if not defined.is_declaration and defined.name != name:
            defined.linkage = "internal"
    target = _target_machine(machine)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return module


def _native_ir(function: KernelFunction) -> tuple[str, str]:
    """LLVM text of `function` as Numba lowers it, and its symbol."""
    from numba.core import compiler, registry
    from numba.core.compiler_lock import global_compiler_lock

    flags = compiler.Flags()
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.boundscheck = False
    flags.error_model = "numpy"  # division by zero gives inf or nan and raises nothing
    kind = signature()
    target = registry.cpu_target
    with global_compiler_lock, _lowering_alone(), _garbage_set_apart():
        contexts = target.typing_context, target.target_context
        result = compiler.compile_extra(*contexts, function, kind.args, kind.return_type, flags, {}, pipeline_class=_kernel_compiler())
        return str(result.library._final_module), result.fndesc.llvm_func_name


@functools.cache
def _kernel_compiler() -> Any:
    """A class of Numba's compiler with the passes that kernels have a use for; all of them take an eighth longer.

    Left out is what serves Python that kernels do not use: `with` and `raise`, functions within functions, array expressions, literals
    as types, functions that Numba itself inlines. Code that needs one of these fails in typing or lowering.
    """
    from numba.core import compiler, typed_passes, untyped_passes
    from numba.core.compiler_machinery import PassManager

    passes = (
        untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing, untyped_passes.DeadBranchPrune,
        untyped_passes.GenericRewrites, untyped_passes.ReconstructSSA, typed_passes.NopythonTypeInference,
        typed_passes.PreLowerStripPhis, typed_passes.IRLegalization, typed_passes.AnnotateTypes, typed_passes.NativeLowering,
        typed_passes.NoPythonBackend,
    )  # fmt: skip

    class KernelCompiler(compiler.CompilerBase):
        def define_pipelines(self) -> list[PassManager]:
            manager = PassManager("kernel")
            for each in passes:
                manager.add_pass(each, each.__name__)
            manager.finalize()
            return [manager]

    return KernelCompiler


@contextmanager
def _garbage_set_apart() -> Iterator[None]:
    """Garbage is collected once, at the end, and only what came up within: looking through all that is older, again and again, took a
    tenth of the time where TensorFlow is loaded. A collector that is off, or has something set apart already, is left as it is."""
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()


@contextmanager
def _lowering_alone() -> Iterator[None]:
    """Numba types and lowers, and does nothing else: our own optimisation comes after, for the machine. Left to itself it optimises and
    emits code for this process as well, again for every function that is inlined into another, which takes most of the time."""
    from numba.core.codegen import CPUCodeLibrary, JITCodeLibrary, JITCPUCodegen
    from numba.core.cpu import CPUContext

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (CPUCodeLibrary, "_optimize_final_module", lambda library: None),
        (JITCodeLibrary, "_finalize_specific", lambda library: None),
        (JITCPUCodegen, "_add_module", lambda codegen, module: None),
        # What would be called from Python: a builtin of its own for each function, as Numba keeps them by identity.
        (CPUContext, "get_executable", lambda context, library, *_: library.finalize() or [].append),
    ]
    kept = [(owner, name, owner.__dict__[name]) for owner, name, _ in replaced]
    for owner, name, function in replaced:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)


def _for_machine(text: str, machine: Machine) -> str:
    """The module without the processor Numba compiled it for, under the triple of `machine`, with its intrinsics."""
    stand_in = rf'^define linkonce (.*@"?{re.escape(STAND_IN)}.*\)) .*\{{\n(?:.*\n)*?\}}$'
    text = re.sub(stand_in, r"declare \1", text, flags=re.MULTILINE)
    text = text.replace(STAND_IN, "")
    text = re.sub(r'"target-(cpu|features)"="[^"]*"', "", text)
    text = re.sub(r'^target triple = .*$', f'target triple = "{machine.triple}"', text, flags=re.MULTILINE)
    layout = str(_target_machine(machine).target_data)
    return re.sub(r'^target datalayout = .*$', f'target datalayout = "{layout}"', text, flags=re.MULTILINE)


def _wrapper(name: str, native: str, machine: Machine, triple: str) -> str:
    """A module with the C function `name` that calls Numba's `native`, whose first two arguments are out-parameters of no use here."""
    module = ir.Module()
    module.triple = triple
    arguments = [_WORD.as_pointer(), _BYTES, _BYTES, _BYTES, _WORD, _WORD]
    callee = ir.Function(module, ir.FunctionType(ir.IntType(32), [_BYTES, _BYTES, *arguments]), native)
    wrapper = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    wrapper.attributes.add("nounwind")
    if machine.isa.vector_bytes > _STACK_BYTES:
        wrapper.attributes.alignstack = machine.isa.vector_bytes  # else spilled vectors may cross cache lines, by chance of each process
    for argument in wrapper.args[:_POINTERS]:
        argument.add_attribute("noalias")
    builder = ir.IRBuilder(wrapper.append_basic_block())
    result, error = (builder.bitcast(builder.alloca(_WORD), _BYTES) for _ in range(2))
    builder.call(callee, [result, error, *wrapper.args])
    builder.ret_void()
    return str(module)


def _target_machine(machine: Machine) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(machine.triple)
    return target.create_target_machine(cpu=machine.cpu, features=machine.llvm_features, opt=3, reloc="pic", codemodel="small", jit=False)
