"""Which kernel runs an instruction on a machine: lowering from operations to kernels.

A program holds operations. When it is loaded, every instruction is lowered: the first kernel of its operation that accepts it gives an
argument row, the scratch bytes it needs, and how its code is built. Kernels live in families, one module each, named in `FAMILIES`; a
family's lowering imports neither Numba nor LLVM, its code (the `build` functions) does, when it has to be compiled.

Arguments are int64: offsets into arena and constants, counts, and floats as the bits of a float32 (`float_bits`). Lowering is trusted code:
it runs after the verifier and derives every address from verified shapes.
"""

from __future__ import annotations

import functools
import importlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.errors import FormatError
from edge.kernels.isa import Machine
from edge.memory import Pages
from edge.ops import OpCall
from edge.program import Instruction, Program
from edge.tensors import TensorType

FAMILIES = ("conv", "depthwise", "pool", "elementwise", "move", "magnitude", "multiply", "gather", "normalize")

KernelFunction = Callable[..., None]


@dataclass(frozen=True)
class Code:
    """Machine code to be made: a name that is unique for what `build` would give, and the function that gives it."""

    name: str
    build: Callable[[Machine], KernelFunction]


@dataclass(frozen=True)
class Lowered:
    """An instruction as a kernel call. `work` estimates multiply-accumulates or values touched, for splitting among threads."""

    code: Code
    args: tuple[int, ...]
    scratch_bytes: int = 0
    work: int = 0


@dataclass(frozen=True)
class Place:
    """A tensor in the arena as a kernel sees it: `offset` is the byte of pixel (0, 0), inside the halo."""

    type: TensorType
    offset: int

    @property
    def height(self) -> int:
        return self.type.hwc[0]

    @property
    def width(self) -> int:
        return self.type.hwc[1]

    @property
    def channels(self) -> int:
        return self.type.hwc[2]

    @property
    def pixel_bytes(self) -> int:
        return self.type.pixel_bytes

    @property
    def row_bytes(self) -> int:
        return self.type.row_bytes


class Derived:
    """Constants computed at load. Kernels reach them from the base address of the file's constants, as they reach those.

    They have pages of their own, so the file's constants are neither copied nor moved; equal arrays are kept once.
    """

    def __init__(self, base_address: int) -> None:
        self._base = base_address
        self._kept: dict[bytes, np.ndarray] = {}
        self._pages = Pages()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, each filled up to a multiple of 64."""
        return self._pages.nbytes

    @property
    def mapped_bytes(self) -> int:
        """Bytes of the pages that hold them."""
        return self._pages.mapped_bytes

    def add(self, array: np.ndarray) -> int:
        """Keep an array; its offset from the base, bytes."""
        data = np.ascontiguousarray(array).tobytes()
        if data not in self._kept:
            memory = self._pages.take(len(data))
            memory[:] = np.frombuffer(data, np.uint8)
            self._kept[data] = memory
        return int(self._kept[data].ctypes.data) - self._base


@dataclass(frozen=True)
class Lowering:
    """One instruction being lowered."""

    program: Program
    instruction: Instruction
    machine: Machine
    derived: Derived

    @functools.cached_property
    def call(self) -> OpCall:
        return self.program.call(self.instruction)

    @property
    def op(self) -> str:
        return self.instruction.definition.name

    def input(self, index: int = 0) -> Place:
        return self._place(self.instruction.inputs[index])

    @property
    def output(self) -> Place:
        return self._place(self.instruction.output)

    @property
    def signs(self) -> Place | None:
        """The second output."""
        return self._place(self.instruction.signs) if self.instruction.signs >= 0 else None

    def _place(self, number: int) -> Place:
        tensor = self.program.tensors[number]
        return Place(tensor.type, tensor.offset + tensor.type.origin_bytes)

    def has(self, role: str) -> bool:
        return self.instruction.constant(role) >= 0

    def constant(self, role: str) -> int:
        """The offset of a constant in the blob, bytes."""
        return self.program.constants[self.instruction.constant(role)].offset

    def array(self, role: str) -> np.ndarray:
        """A constant as an array."""
        found = self.program.array(self.instruction, role)
        if found is None:
            raise KeyError(role)
        return found

    def i(self, name: str) -> int:
        return self.call.i(name)

    def f(self, name: str) -> float:
        return float(self.call.attrs[name])


@dataclass(frozen=True)
class Kernel:
    """An entry of a family: what it runs and how an instruction becomes a call of it."""

    name: str
    op: str
    accepts: Callable[[Lowering], bool]
    lower: Callable[[Lowering], Lowered]


def float_bits(value: float) -> int:
    """The bits of a float32, as an argument."""
    return int(struct.unpack("<i", struct.pack("<f", np.float32(value)))[0])


@functools.cache
def kernels(op: str) -> tuple[Kernel, ...]:
    """All kernels of an operation, the preferred first."""
    found: list[Kernel] = []
    for family in FAMILIES:
        module: Any = importlib.import_module(f"edge.kernels.{family}")
        found += [kernel for kernel in module.KERNELS if kernel.op == op]
    return tuple(found)


def select(lowering: Lowering) -> Kernel:
    """The kernel for an instruction; FormatError if there is none for its operands."""
    for kernel in kernels(lowering.op):
        if kernel.accepts(lowering):
            return kernel
    names = [t.encoding.name.lower() for t in (*lowering.call.inputs, lowering.output.type)]
    raise FormatError(
        f"no kernel runs {lowering.op} on {', '.join(names)} as this file asks; convert the model again with this version of edge"
    )
