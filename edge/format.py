"""The `.edge` file: a program as bytes.

All numbers are little-endian; a word is a signed 64-bit integer. Nothing may be left over between or after the parts, and padding is zero.

    offset  bytes   header
    0       8       magic: 89 65 64 67 65 0D 0A 1A ("edge" between bytes that text transfers damage)
    8       2       major version
    10      2       minor version, of the format that wrote the file
    12      2       the oldest minor version whose readers understand the file
    14      2       0
    16      8       bytes of the whole file
    24      8       bytes of the arena
    32      32      SHA-256 of all bytes of the file but these 32
    64      8       number of tensors (T)
    72      8       number of constants (C)
    80      8       number of inputs (I)
    88      8       number of outputs (O)
    96      8       words of instructions (W)
    104     8       bytes of text (X)
    112     8       bytes of constants (B)
    120     8       0
    128     96 T    tensors: encoding, rank, 3 sizes (0 beyond the rank), scale, zero point, halo top, bottom, left, right, arena offset
            64 C    constants: encoding, rank, 4 sizes (0 beyond the rank), offset from the first constant, bytes
            8 I     inputs: tensor numbers
            8 O     outputs: tensor numbers
            8 W     instructions: operation, number of inputs, inputs, output, second output of operations that may have one
                    (-1: absent), constants by role (-1: absent), attributes
            X       text: JSON in ASCII, {"layers": [[name, ...] per instruction], "metadata": {...}}, keys sorted, no spaces
            0..63   0, up to a multiple of 64
            B       constants, as `edge.layout` lays them out, each at a multiple of 64

A scale or a float attribute is a word that holds the bits of a float32. The numbers of encodings, operations and activations are in
`edge.tensors` and `edge.ops`, the order of constants and attributes is that of the operation's definition there; they never change.

Versions. A reader takes every older minor version of its major version, and a newer one if the file says that this reader's minor version
understands it: a writer names the oldest that does, which knows all operations of the file. Any other major version is refused.

`read` proves the structure of the file; `edge.verifier` proves that the program is safe to run.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap as mapping
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import Any, TypeVar

import numpy as np

from edge.errors import EdgeError, FormatError
from edge.files import Bytes, write_atomically
from edge.memory import aligned
from edge.ops import needed_minor
from edge.paths import require_file
from edge.program import ALIGNMENT, SPARE_BYTES, Instruction, Program
from edge.records import (
    CONSTANT_WORDS,
    TENSOR_WORDS,
    RecordError,
    Words,
    constant_words,
    instruction_words,
    read_constant,
    read_instruction,
    read_tensor,
    tensor_words,
)

MAGIC = b"\x89edge\r\n\x1a"
MAJOR, MINOR = 1, 4

# Ten times what the largest networks of the field need; more would keep the verifier busy for long.
MAX_RECORDS = 1 << 14  # of tensors, constants, instructions each
MAX_WORDS = 1 << 18  # of instructions
MAX_TEXT_BYTES = 4 << 20
MAX_TEXT_DEPTH = 32
MAX_BLOB_BYTES = 1 << 33

_HEADER = struct.Struct("<8s4H2q32s8q")
HEADER_BYTES = _HEADER.size
_LIMITS = (*(MAX_RECORDS,) * 4, MAX_WORDS, MAX_TEXT_BYTES, MAX_BLOB_BYTES)

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class _Header:
    """The header's numbers; where the parts lie follows from them."""

    minor: int
    understood_since: int
    file_bytes: int
    arena_bytes: int
    digest: bytes
    counts: tuple[int, ...]  # tensors, constants, inputs, outputs, words of instructions
    text_bytes: int
    blob_bytes: int

    @property
    def words(self) -> int:
        """Words between header and text."""
        tensors, constants, *rest = self.counts
        return tensors * TENSOR_WORDS + constants * CONSTANT_WORDS + sum(rest)

    @property
    def text_start(self) -> int:
        return HEADER_BYTES + 8 * self.words

    @property
    def text_end(self) -> int:
        return self.text_start + self.text_bytes

    @property
    def blob_start(self) -> int:
        return -(-self.text_end // ALIGNMENT) * ALIGNMENT

    def packed(self) -> bytes:
        version = (MAJOR, self.minor, self.understood_since, 0)
        sizes = (*self.counts, self.text_bytes, self.blob_bytes, 0)
        return _HEADER.pack(MAGIC, *version, self.file_bytes, self.arena_bytes, self.digest, *sizes)


def _digest(start: Bytes, *rest: Bytes) -> bytes:
    """The checksum of a file that begins with `start`, which holds the whole header."""
    digest = hashlib.sha256(start[:32])
    digest.update(start[64:])
    for piece in rest:
        digest.update(piece)
    return digest.digest()


# -- writing -------------------------------------------------------------------------------------------------------------------


def write(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a program to `path`, whole or not at all; raises `EdgeError` where that fails."""
    write_atomically(path, pieces(program))


def to_bytes(program: Program) -> bytes:
    """The bytes of a program's file; the same program gives the same bytes."""
    return b"".join(pieces(program))


def pieces(program: Program) -> tuple[Bytes, ...]:
    """What `to_bytes` joins; the constants are those of the program itself, no copy."""
    try:
        return _header_and_body(program)
    except RecordError as err:
        raise FormatError(f"cannot write the program: {err}") from err


def _header_and_body(program: Program) -> tuple[Bytes, ...]:
    instructions = [word for instruction in program.instructions for word in instruction_words(instruction)]
    tensors = [word for tensor in program.tensors for word in tensor_words(tensor)]
    constants = [word for constant in program.constants for word in constant_words(constant)]
    words = np.array([*tensors, *constants, *program.inputs, *program.outputs, *instructions], "<i8").tobytes()
    text = _text(program)
    counts = tuple(len(part) for part in (program.tensors, program.constants, program.inputs, program.outputs, instructions))
    since = max((_needed_minor(program, instruction) for instruction in program.instructions), default=0)
    header = _Header(MINOR, since, 0, program.arena_bytes, bytes(32), counts, len(text), program.blob.nbytes)
    body = (words, text, bytes(header.blob_start - header.text_end), np.ascontiguousarray(program.blob).data)
    header = replace(header, file_bytes=HEADER_BYTES + sum(len(piece) for piece in body))
    _check_limits(header)
    return replace(header, digest=_digest(header.packed(), *body)).packed(), *body


def _needed_minor(program: Program, instruction: Instruction) -> int:
    encodings = (program.constants[number].type.encoding for number in instruction.constants if number >= 0)
    return needed_minor(instruction.definition, instruction.attributes(), encodings)


def _text(program: Program) -> bytes:
    """Layer names and metadata in canonical form."""
    content = {"layers": [list(names) for names in program.layers], "metadata": dict(program.metadata)}
    _check_depth(content)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


# -- reading -------------------------------------------------------------------------------------------------------------------


def is_edge_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as `.edge` files do."""
    try:
        with open(require_file(path, "model"), "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, EdgeError):
        return False


def read(path: str | os.PathLike[str], *, mmap: bool = False) -> Program:
    """The program of a file, its constants in memory of its own that starts at a multiple of 64 and has spare bytes behind it.

    With `mmap` the constants stay in the file and are fetched when they are used; then whoever truncates the file kills this process, and
    whoever rewrites it in place changes what it computes. Raises `FormatError`, and `InputError` if there is no such file.
    """
    name = os.fspath(path)
    try:
        with open(require_file(path, "model"), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEADER_BYTES)
            header = _parsed(name, lambda: _header(head, size))
            mapped = _mapped(file, size) if mmap else None
            if mapped is not None:
                return _mapped_program(mapped, name)
            head += file.read(header.blob_start - len(head))
            return _program(head, _copied(file, header, name), header, name)
    except OSError as err:
        raise EdgeError(f"cannot read {name}: {err.strerror or err}; check the file") from err
    except MemoryError as err:
        raise EdgeError(f"cannot read {name}: its {size} bytes do not fit the memory; use a machine with more") from err


def from_bytes(data: Bytes, name: str = "the model") -> Program:
    """The program of a file's bytes; `name` is for messages. Raises `FormatError`."""
    header = _parsed(name, lambda: _header(data, len(data)))
    blob = aligned(header.blob_bytes)
    blob[:] = np.frombuffer(data, np.uint8, header.blob_bytes, header.blob_start)
    return _program(memoryview(data)[: header.blob_start], blob, header, name)


def _copied(file: BufferedReader, header: _Header, name: str) -> np.ndarray:
    """The constants, which are the rest of the file; what stands before them is not kept."""
    blob = aligned(header.blob_bytes)
    got = 0
    while got < len(blob) and (more := file.readinto(blob.data[got:])):
        got += more
    if got < len(blob):
        found = header.blob_start + got
        raise FormatError(
            f"cannot read {name}: expected {header.file_bytes} bytes, got {found}; it changes while it is read, so wait and try again"
        )
    return blob


def _mapped(file: BufferedReader, size: int) -> np.ndarray | None:
    """The file's bytes, mapped; None where its last page has no room for the spare bytes behind it."""
    if -size % mapping.PAGESIZE < SPARE_BYTES:
        return None
    return np.frombuffer(mapping.mmap(file.fileno(), size, access=mapping.ACCESS_READ), np.uint8)


def _mapped_program(content: np.ndarray, name: str) -> Program:
    header = _parsed(name, lambda: _header(content.data, len(content)))
    return _program(content.data[: header.blob_start], content[header.blob_start :], header, name)


def _parsed(name: str, parse: Callable[[], _Record]) -> _Record:
    try:
        return parse()
    except RecordError as err:
        raise FormatError(f"cannot read {name}: {err}") from err


def _program(head: Bytes, blob: np.ndarray, header: _Header, name: str) -> Program:
    """`head` is what stands before the constants."""
    blob.flags.writeable = False
    return _parsed(name, lambda: _assemble(head, blob, header))


def _header(data: Bytes, size: int) -> _Header:
    """The header, proved to agree with itself and with the size of the file."""
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise RecordError("it is no .edge file: expected its first bytes to be 89 65 64 67 65 0D 0A 1A; give a file that edge wrote")
    if len(data) < HEADER_BYTES:
        raise RecordError(f"expected a header of {HEADER_BYTES} bytes, got {len(data)}: the file was cut off; copy or convert it again")
    _, major, minor, since, zero, file_bytes, arena_bytes, digest, *numbers = _HEADER.unpack(data[:HEADER_BYTES])
    _check_version(major, minor, since)
    header = _Header(minor, since, file_bytes, arena_bytes, digest, tuple(numbers[:5]), numbers[5], numbers[6])
    if size != file_bytes:
        raise RecordError(f"expected {file_bytes} bytes, got {size}: the file was cut off or added to; copy or convert it again")
    if zero or numbers[7]:
        raise RecordError("a reserved field of its header is not 0; convert it again")
    _check_limits(header)
    if header.blob_start + header.blob_bytes != file_bytes:
        raise RecordError(f"its parts take {header.blob_start + header.blob_bytes} bytes of {file_bytes}; convert it again")
    return header


def _check_version(major: int, minor: int, since: int) -> None:
    readable = major == MAJOR and (minor <= MINOR or since <= MINOR)
    if not readable:
        raise RecordError(
            f"expected version {MAJOR}.0 to {MAJOR}.{MINOR} of the format, got {major}.{minor}; "
            "use the version of edge that wrote it or a newer one, or convert the source model again with this one"
        )


def _check_limits(header: _Header) -> None:
    numbers = (*header.counts, header.text_bytes, header.blob_bytes)
    names = ("tensors", "constants", "inputs", "outputs", "words of instructions", "bytes of text", "bytes of constants")
    for name, number, limit in zip(names, numbers, _LIMITS, strict=True):
        if not 0 <= number <= limit:
            raise RecordError(f"expected 0 to {limit} {name}, got {number}; convert a smaller model")


def _assemble(data: Bytes, blob: np.ndarray, header: _Header) -> Program:
    if _digest(data, blob.data) != header.digest:
        raise RecordError("expected its checksum to match its bytes, got another: it is damaged; copy or convert it again")
    if any(data[header.text_end : header.blob_start]):
        raise RecordError("the padding before its constants is not 0; convert it again")
    words = Words(np.frombuffer(data, "<i8", header.words, HEADER_BYTES).tolist())
    text = _read_text(bytes(data[header.text_start : header.text_end]))
    tensors, constants, inputs, outputs, _ = header.counts
    return Program(
        tensors=_records("tensor", read_tensor, words, tensors),
        constants=_records("constant", read_constant, words, constants),
        inputs=tuple(words.take(inputs)),
        outputs=tuple(words.take(outputs)),
        instructions=_instructions(words),
        arena_bytes=header.arena_bytes,
        blob=blob,
        layers=tuple(tuple(names) for names in text["layers"]),
        metadata=text["metadata"],
    )


def _records(kind: str, parse: Callable[[Words], _Record], words: Words, count: int) -> tuple[_Record, ...]:
    return tuple(_record(kind, i, parse, words) for i in range(count))


def _record(kind: str, number: int, parse: Callable[[Words], _Record], words: Words) -> _Record:
    try:
        return parse(words)
    except RecordError as err:
        raise RecordError(f"{kind} {number}: {err}; convert it again") from err


def _instructions(words: Words) -> tuple[Instruction, ...]:
    found: list[Instruction] = []
    while words.left:
        if len(found) == MAX_RECORDS:
            raise RecordError(f"expected at most {MAX_RECORDS} instructions, got more; convert a smaller model")
        found.append(_record("instruction", len(found), read_instruction, words))
    return tuple(found)


# -- text ----------------------------------------------------------------------------------------------------------------------


def _read_text(text: bytes) -> dict[str, Any]:
    """Layer names and metadata, with the types that `_text` writes."""
    try:
        content = json.loads(text.decode("ascii"), parse_constant=_number, parse_float=_number)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # halves of surrogate pairs cannot be printed
    except (ValueError, RecursionError) as err:
        raise RecordError(f"its text is no JSON in ASCII: {err or 'too deep'}; convert it again") from err
    if not isinstance(content, dict) or set(content) != {"layers", "metadata"} or not isinstance(content["metadata"], dict):
        raise RecordError('expected its text to be {"layers": [...], "metadata": {...}}, got something else; convert it again')
    layers = content["layers"]
    if not isinstance(layers, list) or not all(isinstance(names, list) and _all_strings(names) for names in layers):
        raise RecordError("expected a list of names for each instruction, got something else; convert it again")
    _check_depth(content)
    return content


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _all_strings(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_depth(content: Any) -> None:
    level: Sequence[Any] = [content]
    for _ in range(MAX_TEXT_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise RecordError(f"expected metadata nested at most {MAX_TEXT_DEPTH} deep, got more; convert it again")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()
