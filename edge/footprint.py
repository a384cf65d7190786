"""The bytes a model takes in memory: what an engine allocates, known before it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.kernels.loop import RECORD
from edge.kernels.registry import Derived, Lowered
from edge.memory import mapped_bytes, mapped_bytes_apart
from edge.program import Program
from edge.threads import groups_of, parts_for, pool_sizes

WORD_BYTES = 8


@dataclass(frozen=True)
class Footprint:
    """Bytes an engine holds: the file's constants, those derived at load, tensors, scratch, argument rows, and what helper threads need.

    Each of the six is one mapping (the derived constants seldom more), those of no bytes none; `mapped_bytes` is the sum of their whole
    pages of this machine, which `/proc/self/smaps` shows as their Size. Machine code, Python and NumPy are not in it. Of a file that is
    mapped (`load(..., mmap=True)`) the constants are pages of the file.
    """

    constants_bytes: int
    derived_bytes: int
    arena_bytes: int
    scratch_bytes: int
    argument_bytes: int
    thread_bytes: int
    mapped_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.constants_bytes + self.derived_bytes + self.arena_bytes + self.scratch_bytes + self.argument_bytes + self.thread_bytes


def footprint(program: Program, derived: Derived, calls: Sequence[Lowered], threads: int = 1) -> Footprint:
    """What an engine of `threads` threads allocates for a program whose kernel calls, halos included, are `calls`."""
    scratch_bytes = max((call.scratch_bytes for call in calls), default=0)
    argument_bytes = WORD_BYTES * sum(len(call.args) + RECORD for call in calls)
    thread_bytes = _thread_bytes(calls, threads, scratch_bytes)
    sizes = program.blob.nbytes, argument_bytes  # an engine maps these, and the arena, even where they are 0
    may_be_absent = scratch_bytes, thread_bytes
    pages = mapped_bytes_apart(program.arena_bytes) + sum(map(mapped_bytes, (*sizes, *filter(None, may_be_absent))))
    return Footprint(
        program.blob.nbytes, derived.nbytes, program.arena_bytes, scratch_bytes, argument_bytes, thread_bytes, pages + derived.mapped_bytes
    )


def _thread_bytes(calls: Sequence[Lowered], threads: int, scratch_bytes: int) -> int:
    """Of the pool of helpers; 0 where no call is worth sharing."""
    parts = [parts_for(call.code.name, call.work, threads) for call in calls]
    return sum(pool_sizes(threads - 1, len(groups_of(parts)), scratch_bytes)) if any(count > 1 for count in parts) else 0
