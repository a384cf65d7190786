"""`edge.convert`: a Keras file in; a packed program, a TFLite flatbuffer and a report out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.chance import doubt
from edge.converters.agreement import Answers, compare
from edge.converters.biases import with_shifts
from edge.converters.bits import Request, choose_bits, few_levels, measured, misses_pictures, requested
from edge.converters.calibration import Statistics, measure
from edge.converters.keras_file import read_keras
from edge.converters.outputs import FORMATS, RECIPE, check_replaceable, targets, write_all
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.converters.ranges import refined
from edge.converters.recipe_file import Calibration, Recipe, content_sha256, to_toml
from edge.converters.report import Agreement, FileRow, Report, advice, layer_rows
from edge.converters.rewriting import stored
from edge.converters.rounding import with_rounded
from edge.converters.samples import CALIBRATION_ARRAYS, DATA_ARRAYS, Example, Samples, Source
from edge.converters.search import Goal, Maker, divided, search
from edge.converters.setup import Setup, outputs_of, prepare
from edge.converters.tflite import tflite_content
from edge.converters.tflite_file import packages
from edge.errors import InputError, MissingPackage
from edge.files import Bytes, same_file
from edge.format import pieces
from edge.graph import Graph
from edge.labels import check_labels, labels_fit, plain_names, read_labels
from edge.lower import to_program
from edge.paths import require_path
from edge.preprocess import Preprocess
from edge.program import Program
from edge.tensors import Encoding
from edge.verifier import verify
from edge.widths import DEFAULT_RANGES, MIN_MAX, Bits

Progress = Callable[[str, int, int], None]
"""Told of each step: its name, how much of it is done, and how much there is."""

LABEL_FILE = "labels.txt"
MAX_CALIBRATION = 1000  # pictures; more change ranges little and take long
MAX_ROUNDING = 256  # pictures, which are run once for every layer
MAX_SHIFTING = 64  # pictures; more change means hardly
_HINT = ("weights of few bits were rounded each for itself; --calibrate PICTURES rounds them by what layers give, which loses far less",)
Names = Sequence[str] | Sequence[int] | str | os.PathLike[str]
STEPS = ("reading", "simplifying", "correcting biases", "rounding", "calibrating", "choosing bits", "packing", "comparing", "writing")


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    bits: Bits = 1,
    activation_bits: int | None = None,
    layers: Mapping[str, Bits] | None = None,
    formats: Sequence[str] | str = FORMATS,
    calibrate: Source | None = None,
    data: Source | None = None,
    input_dtype: str = "auto",
    output_dtype: str = "float32",
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocess: Preprocess | str | None = None,
    labels: Names | None = None,
    calibration_pictures: int | None = None,
    ranges: str = DEFAULT_RANGES,
    goal: Goal | None = None,
    save_recipe: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Convert a Keras model file and write `.edge` and `.tflite` files.

    source            a `.h5` or `.keras` file, JSON with a file of weights, or a SavedModel folder that Keras 2 saved (read by TensorFlow)
    destination       where to write: a folder, or a path whose suffix is replaced by each format's; by default beside the source
    bits              1, 2, 4, 8, 16 or 32 of weights, or "ternary" (`edge.converters.bits`); what was trained binary is packed at all
    activation_bits   of what goes between layers: 32; 8, 4 or 2, whose ranges need `calibrate`; 1, with `bits` 1, to binarize it as
                      well; by default 8 where `calibrate` is given with `bits` below 16, else 32
    layers            bits of the weights of layers whose names match a pattern (`{"block*": 4}`), where they are to be others
    formats           of "edge" and "tflite", one or several
    calibrate, data   example pictures (a file, a folder, several, or an array: uint8 pictures, or floats as the network sees them):
                      for the ranges of 8-bit activations and the rounding of weights of less than 8 bits; and to measure agreement with the
                      source (`calibrate` serves if alone); for several inputs a `.npz` file with an array for each by name, or a dict
    input_dtype       of both files, "float32", "uint8" or "int8"; by "auto" floats, but bytes for the `.edge` where pictures are whole
                      numbers 0..255
    output_dtype      of both files, "float32" or "int8" (`edge.converters.integer_ends`)
    input_shape       (H, W, C), where the file leaves sizes open
    weights           a file that `model.save_weights` wrote, for a source that holds none (or others); by default that beside a JSON file
    preprocess        how pictures become the input, or the name of a preset; by default 0..255 for a model that rescales, else 0..1
    labels            names of the classes (numbers count as names), or a file with them; by default those of a `labels.txt` beside the
                      source, where it has one for each class (as Teachable Machine exports models)
    calibration_pictures   of those of `calibrate` at most so many, spread over all
    ranges            how ranges of 8-bit activations are found on them: "min-max", "percentile" or "mse" (`edge.converters.ranges`)
    goal              a limit for which bits are chosen layer by layer, by the pictures of `calibrate` (`edge.converters.search`)
    save_recipe       where to write all these choices as TOML (`edge.converters.recipe_file`); pictures to calibrate on must then be a path
    force             replace files that edge did not write
    progress          called with (step, done, total)

    Nothing is written unless everything succeeds; where a package for TFLite is missing, the `.edge` is written and the report's messages
    say what to install. Raises `EdgeError` (`ModelError`, `InputError`, `MissingPackage`).
    """
    dtypes = {"input_dtype": input_dtype, "output_dtype": output_dtype}
    calibrated = calibrate is not None
    request = requested(bits if goal is None else 8, activation_bits, calibrated=calibrated, layers=layers, ranges=ranges, **dtypes)
    if goal is not None and calibrate is None:
        raise InputError("bits by layer are chosen by pictures, got none; give --data a file or folder with training pictures")
    require_path(source, "model")
    paths = targets(Path(source), destination, (formats,) if isinstance(formats, str) else formats)
    recipe_file = _recipe_file(save_recipe, source, calibrate, paths.values())
    check_replaceable({**paths, **recipe_file}, force=force)
    possible, missing = _possible(paths)
    tell = progress or (lambda step, done, total: None)
    tell("reading", 0, 1)
    setup = prepare(read_keras(Path(source), input_shape=input_shape, weights=weights), input_dtype, preprocess)
    calibration, examples = setup.samples(calibrate, CALIBRATION_ARRAYS), setup.samples(data, DATA_ARRAYS)
    remarks = [f"warning: {remark}" for each in (calibration, examples) if each is not None for remark in each.remarks]
    if calibration is not None and calibration_pictures is not None:
        calibration = calibration.first(calibration_pictures)
    hint = _HINT if calibration is None and misses_pictures(setup.graph, request) else ()
    choice = None
    if goal is None or calibration is None:
        compared = calibration if examples is None else examples
        answers = None if compared is None else Answers(setup.graph, compared)
        plain = _lowered(setup.graph, request, calibration, tell)
    else:
        pictures, held_back = divided(calibration)
        maker = Maker(
            lambda wanted: _lowered(setup.graph, wanted, pictures, tell),
            lambda graph, wanted: _program(setup, graph, wanted, _names(labels, Path(source), setup, graph) or None),
        )
        request, plain, choice = search(setup, request, goal, pictures, held_back, maker, tell)
        calibration, calibration_pictures, examples = pictures, len(pictures), held_back if examples is None else examples
        compared = examples
        answers = Answers(setup.graph, examples)
    setup = replace(setup, graph=replace(setup.graph, nodes=()))  # its answers are known: let go of the weights as they were
    graph = run_passes(plain, ENGINE_PASSES)
    tell("packing", 0, 1)
    names = _names(labels, Path(source), setup, graph)
    program = _program(setup, graph, request, names or None)
    agreement = None
    if compared is not None and answers is not None:
        agreement = compare(answers, program, compared, tell)
        remarks += [f"warning: {each}" for each in doubt(agreement.source_accuracy, agreement.classes, agreement.pictures, compared.seen)]
    tell("writing", 0, 1)
    report, signs = _report(setup, request, graph, program, agreement), _signs(graph)
    files = _contents(possible, plain, program, input_float=input_dtype == "auto")
    if recipe_file:
        known = _calibration(calibrate, calibration_pictures, request.ranges)
        chosen = _recipe(setup, request, shape=input_shape, formats=tuple(paths), labels=names, calibration=known)
        files = itertools.chain(files, [(recipe_file[RECIPE], [to_toml(chosen).encode()])])
    del graph, plain, program  # they go with the last file that needs them
    report = _with_files(report, write_all(files), signs, missing)
    found = f"labels: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}, from {LABEL_FILE} beside the model"
    named = (found,) if names and labels is None else ()
    return replace(report, messages=(*report.messages, *hint, *named, *dict.fromkeys(remarks)), choice=choice)


