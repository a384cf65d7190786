"""The certificate of a `.edge` file: that it was compared with its source by Keras, on what, and what came out.

It stands in the file's metadata under "certificate" and is bound to everything else in the file by a hash: a file that was edited since
has a void one. It is a record, not a signature: whoever can write the file can write another certificate.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.cli_model import naming, require_edge
from edge.engine import load
from edge.errors import EdgeError, FormatError, InputError
from edge.format import pieces
from edge.program import Program
from edge.self_check import Outcome, SelfCheck, read_self_check, repeat

KEY = "certificate"
MAX_COUNT = 1 << 40
_MAX_TEXT = 2000


@dataclass(frozen=True)
class Certificate:
    """What was compared and what came out.

    program_sha256   of the program without this certificate (`program_sha256`)
    source, sha256   the Keras file's name, and of its bytes
    oracle           what computed the source: Keras, its version and backend
    data             words that say where the examples were from; how many, sha256 of what the network was given, seed of random ones
    precision        what equality means: "exact", "16 bits", "8 bits", "4 or 2 bits" or "1 bit"
    tolerance        the bounds that were applied, by name
    result           the verdict in words; what came out of the comparison, by name
    date, edge       when, in UTC, and by which version; `machine` the instruction set that ran it
    check            what `edge verify --self` repeats
    """

    program_sha256: str
    source: str
    source_sha256: str
    oracle: str
    data: str
    examples: int
    data_sha256: str
    seed: int | None
    precision: str
    tolerance: Mapping[str, float]
    verdict: str
    result: Mapping[str, float | None]
    date: str
    edge: str
    machine: str
    check: SelfCheck

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {"check": self.check.to_json()}


def facts(certificate: Certificate) -> dict[str, Any]:
    """All of it but what is repeated, for people and programs."""
    return {name: value for name, value in certificate.to_json().items() if name != "check"}


# -- what it is bound to ---------------------------------------------------------------------------------------------------------


def program_sha256(program: Program) -> str:
    """The hash of all of a program but its certificate: sizes, tensors, constants, instructions, names and the rest of the metadata.

    The version of the format in the header is left out, so that a file written again by a newer edge keeps its certificate.
    """
    bare = replace(program, metadata={name: value for name, value in program.metadata.items() if name != KEY})
    counts = (program.arena_bytes, *map(len, (program.tensors, program.constants, program.inputs, program.outputs)))
    digest = hashlib.sha256(struct.pack("<5q", *counts))
    _, *body = pieces(bare)
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def void_reason(program: Program, certificate: Certificate) -> str | None:
    """Why a certificate is not that of the program it came with; None where it is."""
    if certificate.program_sha256 == program_sha256(program):
        return None
    return "the file was edited after it was signed off"


def held(program: Program, name: str) -> Certificate:
    """The certificate of a program from the file `name`. Raises `EdgeError` where there is none, or it does not hold."""
    certificate = read_certificate(program)
    if certificate is None:
        raise InputError(f"{name} holds no certificate; where Keras is installed, make one: edge verify MODEL.h5 {name} --sign-off")
    reason = void_reason(program, certificate)
    if reason is not None:
        raise EdgeError(f"the certificate of {name} is void: {reason}; sign the file off again, or take the one that was signed off")
    return certificate


def repeat_file(path: Path) -> tuple[Certificate, Outcome]:
    """Repeat on this machine what the certificate of a `.edge` file holds. Raises `EdgeError` where it has none that holds."""
    with naming(require_edge(path, "checked by itself")):
        engine = load(path)
        certificate = held(engine.program, str(path))
        return certificate, repeat(engine, certificate.check)


def state(program: Program) -> dict[str, Any]:
    """What there is to say of a program's certificate: "state" none, valid, void or damaged, the "reason", and its facts."""
    try:
        certificate = read_certificate(program)
    except FormatError as err:
        return {"state": "damaged", "reason": str(err)}
    if certificate is None:
        return {"state": "none"}
    reason = void_reason(program, certificate)
    return {"state": "valid" if reason is None else "void", "reason": reason, **facts(certificate)}


def with_certificate(program: Program, certificate: Certificate) -> Program:
    """The program with a certificate in the place of what it had."""
    return replace(program, metadata={**program.metadata, KEY: certificate.to_json()})


# -- reading ---------------------------------------------------------------------------------------------------------------------


def read_certificate(program: Program) -> Certificate | None:
    """The certificate in a program's metadata, None where there is none; `void_reason` says whether it holds.

    Raises `FormatError` for anything that edge did not write.
    """
    stored = program.metadata.get(KEY)
    if stored is None:
        return None
    try:
        return _read(stored, program)
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise FormatError(f"its certificate is damaged ({_reason(err)}); sign the file off again, or convert it again") from err


def _reason(err: Exception) -> str:
    return f"{err} is missing" if isinstance(err, KeyError) else str(err)


def _read(stored: Any, program: Program) -> Certificate:
    if not isinstance(stored, dict):
        raise ValueError(f"expected an object, got {type(stored).__name__}")
    return Certificate(
        **{field.name: _text(stored, field.name) for field in dataclasses.fields(Certificate) if field.type == "str"},
        examples=_count(stored, "examples"),
        seed=None if stored["seed"] is None else _count(stored, "seed"),
        tolerance={name: value for name, value in _numbers(stored, "tolerance").items() if value is not None},
        result=_numbers(stored, "result"),
        check=read_self_check(stored["check"], program),
    )


def _text(stored: Mapping[str, Any], name: str) -> str:
    value = stored[name]
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"expected a text of at most {_MAX_TEXT} characters in {name}, got {_short(value)}")
    return value


def _count(stored: Mapping[str, Any], name: str) -> int:
    value = stored[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"expected a whole number of 0 to {MAX_COUNT} in {name}, got {_short(value)}")
    return value


def _numbers(stored: Mapping[str, Any], name: str) -> dict[str, float | None]:
    values = stored[name]
    if not isinstance(values, dict) or not all(_is_number(value) or value is None for value in values.values()):
        raise ValueError(f"expected numbers by name in {name}, got {_short(values)}")
    return dict(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
