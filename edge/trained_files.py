"""The trained files that come with the package: what they tell apart, from which data and under which terms, and how good they are.

    edge run image.png -m digits

`edge/data/trained.toml` says it all; only the files themselves say how many weights take 1 bit.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from edge.cli_model import BUNDLED


@dataclass(frozen=True)
class TrainedFile:
    """data: whose pictures it was trained on; test_set: their name in `edge.datasets`. score: of the file on it, by a measure of
    `edge.train_scores`."""

    name: str
    about: str
    data: str
    terms: str
    test_set: str
    measure: str
    score: float
    command: str

    @property
    def path(self) -> Path:
        return BUNDLED / f"{self.name}.edge"


def trained_files() -> tuple[TrainedFile, ...]:
    """Those that come with this installation."""
    entries = tomllib.loads((BUNDLED / "trained.toml").read_text(encoding="utf-8"))
    return tuple(TrainedFile(name, **entry) for name, entry in entries.items())
