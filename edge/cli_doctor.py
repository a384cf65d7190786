"""`edge doctor`: what edge finds on this machine, for reports and for puzzled users."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import click

from edge.cli_cache import CacheState, cache_state
from edge.cli_options import json_option
from edge.console import out, out_facts, out_json, say, styled
from edge.errors import EdgeError

PACKAGES = ("numpy", "llvmlite", "numba", "h5py", "pillow", "click", "rich", "flatbuffers")
RUNTIMES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime", "tensorflow": "tensorflow"}
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos")
VARIABLES = ("EDGE_ISA", "EDGE_CACHE", "EDGE_MODEL", "XDG_CACHE_HOME")

EPILOG = """
\b
Examples:
  edge doctor
  edge doctor --json > report.json
"""


@dataclass(frozen=True)
class Diagnosis:
    """What was found. Versions are None where a package is absent; problems are sentences."""

    edge: str
    python: str
    platform: str
    cores: int
    packages: dict[str, str | None]
    instruction_set: str | None
    instruction_sets: tuple[str, ...]
    cpu: str | None
    runtimes: dict[str, str | None]
    tensorflow: str | None
    environment: dict[str, str]
    cache: CacheState
    problems: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "cache": self.cache.to_json()}


@click.command(epilog=EPILOG)
@json_option
def doctor(as_json: bool) -> None:
    """Show what edge finds on this machine: packages, instruction sets, TFLite runtimes and the cache.

    The exit code is 1 where something keeps .edge files from running.
    """
    found = diagnose()
    if as_json:
        out_json(found.to_json())
    else:
        _print(found)
    for problem in found.problems:
        say(problem, style="red")
    if found.problems:
        raise click.exceptions.Exit(1)


def diagnose() -> Diagnosis:
    """Look around."""
    from edge.cli import version

    packages = {name: _version(name) for name in PACKAGES}
    chosen, cpu, sets, problems = _instruction_sets(packages)
    return Diagnosis(
        edge=version(),
        python=f"{platform.python_version()} ({sys.executable})",
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=_cores(),
        packages=packages,
        instruction_set=chosen,
        instruction_sets=sets,
        cpu=cpu,
        runtimes={name: _runtime(name, module) for name, module in RUNTIMES.items()},
        tensorflow=_tensorflow(),
        environment={name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        cache=cache_state(),
        problems=problems,
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _instruction_sets(packages: dict[str, str | None]) -> tuple[str | None, str | None, tuple[str, ...], tuple[str, ...]]:
    """The instruction set in use, LLVM's name of the processor, all that can be used, and what is wrong."""
    if packages["llvmlite"] is None:
        return None, None, (), ("llvmlite is missing, without which no .edge file runs; install it with: pip install edge-lowbit",)
    from edge.kernels.isa import available, detect

    sets = tuple(isa.name for isa in available())
    try:
        machine = detect()
    except EdgeError as err:
        return None, None, sets, (str(err),)
    return machine.isa.name, machine.cpu, sets, ()


def _runtime(name: str, module: str) -> str | None:
    """The version of an installed TFLite runtime; it is looked up, not imported, which would take seconds."""
    if importlib.util.find_spec(module) is None:
        return None
    return (_tensorflow() if module == "tensorflow" else _version(name)) or "unknown version"


def _tensorflow() -> str | None:
    return next((version for version in map(_version, TENSORFLOWS) if version), None)


def _print(found: Diagnosis) -> None:
    _section("edge", [("version", found.edge), ("Python", found.python), ("platform", f"{found.platform}, cores: {found.cores}")])
    _section("packages", [(name, version or "absent") for name, version in found.packages.items()])
    sets = ", ".join(found.instruction_sets) or "none"
    _section("instruction sets", [("in use", found.instruction_set or "none"), ("available", sets), ("processor", found.cpu or "unknown")])
    _section("TFLite runtimes", [(name, version or "absent") for name, version in found.runtimes.items()])
    _section("TensorFlow", [("version", found.tensorflow or "absent: needed only for training and for comparing with Keras")])
    _section("kernel cache", found.cache.facts())
    if found.environment:
        _section("environment", list(found.environment.items()))


def _section(title: str, facts: list[tuple[str, str]]) -> None:
    out(styled(title, "bold"))
    out_facts(facts, indent="  ")
