"""Prove that a `.tflite` file is a whole flatbuffer before an interpreter reads it: interpreters trust offsets and crash on bad ones.

A flatbuffer is tables that point at each other by relative offsets. `_TABLES` lists the fields of TFLite's schema that interpreters
follow; every offset, vector and string of them must lie inside the file, and the numbers by which operators, tensors and buffers refer to
each other must exist. Fields that are not listed (newer ones, options of operators) are only held inside their table, and whether an
operator takes its operands is for the interpreter to say.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge.errors import FormatError

IDENTIFIER = b"TFL3"
MARK = "written by edge"  # how the description of a file starts that edge wrote
MAX_TABLES = 1_000_000  # bounds the work on a file whose offsets point at the same table again and again
_MAX_BYTES = 1 << 31
_MAX_TENSOR_BYTES = 1 << 30

# Field number -> what it holds: the width of a scalar in bytes, "string", ("vector", width of an element), ("table", name) or
# ("tables", name). Tables are those of TFLite's schema.
_Field = int | str | tuple[str, int | str]
_TABLES: dict[str, dict[int, _Field]] = {
    "Model": {
        0: 4, 1: ("tables", "OperatorCode"), 2: ("tables", "SubGraph"), 3: "string", 4: ("tables", "Buffer"), 5: ("vector", 4),
        6: ("tables", "Metadata"), 7: ("tables", "SignatureDef"),
    },
    "OperatorCode": {0: 1, 1: "string", 2: 4, 3: 4},
    "SubGraph": {0: ("tables", "Tensor"), 1: ("vector", 4), 2: ("vector", 4), 3: ("tables", "Operator"), 4: "string"},
    "Tensor": {0: ("vector", 4), 1: 1, 2: 4, 3: "string", 4: ("table", "Quantization"), 5: 1, 6: ("table", "Sparsity"), 7: ("vector", 4)},
    "Quantization": {0: ("vector", 4), 1: ("vector", 4), 2: ("vector", 4), 3: ("vector", 8), 4: 1, 5: ("table", "Options"), 6: 4},
    "Sparsity": {0: ("vector", 4), 1: ("vector", 4), 2: ("tables", "Options")},
    "Operator": {
        0: 4, 1: ("vector", 4), 2: ("vector", 4), 3: 1, 4: ("table", "Options"), 5: ("vector", 1), 6: 1, 7: ("vector", 1),
        8: ("vector", 4), 9: 8, 10: 8, 11: 1, 12: ("table", "Options"),
    },
    "Buffer": {0: ("vector", 1), 1: 8, 2: 8},
    "Metadata": {0: "string", 1: 4},
    "SignatureDef": {0: ("tables", "TensorMap"), 1: ("tables", "TensorMap"), 2: "string", 4: 4},
    "TensorMap": {0: "string", 1: 4},
    "Options": {},
}  # fmt: skip

_ITEM_BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 10: 8}  # by TensorType: those with one size an element


_ZERO_POINTS = {3: (0, 255), 9: (-128, 127)}  # by TensorType
_MAX_SCALE = 2.0**40


def check_tflite(data: bytes) -> None:
    """Raise `FormatError` unless `data` is a TFLite model whose parts all lie inside it and refer to each other rightly."""
    file = _open(data)
    model = file.root()
    model.check_below()
    buffers, codes = model.tables(4), model.tables(1)
    graphs = model.tables(2)
    if not graphs:
        raise FormatError("The .tflite file holds no network: it has no subgraph; write it again.")
    for graph in graphs:
        _check_graph(graph, len(codes), buffers)
    for signature in model.tables(7):
        _check_signature(signature, graphs)


def description_of(data: bytes) -> str:
    """The description in a `.tflite` file; raises `FormatError` if it is none."""
    return root_of(data).string(3)


def notes_of(data: bytes) -> str | None:
    """What edge wrote into the description after its mark, None for a file of another converter; raises `FormatError` for what is none."""
    description = description_of(data)
    return description.removeprefix(MARK).removeprefix(": ") if description.startswith(MARK) else None


def root_of(data: bytes) -> Table:
    """The table at the root of a `.tflite` file, a Model; raises `FormatError` if it is none. `check_tflite` proves the rest whole."""
    return _open(data).root()


def _open(data: bytes) -> _File:
    if data[4:8] != IDENTIFIER:
        raise FormatError(f"This is no .tflite file: its bytes 4 to 8 are {data[4:8]!r}, expected {IDENTIFIER!r}; give a TFLite model.")
    if len(data) >= _MAX_BYTES:
        raise FormatError(f"The .tflite file has {len(data)} bytes; files of less than {_MAX_BYTES} are read.")
    return _File(data)


# -- references between tables -------------------------------------------------------------------------------------------------


def _check_graph(graph: Table, codes: int, buffers: list[Table]) -> None:
    tensors = graph.tables(0)
    for tensor in tensors:
        _check_tensor(tensor, buffers)
    _check_numbers(graph, (1, 2), 0, len(tensors))
    for operator in graph.tables(3):
        if not 0 <= operator.scalar(0, "I") < codes:
            raise FormatError(f"{operator} uses operator code {operator.scalar(0, 'I')} of {codes}; the file is damaged.")
        _check_numbers(operator, (1, 2, 8), -1, len(tensors))


def _check_numbers(table: Table, fields: tuple[int, ...], least: int, bound: int) -> None:
    for number in (number for which in fields for number in table.numbers(which)):
        if not least <= number < bound:
            raise FormatError(f"{table} refers to tensor {number} of {bound}; the file is damaged.")


def _check_tensor(tensor: Table, buffers: list[Table]) -> None:
    shape, number = tensor.numbers(0), tensor.scalar(2, "I")
    if number >= len(buffers) or min(shape, default=0) < 0:
        raise FormatError(f"{tensor} of shape {shape} uses buffer {number} of {len(buffers)}; the file is damaged.")
    stored, item = buffers[number].length(0), _ITEM_BYTES.get(tensor.scalar(1, "b"))
    expected = math.prod(shape) * (item or 0)
    if expected > _MAX_TENSOR_BYTES:
        raise FormatError(f"{tensor} of shape {shape} takes {expected} bytes; tensors of at most {_MAX_TENSOR_BYTES} are run.")
    if stored and item and tensor.table(6) is None and stored != expected:
        raise FormatError(f"{tensor} of shape {shape} takes {expected} bytes, its buffer has {stored}; the file is damaged.")
    _check_quantization(tensor, shape)


def _check_quantization(tensor: Table, shape: tuple[int, ...]) -> None:
    quantization = tensor.table(4)
    if quantization is None:
        return
    scales, zeros, axis = quantization.elements(2, "f"), quantization.elements(3, "q"), quantization.scalar(6, "i")
    if len(scales) > 1 and not (0 <= axis < len(shape) and len(scales) == shape[axis]):
        raise FormatError(f"{tensor} of shape {shape} has {len(scales)} scales along axis {axis}; the file is damaged.")
    if len(zeros) not in ((0, len(scales)) if scales else (0,)):
        raise FormatError(f"{tensor} has {len(scales)} scales and {len(zeros)} zero points; the file is damaged.")
    if not all(0 <= scale <= _MAX_SCALE for scale in scales):
        raise FormatError(f"{tensor} has a scale outside 0 to {_MAX_SCALE:g}; the file is damaged.")
    low, high = _ZERO_POINTS.get(tensor.scalar(1, "b"), (-(1 << 63), 1 << 63))
    if not all(low <= zero <= high for zero in zeros):
        raise FormatError(f"{tensor} has a zero point outside {low} to {high}; the file is damaged.")


def _check_signature(signature: Table, graphs: list[Table]) -> None:
    number = signature.scalar(4, "I")
    if number >= len(graphs):
        raise FormatError(f"{signature} is of subgraph {number} of {len(graphs)}; the file is damaged.")
    tensors = graphs[number].length(0)
    for entry in (*signature.tables(0), *signature.tables(1)):
        if entry.scalar(1, "I") >= tensors:
            raise FormatError(f"{entry} refers to tensor {entry.scalar(1, 'I')} of {tensors}; the file is damaged.")


# -- reading within bounds -----------------------------------------------------------------------------------------------------


@dataclass
class _File:
    """The bytes, and how many tables may still be visited."""

    data: bytes
    tables_left: int = MAX_TABLES

    def number(self, position: int, code: str) -> int:
        """The little-endian integer at a byte position."""
        size = struct.calcsize(code)
        if not 0 <= position <= len(self.data) - size:
            raise FormatError(f"The .tflite file ends at byte {len(self.data)}, byte {position} is asked for: it is damaged or cut off.")
        return int(struct.unpack_from("<" + code, self.data, position)[0])

    def root(self) -> Table:
        return self.table("Model", self.number(0, "I"))

    def table(self, name: str, position: int) -> Table:
        if self.tables_left == 0:
            raise FormatError(f"The .tflite file has more than {MAX_TABLES} tables; it is damaged.")
        self.tables_left -= 1
        vtable = position - self.number(position, "i")
        fields = (self.number(vtable, "H") - 4) // 2
        self.number(vtable + 2 * fields + 2, "H")
        nbytes = self.number(vtable + 2, "H")
        if fields < 0 or nbytes < 4 or position + nbytes > len(self.data):
            raise FormatError(f"The {name} at byte {position} of the .tflite file does not fit it: it is damaged or cut off.")
        offsets = struct.unpack_from(f"<{fields}H", self.data, vtable + 4)
        return Table(self, name, position, nbytes, offsets)


@dataclass
class Table:
    """A table: its fields' offsets from `position`, 0 for those left out."""

    file: _File
    name: str
    position: int
    nbytes: int
    offsets: tuple[int, ...]
    _tables: dict[int, list[Table]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"The {self.name} at byte {self.position} of the .tflite file"

    def place(self, which: int, width: int) -> int | None:
        """The byte position of a field of `width` bytes; None if it is left out."""
        offset = self.offsets[which] if which < len(self.offsets) else 0
        if offset and offset + width > self.nbytes:
            raise FormatError(f"{self} has field {which} at its byte {offset} of {self.nbytes}; the file is damaged.")
        return self.position + offset if offset else None

    def scalar(self, which: int, code: str) -> int:
        place = self.place(which, struct.calcsize(code))
        return 0 if place is None else self.file.number(place, code)

    def pointed(self, which: int) -> int | None:
        """The byte position that an offset field points to."""
        place = self.place(which, 4)
        return None if place is None else place + self.file.number(place, "I")

    def vector(self, which: int, width: int) -> tuple[int, int]:
        """Start and length of a vector; (0, 0) if it is left out."""
        start = self.pointed(which)
        if start is None:
            return 0, 0
        length = self.file.number(start, "I")
        if start + 4 + length * width > len(self.file.data):
            raise FormatError(f"{self} has {length} elements of {width} bytes in field {which}, past the end; the file is damaged.")
        return start + 4, length

    def length(self, which: int) -> int:
        start = self.pointed(which)
        return 0 if start is None else self.file.number(start, "I")

    def elements(self, which: int, code: str) -> tuple[float, ...]:
        """The elements of a vector of scalars."""
        start, length = self.vector(which, struct.calcsize("<" + code))
        return struct.unpack_from(f"<{length}{code}", self.file.data, start)

    def numbers(self, which: int) -> tuple[int, ...]:
        """The elements of a vector of int32."""
        return tuple(map(int, self.elements(which, "i")))

    def string(self, which: int) -> str:
        start, length = self.vector(which, 1)
        return self.file.data[start : start + length].decode("utf-8", "replace")

    def table(self, which: int) -> Table | None:
        kind = _TABLES[self.name][which]
        start = self.pointed(which)
        return None if start is None or not isinstance(kind, tuple) else self.file.table(str(kind[1]), start)

    def tables(self, which: int) -> list[Table]:
        """The tables of a vector of tables."""
        if which not in self._tables:
            self._tables[which] = list(self._read_tables(which))
        return self._tables[which]

    def _read_tables(self, which: int) -> Iterator[Table]:
        kind = _TABLES[self.name][which]
        start, length = self.vector(which, 4)
        for place in range(start, start + 4 * length, 4):
            assert isinstance(kind, tuple)  # only asked of fields that _TABLES lists as tables
            yield self.file.table(str(kind[1]), place + self.file.number(place, "I"))

    def check_below(self) -> None:
        """Prove that this table and all that it holds lie inside the file."""
        for which, kind in _TABLES[self.name].items():
            if isinstance(kind, int):
                self.place(which, kind)
            elif kind == "string":
                self.vector(which, 1)
            else:
                self._check_below(which, *kind)

    def _check_below(self, which: int, shape: str, what: int | str) -> None:
        if shape == "vector":
            self.vector(which, int(what))
        elif shape == "tables":
            for table in self.tables(which):
                table.check_below()
        else:
            inner = self.table(which)
            if inner is not None:
                inner.check_below()
