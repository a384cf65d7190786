"""Kernels compiled ahead of time: a shared library that is loaded with ctypes, without Numba, llvmlite or a compiler.

A library holds the machine code of kernels and of the loop for one instruction set, and a manifest: a JSON document behind a mark, found in
the file's bytes, so that a library is judged before any of it runs.

    MARK | length of the document, 4 bytes, little-endian | document

    target      the device it was made for, in words
    machine     instruction set, LLVM's names of processor and features, triple: what the code was made for and lowering has to ask for
    sources     the start of the sha256 of every source file of edge that decides kernels or their arguments; those that are here, in the
                process that loads the library, must be the same
    made_by     versions of Numba and llvmlite
    kernels     names; the symbol of a kernel is "edge_" and its name

Which library an engine takes its kernels from is decided by `in_use`. None is taken from beside a model, where somebody else's file may
lie: a library is code, a model is not.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edge import paths
from edge.errors import EdgeError, InputError, MissingPackage
from edge.kernels.features import architecture_of, host_architecture, missing_features
from edge.kernels.isa import ENVIRONMENT_VARIABLE as ISA_VARIABLE
from edge.kernels.isa import ISAS, Machine

ENVIRONMENT_VARIABLE = "EDGE_KERNELS"
SHIPPED = Path(paths.__file__).parent / "data"
"""The folder of the libraries that come with edge."""

MARK = b"\nedge kernels 1\n"
_LENGTH = struct.Struct("<I")
_DIGEST_CHARACTERS = 16

# Files of edge.kernels that decide neither code nor arguments, and files beside it that do.
_APART = ("__init__", "cache", "elf", "features", "library", "library_build", "linker", "loader")
_MEANING = "reference"  # and what begins so
_BESIDE = ("layout", "ops", "tensors", "threads")


def symbol(name: str) -> str:
    """The symbol of a kernel."""
    return f"edge_{name}"


def code_sources() -> list[Path]:
    """The files of edge.kernels that decide machine code or its arguments."""
    found = Path(__file__).parent.glob("*.py")
    return sorted(path for path in found if path.stem not in _APART and not path.stem.startswith(_MEANING))


def sources() -> dict[str, str]:
    """The start of the sha256 of every source file here that decides kernels or their arguments."""
    edge = Path(paths.__file__).parent
    beside = [path for path in (edge / f"{stem}.py" for stem in _BESIDE) if path.is_file()]
    named = [*((f"kernels/{path.name}", path) for path in code_sources()), *((f"edge/{path.name}", path) for path in beside)]
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGEST_CHARACTERS] for name, path in named}


@dataclass(frozen=True)
class Manifest:
    """What a library says of itself (see above)."""

    target: str
    machine: Machine
    sources: Mapping[str, str]
    made_by: Mapping[str, str]
    kernels: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """As it stands in a library."""
        machine = {**asdict(self.machine), "isa": self.machine.isa.name}
        content = {"target": self.target, "machine": machine, "sources": dict(self.sources), "made_by": dict(self.made_by)}
        text = json.dumps({**content, "kernels": sorted(self.kernels)}, separators=(",", ":"), sort_keys=True).encode()
        return MARK + _LENGTH.pack(len(text)) + text


def read_manifest(path: Path) -> Manifest:
    """The manifest of a library; nothing of it is run. Raises `InputError` where there is none."""
    try:
        data = require_file(path).read_bytes()
        start = data.index(MARK) + len(MARK)
        (length,) = _LENGTH.unpack_from(data, start)
        content = json.loads(data[start + _LENGTH.size : start + _LENGTH.size + length])
        machine = Machine(**{**content["machine"], "isa": ISAS[content["machine"]["isa"]]})
        return Manifest(str(content["target"]), machine, dict(content["sources"]), dict(content["made_by"]), tuple(content["kernels"]))
    except (OSError, ValueError, TypeError, KeyError, struct.error) as err:
        reason = (err.strerror or err) if isinstance(err, OSError) else "but it has no manifest or a damaged one"
        raise InputError(f"cannot use {path} as a kernel library: expected what `edge build` writes, {reason}; build it again") from err


def require_file(path: Path) -> Path:
    return paths.require_file(path, "kernel library")


class Library:
    """A loaded library: the addresses of its kernels."""

    def __init__(self, path: Path) -> None:
        """Raises `EdgeError` where the library is damaged, was made for another machine, or for other sources of edge."""
        self.path = path
        self.manifest = read_manifest(path)
        _check(path, self.manifest)
        try:
            self._loaded = ctypes.CDLL(os.path.abspath(path))
            self._addresses = {name: self._address(name) for name in self.manifest.kernels}
        except (OSError, AttributeError) as err:
            raise InputError(f"cannot load the kernel library {path}: expected one for this system, got {err}; build it again") from err

    def _address(self, name: str) -> int:
        return int(ctypes.cast(getattr(self._loaded, symbol(name)), ctypes.c_void_p).value or 0)

    @property
    def machine(self) -> Machine:
        return self.manifest.machine

    def find(self, names: Iterable[str]) -> dict[str, int]:
        """Addresses by name of the kernels that are here."""
        return {name: self._addresses[name] for name in names if name in self._addresses}


def _check(path: Path, manifest: Manifest) -> None:
    """Raise `InputError` for a library that must not be run here."""
    again = f"build it again with: edge build --target {manifest.target}"
    architecture = architecture_of(manifest.machine.triple)
    if architecture != host_architecture():
        raise InputError(f"the kernel library {path} is for {architecture}, and this machine is {host_architecture()}; build one for it")
    lacking = missing_features(manifest.machine.features)
    if lacking:
        names = ", ".join(sorted(lacking))
        raise InputError(f"the kernel library {path} is for processors with {names}, which this one lacks; build one with another --target")
    here = sources()
    changed = [name for name, digest in here.items() if manifest.sources.get(name) != digest]
    if changed:
        raise InputError(
            f"the kernel library {path} was made for another version of edge: expected the sources it was made from, "
            f"but {changed[0]} differs{f', and {len(changed) - 1} more' if len(changed) > 1 else ''}; {again}"
        )


@functools.cache
def open_library(path: Path) -> Library:
    """The library in a file, loaded once. Raises `EdgeError` where it cannot be used."""
    return Library(path)


# -- which one -----------------------------------------------------------------------------------------------------------------


def can_compile() -> bool:
    """Whether kernels can be compiled here. Nothing is imported."""
    return all(importlib.util.find_spec(package) is not None for package in ("numba", "llvmlite"))


def in_use() -> Library | None:
    """The library that engines take kernels from; None where kernels are compiled here.

    That of EDGE_KERNELS; else none where Numba is installed; else the best of those that came with edge and fit this machine. A library of
    EDGE_KERNELS that cannot be used is an error, or with Numba one line on stderr. Raises `EdgeError` where there are no kernels at all.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    if given:
        return _given(Path(given))
    if can_compile() or importlib.util.find_spec("llvmlite") is not None:  # llvmlite alone loads what Numba compiled before
        return None
    return _shipped()


