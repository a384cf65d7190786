"""What the machine can do at most: loops over registers alone, and over memory of a size.

A probe of arithmetic is the step of a kernel's register tile (`edge.kernels.tile.step`) on as many accumulators as fit the registers, with
no load inside the loop. An accumulator is its own next operand, acc = step(acc, acc, w), so that no iteration can be left out or moved out
of the loop, and there are more chains than the latency of a step needs. A probe of memory reads a buffer from end to end and sums it.

Both are made by the compile path of the kernels and keep the kernels' signature.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.kernels.cache import KERNEL, addresses
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, KernelFunction
from edge.memory import aligned

STEPS = {"binary": "bits", "int8": "u8i8", "float32": "f32f32"}  # arithmetic -> kind of the tile's step
ITERATIONS = 20_000
STREAMS = 8  # vectors summed side by side
MEMORY_BYTES = {"L2 bytes": 1 << 19, "L3 bytes": 1 << 23, "DRAM bytes": 1 << 28}

# The cache of machine code knows the kernels' sources; this file is part of the probes' names instead.
_VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]


@dataclass(frozen=True)
class Probe:
    """A call, what it does (multiply-accumulates or bytes, of the kind its name says), and the memory it uses."""

    name: str
    call: Callable[[], object]
    work: float
    arena: np.ndarray


def arithmetic(name: str, machine: Machine) -> Probe:
    """Multiply-accumulates on registers."""
    chains, vectors = _registers(machine)
    code = Code(f"probe_{name}_{_VERSION}", functools.partial(_build_arithmetic, STEPS[name]))
    arena = aligned(machine.isa.vector_bytes * (chains + vectors))
    arena[:] = np.random.default_rng(0).integers(0, 256, arena.nbytes, np.uint8)
    if name == "float32":
        arena.view(np.float32)[:] = 0.5
    per_vector = {"binary": 8, "int8": 1, "float32": 0.25}[name]  # multiply-accumulates per byte
    return Probe(name, _caller(code, machine, (ITERATIONS,), arena), ITERATIONS * chains * machine.isa.vector_bytes * per_vector, arena)


def memory(name: str, machine: Machine) -> Probe:
    """Bytes read from a buffer that fits one level of the memory and not the one before."""
    nbytes = MEMORY_BYTES[name]
    arena = aligned(nbytes)
    arena[:] = 1
    code = Code(f"probe_memory_{_VERSION}", _build_memory)
    return Probe(name, _caller(code, machine, (nbytes,), arena), nbytes, arena)


def _registers(machine: Machine) -> tuple[int, int]:
    """Accumulators and vectors of filters that fit the registers, with some left for what lies between."""
    return 3 * machine.isa.vectors // 4, machine.isa.vectors // 8


def _caller(code: Code, machine: Machine, arguments: tuple[int, ...], arena: np.ndarray) -> Callable[[], object]:
    function = KERNEL(addresses([code], machine)[code.name])
    args = np.array(arguments, np.int64)
    pointers = (args.ctypes.data, arena.ctypes.data, arena.ctypes.data, arena.ctypes.data)

    def call(_kept: np.ndarray = args) -> None:
        function(*pointers, 0, 1)

    return call


# -- code ----------------------------------------------------------------------------------------------------------------------


def _build_arithmetic(kind: str, machine: Machine) -> KernelFunction:
    loop = _arithmetic_loop(kind, machine)

    def probe(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        loop(arena, args[0])

    return probe


def _arithmetic_loop(kind: str, machine: Machine) -> Any:
    """loop(arena, iterations): load the accumulators and filters, step all accumulators that often, store them."""
    import llvmlite.ir as ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    from edge.kernels.tile import step

    made, (chains, vectors) = step(kind, machine), _registers(machine)
    lanes = machine.isa.vector_bytes // (8 if kind == "bits" else 4)
    accumulator = ir.VectorType(made.accumulator, lanes)
    operand = ir.VectorType(ir.IntType(8), 4 * lanes) if kind == "u8i8" else accumulator

    def emit(context: Any, builder: Any, sig: Any, values: list[Any]) -> Any:
        def place(number: int, of: Any) -> Any:
            offset = ir.Constant(ir.IntType(64), number * machine.isa.vector_bytes)
            return builder.bitcast(builder.gep(values[0], [offset]), of.as_pointer())

        slots = [cgutils.alloca_once(builder, accumulator) for _ in range(chains)]
        for i, slot in enumerate(slots):
            builder.store(builder.load(place(i, accumulator), align=1), slot)
        filters = [builder.load(place(chains + j, operand), align=1) for j in range(vectors)]
        with cgutils.for_range(builder, values[1]):
            for i, slot in enumerate(slots):
                acc = builder.load(slot)
                builder.store(made.multiply(builder, acc, builder.bitcast(acc, operand), filters[i % vectors]), slot)
        for i, slot in enumerate(slots):
            builder.store(builder.load(slot), place(i, accumulator), align=1)
        return context.get_dummy_value()

    signature = types.void(types.CPointer(types.uint8), types.int64)
    return intrinsic(lambda context, arena, iterations: (signature, emit))


def _build_memory(machine: Machine) -> KernelFunction:
    from edge.kernels.simd import vector

    lanes = machine.isa.vector_bytes // 8
    v = vector("i64", lanes)
    width = machine.isa.vector_bytes

    def probe(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
        a, b, c, d = v.splat(0), v.splat(0), v.splat(0), v.splat(0)
        e, f, g, h = v.splat(0), v.splat(0), v.splat(0), v.splat(0)
        for i in range(0, args[0], STREAMS * width):
            a = a + v.load(arena, i)
            b = b + v.load(arena, i + width)
            c = c + v.load(arena, i + 2 * width)
            d = d + v.load(arena, i + 3 * width)
            e = e + v.load(arena, i + 4 * width)
            f = f + v.load(arena, i + 5 * width)
            g = g + v.load(arena, i + 6 * width)
            h = h + v.load(arena, i + 7 * width)
        v.store(arena, 0, a + b + c + d + e + f + g + h)

    return probe
