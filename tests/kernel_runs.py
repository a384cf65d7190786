"""Runs single kernels on fenced memory full of noise: a read or write beyond what is allowed ends the process or shows in the output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from draws import Case, program_of
from fenced import fenced

from edge.kernels import bitpack
from edge.kernels.cache import KERNEL, addresses
from edge.kernels.isa import Machine
from edge.kernels.move import lower_halo
from edge.kernels.reference import evaluate
from edge.kernels.registry import Derived, Lowered, Lowering, Place, select
from edge.op_check import check, check_halo
from edge.ops import Activation
from edge.program import Tensor
from edge.tensors import Encoding

_DTYPES = {Encoding.FLOAT32: np.float32, Encoding.INT8: np.int8, Encoding.UINT8: np.uint8, Encoding.BITS: np.uint8}
_NOISE = 0xFF  # of spare bytes; as float32 it is not a number


class FencedDerived(Derived):
    """Derived constants in fenced memory."""

    def __init__(self, base_address: int, *, at_end: bool) -> None:
        super().__init__(base_address)
        self._address = base_address
        self._at_end = at_end
        self._arrays: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> int:
        memory = fenced(array.nbytes, at_end=self._at_end, spare=_NOISE)
        memory[:] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self._arrays.append(memory)
        return memory.ctypes.data - self._address


@dataclass(frozen=True)
class Result:
    """What a run gave: the output's values as `edge.kernels.reference` gives them, the bytes of all outputs, and the second output."""

    values: np.ndarray
    stored: bytes
    signs: np.ndarray | None = None


class Run:
    """A case lowered for a machine, ready to run; a fence lies behind its memory (`at_end`) or before."""

    def __init__(self, case: Case, machine: Machine, *, at_end: bool = True) -> None:
        self.case = case
        self._at_end = at_end
        self.program = program_of(case)
        self._check()
        self.constants = self._fenced(self.program.blob.nbytes)
        self.constants[:] = self.program.blob
        derived = FencedDerived(int(self.constants.ctypes.data), at_end=at_end)
        instruction = self.program.instructions[0]
        lowering = Lowering(self.program, instruction, machine, derived)
        self.kernel = select(lowering).lower(lowering)
        self._derived = derived  # keeps its arrays alive
        self._scratch = self._fenced(self.kernel.scratch_bytes)
        self._halos = [_halo(self.program.tensors[i]) for i in self.program.inputs]
        self._output_halos = [_halo(output) for output in self.outputs]
        calls = [self.kernel, *self._halos, *self._output_halos]
        found = addresses([call.code for call in calls], machine)
        self._functions = {name: KERNEL(address) for name, address in found.items()}

    def _fenced(self, nbytes: int) -> np.ndarray:
        return fenced(nbytes, at_end=self._at_end, spare=_NOISE)

    def _check(self) -> None:
        """The operands are what a verified program may have."""
        instruction = self.program.instructions[0]
        check(instruction.definition, self.program.call(instruction), *(output.type for output in self.outputs))
        check_halo(instruction.definition, self.program.call(instruction))

    @property
    def outputs(self) -> list[Tensor]:
        return [self.program.tensors[number] for number in self.program.instructions[0].outputs]

    def run(self, parts: int = 1, order: Iterable[int] | None = None) -> Result:
        """Run the kernel, its parts in the given order; asserts that nothing but the output changed."""
        arena = self._prepared()
        for halo in self._output_halos[1 if self.case.in_place else 0 :]:
            self._call(halo, arena)
        before = arena.copy()
        for part in range(parts) if order is None else order:
            self._call(self.kernel, arena, part, parts)
        return self._result(arena, before)

    def written(self, part: int, parts: int) -> np.ndarray:
        """Which bytes of the outputs' tensors a part writes; not for cases in place."""
        seen = []
        for background in (0x00, 0xFF):  # a byte that is written differs from one of them
            arena = self._prepared()
            tensors = [_bytes_of(arena, output) for output in self.outputs]
            for tensor in tensors:
                tensor[:] = background
            self._call(self.kernel, arena, part, parts)
            seen.append(np.concatenate(tensors) != background)
        return np.logical_or(*seen)

    def _prepared(self) -> np.ndarray:
        """An arena that holds the inputs."""
        arena = self._arena()
        for tensor, halo, values in zip(self._inputs(), self._halos, self.case.inputs, strict=True):
            self._call(halo, arena)
            _view(arena, tensor)[...] = _stored(values, tensor)
        return arena

    def _inputs(self) -> list[Tensor]:
        return [self.program.tensors[i] for i in self.program.inputs]

    def _arena(self) -> np.ndarray:
        """An arena full of what another inference may have left."""
        arena = self._fenced(self.program.arena_bytes)
        arena[:] = np.random.default_rng(0).integers(0, 256, arena.nbytes, np.uint8)
        return arena

    def _call(self, call: Lowered, arena: np.ndarray, part: int = 0, parts: int = 1) -> None:
        args = np.array(call.args, np.int64)
        pointers = (args.ctypes.data, arena.ctypes.data, self.constants.ctypes.data, self._scratch.ctypes.data)
        self._functions[call.code.name](*pointers, part, parts)

    def _result(self, arena: np.ndarray, before: np.ndarray) -> Result:
        """The outputs; everything around their pixels must be as before."""
        pixels = [_view(arena, output).copy() for output in self.outputs]
        stored = b"".join(_bytes_of(arena, output).tobytes() for output in self.outputs)
        for output, image in zip(self.outputs, pixels, strict=True):
            _view(before, output)[...] = image
        assert np.array_equal(arena, before), "the kernel wrote beside its output"
        values, *signs = (_values(image, output) for output, image in zip(self.outputs, pixels, strict=True))
        return Result(values, stored, *signs)


