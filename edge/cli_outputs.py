"""Pictures that `edge run` writes: what the net saw, and outputs that are pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.answers import output_picture
from edge.batches import takes_pictures
from edge.errors import InputError
from edge.pictures import write_picture
from edge.preprocess import Preprocess, picture_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.cli_classify import Answer, Batch, Result, Seen

_UNSAFE = re.compile(r"[^\w.\[\]-]")  # characters that some file system does not take


def check_destination(destination: str | None, batch: Batch, option: str) -> None:
    """Raise InputError where several items are to go to one file."""
    if destination is not None and not _is_folder(destination) and len(batch) > 1:
        raise InputError(f"{option} {destination} is one file for {len(batch)} pictures: expected a folder that exists; make it first")


class Writer:
    """Writes what was asked for of each result: `output` its picture outputs, `save_input` what the net saw; files or folders."""

    def __init__(self, preprocess: Preprocess, *, output: str | None, save_input: str | None) -> None:
        self._preprocess = preprocess
        self._output = output
        self._save_input = save_input
        self._taken: set[Path] = set()

    def save(self, result: Result) -> dict[str, Path]:
        """What was written, and where. Raises EdgeError where that fails."""
        written: dict[str, Path] = {}
        if self._save_input is not None:
            written["input"] = self._place(self._save_input, result.name, "input")
            write_picture(written["input"], picture_of(_picture_seen(result.seen), self._preprocess))
        for answer in self._picture_outputs(result, self._output):
            path = self._place(self._output or "", result.name, answer.head.name)
            write_picture(path, output_picture(answer.values, activation=answer.head.activation))
            written[answer.head.name] = path
        return written

    def _picture_outputs(self, result: Result, output: str | None) -> list[Answer]:
        if output is None:
            return []
        found = [answer for answer in result.answers if answer.head.kind == "picture"]
        if not found:
            raise InputError("--output writes outputs that are pictures: expected a model with such an output, got none; leave it out")
        if len(found) > 1 and not _is_folder(output):
            raise InputError(f"--output {output} is one file for {len(found)} outputs: expected a folder that exists; make it first")
        return found

    def _place(self, destination: str, name: str, what: str) -> Path:
        """The file to write; in a folder it is named after the item and what it shows. It is neither the item nor written before."""
        path = Path(destination)
        if _is_folder(destination):
            item = Path(name).name if name.endswith("]") else Path(name).stem
            path = path / f"{_UNSAFE.sub('_', f'{item}-{what}')}.png"
        if path.exists() and os.path.exists(name) and os.path.samefile(path, name):
            raise InputError(f"{path} is the picture itself, which would be replaced; name another file")
        if path in self._taken:
            raise InputError(f"{path} was already written for another picture of the same name; run these in two goes")
        self._taken.add(path)
        return path


def _picture_seen(seen: Seen) -> NDArray[Any]:
    """Of the arrays of several inputs the first that is a picture, else the first."""
    arrays = seen if isinstance(seen, list) else [seen]
    return next((array for array in arrays if takes_pictures(array.shape)), arrays[0])


def _is_folder(destination: str) -> bool:
    return os.path.isdir(destination) or destination.endswith(os.sep)