# -- what was chosen ------------------------------------------------------------------------------------------------------------


def _recipe_file(path: object, source: str | os.PathLike[str], calibrate: Source | None, converted: Iterable[Path]) -> dict[str, Path]:
    """Where the recipe goes, if anywhere."""
    if path is None:
        return {}
    file = Path(require_path(path, "recipe"))
    inputs = [each for each in (source, calibrate) if isinstance(each, (str, os.PathLike))]
    if any(same_file(file, each) for each in inputs):
        raise InputError(f"the recipe would replace {file}, which is read; name another file")
    if any(same_file(file, each) for each in converted):
        raise InputError(f"the recipe would replace {file}, which the conversion writes; name another file")
    if unwritable := next((os.fspath(each) for each in inputs if not _is_unicode(os.fspath(each))), None):
        raise InputError(f"a recipe is UTF-8 text, which cannot hold the name {unwritable!r}; rename it")
    if calibrate is not None and len(inputs) < 2:
        raise InputError("a recipe names the pictures to calibrate on by a path, got others; give one file or folder, or no save_recipe")
    return {RECIPE: file}


def _is_unicode(name: str) -> bool:
    """Not so are names of files whose bytes are no UTF-8."""
    return name.encode("utf-8", "replace").decode() == name


def _calibration(calibrate: Source | None, pictures: int | None, ranges: str) -> Calibration | None:
    if not isinstance(calibrate, (str, os.PathLike)):
        return None
    return Calibration(Path(calibrate).as_posix(), content_sha256(calibrate), pictures, ranges)


