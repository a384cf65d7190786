"""Names of classes, from the label files of the field.

- `.json`: a list of names; an object {"0": "cat"} or {"cat": 0}; Keras' ImageNet form {"0": ["n01440764", "tench"]}.
- `.csv`: a column of names, or an index and a name, separated by commas, semicolons or tabs; with or without a header.
- anything else is text: one name per line, or on every line an index and a name ("0 cat", as Teachable Machine writes).

Files are UTF-8, with or without byte order mark, with any line ends. Indexes must be 0, 1, 2, ... in any order, each
once. Two classes may have the same name (ImageNet has two cranes). Names are printed to terminals, so control
characters in them are refused.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.errors import InputError
from edge.paths import require_file

MAX_LABEL_FILE_BYTES = 16 << 20
TWO_SIDED = ("sigmoid", "logits")

_INDEX_COLUMNS = ("index", "id", "class_index", "class_id", "classid", "label_id")
_NAME_COLUMNS = ("name", "display_name", "class_name", "label_name", "label", "class", "names", "labels", "classes")

# A colon needs a space behind it: "10:30" is a name.
_INDEXED_LINE = re.compile(r"([0-9]{1,9}):?\s+(\S.*)")


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the classes 0, 1, 2, ... in a label file.

    Raises InputError, naming the file, where it is missing, empty, not UTF-8 or of no known form, where an index is
    missing or double, or a name is empty or holds control characters.
    """
    path = require_file(path, "label file")
    text = _text(path)
    parse = {".json": _from_json, ".csv": _from_csv}.get(path.suffix.lower(), _from_lines)
    try:
        return plain_names(parse(text))
    except InputError as err:
        raise InputError(f"cannot read the labels in {path}: {err}") from err


def check_labels(labels: Sequence[str], classes: int, *, kind: str = "sigmoid") -> None:
    """Raise InputError unless there is a name for each class.

    kind: of the output (`edge.answers.KINDS`). A single output that tells two classes apart, of a kind in `TWO_SIDED`,
    takes one name or two.
    """
    if labels_fit(labels, classes, kind=kind):
        return
    raise InputError(
        f"the labels do not fit the model: expected {classes} name{'' if classes == 1 else 's'}, one for each class, "
        f"got {len(labels)}; check that the label file belongs to this model"
    )


def labels_fit(labels: Sequence[str], classes: int, *, kind: str) -> bool:
    """Whether there is a name for each class of an output of this kind."""
    return len(labels) == classes or (classes == 1 and len(labels) == 2 and kind in TWO_SIDED)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LABEL_FILE_BYTES + 1)
    except OSError as err:
        raise InputError(f"cannot read the labels in {path}: {err.strerror or err}; check its permissions") from err
    if len(content) > MAX_LABEL_FILE_BYTES:
        raise InputError(
            f"cannot read the labels in {path}: expected at most {MAX_LABEL_FILE_BYTES >> 20} MiB of text, got more; "
            "check that it is a label file"
        )
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as err:
        raise InputError(
            f"cannot read the labels in {path}: expected UTF-8, got byte 0x{content[err.start]:02x} at {err.start}; "
            "save it as UTF-8"
        ) from err


def _from_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.rstrip().split("\n")]
    matches = [_INDEXED_LINE.fullmatch(line) for line in lines]
    indexed = [(int(match[1]), match[2]) for match in matches if match]
    if len(indexed) == len(lines):
        return _in_order(indexed)
    if indexed and matches[0] and indexed[0][0] == 0:
        line = matches.index(None)
        raise InputError(
            f"expected an index and a name on every line, as on line 1, got {reprlib.repr(lines[line])} on line "
            f"{line + 1}; give all lines an index, or none"
        )
    return lines


def _from_csv(text: str) -> list[str]:
    rows = _rows(text)
    header = [cell.lower() for cell in rows[0]]
    names = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    if names is None or len(rows) == 1 or any(map(_is_index, header)):
        return _without_header(rows)
    index = _index_column(header, rows[1:], names)
    if index is None:
        return [row[names] for row in rows[1:]]
    return _in_order((_index(row[index]), row[names]) for row in rows[1:])


