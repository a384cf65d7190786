"""What an application of an operation is, before anything is known of the operation: operands, constants, attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.tensors import Encoding, TensorType

F32, U8, I8, BITS, I32 = Encoding.FLOAT32, Encoding.UINT8, Encoding.INT8, Encoding.BITS, Encoding.INT32

MAX_ELEMENTS = 1 << 31  # of one tensor or constant; keeps every byte offset far inside int64
MAX_ATTRIBUTE = 1 << 20  # strides, windows, pads
MAX_ACCUMULATOR = (1 << 31) - 1


class OpError(ValueError):
    """Operands that do not fit an operation; the message is the reason, the caller adds where."""


@dataclass(frozen=True)
class ConstantType:
    """Encoding and logical shape of a constant."""

    encoding: Encoding
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OpCall:
    """One application of an operation, without its output."""

    inputs: tuple[TensorType, ...]
    constants: Mapping[str, ConstantType] = field(default_factory=dict)
    attrs: Mapping[str, int | float] = field(default_factory=dict)

    def i(self, name: str) -> int:
        """A whole-number attribute."""
        return int(self.attrs[name])


def need(condition: bool, message: str) -> None:
    if not condition:
        raise OpError(message)
