"""Recipes of conversions: every choice of one as TOML, by which `edge convert MODEL --recipe FILE` makes the same bytes again.

    recipe = 1                          the form of the file

    [source]                            what it was made for; another model is converted all the same, and the report says so
    file = "model.h5"
    sha256 = "..."

    [bits]
    weights = 8                         1, 2, "ternary", 4, 8, 16, 32
    activations = 8                     1, 8, 32

    [layers]                            bits of their own, by names, where * and ? stand for any; of several that match the last counts
    conv2d_1 = 4
    "block*" = "ternary"

    [calibration]
    file = "pictures.npz"               as it was given, looked for from the current folder, then from the recipe's
    sha256 = "..."                      of the file; of a folder, of the names and bytes of its pictures; without it nothing is checked
    pictures = 1000                     at most so many, spread over all there are; without it all are at hand
    ranges = "mse"                      how ranges of 8-bit activations are found: or "min-max", "percentile"

    [input]
    dtype = "uint8"                     float32, uint8, int8; without it as the preprocessing has it
    shape = [32, 32, 3]                 where the source leaves sizes open

    [preprocess]                        the fields of `edge.preprocess.Preprocess`

    [output]
    dtype = "float32"                   or "int8"
    formats = ["edge", "tflite"]
    labels = ["cat", "dog"]             names of the classes; [] for none

All but `recipe`, `bits.weights` and `bits.activations` may be left out.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.converters.outputs import FORMATS, RECIPE_START
from edge.errors import EdgeError, InputError
from edge.paths import require_file
from edge.preprocess import Preprocess
from edge.widths import ACTIVATION_WIDTHS, DEFAULT_RANGES, INPUT_DTYPES, OUTPUT_DTYPES, RANGES, WIDTHS, Bits

FORM = 1
MAX_BYTES = 4 << 20
_KEYS = {
    "source": ("file", "sha256"),
    "bits": ("weights", "activations"),
    "calibration": ("file", "sha256", "pictures", "ranges"),
    "input": ("dtype", "shape"),
    "preprocess": tuple(each.name for each in dataclasses.fields(Preprocess)),
    "output": ("dtype", "formats", "labels"),
}
_TABLES = (*_KEYS, "layers")


@dataclass(frozen=True)
class Calibration:
    """Which pictures: a file or folder, the sha256 of its content ("": not known), and how many of them at most (None: all)."""

    file: str
    sha256: str = ""
    pictures: int | None = None
    ranges: str = DEFAULT_RANGES


@dataclass(frozen=True)
class Recipe:
    """The choices of a conversion; what is None was left to `edge.convert`. `remarks` are written as comments."""

    bits: Bits
    activation_bits: int
    layers: Mapping[str, Bits] = field(default_factory=dict)
    calibration: Calibration | None = None
    source: str = ""
    source_sha256: str = ""
    input_dtype: str = "auto"
    output_dtype: str = "float32"
    input_shape: tuple[int, ...] | None = None
    preprocess: Preprocess | None = None
    formats: tuple[str, ...] = FORMATS
    labels: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """The choices as arguments of `edge.convert`, but for the pictures (`pictures_of`)."""
        return {
            "bits": self.bits,
            "activation_bits": self.activation_bits,
            "layers": dict(self.layers),
            "input_dtype": self.input_dtype,
            "output_dtype": self.output_dtype,
            "input_shape": self.input_shape,
            "preprocess": self.preprocess,
            "formats": self.formats,
            "labels": self.labels,
            "ranges": self.calibration.ranges if self.calibration else DEFAULT_RANGES,
        }


def pictures_of(recipe: Recipe, path: str | os.PathLike[str], given: str | os.PathLike[str] | None = None) -> str | None:
    """Where the pictures of the recipe at `path` are, `given` if it is; None if it has none.

    Raises `InputError` where they are not there, or are others than those of the recipe.
    """
    known = recipe.calibration
    if known is None:
        if given is not None:
            raise InputError(f"{path} converts without pictures, got {os.fspath(given)} for them; leave out --calibrate, or the recipe")
        return None
    places = [Path(given)] if given is not None else [Path(known.file), Path(path).parent / known.file]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise InputError(f"the pictures of {path} are not there: expected {places[0]}; name them with --calibrate")
    if known.sha256 and content_sha256(found) != known.sha256:
        raise InputError(
            f"{found} holds other pictures than {path} was written with: expected the sha256 {known.sha256[:12]}..., got "
            f"{content_sha256(found)[:12]}...; give those with --calibrate, or take the line sha256 out of the recipe"
        )
    return os.fspath(found)


def content_sha256(path: str | os.PathLike[str]) -> str:
    """Of a file's bytes; of a folder, of the names and digests of the pictures in it."""
    if not os.path.isdir(path):
        with require_file(path, "calibration pictures").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    from edge.inputs import pictures_in  # loads Pillow

    names = "".join(f"{each.name}\0{content_sha256(each)}\n" for each in pictures_in(Path(path)))
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


# -- writing -------------------------------------------------------------------------------------------------------------------


