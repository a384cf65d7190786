"""A device behind a real sshd on the loopback: this very account with a home of its own, or whatever a command makes of it."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.deploy_ssh import Address

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AllowAgentForwarding no
ForceCommand {folder}/enter
"""


@dataclass(frozen=True)
class SshDevice:
    """host and options reach it; home is its home folder, as seen from here; log is what its sshd said."""

    address: Address
    home: Path
    folder: Path

    @property
    def arguments(self) -> list[str]:
        """Of the command line."""
        options = [word for option in self.address.options for word in ("-o", option)]
        return [self.address.host, "-p", str(self.address.port), "-i", str(self.address.identity), *options]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", errors="replace")


def require_sshd() -> None:
    """Skip the test where there is no OpenSSH server."""
    if not os.access(SSHD, os.X_OK) or not shutil.which("ssh-keygen") or not shutil.which("ssh"):
        pytest.skip("needs the OpenSSH server and client: apt-get install openssh-server")
    if os.getuid() == 0 and not os.path.isdir("/run/sshd"):
        os.makedirs("/run/sshd", mode=0o755)  # where sshd gives up root's rights


@contextmanager
def ssh_device(home: Path, enter: Sequence[str], config: str = "") -> Iterator[SshDevice]:
    """A device for the time of the block. enter: the command that runs a shell command, given as its last argument, on the device."""
    require_sshd()
    folder = Path(tempfile.mkdtemp(prefix="edge-sshd-"))
    try:
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        (folder / "enter").write_text(f'#!/bin/sh\nexec {shlex.join(enter)} "$SSH_ORIGINAL_COMMAND"\n', "utf-8")
        (folder / "enter").chmod(0o755)
        port = _free_port()
        (folder / "config").write_text(_CONFIG.format(port=port, folder=folder) + config, "utf-8")
        with (folder / "log").open("wb") as log, _running([SSHD, "-D", "-e", "-f", str(folder / "config")], log):
            _wait_for(port)
            yield SshDevice(_address(folder, port), home, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def local_device(home: Path, *, path: Sequence[Path] = (), extra: Sequence[str] = ()) -> list[str]:
    """The command that enters this account with another home, and with this Python's packages as those of the system.

    path: folders with programs that are found before the system's; extra: NAME=VALUE.
    """
    programs = home.parent / f"{home.name}-bin"
    if not programs.exists():
        programs.mkdir()
        (programs / "python3").symlink_to(Path(sys.executable).resolve())
    search = os.pathsep.join([*map(str, path), str(programs), "/usr/bin", "/bin"])
    packages = next(entry for entry in sys.path if entry.endswith("site-packages"))
    return ["env", "-i", f"HOME={home}", f"PATH={search}", "LANG=C.UTF-8", f"PYTHONPATH={packages}", *extra, "/bin/sh", "-c"]


def _address(folder: Path, port: int) -> Address:
    options = ("IdentitiesOnly=yes", f"UserKnownHostsFile={folder}/known_hosts", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR")
    return Address(f"{getpass.getuser()}@127.0.0.1", port, str(folder / "key"), ("BatchMode=yes", *options))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: list[str], log: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"sshd does not listen on port {port}")
