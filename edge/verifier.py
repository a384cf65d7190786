"""The proof that a program is safe to run: whoever wrote the file, no kernel reads or writes a byte that is not its own.

Kernels compute every address from the operands of their instruction, never from values. So it is enough that the operands of each
instruction fit its operation (`edge.op_check`), that tensors lie in the arena and constants in the blob with the bytes that the operands
ask for, and that an output lies on no input but where the operation allows it. Beyond safety the verifier proves that every tensor is
written before it is read and read before it is overwritten, and that the work is bounded, so that no file can hang the engine.

The values of constants are not looked at: any bytes are safe.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edge.arena import may_share, round_up
from edge.errors import FormatError
from edge.format import MAX_BLOB_BYTES
from edge.layout import constant_bytes
from edge.op_check import check, check_halo, check_tensor
from edge.ops import BY_NUMBER, MAX_ELEMENTS, OpCall, OpError
from edge.program import ALIGNMENT, Constant, Instruction, Program, Tensor
from edge.tensors import Encoding

MAX_ARENA_BYTES = 1 << 32
# Bytes of tensors and filters that one inference touches: minutes on a slow processor, and fifty times what ResNet-50 needs in float32.
MAX_WORK_BYTES = 1 << 40

_GIVEN = (Encoding.FLOAT32, Encoding.UINT8, Encoding.INT8)  # what users give the engine
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def verify(program: Program) -> None:
    """Prove a program safe to run; raises `FormatError` naming the tensor, constant or instruction that is not."""
    _verify_tensors(program)
    _verify_constants(program)
    _verify_instructions(program)
    _verify_order(program)
    _verify_text(program)


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise OpError(message)


@contextmanager
def _proving(where: str) -> Iterator[None]:
    try:
        yield
    except OpError as err:
        raise FormatError(f"the program is not safe to run: {where}: {err}; convert the source model again") from err


def _instruction_name(number: int, instruction: Instruction) -> str:
    op = BY_NUMBER.get(instruction.op)
    return f"instruction {number} ({op.name if op else 'unknown'})"


# -- tensors and constants -----------------------------------------------------------------------------------------------------


def _verify_tensors(program: Program) -> None:
    for number, tensor in enumerate(program.tensors):
        with _proving(f"tensor {number}"):
            _check_place(tensor)
    with _proving("arena"):
        _check_arena(program)
    with _proving("inputs"):
        _check_ends(program, program.inputs)
        _check_given(program)
    with _proving("outputs"):
        _check_ends(program, program.outputs)


def _check_size(size: int, limit: int) -> None:
    _need(0 <= size <= limit, f"expected 0 to {limit} bytes, got {size}")


def _check_place(tensor: Tensor) -> None:
    check_tensor(tensor.type)
    _need(tensor.offset >= 0 and tensor.offset % ALIGNMENT == 0, f"offset {tensor.offset} is no multiple of {ALIGNMENT}")


def _check_arena(program: Program) -> None:
    """The arena ends where its last tensor does, so that no file asks for memory it does not use."""
    _check_size(program.arena_bytes, MAX_ARENA_BYTES)
    expected = round_up(max((tensor.offset + tensor.type.nbytes for tensor in program.tensors), default=0))
    _need(program.arena_bytes == expected, f"expected {expected} bytes, got {program.arena_bytes}")


def _check_ends(program: Program, numbers: Sequence[int]) -> None:
    _need(len(numbers) >= 1, "expected at least 1, got none")
    for number in numbers:
        _check_index(number, program.tensors, "tensor")


def _check_given(program: Program) -> None:
    for number in program.inputs:
        encoding = program.tensors[number].type.encoding
        _need(encoding in _GIVEN, f"tensor {number} is {encoding.name.lower()}, expected float32, uint8 or int8")


def _check_index(number: int, table: Sequence[Any], kind: str) -> None:
    _need(0 <= number < len(table), f"{kind} {number} is none of the {len(table)}")


def _verify_constants(program: Program) -> None:
    with _proving("constants"):
        _check_size(program.blob.nbytes, MAX_BLOB_BYTES)
    for number, constant in enumerate(program.constants):
        with _proving(f"constant {number}"):
            _check_constant(constant, program.blob.nbytes)


def _check_constant(constant: Constant, blob_bytes: int) -> None:
    shape, offset = constant.type.shape, constant.offset
    _need(1 <= len(shape) <= 4 and min(shape) >= 1 and max(shape) <= MAX_ELEMENTS, f"{shape} is no shape")
    _need(offset >= 0 and offset % ALIGNMENT == 0, f"offset {offset} is no multiple of {ALIGNMENT}")
    _need(constant.nbytes >= 1, f"expected at least 1 byte, got {constant.nbytes}")
    _need(offset + constant.nbytes <= blob_bytes, f"it ends at byte {offset + constant.nbytes} of {blob_bytes}")


# -- instructions --------------------------------------------------------------------------------------------------------------


def _verify_instructions(program: Program) -> None:
    work = 0
    for number, instruction in enumerate(program.instructions):
        with _proving(_instruction_name(number, instruction)):
            work += _check_instruction(program, instruction)
            _need(work <= MAX_WORK_BYTES, f"the work up to here, {work} bytes, exceeds {MAX_WORK_BYTES}")


def _check_instruction(program: Program, instruction: Instruction) -> int:
    """Prove one instruction; returns its work in bytes."""
    _need(instruction.op in BY_NUMBER, f"operation {instruction.op} is unknown")
    _check_operands(program, instruction)
    op, call = instruction.definition, program.call(instruction)
    outputs = [program.tensors[i] for i in instruction.outputs]
    check(op, call, *(output.type for output in outputs))
    check_halo(op, call)
    _check_stored(program, instruction, call)
    _check_overlap([program.tensors[i] for i in instruction.inputs], outputs, op.in_place)
    return _work(program, instruction, call)


def _check_operands(program: Program, instruction: Instruction) -> None:
    op = instruction.definition
    for number in (*instruction.inputs, *instruction.outputs):
        _check_index(number, program.tensors, "tensor")
    expected, got = (len(op.constants), len(op.attrs)), (len(instruction.constants), len(instruction.attrs))
    _need(expected == got, f"expected {expected[0]} constants and {expected[1]} attributes, got {got[0]} and {got[1]}")
    for number in instruction.constants:
        if number != -1:
            _check_index(number, program.constants, "constant")


def _check_stored(program: Program, instruction: Instruction, call: OpCall) -> None:
    """Constants have the bytes that the operands ask for."""
    op = instruction.definition
    for role in call.constants:
        stored = program.constants[instruction.constant(role)].nbytes
        expected = constant_bytes(op.name, role, call)
        _need(stored == expected, f"{role} has {stored} bytes, expected {expected}")


def _check_overlap(inputs: Sequence[Tensor], outputs: Sequence[Tensor], in_place: int) -> None:
    first, *others = outputs
    for index, source in enumerate(inputs):
        same_place = index == in_place and source.offset == first.offset and may_share(source.type, first.type)
        _need(_apart(source, first) or same_place, f"the output lies on input {index}")
    for output in others:
        _need(all(_apart(other, output) for other in (*inputs, first)), "the second output lies on an input or on the first")


def _apart(first: Tensor, second: Tensor) -> bool:
    return first.offset + first.type.nbytes <= second.offset or second.offset + second.type.nbytes <= first.offset


def _work(program: Program, instruction: Instruction, call: OpCall) -> int:
    """Bytes of tensors, windows and filters that an instruction touches: a filter once for every place of its window."""
    output = program.tensors[instruction.output].type
    places = output.hwc[0] * output.hwc[1]
    touched = sum(kind.nbytes for kind in (*(program.tensors[i].type for i in instruction.outputs), *call.inputs))
    if "filter" in call.constants:
        touched += places * program.constants[instruction.constant("filter")].nbytes
    if "window_h" in call.attrs:
        columns = max(output.hwc[1] * call.i("window_w"), call.inputs[0].hwc[1])  # magnitude_map adds whole rows
        touched += output.hwc[0] * call.i("window_h") * columns * output.pixel_bytes
    if "radius" in call.attrs:
        touched += 2 * call.i("radius") * output.nbytes
    return touched


# -- the order of writing and reading ------------------------------------------------------------------------------------------


class _Alive:
    """The tensors whose bytes are as they were written: they never overlap, so that they have an order."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._places: list[tuple[int, int]] = []  # (offset, tensor), in order
        self._numbers: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def write(self, number: int) -> None:
        """`number` comes alive, and what it overlaps dies."""
        start = self._tensors[number].offset
        end = start + self._tensors[number].type.nbytes
        first = bisect_right(self._places, (start, -1))
        if first and self._end(self._places[first - 1]) > start:
            first -= 1
        last = first
        while last < len(self._places) and self._places[last][0] < end:
            self._numbers.discard(self._places[last][1])
            last += 1
        del self._places[first:last]
        insort(self._places, (start, number))
        self._numbers.add(number)

    def _end(self, place: tuple[int, int]) -> int:
        return place[0] + self._tensors[place[1]].type.nbytes


