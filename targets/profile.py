"""What a model costs on a device: bytes exactly, time measured where the device is this machine, else predicted.

Predictions are those of `edge.targets.roofline`. What limits a layer is always the model's word, for this machine by its calibrated
profile, where there is one. A device whose profile has no kernels gets no times. Nothing predicted or emulated is ever called measured.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.engine import Engine, Footprint
from edge.errors import InputError
from edge.format import read
from edge.program import Program
from edge.targets.costs import InstructionCost, ProgramCost, program_cost
from edge.targets.devices import HOST, Device, load_device, load_host
from edge.targets.measure import instruction_seconds, seconds_by_threads
from edge.targets.roofline import COMPUTE, MEMORY, OVERHEAD, estimates
from edge.verifier import verify

__all__ = (
    "COMPUTE", "EMULATED", "MEASURED", "MEMORY", "OVERHEAD", "PREDICTED", "LayerProfile", "Profile", "emulated", "predict", "profile",
)  # fmt: skip

MEASURED, EMULATED, PREDICTED = "measured", "emulated", "predicted"
_HOST_ERROR = 0.1  # of a median of repeats on a machine that does other things too


@dataclass(frozen=True)
class LayerProfile:
    """One instruction, its time on one thread.

    `precision` is "activation bits x weight bits", empty where nothing is multiplied; `limit` is COMPUTE, MEMORY or OVERHEAD, empty where
    it is not known; `seconds` and `expected_error` (relative) are None where no time is known. `storage_bytes` are its constants in the
    file, `derived_bytes` what is computed from them at load, `input_bytes` and `output_bytes` its tensors in the arena, which layers share.
    `moved_bytes` are its inputs, constants and output, each once; `kind` is the kind of kernel (`edge.targets.costs.kind_of`).
    """

    layers: tuple[str, ...]
    operation: str
    kernel: str
    kind: str
    precision: str
    macs: int
    storage_bytes: int
    derived_bytes: int
    input_bytes: int
    output_bytes: int
    scratch_bytes: int
    moved_bytes: int
    seconds: float | None
    expected_error: float | None
    limit: str


@dataclass(frozen=True)
class Profile:
    """A model on a device.

    `storage_bytes` is the size of the file, `footprint` what an engine allocates there, `ram_bytes` how much of it is RAM (all but
    constants that are read where the file lies); `fits_*` is None where the room is unknown. `seconds` is of an inference on one thread,
    the layers' and what starting one takes, `seconds_by_threads` on 1, 2, ... threads, empty where no time is known. `time_basis` is
    MEASURED, EMULATED (cycles counted in an emulator) or PREDICTED, with the relative `expected_error` of `seconds`; empty and None where
    no time is known. `one_bit_share` is the share of the time in layers that multiply 1-bit weights with 1-bit activations.
    """

    model: str
    target: str
    title: str
    isa: str
    storage_bytes: int
    footprint: Footprint
    ram_bytes: int
    fits_storage: bool | None
    fits_memory: bool | None
    macs: dict[str, int]
    layers: tuple[LayerProfile, ...]
    seconds: float | None
    seconds_by_threads: dict[int, float]
    time_basis: str
    expected_error: float | None
    one_bit_share: float | None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values, with the footprint's total."""
        result = dataclasses.asdict(self)
        result["footprint"]["total_bytes"] = self.footprint.total_bytes
        result["seconds_by_threads"] = {str(threads): seconds for threads, seconds in self.seconds_by_threads.items()}
        return result


def profile(path: str | os.PathLike[str], target: str = HOST) -> Profile:
    """Profile a `.edge` file on a target: HOST (measured here), the name of a device profile, or the path of one.

    Raises `InputError` for an unknown target, `FormatError` for a file that is not sound.
    """
    program = read(path)
    verify(program)
    storage_bytes = Path(path).stat().st_size
    name = os.fspath(path)
    return _measured(name, storage_bytes, program) if target == HOST else predict(name, storage_bytes, program, load_device(target))


# -- times ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Time:
    """Of one instruction; None where it is not known."""

    seconds: float | None = None
    expected_error: float | None = None
    limit: str = ""


@dataclass(frozen=True)
class _Times:
    """Of a program: by instruction on one thread, whole by threads, and where they come from."""

    layers: Sequence[_Time]
    by_threads: Mapping[int, float]
    basis: str


def predict(name: str, storage_bytes: int, program: Program, device: Device) -> Profile:
    """A program on a device by its profile."""
    cost = program_cost(program, device.machine)
    times = _predicted(cost, device) if device.kernels else _Times([_Time()] * len(cost.instructions), {}, "")
    return _on_device(name, storage_bytes, program, device, cost, times)


