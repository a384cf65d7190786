"""Which model `edge run` takes, and a model ready to run: a `.edge` program or a `.tflite` file, with what is known about it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge.batches import takes_pictures
from edge.errors import FormatError, InputError
from edge.paths import require_file

if TYPE_CHECKING:
    from edge.engine import Engine
    from edge.kernels.cache import Progress
    from edge.preprocess import Preprocess
    from edge.tflite_runner import TfliteModel

ENVIRONMENT_VARIABLE = "EDGE_MODEL"
SUFFIXES = (".edge", ".tflite")  # one of the first kind in a folder is taken before any of the second
BUNDLED = Path(__file__).with_name("data")

_TFLITE_MAGIC = b"TFL3"  # at byte 4
_KERAS_STARTS = (b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")


class Info(Protocol):
    """What `Engine` and `TfliteModel` tell of an input or output."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...


class Runner(Protocol):
    """What `Engine` and `TfliteModel` have in common."""

    @property
    def inputs(self) -> Sequence[Info]: ...
    @property
    def outputs(self) -> Sequence[Info]: ...
    def run(self, *x: Any) -> Any: ...


@dataclass(frozen=True)
class Head:
    """One output: its name, its shape without batch, its kind (`edge.answers.KINDS`), and the activation it ends in, if known."""

    name: str
    shape: tuple[int, ...]
    kind: str
    activation: str | None


@dataclass(frozen=True)
class Model:
    """A loaded model.

    preprocess: how pictures become its input; None where the file does not say.
    labels: names of the classes, None where the file holds none.
    backend: what runs it, such as "edge avx512" or "ai-edge-litert 2.3".
    engine: the runner, where it is edge's own.
    source_sha256: of the file it was converted from, None where the file does not say.
    """

    path: Path
    runner: Runner
    heads: tuple[Head, ...]
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None
    backend: str
    engine: Engine | None = None
    source_sha256: str | None = None

    @property
    def inputs(self) -> Sequence[Info]:
        return self.runner.inputs

    @property
    def input(self) -> Info:
        """The input that takes pictures, else the first."""
        return next((each for each in self.inputs if takes_pictures(each.shape)), self.inputs[0])

    @property
    def takes_bytes(self) -> bool:
        """Whether the engine wants whole numbers 0..255; a TFLite runner always takes real values."""
        return self.engine is not None and any(info.name == self.input.name and info.is_bytes for info in self.engine.inputs)


# -- finding ---------------------------------------------------------------------------------------------------------------------


