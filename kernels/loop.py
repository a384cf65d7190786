"""The loop that runs a program: one native call for all kernel calls of an inference, on one thread or several.

A call record is `RECORD` int64: the kernel's address, the address of its argument row, its parts. One thread runs every record as a whole.
Several share the parts of a record: the calling thread leads, goes through the groups of records in order, and publishes each group of
several parts in one word, the ticket, which says what may be claimed:

    ticket:   inference (24 bits) | group (24 bits) | next part of it (16 bits)

A thread claims a part by adding 1 to the ticket it saw; helpers do so by compare-and-swap, so one that comes late, or was stopped between
looking and claiming, gets nothing of a group or an inference that has gone on. The leader claims too and waits only for parts that helpers
have claimed; where it waits far longer than a part takes, a helper has lost its core to something else, and the rest of the inference is
the leader's alone. So are records of one part. After the last group that is shared, the ticket is closed and helpers go to sleep.

    control block, int64:  records, groups, number of groups, last shared group, state, scratch bytes of a thread (addresses and counts)
    group, int64:          first record, last record + 1, parts
    state:                 three lines of 128 bytes: ticket; parts of the group that helpers have done; pool closed, inferences, time
    helper:                a line of 128 bytes: its semaphore, and at byte 64 whether it sleeps
"""

from __future__ import annotations

from typing import Any

from edge.kernels.isa import Machine
from edge.kernels.registry import Code, KernelFunction

RECORD = 3
GROUP = 3
LINE_BYTES = 128  # two cache lines: neighbours are fetched in pairs
RECORDS, GROUPS, GROUP_COUNT, LAST_SHARED, STATE, SCRATCH_BYTES = range(6)
CONTROL_WORDS = 6
TICKET, DONE, CLOSED = (LINE_BYTES * i for i in range(3))
INFERENCES, TIME = CLOSED + 8, CLOSED + 16  # the time is a timespec
STATE_BYTES = 3 * LINE_BYTES
ASLEEP = 64

MOST_PARTS = 0x7FFF
_PART_BITS, _GROUP_BITS = 16, 24
_PART_MASK, _GROUP_MASK = (1 << _PART_BITS) - 1, (1 << _GROUP_BITS) - 1
NOTHING_TO_DO = _GROUP_MASK << _PART_BITS
"""The ticket between inferences, but for the number of the inference: a group that does not exist."""

_SPINS = 50  # pauses before a waiting thread gives its core away
_PATIENCE_NS = 50_000  # beyond twice the time of a part
_MONOTONIC = 1


def _build_loop(machine: Machine) -> KernelFunction:
    from edge.kernels.native import call_kernel

    def loop(records: Any, arena: Any, constants: Any, scratch: Any, first: Any, last: Any) -> None:
        for i in range(first, last):
            call_kernel(records[RECORD * i], records[RECORD * i + 1], arena, constants, scratch, 0, 1)

    return loop


def _waiting(machine: Machine) -> Any:
    """wait(spins): let a moment pass, the longer the more often it was called; how often it has been."""
    from edge.kernels import native
    from edge.kernels.build import inlined
    from edge.kernels.native import sched_yield

    pause = native.pause(machine)

    @inlined
    def wait(spins: Any) -> Any:
        if spins < _SPINS:
            pause()
        else:
            sched_yield()
        return spins + 1

    return wait


