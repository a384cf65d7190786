"""Machine code at hand: objects are compiled once, kept in the user's cache folder under the hash of all that made them, and loaded.

The folder is $EDGE_CACHE, else $XDG_CACHE_HOME/edge, else ~/.cache/edge. An object's name is the sha256 of the sources of `edge.kernels`
that decide code, the versions of Numba and LLVM, the machine and the kernel, so an entry is never stale; it is written to a temporary name
and renamed, and begins with the hash of its content, so a torn one is made anew. Code is loaded from files of this user (or root) alone.
Where the folder can't be used, objects are kept in memory, with one line saying so.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from edge.errors import MissingPackage
from edge.kernels import loader
from edge.kernels.isa import Machine
from edge.kernels.library import Library, can_compile, code_sources, missing_kernels, symbol
from edge.kernels.registry import Code

ENVIRONMENT_VARIABLE = "EDGE_CACHE"
_SUFFIX = ".o"
_DIGEST_BYTES = 32

Progress = Callable[[int, int], None]


def folder() -> Path | None:
    """Where objects are kept; None where there is no home to keep them in."""
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(os.environ[ENVIRONMENT_VARIABLE])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "edge"
    try:
        return Path.home() / ".cache" / "edge"
    except RuntimeError:  # no home directory
        return None


@functools.cache
def _sources_digest() -> str:
    """sha256 over the sources of the kernels and the versions of what compiles them."""
    digest = hashlib.sha256()
    for source in code_sources():
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    for package in ("numba", "llvmlite"):
        digest.update(_version(package).encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def object_name(code: Code, machine: Machine) -> str:
    """The file name of an object in the cache."""
    return hashlib.sha256("\0".join((_sources_digest(), machine.key, code.name)).encode()).hexdigest() + _SUFFIX


class ObjectCache:
    """Objects in memory and, where possible, in a folder."""

    def __init__(self) -> None:
        self._memory: dict[str, bytes] = {}
        self._warned = False

    def get(self, name: str) -> bytes | None:
        """The object of this name, if there is one and it is whole and ours."""
        if name not in self._memory:
            stored = self._read(name)
            if stored is None:
                return None
            self._memory[name] = stored
        return self._memory[name]

    def put(self, name: str, code: bytes) -> None:
        """Keep an object."""
        self._memory[name] = code
        where = folder()
        try:
            if where is None:
                raise OSError("no home directory")
            self._write(where, name, code)
        except OSError as err:
            self._warn(where, err)

    def _read(self, name: str) -> bytes | None:
        where = folder()
        try:
            if where is None or not _trusted(where) or not _trusted(where / name):
                return None
            data = (where / name).read_bytes()
        except OSError:
            return None
        digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return code if hashlib.sha256(code).digest() == digest else None

    def _write(self, where: Path, name: str, code: bytes) -> None:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _trusted(where):
            raise OSError(f"{where} belongs to another user or can be written by others")
        handle, temporary = tempfile.mkstemp(dir=where, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, where / name)
        except BaseException:
            os.unlink(temporary)
            raise

    def _warn(self, where: Path | None, err: OSError) -> None:
        if not self._warned:
            self._warned = True
            reason = err.strerror or str(err)
            print(f"edge: kernels are compiled anew in every process: cannot write {where} ({reason}); set EDGE_CACHE", file=sys.stderr)


def _trusted(path: Path) -> bool:
    """Whether a path belongs to this user or root and no one else can write it; machine code is run from nowhere else."""
    if not hasattr(os, "getuid"):
        return path.exists()
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o022


def clear() -> int:
    """Delete all cached objects; how many there were. Folders are none, whatever their names."""
    where = folder()
    named = [] if where is None or not where.is_dir() else [*where.glob("*" + _SUFFIX), *where.glob("*.tmp")]
    found = [path for path in named if path.is_symlink() or not path.is_dir()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


# -- loading -------------------------------------------------------------------------------------------------------------------

_OBJECTS = ObjectCache()
_LOADED: dict[str, int] = {}
_ENGINES: list[Any] = []  # LLVM's execution engines own the code that they loaded: kept for the life of the process
_LOCK = threading.Lock()


def missing(codes: Iterable[Code], machine: Machine) -> list[Code]:
    """The kernels that would have to be compiled."""
    return [code for code in codes if object_name(code, machine) not in _LOADED and _OBJECTS.get(object_name(code, machine)) is None]


def addresses(
    codes: Iterable[Code], machine: Machine, progress: Progress | None = None, library: Library | None = None
) -> dict[str, int]:
    """The address of every kernel by name: of the `library`, or compiled, cached and loaded as needed.

    `progress(done, total)` counts compilations. Raises `MissingPackage` where a kernel would have to be compiled without Numba.
    """
    wanted = {code.name: code for code in codes}
    found = library.find(wanted) if library else {}
    absent = [code for code in wanted.values() if code.name not in found]
    if library and absent and not can_compile():
        raise missing_kernels(library, (code.name for code in absent))
    with _LOCK:
        _make(absent, machine, progress)
        return found | {code.name: _load(code, machine) for code in absent}


def objects(codes: Iterable[Code], machine: Machine, progress: Progress | None = None) -> dict[str, bytes]:
    """The object file of every kernel by name, for any machine; `progress(done, total)` counts compilations."""
    wanted = {code.name: code for code in codes}
    with _LOCK:
        _make(wanted.values(), machine, progress)
        return {code.name: _object(code, machine) for code in wanted.values()}


def _make(codes: Iterable[Code], machine: Machine, progress: Progress | None) -> None:
    """Compile what is not there."""
    absent = missing(codes, machine)
    try:
        for done, code in enumerate(absent):
            if progress:
                progress(done, len(absent))
            _OBJECTS.put(object_name(code, machine), _compile(code, machine))
    finally:
        if absent:
            _forget_shared()
    if progress and absent:
        progress(len(absent), len(absent))


def _forget_shared() -> None:
    """Let go of the functions that the kernels shared, and of what Numba left."""
    if can_compile():
        from edge.kernels.build import forget

        forget()
        gc.collect()  # Numba leaves cycles that hold the frames of its callers, and so what these hold: the constants of an engine


def _compile(code: Code, machine: Machine) -> bytes:
    if not can_compile():
        raise MissingPackage(
            f"the kernel {code.name} has to be compiled, and Numba is not installed: expected numba and llvmlite; install them with: "
            "pip install numba llvmlite, or run with a kernel library (edge build)"
        )
    from edge.kernels.build import object_code

    return object_code(symbol(code.name), code.build(machine), machine)


def _object(code: Code, machine: Machine) -> bytes:
    stored = _OBJECTS.get(object_name(code, machine))
    if stored is None:
        raise RuntimeError(f"kernel {code.name} was neither compiled nor cached")
    return stored


def _load(code: Code, machine: Machine) -> int:
    name = object_name(code, machine)
    if name not in _LOADED:
        stored = _object(code, machine)
        _LOADED[name] = loader.load(stored)[symbol(code.name)] if loader.is_loadable(stored) else _load_by_llvm(stored, code)
    return _LOADED[name]


def _load_by_llvm(stored: bytes, code: Code) -> int:
    """For other processors than x86-64. There llvmlite takes one piece of memory for all sections."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(stored))
    engine.finalize_object()
    _ENGINES.append(engine)
    return int(engine.get_function_address(symbol(code.name)))


KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_int64, ctypes.c_int64)
