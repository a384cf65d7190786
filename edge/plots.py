"""Checks of the plots that commands write."""

from __future__ import annotations

import os
from collections.abc import Iterable

from edge.errors import InputError


def check_plot(path: str | None, read: Iterable[str | None] = ()) -> None:
    """Raise `InputError` for a plot that is no `.svg` file, is among the files that are `read`, or whose folder is not there."""
    if path is None:
        return
    if os.path.splitext(path)[1].lower() != ".svg":
        raise InputError(f"--plot draws SVG, which browsers and word processors show, got {path}; give a name that ends in .svg")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise InputError(f"cannot write {path}: there is no folder {os.path.dirname(path)}; make it first")
    if any(each and os.path.exists(path) and os.path.exists(each) and os.path.samefile(path, each) for each in read):
        raise InputError(f"--plot {path} is among the files that are read, and would be replaced; name another file")
