"""Keras model files read without Keras: `.h5` of Keras 2 and 3, `.keras`, and JSON with a file of weights (`edge.converters.keras_parts`).

Nothing in a file is executed: no pickle, no marshalled code; a Lambda layer stays the text it is. Nothing outside the file is opened
and nothing is written. A file is recognised by its first bytes, not by its name.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

from edge.converters.keras_graph import Flattener, Weights, live_calls
from edge.converters.keras_h5 import MAGIC, MAX_EXPANSION, MAX_WEIGHT_BYTES, Hdf5Reader, printable
from edge.converters.keras_json import MAX_JSON_BYTES, is_name, mapping, parse_json
from edge.converters.keras_model import Call, KerasModel, Value
from edge.converters.keras_parts import is_json, is_weights_alone, read_weights, version_of, weights_beside
from edge.converters.keras_tree import INPUT_LAYER, Layer, Model, batch_shape, read_model
from edge.converters.keras_weights import leaves, read_listed_weights, read_named_weights, read_numbered_weights
from edge.converters.saved_model import read_saved_model
from edge.errors import ModelError

__all__ = ["Call", "KerasModel", "Value", "read_keras"]

MAX_DIMENSION = 1 << 24
_ZIP_MAGIC = b"PK"
_KNOWN_STARTS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"BM": "a BMP picture",
    b"\x1f\x8b": "gzip-compressed: unpack it",
    b"\x80": "a Python pickle",
    b"\x93NUMPY": "a NumPy array",
    b"\x89edge": "a .edge file, which needs no conversion",
}
_LONGEST_START = 16  # bytes that tell what a file is
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, KeyError, MemoryError, OverflowError)


@dataclass(frozen=True)
class _Source:
    model: Model
    weights: Weights | None  # None: they are in another file
    version: str
    training: Mapping[str, Any] | None


def read_keras(
    path: str | Path, *, input_shape: tuple[int, ...] | None = None, weights: str | os.PathLike[str] | None = None
) -> KerasModel:
    """Read the model file at `path`.

    input_shape   sizes without the batch, (height, width, channels) for pictures, for a model whose own leaves some open
    weights       a file that `model.save_weights` wrote, whose weights the model gets; of a JSON file the one beside it by default

    Raises ModelError, one sentence with what to do, for every file that is not a complete Keras model with finite weights.
    """
    path = Path(path)
    try:
        if (path / "saved_model.pb").exists():
            source, sha256 = _read_folder(path)
            return _model(source, path.name, sha256, input_shape)
        with _opened(path) as file:
            source, sha256 = _read_source(file), _sha256(file)
        if weights is not None or source.weights is None:
            source, sha256 = _with_weights(source, Path(weights) if weights is not None else weights_beside(path), sha256)
        return _model(source, path.name, sha256, input_shape)
    except ModelError as err:
        raise ModelError(f"{path.name or path}: {err}") from err


def _with_weights(source: _Source, path: Path, sha256: str) -> tuple[_Source, str]:
    """The model with the weights in the file `path`, and the hash of both files' hashes."""
    try:
        with _opened(path) as file:
            data = file.read()
            found = read_weights(data, source.model, major=_major(source.version))
            return replace(source, weights=found), hashlib.sha256((sha256 + _sha256(file)).encode()).hexdigest()
    except ModelError as err:
        raise ModelError(f"its weights {path.name}: {err}") from err


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """The file at `path`, of which whoever reads it holds no more in memory than is needed."""
    if path.is_dir():
        raise ModelError("is a folder, expected a .h5 or .keras file: name the file in it, or save the model as .keras")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a device or a pipe may never end
            raise ModelError("is no regular file, expected a .h5 or .keras file: check the path")
        if found.st_size > MAX_WEIGHT_BYTES:
            raise ModelError(f"larger than {MAX_WEIGHT_BYTES >> 30} GiB, the most that is read: is this a model?")
        with path.open("rb") as file:
            yield file
    except OSError as err:
        raise ModelError(f"cannot be read ({err.strerror}), expected a .h5 or .keras file: check the path") from err


def _read_folder(path: Path) -> tuple[_Source, str]:
    metadata, arrays, sha256 = read_saved_model(path)
    entry = metadata.get("model_config") if isinstance(metadata.get("model_config"), dict) else metadata
    version = metadata.get("keras_version")
    version = version if isinstance(version, str) else "2"
    model = read_model(mapping(entry, "the model configuration"), major=_major(version))
    return _Source(model, read_listed_weights(arrays, model), version, _training(metadata.get("training_config"))), sha256


