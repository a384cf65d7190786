"""The results table: what each network reaches at each precision, of the runs of `edge train`.

    python benchmarks/accuracy_table.py --runs runs     # read what is trained, then write the pages
    python benchmarks/accuracy_table.py --runs runs --time   # time their files as well, which wants a machine with nothing else to do
    python benchmarks/accuracy_table.py                 # write the pages again

`benchmarks/results/accuracy.json` keeps what the runs measured, `benchmarks/results/curves` their curves; docs/results.md and the table of
the README are made from that file alone. A cell without a run is empty; `absent` lists those.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy_rows import COLUMNS, ROOT, Cell, Rows, absent, cell, collect, is_minutes, keep, measure_latencies, read_rows
from learning_curves import plot as plot_curves
from wider_networks import plot as plot_widths
from wider_networks import section

from edge.console import bytes_text
from edge.recipes import RECIPES, TABLE, Recipe

PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
START, END = "<!-- accuracy: made by benchmarks/accuracy_table.py -->", "<!-- end of accuracy -->"

TITLES = ("float", "8 bit", "`xnor-weights`", "`dorefa-weights`", "`xnor`", "`xnor` with K")
ASKED_COLUMN = {"float": 0, "xnor-weights": 1, "dorefa-weights": 1, "xnor": 2, "xnor-k": 2}
LEAST_ONE_BIT_SHARE = 0.95
_DAGGER = "†"


# -- the pages -----------------------------------------------------------------------------------------------------------------


def table(rows: Rows, recipes: Iterable[str] = TABLE) -> str:
    """Network by precision. Bold: reaches what was asked."""
    head = f"| recipe | data | {' | '.join(TITLES)} | described | 1-bit file |\n{'|---' * (len(TITLES) + 4)}|"
    return "\n".join([head, *(_line(rows, RECIPES[name]) for name in recipes)])


def _line(rows: Rows, recipe: Recipe) -> str:
    cells = {column: cell(rows, recipe.name, column) for column in COLUMNS}
    one_bit = cells["xnor"]
    size = bytes_text(one_bit.file["bytes"]) if one_bit else ""
    data = f"{recipe.data}, permuted" if recipe.permuted else recipe.data
    texts = (_marked(recipe, column, found) for column, found in cells.items())
    return f"| `{recipe.name}` | {data} | {' | '.join(texts)} | {_described(recipe)} | {size} |"


def _marked(recipe: Recipe, column: str, found: Cell | None) -> str:
    if found is None:
        return ""
    if recipe.asked is None or column not in ASKED_COLUMN:
        return found.text()
    return f"**{found.text()}**" if found.reaches(recipe.asked[ASKED_COLUMN[column]]) else found.text()


def _described(recipe: Recipe) -> str:
    return ", ".join(f"{figure:g}" if name == "float" else f"{name} {figure:g}" for name, figure in dict(recipe.seed_figures).items())


def runs_table(rows: Rows) -> str:
    """A line for each run."""
    heads = ("run", "test score", "1 bit", "bytes", "µs a picture", "epochs (kept)", "training", "processor time", "command")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        for name, file in row["files"].items():
            score = Cell((file["score"],), file).text()
            share = f"{100 * file['one_bit_share']:.1f} %"
            times = f"{row['training_s'] / 60:.1f} min | {row['training_cpu_s'] / 60:.1f} min"
            epochs = f"{row['epochs']} ({row['best_epoch']})"
            size, latency, command = f"{file['bytes']:,}", str(file.get("latency_us", "")), f"`{row['command']}`"
            facts = (_label(row, name), score, share, size, latency, epochs, times, command)
            lines.append(f"| {' | '.join(facts)} |")
    return "\n".join(lines)


def _label(row: Mapping[str, Any], file: str) -> str:
    return f"{row['run']}{', 8 bit' if file == 'int8' else ''}{f' {_DAGGER}' if had_noisy_teacher(row) else ''}"


def had_noisy_teacher(row: Mapping[str, Any]) -> bool:
    """Whether a run learnt from a float net whose dropout was left on, as runs did until that was found. Residual nets have none."""
    return row["precision"] != "float" and "teacher" not in row and not row["network"].startswith("resnet(")


def _noisy_teachers(rows: Rows) -> str:
    text = f"{_DAGGER} learnt from a float net whose dropout was left on while it taught; runs of today have it off.\n"
    return text if any(had_noisy_teacher(row) for row in rows) else ""


def clocks(rows: Rows) -> str:
    """How far off the time is on dials that were learnt and on others; nothing where no such run is stored."""
    files = [(_label(row, name), file) for row in rows for name, file in row["files"].items() if is_minutes(file)]
    if not files:
        return ""
    lines = [f"| {label} | {file['score']:.2f} | {file['further']['unseen']['score']:.2f} | {file['bytes']:,} |" for label, file in files]
    learnt, others = (part["pictures"] for part in (files[0][1], files[0][1]["further"]["unseen"]))
    return f"""## Clocks

