"""The report of a stored run: bench.md and bench.html beside bench.json, both made from it alone.

    python benchmarks/bench_pages.py [FILE.json]        makes them again, without measuring
"""

from __future__ import annotations

import html
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import bench_plots
from bench_checklist import Check, checklist
from bench_rows import RESULTS, Run, load
from bench_tables import Cell, Table, main_table, tables

TITLE = "Benchmarks of edge"
METHOD = (
    "Every result is asserted before its time is taken. Contenders run in turns, in rounds of about 2 ms; a time is the median of the "
    "rounds, the spread half the distance of their quartiles; x is how many times as long a peer took, the median over neighbouring "
    "rounds. The limit is the highest rate that a probe on registers, or any kernel of the run, reached."
)


def write(path: Path) -> list[Path]:
    """Write the pages of the run stored in `path` beside it, and return where they are."""
    run = load(path)
    pages = {".md": markdown(run), ".html": page(run)}
    for suffix, text in pages.items():
        path.with_suffix(suffix).write_text(text, encoding="utf-8")
    return [path.with_suffix(suffix) for suffix in pages]


def machine(run: Run) -> str:
    facts = run.environment
    return "{processor}, {instruction_set}, {cores} cores, {system}".format_map(facts)


def versions(run: Run) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.environment["versions"].items())


def missing(run: Run) -> list[str]:
    """What is not in the run, by reason."""
    whats: dict[str, list[str]] = {}
    for what, reason in run.absent:
        whats.setdefault(reason, []).append(what)
    lines = []
    for reason, names in whats.items():
        files = Counter(name.partition("::")[0] for name in names)
        where = ", ".join(f"{file} ({count})" if count > 1 else file for file, count in files.items())
        lines.append(f"{where}: {reason}")
    return lines


def _mark(check: Check) -> str:
    return {True: "reached", False: "not reached", None: "absent"}[check.reached]


# -- Markdown ------------------------------------------------------------------------------------------------------------------


def markdown(run: Run) -> str:
    """The report as Markdown."""
    lines = [f"# {TITLE}", "", f"{machine(run)}. {METHOD}", "", "## What is asked, and what this run shows", ""]
    lines += _markdown_table(("work", "asked", "measured", ""), [(c.what, c.asked, c.measured, _mark(c)) for c in checklist(run)], 3)
    for table in tables(run):
        texts = [[cell.text for cell in row] for row in table.rows]
        lines += ["", f"## {table.title}", "", table.about, "", *_markdown_table(table.columns, texts, table.labels)]
    absent = missing(run)
    if absent:
        lines += ["", "## Absent", "", *(f"- {line}" for line in absent)]
    return "\n".join([*lines, "", f"Versions: {versions(run)}.", ""])


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], labels: int) -> list[str]:
    rules = ["---" if i < labels else "---:" for i in range(len(columns))]
    return [_markdown_line(cells) for cells in (columns, rules, *rows)]


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# -- HTML ----------------------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1c2126; --soft: #5c6670; --line: #d9dee3; --raised: #f5f7f8; --accent: #0d9488;
  --good: #12805c; --bad: #c2410c; --bar: #0d948833; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --text: #e6e9ec; --soft: #9aa4ae; --line: #333b43; --raised: #1b2127;
  --accent: #2dd4bf; --good: #4ade80; --bad: #fb923c; --bar: #2dd4bf33; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--soft); max-width: 60rem; }
.limits { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; list-style: none; }
.limits li { background: var(--raised); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; min-width: 8rem; }
.limits b { display: block; font-size: 1.15rem; } .limits span { color: var(--soft); font-size: .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 4.2rem; }
.label { text-align: left; }
tr.first td { border-top: 1px solid var(--soft); }
td.share { background: linear-gradient(90deg, var(--bar) var(--part), transparent var(--part)); }
.checks td { white-space: normal; text-align: left; }
.mark { font-weight: 600; white-space: nowrap; }
.reached { color: var(--good); } .not-reached { color: var(--bad); } .absent { color: var(--soft); font-weight: 400; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
"""


def page(run: Run) -> str:
    """The report as one HTML file that needs nothing else."""
    limits, *others = tables(run)
    absent = "".join(f"<li>{html.escape(line)}</li>" for line in missing(run))
    body = [
        f"<h1>{TITLE}</h1><p>{html.escape(machine(run))}</p>",
        _limits(limits),
        f"<p>{html.escape(METHOD)}</p>",
        "<h2>What is asked, and what this run shows</h2>",
        _checks(checklist(run)),
        *_figures(run),
        _section(main_table(run)),
        *(f"<details><summary>{html.escape(table.title)}</summary>{_section(table, heading=False)}</details>" for table in others),
        f"<h2>Absent</h2><ul>{absent}</ul>" if absent else "",
        f"<footer>{html.escape(versions(run))}</footer>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{TITLE}</title><style>{STYLE}</style>'
    return "<!doctype html>\n" + f'<html lang="en"><head>{head}</head><body>\n' + "\n".join(filter(None, body)) + "\n</body></html>\n"


def _figures(run: Run) -> list[str]:
    drawn = [(plot, plot.draw(run)) for plot in bench_plots.PLOTS]
    return [f"<h2>{plot.title}</h2><p>{html.escape(plot.about)}</p><figure>{svg}</figure>" for plot, svg in drawn if svg is not None]


def _limits(table: Table) -> str:
    cards = [
        f"<li><b>{html.escape(highest.text)} <small>{html.escape(unit.text)}</small></b><span>{html.escape(name.text)}</span></li>"
        for name, unit, highest, _ in table.rows
    ]
    return f'<ul class="limits" title="{html.escape(table.about)}">{"".join(cards)}</ul>'


def _checks(checks: Sequence[Check]) -> str:
    """A check whose work is that of the line above does not say it again."""
    lines, before = [], ""
    for check in checks:
        what = "" if check.what == before else html.escape(check.what)
        mark = _mark(check)
        cells = f'<td>{what}</td><td>{html.escape(check.asked)}</td><td class="{"absent" if check.reached is None else ""}">'
        measured = html.escape(check.measured)
        lines.append(f'<tr>{cells}{measured}</td><td class="mark {mark.replace(" ", "-")}">{mark}</td></tr>')
        before = check.what
    heads = "".join(f'<th class="label">{head}</th>' for head in ("work", "asked", "measured", ""))
    return f'<div class="wide"><table class="checks"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _section(table: Table, *, heading: bool = True) -> str:
    title = f"<h2>{html.escape(table.title)}</h2>" if heading else ""
    heads = "".join(f"<th{_label(i, table)}>{html.escape(column)}</th>" for i, column in enumerate(table.columns))
    lines = []
    for number, row in enumerate(table.rows):
        first = number == 0 or table.rows[number - 1][0].text != row[0].text
        cells = "".join(_cell(cell, i, table) for i, cell in enumerate(row))
        lines.append(f'<tr{" class=first" if first else ""}>{cells}</tr>')
    body = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return f"{title}<p>{html.escape(table.about)}</p>{body}"


def _label(column: int, table: Table) -> str:
    return ' class="label"' if column < table.labels else ""


def _cell(cell: Cell, column: int, table: Table) -> str:
    if cell.share is not None:
        return f'<td class="share" style="--part:{100 * cell.share:.0f}%">{html.escape(cell.text)}</td>'
    return f"<td{_label(column, table)}>{html.escape(cell.text)}</td>"


def main(arguments: Sequence[str]) -> None:
    for made in write(Path(arguments[0]) if arguments else RESULTS / "bench.json"):
        print(made)


if __name__ == "__main__":
    main(sys.argv[1:])
