"""The loop that runs a program: one native call for all kernel calls of an inference, on one thread or several.

A call record is `RECORD` int64: the kernel's address, the address of its argument row, its parts. On one thread the parts of a record run
one after the other. On several, records are gathered in groups: neighbouring records of one part make one group, which one thread runs
through; a record of several parts is a group of its own. Threads go through the groups in order and claim parts from the group's
counter; no thread waits for one that has not started, only for claimed parts to be finished.

    control block, int64:  records, groups, number of groups, counters, state, scratch bytes of a thread     (addresses and counts)
    group, int64:          first record, last record + 1, parts
    counters:              two lines of 128 bytes a group: parts claimed, parts done
    state:                 three lines of 128 bytes: open (1 while an inference runs), helpers at work, closed
"""

from __future__ import annotations

from typing import Any

from edge.kernels.isa import Machine
from edge.kernels.registry import Code, KernelFunction

RECORD = 3
GROUP = 3
LINE_BYTES = 128  # two cache lines: neighbours are fetched in pairs
RECORDS, GROUPS, GROUP_COUNT, COUNTERS, STATE, SCRATCH_BYTES = range(6)
CONTROL_WORDS = 6
OPEN, ACTIVE, CLOSED = (LINE_BYTES * i for i in range(3))
STATE_BYTES = 3 * LINE_BYTES

_SPINS = 50  # pauses before a waiting thread gives its core away


def _build_loop(machine: Machine) -> KernelFunction:
    from edge.kernels.native import call_kernel

    def loop(records: Any, arena: Any, constants: Any, scratch: Any, first: Any, last: Any) -> None:
        for i in range(first, last):
            parts = records[RECORD * i + 2]
            for part in range(parts):
                call_kernel(records[RECORD * i], records[RECORD * i + 1], arena, constants, scratch, part, parts)

    return loop


def _work(machine: Machine) -> Any:
    """Go through all groups, claiming parts."""
    from edge.kernels import native
    from edge.kernels.build import inlined
    from edge.kernels.native import call_kernel, fetch_add, load_acquire, sched_yield, word

    pause = native.pause(machine)

    @inlined
    def work(control: Any, arena: Any, constants: Any, scratch: Any) -> None:
        for g in range(control[GROUP_COUNT]):
            group = control[GROUPS] + 8 * GROUP * g
            first, last, parts = word(group), word(group + 8), word(group + 16)
            claimed = control[COUNTERS] + 2 * LINE_BYTES * g
            done = claimed + LINE_BYTES
            part = 0
            while part < parts and load_acquire(claimed) < parts:
                part = fetch_add(claimed, 1)
                if part < parts:
                    for i in range(first, last):
                        record = control[RECORDS] + 8 * RECORD * i
                        call_kernel(word(record), word(record + 8), arena, constants, scratch, part, parts)
                    fetch_add(done, 1)
            spins = 0
            while load_acquire(done) < parts:
                spins += 1
                if spins < _SPINS:
                    pause()
                else:
                    sched_yield()

    return work


def _build_lead(machine: Machine) -> KernelFunction:
    """The calling thread: open the inference, wake `parts` helpers whose semaphores begin at `part`, work, and close it."""
    from edge.kernels import native
    from edge.kernels.native import fetch_add, load_acquire, sched_yield, sem_post, store_release

    pause = native.pause(machine)
    work = _work(machine)

    def lead(control: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        state = control[STATE]
        for g in range(control[GROUP_COUNT]):
            store_release(control[COUNTERS] + 2 * LINE_BYTES * g, 0)
            store_release(control[COUNTERS] + 2 * LINE_BYTES * g + LINE_BYTES, 0)
        fetch_add(state + OPEN, 1)
        for helper in range(parts):
            sem_post(part + LINE_BYTES * helper)
        work(control, arena, constants, scratch)
        fetch_add(state + OPEN, -1)
        # A helper that has seen the inference open must have left it before its counters are used again.
        spins = 0
        while load_acquire(state + ACTIVE) != 0:
            spins += 1
            if spins < _SPINS:
                pause()
            else:
                sched_yield()

    return lead


def _build_helper(machine: Machine) -> KernelFunction:
    """A helper thread: sleep on the semaphore at address `part` between inferences, until the pool is closed."""
    from edge.kernels.native import fetch_add, load_acquire, sem_wait

    work = _work(machine)

    def helper(control: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        state = control[STATE]
        while True:
            while sem_wait(part) != 0:
                pass  # interrupted by a signal
            if load_acquire(state + CLOSED) != 0:
                return
            fetch_add(state + ACTIVE, 1)
            if load_acquire(state + OPEN) != 0:
                work(control, arena, constants, scratch)
            fetch_add(state + ACTIVE, -1)

    return helper


LOOP = Code("loop", _build_loop)
LEAD = Code("lead", _build_lead)
HELPER = Code("helper", _build_helper)
