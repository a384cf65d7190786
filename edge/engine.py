"""The engine: a verified program, lowered to the kernels of this machine, run by one native call per inference.

It owns the constants, the arena (all tensors), the scratch memory of kernels and the argument rows; nothing is allocated while it runs but
the arrays it returns. One engine may be used from several Python threads: a lock lets one inference through at a time.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.batches import by_input, together
from edge.calls import calls_of
from edge.errors import EdgeError, FormatError, InputError
from edge.footprint import Footprint as Footprint
from edge.footprint import footprint
from edge.kernels.cache import KERNEL, Progress, addresses
from edge.kernels.isa import Machine, detect
from edge.kernels.library import in_use
from edge.kernels.loop import HELPER, LEAD, LOOP, RECORD
from edge.kernels.registry import Code, Derived
from edge.memory import aligned, aligned_apart
from edge.paths import require_path
from edge.program import SPARE_BYTES, Program
from edge.tensors import Encoding, TensorInfo, TensorType
from edge.threads import Entries, Pool, close_with, most_threads, parts_for
from edge.values import as_batch, pixels, real_values, stored_values

_GUARD_BYTES = 4096
_GUARD_VALUE = 0xA5
_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


@dataclass(frozen=True)
class Step:
    """One instruction of a trace: what ran, for which source layers, what it gave (bits as +-1), and the seconds it took.

    `signs` is its second output, None where there is none.
    """

    op: str
    kernel: str
    layers: tuple[str, ...]
    output: np.ndarray
    seconds: float
    signs: np.ndarray | None = None


class Engine:
    """A program ready to run on this machine.

    `machine` defaults to that of the kernel library in use (see `edge.kernels.library`), else to the best instruction set; `threads` is cut
    to the cores this process may use, and instructions too short to share use one; `progress(done, total)` is told of kernels being
    compiled. `guard` surrounds the arena with known bytes and checks them after every run (for tests of hostile files).
    """

    def __init__(
        self,
        program: Program,
        *,
        machine: Machine | None = None,
        threads: int = 1,
        progress: Progress | None = None,
        guard: bool = False,
    ) -> None:
        if threads < 1:
            raise InputError(f"threads should be 1 or more, got {threads}; leave it out for one thread")
        self.program = program
        self.inputs = self._infos(program.inputs, program.metadata.get("inputs", ()), "input")
        self.library = None if machine else in_use()
        self.machine = machine or (self.library.machine if self.library else detect())
        self.threads = min(threads, most_threads())
        self._pool: Pool | None = None
        self._lock = threading.Lock()
        _ENGINES.add(self)
        self._constants = program.blob
        self._derived = Derived(int(program.blob.ctypes.data))
        self._guarded: np.ndarray | None = None
        self._arena = self._allocate_arena(program.arena_bytes, guard)
        self._calls = tuple(calls_of(program, self.machine, self._derived))
        scratch_bytes = max((call.lowered.scratch_bytes for call in self._calls), default=0)
        self._scratch = aligned(scratch_bytes) if scratch_bytes else np.empty(0, np.uint8)
        self._link(progress)
        self._inputs = [pixels(self._arena, program.tensors[i]) for i in program.inputs]
        self._outputs = [pixels(self._arena, program.tensors[i]) for i in program.outputs]

    # -- what it is --------------------------------------------------------------------------------------------------------

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        names = [output["name"] for output in self.program.metadata.get("outputs", ())]
        return self._infos(self.program.outputs, names, "output")

    def _infos(self, numbers: Sequence[int], names: Sequence[str], kind: str) -> tuple[TensorInfo, ...]:
        types = [self.program.tensors[i].type for i in numbers]
        named = [*names, *(f"{kind}{i}" for i in range(len(names), len(types)))]
        return tuple(
            TensorInfo(name, t.shape, _dtype(t).name, t.scale, t.zero_point) for name, t in zip(named, types, strict=False)
        )

    @property
    def footprint(self) -> Footprint:
        return footprint(self.program, self._derived, [call.lowered for call in self._calls], self.threads)

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernel of every instruction."""
        return tuple(call.lowered.code.name for call in self._calls if call.instruction >= 0 and not call.fills_halo)

    # -- running -----------------------------------------------------------------------------------------------------------

    def run(self, *x: Any, stored: bool = False) -> Any:
        """The network's outputs for a batch.

        `x` is one example or a batch of NHWC float32, uint8 (the values 0..255) or int8 arrays; for several inputs one such array for
        each, a list of them, or a dict by input name (`edge.batches`); an int8 input takes int8 arrays as they are and quantizes others.
        Returns float32 of shape (N, *output) for a batch, without the first axis for one example; with `stored` int8 outputs as int8
        (`outputs` has their scale and zero point); a list of such arrays for several outputs. Raises InputError if `x` does not fit.
        """
        batches, single = self._batches(x)
        kinds = [self.program.tensors[i].type for i in self.program.outputs]
        results = [np.empty((len(batches[0]), *kind.shape), _dtype(kind) if stored else np.float32) for kind in kinds]
        with self._lock:
            for i, example in enumerate(zip(*batches, strict=True)):
                self._place(example)
                self._infer()
                for kind, view, result in zip(kinds, self._outputs, results, strict=True):
                    result[i] = real_values(view, kind) if result.dtype == np.float32 else view.reshape(kind.shape)
        if single:
            results = [result[0] for result in results]
        return results[0] if len(results) == 1 else results

    __call__ = run

    def trace(self, *x: Any) -> list[Step]:
        """Run one example, given as to `run`, and return every instruction with its output and its time."""
        batches, _ = self._batches(x)
        if len(batches[0]) != 1:
            raise InputError(f"a trace takes one example, got {len(batches[0])}; pass one of them")
        with self._lock:
            self._place([batch[0] for batch in batches])
            return list(self._trace())

    def times(self, x: Any, repeats: int = 1, *, whole: bool = False) -> np.ndarray:
        """Seconds of every instruction on one thread, (repeats, instructions), or of `whole` inferences on the engine's, (repeats, 1).

        `x` is an example, for several inputs a list or a dict. Raises InputError if it does not fit, or for no repeats.
        """
        if repeats < 1:
            raise InputError(f"repeats should be 1 or more, got {repeats}; give how often to measure")
        batches, _ = self._batches((x,))
        calls: list[Callable[[], None]] = [self._infer] if whole else [functools.partial(self._invoke, *each) for each in self._ranges()]
        seconds = np.zeros((repeats, len(calls)))
        with self._lock:
            for repeat in range(repeats):
                self._place([batch[0] for batch in batches])
                for i, call in enumerate(calls):
                    started = time.perf_counter()
                    call()
                    seconds[repeat, i] = time.perf_counter() - started
        return seconds

    def _batches(self, x: tuple[Any, ...]) -> tuple[list[np.ndarray], bool]:
        """A batch for each input, all of one length, and whether they are one example."""
        kinds = [self.program.tensors[i].type for i in self.program.inputs]
        if len(kinds) == 1 and len(x) == 1 and not isinstance(x[0], Mapping):
            batch, single = as_batch(x[0], kinds[0])
            return [batch], single
        values = zip(by_input(x, self.inputs), kinds, self.inputs, strict=True)
        return together([as_batch(value, kind, name=info.name) for value, kind, info in values], self.inputs)

    def _place(self, example: Sequence[np.ndarray]) -> None:
        for view, values in zip(self._inputs, example, strict=True):
            view[...] = values

    def run_instruction(self, number: int, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The (first) output of one instruction alone, in real values (bits as +-1) as in a trace; the rest of the arena is overwritten.

        Raises ValueError for inputs of another number or size than the instruction's.
        """
        instruction = self.program.instructions[number]
        with self._lock:
            for tensor, values in zip(instruction.inputs, inputs, strict=True):
                self._put(tensor, values)
            self._invoke(*self._ranges()[number])
            return self.tensor(instruction.output)

    def _put(self, number: int, values: np.ndarray) -> None:
        """Store real values in a tensor of the arena, and fill its halo as its producer does."""
        tensor = self.program.tensors[number]
        pixels(self._arena, tensor)[...] = stored_values(values.reshape(tensor.type.hwc), tensor.type)
        producer = next((i for i, made in enumerate(self.program.instructions) if number in made.outputs), -1)
        for i, call in enumerate(self._calls):
            if call.fills_halo and call.instruction == producer and call.lowered.args[0] == tensor.offset:
                self._invoke(i, i + 1)

    def _trace(self) -> Any:
        for number, (first, last) in enumerate(self._ranges()):
            instruction = self.program.instructions[number]
            started = time.perf_counter()
            self._invoke(first, last)
            seconds = time.perf_counter() - started
            output, *signs = (self.tensor(i) for i in instruction.outputs)
            layers = self.program.layers[number] if self.program.layers else ()
            yield Step(instruction.definition.name, self.kernels[number], layers, output, seconds, *signs)

    def tensor(self, number: int) -> np.ndarray:
        """What a tensor holds now, real values; that is its own only until another one is written over it."""
        tensor = self.program.tensors[number]
        return np.array(real_values(pixels(self._arena, tensor), tensor.type))

    def _ranges(self) -> list[tuple[int, int]]:
        """First and last kernel call of every instruction; the halos of inputs go with the first."""
        ends = [i + 1 for i, call in enumerate(self._calls) if call.instruction >= 0 and not call.fills_halo]
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _invoke(self, first: int, last: int) -> None:
        self._loop(*self._pointers, first, last)
        if self._guarded is not None:
            self._check_guard()

    def _infer(self) -> None:
        """One whole inference, on several threads where some of its instructions are worth it."""
        if self._pool is None:
            self._invoke(0, len(self._calls))
            return
        self._pool.infer()
        if self._guarded is not None:
            self._check_guard()

    # -- loading -----------------------------------------------------------------------------------------------------------

    def _link(self, progress: Progress | None) -> None:
        parts = [parts_for(call.lowered.code.name, call.lowered.work, self.threads) for call in self._calls]
        split = any(count > 1 for count in parts)
        codes: list[Code] = [LOOP, *((LEAD, HELPER) if split else ()), *(call.lowered.code for call in self._calls)]
        found = addresses(codes, self.machine, progress, self.library)
        self._loop = KERNEL(found[LOOP.name])
        widths = [len(call.lowered.args) for call in self._calls]
        tables = aligned(8 * (sum(widths) + RECORD * len(widths))).view(np.int64)
        self._arguments, self._records = tables[: sum(widths)], tables[sum(widths) :].reshape(-1, RECORD)
        start = 0
        for i, call in enumerate(self._calls):
            self._arguments[start : start + widths[i]] = call.lowered.args
            self._records[i] = found[call.lowered.code.name], self._arguments.ctypes.data + 8 * start, parts[i]
            start += widths[i]
        owned = (self._records, self._arena, self._constants, self._scratch)
        self._pointers = tuple(array.ctypes.data for array in owned)  # looked up once: it costs microseconds
        if split:
            self._pool = Pool(self.threads - 1, self._records, Entries(*(found[code.name] for code in (LOOP, LEAD, HELPER))), *owned[1:])
            close_with(self, self._pool)

    def _allocate_arena(self, nbytes: int, guard: bool) -> np.ndarray:
        if not guard:
            return aligned_apart(nbytes)
        self._guarded = aligned(nbytes + SPARE_BYTES + 2 * _GUARD_BYTES)
        self._guarded[:] = _GUARD_VALUE
        arena = self._guarded[_GUARD_BYTES : _GUARD_BYTES + nbytes]
        arena[:] = 0
        return arena

    def _check_guard(self) -> None:
        assert self._guarded is not None
        after = _GUARD_BYTES + self.program.arena_bytes
        if (self._guarded[:_GUARD_BYTES] != _GUARD_VALUE).any() or (self._guarded[after:] != _GUARD_VALUE).any():
            raise EdgeError("a kernel wrote outside the arena: this is a fault of edge; please report it with the model file")


def _dtype(kind: TensorType) -> np.dtype[Any]:
    """What users give or get of a tensor: bytes as they are stored, all else as float32."""
    return np.dtype({Encoding.UINT8: np.uint8, Encoding.INT8: np.int8}.get(kind.encoding, np.float32))


def _renew_all() -> None:
    """In a forked child, where no other thread exists: give every engine a new lock, which one of them may have held, and new helpers."""
    for engine in _ENGINES:
        engine._lock = threading.Lock()
        if engine._pool is not None:
            engine._pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def load(
    path: str | Path,
    *,
    mmap: bool = False,
    machine: Machine | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Engine:
    """Read, verify and prepare a `.edge` file; raises FormatError if it is not a sound one.

    `mmap` maps the file instead of copying it, for files that are large against memory: whoever then truncates or rewrites it in place
    kills the process (SIGBUS) or changes what it computes.
    """
    from edge.format import read
    from edge.verifier import verify

    program = read(require_path(path, "model"), mmap=mmap)
    verify(program)
    try:
        return Engine(program, machine=machine, threads=threads, progress=progress)
    except MemoryError as err:
        raise FormatError(
            f"{path} does not fit in memory: its tensors take {program.arena_bytes:,} bytes; close programs or use a larger machine"
        ) from err
