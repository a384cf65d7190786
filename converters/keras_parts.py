"""Models in two files: the layers as JSON (`model.to_json()`), the weights as HDF5 (`model.save_weights`), of Keras 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.converters.keras_graph import Weights
from edge.converters.keras_h5 import MAGIC, Hdf5Reader
from edge.converters.keras_tree import Model
from edge.converters.keras_weights import read_named_weights, read_numbered_weights
from edge.errors import ModelError

_NUMBERED = ("layers", "_layer_checkpoint_dependencies")


def is_json(start: bytes) -> bool:
    """Whether a file that begins so is a JSON object."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def version_of(config: Mapping[str, Any]) -> str:
    """The version of Keras that wrote a model as JSON; Keras 3 does not say, but names the module of every class."""
    if not isinstance(config.get("class_name"), str):
        raise ModelError("is JSON without a Keras model, expected what model.to_json() gives: save that, or the whole model as .keras")
    version = config.get("keras_version")
    return version if isinstance(version, str) else "3" if "module" in config or "registered_name" in config else "2"


def weights_beside(path: Path) -> Path:
    """The weights of the model `path`, a JSON file: beside it, under its name. Raises ModelError where there are none."""
    found = [beside for suffix in (".weights.h5", ".h5", ".hdf5") if (beside := path.with_suffix(suffix)).is_file()]
    if not found:
        raise ModelError(
            f"holds the layers of a model without their weights, expected these in {path.stem}.weights.h5 beside it: name the file, as in "
            f"edge convert {path.name} --weights FILE.h5"
        )
    return found[0]


def is_weights_alone(file: Hdf5Reader) -> bool:
    """Whether an HDF5 file without a model holds weights of one."""
    return bool(file.names("", "layer_names")) or any(map(file.has, _NUMBERED))


def read_weights(data: bytes, model: Model, *, major: int) -> Weights:
    """The weights of a model of Keras `major` in a file that `save_weights` wrote, or in a whole `.h5` model."""
    if not data.startswith(MAGIC):
        raise ModelError("is no HDF5 file, expected weights: save them with model.save_weights('model.weights.h5')")
    with Hdf5Reader(data) as file:
        if file.names("", "layer_names"):
            return read_named_weights(file, model, group="")
        if any(map(file.has, _NUMBERED)):
            return read_numbered_weights(file, model, major=major)
        if file.has("model_weights"):
            return read_named_weights(file, model)
    raise ModelError("is an HDF5 file without the weights of a model: save them with model.save_weights('model.weights.h5')")
