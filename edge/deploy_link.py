"""The device's end of `edge deploy`'s connection: what it says, and what becomes of it when nobody listens. Standard library alone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
from contextlib import suppress
from typing import Any, BinaryIO

MARK = "edge-deploy: "
_ENOUGH = 2000  # characters of an error's output


class DeviceError(Exception):
    """What went wrong, in a sentence for the person at the other side."""


def tell(**message: Any) -> None:
    """Send an answer."""
    print(MARK + json.dumps(message), flush=True)


class Lease:
    """The other side's hold on this process: it lasts until the word "commit", or standard input ends without it."""

    def __init__(self, stdin: BinaryIO) -> None:
        self._stdin = stdin
        self._committed = False
        self._running: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        self._committed = self._stdin.readline().strip() == b"commit"
        running = self._running
        if not self._committed and running is not None:
            _end(running)

    @property
    def lost(self) -> bool:
        return not self._thread.is_alive() and not self._committed

    def wait(self) -> None:
        """Return when the other side agrees; DeviceError where it does not."""
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self.lost:
            raise DeviceError("the connection was closed before the end; what was in use before is in use still")

    def run(self, command: list[str], what: str) -> str:
        """The standard output of a command, which dies with the lease. Raises DeviceError with its last words where it fails."""
        self._check()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True,
        ) as process:  # fmt: skip
            self._running = process
            if self.lost:
                _end(process)
            try:
                output, errors = process.communicate()
            except BaseException:
                _end(process)
                raise
            self._running = None
        self._check()
        if process.returncode:
            raise DeviceError(f"{what} failed: {last_words(errors or output)}")
        return output


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def last_words(text: str) -> str:
    """The end of an output on one line."""
    return " / ".join(line.strip() for line in text[-_ENOUGH:].splitlines()[-4:] if line.strip()) or "it said nothing"


class Part(io.RawIOBase):
    """The next bytes of a stream, as a stream of their own."""

    def __init__(self, stream: BinaryIO, nbytes: int) -> None:
        self._stream = stream
        self._left = nbytes

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(content)
        return content
