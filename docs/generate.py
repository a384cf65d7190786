"""Write the pages of this folder that are made from the code: `python docs/generate.py`; a test fails where one is out of date."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli import COMMANDS, cli
from edge.converters.layers import supported_layers
from edge.ops import OPS
from edge.tensors import Encoding

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code; do not edit. -->\n\n"
COLUMNS = 4


def commands() -> str:
    """The help text of every command."""
    settings = {**cli.context_settings, "terminal_width": 100}
    parent = click.Context(cli, info_name="edge", **settings)
    pages = [f"# Commands\n\n```text\n{cli.get_help(parent)}\n```"]
    for name, entry in COMMANDS.items():
        command = entry.load()
        context = click.Context(command, info_name=name, parent=parent, terminal_width=100)
        pages.append(f"## edge {name}\n\n```text\n{command.get_help(context)}\n```")
        for part, inner in command.commands.items() if isinstance(command, click.Group) else ():
            help_text = inner.get_help(click.Context(inner, info_name=part, parent=context, terminal_width=100))
            pages.append(f"### edge {name} {part}\n\n```text\n{help_text}\n```")
    return NOTE + "\n\n".join(pages) + "\n"


def layers() -> str:
    """The layers that convert."""
    names = [f"`{name}`" for name in supported_layers()]
    rows = [names[i : i + COLUMNS] for i in range(0, len(names), COLUMNS)]
    table = ["| " + " | ".join(row + [""] * (COLUMNS - len(row))) + " |" for row in rows]
    head = ["| " * COLUMNS + "|", "|---" * COLUMNS + "|"]
    text = "Layers of Keras and Larq that `edge convert` reads. Any other is refused with its name and what to do instead.\n"
    return NOTE + "# Layers\n\n" + text + "\n" + "\n".join(head + table) + "\n"


def operations() -> str:
    """The operations of a program: number, operands, encodings."""
    rows = ["| number | operation | constants | attributes | input, filter, output |", "|---|---|---|---|---|"]
    for op in OPS.values():
        kinds = sorted(op.signatures, key=str)
        signatures = "; ".join(" ".join(_short(e) for e in kind if e is not None) for kind in kinds)
        rows.append(f"| {op.number} | {op.name} | {', '.join(op.constants)} | {', '.join(op.attrs)} | {signatures} |")
    text = "What a `.edge` program is made of. `edge/ops.py` defines shapes, `kernels/reference.py` what each computes.\n"
    return NOTE + "# Operations\n\n" + text + "\n" + "\n".join(rows) + "\n"


def _short(encoding: Encoding) -> str:
    return encoding.name.lower()


PAGES = {"commands.md": commands, "layers.md": layers, "operations.md": operations}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
