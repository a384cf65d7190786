"""Wheels for another machine, fetched here by pip: what a device without a network is given."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import EdgeError, MissingPackage

_OLDEST_MINOR = 17  # of glibc 2, in the names of wheels


@dataclass(frozen=True)
class Platform:
    """What wheels are for: the processor as `uname -m` says it, the Python as "3.13", the glibc as (2, 36)."""

    processor: str
    python: str
    glibc: tuple[int, int]

    @property
    def tags(self) -> list[str]:
        """The platform tags of wheels that run there, the newest first."""
        major, minor = self.glibc
        numbered = [f"manylinux_{major}_{each}_{self.processor}" for each in range(minor, _OLDEST_MINOR - 1, -1)]
        return [*numbered, f"manylinux2014_{self.processor}"]


def download(requirements: Sequence[str], platform: Platform) -> dict[str, bytes]:
    """The wheels of pinned `requirements`, which name all that is needed, and pip's own, by file name.

    Raises `EdgeError` where one cannot be had.
    """
    if importlib.util.find_spec("pip") is None:
        raise MissingPackage("fetching wheels for a device needs pip, which this Python lacks; install it with: python3 -m ensurepip")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(_command(requirements, platform, folder), capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
            reason = (errors or done.stderr.splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
            raise EdgeError(
                f"the wheels for {platform.processor}, Python {platform.python}, cannot be fetched: {reason}; "
                "check this machine's network, or let the device fetch them (leave out --offline)"
            )
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _command(requirements: Sequence[str], platform: Platform, folder: str) -> list[str]:
    # Without dependencies: pip would judge their conditions by this machine instead of the device.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", platform.python]
    for tag in platform.tags:
        command += ["--platform", tag]
    return [*command, "--dest", folder, "pip", *requirements]