def _bytes_of(arena: np.ndarray, tensor: Tensor) -> np.ndarray:
    return arena[tensor.offset : tensor.offset + tensor.type.nbytes]


def _halo(tensor: Tensor) -> Lowered:
    return lower_halo(Place(tensor.type, tensor.offset))


def _view(arena: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The pixels of a tensor: (H, W, C), or (H, W, bytes) of packed ones."""
    kind = tensor.type
    height, width, channels = kind.hwc
    last = kind.pixel_bytes if kind.encoding is Encoding.BITS else channels
    dtype = np.dtype(_DTYPES[kind.encoding])
    strides = (kind.row_bytes, kind.pixel_bytes, dtype.itemsize)
    return np.ndarray((height, width, last), dtype, arena.data, tensor.offset + kind.origin_bytes, strides)


def _stored(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    image = values.reshape(tensor.type.hwc)
    return bitpack.pack(image, tensor.type.pixel_bytes) if tensor.type.encoding is Encoding.BITS else image


def _values(stored: np.ndarray, tensor: Tensor) -> np.ndarray:
    if tensor.type.encoding is not Encoding.BITS:
        return stored.reshape(tensor.type.shape)
    bits = bitpack.unpack(stored, tensor.type.shape[-1])
    assert np.array_equal(bitpack.pack(bits, tensor.type.pixel_bytes), stored), "spare bits are not 0"
    return bits.reshape(tensor.type.shape)


# -- the reference -------------------------------------------------------------------------------------------------------------


def expected(case: Case, inputs: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """What `edge.kernels.reference` says."""
    return evaluate(case.node.op, case.graph.call(case.node), case.output, inputs or case.inputs, case.node.constants)


_EXACT = (Activation.NONE, Activation.RELU, Activation.LEAKY_RELU, Activation.HARD_SWISH, Activation.SOFTSIGN, Activation.SQRT)
_SUMMED = ("layer_norm", "log_softmax")  # whose values may be small beside the terms they are made of


def tolerance(case: Case, *, fused: bool) -> np.ndarray | float:
    """How far an output may be from the reference: 0 for integers, bits and everything that is rounded step by step.

    Float convolutions without a `fused` multiply-add may differ by 4 ulp of the accumulated magnitude; exponentials by 1e-5 of the value.
    """
    node = case.node
    if node.op in _SUMMED:
        return 1e-5 * np.maximum(1, np.abs(expected(case)))
    if node.op in ("softmax", "local_response_norm") or node.attrs.get("activation", Activation.NONE) not in _EXACT:
        return 1e-5 * np.abs(expected(case)) + 1e-37
    floating = "filter" in node.constants and case.inputs[0].dtype == np.float32
    if not floating or fused or node.constants["filter"].dtype == np.bool_:
        return 0.0
    return 4 * np.finfo(np.float32).eps * _magnitude(case)


def _magnitude(case: Case) -> np.ndarray:
    """Sums of absolute products, as the output sees them."""
    constants = {role: _absolute(array) for role, array in case.node.constants.items()}
    neutral = {**case.node.attrs, "activation": int(Activation.NONE)}
    call = case.graph.call(case.node)
    call = type(call)(call.inputs, call.constants, neutral)
    steepest = np.maximum(1, constants.pop("slope", np.float32(1)))
    return steepest * evaluate(case.node.op, call, case.output, [np.abs(x) for x in case.inputs], constants)


def _absolute(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.bool_:
        return np.zeros_like(array)  # +1
    return np.abs(np.maximum(array, -127)) if array.dtype == np.int8 else np.abs(array)


def agreeing(got: np.ndarray, want: np.ndarray, allowed: np.ndarray | float) -> np.ndarray:
    """Where values are equal, both no number, or float32 as close as is allowed."""
    same = (got == want) | ((got != got) & (want != want))
    if want.dtype == np.float32 and np.any(allowed):
        with np.errstate(invalid="ignore"):
            same |= np.abs(got - want) <= allowed
    return same


def assert_agrees(case: Case, got: np.ndarray, *, fused: bool) -> None:
    """Fail with the case where values differ from the reference by more than they may."""
    want = expected(case)
    same = agreeing(got, want, tolerance(case, fused=fused))
    assert same.all(), f"{case}\n{int((~same).sum())} of {same.size} values differ, got {got[~same][:5]}, expected {want[~same][:5]}"
