"""The kernel calls of a program on a machine, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge.kernels.isa import Machine
from edge.kernels.move import lower_halo
from edge.kernels.registry import Derived, Lowered, Lowering, Place, select
from edge.program import Program

_HALO = "fill_halo"


@dataclass(frozen=True)
class Call:
    """One kernel call and the instruction it belongs to (-1: the halos of the network's inputs)."""

    lowered: Lowered
    instruction: int

    @property
    def fills_halo(self) -> bool:
        return self.lowered.code.name == _HALO


def calls_of(program: Program, machine: Machine, derived: Derived) -> Iterator[Call]:
    """Before each instruction whose output has a halo, a call that fills it. Raises FormatError where no kernel runs an instruction."""
    for number in program.inputs:
        yield from _halo(program, number, -1)
    for number, instruction in enumerate(program.instructions):
        for output in instruction.outputs:
            yield from _halo(program, output, number)
        lowering = Lowering(program, instruction, machine, derived)
        yield Call(select(lowering).lower(lowering), number)


def _halo(program: Program, number: int, instruction: int) -> Iterator[Call]:
    tensor = program.tensors[number]
    if tensor.type.halo:
        yield Call(lower_halo(Place(tensor.type, tensor.offset)), instruction)
