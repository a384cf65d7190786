"""Runs single kernel calls again and again, natively, so that those of a microsecond can be timed."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence

import numpy as np

from edge.kernels.cache import KERNEL, Progress, addresses, missing, objects
from edge.kernels.isa import Machine
from edge.kernels.loop import LOOP, RECORD
from edge.kernels.move import lower_halo
from edge.kernels.registry import Code, Derived, Lowered, Lowering, Place, select
from edge.memory import aligned
from edge.program import SPARE_BYTES, Program, Tensor
from edge.tensors import Encoding
from edge.threads import usable_cores

_LONG_ENOUGH_S = 60e-6
_MOST_REPEATS = 512
_WORTH_A_PROCESS = 8  # kernels: fewer are compiled as fast by this one
_POLL_S = 0.3


class Call:
    """One kernel call with memory of its own, which holds random values."""

    def __init__(self, lowered: Lowered, arena: np.ndarray, constants: np.ndarray, derived: Derived | None = None) -> None:
        self.lowered = lowered
        self._arena, self._constants, self._derived = arena, constants, derived
        self._scratch = aligned(max(64, lowered.scratch_bytes))
        self._arguments = np.array(lowered.args, np.int64)
        self._records = np.zeros((0, RECORD), np.int64)
        self._loop = KERNEL(0)
        self.repeats = 1

    def link(self, loop: int, kernel: int) -> None:
        """Take the addresses of the code, and find out how often to run it at once."""
        self._loop = KERNEL(loop)
        self._records = np.tile(np.array([kernel, self._arguments.ctypes.data, 1], np.int64), (_MOST_REPEATS, 1))
        self.seconds()
        once = min(self.seconds(), self.seconds())
        self.repeats = int(np.clip(_LONG_ENOUGH_S / max(once, 1e-9), 1, _MOST_REPEATS))

    def seconds(self) -> float:
        """Seconds of one of `repeats` runs in a row."""
        memory = (self._arena.ctypes.data, self._constants.ctypes.data, self._scratch.ctypes.data)
        records = self._records.ctypes.data
        started = time.perf_counter()
        self._loop(records, *memory, 0, self.repeats)
        return (time.perf_counter() - started) / self.repeats


def instruction_call(program: Program, machine: Machine) -> Call:
    """The kernel call of a program's first instruction."""
    derived = Derived(int(program.blob.ctypes.data))
    lowering = Lowering(program, program.instructions[0], machine, derived)
    arena = aligned(program.arena_bytes + SPARE_BYTES)
    random = np.random.default_rng(0)
    for tensor in program.tensors:
        _fill(arena, tensor, random)
    return Call(select(lowering).lower(lowering), arena, program.blob, derived)


def halo_call(tensor: Tensor) -> Call:
    """The call that fills a halo."""
    arena = aligned(tensor.offset + tensor.type.nbytes + SPARE_BYTES)
    return Call(lower_halo(Place(tensor.type, tensor.offset)), arena, aligned(SPARE_BYTES))


def _fill(arena: np.ndarray, tensor: Tensor, random: np.random.Generator) -> None:
    """Numbers that are normal ones: a processor may be slow with others, and faster with zeros."""
    where = arena[tensor.offset : tensor.offset + tensor.type.nbytes]
    if tensor.type.encoding is Encoding.FLOAT32:
        where.view(np.float32)[:] = random.normal(size=where.nbytes // 4)
    else:
        where[:] = random.integers(0, 256, where.nbytes)


def _compile_beside(codes: Sequence[Code], machine: Machine, progress: Progress | None) -> None:
    """Compile into the cache in processes of their own, a share of the kernels each; what they leave undone is compiled later."""
    absent = missing({code.name: code for code in codes}.values(), machine)
    processes = min(usable_cores(), len(absent) // _WORTH_A_PROCESS)
    if processes < 2 or not hasattr(os, "fork"):
        return
    running = [pid for pid in (_forked(absent[i::processes], machine) for i in range(processes)) if pid]
    while running:
        time.sleep(_POLL_S)
        running = [pid for pid in running if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if progress:
            progress(len(absent) - len(missing(absent, machine)), len(absent))


def _forked(codes: Sequence[Code], machine: Machine) -> int:
    """A process that compiles and ends, whatever happens to it: its number here, and no return there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of NumPy may exist: the child calls nothing that waits for one
        pid = os.fork()
    if pid == 0:
        try:
            objects(codes, machine)
        finally:
            os._exit(0)
    return pid


def link(calls: Sequence[Call], machine: Machine, progress: Progress | None = None) -> None:
    """Compile, where need be on all cores, and load the kernels of all calls."""
    _compile_beside([call.lowered.code for call in calls], machine, progress)
    found = addresses([LOOP, *(call.lowered.code for call in calls)], machine, progress)
    for call in calls:
        call.link(found[LOOP.name], found[call.lowered.code.name])
