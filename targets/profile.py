"""What a model costs on a device: bytes exactly, time measured where the device is this machine, else predicted.

Predicted time of an instruction is the larger of its computation and its memory traffic, plus an overhead:

    compute  = cycles (`edge.targets.costs`) / clock
    memory   = constants and tensors, each read or written once, at the bandwidth of the second-level cache where the whole
               program fits into it, else of memory
    seconds  = max(compute, memory) + overhead

Whichever of the three is largest limits the layer. Nothing predicted is ever called measured.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.engine import Engine, Footprint
from edge.format import read
from edge.kernels.isa import detect
from edge.program import Program
from edge.targets.costs import InstructionCost, ProgramCost, cycles, program_cost
from edge.targets.devices import HOST, Device, load_device
from edge.verifier import verify

MEASURED, PREDICTED = "measured", "predicted"
COMPUTE, MEMORY, OVERHEAD = "compute", "memory", "overhead"
_REPEATS = 30
_HOST_ERROR = 0.1  # of a median of repeats on a machine that does other things too


@dataclass(frozen=True)
class LayerProfile:
    """One instruction. `precision` is "activation bits x weight bits"; `limit` is COMPUTE, MEMORY or OVERHEAD, empty where unknown.

    `storage_bytes` are its constants in the file, `derived_bytes` what is computed from them at load, `output_bytes` its output in the
    arena, which layers share.
    """

    layers: tuple[str, ...]
    operation: str
    kernel: str
    precision: str
    macs: int
    storage_bytes: int
    derived_bytes: int
    output_bytes: int
    scratch_bytes: int
    seconds: float
    expected_error: float
    limit: str


@dataclass(frozen=True)
class Profile:
    """A model on a device, one thread.

    `storage_bytes` is the size of the file, `footprint` what an engine allocates there; `fits_*` is None where the room is unknown.
    `time_basis` is MEASURED or PREDICTED, with the relative `expected_error` of `seconds`; `one_bit_share` is the share of the time in
    layers that multiply 1-bit weights with 1-bit activations.
    """

    model: str
    target: str
    title: str
    isa: str
    storage_bytes: int
    footprint: Footprint
    fits_storage: bool | None
    fits_memory: bool | None
    macs: dict[str, int]
    layers: tuple[LayerProfile, ...]
    seconds: float
    time_basis: str
    expected_error: float
    one_bit_share: float

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values, with the footprint's total."""
        result = dataclasses.asdict(self)
        result["footprint"]["total_bytes"] = self.footprint.total_bytes
        return result


def profile(path: str | os.PathLike[str], target: str = HOST) -> Profile:
    """Profile a `.edge` file on a target: HOST, the name of a device profile, or the path of one.

    Raises `InputError` for an unknown target, `FormatError` for a file that is not sound.
    """
    device = None if target == HOST else load_device(target)
    program = read(path)
    verify(program)
    storage_bytes = Path(path).stat().st_size
    name = os.fspath(path)
    return _measured(name, storage_bytes, program) if device is None else predict(name, storage_bytes, program, device)


# -- predicted -----------------------------------------------------------------------------------------------------------------


def predict(name: str, storage_bytes: int, program: Program, device: Device) -> Profile:
    """A program on a device by its profile."""
    cost = program_cost(program, device.machine)
    bandwidth = _bandwidth(cost, device)
    times = [_predicted(each, device, bandwidth) for each in cost.instructions]
    free_storage, free_memory = device.value("free_storage_bytes"), device.value("free_memory_bytes")
    return _profile(
        name,
        (device.name, device.title, device.machine.isa.name, PREDICTED),
        storage_bytes,
        program,
        cost,
        times,
        fits=(storage_bytes <= free_storage, cost.footprint.total_bytes <= free_memory),
    )


@dataclass(frozen=True)
class _Time:
    seconds: float
    expected_error: float
    limit: str


@dataclass(frozen=True)
class _Bandwidth:
    bytes_per_s: float
    expected_error: float


def _bandwidth(cost: ProgramCost, device: Device) -> _Bandwidth:
    """Of the level of memory that holds the whole program."""
    fits = cost.footprint.total_bytes <= device.value("l2_bytes")
    figure = device.figures["l2_bytes_per_s" if fits else "memory_bytes_per_s"]
    return _Bandwidth(figure.value, figure.expected_error)


