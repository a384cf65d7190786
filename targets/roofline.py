"""How long an instruction takes on a device: a roofline with caches.

    compute    the cycles of its features (`edge.targets.features`) / clock; what is in the first-level cache costs nothing more
    memory     the bytes it reads and writes, at the bandwidths of the memories that hold what is used between one use and the next:
               - constants are used once in an inference, so all constants and tensors of the program come between
               - tensors were written a moment ago: what the instruction itself uses comes between
               - filters and images that a tile loop goes through again and again: `edge.targets.features.Stream`
    seconds    max(compute, memory) + overhead

On several threads an instruction that is shared takes the largest number of its parts that one thread gets, and a barrier; bandwidth of
memory is shared. Whichever of the three is largest limits the instruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge.targets.costs import InstructionCost, ProgramCost, cycles
from edge.targets.devices import Device
from edge.targets.features import Stream
from edge.threads import parts_for

COMPUTE, MEMORY, OVERHEAD = "compute", "memory", "overhead"
_BARRIER_S = 1e-6  # where the profile says nothing
CACHES = (("l1d_bytes", "l1_bytes_per_s"), ("l2_bytes", "l2_bytes_per_s"), ("l3_bytes", "l3_bytes_per_s"))
FILLED = 0.8  # of a cache, by one program's data


@dataclass(frozen=True)
class Estimate:
    """Predicted seconds of one instruction and their relative error; `limit` is COMPUTE, MEMORY or OVERHEAD."""

    compute_s: float
    memory_s: float
    overhead_s: float
    expected_error: float

    @property
    def seconds(self) -> float:
        return max(self.compute_s, self.memory_s) + self.overhead_s

    @property
    def limit(self) -> str:
        parts = {COMPUTE: self.compute_s, MEMORY: self.memory_s, OVERHEAD: self.overhead_s}
        return max(parts, key=lambda name: parts[name])


def estimates(cost: ProgramCost, device: Device, *, threads: int = 1) -> list[Estimate]:
    """Of every instruction of a program, for a device that has kernels (`NEEDED_FOR_TIME`)."""
    return [estimate(each, device, cost.footprint.total_bytes, threads=threads) for each in cost.instructions]


def estimate(cost: InstructionCost, device: Device, program_bytes: float, *, threads: int = 1) -> Estimate:
    """Of an instruction of a program whose constants and tensors are `program_bytes`."""
    count, figures = cycles(cost, device.kernels)
    clock, overhead = device.figures["clock_hz"], device.figures["overhead_s"]
    share, barrier = _share(cost, threads), 0.0
    if share < 1:
        given = device.optional("barrier_s")
        barrier = _BARRIER_S if given is None else given
    compute = count / clock.value * share
    memory, memory_error = _memory(cost, device, program_bytes, share, threads)
    parts = [
        (compute, figures.expected_error + clock.expected_error) if compute >= memory else (memory, memory_error),
        (overhead.value + barrier, overhead.expected_error),
    ]
    total = sum(seconds for seconds, _ in parts)
    error = sum(seconds * error for seconds, error in parts) / total if total else 0.0
    return Estimate(compute, memory, overhead.value + barrier, error)


def _share(cost: InstructionCost, threads: int) -> float:
    """The part of the work that the busiest thread does."""
    parts = parts_for(cost.kernel, cost.work, threads)
    return -(-parts // threads) / parts if parts > 1 else 1.0


def _memory(cost: InstructionCost, device: Device, program_bytes: float, share: float, threads: int) -> tuple[float, float]:
    """(seconds, relative error) of the bytes that come from beyond the first-level cache."""
    seconds = error = 0.0
    for stream in _streams(cost, program_bytes):
        for level, part in _levels(device, stream.set_bytes):
            figure = device.figures[level]
            taken = stream.nbytes * part / _bandwidth(device, level, share, threads)
            seconds, error = seconds + taken, error + taken * figure.expected_error
    return seconds, error / seconds if seconds else 0.0


def _bandwidth(device: Device, level: str, share: float, threads: int) -> float:
    """Bytes a second of all threads that share an instruction."""
    alone = device.value(level)
    if level != "memory_bytes_per_s" or share == 1:
        return alone / share
    together = device.optional("memory_shared_bytes_per_s")
    return min(alone / share, together if together is not None else alone * min(threads, 2))


def _levels(device: Device, set_bytes: float) -> Iterator[tuple[str, float]]:
    """From where a set of this size is read again and again: the figures of bandwidths, and the part that comes from each."""
    held = 0.0
    for size, bandwidth in CACHES:
        given = device.optional(size)
        if given is None:
            continue
        part = _held(FILLED * given, set_bytes, last=size == "l3_bytes")
        if part > held and size != "l1d_bytes" and bandwidth in device.figures:
            yield bandwidth, part - held
        held = max(held, part)
    if held < 1:
        yield "memory_bytes_per_s", 1 - held


def _held(cache_bytes: float, set_bytes: float, *, last: bool) -> float:
    """The part of a set that is still in a cache when it is used again.

    Caches that replace what is oldest lose all of a set that is somewhat larger; large last ones replace less strictly and keep what they
    can hold.
    """
    if set_bytes <= cache_bytes:
        return 1.0
    part = cache_bytes / set_bytes
    return part if last else max(0.0, 2 * part - 1)


def memory_seconds(cost: InstructionCost, device: Device, program_bytes: float) -> float:
    """Seconds that the bytes of an instruction take which come from beyond the first-level cache, on one thread."""
    return _memory(cost, device, program_bytes, 1.0, 1)[0]


def _streams(cost: InstructionCost, program_bytes: float) -> Iterator[Stream]:
    yield Stream(cost.read_bytes, program_bytes)
    yield Stream(cost.input_bytes + 2 * cost.output_bytes, cost.moved_bytes)  # lines that are written are fetched before
    yield from cost.streams
