"""What a program costs on a machine: exact bytes, multiply-accumulates, and how many cycles its kernels take by a device profile.

A kind of kernel is `<operation>_<input>_<filter>_<output>` or `<operation>_<input>` (`kind_of`); a profile gives each the cycles per
multiply-accumulate, per value, and per call. Values are the output's, for a pool those of all windows. Multiply-accumulates are counted
twice: `macs` as the operation defines them, `stored_macs` with those of the padding that stored filters have and kernels compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge.engine import Footprint
from edge.kernels.isa import Machine
from edge.kernels.loop import RECORD
from edge.kernels.move import lower_halo
from edge.kernels.registry import Derived, Lowered, Lowering, Place, select
from edge.ops import OpCall
from edge.program import Instruction, Program
from edge.targets.devices import KernelCost

WORD_BYTES = 8


@dataclass(frozen=True)
class InstructionCost:
    """What one instruction takes, the halo of its output included.

    `constants_bytes` are of constants no instruction before it uses, `derived_bytes` likewise; `input_bytes` and `output_bytes` are of its
    tensors in the arena, and `read_bytes` of all constants it reads. `precision` is (bits of an input value, bits of a weight).
    """

    operation: str
    kernel: str
    kind: str
    macs: int
    stored_macs: int
    values: int
    precision: tuple[int, int]
    constants_bytes: int
    derived_bytes: int
    input_bytes: int
    output_bytes: int
    read_bytes: int
    scratch_bytes: int

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written once: inputs, constants, output."""
        return self.input_bytes + self.output_bytes + self.read_bytes


@dataclass(frozen=True)
class ProgramCost:
    """A program on a machine: by instruction, and the bytes an engine allocates there."""

    instructions: tuple[InstructionCost, ...]
    footprint: Footprint


def program_cost(program: Program, machine: Machine) -> ProgramCost:
    """Lower a program for a machine, which need not be this one; no kernel is compiled. Raises FormatError where none fits."""
    derived = Derived(0)
    calls = list(_input_halos(program))
    costs = []
    used: set[int] = set()
    for instruction in program.instructions:
        before = derived.nbytes
        own = [halo for output in instruction.outputs for halo in _halo(program, output)]
        lowering = Lowering(program, instruction, machine, derived)
        own.append(select(lowering).lower(lowering))
        costs.append(_cost(program, instruction, own[-1], derived.nbytes - before, used))
        calls += own
    return ProgramCost(tuple(costs), _footprint(program, derived, calls))


def _input_halos(program: Program) -> Iterator[Lowered]:
    for number in program.inputs:
        yield from _halo(program, number)


def _halo(program: Program, number: int) -> Iterator[Lowered]:
    tensor = program.tensors[number]
    if tensor.type.halo:
        yield lower_halo(Place(tensor.type, tensor.offset))


def _footprint(program: Program, derived: Derived, calls: list[Lowered]) -> Footprint:
    return Footprint(
        constants_bytes=program.blob.nbytes,
        derived_bytes=derived.nbytes,
        arena_bytes=program.arena_bytes,
        scratch_bytes=max((call.scratch_bytes for call in calls), default=0),
        argument_bytes=WORD_BYTES * sum(len(call.args) + RECORD for call in calls),
    )


def _cost(program: Program, instruction: Instruction, lowered: Lowered, derived_bytes: int, used: set[int]) -> InstructionCost:
    call = program.call(instruction)
    output = program.tensors[instruction.output].type
    constants = {number for number in instruction.constants if number >= 0}
    new, sizes = constants - used, {number: program.constants[number].nbytes for number in constants}
    used |= constants
    return InstructionCost(
        operation=instruction.definition.name,
        kernel=lowered.code.name,
        kind=kind_of(program, instruction),
        macs=instruction.definition.macs(call, output.shape),
        stored_macs=_stored_macs(program, instruction),
        values=output.elements * _window(instruction),
        precision=_precision(call),
        constants_bytes=sum(sizes[number] for number in new),
        derived_bytes=derived_bytes,
        input_bytes=sum(program.tensors[number].type.nbytes for number in instruction.inputs),
        output_bytes=sum(program.tensors[number].type.nbytes for number in instruction.outputs),
        read_bytes=sum(sizes.values()) + derived_bytes,
        scratch_bytes=lowered.scratch_bytes,
    )


def _stored_macs(program: Program, instruction: Instruction) -> int:
    """Values of the stored filter, padding included, times output pixels."""
    if "filter" not in instruction.definition.constants:
        return 0
    constant = program.constants[instruction.constant("filter")]
    height, width, _ = program.tensors[instruction.output].type.hwc
    return constant.nbytes * 8 // constant.type.encoding.bits * height * width


def _window(instruction: Instruction) -> int:
    """Values a pool reads for one output value; 1 for everything else."""
    attributes = instruction.attributes()
    return int(attributes["window_h"] * attributes["window_w"]) if "window_h" in attributes else 1


def _precision(call: OpCall) -> tuple[int, int]:
    stored = call.constants.get("filter")
    return call.inputs[0].encoding.bits, stored.encoding.bits if stored else 0


def kind_of(program: Program, instruction: Instruction) -> str:
    """The kind of kernel, such as `conv2d_bits_bits_float32` or `max_pool2d_float32`."""
    call = program.call(instruction)
    encodings = [call.inputs[0].encoding]
    if "filter" in call.constants:
        encodings += [call.constants["filter"].encoding, program.tensors[instruction.output].type.encoding]
    operation = instruction.definition.name.removeprefix("residual_")  # the tile decides, not what comes after it
    return "_".join([operation, *(encoding.name.lower() for encoding in encodings)])


def cycles(cost: InstructionCost, kernels: Mapping[str, KernelCost]) -> tuple[float, KernelCost]:
    """Predicted cycles of an instruction and the figures they come from.

    Of a kind the profile does not list, the slowest kind of the same operation, else of all, is taken.
    """
    figures = kernels.get(cost.kind)
    if figures is None:
        same = [each for name, each in kernels.items() if name.startswith(f"{cost.operation}_")]
        figures = max(same or kernels.values(), key=lambda each: _total(cost, each))
    return _total(cost, figures), figures


def _total(cost: InstructionCost, figures: KernelCost) -> float:
    return cost.stored_macs * figures.cycles_per_mac + cost.values * figures.cycles_per_value + figures.cycles_per_call
