"""Tensors, constants and instructions as the words of a `.edge` file (see the byte table of `edge.format`)."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from edge.ops import BY_NUMBER, ConstantType
from edge.program import Constant, Instruction, Tensor
from edge.tensors import MAX_RANK, Encoding, Halo, TensorType

TENSOR_WORDS = 12
CONSTANT_WORDS = 8
CONSTANT_RANK = 4
MAX_WORD = (1 << 63) - 1


class RecordError(ValueError):
    """Words that are no record; the message is the reason, the caller adds the file."""


class Words:
    """Words read one after the other."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = values
        self._next = 0

    @property
    def left(self) -> int:
        return len(self._values) - self._next

    def take(self, count: int) -> Sequence[int]:
        """The next `count` words; raises `RecordError` if there are not as many."""
        if not 0 <= count <= self.left:
            raise RecordError(f"{count} words were expected where {self.left} are left")
        taken = self._values[self._next : self._next + count]
        self._next += count
        return taken

    def one(self) -> int:
        return self.take(1)[0]


# -- floats and shapes ---------------------------------------------------------------------------------------------------------


def float_word(value: float) -> int:
    """The bits of a float32 as a word."""
    (word,) = struct.unpack("<I", struct.pack("<f", value))
    return int(word)


def word_float(word: int) -> float:
    """The float32 whose bits a word holds."""
    if not 0 <= word < 1 << 32:
        raise RecordError(f"{word} does not hold the bits of a float32")
    (value,) = struct.unpack("<f", struct.pack("<I", word))
    return float(value)


def _shape_words(shape: tuple[int, ...], rank: int) -> list[int]:
    return [len(shape), *shape, *(0,) * (rank - len(shape))]


def _shape(rank: int, sizes: Sequence[int]) -> tuple[int, ...]:
    if not 1 <= rank <= len(sizes) or any(sizes[rank:]):
        raise RecordError(f"rank {rank} and sizes {tuple(sizes)} are no shape of 1 to {len(sizes)} axes")
    return tuple(sizes[:rank])


def _encoding(number: int) -> Encoding:
    try:
        return Encoding(number)
    except ValueError as err:
        raise RecordError(f"encoding {number} is unknown; the encodings are {', '.join(f'{e.value}' for e in Encoding)}") from err


# -- records -------------------------------------------------------------------------------------------------------------------


def tensor_words(tensor: Tensor) -> list[int]:
    kind, halo = tensor.type, tensor.type.halo
    shape = _shape_words(kind.shape, MAX_RANK)
    quantization = [float_word(kind.scale), kind.zero_point]
    return [kind.encoding, *shape, *quantization, halo.top, halo.bottom, halo.left, halo.right, tensor.offset]


def read_tensor(words: Words) -> Tensor:
    encoding, rank, *sizes = words.take(2 + MAX_RANK)
    scale, zero_point, *halo = words.take(6)
    kind = TensorType(_shape(rank, sizes), _encoding(encoding), word_float(scale), zero_point, Halo(*halo))
    return Tensor(kind, words.one())


def constant_words(constant: Constant) -> list[int]:
    shape = _shape_words(constant.type.shape, CONSTANT_RANK)
    return [constant.type.encoding, *shape, constant.offset, constant.nbytes]


def read_constant(words: Words) -> Constant:
    encoding, rank, *sizes = words.take(2 + CONSTANT_RANK)
    offset, nbytes = words.take(2)
    kind = ConstantType(_encoding(encoding), _shape(rank, sizes))
    if math.prod(kind.shape) > MAX_WORD:
        raise RecordError(f"a constant of {kind.shape} is too large")
    return Constant(kind, offset, nbytes)


def instruction_words(instruction: Instruction) -> list[int]:
    op = instruction.definition
    attrs = (float_word(value) if name in op.floats else int(value) for name, value in instruction.attributes().items())
    signs = (instruction.signs,) if op.gives_signs else ()
    operands = (*instruction.inputs, instruction.output, *signs, *instruction.constants)
    return [op.number, len(instruction.inputs), *operands, *attrs]


def read_instruction(words: Words) -> Instruction:
    number, inputs = words.take(2)
    if number not in BY_NUMBER:
        raise RecordError(f"operation {number} is unknown; the operations are 1 to {max(BY_NUMBER)}")
    op = BY_NUMBER[number]
    sources, output, signs = tuple(words.take(inputs)), words.one(), words.one() if op.gives_signs else -1
    constants = tuple(words.take(len(op.constants)))
    attrs = zip(op.attrs, words.take(len(op.attrs)), strict=True)
    values = tuple(word_float(word) if name in op.floats else word for name, word in attrs)
    return Instruction(number, sources, output, constants, values, signs)
