"""Small plots side by side in one .svg, one for each thing that is told of: the same picture for the same figures, byte by byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

PANELS_A_ROW = 4
WIDTH, HEIGHT = 2.6, 2.1  # of a panel, inches
_STYLE: Any = {
    "svg.hashsalt": "edge", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8, "axes.spines.top": False,
    "axes.spines.right": False,
}  # fmt: skip

Thing = TypeVar("Thing")


def draw(path: Path, things: Sequence[Thing], panel: Callable[[Any, Thing], None]) -> bool:
    """Write `path`, a `panel(axes, thing)` for each thing; False, and nothing written, for none. Needs matplotlib."""
    if not things:
        return False
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    columns = min(len(things), PANELS_A_ROW)
    lines = -(-len(things) // columns)
    with matplotlib.rc_context(_STYLE):
        figure, grid = plt.subplots(lines, columns, figsize=(WIDTH * columns, HEIGHT * lines), layout="constrained", squeeze=False)
        for axes, each in zip(grid.flat, things, strict=False):
            panel(axes, each)
        for axes in grid.flat[len(things) :]:
            axes.set_visible(False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True
