"""The way to a device: the OpenSSH client, with the user's own keys, agent and configuration.

One connection is opened and shared (OpenSSH's ControlMaster), so that a password is typed once. What ssh asks (unknown hosts, passwords)
and says goes between it and the terminal. Scripts are sent over standard input, hence any login shell will do.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import EdgeError, InputError, MissingPackage

_LOST = 255  # ssh's own exit code; all others are the remote command's
_KEEP_S = 60  # how long the shared connection outlives a client that was killed
# Reads its length, then itself; no quote or backslash in it that some shell would treat in its own way.
_BOOTSTRAP = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"


@dataclass(frozen=True)
class Address:
    """Where to: `user@host` or a name of the ssh configuration; -p, -i and -o as ssh takes them."""

    host: str
    port: int | None = None
    identity: str | None = None
    options: tuple[str, ...] = ()


class Connection:
    """A shared ssh connection; use it in a `with` statement."""

    def __init__(self, address: Address) -> None:
        if not address.host or address.host.startswith("-") or any(c.isspace() for c in address.host):
            raise InputError(f"cannot connect to {address.host!r}: expected user@host or a name of your ssh configuration; name a device")
        ssh = shutil.which("ssh")
        if ssh is None:
            raise MissingPackage("deploying needs the OpenSSH client: there is no ssh here; install it: sudo apt install openssh-client")
        self._ssh = ssh
        self._address = address
        self._folder: str | None = None

    @property
    def host(self) -> str:
        return self._address.host

    def __enter__(self) -> Connection:
        self._folder = tempfile.mkdtemp(prefix="edge-")
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        """Make the shared connection, by a command of its own: ssh keeps the streams of the one that makes it open as long as it lasts."""
        command = [*self._command(), "--", self.host, "true"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.require(done.returncode)

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            subprocess.run([*self._command(), "-O", "exit", "--", self.host], stdin=subprocess.DEVNULL, capture_output=True)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def run(self, script: str) -> str:
        """The standard output of a shell script there. Raises `EdgeError` where there is no connection."""
        done = subprocess.run([*self._command(), "--", self.host, "sh -s"], input=script.encode(), stdout=subprocess.PIPE)
        self.require(done.returncode)
        return done.stdout.decode("utf-8", errors="replace")

    def python(self) -> subprocess.Popen[bytes]:
        """Python there, with pipes to its standard input, where it reads a line with a length and so many bytes of program first."""
        command = [*self._command(), "--", self.host, f"python3 -c {shlex.quote(_BOOTSTRAP)}"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def require(self, code: int) -> None:
        """Raise `EdgeError` where an exit code says that ssh itself failed."""
        if code == _LOST or code < 0:
            raise EdgeError(
                f"there is no connection to {self.host}: expected a device that answers ssh, and ssh gave up (its own words are above); "
                f"check that this works: {shlex.join(['ssh', *self._given(), self.host, 'true'])}"
            )

    def _given(self) -> list[str]:
        """What the user asked of ssh."""
        address = self._address
        words = [] if address.port is None else ["-p", str(address.port)]
        words += [] if address.identity is None else ["-i", address.identity]
        return [*words, *(word for option in address.options for word in ("-o", option))]

    def _command(self) -> Sequence[str]:
        # The user's options come first: of an option that is given twice, ssh takes the first.
        shared = Path(self._folder or tempfile.gettempdir()) / "c"
        ours = [f"ControlPath={shared}", "ControlMaster=auto", f"ControlPersist={_KEEP_S}", "ServerAliveInterval=15", "ForwardX11=no"]
        return [self._ssh, *self._given(), "-T", *(word for option in ours for word in ("-o", option))]
