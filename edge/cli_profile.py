"""`edge profile`: bytes and time of a model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli_options import PATH, json_option
from edge.console import Column, bytes_text, out, out_facts, out_json, out_table, seconds_text

if TYPE_CHECKING:
    from edge.targets.profile import LayerProfile, Profile

EPILOG = """
\b
Examples:
  edge profile model.edge                            measured on this machine
  edge profile model.edge --target raspberry-pi-4    bytes exact, time predicted
  edge profile model.edge --target my-board.toml     with a device profile of your own

\b
Storage and RAM are exact. Time is measured on this machine, and predicted everywhere else, with its expected error.
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=PATH, metavar="MODEL")
@click.option("--target", default="host", show_default=True, metavar="NAME|FILE", help="A device, this machine (host), or a .toml file.")
@json_option
def profile(model: str, target: str, as_json: bool) -> None:
    """Show what MODEL (.edge) costs on a device: storage, RAM and time by layer, and what limits each."""
    from edge.cli_model import require_edge
    from edge.targets.profile import profile as profile_model

    require_edge(Path(model), "profiled")
    found = profile_model(model, target)
    if as_json:
        out_json(found.to_json())
    else:
        _print(found)


def _print(found: Profile) -> None:
    columns = [
        Column("layers"),
        Column("operation"),
        Column("bits", right=True),
        Column("MACs", right=True),
        Column("storage", right=True),
        Column("output", right=True),
        Column(f"time ({found.time_basis})", right=True),
        Column("limited by"),
    ]
    total = [
        "total", "", "", f"{sum(found.macs.values()):,}", bytes_text(sum(layer.storage_bytes for layer in found.layers)), "",
        seconds_text(found.seconds), "",
    ]  # fmt: skip
    out(f"{found.title}, {found.isa}")
    out_table(columns, [_cells(layer) for layer in found.layers], total=total)
    out()
    out_facts(_facts(found))


def _cells(layer: LayerProfile) -> list[str]:
    return [
        "+".join(layer.layers) or "-",
        layer.operation,
        layer.precision or "-",
        f"{layer.macs:,}" if layer.macs else "-",
        bytes_text(layer.storage_bytes) if layer.storage_bytes else "-",
        bytes_text(layer.output_bytes),
        seconds_text(layer.seconds),
        layer.limit or "-",
    ]


def _facts(found: Profile) -> list[tuple[str, str]]:
    memory = found.footprint
    parts = (
        f"constants {bytes_text(memory.constants_bytes)}, derived at load {bytes_text(memory.derived_bytes)}, tensors "
        f"{bytes_text(memory.arena_bytes)}, scratch {bytes_text(memory.scratch_bytes)}, arguments {bytes_text(memory.argument_bytes)}"
    )
    macs = ", ".join(f"{count:,} at {precision}" for precision, count in found.macs.items())
    return [
        ("storage", f"{bytes_text(found.storage_bytes)} ({found.storage_bytes:,} bytes){_fits(found.fits_storage)}"),
        ("RAM", f"{bytes_text(memory.total_bytes)} ({memory.total_bytes:,} bytes){_fits(found.fits_memory)}: {parts}"),
        ("MACs", f"{macs or 'none'} (bits of activations x weights)"),
        ("time", f"{seconds_text(found.seconds)}, one thread, {found.time_basis}, expected error {100 * found.expected_error:.0f} %"),
        ("in 1-bit layers", f"{100 * found.one_bit_share:.0f} % of the time"),
    ]


def _fits(fits: bool | None) -> str:
    return "" if fits is None else ", fits" if fits else ", does not fit"
