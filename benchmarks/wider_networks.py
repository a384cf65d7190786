"""Questions that the descriptions of the networks left open, answered by runs of several widths.

How many times the channels does a net with weights and activations of 1 bit need to reach the float net that was described? And how far
does such a net come, after how many steps? `section` is the part of docs/results.md, `plot` draws docs/wider-networks.svg; both are made
from what `accuracy_rows` holds, and what is not measured stays empty. `benchmarks/train_results.py --widths` trains what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy_rows import ROOT, Cell, Rows, cell, is_whole
from panels import draw

from edge.recipes import RECIPES, TABLE, Recipe

PICTURE = ROOT / "docs" / "wider-networks.svg"
WIDTHS = (1.0, 1.5, 2.0, 3.0)
PRECISION = "xnor"
ONE_BIT = ("xnor", "xnor-k")
LARGEST_SHARE = 0.25  # of the float file
TRAINING_PICTURES = {"mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "clocks": 14_400}


def described(recipe: Recipe) -> float | None:
    """The float figure in the network's description, in percent or minutes; one with other shortcuts is held to the figure without."""
    plain = RECIPES[recipe.name.removesuffix("-shortcuts")]
    return plain.seed_figures.get("float")


@dataclass(frozen=True)
class Answer:
    """What is known of one recipe. figure: the one to reach. cells: of the widths that were trained. floats: of the float net."""

    recipe: Recipe
    figure: float
    cells: Mapping[float, Cell]
    floats: Cell | None

    @property
    def untried(self) -> float | None:
        """The width to train next; None where one reaches the figure, or none does."""
        for width in WIDTHS:
            if width not in self.cells:
                return width
            if self.cells[width].reaches(self.figure):
                return None
        return None

    @property
    def smallest(self) -> float | None:
        """The smallest width that reaches the figure, where all below it were trained."""
        if self.untried is not None:
            return None
        return next((width for width in WIDTHS if width in self.cells and self.cells[width].reaches(self.figure)), None)


def answer(rows: Rows, name: str) -> Answer | None:
    """That of a recipe; None where its description has no figure to reach."""
    figure = described(RECIPES[name])
    if figure is None:
        return None
    found = {width: cell(rows, name, PRECISION, width) for width in WIDTHS}
    cells = {width: each for width, each in found.items() if each is not None}
    return Answer(RECIPES[name], figure, cells, cell(rows, name, "float"))


def answers(rows: Rows) -> list[Answer]:
    return [found for name in TABLE if (found := answer(rows, name)) is not None]


def unanswered(rows: Rows) -> list[str]:
    """RECIPE xWIDTH of the next width that each open question needs."""
    return [f"{each.recipe.name} x{each.untried:g}" for each in answers(rows) if each.untried is not None]


# -- the page ------------------------------------------------------------------------------------------------------------------


def section(rows: Rows) -> str:
    """The part of docs/results.md."""
    found = answers(rows)
    without = ", ".join(f"`{name}`" for name in TABLE if described(RECIPES[name]) is None)
    picture = "![Score by width, beside the float figure described](wider-networks.svg)\n\n" if any(each.cells for each in found) else ""
    widths = ", ".join(f"{width:g}" for width in WIDTHS)
    return f"""## How wide a net of signs must be

The smallest width, of {widths} times the channels, at which `{PRECISION}` reaches the float figure in the network's description, with
its file and its time on one thread. **Bold**: reaches it; a file of less than {100 * LARGEST_SHARE:.0f} % of the float file at width 1.
Highest: of all runs with weights and activations of 1 bit, at any width and seed, and the steps until then. Wider nets are trained until
one reaches the figure, by `make widths`. No float figure is described for {without}.

{table(found, rows)}

{picture}{sum(each.untried is None for each in found)} of {len(found)} questions are answered.
"""