def _build_lead(machine: Machine) -> KernelFunction:
    """The calling thread: all records in order; `parts` helpers, whose lines begin at address `part`, are woken for the shared ones."""
    from edge.kernels.build import inlined
    from edge.kernels.native import call_kernel, clock_gettime, exchange, fetch_add, load_acquire, sem_post, store, word

    wait = _waiting(machine)

    @inlined
    def wake(helpers: Any, count: Any) -> None:
        for i in range(count):
            helper = helpers + LINE_BYTES * i
            if exchange(helper + ASLEEP, 0) == 1:
                sem_post(helper)

    @inlined
    def now(state: Any) -> Any:
        """Nanoseconds of the monotonic clock."""
        clock_gettime(_MONOTONIC, state + TIME)
        return 1_000_000_000 * word(state + TIME) + word(state + TIME + 8)

    @inlined
    def share_out(state: Any, record: Any, shares: Any, arena: Any, constants: Any, scratch: Any) -> Any:
        """Run the record whose ticket is published with the helpers; whether none of them kept the leader waiting."""
        started = now(state)
        own = 0
        share = fetch_add(state + TICKET, 1) & _PART_MASK
        while share < shares:
            call_kernel(word(record), word(record + 8), arena, constants, scratch, share, shares)
            own += 1
            share = fetch_add(state + TICKET, 1) & _PART_MASK
        if load_acquire(state + DONE) == shares - own:
            return True
        finished = now(state)
        spins = 0
        while load_acquire(state + DONE) < shares - own:
            spins = wait(spins)
        return own == 0 or now(state) - finished < 2 * (finished - started) // own + _PATIENCE_NS

    def lead(control: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        state = control[STATE]
        inference = (fetch_add(state + INFERENCES, 1) + 1) << (_PART_BITS + _GROUP_BITS)
        asleep = parts
        sharing = True
        for g in range(control[GROUP_COUNT]):
            group = control[GROUPS] + 8 * GROUP * g
            first, last, shares = word(group), word(group + 8), word(group + 16)
            record = control[RECORDS] + 8 * RECORD * first
            if shares > 1 and sharing:
                store(state + DONE, 0)
                store(state + TICKET, inference | (g << _PART_BITS))
                wake(part, asleep)
                asleep = 0
                sharing = share_out(state, record, shares, arena, constants, scratch)
                if g == control[LAST_SHARED] or not sharing:
                    store(state + TICKET, inference | NOTHING_TO_DO)
            else:
                for _ in range(first, last):
                    call_kernel(word(record), word(record + 8), arena, constants, scratch, 0, 1)
                    record += 8 * RECORD

    return lead


def _build_helper(machine: Machine) -> KernelFunction:
    """A helper thread, its line at address `part`: sleep between inferences, claim parts within them, until the pool is closed."""
    from edge.kernels.build import inlined
    from edge.kernels.native import call_kernel, exchange, fetch_add, load_acquire, replace, sem_wait, store, word

    wait = _waiting(machine)

    @inlined
    def group_of(ticket: Any) -> Any:
        return (ticket >> _PART_BITS) & _GROUP_MASK

    @inlined
    def sleep(line: Any, state: Any) -> None:
        """Until there is something to do. Who sets the mark of sleep back, this thread or the leader, decides whether there is a post."""
        store(line + ASLEEP, 1)
        if group_of(load_acquire(state + TICKET)) != _GROUP_MASK and exchange(line + ASLEEP, 0) == 1:
            return
        while sem_wait(line) != 0:
            pass  # interrupted by a signal

    def helper(control: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        state = control[STATE]
        while True:
            sleep(part, state)
            if load_acquire(state + CLOSED) != 0:
                return
            spins = 0
            ticket = load_acquire(state + TICKET)
            while group_of(ticket) != _GROUP_MASK:
                group = control[GROUPS] + 8 * GROUP * group_of(ticket)
                share, shares = ticket & _PART_MASK, word(group + 16)
                if share >= shares:
                    spins = wait(spins)
                elif replace(state + TICKET, ticket, ticket + 1):
                    record = control[RECORDS] + 8 * RECORD * word(group)
                    call_kernel(word(record), word(record + 8), arena, constants, scratch, share, shares)
                    fetch_add(state + DONE, 1)
                    spins = 0
                ticket = load_acquire(state + TICKET)

    return helper


LOOP = Code("loop", _build_loop)
LEAD = Code("lead", _build_lead)
HELPER = Code("helper", _build_helper)
