"""Linkers that make a shared library of object files, for this machine and for others: llvmlite has none.

Looked for in this order: the C compiler of the machine (`aarch64-linux-gnu-gcc`; for this machine also `gcc` or `cc`), LLVM's `ld.lld`, and
the one in the Python package `ziglang`. None of them needs headers or a C library: what kernels take from it is bound when they are loaded.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import EdgeError, MissingPackage
from edge.kernels.features import host_architecture

_PAGE_BYTES = {"aarch64": 65536}  # the largest page of the systems that run there: Raspberry Pi OS has 16 KiB on a Pi 5
_DEFAULT_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Linker:
    """A linker. `driver`: whether it is a C compiler, which hands options on to the linker."""

    name: str
    command: tuple[str, ...]
    driver: bool


def find_linkers(architecture: str) -> tuple[Linker, ...]:
    """The linkers here for an architecture, the preferred first."""
    compilers = [f"{architecture}-linux-gnu-gcc"]
    if architecture == host_architecture() and sys.platform == "linux":
        compilers += ["gcc", "cc"]
    found = [Linker(name, (path,), True) for name in compilers if (path := shutil.which(name))]
    if path := shutil.which("ld.lld"):
        found.append(Linker("ld.lld", (path,), False))
    if importlib.util.find_spec("ziglang") is not None:
        found.append(Linker("ziglang", (sys.executable, "-m", "ziglang", "ld.lld"), False))
    return tuple(found)


def find_linker(architecture: str) -> Linker:
    """The linker to use for an architecture. Raises `MissingPackage` where there is none."""
    found = find_linkers(architecture)
    if not found:
        package = "gcc" if architecture == host_architecture() else f"gcc-{architecture.replace('_', '-')}-linux-gnu"
        raise MissingPackage(
            f"no linker makes a library for {architecture}: expected {architecture}-linux-gnu-gcc, ld.lld or the Python package ziglang; "
            f"install one of them, with: sudo apt install {package}, or: pip install ziglang"
        )
    return found[0]


def link(objects: Sequence[Path], output: Path, architecture: str, linker: Linker | None = None) -> Linker:
    """Link object files into a stripped shared library; the linker that did. Raises `EdgeError` where it fails."""
    used = linker or find_linker(architecture)
    command = [*used.command, *_options(used, architecture), "-o", str(output), *map(str, objects)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EdgeError(
            f"{used.name} cannot link a library for {architecture}: expected it to succeed, it ended with {done.returncode}"
            f"{': ' + said[-1] if said else ''}; check its installation, or install another linker (pip install ziglang)"
        )
    return used


def _options(linker: Linker, architecture: str) -> list[str]:
    """One file of few pages, the same bytes for the same objects: no paths, no identifiers, no sections that only debuggers read."""
    page = _PAGE_BYTES.get(architecture, _DEFAULT_PAGE_BYTES)
    words = ("noexecstack", "norelro", "noseparate-code", f"max-page-size={page}")
    options = ["--strip-all", "--hash-style=gnu", "--build-id=none", "--as-needed"]
    pairs = [part for word in words for part in ("-z", word)]
    if linker.driver:
        return ["-shared", "-nostdlib", f"-Wl,{','.join([*options, *pairs])}"]
    return ["-shared", *options, *pairs]
