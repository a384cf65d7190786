"""Kernels for a device, compiled here: a shared library with which it runs models without Numba, llvmlite or a compiler."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edge.build_standard import standard_programs
from edge.calls import calls_of
from edge.kernels.cache import Progress
from edge.kernels.isa import ISAS, Machine, detect
from edge.kernels.library_build import write_library
from edge.kernels.loop import HELPER, LEAD, LOOP
from edge.kernels.registry import Code, Derived
from edge.program import Program
from edge.targets.devices import HOST, load_device


def build_library(
    target: str, programs: Sequence[Program], output: str | os.PathLike[str], *, progress: Progress | None = None
) -> Path:
    """Compile the kernels that `programs` need (the loop and its threads included) into the shared library `output`; its path.

    target     a device profile (`edge.targets.devices`): its name, the path of its .toml file, or "host", this machine; or an instruction
               set (`edge.kernels.isa`) for any Linux that has it
    programs   verified programs; none: `edge.build_standard`, what common networks need
    progress   progress(done, total) is told of kernels being compiled

    The same programs, target and versions give the same bytes. The library is loaded by setting EDGE_KERNELS to its path, or by putting it
    into `edge.kernels.library.SHIPPED`. Raises `EdgeError` for an unknown target, without a linker for it (with what to install), or where
    `output` cannot be written.
    """
    machine = machine_of(target)
    wanted = programs or tuple(standard_programs())
    path = Path(output)
    write_library(codes_of(wanted, machine), machine, target, path, progress=progress)
    return path


def machine_of(target: str) -> Machine:
    """What code is generated for, of a target. Raises `InputError` for an unknown one."""
    if target == HOST:
        return detect()
    if target in ISAS and ISAS[target].architecture:
        isa = ISAS[target]
        return Machine(isa, isa.cpu, "", f"{isa.architecture}-unknown-linux-gnu")
    return load_device(target).machine


def codes_of(programs: Iterable[Program], machine: Machine) -> tuple[Code, ...]:
    """The kernels that programs need on a machine, each once: those of the loop, of their instructions and of halos."""
    return tuple({code.name: code for code in _codes(programs, machine)}.values())


def _codes(programs: Iterable[Program], machine: Machine) -> Iterator[Code]:
    yield from (LOOP, LEAD, HELPER)
    for program in programs:
        derived = Derived(int(program.blob.ctypes.data))
        yield from (call.lowered.code for call in calls_of(program, machine, derived))
