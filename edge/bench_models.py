"""What `edge bench` times: the files it is given, and those made of a Keras file for it, each loaded and ready to be called.

A `.edge` file is called as a program calls it: `engine.run(array)`, from an array to an array. Of a `.tflite` file `invoke()` alone is
called, its input already in the interpreter's tensor. TensorFlow is never imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.batches import takes_pictures
from edge.bench_rounds import Call
from edge.cli_model import file_format, find_model, naming, native_silence
from edge.errors import EdgeError, InputError
from edge.program import Program
from edge.tensors import Encoding
from edge.widths import Bits, described, is_calibrated

EDGE, TFLITE, KERAS = "edge", "tflite", "keras"  # what `file_format` tells apart
EXAMPLES = 16
SEED = 0

Told = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """A file to be timed under a name of its own; `kind` is EDGE or TFLITE."""

    name: str
    kind: str
    path: Path


@dataclass(frozen=True)
class Subjects:
    """What is timed; `absent`: names of what is not, and why; `remarks`: sentences on what the files are."""

    subjects: tuple[Subject, ...]
    absent: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """What to make of Keras files.

    bits: of the `.edge` files; calibrate: pictures for ranges of int8 and weights of few bits, random ones if None; input_shape: where a
    file leaves sizes open; litert: whether to make `.tflite` files too.
    """

    bits: tuple[Bits, ...] = (1,)
    calibrate: str | os.PathLike[str] | None = None
    input_shape: tuple[int, ...] | None = None
    litert: bool = True


# -- finding -------------------------------------------------------------------------------------------------------------------


def find_subjects(models: Sequence[str], folder: Path, sources: Sources, *, tell: Told = lambda _: None) -> Subjects:
    """The subjects behind model files and names of examples, in their order; what is made of Keras files is written into `folder`.

    tell: told of what is being made. Raises `InputError` for a path that is no model, `ModelError` for one that cannot be converted.
    """
    found = [_subjects_of(find_model(model), folder / str(i), sources, tell) for i, model in enumerate(models)]
    return Subjects(
        _distinct([subject for each in found for subject in each.subjects]),
        tuple(row for each in found for row in each.absent),
        tuple(dict.fromkeys(remark for each in found for remark in each.remarks)),
    )


def _subjects_of(path: Path, folder: Path, sources: Sources, tell: Told) -> Subjects:
    kind = file_format(path)
    return _of_keras(path, folder, sources, tell) if kind == KERAS else Subjects((Subject(path.name, kind, path),))


def _distinct(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """The subjects, those of a name that is taken with a number; names are those of files alone, since folders may hold a user's."""
    seen: dict[str, int] = {}
    named = []
    for subject in subjects:
        seen[subject.name] = count = seen.get(subject.name, 0) + 1
        named.append(subject if count == 1 else Subject(f"{subject.name} ({count})", subject.kind, subject.path))
    return tuple(named)


def _of_keras(path: Path, folder: Path, sources: Sources, tell: Told) -> Subjects:
    """The `.edge` files at the bits asked for, and the float and int8 `.tflite` files, as far as they can be made."""
    from edge.format import read

    folder.mkdir()
    tell(f"reading {path.name}")
    plain = _converted(path, folder / "plain.edge", 32, None, sources)
    program = read(plain)
    examples = random_examples(program) if sources.calibrate is None else sources.calibrate
    made, absent = [], []
    for bits in sources.bits:
        tell(f"converting {path.name} at {described(bits)}")
        calibrate = examples if is_calibrated(bits) else sources.calibrate if bits == 1 else None
        file = _converted(path, folder / f"{bits}.edge", bits, calibrate, sources)
        made.append(Subject(f"{path.name} edge {described(bits)}", EDGE, file))
    for bits in (32, 8) if sources.litert else ():
        name = f"{path.name} LiteRT {'float32' if bits == 32 else 'int8'}"
        tell(f"converting {name}")
        try:
            file = _converted(path, folder / f"{bits}.tflite", bits, examples if bits == 8 else None, sources)
        except EdgeError as err:  # a layer, or a package, that TFLite files need and .edge files do not
            absent.append((name, str(err)))
        else:
            made.append(Subject(name, TFLITE, file))
    return Subjects(tuple(made), tuple(absent), _remarks(path, program, sources))


