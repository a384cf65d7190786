"""A source whose weights are in a file of their own, as Keras loads it: it tells what is in such files by names and versions."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.converters.keras_parts import is_json, weights_beside

_NAMED = "layer_names"  # an attribute of weights that are stored by layer, as Keras 2 does
_LONGEST_START = 64


def load_source(load: Callable[[Path], Any], path: Path, weights: str | os.PathLike[str] | None) -> Any:
    """The model that `load` makes of the file `path`, with the weights in the file `weights`; by default a JSON file's are beside it."""
    if path.is_dir() or (weights is None and not _is_json(path)):
        return load(path)
    found = Path(weights) if weights is not None else weights_beside(path)
    with tempfile.TemporaryDirectory() as folder:
        if _is_json(path):
            return load(_joined(path.read_text("utf-8-sig"), found, Path(folder)))
        loaded = load(path)
        linked = Path(folder) / ("model.h5" if _named_in(found) else "model.weights.h5")
        linked.symlink_to(found.resolve())
        loaded.load_weights(linked)
        return loaded


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return is_json(file.read(_LONGEST_START))


def _named_in(weights: Path) -> str | None:
    """The group of weights that are stored by layer; None where they are numbered."""
    import h5py

    with h5py.File(weights) as file:
        return "/" if _NAMED in file.attrs else "/model_weights" if "model_weights" in file else None


def _joined(config: str, weights: Path, folder: Path) -> Path:
    """A whole model of its layers, as JSON, and its weights: a `.h5` file of those by layer, a `.keras` file of numbered ones."""
    import h5py

    group = _named_in(weights)
    if group is None:
        with zipfile.ZipFile(folder / "model.keras", "w") as archive:
            archive.writestr("config.json", config)
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0", "date_saved": ""}))
            archive.write(weights, "model.weights.h5")
        return folder / "model.keras"
    with h5py.File(weights) as stored, h5py.File(folder / "model.h5", "w") as file:
        file.attrs["model_config"] = config
        file.attrs["keras_version"] = str(json.loads(config).get("keras_version", "3.0.0"))
        stored.copy(stored[group], file, "model_weights")
    return folder / "model.h5"
