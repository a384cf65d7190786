"""A `.edge` file as data for `edge inspect`: what it stores, and what it becomes on this machine, without compiling anything."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge import certificate
from edge.errors import EdgeError, FormatError
from edge.format import read
from edge.kernels.isa import Machine, detect
from edge.kernels.library import in_use
from edge.ops import ConstantType
from edge.preprocess import Preprocess
from edge.program import Instruction, Program
from edge.targets.costs import ProgramCost, program_cost
from edge.tensors import Encoding
from edge.verifier import verify

_VERSION_OFFSET = 8  # of major and minor in the header (`edge.format`)


def describe(path: Path) -> dict[str, Any]:
    """All that `edge inspect` shows of a verified file. Raises EdgeError."""
    program = read(path)
    verify(program)
    library = in_use()
    machine = library.machine if library else detect()
    cost = _cost(program, machine)
    return {
        "format": "edge",
        "format_version": _version(path),
        "metadata": dict(program.metadata),
        "inputs": [_end(program, number, name) for number, name in zip(program.inputs, _names(program, "inputs"), strict=True)],
        "outputs": _outputs(program),
        "preprocessing": described(program.metadata, program.tensors[program.inputs[0]].type.shape),
        "certificate": certificate.state(program),
        "instruction_set": machine.isa.name,
        "instructions": list(_instructions(program, cost)),
        "weights": _weights(program),
        "constants_bytes": program.blob.nbytes,
        "memory": _memory(program, cost),
    }


def _version(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(_VERSION_OFFSET)
        major, minor = struct.unpack("<2H", file.read(4))
    return f"{major}.{minor}"


def _cost(program: Program, machine: Machine) -> ProgramCost | None:
    """Kernels and footprint on a machine; None where it has no kernel for an operation: the file can be looked at all the same."""
    try:
        return program_cost(program, machine)
    except FormatError:
        return None


# -- tensors ---------------------------------------------------------------------------------------------------------------------


def _names(program: Program, ends: str) -> list[str]:
    """The names of "inputs" or "outputs", numbered where the file has none."""
    stored = [entry["name"] if isinstance(entry, dict) else entry for entry in program.metadata.get(ends, ())]
    return stored or [f"{ends[:-1]}{i}" for i in range(len(getattr(program, ends)))]


def _end(program: Program, number: int, name: str) -> dict[str, Any]:
    kind = program.tensors[number].type
    steps = {"scale": kind.scale, "zero_point": kind.zero_point} if kind.encoding is Encoding.INT8 else {}
    return {"name": name, "shape": list(kind.shape), "dtype": kind.encoding.name.lower(), **steps}


def _outputs(program: Program) -> list[dict[str, Any]]:
    ends = [_end(program, number, name) for number, name in zip(program.outputs, _names(program, "outputs"), strict=True)]
    stored = program.metadata.get("outputs") or [{}] * len(ends)
    return [end | {key: entry[key] for key in ("kind", "activation") if key in entry} for end, entry in zip(ends, stored, strict=True)]


def described(metadata: Mapping[str, Any], shape: tuple[int, ...]) -> str | None:
    """The preprocessing that a file stores, in words; None where it stores none, and what is wrong where it is damaged."""
    stored = metadata.get("preprocess")
    if stored is None:
        return None
    try:
        return Preprocess.from_json(stored).describe(shape)
    except EdgeError as err:
        return str(err)


# -- instructions ----------------------------------------------------------------------------------------------------------------


def _instructions(program: Program, cost: ProgramCost | None) -> Iterator[dict[str, Any]]:
    count = len(program.instructions)
    names = program.layers or ((),) * count
    kernels = [each.kernel for each in cost.instructions] if cost else [None] * count
    seen: set[int] = set()
    for number, (instruction, layers, kernel) in enumerate(zip(program.instructions, names, kernels, strict=True)):
        new = {constant for constant in instruction.constants if constant >= 0} - seen
        seen |= new
        yield {
            "number": number,
            "op": instruction.definition.name,
            "layers": list(layers),
            "inputs": [_tensor(program, tensor) for tensor in instruction.inputs],
            "output": _tensor(program, instruction.output),
            "signs": _tensor(program, instruction.signs) if instruction.signs >= 0 else None,
            "attributes": {name: _finite(value) for name, value in instruction.attributes().items()},
            "constants": _constants(program, instruction),
            "bits": _bits(program, instruction),
            "bytes": sum(program.constants[constant].nbytes for constant in new),
            "macs": _macs(program, instruction),
            "kernel": kernel,
        }


def _finite(value: int | float) -> int | float | None:
    """JSON has no infinity, which stands for no limit."""
    return value if abs(value) < float("inf") else None


def _tensor(program: Program, number: int) -> dict[str, Any]:
    tensor = program.tensors[number]
    halo = tensor.type.halo
    return {
        "tensor": number,
        "shape": list(tensor.type.shape),
        "encoding": tensor.type.encoding.name.lower(),
        "halo": [halo.top, halo.bottom, halo.left, halo.right],
        "bytes": tensor.type.nbytes,
        "offset": tensor.offset,
    }


def _constants(program: Program, instruction: Instruction) -> dict[str, dict[str, Any]]:
    roles = zip(instruction.definition.constants, instruction.constants, strict=True)
    present = {role: program.constants[number] for role, number in roles if number >= 0}
    return {
        role: {"encoding": constant.type.encoding.name.lower(), "shape": list(constant.type.shape), "bytes": constant.nbytes}
        for role, constant in present.items()
    }


def _filter(program: Program, instruction: Instruction) -> ConstantType | None:
    return program.call(instruction).constants.get("filter")


def _bits(program: Program, instruction: Instruction) -> int | None:
    """Bits of a weight; None where the instruction has none."""
    stored = _filter(program, instruction)
    return stored.encoding.bits if stored else None


def _macs(program: Program, instruction: Instruction) -> int:
    return instruction.definition.macs(program.call(instruction), program.tensors[instruction.output].type.shape)


# -- totals ----------------------------------------------------------------------------------------------------------------------


def _weights(program: Program) -> list[dict[str, int]]:
    """By bits of a weight: how many there are, their bytes, and the multiply-accumulates that use them."""
    totals: dict[int, dict[str, int]] = {}
    seen: set[int] = set()
    for instruction in program.instructions:
        bits = _bits(program, instruction)
        if bits is None:
            continue
        row = totals.setdefault(bits, {"bits": bits, "weights": 0, "bytes": 0, "macs": 0})
        row["macs"] += _macs(program, instruction)
        number = instruction.constant("filter")
        if number not in seen:
            seen.add(number)
            row["weights"] += _elements(program.constants[number].type)
            row["bytes"] += program.constants[number].nbytes
    return [totals[bits] for bits in sorted(totals)]


def _elements(kind: ConstantType) -> int:
    count = 1
    for size in kind.shape:
        count *= size
    return count


def _memory(program: Program, cost: ProgramCost | None) -> dict[str, int]:
    """Bytes of RAM: the constants of the file, the arena that all tensors share, and what running on this machine adds to them."""
    parts = {"constants": program.blob.nbytes, "arena_peak": program.arena_bytes}
    if cost is None:
        return parts
    found = cost.footprint
    added = {"derived": found.derived_bytes, "scratch": found.scratch_bytes, "arguments": found.argument_bytes}
    return {**parts, **added, "footprint": found.total_bytes}