def _given(path: Path) -> Library | None:
    try:
        return open_library(path)
    except EdgeError as err:
        if not can_compile():
            raise
        _fall_back(str(err))
        return None


@functools.cache
def _fall_back(reason: str) -> None:
    """Say once why kernels are compiled instead."""
    print(f"edge: {reason}; kernels are compiled by Numba instead", file=sys.stderr)


def shipped() -> tuple[Path, ...]:
    """The libraries that came with edge, for the instruction sets that this machine has, the best first."""
    wanted = os.environ.get(ISA_VARIABLE)
    fitting = [
        (list(ISAS).index(manifest.machine.isa.name), path)
        for path, manifest in ((path, read_manifest(path)) for path in sorted(SHIPPED.glob("*.so")))
        if architecture_of(manifest.machine.triple) == host_architecture() and not missing_features(manifest.machine.features)
        if not wanted or manifest.machine.isa.name == wanted
    ]
    return tuple(path for _, path in sorted(fitting))


def _shipped() -> Library:
    found = shipped()
    if not found:
        raise MissingPackage(
            f"there are no kernels for this machine ({host_architecture()}): expected Numba, which compiles them, or a kernel library; "
            f"install it with: pip install numba llvmlite, or set {ENVIRONMENT_VARIABLE} to what `edge build` wrote for it elsewhere"
        )
    return open_library(found[0])


def missing_kernels(library: Library, names: Iterable[str]) -> EdgeError:
    """The error for kernels that neither the library has nor Numba can compile."""
    absent = sorted(names)
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return MissingPackage(
        f"the kernel library {library.path} lacks kernels that this model needs: {absent[0]}{more}; build one for the model elsewhere "
        f"with: edge build --target {library.manifest.target} MODEL, and set {ENVIRONMENT_VARIABLE} to it, or install Numba here"
    )


def made_by() -> dict[str, str]:
    """The versions of what compiles kernels here."""
    from importlib import metadata

    return {package: metadata.version(package) for package in ("numba", "llvmlite")}

