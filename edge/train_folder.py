"""The folder of a training: which run it holds, and whether that may go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.files import write_atomically
from edge.train_loop import CHECKPOINT

SETTINGS, RESULT = "settings.json", "result.json"


def claim(folder: Path, mine: Mapping[str, Any], *, resume: bool) -> None:
    """Make the folder the run's with the settings `mine`, or see that it is; raises `InputError` where it holds another."""
    path = folder / SETTINGS
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs != mine:
            changed = next(name for name in mine if theirs.get(name) != mine[name])
            raise InputError(
                f"the folder {folder} holds a run with {changed} {theirs.get(changed)}, expected {mine[changed]}; give another with -o"
            )
        if not resume and ((folder / CHECKPOINT).exists() or (folder / RESULT).exists()):
            raise InputError(f"the folder {folder} holds this run already; go on with it by --resume, or give another with -o")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [json.dumps(mine, indent=2).encode()])