Minutes that the time is off, the short way round twelve hours: on {learnt:,} pictures of dials that were learnt, and on {others:,} of two
dials, a font and two shapes of hands that were not, all with shadow, blur and noise. Guessing is 180 off. They are
[rendered clocks of our own](train.md#clocks).

| run | learnt dials | other dials | bytes |
|---|---|---|---|
{chr(10).join(lines)}

"""


def hardware(rows: Rows) -> str:
    """What the runs were trained on."""
    kinds = sorted({f"{row['hardware']['processor']}, {row['hardware']['threads']} thread(s)" for row in rows})
    versions = sorted({f"TensorFlow {row['versions'].get('tensorflow-cpu') or row['versions'].get('tensorflow')}" for row in rows})
    return f"Trained on {'; '.join(kinds)}, beside other work; {', '.join(versions)}." if rows else "No run is stored."


def page(rows: Rows) -> str:
    """docs/results.md."""
    missing = absent(rows)
    return f"""<!-- Made by benchmarks/accuracy_table.py from benchmarks/results/accuracy.json; do not edit. -->

# What the networks reach

Test accuracy in percent, of the whole test set, by the converted file in the engine (`clock`: minutes that the time is off, on rendered
clocks of our own, not on the pictures of the network's description). **Bold**: as much as was asked. "Described" is what the description of
the network reports. An empty cell is not measured; others are of seed 0, or the mean ± the standard deviation of several seeds, each with
a line below. Every column but the first two has at least {100 * LEAST_ONE_BIT_SHARE:.0f} % of the weights at 1 bit; `xnor` has signs
between layers too. The epoch was chosen on training pictures that were held back. `make results` trains what is missing.

{table(rows)}

{len(TABLE) * len(COLUMNS) - len(missing)} of {len(TABLE) * len(COLUMNS)} cells are measured.

{section(rows)}
{clocks(rows)}## How they learnt

![Share of the pictures held back that is wrong, by epoch, a line for each precision](learning-curves.svg)

The share of the pictures held back that is wrong after each epoch, on a logarithmic scale; dotted while signs stood between layers and
weights were still floats. The dot is the epoch that was kept. The figures are in [benchmarks/results/curves](../benchmarks/results/curves).

## Runs

{hardware(rows)} In a command `--data` names the file that the data set came from; without it Keras fetches the same. Times are those of
the engine on one thread of that processor.

{runs_table(rows)}

{_noisy_teachers(rows)}"""


def readme_with(text: str, rows: Rows) -> str:
    """The README with today's table of what is measured between its marks."""
    measured = {row["recipe"] for row in rows}
    made = f"{START}\n\n{table(rows, [name for name in TABLE if name in measured])}\n\n{END}"
    return re.sub(f"{re.escape(START)}.*?{re.escape(END)}", lambda _: made, text, flags=re.DOTALL)


def short_of_signs(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The runs at 1 bit whose files hold too many other weights."""
    files = ((row, file) for row in rows if row["precision"] != "float" for file in row["files"].values())
    return [row["run"] for row, file in files if file["one_bit_share"] < LEAST_ONE_BIT_SHARE]


def write_tables(runs: Path | None = None, *, timed: bool = False) -> Rows:
    """Take in the finished runs, with `timed` time their files, and write the pages."""
    rows = read_rows()
    if runs is not None:
        rows = collect(runs, rows)
        if timed:
            measure_latencies(rows, runs)
        keep(rows, runs)
    PAGE.write_text(page(rows), encoding="utf-8")
    plot_widths(rows)
    plot_curves(rows)
    README.write_text(readme_with(README.read_text(encoding="utf-8"), rows), encoding="utf-8")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the results table.")
    parser.add_argument("--runs", type=Path, help="a folder of runs of edge train to take in")
    parser.add_argument("--time", action="store_true", help="measure how long a picture takes")
    given = parser.parse_args(arguments)
    rows = write_tables(given.runs, timed=given.time)
    print(f"{len(rows)} runs; {len(absent(rows))} cells are absent")


if __name__ == "__main__":
    main()
