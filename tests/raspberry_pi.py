"""A Raspberry Pi without the board: a 64-bit user space of it, emulated by qemu-user under proot, with one of its cores by name.

It proves that code runs on a core and gives the right bits; it says nothing about time. `$EDGE_PI_ROOT` names a user space that is there;
else one is built in the temporary folder, once. `$EDGE_PI_CPU` names the cores to emulate; all by default.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import edge.converters
import edge.kernels
import edge.targets
from edge.kernels.isa import ISAS, Machine

SCRIPTS = Path(__file__).resolve().parents[2] / "shared" / "rpi"
CORES = {"cortex-a53": "neon", "cortex-a72": "neon", "cortex-a76": "neondot"}  # Raspberry Pi 3, 4 and 5, and the instruction set of each
BOARDS = {
    "cortex-a53": "Raspberry Pi 3 Model B Plus Rev 1.3",
    "cortex-a72": "Raspberry Pi 4 Model B Rev 1.4",
    "cortex-a76": "Raspberry Pi 5 Model B Rev 1.0",
}
CHOSEN = (os.environ.get("EDGE_PI_CPU") or " ".join(CORES)).split()

_TELL = "import json; from edge.kernels.isa import detect; m = detect(); print(json.dumps([m.isa.name, m.cpu, m.llvm_features, m.triple]))"


def needs_the_user_space(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test as one of `make test-pi`, skipped where it cannot run."""
    absent = platform.system() != "Linux" or not SCRIPTS.is_dir()
    emulators = shutil.which("proot") and shutil.which("qemu-aarch64")
    for mark in (
        pytest.mark.skipif(absent, reason="the Raspberry Pi user space is not there"),
        pytest.mark.skipif(not emulators, reason="needs qemu-user and proot"),
        pytest.mark.pi,
    ):
        test = mark(test)
    return test


@functools.cache
def user_space() -> Path:
    """Where the user space is."""
    if os.environ.get("EDGE_PI_ROOT"):
        return Path(os.environ["EDGE_PI_ROOT"])
    root = Path(tempfile.gettempdir()) / f"edge-pi-{os.getuid()}"
    if not (root / "opt" / "site").exists():
        subprocess.run([str(SCRIPTS / "pi_root.sh"), str(root)], check=True, capture_output=True)
    return root


def run(core: str, folder: Path, *command: str) -> str:
    """What a command prints that runs on a core, in `folder`, which is /work there; fails the test where the command does."""
    words = [str(SCRIPTS / "pi_run.sh"), str(user_space()), core, str(folder), *command]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"on an emulated {core}, {' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def install(folder: Path) -> None:
    """Put the package and its tests where `run` finds them."""
    shutil.copytree(Path(edge.__file__).parent, folder / "edge", ignore=shutil.ignore_patterns("__pycache__"))
    for part in (edge.converters, edge.kernels, edge.targets):
        source = Path(part.__file__).parent
        shutil.copytree(source, folder / "edge" / source.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent, folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "data", "fixtures"))


def machine_of(core: str, folder: Path) -> Machine:
    """What `edge.kernels.isa.detect` finds on a core, with the package in `folder`."""
    name, cpu, features, triple = json.loads(run(core, folder, "python3", "-c", _TELL))
    return Machine(ISAS[name], cpu, features, triple)
