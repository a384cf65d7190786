"""`edge build`: kernels for a device, compiled here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, json_option
from edge.console import bytes_text, count_text, out, out_json, printable, say

if TYPE_CHECKING:
    from edge.program import Program

EPILOG = """
\b
Examples:
  edge build model.edge --target raspberry-pi-4     kernels-raspberry-pi-4.so, what model.edge needs there
  edge build --target neon                          what common networks need, for any 64-bit ARM board
  edge build model.edge --target host               for this machine

\b
On the device: EDGE_KERNELS=kernels-raspberry-pi-4.so edge run -m model.edge photo.jpg
`edge bundle` and `edge deploy` build a library themselves.
"""


@click.command(epilog=EPILOG)
@click.argument("models", nargs=-1, type=PATH, metavar="[MODEL]...")
@click.option(
    "--target", default="raspberry-pi-4", show_default=True, metavar="NAME|FILE",
    help="A device, a .toml file, host, or an instruction set such as neon.",
)  # fmt: skip
@click.option("-o", "--output", type=PATH, metavar="FILE", help="By default kernels-TARGET.so in this folder.")
@json_option
def build(models: tuple[str, ...], target: str, output: str | None, as_json: bool) -> None:
    """Compile the kernels that MODELs (.edge) need on a device, or without a MODEL those of common networks, into a shared library.

    With it a device runs models without Numba, llvmlite or a compiler.
    """
    from edge.build import build_library

    programs = [_program(model) for model in models]
    path = build_library(target, programs, output or f"kernels-{Path(target).stem}.so", progress=_progress)
    _show(path, as_json)


def _program(model: str) -> Program:
    from edge.cli_model import find_model, naming, require_edge
    from edge.format import read
    from edge.verifier import verify

    path = require_edge(find_model(model), "compiled for")
    with naming(path):
        program = read(path)
        verify(program)
    return program


def _progress(done: int, total: int) -> None:
    if done == 0:
        say(f"compiling {count_text(total, 'kernel')} (once) ...")


def _show(path: Path, as_json: bool) -> None:
    from edge.kernels.library import read_manifest

    manifest, nbytes = read_manifest(path), path.stat().st_size
    if as_json:
        facts: dict[str, Any] = {"path": str(path), "nbytes": nbytes, "target": manifest.target, "kernels": list(manifest.kernels)}
        out_json({**facts, "instruction_set": manifest.machine.isa.name, "cpu": manifest.machine.cpu, "made_by": dict(manifest.made_by)})
        return
    described = f"{manifest.machine.isa.name}, {manifest.machine.cpu}"
    out(f"{printable(str(path))}  {bytes_text(nbytes)}, {count_text(len(manifest.kernels), 'kernel')} for {manifest.target} ({described})")
