"""What a benchmark leaves in `benchmarks/results`: NAME.json for programs, NAME.md for people. Neither holds a date."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def environment(*, threads: int) -> dict[str, Any]:
    """What figures depend on: processor, instruction set, threads, versions."""
    from edge.bench import machine

    return {**machine(), "threads": threads}


@dataclass(frozen=True)
class Report:
    """A table and what belongs to it.

    `rows` are JSON objects; `columns` maps the heading of each column to the key of its value in a row; `environment` is what the function
    of that name gives; `notes` are lines below the table, ratios among them.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str]
    environment: Mapping[str, Any]
    notes: Sequence[str] = ()

    def write(self, name: str) -> str:
        """Write NAME.json and NAME.md, and return the latter's text."""
        RESULTS.mkdir(exist_ok=True)
        content = {"title": self.title, "environment": dict(self.environment), "rows": list(self.rows), "notes": list(self.notes)}
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        text = self.markdown()
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
        return text

    def markdown(self) -> str:
        facts = self.environment
        machine = "{processor}, {instruction_set}, {cores} cores, threads: {threads}, {system}".format_map(facts)
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        table = [_line(self.columns), _line(["---", *["---:"] * (len(self.columns) - 1)])]
        table += [_line(_cell(row.get(key)) for key in self.columns.values()) for row in self.rows]
        return "\n".join([f"# {self.title}", "", *table, "", *(f"- {note}" for note in (*self.notes, machine, versions)), ""])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def percent(share: float | None) -> float | None:
    """A share as a percentage with two decimals, None where it is not known."""
    return None if share is None else round(100 * share, 2)


def microseconds(seconds: float) -> float:
    return round(1e6 * seconds, 2)
