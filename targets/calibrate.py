"""A profile of this machine: every kind of kernel on synthetic instructions, its caches, its clock, its bandwidth.

All kernel calls are timed in rounds, each call once in a round, its data warm, beside a chain of instructions that gives the clock of that
moment; so a machine that is busy or changes its clock disturbs some rounds, which quartiles leave out. What a kernel costs is kept in
cycles. Nothing here knows any model.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.engine import Engine
from edge.kernels import probe
from edge.kernels.isa import Machine, detect
from edge.kernels.registry import Code, Lowered
from edge.memory import aligned
from edge.program import Tensor
from edge.targets.cases import BITS, CONV_SHAPES, F32, HALO_SHAPES, Case, cases
from edge.targets.costs import HALO, InstructionCost, program_cost
from edge.targets.devices import FIGURES, HOST, Device, Figure, KernelCost
from edge.targets.features import halo_work
from edge.targets.fitting import Fit, Sample, fit
from edge.targets.measure import example
from edge.targets.roofline import CACHES, FILLED, memory_seconds
from edge.targets.runner import Call, halo_call, instruction_call, link
from edge.tensors import Encoding, Halo, TensorType
from edge.threads import most_threads, parts_for

Progress = Callable[[str, int, int], None]
"""Told of each step: its name, how much of it is done, and how much there is."""

SOURCE = "edge targets calibrate: quartiles of interleaved rounds on this machine"
SYSTEM = "the operating system's description of this machine"
_LEAST_KERNEL_ERROR = 0.05  # what no fit on a machine that does other things too can promise less than
_CLOCK_ROUNDS = 2_000
_CLOCK_EVERY = 25  # calls
_CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
_MEMORY_BYTES = 96 << 20
_READ_S = 0.003  # of one reading of a bandwidth
_NOISE = 0.05
_LIMITED = 0.7  # of the time: calls that wait for memory so much say nothing of their kernel
_HALF = "half of the third-level cache"
_QUANTILE = 0.25  # of rounds: other work on the machine only ever makes calls slower


@dataclass(frozen=True)
class Settings:
    """How much is measured: rounds (1 or more) over all calls, and of bandwidths; `kinds`: those alone whose names match."""

    rounds: int = 60
    bandwidth_rounds: int = 9
    kinds: str = ".*"


def calibrate(settings: Settings | None = None, progress: Progress | None = None) -> Device:
    """Measure this machine; seconds, and a minute or two the first time, which compiles some three hundred kernels."""
    settings, machine, report = settings or Settings(), detect(), progress or _silent
    sized = [(cost, call) for cost, call in _sized_calls(machine, settings.kinds)]
    link([call for _, call in sized], machine, lambda done, total: report("compiling", done, total))
    clock = ClockProbe(machine)
    loop_s = _loop_seconds()
    cycles = _rounds(sized, clock, settings.rounds, report)
    figures = _figures(machine, clock, settings.bandwidth_rounds, report)
    figures |= {"overhead_s": _measured(loop_s, 0.5), "inference_s": _measured(max(0.0, _inference_seconds(machine) - loop_s), 0.5)}
    device = Device(HOST, f"this machine ({machine.cpu})", machine, {name: figures[name] for name in FIGURES if name in figures}, {})
    samples = _samples(sized, cycles - loop_s * clock.hz, device)
    return replace(device, kernels={kind: _kernel_cost(fit(each)) for kind, each in samples.items()})


def _silent(step: str, done: int, total: int) -> None:
    """No progress shown."""


# -- kernels -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sized:
    """What is known of a timed call: its kind, its features, and its cost (None: of a halo)."""

    kind: str
    features: Mapping[str, float]
    cost: InstructionCost | None


def _sized_calls(machine: Machine, kinds: str) -> Iterable[tuple[Sized, Call]]:
    wanted = re.compile(kinds)
    for case in cases():
        program = case.program()
        cost = program_cost(program, machine).instructions[0]
        if wanted.fullmatch(cost.kind):
            yield Sized(cost.kind, cost.features, cost), instruction_call(program, machine)
    for tensor in _halo_tensors() if wanted.fullmatch(HALO) else ():
        yield Sized(HALO, halo_work(tensor.type), None), halo_call(tensor)


def _halo_tensors() -> Iterable[Tensor]:
    for number, shape in enumerate(HALO_SHAPES):
        for encoding in (BITS, F32, Encoding.INT8):
            halo = Halo(1, 1, 1, 1) if number % 2 == 0 else Halo(0, 1, 0, 1) if number % 4 == 1 else Halo(2, 2, 2, 2)
            yield Tensor(TensorType(shape, encoding, halo=halo), 0)


def _rounds(sized: Sequence[tuple[Sized, Call]], clock: ClockProbe, rounds: int, report: Progress) -> np.ndarray:
    """The cycles of every call: the lower quartile of its rounds."""
    found = np.zeros((rounds, len(sized)))
    for number in range(rounds):
        report("timing kernels", number, rounds)
        hz = clock.measure()
        for i, (_, call) in enumerate(sized):
            if i % _CLOCK_EVERY == 0:
                hz = clock.measure()
            call.seconds()  # warms the caches
            found[number, i] = call.seconds() * hz
    report("timing kernels", rounds, rounds)
    quartiles: np.ndarray = np.quantile(found, _QUANTILE, axis=0)
    return quartiles


def _samples(sized: Sequence[tuple[Sized, Call]], cycles: np.ndarray, bare: Device) -> dict[str, list[Sample]]:
    """By kind; calls that memory limits by the bandwidths found are left out where others are left."""
    found: dict[str, list[Sample]] = defaultdict(list)
    limited: dict[str, list[Sample]] = defaultdict(list)
    hz = bare.value("clock_hz")
    for (each, _), taken in zip(sized, cycles, strict=True):
        sample = Sample(each.features, max(float(taken), 0.0))
        memory_s = memory_seconds(each.cost, bare, each.cost.moved_bytes) if each.cost else 0.0
        (limited if memory_s * hz > _LIMITED * sample.cycles else found)[each.kind].append(sample)
    for kind in limited:
        if len(found[kind]) < 5:
            found[kind] += limited[kind]
    return dict(found)


def _kernel_cost(fitted: Fit) -> KernelCost:
    return KernelCost(fitted.cycles, SOURCE, True, max(_LEAST_KERNEL_ERROR, fitted.error))


# -- the machine -------------------------------------------------------------------------------------------------------------------


class ClockProbe:
    """The clock of the core this runs on, by a chain of instructions of one cycle each; `hz` is the median of what was measured."""

    def __init__(self, machine: Machine) -> None:
        self._call = _probe(probe.CLOCK, (_CLOCK_ROUNDS,), aligned(64))
        link([self._call], machine)
        self._call.repeats = 1
        self._found = [self._once() for _ in range(25)]

    def _once(self) -> float:
        return probe.CHAIN * _CLOCK_ROUNDS / self._call.seconds()

    def measure(self) -> float:
        """Now: the best of a few, each shorter than what is likely to disturb it."""
        best = max(self._once() for _ in range(3))
        self._found.append(best)
        return best

    @property
    def hz(self) -> float:
        return float(np.median(self._found))


def _probe(code: Code, args: tuple[int, ...], arena: np.ndarray) -> Call:
    arena[:] = 1  # pages that were never written are all one and the same
    return Call(Lowered(code, args, scratch_bytes=64), arena, arena)


def _loop_seconds() -> float:
    """Seconds the native loop takes to call a kernel that does nothing: a reshape that stays where it is."""
    call = instruction_call(Case("reshape", TensorType((64,), F32), F32).program(), detect())
    link([call], detect())
    return float(np.median([call.seconds() for _ in range(51)]))


def _inference_seconds(machine: Machine) -> float:
    """Seconds of an inference that does nothing."""
    program = Case("reshape", TensorType((64,), F32), F32).program()
    engine = Engine(program, machine=machine)
    return float(np.median(engine.times(example(program), 101, whole=True)))


def _figures(machine: Machine, clock: ClockProbe, rounds: int, report: Progress) -> dict[str, Figure]:
    caches = cache_bytes()
    figures = {"cores": Figure(float(most_threads()), SYSTEM, True, 0.0)}
    figures |= {name: Figure(float(size), SYSTEM, True, 0.0) for name, size in caches.items()}
    sets = _read_sets(caches)
    probes = {name: _probe(probe.READ, (size, 1), aligned(size)) for name, size in sets.items()}
    link(list(probes.values()), machine)
    best: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        report("timing memory", number, rounds)
        for name, call in probes.items():
            once = min(call.seconds(), call.seconds())  # warms the caches too
            call.repeats = int(np.clip(_READ_S / max(once, 1e-9), 1, 512))
            best[name].append(sets[name] / call.seconds())
        clock.measure()
    figures |= {name: _measured(_typical(found), _error(found)) for name, found in best.items() if name in FIGURES}
    if _HALF in best:
        figures["l3_bytes"] = _measured(_held(figures, sets[_HALF], _typical(best[_HALF])), 0.3)
    figures["clock_hz"] = _measured(clock.hz, 0.02)
    if most_threads() > 1:
        figures["memory_shared_bytes_per_s"] = _measured(_shared_bandwidth(machine, most_threads(), rounds), 0.2)
        figures["barrier_s"] = _measured(_barrier(machine), 0.5)
    report("timing memory", rounds, rounds)
    return figures


def _measured(value: float, error: float) -> Figure:
    return Figure(value, SOURCE, True, error)


def _typical(rates: Sequence[float]) -> float:
    return float(np.quantile(rates, 1 - _QUANTILE))


def _error(found: Sequence[float]) -> float:
    """Half the range of the middle half, relative, and no less than noise."""
    low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
    return max(_NOISE, float((high - low) / 2 / middle))


def cache_bytes() -> dict[str, int]:
    """Sizes of the data caches by name of the figure; usual ones where the system does not tell."""
    found = {"l1d_bytes": 32 << 10, "l2_bytes": 512 << 10}
    names = {"1": "l1d_bytes", "2": "l2_bytes", "3": "l3_bytes"}
    for index in sorted(_CACHE_FOLDER.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and level in names and size.endswith("K"):
            found[names[level]] = int(size[:-1]) << 10
    return found


def _held(figures: Mapping[str, Figure], size: int, bandwidth: float) -> float:
    """The third-level cache that there is for this core, others beside it, by the bandwidth of reading as much as half of it."""
    near, far = 1 / figures["l3_bytes_per_s"].value, 1 / figures["memory_bytes_per_s"].value
    part = (far - 1 / bandwidth) / (far - near) if far > near else 1.0
    return size * float(np.clip(part, 0.1, 1.0)) / FILLED


def _read_sets(caches: Mapping[str, int]) -> dict[str, int]:
    """How much to read, bytes, to find the bandwidth of each level: well inside it, and beyond the one before."""
    sets = {"memory_bytes_per_s": max(_MEMORY_BYTES, 3 * caches.get("l3_bytes", 0))}
    before = 0
    for size, bandwidth in CACHES:
        if size in caches:
            sets[bandwidth] = max(int(caches[size] * (0.125 if size == "l3_bytes" else 0.6)), before * 2)
            before = caches[size]
    if "l3_bytes" in caches:
        sets[_HALF] = caches["l3_bytes"] // 2
    return {name: sets[name] // probe.READ_BYTES * probe.READ_BYTES for name in sets}


def _shared_bandwidth(machine: Machine, threads: int, rounds: int) -> float:
    """Bytes a second that all cores read from memory at once."""
    size = _MEMORY_BYTES // threads // probe.READ_BYTES * probe.READ_BYTES
    calls = [_probe(probe.READ, (size, 1), aligned(size)) for _ in range(threads)]
    link(calls, machine)
    for call in calls:
        call.repeats = 2
    return float(np.median([_together(calls, size) for _ in range(max(1, rounds // 2))]))


def _together(calls: Sequence[Call], size: int) -> float:
    workers = [threading.Thread(target=call.seconds) for call in calls]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(size * call.repeats for call in calls) / (time.perf_counter() - started)


def _barrier(machine: Machine) -> float:
    """Seconds that sharing one instruction among all threads adds to its part of the work."""
    height, width, depth, channels, taps = CONV_SHAPES[0]
    program = Case("conv2d", TensorType((height, width, depth), F32), F32, F32, channels, taps).program()
    threads = most_threads()
    cost = program_cost(program, machine).instructions[0]
    parts = parts_for(cost.kernel, cost.work, threads)
    share = -(-parts // threads) / parts
    picture = example(program)
    alone, shared = (Engine(program, machine=machine, threads=count) for count in (1, threads))
    shared.times(picture, 20, whole=True)
    times = [float(np.min(engine.times(picture, 60, whole=True))) for engine in (alone, shared)]
    return max(0.0, times[1] - times[0] * share)
