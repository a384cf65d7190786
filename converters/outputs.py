"""Where converted files go, and writing them: all or none, and never over a file that edge did not write."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edge.converters.tflite import is_edge_tflite
from edge.errors import EdgeError, InputError
from edge.files import Bytes, occupied, write_atomically
from edge.format import MAGIC

FORMATS = ("edge", "tflite")
RECIPE = "recipe"
RECIPE_START = "# A conversion by edge"  # of a file


def targets(source: Path, destination: str | os.PathLike[str] | None, formats: Sequence[str]) -> dict[str, Path]:
    """The path of each format: beside the source, in the folder `destination`, or at `destination` with the suffix of the format.

    Raises `InputError` for unknown formats, or none, for a source without a name, and where a target is the source itself.
    """
    if not formats or any(name not in FORMATS for name in formats):
        raise InputError(f"formats should be among {', '.join(FORMATS)}, got {', '.join(formats) or 'none'}")
    if not source.name:
        raise InputError(f"{source} is a folder, expected a .h5 or .keras file; name the file in it")
    base = _base(source, destination)
    paths = {name: base.with_name(f"{base.name}.{name}") for name in FORMATS if name in formats}
    for path in paths.values():
        if path.resolve() == source.resolve():
            raise InputError(f"{path} is the source itself; give the .h5 or .keras file it was made from, or name another destination")
    return paths


def _base(source: Path, destination: str | os.PathLike[str] | None) -> Path:
    """The target without suffix."""
    if destination is None:
        return source.with_name(source.stem)
    path = Path(destination)
    if path.is_dir() or os.fspath(destination).endswith(os.sep):
        return path / source.stem
    return path.with_name(path.stem) if path.suffix in tuple(f".{name}" for name in FORMATS) else path


def check_replaceable(paths: Mapping[str, Path], *, force: bool | None = None) -> None:
    """Raise `InputError` where a file is in the way that edge did not write, unless `force`, or anything else is.

    force: None for commands without an option --force.
    """
    for name, path in paths.items():
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}; make it first or name another destination")
        if state := occupied(path):
            raise InputError(f"{path} is {state}; name another destination")
        if path.exists() and not force and not _is_ours(name, path):
            advice = "remove it, or name" if force is None else "give --force to replace it, or"
            raise InputError(f"{path} exists and was not written by edge; {advice} another destination")


def _is_ours(name: str, path: Path) -> bool:
    try:
        if name == "tflite":
            return is_edge_tflite(path)
        start = RECIPE_START.encode() if name == RECIPE else MAGIC
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError as err:
        raise EdgeError(f"{path} exists but cannot be read ({err.strerror}); check its permissions or name another destination") from err


def write_all(files: Iterable[tuple[Path, Iterable[Bytes]]]) -> dict[Path, int]:
    """Write every file, given in pieces, or leave all as they were; returns their sizes in bytes.

    Each goes to a temporary name first, and is let go of before the next is asked for. Raises `EdgeError` where that fails.
    """
    staged: dict[Path, Path] = {}
    sizes: dict[Path, int] = {}
    try:
        for path, pieces in files:
            target = Path(os.path.realpath(path))
            temporary = _beside(target, "new")
            staged[temporary] = target
            _write(temporary, pieces, path)
            del pieces
            sizes[path] = temporary.stat().st_size
        _rename_all(staged)
    except OSError as err:
        raise EdgeError(f"cannot write {err.filename2 or err.filename}: {err.strerror}; check the folder's permissions") from err
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)
    return sizes


def _beside(target: Path, suffix: str) -> Path:
    """A hidden name in the same folder that nobody uses."""
    return target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.{suffix}")


def _rename_all(staged: Mapping[Path, Path]) -> None:
    """Give each file its name; where one is refused, those that were renamed before go, and what they replaced comes back."""
    replaced: dict[Path, Path | None] = {}
    try:
        for temporary, target in staged.items():
            replaced[target] = _keep(target)
            os.replace(temporary, target)
    except BaseException:
        for target, kept in replaced.items():
            _put_back(kept, target)
        raise
    for kept in filter(None, replaced.values()):
        kept.unlink(missing_ok=True)


def _keep(target: Path) -> Path | None:
    """Another name for what is at `target`, which stays there, or a copy where files have one name; None where there is nothing."""
    if not target.exists():
        return None
    kept = _beside(target, "old")
    try:
        os.link(target, kept)
    except OSError:
        shutil.copy2(target, kept)
    return kept


def _put_back(kept: Path | None, target: Path) -> None:
    if kept is None:
        target.unlink(missing_ok=True)
        return
    os.replace(kept, target)
    kept.unlink(missing_ok=True)  # a rename to another name of the same file does nothing


def _write(temporary: Path, pieces: Iterable[Bytes], path: Path) -> None:
    """Write a temporary file; errors speak of `path`, which it stands for."""
    try:
        write_atomically(temporary, pieces)
    except EdgeError as err:
        raise EdgeError(str(err).replace(str(temporary), str(path))) from err
