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
_CONTENTS = {"data_sha256": "other data", "source_sha256": "another model"}


def check(folder: Path, mine: Mapping[str, Any], *, resume: bool) -> None:
    """See that the folder holds no other run than that with the settings `mine`, and this one only to go on.

    Settings that a run of an earlier version did not write are taken for the same. Raises `InputError`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, expected a folder for the run, or nothing; give another with -o")
    if not (folder / SETTINGS).exists():
        return
    theirs = read_json(folder / SETTINGS)
    changed = next((name for name, value in mine.items() if theirs.get(name, value) != value), None)
    if changed is not None:
        raise InputError(f"the folder {folder} holds {_difference(changed, theirs[changed], mine[changed])}; give another with -o")
    if not resume and ((folder / CHECKPOINT).exists() or (folder / RESULT).exists()):
        raise InputError(f"the folder {folder} holds this run already; go on with it by --resume, or give another with -o")


def _difference(name: str, theirs: Any, mine: Any) -> str:
    if name in _CONTENTS:
        return f"a run on {_CONTENTS[name]}, of sha256 {str(theirs)[:16]}, expected {mine[:16]}"
    if name == "how":
        first = next(key for key in mine if theirs.get(key) != mine[key])
        return f"a run of an earlier recipe, with {first} {theirs.get(first)}, expected {mine[first]}"
    return f"a run with {name} {theirs}, expected {mine}"


def claim(folder: Path, mine: Mapping[str, Any], *, resume: bool) -> None:
    """Make the folder the run's with the settings `mine`, or see that it is; raises `InputError` where it holds another."""
    check(folder, mine, resume=resume)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SETTINGS, [json.dumps(mine, indent=2).encode()])


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file that a run wrote. Raises `InputError` where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise InputError(f"{path} is damaged: expected JSON, got {err}; remove the folder of the run to start anew") from err
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: expected an object, got {type(found).__name__}; remove the folder of the run to start anew")
    return found
