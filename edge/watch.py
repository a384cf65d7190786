"""Pictures that appear in a folder, once each and only when they are whole; by looking again and again, with the standard library alone.

A file is taken when it has not changed between two looks. Where its writer pauses for longer it cannot be decoded yet: whoever reads it
gives it back, and it is tried again when it has changed, and a last time when it has not changed for `PATIENCE_S`. A file that is written
anew under its old name is a new picture. Hidden files and those with other endings are somebody's files on their way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edge.errors import InputError
from edge.pictures import SUFFIXES

POLL_S = 0.25
PATIENCE_S = 5.0
_SHARE = 4  # of the time is spent waiting, at least: a folder of many thousands of files takes long to look at


@dataclass(frozen=True)
class _Stamp:
    """What changes when a file is written or replaced."""

    inode: int
    nbytes: int
    changed_ns: int


@dataclass(frozen=True)
class _Seen:
    """A file as it was at a look. since: when it became so; earliest: when it may be handed out; taken: it was."""

    stamp: _Stamp
    since: float
    earliest: float
    taken: bool = False


class Watch:
    """The pictures of a folder by their state. existing: those that are there at the first look count as new."""

    def __init__(self, folder: str | os.PathLike[str], *, existing: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        """Raises `InputError` where there is no such folder."""
        self.folder = Path(folder)
        self._now = now
        self._seen = {name: replace(_new(stamp, now()), taken=not existing) for name, stamp in self._look().items()}

    def ready(self) -> list[Path]:
        """The pictures that are new since the last call and have not changed since; by their time, oldest first."""
        stamps, now, old = self._look(), self._now(), self._seen
        self._seen = {name: _next(old.get(name), stamp, now) for name, stamp in stamps.items()}
        found = [name for name, seen in self._seen.items() if seen is old.get(name) and not seen.taken and now >= seen.earliest]
        self._seen |= {name: replace(self._seen[name], taken=True) for name in found}
        return [self.folder / name for name in sorted(found, key=lambda name: (stamps[name].changed_ns, name))]

    def give_back(self, path: Path) -> bool:
        """Whether a picture that could not be read comes again: it may be half written. False: it has been as it is for long."""
        seen = self._seen.get(path.name)
        if seen is None:  # it is gone, and nobody wants to hear of it
            return True
        if self._now() - seen.since >= PATIENCE_S:
            return False
        self._seen[path.name] = replace(seen, earliest=seen.since + PATIENCE_S, taken=False)
        return True

    def _look(self) -> dict[str, _Stamp]:
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if _is_picture(entry.name)]
        except OSError as err:
            raise InputError(f"cannot watch {self.folder}: expected a folder, got: {err.strerror or err}; make it first") from err
        stamps = {name: _stamp(self.folder / name) for name in names}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}


def _new(stamp: _Stamp, now: float) -> _Seen:
    """A file that was not there before, or has changed; an empty one is waited for."""
    return _Seen(stamp, now, now if stamp.nbytes else now + PATIENCE_S)


def _next(old: _Seen | None, stamp: _Stamp, now: float) -> _Seen:
    return old if old is not None and old.stamp == stamp else _new(stamp, now)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _stamp(path: Path) -> _Stamp | None:
    """None for what is no file, or gone by now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns) if path.is_file() else None


def appearing(watch: Watch, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Path]:
    """The pictures of a folder as they appear, for ever. Raises `InputError` when the folder is gone."""
    while True:
        started = time.perf_counter()
        found = watch.ready()
        took = time.perf_counter() - started
        yield from found
        sleep(max(POLL_S, _SHARE * took))