def table(found: list[Answer], rows: Rows) -> str:
    """A line for each question."""
    widths = [f"x{width:g}" for width in WIDTHS]
    heads = ("recipe", "described", "float", *widths, "smallest", "bytes", "of the float file", "µs", "highest", "steps")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(_texts(each, rows))} |" for each in found)])


def _texts(found: Answer, rows: Rows) -> list[str]:
    tried = [_tried(found, width) for width in WIDTHS]
    scores = [found.floats.text() if found.floats else "", *tried]
    return [f"`{found.recipe.name}`", f"{found.figure:g}", *scores, *_smallest(found), *_highest(rows, found.recipe)]


def _tried(found: Answer, width: float) -> str:
    score = found.cells.get(width)
    if score is None:
        return ""
    return f"**{score.text()}**" if score.reaches(found.figure) else score.text()


def _smallest(found: Answer) -> tuple[str, str, str, str]:
    """The width, its bytes, their share of the float file, microseconds."""
    if found.smallest is None:
        return ("" if found.untried is not None else "none", "", "", "")
    file = found.cells[found.smallest].file
    share = file["bytes"] / found.floats.file["bytes"] if found.floats else None
    text = "" if share is None else f"{100 * share:.1f} %"
    marked = f"**{text}**" if share is not None and share < LARGEST_SHARE else text
    return f"x{found.smallest:g}", f"{file['bytes']:,}", marked, str(file.get("latency_us", ""))


def _highest(rows: Rows, recipe: Recipe) -> tuple[str, str]:
    """The best score of one run, which one, and the steps that it took."""
    mine = [row for row in rows if row["recipe"] == recipe.name and row["precision"] in ONE_BIT and is_whole(row)]
    if not mine:
        return "", ""
    scores = {row["run"]: Cell((row["files"][row["precision"]]["score"],), row["files"][row["precision"]]) for row in mine}
    best = max(mine, key=lambda row: scores[row["run"]].merit)
    steps = best["best_epoch"] * steps_an_epoch(recipe)
    return f"{scores[best['run']].text()} (x{best['width']:g} {best['precision']})", f"{steps:,}"


def steps_an_epoch(recipe: Recipe) -> int:
    """Batches, of the whole data set of that name."""
    return (TRAINING_PICTURES[recipe.data] - recipe.held_back) // recipe.batch


# -- the plot ------------------------------------------------------------------------------------------------------------------


def plot(rows: Rows, path: Path = PICTURE) -> bool:
    """A panel for each recipe of which a width was trained: scores by width, beside the float net described. Whether there was any."""
    return draw(path, [each for each in answers(rows) if each.cells], _panel)


def _panel(axes: Any, found: Answer) -> None:
    """Full dots reach the figure, which is the dashed line; the dotted one is the float net trained here."""
    widths = sorted(found.cells)
    values = [found.cells[width].value for width in widths]
    axes.axhline(found.figure, color="#8b6fd6", linestyle=(0, (5, 3)), linewidth=1, label=f"described, float: {found.figure:g}")
    if found.floats:
        axes.axhline(found.floats.value, color="0.6", linestyle=":", linewidth=1, label=f"float here: {found.floats.text()}")
    axes.plot(widths, values, color="#0d9488", linewidth=1)
    faces = ["#0d9488" if found.cells[width].reaches(found.figure) else "white" for width in widths]
    axes.scatter(widths, values, color=faces, edgecolor="#0d9488", s=24, zorder=3, label="1/1 bit")
    unit = "minutes off" if found.cells[widths[0]].is_minutes else "%"
    axes.set_title(f"{found.recipe.name}, {unit}", fontsize=8, loc="left")
    axes.set(xlim=(WIDTHS[0] - 0.2, WIDTHS[-1] + 0.2), xticks=WIDTHS, xticklabels=[f"x{width:g}" for width in WIDTHS])
    axes.margins(y=0.25)
    axes.legend(fontsize=6, edgecolor="0.85", loc="best")  # framed: its dot is no score
