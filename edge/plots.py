"""Checks, before long work, of where commands write plots and pages."""

from __future__ import annotations

import os
from collections.abc import Iterable

from edge.errors import InputError
from edge.files import check_place, same_file


def check_plot(path: str | None, others: Iterable[str | None] = ()) -> None:
    """Raise `InputError` for a plot that is no `.svg` file, is one of the `others` that are read or written, or has no place to go to."""
    if path is not None and os.path.splitext(path)[1].lower() != ".svg":
        raise InputError(f"--plot draws SVG, which browsers and word processors show, got {path}; give a name that ends in .svg")
    check_destination("--plot", path, others)


def check_destination(option: str, path: str | None, others: Iterable[str | os.PathLike[str] | None] = ()) -> None:
    """Raise `InputError` for a file of an option that is one of the `others` that are read or written, or has no place to go to."""
    if path is None:
        return
    check_place(path)
    if any(each and same_file(path, each) for each in others):
        raise InputError(f"{option} {path} is among the files that are read or written, and would replace it; name another file")
