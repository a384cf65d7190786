"""Kernels touch no byte that is not theirs: random programs on every instruction set of this machine, in memory between fences."""

from __future__ import annotations

import subprocess
import sys

import pytest
import run_random

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fences need mprotect")


def _run(first: int, last: int) -> None:
    command = [sys.executable, "-X", "faulthandler", run_random.__file__, str(first), str(last)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0, f"random program {lines[-1] if lines else first} ended the process: {ended.stderr[-2000:]}"
    assert len(lines) == last - first
    assert not [line for line in lines if not line.endswith(": ok")]


def test_random_programs_stay_inside_their_memory_and_equal_the_reference() -> None:
    _run(0, 5)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(5, 405, 50))
def test_more_random_programs_stay_inside_their_memory_and_equal_the_reference(first: int) -> None:
    _run(first, first + 50)
