"""The program: what a `.edge` file stores and the engine runs.

A flat list of instructions over tensors in one arena and constants in one blob. A program knows operations, never kernels: those are
chosen per machine when it is loaded. `edge.format` gives its bytes, `edge.verifier` proves that it cannot touch anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.layout import unpack_constant
from edge.ops import BY_NUMBER, ConstantType, OpCall, OpDef
from edge.tensors import TensorType

ALIGNMENT = 64  # of tensors in the arena and of constants in the blob, bytes
SPARE_BYTES = 64  # after the last byte of arena and blob, so that vector loads may read past the end of a row


@dataclass(frozen=True)
class Tensor:
    """A tensor and where it starts, halo included, in the arena (bytes)."""

    type: TensorType
    offset: int


@dataclass(frozen=True)
class Constant:
    """A constant, where it starts in the blob, and its length there (bytes)."""

    type: ConstantType
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Instruction:
    """One application of an operation; numbers index `Program.tensors` and `Program.constants`.

    `constants` has one entry for every role of the operation, -1 where absent; `attrs` one value for every attribute, in the order of
    the operation's definition. `signs` is the second output, -1 where there is none.
    """

    op: int
    inputs: tuple[int, ...]
    output: int
    constants: tuple[int, ...] = ()
    attrs: tuple[int | float, ...] = ()
    signs: int = -1

    @property
    def definition(self) -> OpDef:
        return BY_NUMBER[self.op]

    @property
    def outputs(self) -> tuple[int, ...]:
        return (self.output,) if self.signs == -1 else (self.output, self.signs)

    def attributes(self) -> dict[str, int | float]:
        """The attributes by name."""
        return dict(zip(self.definition.attrs, self.attrs, strict=True))

    def constant(self, role: str) -> int:
        """The number of the constant with this role, -1 if absent."""
        return self.constants[self.definition.constants.index(role)]


@dataclass(frozen=True)
class Program:
    """A network ready to run.

    `blob` holds the constants (uint8, its spare bytes not included); `metadata` is JSON: names, source, preprocessing, labels, report.
    `layers[i]` names the source layers that instruction i stands for.
    """

    tensors: tuple[Tensor, ...]
    constants: tuple[Constant, ...]
    instructions: tuple[Instruction, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arena_bytes: int
    blob: np.ndarray
    layers: tuple[tuple[str, ...], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def call(self, instruction: Instruction) -> OpCall:
        """An instruction as an application of its operation."""
        present = zip(instruction.definition.constants, instruction.constants, strict=True)
        constants = {role: self.constants[number].type for role, number in present if number >= 0}
        return OpCall(tuple(self.tensors[i].type for i in instruction.inputs), constants, instruction.attributes())

    def stored(self, number: int) -> np.ndarray:
        """The bytes of a constant (uint8, a view of the blob)."""
        constant = self.constants[number]
        return self.blob[constant.offset : constant.offset + constant.nbytes]

    def array(self, instruction: Instruction, role: str) -> np.ndarray | None:
        """A constant of an instruction as `edge.graph` describes it; None if absent."""
        number = instruction.constant(role)
        if number < 0:
            return None
        return unpack_constant(instruction.definition.name, role, self.call(instruction), self.stored(number))
