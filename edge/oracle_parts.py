"""What Keras is given to load a source: the file as it is, or a whole model made of its parts, and in float32.

Weights in a file of their own are named by layer (Keras 2) or numbered (Keras 3): what is in such files tells which. Models of half
precision are loaded in float32, which is what they are converted to: Keras would round what each of their layers gives to 11 or 8 bits.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.converters.keras_h5 import is_bfloat16
from edge.converters.keras_h5 import widened as widened_values
from edge.converters.keras_parts import is_json, weights_beside

_HALF = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")  # policies by name; dtypes are such, too
_NAMED = "layer_names"  # an attribute of weights that are stored by layer, as Keras 2 does
_LONGEST_START = 64
_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF"
_CONFIG = "config.json"


def load_source(load: Callable[[Path], Any], path: Path, weights: str | os.PathLike[str] | None) -> tuple[Any, tuple[str, ...]]:
    """The model that `load` makes of the file `path`, with the weights in the file `weights`; by default a JSON file's are beside it.

    And the half precisions that float32 takes the place of, none for most models.
    """
    if path.is_dir():
        return load(path), ()
    with tempfile.TemporaryDirectory() as folder:
        whole = path
        if _is_json(path):
            whole = _joined(path.read_text("utf-8-sig"), Path(weights) if weights is not None else weights_beside(path), Path(folder))
        wide, halves = _in_float32(whole, Path(folder))
        loaded = load(wide)
        if weights is not None and whole is path:
            linked = Path(folder) / ("linked.h5" if _named_in(Path(weights)) else "linked.weights.h5")
            linked.symlink_to(Path(weights).resolve())
            loaded.load_weights(linked)
        return loaded, halves


def _is_json(path: Path) -> bool:
    return is_json(_start(path))


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_START)


# -- models in two files -------------------------------------------------------------------------------------------------------


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
            archive.writestr(_CONFIG, config)
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0", "date_saved": ""}))
            archive.write(weights, "model.weights.h5")
        return folder / "model.keras"
    with h5py.File(weights) as stored, h5py.File(folder / "model.h5", "w") as file:
        file.attrs["model_config"] = config
        file.attrs["keras_version"] = str(json.loads(config).get("keras_version", "3.0.0"))
        stored.copy(stored[group], file, "model_weights")
    return folder / "model.h5"


# -- half precision ------------------------------------------------------------------------------------------------------------


def _in_float32(path: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The file itself, or a copy in `folder` whose layers compute in float32; and what these computed in."""
    start = _start(path)
    if start.startswith(_ZIP):
        return _archive_in_float32(path, folder / "float32.keras")
    return _hdf5_in_float32(path, folder / "float32.h5") if start.startswith(_HDF5) else (path, ())


def _archive_in_float32(path: Path, copy: Path) -> tuple[Path, tuple[str, ...]]:
    with zipfile.ZipFile(path) as archive:
        config, halves = widened(json.loads(archive.read(_CONFIG)))
        if not halves:
            return path, ()
        with zipfile.ZipFile(copy, "w") as wide:
            wide.writestr(_CONFIG, json.dumps(config))
            for name in archive.namelist():
                if name != _CONFIG:
                    with archive.open(name) as member, wide.open(name, "w", force_zip64=True) as copied:
                        shutil.copyfileobj(member, copied)
    return copy, halves


def _hdf5_in_float32(path: Path, copy: Path) -> tuple[Path, tuple[str, ...]]:
    import h5py

    with h5py.File(path) as file:
        config, halves = widened(json.loads(file.attrs["model_config"]))
        if not halves:
            return path, ()
        with h5py.File(copy, "w") as wide:
            wide.attrs.update({**file.attrs, "model_config": json.dumps(config)})
            file.copy(file["model_weights"], wide, "model_weights")
            _widen_weights(wide["model_weights"])
    return copy, halves


def _widen_weights(group: Any) -> None:
    """Write weights of bfloat16, which Keras cannot read from such files, as float32."""
    narrow: dict[str, Any] = {}
    group.visititems(lambda name, item: narrow.update({name: item[()]}) if is_bfloat16(getattr(item, "dtype", np.dtype(bool))) else None)
    for name, values in narrow.items():
        del group[name]
        group[name] = widened_values(values)


def widened(config: Any) -> tuple[Any, tuple[str, ...]]:
    """The configuration of a model with float32 in the place of half precision, and which there were: float16, bfloat16."""
    found: dict[str, None] = {}
    return _walked(config, found), tuple(found)


def _walked(value: Any, found: dict[str, None]) -> Any:
    if isinstance(value, list):
        return [_walked(item, found) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _dtype(item, found) if key == "dtype" else _walked(item, found) for key, item in value.items()}


def _dtype(value: Any, found: dict[str, None]) -> Any:
    """A policy: its name, or the configuration that holds it (of the class `DTypePolicy`, in Keras 2 `Policy`)."""
    config = value.get("config") if isinstance(value, dict) else None
    name = config.get("name") if isinstance(config, dict) else value
    if name not in _HALF:
        return _walked(value, found)
    found[name.removeprefix("mixed_")] = None
    return "float32"
