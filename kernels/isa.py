"""Instruction sets: which machine code a kernel is made into, and the register tiles that suit it.

`detect()` gives the machine this process runs on; the environment variable EDGE_ISA forces a lesser instruction set by name (all of
them can be used side by side in one process). A kernel only uses an instruction whose feature is in `Machine.features`: LLVM aborts the
process on an intrinsic that the target lacks, so features are checked before LLVM sees the code.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

from edge.errors import InputError
from edge.kernels.features import host_architecture, host_features

ENVIRONMENT_VARIABLE = "EDGE_ISA"


@dataclass(frozen=True)
class Isa:
    """An instruction set: the processor features it needs, and the processor LLVM tunes for when it is forced."""

    name: str
    architecture: str
    needs: frozenset[str]
    cpu: str
    vector_bytes: int
    vectors: int  # architectural vector registers


ISAS: Mapping[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa("avx512vpopcnt", "x86_64", frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vpopcntdq", "fma"}), "icelake-server", 64, 32),
        Isa("avx512", "x86_64", frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "fma"}), "skylake-avx512", 64, 32),
        Isa("avx2", "x86_64", frozenset({"avx2", "fma", "bmi", "bmi2", "popcnt", "lzcnt", "f16c"}), "haswell", 32, 16),
        Isa("generic", "x86_64", frozenset(), "x86-64", 16, 16),
        Isa("neondot", "aarch64", frozenset({"neon", "dotprod"}), "cortex-a76", 16, 32),
        Isa("neon", "aarch64", frozenset({"neon"}), "cortex-a53", 16, 32),
        Isa("portable", "", frozenset(), "generic", 16, 16),
    )
}


@dataclass(frozen=True)
class Machine:
    """What code is generated for: an instruction set, LLVM's names for processor and features, and the target triple."""

    isa: Isa
    cpu: str
    llvm_features: str
    triple: str

    @property
    def features(self) -> frozenset[str]:
        """Features that may be used beyond the instruction set's own."""
        extra = {f[1:] for f in self.llvm_features.split(",") if f.startswith("+")}
        return self.isa.needs | extra

    @property
    def key(self) -> str:
        """All that decides the machine code, for the cache."""
        return "/".join((self.isa.name, self.cpu, self.llvm_features, self.triple))


@functools.lru_cache(maxsize=1)
def _host() -> tuple[str, frozenset[str], str, str]:
    """Triple, features, processor name and LLVM's feature string of this machine; the last two are empty without llvmlite."""
    try:
        import llvmlite.binding as llvm
    except ModuleNotFoundError:
        return f"{host_architecture()}-unknown-linux-gnu", host_features(), "", ""
    found = llvm.get_host_cpu_features()
    names = frozenset(name for name, present in found.items() if present)
    triple = llvm.get_process_triple()
    flattened = str(found.flatten())
    if triple.startswith("aarch64"):
        unasked = (host_features() & {"dotprod"}) - names  # LLVM does not ask Linux for it: a Raspberry Pi 5 would do without
        flattened = ",".join((flattened, *(f"+{name}" for name in unasked)))
        names |= {"neon", *unasked}  # neon is part of the base architecture; some kernels report it as asimd
    return triple, names, llvm.get_host_cpu_name(), flattened


def available() -> tuple[Isa, ...]:
    """The instruction sets this machine can run, best first."""
    triple, features, _, _ = _host()
    architecture = triple.split("-")[0]
    return tuple(isa for isa in ISAS.values() if isa.architecture in (architecture, "") and isa.needs <= features)


def detect(name: str | None = None) -> Machine:
    """The machine to make code for: the best instruction set, the one `name`d, or that of EDGE_ISA; InputError if it can't run here."""
    name = name or os.environ.get(ENVIRONMENT_VARIABLE) or None
    runnable = available()
    if name is None:
        return _native(runnable[0])
    chosen = next((isa for isa in runnable if isa.name == name), None)
    if chosen is None:
        raise InputError(
            f"{ENVIRONMENT_VARIABLE}={name} cannot be used: expected an instruction set this machine has, one of "
            f"{', '.join(isa.name for isa in runnable)}; unset {ENVIRONMENT_VARIABLE} or name one of these"
        )
    return _native(chosen) if chosen is runnable[0] else Machine(chosen, chosen.cpu, "", _host()[0])


def _native(isa: Isa) -> Machine:
    triple, _, cpu, flattened = _host()
    return Machine(isa, cpu or isa.cpu, flattened, triple)
