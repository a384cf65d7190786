"""What a program costs on a machine: exact bytes, multiply-accumulates, and how many cycles its kernels take by a device profile.

A kind of kernel is `<operation>_<input>_<filter>_<output>` or `<operation>_<input>` (`kind_of`); a profile gives each the cycles of one of
every feature of its work (`edge.targets.features`). Multiply-accumulates are counted as the operation defines them, `macs`, and with those
of the padding that stored filters have, `stored_macs`; as a feature they are those that tiles really compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from edge.footprint import Footprint, footprint
from edge.kernels.isa import Machine
from edge.kernels.move import lower_halo
from edge.kernels.registry import Derived, Lowered, Lowering, Place, select
from edge.ops import OpCall
from edge.program import Instruction, Program
from edge.targets.devices import KernelCost
from edge.targets.features import Stream, halo_work, work_of

HALO = "fill_halo"  # the kind of the kernel that fills halos, which is no operation


@dataclass(frozen=True)
class InstructionCost:
    """What one instruction takes, the halo of its output included.

    `constants_bytes` are of constants no instruction before it uses, `derived_bytes` likewise; `input_bytes` and `output_bytes` are of its
    tensors in the arena, and `read_bytes` of all constants it reads. `precision` is (bits of an input value, bits of a weight); `work` is
    what threads are shared by; `features` and `streams` are those of `edge.targets.features`, `halo` the features of what fills the halos
    of its outputs.
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
    work: int
    features: Mapping[str, float]
    streams: tuple[Stream, ...] = ()
    halo: Mapping[str, float] = field(default_factory=dict)

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written once: inputs, constants, output."""
        return self.input_bytes + self.output_bytes + self.read_bytes


@dataclass(frozen=True)
class ProgramCost:
    """A program on a machine: by instruction, and the bytes an engine allocates there."""

    instructions: tuple[InstructionCost, ...]
    footprint: Footprint


def program_cost(program: Program, machine: Machine, *, threads: int = 1) -> ProgramCost:
    """Lower a program for a machine, which need not be this one; no kernel is compiled. Raises FormatError where none fits.

    The footprint is that of an engine of `threads` threads.
    """
    derived = Derived(0)
    calls = list(_input_halos(program))
    costs = []
    used: set[int] = set()
    for instruction in program.instructions:
        before = derived.nbytes
        own = [halo for output in instruction.outputs for halo in _halo(program, output)]
        lowering = Lowering(program, instruction, machine, derived)
        own.append(select(lowering).lower(lowering))
        halo = _halo_features(program, instruction)
        costs.append(replace(_cost(lowering, own[-1], derived.nbytes - before, used), halo=halo))
        calls += own
    return ProgramCost(tuple(costs), footprint(program, derived, calls, threads))


def _input_halos(program: Program) -> Iterator[Lowered]:
    for number in program.inputs:
        yield from _halo(program, number)


def _halo(program: Program, number: int) -> Iterator[Lowered]:
    tensor = program.tensors[number]
    if tensor.type.halo:
        yield lower_halo(Place(tensor.type, tensor.offset))


def _halo_features(program: Program, instruction: Instruction) -> dict[str, float]:
    total: dict[str, float] = {}
    for output in instruction.outputs:
        for name, count in halo_work(program.tensors[output].type).items():
            total[name] = total.get(name, 0.0) + count
    return total


def _cost(lowering: Lowering, lowered: Lowered, derived_bytes: int, used: set[int]) -> InstructionCost:
    program, instruction, call, work = lowering.program, lowering.instruction, lowering.call, work_of(lowering)
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
        work=lowered.work,
        features=work.features,
        streams=work.streams,
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
    """Predicted cycles of an instruction, its halos included where the profile has `HALO`, and the figures they come from.

    Of a kind the profile does not list, the slowest kind of the same operation, else of all, is taken.
    """
    figures = kernels.get(cost.kind)
    if figures is None:
        same = [each for name, each in kernels.items() if name.startswith(f"{cost.operation}_")]
        figures = max(same or [each for name, each in kernels.items() if name != HALO], key=lambda each: _total(cost, each))
    halo = _of_features(cost.halo, kernels[HALO]) if HALO in kernels else 0.0
    return _total(cost, figures) + halo, figures


def _total(cost: InstructionCost, figures: KernelCost) -> float:
    return _of_features(cost.features, figures)


def _of_features(features: Mapping[str, float], figures: KernelCost) -> float:
    return sum(features.get(name, 0.0) * cycles_of_one for name, cycles_of_one in figures.cycles.items())
