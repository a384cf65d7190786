"""What a generator is worth: its file converted, pictures made by the engine, and an independent classifier's opinion of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.datasets import Part
from edge.errors import InputError
from edge.pictures import write_picture
from edge.train_gan_loop import as_bytes, given
from edge.train_result import weights_of

SHEET = "samples.png"
JUDGED, SHEET_SIDE = 10_000, 10  # pictures that are judged; pictures along each side of the sheet
LEAST_SHARE = 0.1  # of what a class would get if all were alike: from there on it counts as covered
_CHUNK = 500
_SEED = 0  # of the noise that pictures are judged by


@dataclass(frozen=True)
class Judge:
    """A classifier that learnt from real pictures; raises `InputError` where it takes others than `shape`."""

    path: Path
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        takes = [each.shape for each in self.engine.inputs]
        if takes != [self.shape]:
            raise InputError(f"the classifier {self.path} takes {takes}, but pictures to be judged are {self.shape}; give another")

    @cached_property
    def engine(self) -> Any:
        import edge

        return edge.load(self.path)


def convert_and_make(folder: Path, precision: str, test: Part, judge: Judge | None) -> dict[str, Any]:
    """Of `model.keras` in `folder`: the file, what is known of the pictures that it makes for `test`, and a sheet of them."""
    import edge

    edge.convert(folder / "model.keras", folder / "model.edge", bits=32 if precision == "float" else 1, formats="edge")
    engine = edge.load(folder / "model.edge")
    asked = test[: min(len(test), JUDGED)]
    made = pictures(engine, asked)
    write_picture(folder / SHEET, sheet(made))
    size = (folder / "model.edge").stat().st_size
    file: dict[str, Any] = {"file": "model.edge", "bytes": size, "pictures": len(made), **weights_of(engine.program)}
    names = [each.name for each in engine.inputs]
    if judge is not None:
        file["judged"] = judged(judge.engine, made, asked.y if "label" in names else None) | {"classifier": judge.path.parent.name}
    if "grey" in names:
        file["levels_off"] = float(np.abs(made.astype(np.float32) - asked.x).mean())
    return {"files": {precision: file}}


def pictures(engine: Any, asked: Part) -> NDArray[np.uint8]:
    """What the engine makes for the classes or grey pictures of `asked`, of fixed noise, as bytes."""
    random = np.random.default_rng(_SEED)
    made = []
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        feeds = [given(each.name, part, random).astype(each.dtype) for each in engine.inputs]
        made.append(as_bytes(engine.run(*feeds)))
    return np.concatenate(made)


def judged(classifier: Any, made: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> dict[str, float]:
    """A classifier's opinion, an engine that takes these pictures: modes covered, and with `labels` the share that is what was asked for.

    A class is covered where it gets `LEAST_SHARE` of its even share of the pictures or more.
    """
    pixels = made if classifier.inputs[0].dtype == "uint8" else made / np.float32(255)
    answers = [classifier.run(pixels[start : start + _CHUNK]) for start in range(0, len(made), _CHUNK)]
    classes = np.concatenate(answers).argmax(-1)
    found = {"modes": modes_covered(classes, answers[0].shape[-1]), "of": answers[0].shape[-1]}
    return found if labels is None else {**found, "as_asked": float(np.mean(classes == labels))}


def modes_covered(classes: NDArray[np.int64], count: int) -> int:
    """How many of `count` classes are among `classes` often enough."""
    return int(np.sum(np.bincount(classes, minlength=count) >= LEAST_SHARE * len(classes) / count))


def sheet(made: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first pictures side by side, in rows of `SHEET_SIDE`, as far as they fill rows."""
    rows = min(len(made), SHEET_SIDE**2) // SHEET_SIDE
    if not rows:
        return np.concatenate(made, axis=1)
    grid = made[: rows * SHEET_SIDE].reshape(rows, SHEET_SIDE, *made.shape[1:])
    return np.concatenate([np.concatenate(row, axis=1) for row in grid])
