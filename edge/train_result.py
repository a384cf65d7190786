"""What a trained network is worth: its file converted, and run by the engine on the whole test set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.datasets import Dataset, Part
from edge.tensors import Encoding
from edge.train_scores import measure_for

if TYPE_CHECKING:
    from edge.program import Program

CALIBRATION_PICTURES = 500
_CHUNK = 1_000


def convert_and_test(folder: Path, precision: str, data: Dataset, usual: Part, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Of `model.keras` in `folder`: the files, by what they are called in the results table, each with its scores.

    A float net is converted at 32 bits and at 8, calibrated on `usual` pictures, none of them for tests; others as they were trained.
    `names` are those of the classes. Whatever files of edge stand in the way are replaced.
    """
    import edge

    source = folder / "model.keras"
    options: dict[str, Any] = {"formats": "edge", "input_dtype": "uint8", "labels": names or None}
    if precision != "float":
        edge.convert(source, folder / "model.edge", bits=1, **options)
        return {"files": {precision: _tested(folder / "model.edge", data)}}
    edge.convert(source, folder / "model.edge", bits=32, **options)
    chosen = np.linspace(0, len(usual) - 1, min(CALIBRATION_PICTURES, len(usual))).astype(int)
    edge.convert(source, folder / "model-int8.edge", bits=8, calibrate=usual.x[chosen], **options)
    return {"files": {"float": _tested(folder / "model.edge", data), "int8": _tested(folder / "model-int8.edge", data)}}


def _tested(path: Path, data: Dataset) -> dict[str, Any]:
    import edge

    engine = edge.load(path)
    measure = measure_for(data.test.y)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "measure": measure.name,
        "score": score(engine, data.test),
        "pictures": len(data.test),
        "further": {name: {"score": score(engine, part), "pictures": len(part)} for name, part in dict(data.further).items()},
        **weights_of(engine.program),
    }


def score(engine: Any, part: Part) -> float:
    """Of the answers of an engine, by the measure that the labels have."""
    found = [engine.run(part.x[start : start + _CHUNK]) for start in range(0, len(part), _CHUNK)]
    listed = [each if isinstance(each, list) else [each] for each in found]
    return measure_for(part.y).of([np.concatenate(outputs) for outputs in zip(*listed, strict=True)], part.y)


def weights_of(program: Program) -> dict[str, int | float]:
    """How many weights filters hold, and the share of those that take 1 bit."""
    filters = [
        program.constants[number].type
        for instruction in program.instructions
        if "filter" in instruction.definition.constants and (number := instruction.constant("filter")) >= 0
    ]
    sizes = [math.prod(each.shape) for each in filters]
    packed = sum(size for size, each in zip(sizes, filters, strict=True) if each.encoding is Encoding.BITS)
    return {"weights": sum(sizes), "one_bit_share": packed / sum(sizes)}
