"""`edge doctor`: what it says of devices on which something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge import cli_doctor
from edge.cli import cli
from edge.cli_doctor import system_problem

ROOT = Path(__file__).resolve().parents[1]
WITH, WITHOUT = {"numba": "0.68"}, {"numba": None}


@pytest.mark.parametrize(
    ("bits", "machine", "glibc", "packages", "expected"),
    [
        (64, "aarch64", "2.36", WITH, None),
        (64, "aarch64", "2.36", WITHOUT, None),
        (64, "aarch64", None, WITHOUT, None),
        (64, "aarch64", "2.31", WITH, None),
        (64, "aarch64", "2.31", WITHOUT, "glibc 2.31 is too old to install Numba: expected 2.34"),
        (32, "armv7l", "2.36", WITHOUT, "this system has 32 bits (armv7l)"),
        (32, "aarch64", "2.36", WITH, "this system has 32 bits (aarch64), and edge needs 64: flash"),
    ],
)
def test_systems_that_edge_does_not_run_on_are_named(
    bits: int, machine: str, glibc: str | None, packages: dict[str, str | None], expected: str | None
) -> None:
    found = system_problem(bits, machine, glibc, packages)
    assert found is None if expected is None else found is not None and expected in found


@pytest.mark.parametrize(("said", "expected"), [("throttled=0x50005", "under-voltage"), ("throttled=0x0", None), ("nonsense", None)])
def test_throttling_is_told(said: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge import bench_machine

    (tmp_path / "vcgencmd").write_text(f"#!/bin/sh\necho {said}\n")
    (tmp_path / "vcgencmd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bench_machine._vcgencmd.cache_clear()
    found = CliRunner().invoke(cli, ["doctor"], catch_exceptions=False)
    bench_machine._vcgencmd.cache_clear()
    assert found.exit_code == 0 and ("times are longer than they need be" in found.stderr) == (expected is not None)
    assert expected is None or expected in found.stderr
    assert ("throttling" in found.stdout) == (said != "nonsense")


def test_a_32_bit_system_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_doctor, "_bits", lambda: 32)
    found = CliRunner().invoke(cli, ["doctor", "--json"], catch_exceptions=False)
    assert found.exit_code == 1 and "this system has 32 bits" in json.loads(found.stdout)["problems"][0]


def test_a_device_without_kernels_is_told_what_to_install() -> None:
    """In a process that finds neither Numba nor llvmlite, and no library that came with edge."""
    code = (
        "import importlib.util, pathlib, sys\n"
        "sys.modules['numba'] = sys.modules['llvmlite'] = None\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in ('numba', 'llvmlite') else real(name, *rest)\n"
        "from edge.kernels import library\nlibrary.SHIPPED = pathlib.Path('/nowhere')\n"
        "from edge.cli import main\nsys.argv[1:] = ['doctor']\nmain()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("EDGE_KERNELS", "EDGE_ISA")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "there are no kernels for this machine" in done.stderr and "pip install numba llvmlite" in done.stderr
    assert "Traceback" not in done.stderr
