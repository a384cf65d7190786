"""Kernels that measure the machine itself: its clock, and how fast it reads. No operation runs them.

    probe_clock    args: rounds; a chain of `CHAIN` operations of one cycle each per round, each of which waits for the one before
    probe_read     args: bytes (a multiple of 4 vectors), rounds; reads the arena from its start again and again

Both leave what they found in the first bytes of the scratch memory, so that it has to be computed.
"""

from __future__ import annotations

from typing import Any

from edge.kernels.isa import Machine
from edge.kernels.registry import Code, KernelFunction

CHAIN = 6  # three shifts and three exclusive ors
READ_BYTES = 256  # at once: what `probe_read` reads is a multiple of it
_LANES = 8


def _build_clock(machine: Machine) -> KernelFunction:
    from edge.kernels.simd import memory

    words = memory("i64")

    def probe_clock(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        state = words.get(scratch, 0) | 1
        for _ in range(args[0]):
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
        words.put(scratch, 0, state)

    return probe_clock


def _build_read(machine: Machine) -> KernelFunction:
    from edge.kernels.simd import vector

    v = vector("i64", _LANES)

    def probe_read(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        a, b, c, d = v.splat(0), v.splat(0), v.splat(0), v.splat(0)
        for _ in range(args[1]):
            for i in range(0, args[0], READ_BYTES):
                a = a + v.load(arena, i)
                b = b + v.load(arena, i + 64)
                c = c + v.load(arena, i + 128)
                d = d + v.load(arena, i + 192)
        v.store(scratch, 0, (a ^ b) ^ (c ^ d))

    return probe_read


CLOCK = Code("probe_clock", _build_clock)
READ = Code("probe_read", _build_read)
