"""The machines that kernel libraries are made on and for: what their processors have, and which linkers they need."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import EdgeError, InputError, MissingPackage
from edge.kernels import features, linker
from edge.kernels.features import host_architecture, missing_features
from edge.kernels.isa import ISAS, available, detect
from edge.kernels.library_build import write_library
from edge.kernels.registry import Code

# -- features ------------------------------------------------------------------------------------------------------------------


def test_what_linux_says_of_the_processor_agrees_with_llvm() -> None:
    llvm = pytest.importorskip("llvmlite.binding")
    found = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    assert not missing_features(found)
    assert not missing_features(detect().features)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [(0b1000_0011, {"fp-armv8", "neon", "crc"}), (1 << 20 | 0b11, {"fp-armv8", "neon", "dotprod"})],
)
def test_features_of_arm_processors(bits: int, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class System:
        @staticmethod
        def getauxval(_: object) -> int:
            return bits

    monkeypatch.setattr(features.ctypes, "CDLL", lambda _: System)
    assert features._aarch64_features() == expected


def test_without_llvmlite_the_machine_is_still_known() -> None:
    code = (
        "import sys; sys.modules['llvmlite'] = None\nfrom edge.kernels.isa import available, detect\n"
        "print(detect().isa.name, detect().triple.split('-')[0], *(isa.name for isa in available()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [detect().isa.name, host_architecture(), *(isa.name for isa in available())]


# -- errors of building --------------------------------------------------------------------------------------------------------


def test_without_a_linker_the_error_names_three(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(linker.shutil, "which", lambda name: None)
    monkeypatch.setattr(linker.importlib.util, "find_spec", lambda name: None)
    for architecture in ("aarch64", "x86_64"):
        with pytest.raises(MissingPackage, match=f"{architecture}-linux-gnu-gcc, ld.lld or the Python package ziglang"):
            linker.find_linker(architecture)


def test_a_linker_that_fails_is_reported(tmp_path: Path) -> None:
    broken = linker.Linker("broken", (sys.executable, "-c", "import sys; sys.exit('no such thing')"), False)
    with pytest.raises(EdgeError, match=r"broken cannot link a library for x86_64: .* no such thing"):
        linker.link([tmp_path / "a.o"], tmp_path / "a.so", "x86_64", broken)


def test_other_machines_have_no_libraries(tmp_path: Path) -> None:
    machine = replace(detect(), isa=ISAS["portable"], triple="thumbv7em-none-eabi")
    with pytest.raises(InputError, match="no kernel library can be built for a board"):
        write_library([Code("x", lambda machine: print)], machine, "a board", tmp_path / "x.so")