def _model(source: _Source, name: str, sha256: str, input_shape: tuple[int, ...] | None) -> KerasModel:
    inputs = tuple(_input_values(source.model, input_shape))
    flattener = Flattener(source.weights or {}, _major(source.version), names={value.name: 1 for value in inputs})
    outputs = flattener.flatten(source.model, tuple(value.name for value in inputs))
    return KerasModel(
        name=source.model.name,
        keras_version=source.version,
        calls=live_calls(flattener.calls, outputs),
        inputs=inputs,
        outputs=outputs,
        output_names=source.model.output_names,
        source=name,
        sha256=sha256,
        training=source.training,
    )


def _sha256(file: BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _read_source(file: BufferedReader) -> _Source:
    start = file.read(_LONGEST_START)
    file.seek(0)
    if start.startswith(MAGIC):
        return _read_h5(file.read())
    if start.startswith(_ZIP_MAGIC):
        return _read_archive(file)
    if is_json(start):
        return _read_json(file.read(MAX_JSON_BYTES + 1))
    if not start:
        raise ModelError("the file is empty, expected a Keras model: save or copy it again")
    found = next((what for magic, what in _KNOWN_STARTS.items() if start.startswith(magic)), "of no kind known here")
    found = "a TFLite model, which needs no conversion" if start[4:8] == b"TFL3" else found
    raise ModelError(f"not a Keras model, the file is {found}: give a .h5 or .keras file that Keras saved")


def _read_json(data: bytes) -> _Source:
    config = parse_json(data, "the model configuration")
    version = version_of(config)
    return _Source(read_model(config, major=_supported(version)), None, version, _training(config.get("compile_config")))


def _read_h5(data: bytes) -> _Source:
    with Hdf5Reader(data) as file:
        config = file.text("", "model_config")
        if config is None:
            raise ModelError(_h5_problem(file))
        version = file.text("", "keras_version") or file.text("model_weights", "keras_version") or "1"
        major = _supported(version)
        training = file.text("", "training_config")
        model = read_model(parse_json(config, "the model configuration"), major=major)
        weights = read_named_weights(file, model)
    return _Source(model, weights, version, _training(parse_json(training, "the training configuration")) if training else None)


def _h5_problem(file: Hdf5Reader) -> str:
    if is_weights_alone(file):
        return (
            "holds weights alone, without the model they belong to: give that too, as JSON (model.to_json()), with edge convert model.json "
            "--weights FILE.h5, or save the whole model, with model.save('model.keras')"
        )
    return "is an HDF5 file without a Keras model: give one that model.save() wrote"


def _supported(version: str) -> int:
    if (major := _major(version)) < 2:
        raise ModelError(f"written by Keras {version}, which is not supported: load it in Keras 2 and save it again")
    return major


def _major(version: str) -> int:
    match = re.fullmatch(r"(\d{1,3})[\w.+-]{0,40}", version, re.ASCII)
    if match is None:
        raise ModelError(f"the Keras version is {version[:40]!a}, expected a number: the file is damaged, save the model again")
    return int(match.group(1))


def _read_archive(file: BufferedReader) -> _Source:
    size = file.seek(0, io.SEEK_END)
    with _damage_is_a_model_error(), zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        if "config.json" not in names:
            raise ModelError("a zip archive without config.json, hence no Keras model: give a file that model.save() wrote")
        if "model.weights.h5" not in names:
            raise ModelError("has no model.weights.h5, where Keras stores the weights: save the model again, as .keras or .h5")
        config = _member(archive, "config.json", MAX_JSON_BYTES)
        metadata = _member(archive, "metadata.json", MAX_JSON_BYTES) if "metadata.json" in names else b"{}"
        weights = _member(archive, "model.weights.h5", min(MAX_WEIGHT_BYTES, MAX_EXPANSION * size))
    return _assemble(parse_json(config, "config.json"), parse_json(metadata, "metadata.json"), weights, size)


def _assemble(config: Mapping[str, Any], metadata: Mapping[str, Any], weights: bytes, file_bytes: int) -> _Source:
    version = metadata.get("keras_version")
    version = version if isinstance(version, str) else "3"
    model = read_model(config, major=_major(version))
    with Hdf5Reader(weights, file_bytes=file_bytes) as file:
        numbered = read_numbered_weights(file, model, major=_major(version))
    return _Source(model, numbered, version, _training(config.get("compile_config")))


@contextmanager
def _damage_is_a_model_error() -> Iterator[None]:
    try:
        yield
    except _DAMAGED_ZIP as err:
        raise ModelError(f"the zip archive cannot be read ({printable(err)}): the file is damaged, copy or save it again") from err


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"{name} is packed by method {info.compress_type}, expected stored or deflated: save the model again")
    with archive.open(info) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ModelError(f"{name} unpacks to more than {limit} bytes: made to exhaust memory, or damaged; save the model again")
    return content