def _verify_order(program: Program) -> None:
    """Simulate which tensors are alive; every tensor is written once."""
    alive = _Alive(program.tensors)
    written: set[int] = set()
    with _proving("inputs"):
        for number in program.inputs:
            _write(alive, written, number)
        _check_alive(alive, program.inputs)
    for number, instruction in enumerate(program.instructions):
        with _proving(_instruction_name(number, instruction)):
            _check_alive(alive, instruction.inputs)
            for output in instruction.outputs:
                _write(alive, written, output)
    with _proving("outputs"):
        _check_alive(alive, program.outputs)


def _write(alive: _Alive, written: set[int], number: int) -> None:
    _need(number not in written, f"tensor {number} is written twice")
    alive.write(number)
    written.add(number)


def _check_alive(alive: _Alive, numbers: Iterable[int]) -> None:
    for number in numbers:
        _need(number in alive, f"tensor {number} is read before it is written, or after it was overwritten")


# -- layer names and metadata --------------------------------------------------------------------------------------------------


def _verify_text(program: Program) -> None:
    with _proving("layer names"):
        _check_layers(program)
    with _proving("metadata"):
        _check_metadata(program)


def _check_layers(program: Program) -> None:
    counts = len(program.layers), len(program.instructions)
    _need(counts[0] in (0, counts[1]), f"expected names for {counts[1]} instructions, got them for {counts[0]}")


def _check_metadata(program: Program) -> None:
    metadata = program.metadata
    for key, counted in (("inputs", program.inputs), ("tensors", program.tensors)):
        names = metadata.get(key, [])
        _need(_is_list(names, str) and len(names) in (0, len(counted)), f"{key} must be a list with a name for each")
    outputs = metadata.get("outputs", [])
    named = _is_list(outputs, dict) and all(isinstance(output.get("name"), str) for output in outputs)
    _need(named and len(outputs) in (0, len(program.outputs)), "outputs must be a list of objects with a name for each output")
    _need(isinstance(metadata.get("name", ""), str), "name must be a text")
    _need(_is_list(metadata.get("labels") or [], str), "labels must be a list of names")
    for text in _strings([metadata, program.layers]):
        _need(_CONTROL.search(text) is None, f"{text!r} holds control characters")


def _is_list(value: Any, item: type) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(inner, item) for inner in value)


def _strings(content: Any) -> Iterator[str]:
    """Every string in a value of JSON, keys included; terminals would obey control characters in them."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += value
