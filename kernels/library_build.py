"""Making a library of kernels (`edge.kernels.library`): their objects and the manifest's, linked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from edge.errors import EdgeError, InputError
from edge.files import write_atomically
from edge.kernels.cache import Progress, objects
from edge.kernels.elf import undefined_symbols
from edge.kernels.features import architecture_of
from edge.kernels.isa import Machine
from edge.kernels.library import Manifest, made_by, sources
from edge.kernels.linker import Linker, find_linker, link
from edge.kernels.registry import Code

ARCHITECTURES = ("aarch64", "x86_64")
LEFT_TO_THE_SYSTEM = frozenset(
    {"memcpy", "memmove", "memset", "sem_wait", "sem_post", "sched_yield", "clock_gettime"}
)  # fmt: skip
"""What a library may take from the C library of the system that loads it."""


def write_library(
    codes: Iterable[Code],
    machine: Machine,
    target: str,
    output: Path,
    *,
    progress: Progress | None = None,
    linker: Linker | None = None,
) -> Linker:
    """Compile kernels for a machine and link them into `output`, which is there whole or not at all; the linker that was used.

    `target` is what the manifest calls the machine. Raises `EdgeError` for a machine that has no such libraries, without a linker, or where
    `output` cannot be written.
    """
    architecture = architecture_of(machine.triple)
    if architecture not in ARCHITECTURES:
        raise InputError(f"no kernel library can be built for {target} ({machine.triple}): expected Linux on {' or '.join(ARCHITECTURES)}")
    used = linker or find_linker(architecture)
    wanted = {code.name: code for code in codes}
    made = objects(wanted.values(), machine, progress)
    manifest = Manifest(target, machine, sources(), made_by(), tuple(wanted))
    with tempfile.TemporaryDirectory(prefix="edge-build-") as folder:
        files = [_put(Path(folder) / f"{number}.o", made[name]) for number, name in enumerate(sorted(made))]
        files.append(_put(Path(folder) / "manifest.o", _manifest_object(manifest, machine)))
        linked = Path(folder) / "library.so"
        link(files, linked, architecture, used)
        library = linked.read_bytes()
    _check_symbols(library, used)
    write_atomically(output, [library])
    return used


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _manifest_object(manifest: Manifest, machine: Machine) -> bytes:
    """An object file that holds the manifest as read-only data."""
    from edge.kernels.build import data_object

    return data_object("edge_manifest", manifest.to_bytes(), machine)


def _check_symbols(library: bytes, linker: Linker) -> None:
    foreign = set(undefined_symbols(library)) - LEFT_TO_THE_SYSTEM
    if foreign:
        raise EdgeError(
            f"{linker.name} made a library that needs {', '.join(sorted(foreign))}: expected nothing but functions every C library has; "
            "this is a fault of edge, please report it"
        )
