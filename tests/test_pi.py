"""Kernels on emulated cores of the Raspberry Pi, against the reference: `make test-pi PI_CPU=cortex-a72`.

Machine code is made here for the core found there, since Numba takes ten times as long under emulation; one test compiles there.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import raspberry_pi
from kernel_cases import cases, code_of
from raspberry_pi import CHOSEN, CORES, needs_the_user_space
from strategies import SPECIALISED, signatures

from edge.kernels import cache
from edge.kernels.isa import Machine
from edge.kernels.move import lower_halo
from edge.kernels.registry import Place
from edge.ops import OPS
from edge.tensors import Halo, TensorType

COUNT = 4  # cases of each signature
OTHERS = [op for op in OPS if op not in SPECIALISED]
GROUPS = {**{op: [op] for op in SPECIALISED}, "others": OTHERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its tests, as the emulated machine sees them."""
    made = tmp_path_factory.mktemp("pi")
    raspberry_pi.install(made)
    return made


def compile_for(machine: Machine, ops: list[str]) -> None:
    """Fill the cache with the kernels of the cases of operations."""
    halo = lower_halo(Place(TensorType((1, 1, 1), halo=Halo(1, 1, 1, 1)), 0)).code
    made = [code_of(one, machine) for op in ops for signature in signatures(op) for one in cases(op, signature, COUNT)]
    for code in cache.missing({code.name: code for code in (halo, *made)}.values(), machine):
        cache._OBJECTS.put(cache.object_name(code, machine), cache._compile(code, machine))


@needs_the_user_space
@pytest.mark.parametrize("core", CHOSEN)
def test_the_instruction_set_of_a_core_is_found(core: str, folder: Path) -> None:
    machine = raspberry_pi.machine_of(core, folder)
    assert (machine.isa.name, machine.cpu) == (CORES[core], core)


@needs_the_user_space
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("core", CHOSEN)
def test_kernels_agree_with_the_reference(
    core: str, group: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(folder / "cache"))
    compile_for(raspberry_pi.machine_of(core, folder), GROUPS[group])
    said = raspberry_pi.run(core, folder, "env", "EDGE_CACHE=/work/cache", "python3", "tests/pi_kernels.py", str(COUNT), *GROUPS[group])
    with capsys.disabled():
        print(f"\n{group}: {said}", end="")
    (tried,) = re.findall(rf"^(\d+) cases agree on {core} with {CORES[core]};", said)
    assert int(tried) == COUNT * sum(len(signatures(op)) for op in GROUPS[group])


@needs_the_user_space
@pytest.mark.parametrize("core", CHOSEN)
def test_kernels_are_compiled_on_a_core(core: str, folder: Path) -> None:
    said = raspberry_pi.run(core, folder, "env", f"EDGE_CACHE=/work/{core}", "python3", "tests/pi_kernels.py", "1", "dequantize")
    assert re.search(r"; [1-9]\d* kernels compiled here$", said)
