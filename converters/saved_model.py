"""SavedModel folders that Keras 2 saved, read through TensorFlow, which is imported only for them.

The configuration lies in `keras_metadata.pb` (a message `SavedMetadata`, read here without protobuf); the weights are those of the
checkpoint, loaded by TensorFlow without Keras. A folder without that file was exported: it holds a graph of TensorFlow and no layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.converters.keras_json import parse_json
from edge.errors import MissingPackage, ModelError

METADATA = "keras_metadata.pb"
_MAX_METADATA_BYTES = 256 << 20
_NODE, _PATH, _METADATA = 1, 3, 5  # fields of SavedMetadata and of its nodes
_TEXT = 2  # the wire type of texts and messages


def read_saved_model(folder: Path) -> tuple[Mapping[str, Any], dict[str, np.ndarray[Any, Any]], str]:
    """The root's metadata, the weights by name in the order of the model's variables, and the sha256 of the metadata's bytes.

    Raises `ModelError` for a folder without Keras' configuration, and `MissingPackage` without TensorFlow.
    """
    data = _metadata(folder / METADATA)
    return _root(data), _variables(folder), hashlib.sha256(data).hexdigest()


def _metadata(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_METADATA_BYTES:
            raise ModelError(f"{path.name} is larger than {_MAX_METADATA_BYTES >> 20} MiB, expected a configuration: save the model again")
        return path.read_bytes()
    except FileNotFoundError as err:
        raise ModelError(
            "is a SavedModel folder without keras_metadata.pb: it was exported for serving, or saved without Keras, and holds no layers; "
            "save the Keras model itself, with model.save('model.keras')"
        ) from err
    except OSError as err:
        raise ModelError(f"{path.name} cannot be read ({err.strerror}), expected Keras' configuration: check its permissions") from err


def _root(data: bytes) -> Mapping[str, Any]:
    for field, node in _fields(data):
        parts = dict(_fields(node)) if field == _NODE else {}
        if parts.get(_PATH) == b"root" and _METADATA in parts:
            return {key: _without_tuples(value) for key, value in parse_json(parts[_METADATA], METADATA).items()}
    raise ModelError(f"{METADATA} describes no model, expected one at its root: save the model again, as .keras")


def _without_tuples(value: Any) -> Any:
    """Tuples, which this file alone tells from lists, as lists."""
    if isinstance(value, dict):
        items = value.get("items")
        if value.get("class_name") == "__tuple__" and isinstance(items, list):
            return [_without_tuples(item) for item in items]
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, list) else value


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The texts and messages in a protobuf message, by field number; other fields are passed over."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        size, after = _varint(data, place)
        if key & 7 == _TEXT:
            if after + size > len(data):
                raise _damaged()
            yield key >> 3, data[after : after + size]
            place = after + size
        elif key & 7 == 0:
            place = after
        else:
            place += {1: 8, 5: 4}.get(key & 7, len(data))


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise _damaged()
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return value, place
    raise _damaged()


def _damaged() -> ModelError:
    return ModelError(f"{METADATA} ends in the middle of a field: the folder is damaged, copy or save it again")


def _variables(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        import tensorflow as tf
    except ImportError as err:
        raise MissingPackage(
            f"reading the SavedModel folder {folder.name} needs TensorFlow, which is not installed: run pip install tensorflow, "
            "or save the model as .keras"
        ) from err
    try:
        variables = tf.saved_model.load(str(folder)).variables
        arrays = [np.asarray(variable.numpy()) for variable in variables]
    except (OSError, ValueError, AttributeError, KeyError, tf.errors.OpError) as err:
        message = ascii(" ".join(str(err).split())[:120])[1:-1]
        raise ModelError(f"TensorFlow cannot load it ({message}): the folder is damaged, or incomplete; copy or save it again") from err
    names = [str(variable.name) for variable in variables]
    unique = [name if names.count(name) == 1 else f"{name}#{k}" for k, name in enumerate(names)]
    return dict(zip(unique, (_float32(array) for array in arrays), strict=True))


def _float32(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.dtype.kind in "iub" else array.astype(np.float32)
