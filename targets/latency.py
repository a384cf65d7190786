"""How long the instructions of a program take on a device: measured on this machine, predicted for any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.engine import Engine
from edge.errors import InputError
from edge.program import Program
from edge.targets.costs import program_cost
from edge.targets.devices import HOST, Device, load_device
from edge.targets.measure import instruction_seconds, seconds_by_threads
from edge.targets.roofline import estimates


@dataclass(frozen=True)
class Latency:
    """`seconds` gives those of every instruction of a program, on one thread of `target`; `start_s` is what an inference adds."""

    target: str
    seconds: Callable[[Program], Sequence[float]]
    start_s: float


def latency_on(target: str) -> Latency:
    """By HOST, the name of a device profile, or the path of one; raises `InputError` for one that is not known or has no times."""
    if target == HOST:
        return Latency("this machine", _measured, 0.0)
    device = load_device(target)
    if not device.kernels:
        raise InputError(f"the profile of {device.name} has no times, which a limit on them needs; name another target")

    def predicted(program: Program) -> list[float]:
        return _predicted(program, device)

    return Latency(device.name, predicted, device.optional("inference_s") or 0.0)


def _predicted(program: Program, device: Device) -> list[float]:
    return [each.seconds for each in estimates(program_cost(program, device.machine), device)]


def _measured(program: Program) -> list[float]:
    whole_s = seconds_by_threads(program)[1]
    return [float(each) for each in instruction_seconds(Engine(program), whole_s=whole_s)]