def _recipe(
    setup: Setup,
    request: Request,
    *,
    shape: tuple[int, ...] | None,
    formats: tuple[str, ...],
    labels: tuple[str, ...],
    calibration: Calibration | None,
) -> Recipe:
    """Every choice, as it was made."""
    return Recipe(
        bits=request.bits,
        activation_bits=request.activation_bits,
        layers=dict(request.layers),
        calibration=calibration,
        source=setup.model.source,
        source_sha256=setup.model.sha256,
        input_dtype=request.input_dtype,
        output_dtype=request.output_dtype,
        input_shape=shape,
        preprocess=setup.preprocess,
        formats=formats,
        labels=labels,
    )


# -- what the network computes --------------------------------------------------------------------------------------------------


def _lowered(graph: Graph, request: Request, calibration: Samples | None, tell: Progress) -> Graph:
    """The graph simplified and at the bits that were asked for; `calibration` counts where ranges, centres or levels are needed."""
    # Weights that become infinite are refused when they are packed, with the name of the layer.
    with np.errstate(all="ignore"):
        tell("simplifying", 0, 1)
        simple = run_passes(graph)
        if calibration is not None:
            few = calibration.first(MAX_SHIFTING)
            request = with_shifts(simple, request, _Told(few, lambda done: tell("correcting biases", done, len(few))))
            chosen = [array for array, _ in calibration.first(MAX_ROUNDING)] if request.has_levels else []
            request = with_rounded(simple, request, chosen, lambda done, total: tell("rounding", done, total))
        if calibration is not None and (request.activation_bits != 32 or request.has_int8_ends):
            request = replace(request, statistics=_statistics(measured(simple, request), request, calibration, tell))
        tell("choosing bits", 0, 1)
        return choose_bits(simple, request)


class _Told:
    """The arrays of samples; whoever iterates over them tells how far it is."""

    def __init__(self, samples: Samples, tell: Callable[[int], None]) -> None:
        self._samples, self._tell, self._done = samples, tell, 0

    def __iter__(self) -> Iterator[Example]:
        for array, _ in self._samples:
            yield array
            self._done += 1
            self._tell(self._done)


def _statistics(graph: Graph, request: Request, calibration: Samples, tell: Progress) -> dict[str, Statistics]:
    chosen = calibration.first(MAX_CALIBRATION)
    few = few_levels(graph, request)
    deviations, again = request.activation_bits == 1, request.has_integers and (request.ranges != MIN_MAX or bool(few))
    total = len(chosen) * (2 if deviations or again else 1)
    tell("calibrating", 0, total)
    told = _Told(chosen, lambda done: tell("calibrating", done, total))
    found = measure(graph, told, deviations=deviations)
    return refined(graph, told, found, request.ranges, few) if again else found


# -- what is stored ------------------------------------------------------------------------------------------------------------


def _labels(labels: Names | None, setup: Setup, graph: Graph) -> tuple[str, ...] | None:
    if labels is None or (not isinstance(labels, (str, os.PathLike)) and not len(labels)):
        return None
    names = read_labels(labels) if isinstance(labels, (str, os.PathLike)) else plain_names([_label(label) for label in labels])
    ends = [(graph.types[name].shape[-1], each["kind"]) for name, each in zip(graph.outputs, outputs_of(setup.model, graph), strict=True)]
    classes, kind = next((end for end in ends if labels_fit(names, end[0], kind=end[1])), ends[0])
    check_labels(names, classes, kind=kind)
    return names


def _names(labels: Names | None, source: Path, setup: Setup, graph: Graph) -> tuple[str, ...]:
    """The names of the classes, those that were given or lie beside the source; none."""
    return (_labels_beside(source, setup, graph) if labels is None else _labels(labels, setup, graph)) or ()


