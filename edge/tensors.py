"""What a tensor is: shape, encoding, halo and quantization, and how many bytes it takes in the arena.

A tensor belongs to one example: shapes have no batch axis and one to three axes, (H, W, C), (W, C) or (C,), channels last.
Kernels see every tensor as an image (H, W, C); `hwc` gives that view.

    encoding   a value is                     a pixel (all channels of one place) takes
    float32    IEEE float32                   4 * C bytes
    uint8      0..255, a picture              C bytes
    int8       scale * (q - zero_point)       C bytes
    bits       bipolar, bit 1 means -1        8, 16, 32 or 64 * n bits, the smallest that holds C; spare bits are 0

Around the image lies the halo, rows and columns that convolutions read as padding. The producer of a tensor fills it with the encoding's
zero (for bits there is none: the halo holds +1, and a convolution with zero padding subtracts what the outside taps added).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

MAX_RANK = 3


class Encoding(enum.IntEnum):
    """How a value is stored. The numbers are part of the file format."""

    FLOAT32 = 1
    UINT8 = 2
    INT8 = 3
    BITS = 4
    INT32 = 5  # constants only: thresholds, biases
    INT4 = 6  # filters only: -8..7
    INT2 = 7  # filters only: -2..1
    FLOAT16 = 8  # filters only

    @property
    def bits(self) -> int:
        """Bits of one value."""
        return {
            Encoding.FLOAT32: 32, Encoding.INT32: 32, Encoding.FLOAT16: 16, Encoding.BITS: 1, Encoding.INT4: 4, Encoding.INT2: 2,
        }.get(self, 8)  # fmt: skip


NARROW = (Encoding.INT4, Encoding.INT2)  # filters that graphs hold as int8
FLOATS = (Encoding.FLOAT32, Encoding.FLOAT16)  # filters without a scale
FOR_CONSTANTS = (Encoding.INT32, *NARROW, Encoding.FLOAT16)  # and for no tensor


@dataclass(frozen=True)
class Halo:
    """Rows and columns of padding around an image, in pixels."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def covers(self, other: Halo) -> bool:
        """Whether every side is at least as wide as in `other`."""
        return (
            self.top >= other.top
            and self.bottom >= other.bottom
            and self.left >= other.left
            and self.right >= other.right
        )

    def union(self, other: Halo) -> Halo:
        """The smallest halo that covers both."""
        return Halo(
            max(self.top, other.top),
            max(self.bottom, other.bottom),
            max(self.left, other.left),
            max(self.right, other.right),
        )

    def __bool__(self) -> bool:
        return self != Halo()


NO_HALO = Halo()


def hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape seen as an image: missing leading axes are 1."""
    if not 1 <= len(shape) <= MAX_RANK:
        raise ValueError(f"a tensor has 1 to {MAX_RANK} axes, not {len(shape)}")
    padded = (1,) * (MAX_RANK - len(shape)) + tuple(shape)
    return padded[0], padded[1], padded[2]


def pixel_bytes(encoding: Encoding, channels: int) -> int:
    """Bytes between neighbouring pixels of a row."""
    if encoding is not Encoding.BITS:
        return channels * encoding.bits // 8
    for bits in (8, 16, 32):
        if channels <= bits:
            return bits // 8
    return 8 * math.ceil(channels / 64)


@dataclass(frozen=True)
class TensorType:
    """Shape, encoding, quantization and halo of a tensor.

    `scale` and `zero_point` hold for int8 (and uint8, whose value is `scale * (q - zero_point)` too; 1 and 0 by default).
    """

    shape: tuple[int, ...]
    encoding: Encoding = Encoding.FLOAT32
    scale: float = 1.0
    zero_point: int = 0
    halo: Halo = NO_HALO

    @property
    def hwc(self) -> tuple[int, int, int]:
        return hwc(self.shape)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def pixel_bytes(self) -> int:
        return pixel_bytes(self.encoding, self.shape[-1])

    @property
    def row_bytes(self) -> int:
        """Bytes between the same pixel of neighbouring rows, the halo included."""
        return (self.hwc[1] + self.halo.left + self.halo.right) * self.pixel_bytes

    @property
    def nbytes(self) -> int:
        """Bytes in the arena, the halo included."""
        return (self.hwc[0] + self.halo.top + self.halo.bottom) * self.row_bytes

    @property
    def origin_bytes(self) -> int:
        """Bytes from the start of the tensor, halo included, to its pixel (0, 0)."""
        return self.halo.top * self.row_bytes + self.halo.left * self.pixel_bytes

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        halo = f" halo {self.halo.top},{self.halo.bottom},{self.halo.left},{self.halo.right}" if self.halo else ""
        quantized = f" scale {self.scale:.6g} zero {self.zero_point}" if self.encoding is Encoding.INT8 else ""
        return f"{size} {self.encoding.name.lower()}{quantized}{halo}"


BYTE_SHIFT = 128  # from a byte to the int8 that stands for it


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its name, its shape without the batch, its dtype; what is int8 stands for `scale` * (q - `zero_point`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 1.0
    zero_point: int = 0

    @property
    def is_bytes(self) -> bool:
        """Whether it takes whole numbers 0..255, as they are or less 128."""
        return self.dtype == "uint8" or (self.dtype, self.scale, self.zero_point) == ("int8", 1.0, -BYTE_SHIFT)