def to_toml(recipe: Recipe) -> str:
    """The file's text; `read_recipe` gives the same recipe, without its remarks."""
    tables: dict[str, dict[str, Any]] = {
        "source": {"file": recipe.source or None, "sha256": recipe.source_sha256 or None},
        "bits": {"weights": recipe.bits, "activations": recipe.activation_bits},
        "layers": dict(recipe.layers),
        "calibration": dataclasses.asdict(recipe.calibration) if recipe.calibration else {},
        "input": {"dtype": recipe.input_dtype if recipe.input_dtype != "auto" else None, "shape": recipe.input_shape},
        "preprocess": recipe.preprocess.to_json() if recipe.preprocess else {},
        "output": {"dtype": recipe.output_dtype, "formats": recipe.formats, "labels": recipe.labels},
    }
    head = [f"{RECIPE_START}: edge convert MODEL --recipe FILE repeats it.", *(f"# {remark}" for remark in recipe.remarks)]
    parts = ["\n".join([*head, f"recipe = {FORM}"])]
    for name, table in tables.items():
        lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None and value != ""]
        parts += ["\n".join([f"[{name}]", *lines])] if lines else []
    return "\n\n".join(parts) + "\n"


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):  # the escapes of JSON are those of TOML, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


# -- reading -------------------------------------------------------------------------------------------------------------------


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a file. Raises `InputError`, naming the file and the line's key, for what is no recipe, unknown keys and values."""
    file = require_file(path, "recipe")
    try:
        return _recipe(_parsed(file))
    except InputError as err:
        raise InputError(f"cannot read the recipe {os.fspath(path)}: {err}") from err


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise InputError(f"{err.strerror or err}; check its permissions") from err
    if len(data) > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES >> 20} MiB of TOML, got more; check that it is a recipe")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as err:
        raise InputError(f"expected TOML, got something else ({err}); correct it, or write it with --save-recipe") from err


def _recipe(document: dict[str, Any]) -> Recipe:
    form = document.pop("recipe", None)
    if type(form) is not int or form != FORM:
        raise InputError(f"expected the line recipe = {FORM} at its top, got none or another; write it with --save-recipe")
    tables = {name: _table(document, name) for name in _TABLES}
    _only(document, _TABLES, "tables")
    bits, given, output = tables["bits"], tables["input"], tables["output"]
    source, formats = tables["source"], _texts(output, "formats", "[output]")
    return Recipe(
        bits=_one_of(bits, "weights", WIDTHS, "[bits]"),
        activation_bits=_one_of(bits, "activations", ACTIVATION_WIDTHS, "[bits]"),
        layers={name: _one_of(tables["layers"], name, WIDTHS, "[layers]") for name in tables["layers"]},
        calibration=_calibration(tables["calibration"]) if tables["calibration"] else None,
        source=_text(source, "file", "[source]"),
        source_sha256=_text(source, "sha256", "[source]"),
        input_dtype=_one_of(given, "dtype", INPUT_DTYPES, "[input]") if "dtype" in given else "auto",
        output_dtype=_one_of(output, "dtype", OUTPUT_DTYPES, "[output]") if "dtype" in output else "float32",
        input_shape=_shape(given["shape"]) if "shape" in given else None,
        preprocess=_preprocess(tables["preprocess"]) if tables["preprocess"] else None,
        formats=tuple(_one_of({"formats": each}, "formats", FORMATS, "[output]") for each in formats) if formats else FORMATS,
        labels=_labels(output),
    )


def _labels(output: Mapping[str, Any]) -> tuple[str, ...] | None:
    return tuple(_texts(output, "labels", "[output]")) if "labels" in output else None


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A table of the document, taken out of it."""
    table = document.pop(name, {})
    if not isinstance(table, dict):
        raise InputError(f"expected a table [{name}], got {reprlib.repr(table)}; write it with --save-recipe")
    if name in _KEYS:
        _only(table, _KEYS[name], f"keys in [{name}]")
    return table


def _only(table: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    unknown = next((name for name in table if name not in known), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, known, n=1)
        advice = f"{near[0]} may be meant" if near else "take it out"
        raise InputError(f"expected as {what} {', '.join(known)}, got {reprlib.repr(unknown)}; {advice}")


def _one_of(table: Mapping[str, Any], key: str, known: Sequence[Any], place: str) -> Any:
    value = table.get(key)
    found = next((each for each in known if type(each) is type(value) and each == value), None)
    if found is None:
        words = ", ".join(map(_value, known))
        raise InputError(f"{key} in {place} should be one of {words}, got {'none' if value is None else reprlib.repr(value)}; correct it")
    return found


def _text(table: Mapping[str, Any], key: str, place: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InputError(f"{key} in {place} should be text, got {reprlib.repr(value)}; put it in quotes")
    return value


def _texts(table: Mapping[str, Any], key: str, place: str) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{key} in {place} should be a list of texts, got {reprlib.repr(value)}; correct it")
    return value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(map(_is_count, value)):
        raise InputError(f"shape in [input] should be a list of whole numbers above 0, got {reprlib.repr(value)}; correct it")
    return tuple(value)


def _calibration(table: Mapping[str, Any]) -> Calibration:
    file, pictures = _text(table, "file", "[calibration]"), table.get("pictures")
    if not file:
        raise InputError("[calibration] should name its file, got none; add the line file, or take the table out")
    if pictures is not None and not _is_count(pictures):
        raise InputError(f"pictures in [calibration] should be a whole number above 0, got {reprlib.repr(pictures)}; correct it")
    ranges = _one_of(table, "ranges", RANGES, "[calibration]") if "ranges" in table else DEFAULT_RANGES
    return Calibration(file, _text(table, "sha256", "[calibration]"), pictures, ranges)


def _preprocess(table: Mapping[str, Any]) -> Preprocess:
    try:
        return Preprocess.from_json(dict(table))
    except EdgeError as err:
        reason = str(err).removeprefix("the preprocessing stored in the model is damaged or newer than this edge: ")
        raise InputError(f"[preprocess] does not fit: {reason}") from err
