"""Larq Compute Engine as a contender: prepares its networks and talks to it in an environment of its own (`worker.py`, `zoo.py`).

The environment is `.venv-peers`, which `make bench-peers` makes, or another whose interpreter `EDGE_PEERS_PYTHON` names. What `zoo.py`
makes is kept in `benchmarks/.cache/peers`, by the content of that script.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "peers"
REPOSITORY = HERE.parents[1]
MISSING = "Larq Compute Engine is not installed: run make bench-peers, which makes an environment for it"


class PeerError(RuntimeError):
    """The other process could not do what it was asked for."""


def interpreter() -> Path | None:
    """The Python of Larq's environment; None where there is none."""
    named = os.environ.get("EDGE_PEERS_PYTHON")
    path = Path(named) if named else REPOSITORY / ".venv-peers" / "bin" / "python"
    return path if path.exists() else None


# -- networks ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The files that `zoo.py` wrote for a network."""

    folder: Path
    name: str

    @property
    def h5(self) -> Path:
        return self.folder / f"{self.name}.h5"

    @property
    def tflite(self) -> Path:
        return self.folder / f"{self.name}.tflite"

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{self.name}.npz") as arrays:
            return dict(arrays)

    @property
    def layers(self) -> dict[str, np.ndarray]:
        """What every layer gives on the first picture, by its name."""
        return {name.removeprefix("layer/"): array for name, array in self.arrays.items() if name.startswith("layer/")}


def prepare(python: Path, *names: str, script: str = "zoo.py") -> list[Prepared]:
    """The networks `names`, made by `script` where they are not there yet (about 20 seconds each)."""
    path = HERE / script
    folder = CACHE / hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    found = [Prepared(folder, name) for name in names]
    missing = [each.name for each in found if not each.h5.exists()]
    if missing:
        done = subprocess.run([python, path, folder, *missing], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"{script} could not make {', '.join(missing)}: {_last_line(done.stderr)}")
    return found


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


# -- the other process ---------------------------------------------------------------------------------------------------------


class Worker:
    """A running `worker.py`; a context manager."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its stdin, by which it ends

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request of the table in `worker.py`; raises `PeerError` for one that failed, or where the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError as err:
            raise PeerError(f"the peer's process has ended, asked for {request}") from err
        if not line:
            raise PeerError(f"the peer's process ended at {request}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"the peer could not do {request}: {answer['error']}")
        return answer

    def open(self, model: Path, *, indirect: bool, threads: int = 1) -> Peer:
        """An interpreter of a `.tflite` file, with XNNPACK for its float layers or without, whichever is faster."""
        peers = [
            Peer(self, self.ask(open=str(model), indirect=indirect, xnnpack=xnnpack, threads=threads)["interpreter"], xnnpack)
            for xnnpack in (False, True)
        ]
        return min(peers, key=lambda peer: min(peer.seconds(1) for _ in range(4)))


@dataclass(frozen=True)
class Peer:
    """A model in Larq Compute Engine; a contender of benchmarks, which times itself."""

    worker: Worker
    number: int
    xnnpack: bool

    def seconds(self, calls: int) -> float:
        """How long `calls` inferences in a row took."""
        return float(self.worker.ask(time=self.number, calls=calls)["seconds"])

    def answers(self, inputs: np.ndarray) -> np.ndarray:
        """The outputs for a batch."""
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/inputs.npy", inputs)
            self.worker.ask(answer=self.number, inputs=f"{folder}/inputs.npy", outputs=f"{folder}/outputs.npy")
            return np.asarray(np.load(f"{folder}/outputs.npy"))


@dataclass(frozen=True)
class PerLayer:
    """What one of the layers takes by which a deep stack has more than a shallow one; a contender of benchmarks."""

    deep: Peer
    shallow: Peer
    layers: int

    def seconds(self, calls: int) -> float:
        return (self.deep.seconds(calls) - self.shallow.seconds(calls)) / self.layers
