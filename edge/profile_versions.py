"""The versions of a Keras model that stand side by side in a profile: 32, 8 and 1 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.bench_models import random_examples
from edge.errors import EdgeError
from edge.format import read
from edge.program import Program
from edge.tensors import Encoding

FLOAT, BYTES, BINARY_WEIGHTS, BINARY = "32 bits", "8 bits", "1-bit weights", "1 bit"
Told = Callable[[str], None]
Versions = list[tuple[str, Path]]


def convert_all(path: Path, folder: Path, *, tell: Told = lambda what: None) -> tuple[Versions, list[str]]:
    """(name of the version, `.edge` file) of a Keras file, written into `folder`, and sentences on what they are.

    32 bits; 8 bits, weights and activations; 1 bit. A model that was not trained with signs has two of 1 bit: its weights alone, and its
    activations too. Raises `ModelError` where it cannot be converted at all.
    """
    from edge.converters.convert import convert

    tell(f"converting {path.name} at {FLOAT}")
    convert(path, folder / "32.edge", bits=32, formats="edge")
    program = read(folder / "32.edge")
    made, remarks = [(FLOAT, folder / "32.edge")], []
    examples = random_examples(program)
    for name, bits, activations in _wanted(program):
        tell(f"converting {path.name} at {name}")
        file = folder / f"{bits}-{activations}.edge"
        try:
            convert(path, file, bits=bits, activation_bits=activations, calibrate=examples if bits == 8 else None, formats="edge")
        except EdgeError as err:
            remarks.append(f"{name} is left out: {err}")
        else:
            made.append((name, file))
    return made, [*remarks, *_remarks(program)]


def _wanted(program: Program) -> list[tuple[str, int, int | None]]:
    binary = [(BINARY, 1, None)] if _is_binary(program) else [(BINARY_WEIGHTS, 1, None), (BINARY, 1, 1)]
    return [(BYTES, 8, None), *binary]


def _is_binary(program: Program) -> bool:
    return any(tensor.type.encoding is Encoding.BITS for tensor in program.tensors)


def _remarks(program: Program) -> list[str]:
    ranges = "8 bits are calibrated on random pictures: bytes and times do not depend on them, answers do"
    if _is_binary(program):
        return [ranges, "it was trained with signs: its binary layers are packed in every version"]
    return [ranges, "its 1-bit versions have the bytes and times of a network trained so: the answers of this one need that training"]
