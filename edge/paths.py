"""Checks of paths that a user gives."""

from __future__ import annotations

import os
from pathlib import Path

from edge.errors import InputError


def require_path(path: object, what: str) -> str:
    """The path as text, if it is one (`str` or `os.PathLike`); else InputError, which holds none of what it is instead."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise InputError(f"cannot read the {what}: expected the path of a file, got {type(path).__name__}; name a file")
    return text


def require_file(path: str | os.PathLike[str], what: str) -> Path:
    """The path, if it is a regular file; else InputError. what: what it was to be, such as "picture".

    Opening a pipe or a device would wait for ever or never end, hence regular files only.
    """
    # os.path, not Path: its tests answer False, never raise, for names that are too long and folders that are closed.
    if os.path.isfile(path):
        return Path(path)
    state = "it is not a regular file" if os.path.exists(path) else "there is none"
    raise InputError(f"cannot read the {what} {os.fspath(path)}: expected a file, but {state}; check the path")