def _predicted(cost: InstructionCost, device: Device, bandwidth: _Bandwidth) -> _Time:
    count, figures = cycles(cost, device.kernels)
    clock, overhead = device.figures["clock_hz"], device.figures["overhead_s"]
    compute, memory = count / clock.value, cost.moved_bytes / bandwidth.bytes_per_s
    errors = {
        COMPUTE: (compute, figures.expected_error + clock.expected_error),
        MEMORY: (memory, bandwidth.expected_error),
        OVERHEAD: (overhead.value, overhead.expected_error),
    }
    slower = COMPUTE if compute >= memory else MEMORY
    seconds = errors[slower][0] + overhead.value
    error = sum(seconds_ * error_ for seconds_, error_ in (errors[slower], errors[OVERHEAD])) / seconds if seconds else 0.0
    return _Time(seconds, error, max(errors, key=lambda limit: errors[limit][0]))


# -- measured ------------------------------------------------------------------------------------------------------------------


def _measured(name: str, storage_bytes: int, program: Program) -> Profile:
    """On this machine: the median of repeats, on random input."""
    engine = Engine(program, machine=detect())
    kind = program.tensors[program.inputs[0]].type
    pixels = np.random.default_rng(0).integers(0, 256, kind.shape).astype(np.uint8)
    example = pixels if engine.inputs[0].dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
    engine.times(example, 3)  # warm caches
    medians = np.median(engine.times(example, _REPEATS), axis=0)
    times = [_Time(float(seconds), _HOST_ERROR, "") for seconds in medians]
    cost = dataclasses.replace(program_cost(program, engine.machine), footprint=engine.footprint)
    described = HOST, f"this machine ({engine.machine.cpu})", engine.machine.isa.name, MEASURED
    return _profile(name, described, storage_bytes, program, cost, times, fits=(None, None))


# -- the table -----------------------------------------------------------------------------------------------------------------


def _profile(
    name: str,
    described: tuple[str, str, str, str],
    storage_bytes: int,
    program: Program,
    cost: ProgramCost,
    times: Sequence[_Time],
    *,
    fits: tuple[bool | None, bool | None],
) -> Profile:
    target, title, isa, basis = described
    layers = tuple(
        _layer(program.layers[i] if program.layers else (), each, times[i]) for i, each in enumerate(cost.instructions)
    )
    seconds = sum(time.seconds for time in times)
    one_bit = sum(time.seconds for each, time in zip(cost.instructions, times, strict=True) if each.macs and each.precision == (1, 1))
    error = sum(time.seconds * time.expected_error for time in times) / seconds if seconds else 0.0
    return Profile(
        model=name,
        target=target,
        title=title,
        isa=isa,
        storage_bytes=storage_bytes,
        footprint=cost.footprint,
        fits_storage=fits[0],
        fits_memory=fits[1],
        macs=_macs(cost.instructions),
        layers=layers,
        seconds=seconds,
        time_basis=basis,
        expected_error=error,
        one_bit_share=one_bit / seconds if seconds else 0.0,
    )


def _layer(layers: tuple[str, ...], cost: InstructionCost, time: _Time) -> LayerProfile:
    return LayerProfile(
        layers=layers,
        operation=cost.operation,
        kernel=cost.kernel,
        precision=_precision_text(cost) if cost.macs else "",
        macs=cost.macs,
        storage_bytes=cost.constants_bytes,
        derived_bytes=cost.derived_bytes,
        output_bytes=cost.output_bytes,
        scratch_bytes=cost.scratch_bytes,
        seconds=time.seconds,
        expected_error=time.expected_error,
        limit=time.limit,
    )


def _macs(costs: Sequence[InstructionCost]) -> dict[str, int]:
    """Multiply-accumulates by precision."""
    total: dict[str, int] = {}
    for cost in costs:
        if cost.macs:
            total[_precision_text(cost)] = total.get(_precision_text(cost), 0) + cost.macs
    return total


def _precision_text(cost: InstructionCost) -> str:
    return f"{cost.precision[0]}x{cost.precision[1]}"
