"""Hostile `.edge` files, every one with a right checksum, and the process that tries them.

    python tests/hostile.py PROGRAM FIRST LAST LOG [FAULT]    tries mutants FIRST..LAST-1 of a program of `sample_programs`

The process writes a line to LOG before each stage of a mutant, so that a crash or a hang tells which one it was, and what came of it:

    format      `edge.format` refused it
    verifier    `edge.verifier` refused it
    engine      the engine refused it (an `EdgeError`)
    ran         it ran, inside memory that is fenced by pages nobody may touch
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import random
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sample_programs import inputs_of, program

from edge.errors import EdgeError, FormatError
from edge.format import HEADER_BYTES, from_bytes, to_bytes
from edge.ops import BY_NUMBER, MAX_ATTRIBUTE
from edge.program import SPARE_BYTES, Program
from edge.verifier import verify

RANDOM_MUTANTS = 1000
MEMORY_BYTES = 8 << 30
PATIENCE_S = 60  # for one mutant, kernels that must be compiled included
STAGES = ("format", "verifier", "engine", "ran")
EXTREMES = (0, -1, 1, 1 << 31, (1 << 63) - 1)

_TENSOR_FIELDS = ("encoding", "rank", "size", "size", "size", "scale", "zero point", "halo", "halo", "halo", "halo", "offset")
_CONSTANT_FIELDS = ("encoding", "rank", "size", "size", "size", "size", "constant offset", "bytes")
_HEADER_FIELDS = {16: "file bytes", 24: "arena bytes"} | {64 + 8 * i: "count" for i in range(8)}

Edits = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Field:
    """A word of the file: the record it belongs to, where it is, what it means, its value and the bound that means something for it."""

    record: int
    offset: int
    name: str
    value: int
    bound: int


@dataclass(frozen=True)
class Mutant:
    """Bytes to put into a file at offsets, and why."""

    name: str
    edits: Edits

    def of(self, data: bytes) -> bytes:
        """The hostile file made of a sound one."""
        changed = bytearray(data)
        for offset, piece in self.edits:
            changed[offset : offset + len(piece)] = piece
        digest = hashlib.sha256(changed[:32] + changed[64:]).digest()
        changed[32:64] = digest
        return bytes(changed)


# -- fields --------------------------------------------------------------------------------------------------------------------


def fields(made: Program, data: bytes) -> list[Field]:
    """Every word of the header and of all records."""
    records: list[Sequence[str]] = [*[_TENSOR_FIELDS] * len(made.tensors), *[_CONSTANT_FIELDS] * len(made.constants)]
    records.append(["tensor"] * (len(made.inputs) + len(made.outputs)))
    for instruction in made.instructions:
        op = instruction.definition
        outputs = 2 if op.gives_signs else 1  # the second one may be absent
        operands = [*["tensor"] * (len(instruction.inputs) + outputs), *["constant"] * len(op.constants)]
        records.append(["operation", "inputs", *operands, *op.attrs])
    named = [(i, name) for i, record in enumerate(records) for name in record]
    header = [_field(made, data, -1, offset, name) for offset, name in _HEADER_FIELDS.items()]
    return header + [_field(made, data, record, HEADER_BYTES + 8 * i, name) for i, (record, name) in enumerate(named)]


def _field(made: Program, data: bytes, record: int, offset: int, name: str) -> Field:
    (value,) = struct.unpack_from("<q", data, offset)
    bounds = {
        "encoding": 5, "rank": 3, "scale": 1 << 32, "zero point": 127, "halo": MAX_ATTRIBUTE, "offset": made.arena_bytes,
        "constant offset": made.blob.nbytes, "bytes": made.blob.nbytes, "tensor": len(made.tensors), "constant": len(made.constants),
        "operation": max(BY_NUMBER), "activation": 5, "pad_ones": 1, "relu_after": 1, "groups": 1 << 10,
        "alpha": 1 << 32, "limit": 1 << 32, "value": 1 << 32,
    }  # fmt: skip
    return Field(record, offset, name, value, bounds.get(name, value))


def _word(value: int) -> bytes:
    return struct.pack("<q", max(-(1 << 63), min(value, (1 << 63) - 1)))


# -- mutants -------------------------------------------------------------------------------------------------------------------


def mutants(made: Program, data: bytes) -> Iterator[Mutant]:
    """All mutants of a program, always the same in the same order."""
    words = fields(made, data)
    yield from _extremes(words)
    yield from _swaps(words)
    yield from _random(words, len(data), made.blob.nbytes)


def _extremes(words: Sequence[Field]) -> Iterator[Mutant]:
    """Every field set to the values at which checks break."""
    for word in words:
        near = (word.bound - 1, word.bound, word.bound + 1, word.value - 1, word.value + 1)
        for value in dict.fromkeys((*EXTREMES, *near)):
            if value != word.value:
                yield Mutant(f"{word.name} at {word.offset}: {word.value} -> {value}", ((word.offset, _word(value)),))


def _swaps(words: Sequence[Field]) -> Iterator[Mutant]:
    """All pairs of fields of a record exchanged, and neighbouring fields of the same name."""
    for _, record in itertools.groupby(words, key=lambda word: word.record):
        for first, second in itertools.combinations(record, 2):
            yield from _swap(first, second)
    previous: dict[str, Field] = {}
    for word in words:
        if word.name in previous and previous[word.name].record != word.record:
            yield from _swap(previous[word.name], word)
        previous[word.name] = word


def _swap(first: Field, second: Field) -> Iterator[Mutant]:
    if first.value != second.value:
        edits = (first.offset, _word(second.value)), (second.offset, _word(first.value))
        yield Mutant(f"{first.name} at {first.offset} <-> {second.name} at {second.offset}", edits)


def _random(words: Sequence[Field], size: int, blob_bytes: int) -> Iterator[Mutant]:
    source = random.Random(size)
    for number in range(RANDOM_MUTANTS):
        make = source.choice((_random_words, _random_words, _random_small_words, _random_bytes, _random_constants))
        yield Mutant(f"random {number}", make(source, words, size, blob_bytes))


def _random_words(source: random.Random, words: Sequence[Field], size: int, blob_bytes: int) -> Edits:
    """One to four words become values of other words, as a confused writer would have it."""
    return tuple((word.offset, _word(source.choice(words).value)) for word in source.sample(words, source.randint(1, 4)))


def _random_small_words(source: random.Random, words: Sequence[Field], size: int, blob_bytes: int) -> Edits:
    """One to four words move by little."""
    chosen = source.sample(words, source.randint(1, 4))
    return tuple((word.offset, _word(word.value + source.choice((-64, -8, -1, 1, 8, 64)))) for word in chosen)


def _random_bytes(source: random.Random, words: Sequence[Field], size: int, blob_bytes: int) -> Edits:
    """A few bytes anywhere before the constants, text included."""
    return tuple((source.randrange(size - blob_bytes), source.randbytes(source.randint(1, 3))) for _ in range(source.randint(1, 3)))


def _random_constants(source: random.Random, words: Sequence[Field], size: int, blob_bytes: int) -> Edits:
    """Bytes of constants: thresholds, scales and filters with any values, infinite ones and such as are no numbers among them."""
    start = size - blob_bytes
    places = (start + source.randrange(0, max(1, blob_bytes - 8), 4) for _ in range(source.randint(1, 50)))
    return tuple((place, source.choice((b"\xff" * 4, b"\0\0\x80\x7f", b"\0\0\0\x80", source.randbytes(4)))) for place in places)


# -- trying them ---------------------------------------------------------------------------------------------------------------


def attempt(data: bytes, enter: Callable[[str], None], run: Callable[[Program], object]) -> str:
    """The stage that refused a file, or `ran`; any exception but an `EdgeError` is a fault and goes on."""
    try:
        enter("format")
        made = from_bytes(data)
        enter("verifier")
        verify(made)
    except FormatError as err:
        return "verifier" if "not safe" in str(err) else "format"
    enter("engine")
    try:
        run(made)
    except EdgeError:
        return "engine"
    return "ran"


def _run_fenced(made: Program) -> None:
    from fenced import run_fenced

    run_fenced(made, inputs_of(made)[0])


def _write_behind(made: Program) -> None:
    from fenced import fenced

    memory = fenced(made.arena_bytes, at_end=True, spare=0)
    ctypes.memset(memory.ctypes.data + memory.nbytes + SPARE_BYTES, 0, 1)


def _hang(made: Program) -> None:
    while True:
        pass


# Engines with faults, to prove that they would be noticed.
FAULTY: dict[str, Callable[[Program], object]] = {
    "crash": lambda made: ctypes.string_at(0),
    "hang": _hang,
    "raise": lambda made: 1 // 0,
    "write": _write_behind,
}


def _try_all(name: str, first: int, last: int, log: int, fault: str) -> None:
    made = program(name)
    data = to_bytes(made)
    for number, mutant in itertools.islice(enumerate(mutants(made, data)), first, last):
        enter = functools.partial(_note, log, number)
        signal.alarm(1 if fault else PATIENCE_S)  # ends the process, also inside a kernel
        enter("= " + attempt(mutant.of(data), enter, FAULTY.get(fault, _run_fenced)))


def _note(log: int, number: int, what: str) -> None:
    os.write(log, f"{number} {what}\n".encode())


def main() -> None:
    name, first, last, path, *fault = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _try_all(name, int(first), int(last), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "".join(fault))


if __name__ == "__main__":
    main()