def _converted(path: Path, destination: Path, bits: Bits, calibrate: Any, sources: Sources) -> Path:
    from edge.converters.convert import convert

    formats = destination.suffix[1:]
    convert(path, destination, bits=bits, calibrate=calibrate, formats=formats, input_shape=sources.input_shape)
    return destination


def random_examples(program: Program) -> np.ndarray | dict[str, np.ndarray]:
    """Examples to calibrate on where none are given: pixels where the input is a picture, else values of 0..1. From a fixed seed."""
    random = np.random.default_rng(SEED)
    shapes = [program.tensors[number].type.shape for number in program.inputs]
    pictures = bool(program.metadata.get("preprocess"))
    drawn = [_drawn(random, shape, pictures and (len(shapes) == 1 or takes_pictures(shape))) for shape in shapes]
    return drawn[0] if len(drawn) == 1 else dict(zip(program.metadata["inputs"], drawn, strict=True))


def _drawn(random: np.random.Generator, shape: tuple[int, ...], pixels: bool) -> np.ndarray:
    shape = (EXAMPLES, *shape)
    return random.integers(0, 256, shape).astype(np.uint8) if pixels else random.random(shape, np.float32)


def _remarks(path: Path, program: Program, sources: Sources) -> tuple[str, ...]:
    remarks = []
    if any(map(is_calibrated, sources.bits)) or sources.litert:
        drawn = f"{EXAMPLES} random examples (seed {SEED}): times do not depend on them, answers do"
        remarks.append(f"int8 ranges of {path.name} are those of {drawn if sources.calibrate is None else 'the pictures given'}")
    binary = any(tensor.type.encoding is Encoding.BITS for tensor in program.tensors)
    if binary and sources.litert:
        wider = "its .tflite files give the same values by wider layers, since TFLite has none of 1 bit"
        remarks.append(f"{path.name} was trained with signs: {wider}")
    return tuple(remarks)


# -- loading -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """A subject that is ready: `call` runs it once; `backend` names what runs it."""

    call: Call
    backend: str


def load(subject: Subject, *, threads: int, progress: Callable[[int, int], None] | None = None) -> Loaded:
    """Load a subject and place its input.

    progress: told of kernels being compiled. Raises `FormatError` for a damaged file, `MissingPackage` where nothing runs `.tflite` files.
    """
    with naming(subject.path):
        return _load_edge(subject.path, threads, progress) if subject.kind == EDGE else _load_tflite(subject.path, threads)


def _load_edge(path: Path, threads: int, progress: Callable[[int, int], None] | None) -> Loaded:
    from edge.engine import load

    engine = load(path, threads=threads, progress=progress)
    examples = [_example(info.shape, info.dtype) for info in engine.inputs]
    example = examples[0] if len(examples) == 1 else examples
    return Loaded(lambda: engine.run(example), f"edge {engine.machine.isa.name}")


def _load_tflite(path: Path, threads: int) -> Loaded:
    from edge.tflite_runner import load_tflite

    with native_silence():
        model = load_tflite(path, threads=threads, tensorflow=False)
        if not model.inputs:
            raise InputError(f"{path} takes no input, expected 1; run it with its own interpreter")
        return Loaded(model.placed(*(_example(info.shape, "float32") for info in model.inputs)), model.backend)


def _example(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """One input: random pixels, or values of 0..1."""
    pixels = np.random.default_rng(SEED).integers(0, 256, shape).astype(np.uint8)
    if dtype == "int8":
        return pixels.view(np.int8)
    return pixels if dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
