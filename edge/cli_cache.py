"""`edge warm` and `edge cache`: the compiled kernels kept for later runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edge.cli_options import PATH, json_option
from edge.console import bytes_text, compiling, count_text, out, out_facts, out_json, say
from edge.errors import EdgeError

WARM_EPILOG = """
\b
Examples:
  edge warm model.edge            so that the first picture does not wait
  edge warm models/*.edge
"""
CACHE_EPILOG = """
\b
Examples:
  edge cache                      where compiled kernels are kept, and how many
  edge cache --clear              delete them; they are compiled again when needed

\b
The folder is $EDGE_CACHE, else $XDG_CACHE_HOME/edge, else ~/.cache/edge.
"""


@dataclass(frozen=True)
class CacheState:
    """The cache folder, None without a home; the objects in it; whether new ones can be kept."""

    folder: Path | None
    objects: int
    nbytes: int
    writable: bool

    def to_json(self) -> dict[str, Any]:
        folder = str(self.folder) if self.folder else None
        return {"folder": folder, "objects": self.objects, "bytes": self.nbytes, "writable": self.writable}

    def facts(self) -> list[tuple[str, str]]:
        state = "" if self.writable else "not writable: kernels are compiled anew in every process; set EDGE_CACHE to a folder that is"
        return [
            ("folder", str(self.folder) if self.folder else "none, since there is no home directory"),
            ("kernels", f"{count_text(self.objects, 'kernel')}, {bytes_text(self.nbytes)}"),
            *([("state", state)] if state else []),
        ]


def cache_state() -> CacheState:
    """The state of the cache. Raises OSError where its folder cannot be listed."""
    from edge.kernels.cache import folder

    where = folder()
    sizes = [path.stat().st_size for path in where.glob("*.o") if path.is_file()] if where is not None and where.is_dir() else []
    return CacheState(where, len(sizes), sum(sizes), _writable(where))


def is_cached() -> bool:
    """Whether kernels that are compiled now will be there for the next process."""
    from edge.kernels.cache import folder

    return _writable(folder())


def _writable(folder: Path | None) -> bool:
    """Whether files can be made in a folder, or it can itself be made."""
    if folder is None:
        return False
    existing = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), None)
    return existing is not None and os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)


@click.command(epilog=WARM_EPILOG)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@json_option
def warm(files: tuple[str, ...], as_json: bool) -> None:
    """Compile the kernels that models need, ahead of their first run on this machine.

    FILE is a .edge file, or the name of an example such as digits.
    """
    results = [_warm(file) for file in files]
    if as_json:
        out_json({"files": results, "cache": cache_state().to_json()})
    if any("error" in result for result in results):
        raise click.exceptions.Exit(1)


def _warm(file: str) -> dict[str, Any]:
    """One file made ready; what was compiled, or why not."""
    from edge.cli_model import find_model, naming, require_edge
    from edge.engine import load

    compiled = 0
    try:
        path = require_edge(find_model(file), "made ready")
        with compiling(is_cached()) as tell:

            def progress(done: int, total: int) -> None:
                nonlocal compiled
                compiled = total
                tell(done, total)

            with naming(path):
                engine = load(path, progress=progress)
    except EdgeError as err:
        say(str(err), style="red")
        return {"file": file, "error": str(err)}
    name = engine.machine.isa.name
    say(f"{path} is ready for {name}, {count_text(compiled, 'kernel') if compiled else 'nothing'} had to be compiled")
    return {"file": str(path), "compiled": compiled, "instruction_set": name}


@click.command(epilog=CACHE_EPILOG)
@click.option("--clear", is_flag=True, help="Delete all compiled kernels.")
@json_option
def cache(clear: bool, as_json: bool) -> None:
    """Show or clear the cache of compiled kernels."""
    cleared = _clear() if clear else None
    state = cache_state()
    if as_json:
        out_json(state.to_json() | ({} if cleared is None else {"cleared": cleared}))
    elif cleared is not None:
        out(f"deleted {count_text(cleared, 'file')} from {state.folder or 'nowhere'}")
    else:
        out_facts(state.facts())


def _clear() -> int:
    from edge.kernels.cache import clear

    return clear()
