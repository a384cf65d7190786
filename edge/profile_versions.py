"""The versions of a Keras model that stand side by side in a profile: by default 32, 8 and 1 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge.bench_models import random_examples
from edge.errors import EdgeError
from edge.format import read
from edge.program import Program
from edge.tensors import Encoding
from edge.widths import Bits, is_calibrated

BINARY_WEIGHTS, BINARY = "1-bit weights", "1 bit"
DEFAULT: tuple[Bits, ...] = (32, 8, 1)
Told = Callable[[str], None]
Versions = list[tuple[str, Path]]


def convert_all(
    path: Path, folder: Path, *, widths: Sequence[Bits] = DEFAULT, tell: Told = lambda what: None
) -> tuple[Versions, list[str]]:
    """(name of the version, `.edge` file) of a Keras file, written into `folder`, and sentences on what they are.

    A version for each of `widths`, with int8 activations below 16 bits. A model that was not trained with signs has two of 1 bit: its
    weights alone, and its activations too. Raises `ModelError` where it cannot be converted at all.
    """
    from edge.converters.convert import convert

    plain = folder / "32-None.edge"
    tell(f"converting {path.name} at {_name(32)}")
    convert(path, plain, bits=32, formats="edge")
    program = read(plain)
    made, remarks = [], []
    examples = random_examples(program)
    for name, bits, activations in _wanted(program, widths):
        tell(f"converting {path.name} at {name}")
        file = folder / f"{bits}-{activations}.edge"
        try:
            if file != plain:
                calibrate = examples if is_calibrated(bits) else None
                convert(path, file, bits=bits, activation_bits=activations, calibrate=calibrate, formats="edge")
        except EdgeError as err:
            remarks.append(f"{name} is left out: {err}")
        else:
            made.append((name, file))
    return made, [*remarks, *_remarks(program, widths)]


def _wanted(program: Program, widths: Sequence[Bits]) -> Iterator[tuple[str, Bits, int | None]]:
    """Of each version its name, the bits of its weights, and those of its activations where they are not the default."""
    for bits in widths:
        if bits != 1:
            yield _name(bits), bits, None
        elif _is_binary(program):
            yield BINARY, 1, None
        else:
            yield from ((BINARY_WEIGHTS, 1, None), (BINARY, 1, 1))


def _name(bits: Bits) -> str:
    return f"{bits} bits" if isinstance(bits, int) else bits


def _is_binary(program: Program) -> bool:
    return any(tensor.type.encoding is Encoding.BITS for tensor in program.tensors)


def _remarks(program: Program, widths: Sequence[Bits]) -> list[str]:
    found = []
    if any(map(is_calibrated, widths)):
        found.append("int8 activations are calibrated on random pictures: bytes and times do not depend on them, answers do")
    if _is_binary(program):
        return [*found, "it was trained with signs: its binary layers are packed in every version"]
    if 1 in widths:
        found.append("its 1-bit versions have the bytes and times of a network trained so: the answers of this one need that training")
    return found