def _labels_beside(source: Path, setup: Setup, graph: Graph) -> tuple[str, ...]:
    """The names in the file that Teachable Machine writes beside its models, where it is there and has one for each class."""
    try:
        return _labels(source.with_name(LABEL_FILE), setup, graph) or ()
    except InputError:  # there is none, or it is that of another model
        return ()


def _label(label: object) -> str:
    if not isinstance(label, (str, int, np.integer)):
        raise InputError(f"the labels should be names or whole numbers, got {type(label).__name__}; give one name for each class")
    return str(label)


def _program(setup: Setup, graph: Graph, request: Request, labels: tuple[str, ...] | None) -> Program:
    """The program with everything that is known about it."""
    rows = layer_rows(setup.model, graph, to_program(graph))
    metadata: dict[str, Any] = {
        "name": setup.model.name,
        "source": {"file": setup.model.source, "sha256": setup.model.sha256, "keras_version": setup.model.keras_version},
        "bits": request.bits,
        "activation_bits": request.activation_bits,
        "outputs": outputs_of(setup.model, graph),
        "preprocess": setup.preprocess.to_json() if setup.preprocess else None,
        "labels": list(labels) if labels else None,
        "layers": [dataclasses.asdict(row) for row in rows],
        "notes": {row.name: row.note for row in rows if row.note},
    }
    program = to_program(graph, {name: value for name, value in metadata.items() if value is not None})
    verify(program)
    return program


def _possible(paths: Mapping[str, Path]) -> tuple[Mapping[str, Path], str | None]:
    """The files that can be written, and what is missing to write TFLite; that is an error only if nothing else was asked for."""
    try:
        if "tflite" in paths:
            packages()
    except MissingPackage as err:
        if len(paths) == 1:
            raise
        return {name: path for name, path in paths.items() if name != "tflite"}, str(err)
    return paths, None


def _contents(
    paths: Mapping[str, Path], graph: Graph, program: Program, *, input_float: bool
) -> Iterator[tuple[Path, Sequence[Bytes]]]:
    """Each file in pieces, made when it is asked for."""
    known = {name: program.metadata[name] for name in ("name", "source", "outputs", "preprocess", "labels") if name in program.metadata}
    if "edge" in paths:
        yield paths["edge"], pieces(program)
    del program
    if "tflite" in paths:
        yield paths["tflite"], [tflite_content(graph, description=json.dumps(known, sort_keys=True), input_float=input_float)]


# -- what was got --------------------------------------------------------------------------------------------------------------


def _report(setup: Setup, request: Request, graph: Graph, program: Program, agreement: Agreement | None) -> Report:
    described = setup.described()
    packed = any(kind.encoding is Encoding.BITS for kind in graph.types.values())
    layers = layer_rows(setup.model, graph, program)
    signs = request.bits == 1 and any(row.bits_after == 1 for row in layers)
    advised = advice(agreement, packed_weights=signs, packed_activations=packed, activation_bits=request.activation_bits)
    return Report(
        source=setup.model.source,
        bits=request.bits,
        activation_bits=request.activation_bits,
        input_dtype=setup.input_dtype,
        output_dtype=request.output_dtype,
        preprocess=described,
        layers=layers,
        files=(),
        agreement=agreement,
        messages=(*advised, f"input: {described}", *setup.doubt(), *setup.turned()),
        source_sha256=setup.model.sha256,
    )


def _with_files(report: Report, sizes: Mapping[Path, int], signs: int, missing: str | None) -> Report:
    """The report of what was written, and what was `missing` to write more."""
    rows = tuple(FileRow(str(path), path.suffix[1:], size) for path, size in sizes.items())
    return replace(report, files=rows, messages=(*_why_larger(rows, signs), *report.messages, *([missing] if missing else [])))


def _signs(graph: Graph) -> int:
    """How many weights are stored as signs."""
    return sum(node.constants["filter"].size for node in graph.nodes if "filter" in node.constants and stored(node) is Encoding.BITS)


def _why_larger(files: tuple[FileRow, ...], signs: int) -> tuple[str, ...]:
    """The sentence that says why the `.tflite` of packed layers is larger than the `.edge`."""
    sizes = {file.format: file.bytes for file in files}
    if not {"edge", "tflite"} <= sizes.keys() or not signs or sizes["tflite"] <= sizes["edge"]:
        return ()
    times = f"{sizes['tflite'] / sizes['edge']:.1f}"
    return (f"the .tflite is {times} times the .edge: TFLite stores a sign in a byte, {signs:,} of them; packed they take {signs // 8:,}",)
