"""Which cases of each operation and signature kernels are tried with, and the comparison with the reference."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from draws import Case, Draw, Signature, program_of
from kernel_runs import Run, assert_agrees
from strategies import SPECIALISED, case, signatures
from strategies_conv import Fixed, fixed

from edge.kernels.isa import Machine, available, detect
from edge.kernels.reference import signs_of
from edge.kernels.registry import Code, Derived, Lowering, select
from edge.kernels.tile import has_fma
from edge.ops import OPS

MACHINES = {isa.name: detect(isa.name) for isa in available()}
BEST = next(iter(MACHINES))
SIGNATURES = [(op, signature) for op in OPS for signature in signatures(op)]


def name_of(value: object) -> str:
    """Test ids: signatures as `float32-bits-float32`."""
    if isinstance(value, tuple):
        return "-".join("none" if e is None else e.name.lower() for e in value)
    return str(value)


def shared(op: str, signature: Signature, variant: int = 0) -> Fixed | None:
    """What the cases of an operation and signature have in common, so that few kernels are compiled."""
    draw = Draw(zlib.crc32(f"{op} {name_of(signature)} {variant}".encode()))
    return fixed(draw, signature) if op in SPECIALISED else None


def cases(op: str, signature: Signature, count: int, variant: int = 0) -> Iterator[Case]:
    for seed in range(count):
        yield case(op, signature, 1000 * variant + seed, shared(op, signature, variant))


def seeds(op: str) -> int:
    """How many cases to take: more where they cost no compilation."""
    return 2 if op in (*SPECIALISED, "max_pool2d", "average_pool2d") else 25


def check(one: Case, machine: Machine, *, at_end: bool) -> None:
    result = Run(one, machine, at_end=at_end).run()
    assert_agrees(one, result.values, fused=has_fma(machine))
    if result.signs is not None:  # of the values as they came out
        assert np.array_equal(result.signs, signs_of(result.values, one.node.constants)), str(one)


def code_of(one: Case, machine: Machine) -> Code:
    """The kernel of a case, not compiled."""
    program = program_of(one)
    lowering = Lowering(program, program.instructions[0], machine, Derived(int(program.blob.ctypes.data)))
    return select(lowering).lower(lowering).code