def emulated(
    name: str, storage_bytes: int, program: Program, device: Device, instruction_cycles: Sequence[float], *, expected_error: float
) -> Profile:
    """A program on a device of which every instruction's cycles were counted in an emulator (`benchmarks/device_cycles.py`).

    Raises `InputError` for another number of cycles than the program has instructions.
    """
    cost = program_cost(program, device.machine)
    if len(instruction_cycles) != len(cost.instructions):
        raise InputError(
            f"cannot profile {name} as emulated: expected the cycles of {len(cost.instructions)} instructions, "
            f"got {len(instruction_cycles)}; count them for this file"
        )
    clock = device.figures["clock_hz"]
    error = expected_error + clock.expected_error
    limits = [each.limit for each in estimates(cost, device)] if device.kernels else [""] * len(cost.instructions)
    times = [_Time(count / clock.value, error, limit) for count, limit in zip(instruction_cycles, limits, strict=True)]
    return _on_device(name, storage_bytes, program, device, cost, _Times(times, {1: _total(times)}, EMULATED))


def _predicted(cost: ProgramCost, device: Device) -> _Times:
    cores = int(device.value("cores"))
    times = [_Time(each.seconds, each.expected_error, each.limit) for each in estimates(cost, device)]
    start = device.optional("inference_s") or 0.0
    by_threads = {n: start + sum(each.seconds for each in estimates(cost, device, threads=n)) for n in range(1, cores + 1)}
    return _Times(times, by_threads, PREDICTED)


def _on_device(name: str, storage_bytes: int, program: Program, device: Device, cost: ProgramCost, times: _Times) -> Profile:
    ram_bytes = cost.footprint.total_bytes - (cost.footprint.constants_bytes if device.constants_in_storage else 0)
    fits = _fits(storage_bytes, device.optional("free_storage_bytes")), _fits(ram_bytes, device.optional("free_memory_bytes"))
    described = device.name, device.title, device.machine.isa.name
    return _profile(name, described, storage_bytes, program, cost, times, ram_bytes=ram_bytes, fits=fits)


def _fits(nbytes: int, room: float | None) -> bool | None:
    return None if room is None else nbytes <= room


def _measured(name: str, storage_bytes: int, program: Program) -> Profile:
    """On this machine: medians of repeats, on random input."""
    engine = Engine(program)
    by_threads = seconds_by_threads(program)
    seconds = instruction_seconds(engine, whole_s=by_threads[1])
    cost = dataclasses.replace(program_cost(program, engine.machine), footprint=engine.footprint)
    times = [_Time(float(each), _HOST_ERROR, limit) for each, limit in zip(seconds, _host_limits(cost, engine), strict=True)]
    described = HOST, f"this machine ({engine.machine.cpu})", engine.machine.isa.name
    return _profile(
        name, described, storage_bytes, program, cost, _Times(times, by_threads, MEASURED),
        ram_bytes=cost.footprint.total_bytes, fits=(None, None),
    )  # fmt: skip


def _host_limits(cost: ProgramCost, engine: Engine) -> list[str]:
    """By the profile of this machine, if there is one for the instruction set in use."""
    host = load_host()
    if host is None or host.machine.isa != engine.machine.isa or not host.kernels:
        return [""] * len(cost.instructions)
    return [each.limit for each in estimates(cost, host)]


def _total(times: Sequence[_Time]) -> float:
    return math.fsum(time.seconds for time in times if time.seconds is not None)


# -- the table -----------------------------------------------------------------------------------------------------------------


def _profile(
    name: str,
    described: tuple[str, str, str],
    storage_bytes: int,
    program: Program,
    cost: ProgramCost,
    times: _Times,
    *,
    ram_bytes: int,
    fits: tuple[bool | None, bool | None],
) -> Profile:
    target, title, isa = described
    known = bool(times.basis)
    return Profile(
        model=name,
        target=target,
        title=title,
        isa=isa,
        storage_bytes=storage_bytes,
        footprint=cost.footprint,
        ram_bytes=ram_bytes,
        fits_storage=fits[0],
        fits_memory=fits[1],
        macs=_macs(cost.instructions),
        layers=tuple(
            _layer(program.layers[i] if program.layers else (), each, times.layers[i]) for i, each in enumerate(cost.instructions)
        ),
        seconds=times.by_threads[1] if known else None,
        seconds_by_threads=dict(times.by_threads),
        time_basis=times.basis,
        expected_error=_error(times.layers) if known else None,
        one_bit_share=_one_bit_share(cost, times.layers) if known else None,
    )


def _error(times: Sequence[_Time]) -> float:
    """Of the sum: errors of layers are taken to be alike, so that none makes up for another."""
    total = _total(times)
    return math.fsum(t.seconds * t.expected_error for t in times if t.seconds and t.expected_error) / total if total else 0.0


def _one_bit_share(cost: ProgramCost, times: Sequence[_Time]) -> float:
    total = _total(times)
    one_bit = [time for each, time in zip(cost.instructions, times, strict=True) if each.macs and each.precision == (1, 1)]
    return _total(one_bit) / total if total else 0.0


def _layer(layers: tuple[str, ...], cost: InstructionCost, time: _Time) -> LayerProfile:
    return LayerProfile(
        layers=layers,
        operation=cost.operation,
        kernel=cost.kernel,
        kind=cost.kind,
        precision=_precision_text(cost) if cost.macs else "",
        macs=cost.macs,
        storage_bytes=cost.constants_bytes,
        derived_bytes=cost.derived_bytes,
        input_bytes=cost.input_bytes,
        output_bytes=cost.output_bytes,
        scratch_bytes=cost.scratch_bytes,
        moved_bytes=cost.moved_bytes,
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
