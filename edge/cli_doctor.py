"""`edge doctor`: what edge finds on this machine, for reports and for puzzled users."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import click

from edge.bench_machine import clock_now, processor_name
from edge.cli_cache import CacheState, cache_state
from edge.cli_options import json_option
from edge.console import out, out_facts, out_json, say, styled, warn
from edge.errors import EdgeError

PACKAGES = ("numpy", "llvmlite", "numba", "h5py", "pillow", "click", "rich", "flatbuffers")
RUNTIMES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime", "tensorflow": "tensorflow"}
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos")
VARIABLES = ("EDGE_ISA", "EDGE_CACHE", "EDGE_KERNELS", "EDGE_MODEL", "XDG_CACHE_HOME")
NUMBA_GLIBC = (2, 34)  # that its wheels are made for

EPILOG = """
\b
Examples:
  edge doctor
  edge doctor --json > report.json
"""


@dataclass(frozen=True)
class Diagnosis:
    """What was found. Versions are None where a package is absent; problems and remarks are sentences.

    kernels: where they come from. throttled: what a Raspberry Pi says of its clock, None elsewhere.
    """

    edge: str
    python: str
    platform: str
    machine: str
    cores: int
    glibc: str | None
    throttled: tuple[str, ...] | None
    kernels: str | None
    packages: dict[str, str | None]
    instruction_set: str | None
    instruction_sets: tuple[str, ...]
    cpu: str | None
    runtimes: dict[str, str | None]
    tensorflow: str | None
    environment: dict[str, str]
    cache: CacheState
    problems: tuple[str, ...] = field(default=())
    remarks: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "cache": self.cache.to_json()}


@click.command(epilog=EPILOG)
@json_option
def doctor(as_json: bool) -> None:
    """Show what edge finds on this machine: packages, kernels, instruction sets, TFLite runtimes and the cache, and what is wrong.

    The exit code is 1 where something keeps .edge files from running.
    """
    found = diagnose()
    if as_json:
        out_json(found.to_json())
    else:
        _print(found)
    for remark in found.remarks:
        warn(remark)
    for problem in found.problems:
        say(problem, style="red")
    if found.problems:
        raise click.exceptions.Exit(1)


def diagnose() -> Diagnosis:
    """Look around."""
    from edge.cli import version

    packages = {name: _version(name) for name in PACKAGES}
    glibc, throttled = _glibc(), clock_now().throttled
    kernels, chosen, cpu, sets, problem = _kernels()
    return Diagnosis(
        edge=version(),
        python=f"{platform.python_version()} ({sys.executable}), {_bits()} bits",
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        machine=processor_name(),
        cores=_cores(),
        glibc=glibc,
        throttled=throttled,
        kernels=kernels,
        packages=packages,
        instruction_set=chosen,
        instruction_sets=sets,
        cpu=cpu,
        runtimes={name: _runtime(name, module) for name, module in RUNTIMES.items()},
        tensorflow=_tensorflow(),
        environment={name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        cache=cache_state(),
        problems=tuple(filter(None, (system_problem(_bits(), platform.machine(), glibc, packages), problem))),
        remarks=_remarks(throttled),
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bits() -> int:
    """Of this Python's addresses: 32 on a 32-bit system, whatever its kernel."""
    return 64 if sys.maxsize > 1 << 32 else 32


def _glibc() -> str | None:
    """Its version; None where the C library is another."""
    name, version = platform.libc_ver()
    return version if name == "glibc" else None


def system_problem(bits: int, machine: str, glibc: str | None, packages: Mapping[str, str | None]) -> str | None:
    """Why packages that edge needs cannot be installed on a system, in a sentence."""
    if bits == 32:
        return f"this system has 32 bits ({machine}), and edge needs 64: flash Raspberry Pi OS (64-bit)"
    if packages["numba"] is None and glibc is not None and tuple(map(int, glibc.split(".")[:2])) < NUMBA_GLIBC:
        return (
            f"glibc {glibc} is too old to install Numba: expected {NUMBA_GLIBC[0]}.{NUMBA_GLIBC[1]} or newer; install Raspberry Pi OS "
            "bookworm or newer, or deploy with kernels compiled elsewhere (edge deploy)"
        )
    return None


def _remarks(throttled: tuple[str, ...] | None) -> tuple[str, ...]:
    if not throttled:
        return ()
    return (f"the Raspberry Pi reports {', '.join(throttled)}: times are longer than they need be; check its power supply and its cooling",)


def _kernels() -> tuple[str | None, str | None, str | None, tuple[str, ...], str | None]:
    """Where kernels come from, the instruction set in use, LLVM's name of the processor, all sets that can be used, and what is wrong."""
    from edge.kernels.isa import available, detect
    from edge.kernels.library import in_use

    sets = tuple(isa.name for isa in available())
    try:
        library = in_use()
        machine = library.machine if library else detect()
    except EdgeError as err:
        return None, None, None, sets, str(err)
    source = "compiled here by Numba" if library is None else f"{library.path}, for {library.manifest.target}"
    return source, machine.isa.name, machine.cpu, sets, None


def _runtime(name: str, module: str) -> str | None:
    """The version of an installed TFLite runtime; it is looked up, not imported, which would take seconds."""
    if importlib.util.find_spec(module) is None:
        return None
    return (_tensorflow() if module == "tensorflow" else _version(name)) or "unknown version"


def _tensorflow() -> str | None:
    return next((version for version in map(_version, TENSORFLOWS) if version), None)


def _print(found: Diagnosis) -> None:
    glibc = f", glibc {found.glibc}" if found.glibc else ""
    facts = [("version", found.edge), ("Python", found.python), ("platform", f"{found.platform}{glibc}")]
    _section("edge", [*facts, ("machine", f"{found.machine}, cores: {found.cores}")])
    _section("packages", [(name, version or "absent") for name, version in found.packages.items()])
    sets = ", ".join(found.instruction_sets) or "none"
    _section("kernels", [("from", found.kernels or "nowhere")])
    _section("instruction sets", [("in use", found.instruction_set or "none"), ("available", sets), ("processor", found.cpu or "unknown")])
    _section("TFLite runtimes", [(name, version or "absent") for name, version in found.runtimes.items()])
    _section("TensorFlow", [("version", found.tensorflow or "absent: needed only for training and for comparing with Keras")])
    if found.throttled is not None:
        _section("Raspberry Pi", [("throttling", ", ".join(found.throttled) or "none since the start")])
    _section("kernel cache", found.cache.facts())
    if found.environment:
        _section("environment", list(found.environment.items()))


def _section(title: str, facts: list[tuple[str, str]]) -> None:
    out(styled(title, "bold"))
    out_facts(facts, indent="  ")
