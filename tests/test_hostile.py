"""Hostile files with a right checksum: never a crash, a hang, or an access out of bounds.

Every field of every record of the programs of `sample_programs` is set to the values at which checks break, all pairs of fields of a record
are exchanged, and 1,000 more are made at random (see `hostile.py`). Each is read, verified and, if it passes, run in memory fenced by pages
nobody may touch, in a process of its own whose end is noticed.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import hostile
import pytest
from sample_programs import GRAPHS, program

from edge.format import to_bytes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fences need mprotect")


@dataclass
class Tried:
    """What came of some mutants of a program: how many ended at each stage, and the faults."""

    ended: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def try_mutants(name: str, folder: Path, *, first: int = 0, last: int | None = None, fault: str = "") -> Tried:
    """Try mutants `first` to `last`; a process that ends early is a fault of the mutant it was at, and the next begins behind that."""
    tried = Tried()
    names = [mutant.name for mutant in hostile.mutants(program(name), to_bytes(program(name)))][:last]
    while first < len(names):
        log = folder / f"{name}-{first}.log"
        command = [sys.executable, "-X", "faulthandler", hostile.__file__, name, str(first), str(len(names)), str(log), fault]
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        lines = log.read_text().splitlines()
        tried.ended.update(line.split(" = ")[1] for line in lines if " = " in line)
        if ended.returncode == 0:
            break
        number, stage = lines[-1].split(" ", 1)
        tried.faults.append(f"{names[int(number)]}, at {stage}: exit status {ended.returncode}\n{ended.stderr[-2000:]}")
        first = int(number) + 1
    return tried


# Each takes half a minute; the others hold the same code to the same mutations.
SLOW = ("int8", "residual", "fused")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in GRAPHS])
def test_hostile_files_do_no_harm(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried = try_mutants(name, tmp_path)
    total = sum(tried.ended.values())
    with capsys.disabled():
        print(f"\n{name}: {total} hostile files; ended at: " + ", ".join(f"{stage} {tried.ended[stage]}" for stage in hostile.STAGES))
    assert not tried.faults, f"{len(tried.faults)} faults, the first: {tried.faults[0]}"
    assert total > 4000 and tried.ended["verifier"] > 1000
    assert tried.ended["ran"] > 200, "too few mutants reach the engine to say anything about it"


@pytest.fixture(scope="module")
def harmless() -> int:
    """The first mutant that reaches the engine."""
    made = program("digits")
    data = to_bytes(made)
    ends = (hostile.attempt(mutant.of(data), lambda stage: None, lambda made: None) for mutant in hostile.mutants(made, data))
    return next(number for number, end in enumerate(ends) if end == "ran")


FAULTS = {"crash": "exit status -11", "hang": "exit status -14", "raise": "ZeroDivisionError", "write": "exit status -11"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_engine_would_be_noticed(fault: str, harmless: int, tmp_path: Path) -> None:
    tried = try_mutants("digits", tmp_path, first=harmless, last=harmless + 1, fault=fault)
    assert len(tried.faults) == 1 and FAULTS[fault] in tried.faults[0]
