"""Writing files so that they are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from edge.errors import EdgeError, InputError

_ADVICE = {
    errno.ENOSPC: "make room or choose another folder",
    errno.EDQUOT: "make room or choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "make the folder first",
}

Bytes = bytes | bytearray | memoryview


def write_atomically(path: str | os.PathLike[str], pieces: Iterable[Bytes]) -> None:
    """Write `pieces` one after the other to `path`.

    They go to a temporary file in the same folder, which replaces `path` when its bytes have reached the disk. On any failure `path` is as
    it was and the temporary file is gone; failures of the system are raised as `EdgeError`, and so is a `path` of anything but a file.
    """
    # A link stays a link: what it points to is replaced.
    target = Path(os.path.realpath(path))
    _check_free(path)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.partial")
    try:
        _write(temporary, pieces)
        os.replace(temporary, target)
    except OSError as err:
        advice = _ADVICE.get(err.errno or 0, "check the path")
        raise EdgeError(f"cannot write {os.fspath(path)}: {err.strerror or err}; nothing was changed; {advice}") from err
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise `InputError` where no file can go: there is no folder for it, or something is there that no file may replace."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise InputError(f"cannot write {os.fspath(path)}: there is no folder {os.fspath(folder)}; make it first")
    _check_free(path)


def _check_free(path: str | os.PathLike[str]) -> None:
    if state := occupied(path):
        raise InputError(f"cannot write {os.fspath(path)}: expected a file there, or nothing, but it is {state}; name another destination")


def occupied(path: str | os.PathLike[str]) -> str | None:
    """What is at `path` that no file may replace: "a folder", or a device or a pipe; None if nothing, or a file."""
    if os.path.isdir(path):
        return "a folder"
    return "no regular file" if os.path.exists(path) and not os.path.isfile(path) else None


def same_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both name one file, be it there or not."""
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)


def _write(path: Path, pieces: Iterable[Bytes]) -> None:
    with open(path, "xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
