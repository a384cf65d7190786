"""What the commands print: data to stdout, everything else to stderr; colour, frames and progress in terminals alone.

rich is imported only to draw a table in a terminal, where it is installed; piped tables are columns of text, however wide, so that lines
stay lines.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import click

_REDRAW_S = 0.1  # between two drawings of a progress line
_BAR = 24


def say(text: str, *, style: str | None = None) -> None:
    """One line for the person, on stderr."""
    click.echo(f"{styled('edge:', style, sys.stderr)} {printable(text)}", err=True)


def warn(text: str) -> None:
    """One line on stderr that asks for attention."""
    say(f"warning: {text}", style="yellow")


def out(text: str = "") -> None:
    """A line of data, on stdout; `text` may hold what `styled` made."""
    click.echo(text, color=True)


def out_json(data: object) -> None:
    """A JSON document, on stdout."""
    out(json.dumps(data, indent=2, allow_nan=False))


def printable(text: str) -> str:
    """`text` with control characters, which a terminal would obey, written as escapes, and line breaks as spaces."""
    flat = " ".join(text.split("\n"))
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs") else c.encode("unicode_escape").decode() for c in flat)


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str | None, stream: TextIO | None = None) -> str:
    """`text` in a colour, or "bold" or "dim", where `stream` (stdout unless given) is a terminal that shows it."""
    if style is None or os.environ.get("NO_COLOR") or not is_terminal(stream or sys.stdout):
        return text
    return click.style(text, **{style: True}) if style in ("bold", "dim") else click.style(text, fg=style)


# -- numbers -------------------------------------------------------------------------------------------------------------------


def bytes_text(nbytes: int) -> str:
    """A size such as "812 B", "12.3 KiB", "4.5 MiB"."""
    if nbytes < 1024:
        return f"{nbytes} B"
    size, unit = nbytes / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if size >= 1023.95:
            size, unit = size / 1024, larger
    return f"{size:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """A time of three digits: "85.1 us", "1.24 ms", "3.00 s"."""
    for scale, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * scale < 999.5:
            return f"{seconds * scale:#.3g} {unit}".replace(". ", " ")
    return f"{seconds:.2f} s"


def shape_text(shape: Sequence[int]) -> str:
    """A shape such as "28x28x1"."""
    return "x".join(map(str, shape)) or "()"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """A number and its noun, "1 kernel" or "7 kernels"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


# -- tables --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of a table. right: aligned to the right, as numbers are; folds: takes several lines where the terminal is narrow."""

    title: str
    right: bool = False
    folds: bool = False


def out_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    total: Sequence[str] | None = None,
    colours: Sequence[str | None] | None = None,
) -> None:
    """A table on stdout; `total` is its last row, set apart; `colours` are those of the rows, in a terminal."""
    clean = [[printable(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout) and importlib.util.find_spec("rich"):
        _rich_table(columns, clean, total, colours or [None] * len(rows))
    else:
        _plain_table(columns, [*clean, *([list(total)] if total else [])])


def out_facts(facts: Sequence[tuple[str, str]], *, indent: str = "") -> None:
    """Names and values, one pair a line, the values aligned."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        out(f"{indent}{styled(f'{name:<{width}}', 'dim')}  {printable(value)}")


def out_notes(notes: Iterable[tuple[str, str]]) -> None:
    """Remarks on layers, (layer, remark), one line for each remark with all its layers."""
    layers: dict[str, list[str]] = {}
    for layer, note in notes:
        layers.setdefault(note, []).append(layer)
    for note, names in layers.items():
        out(f"{styled(printable(', '.join(names)), 'bold')}: {printable(note)}")


def _plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        cells = (cell.rjust(w) if c.right else cell.ljust(w) for c, cell, w in zip(columns, line, widths, strict=True))
        out("  ".join(cells).rstrip())


def _rich_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None, colours: Sequence[str | None]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold", no_wrap=not column.folds)
    for row, colour in zip(rows, colours, strict=True):
        table.add_row(*map(Text, row), end_section=row is rows[-1] and total is not None, style=colour)
    if total:
        table.add_row(*map(Text, total), style="bold")
    Console(highlight=False).print(table)


# -- progress ------------------------------------------------------------------------------------------------------------------


class Progress:
    """A line on stderr, redrawn in place and gone at the end; nothing where stderr is no terminal. Use it in a `with` statement.

    Lines written to the same terminal meanwhile go between `clear` and the next `update`.
    """

    def __init__(self, what: str = "") -> None:
        self._what = what
        self._shown = is_terminal(sys.stderr)
        self._started = time.monotonic()
        self._drawn = 0.0
        self._visible = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def update(self, done: int, total: int, what: str | None = None) -> None:
        """Show that `done` of `total` steps are done; `what` changes what is being done. total 0: not known."""
        changed = what is not None and what != self._what
        self._what = what if what is not None else self._what
        now = time.monotonic()
        if self._shown and (changed or now - self._drawn >= _REDRAW_S):
            self._drawn = now
            self._draw(done, total)

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._visible:
            self._visible = False
            click.echo("\r\x1b[K", err=True, nl=False, color=True)

    def _draw(self, done: int, total: int) -> None:
        text = printable(self._what)
        if total > 0:
            filled = _BAR * min(done, total) // total
            text += f" {'#' * filled}{'-' * (_BAR - filled)} {done:,}/{total:,}{self._left(done, total)}"
        width = shutil.get_terminal_size().columns - 1
        self._visible = True
        click.echo(f"\r\x1b[K{text[:width]}", err=True, nl=False, color=True)

    def _left(self, done: int, total: int) -> str:
        elapsed = time.monotonic() - self._started
        if done < 1 or elapsed < 1.0:
            return ""
        return f", {seconds_text(elapsed * (total - done) / done)} left"


@contextmanager
def compiling(cached: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress callback for kernels being compiled: one line on stderr, and none where nothing has to be compiled.

    cached: whether the compiled kernels will be kept for the next process.
    """
    started = time.monotonic()
    open_line = False

    def report(done: int, total: int) -> None:
        nonlocal open_line
        if done == 0:
            once = " (once)" if cached else ""
            # Without a cache a line about that follows from elsewhere: this one must be ended before.
            click.echo(f"edge: compiling {count_text(total, 'kernel')} for this machine{once} ...", err=True, nl=not cached)
            open_line = cached
        elif done == total and open_line:
            click.echo(f" done in {seconds_text(time.monotonic() - started)}", err=True)
            open_line = False

    try:
        yield report
    finally:
        if open_line:
            click.echo(err=True)


def jsonable(value: Any) -> Any:
    """`value` with tuples as lists, sets sorted and paths as text, for `out_json`."""
    if isinstance(value, dict):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(jsonable, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else value