def find_model(given: str | None, *, folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """The model to run: `given` (a file, or the name of a bundled example), else $EDGE_MODEL, else the one of the folder.

    Raises InputError where there is none, or several to choose from.
    """
    if given:
        return _named(given, "")
    if environment.get(ENVIRONMENT_VARIABLE):
        return _named(environment[ENVIRONMENT_VARIABLE], f" of ${ENVIRONMENT_VARIABLE},")
    return _only_model(folder or Path())


def _named(name: str, why: str) -> Path:
    bundled = BUNDLED / f"{name}.edge"
    if not os.path.exists(name) and name in bundled_models():
        return bundled
    return require_file(name, f"model{why}")


def bundled_models() -> tuple[str, ...]:
    """The names of the examples that come with edge."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.edge")))


def _only_model(folder: Path) -> Path:
    for suffix in SUFFIXES:
        found = sorted(path for path in folder.glob(f"*{suffix}") if path.is_file() and not path.name.startswith("."))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            where = _shown(folder)
            raise InputError(f"cannot tell which model to run: expected one {suffix} file in {where}, got {names}; name one with -m FILE")
    examples = " or ".join(f"-m {name}" for name in bundled_models())
    raise InputError(
        f"no model found: expected a .edge or .tflite file in {_shown(folder)}, got none; make one with: edge convert model.h5 --bits 1, "
        f"or name one with -m FILE{f', or try the example with {examples}' if examples else ''}"
    )


def _shown(folder: Path) -> str:
    return "this folder" if folder == Path() else str(folder)


# -- loading ---------------------------------------------------------------------------------------------------------------------


def file_format(path: Path) -> str:
    """"edge", "tflite" or "keras", by a file's first bytes. Raises InputError for anything else, and where it cannot be read."""
    from edge.format import MAGIC

    try:
        with require_file(path, "model").open("rb") as file:
            start = file.read(8)
    except OSError as err:
        raise InputError(f"cannot read the model {path}: {err.strerror or err}; check its permissions") from err
    if start == MAGIC:
        return "edge"
    if start[4:] == _TFLITE_MAGIC:
        return "tflite"
    if start.startswith(_KERAS_STARTS) or start.lstrip().startswith(b"{"):  # JSON, with weights beside it
        return "keras"
    found = f"a file that begins with {start!r}" if start else "an empty file"
    raise InputError(f"cannot read the model {path}: expected a .edge, .tflite or Keras file, got {found}; convert the source model again")


def require_edge(path: Path, purpose: str) -> Path:
    """The path, if it is a `.edge` file; else InputError. purpose: what only such a file can be, such as "profiled"."""
    kind = file_format(path)
    if kind == "edge":
        return path
    if kind == "keras":
        found, advice = "a Keras model", f"convert it first: edge convert {path} --bits 1"
    else:
        found, advice = "a .tflite file", "convert the model it was made of: edge convert MODEL.h5 --bits 1"
    raise InputError(f"{path} is {found}, and only a .edge file can be {purpose}; {advice}")


def load_model(path: Path, *, progress: Progress | None = None) -> Model:
    """Load a `.edge` or `.tflite` file; `progress(done, total)` is told of kernels being compiled. Raises EdgeError."""
    with naming(path):
        match file_format(path):
            case "edge":
                return _edge_model(path, progress)
            case "tflite":
                return _tflite_model(path)
    raise InputError(f"{path} is a Keras model, which has to be converted before it runs; do so with: edge convert {path} --bits 1")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file into the sentence of a FormatError that does not name it."""
    try:
        yield
    except FormatError as err:
        if path.name in str(err):
            raise
        raise FormatError(f"cannot use {path}: {err}") from err


def _edge_model(path: Path, progress: Progress | None) -> Model:
    from edge.engine import load

    engine = load(path, progress=progress)
    return _model(path, engine, engine.program.metadata, f"edge {engine.machine.isa.name}", engine)


def _tflite_model(path: Path) -> Model:
    from edge.tflite_runner import load_tflite

    with native_silence():
        runner = load_tflite(path)
    return _model(path, runner, _tflite_metadata(path, runner), runner.backend, None)


@contextmanager
def native_silence() -> Iterator[None]:
    """Keep what interpreters write to file descriptor 2 while they are made, greetings and all; their errors are raised."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error that they could write to
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _tflite_metadata(path: Path, runner: TfliteModel) -> Mapping[str, Any]:
    """What edge stored in a `.tflite` file that it wrote; for files of others, what their operators and scales tell."""
    stored = stored_metadata(runner.notes)
    return _tflite_facts(path, runner) if stored is None else stored


def stored_metadata(notes: str | None) -> dict[str, Any] | None:
    """What edge says about a model in the notes of a `.tflite` file; None where they are of another kind."""
    try:
        known = json.loads(notes or "")
    except (ValueError, RecursionError):
        return None  # anybody may write anything there: it is no error, it says nothing
    return known if isinstance(known, dict) else None


def _tflite_facts(path: Path, runner: TfliteModel) -> Mapping[str, Any]:
    from edge.preprocess import PRESETS, preset
    from edge.tflite_listing import list_tflite

    listing = list_tflite(path.read_bytes())
    outputs = zip(runner.outputs, listing.activations, strict=True)
    facts: dict[str, Any] = {"outputs": [{"name": info.name, "activation": activation} for info, activation in outputs]}
    held = listing.inputs[0].real_range if len(listing.inputs) == 1 else None
    if held is not None:
        # A quantized input holds little more than the values that it was calibrated with.
        wanted = (preset(name) for name in PRESETS[:3])
        near = [p for p in wanted if all(abs(a - b) <= 0.02 * (p.range[1] - p.range[0]) for a, b in zip(p.range, held, strict=True))]
        facts |= {"preprocess": near[0].to_json()} if near else {}
    return facts


def _model(path: Path, runner: Runner, metadata: Mapping[str, Any], backend: str, engine: Engine | None) -> Model:
    if not runner.inputs:
        raise FormatError(f"cannot run {path}: expected a model with an input, got none; convert the source model again")
    heads, digest = _heads(runner, metadata), _source_sha256(metadata)
    return Model(path, runner, heads, _preprocess(metadata), _labels(metadata), backend, engine, digest)


def _source_sha256(metadata: Mapping[str, Any]) -> str | None:
    source = metadata.get("source")
    digest = source.get("sha256") if isinstance(source, dict) else None
    return digest if isinstance(digest, str) else None


def _preprocess(metadata: Mapping[str, Any]) -> Preprocess | None:
    from edge.preprocess import Preprocess

    stored = metadata.get("preprocess")
    return None if stored is None else Preprocess.from_json(stored)


def _labels(metadata: Mapping[str, Any]) -> tuple[str, ...] | None:
    labels = metadata.get("labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise FormatError("the names of the classes stored in it are damaged: expected a list of names; convert it again")
    return tuple(labels)


def _heads(runner: Runner, metadata: Mapping[str, Any]) -> tuple[Head, ...]:
    stored = metadata.get("outputs")
    known = {entry.get("name"): entry for entry in stored if isinstance(entry, dict)} if isinstance(stored, list) else {}
    return tuple(_head(info, known.get(info.name, {})) for info in runner.outputs)


def _head(info: Info, entry: Mapping[str, Any]) -> Head:
    from edge.answers import KINDS, kind_of

    activation = entry.get("activation")
    activation = activation if isinstance(activation, str) else None
    kind = entry.get("kind")
    return Head(info.name, info.shape, kind if kind in KINDS else kind_of(activation, info.shape), activation)