def _index_column(header: list[str], rows: list[list[str]], names: int) -> int | None:
    """The column of indexes: one called so (unless of WordNet ids, say), else the other one of two, if numbers."""
    for column in (header.index(name) for name in _INDEX_COLUMNS if name in header):
        if any(_is_index(row[column]) for row in rows):
            return column
    other = 1 - names
    return other if len(header) == 2 and all(_is_index(row[other]) for row in rows) else None


def _rows(text: str) -> list[list[str]]:
    """Rows of equal length, cells stripped. The separator is the one that the first line holds."""
    first_line = text.lstrip("\n").partition("\n")[0]
    separator = next((mark for mark in "\t;," if mark in first_line), ",")
    try:
        parsed = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
    except csv.Error as err:
        raise InputError(f"it is no csv ({err}); save it as csv again") from err
    rows = [[cell.strip() for cell in row] for row in parsed if any(cell.strip() for cell in row)]
    if not rows:
        raise InputError("expected names of classes, got an empty file; write one name per line")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise InputError(
                f"expected {len(rows[0])} columns in every row, as in row 1, got {len(row)} in row {number}; "
                "quote names that hold the separator"
            )
    return rows


def _without_header(rows: list[list[str]]) -> list[str]:
    columns = list(zip(*rows, strict=True))
    if len(columns) == 1:
        return list(columns[0])
    if len(columns) == 2:
        for index, names in (columns, reversed(columns)):
            if all(_is_index(cell) for cell in index):
                return _in_order(zip(map(int, index), names, strict=True))
    raise InputError(
        f"expected a column of names, or an index and a name, got columns {reprlib.repr(rows[0])}; "
        f"begin the file with a header, such as index,name"
    )


def _from_json(text: str) -> list[str]:
    try:
        data = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as err:
        raise InputError(f"it is no JSON ({reprlib.repr(str(err))}); save it again") from err
    if isinstance(data, _Pairs):
        return _from_pairs(data)
    if isinstance(data, list):
        return [_json_name(item) for item in data]
    raise InputError(f'expected a list of names or an object such as {{"0": "cat"}}, got {reprlib.repr(data)}')


class _Pairs(list[tuple[str, object]]):
    """A JSON object with its keys in order and double ones kept, where a dict would keep the last."""


def _from_pairs(pairs: _Pairs) -> list[str]:
    by_name = [(value, name) for name, value in pairs if isinstance(value, int) and not isinstance(value, bool)]
    if len(by_name) == len(pairs):
        return _in_order(by_name)
    return _in_order((_index(key), _json_name(value)) for key, value in pairs)


def _json_name(value: object) -> str:
    if isinstance(value, list) and not isinstance(value, _Pairs) and len(value) == 2:
        value = value[1]  # Keras' ImageNet form: WordNet id and name.
    if not isinstance(value, str):
        raise InputError(f"expected a name, got {reprlib.repr(value)}; write names as strings")
    return value


def _is_index(text: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", text) is not None


def _index(text: str) -> int:
    if not _is_index(text):
        raise InputError(f"expected an index 0, 1, 2, ..., got {reprlib.repr(text)}; number the classes from 0")
    return int(text)


def _in_order(pairs: Iterable[tuple[int, str]]) -> list[str]:
    """The names by index; every index from 0 on must occur once."""
    names: dict[int, str] = {}
    for index, name in pairs:
        if index in names:
            raise InputError(
                f"expected every index once, got {index} for {reprlib.repr(names[index])} and {reprlib.repr(name)}; "
                "number the classes 0, 1, 2, ..."
            )
        names[index] = name
    missing = next((index for index in range(len(names)) if index not in names), None)
    if missing is not None:
        raise InputError(
            f"expected the indexes 0 to {len(names) - 1}, got {reprlib.repr(sorted(names))} without {missing}; "
            "number the classes 0, 1, 2, ..."
        )
    return [names[index] for index in range(len(names))]


def plain_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without blanks around them; raises InputError where there is none, or one is empty or no plain text."""
    stripped = tuple(name.strip() for name in names)
    if not any(stripped):
        raise InputError("expected names of classes, got none; write one name per line")
    for index, name in enumerate(stripped):
        if not name:
            raise InputError(f"expected a name for every class, got an empty one for class {index}; name it")
        for character in name:
            if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
                raise InputError(
                    f"expected printable names, got U+{ord(character):04X} in that of class {index}; remove it"
                )
    return stripped