def _training(config: Any) -> Mapping[str, Any] | None:
    """Loss of a compile configuration; {} is what Keras 3 writes for a model that was not compiled."""
    if not isinstance(config, dict) or not config:
        return None
    loss = config.get("loss")
    losses = list(loss.values()) if isinstance(loss, dict) and "class_name" not in loss else loss
    named = tuple(map(_loss_name, losses)) if isinstance(losses, list) else _loss_name(losses)
    every = losses if isinstance(losses, list) else [losses]
    return {"loss": named, "from_logits": any(_loss_config(item).get("from_logits") is True for item in every)}


def _loss_config(loss: Any) -> Mapping[str, Any]:
    config = loss.get("config") if isinstance(loss, dict) else None
    return config if isinstance(config, dict) else {}


def _loss_name(loss: Any) -> str | None:
    """snake_case name of a loss, which is a name, a class with its options, or (Keras 3) a function."""
    if isinstance(loss, dict):
        name = loss.get("config") if loss.get("class_name") == "function" else loss.get("class_name")
        return _loss_name(name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", loss).lower() if isinstance(loss, str) and is_name(loss) else None


def _input_values(model: Model, input_shape: tuple[int, ...] | None) -> Iterator[Value]:
    layers = {layer.name: layer for layer in model.layers}
    for reference in model.inputs:
        layer = layers.get(reference.layer)
        if layer is None or layer.class_name != INPUT_LAYER:
            raise ModelError(f"input {reference.layer!r} is no input layer: the model configuration is damaged, save it again")
        shape = _declared_shape(layer, model)
        # Of several inputs a given shape is meant for those that leave sizes open.
        closed = len(model.inputs) > 1 and shape is not None and None not in shape
        given = _turned(input_shape, model) if input_shape and shape and not _fits(shape, input_shape) else input_shape
        yield Value(layer.name, shape if closed else _resolved(shape, given, layer.name), _dtype(layer))


def _turned(given: tuple[int, ...], model: Model) -> tuple[int, ...]:
    """The sizes of a picture, (H, W, C), as a model takes them that has its channels first."""
    first = any(layer.config.get("data_format") == "channels_first" for _, layer in leaves(model))
    return (given[-1], *given[:-1]) if first else given


def _fits(shape: tuple[int | None, ...], given: tuple[int, ...]) -> bool:
    return len(shape) == len(given) and all(size in (None, wanted) for size, wanted in zip(shape, given, strict=True))


def _dtype(layer: Layer) -> str:
    dtype = layer.config.get("dtype")
    return dtype if isinstance(dtype, str) else "float32"


def _declared_shape(layer: Layer, model: Model) -> tuple[int | None, ...] | None:
    declared = batch_shape(layer.config) or model.input_shape
    if declared is None:
        return None
    valid = isinstance(declared, list) and all(size is None or _is_size(size) for size in declared)
    if not valid or not declared:
        raise ModelError(
            f"the shape of input {layer.name!r} is {str(declared)[:60]!a}, expected sizes from 1 to {MAX_DIMENSION}: save it again"
        )
    return tuple(declared[1:])


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MAX_DIMENSION


def _resolved(shape: tuple[int | None, ...] | None, given: tuple[int, ...] | None, name: str) -> tuple[int, ...]:
    """`shape` with its open sizes taken from `given`."""
    if given is None:
        if shape is None or None in shape:
            raise ModelError(
                f"the shape of input {name!r} is {_shown(shape)}, with sizes left open: fix them, as edge convert does "
                f"with --input-shape {'H,W,C' if shape is None or len(shape) == 3 else 'N,...'}, for example {_example(shape)}"
            )
        return tuple(size for size in shape if size is not None)
    if not given or not all(_is_size(size) for size in given):
        raise ModelError(f"--input-shape is {_shown(given)}, expected sizes from 1 to {MAX_DIMENSION}, as in 224,224,3")
    if shape is not None and not _fits(shape, given):
        raise ModelError(f"--input-shape is {_shown(given)} but the model's input {name!r} is {_shown(shape)}: give sizes that fit it")
    return given


def _shown(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else ",".join("?" if size is None else str(size) for size in shape)


def _example(shape: tuple[int | None, ...] | None) -> str:
    return "224,224,3" if shape is None else ",".join("224" if size is None else str(size) for size in shape)
