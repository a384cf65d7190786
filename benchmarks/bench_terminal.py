"""The main figures of a run in the terminal."""

from __future__ import annotations

from typing import Any

from bench_checklist import checklist
from bench_rows import OVERHEAD, Run
from bench_tables import Table, limits_table, main_table


def show(run: Run) -> None:
    """Print the limits, the main rows and the checks that the run has rows for."""
    console = wide_console()
    for table in (limits_table(run), main_table(run)):
        if table.rows:
            console.print(_rich(table))
    for row in run.select(OVERHEAD):
        console.print(f"engine: {row.facts['instruction_ns']:.1f} ns an instruction")
    for check in checklist(run):
        if check.reached is not None:
            style = "green" if check.reached else "yellow"
            console.print(f"[{style}]{'reached' if check.reached else 'not reached'}[/]  {check.what}: {check.asked}; {check.measured}")


def wide_console() -> Any:
    """A console of the terminal's width, or wide enough for the tables where the output goes elsewhere."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=130)


def _rich(table: Table) -> Any:
    from rich.table import Table as RichTable

    made = RichTable(title=table.title, title_justify="left")
    for i, column in enumerate(table.columns):
        made.add_column(column, justify="left" if i < table.labels else "right")
    for row in table.rows:
        made.add_row(*(cell.text for cell in row))
    return made
