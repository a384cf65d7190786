"""How constants lie in the file: one layout for all machines, given by the operation's operands alone.

Filters of conv2d and dense are stored in blocks of 32 output channels, a lane for each; the last block is as narrow as the channels left
(single bits: rounded up to whole bytes). Inside a block the products of one output follow the order of the window, lane by lane, so that
a vector load fetches the same position of 8, 16 or 32 filters; where the last block is no multiple of 8, kernels read a copy of it made at
load, filled up with zeros.

    input       filter   [block][segment][position][lane]              a position is
    bits        bits     uint64 lanes                                  64 neighbouring bits of a segment, zero filled
    uint8 int8  int8     4 int8 a lane                                 4 neighbouring values of a segment, zero filled
    uint8 int8  bits     4 bits a lane: 4, 8, 12 or 16 bytes           4 neighbouring values of a segment, zero filled
    float32     float32  float32 lanes                                 1 value
    float32     float16  float16 lanes                                 1 value
    float32     int8     int8 lanes                                    1 value
    float32     bits     1 bit a lane: 1, 2, 3 or 4 bytes              1 value

int4 and int2 lie as int8 does, but 2 or 4 neighbouring positions share bytes (`edge.kernels.narrowpack`), the first in the lowest bits; a
segment is filled up with zeros to whole bytes.

A segment is what lies contiguously in the image: a whole filter row (kw * pixel bytes) where columns are not dilated and there is one
group, else one tap. Packed pixels take 8, 16, 32 or 64 * n bits there as they do in the image (`edge.tensors`), so a row of three
16-channel taps is 48 bits in one word. With groups, each group has its own blocks.

Filters of depthwise_conv2d are [kh][kw][O], bits packed per tap to whole bytes. Vectors (scale, bias, threshold, mul, add) are rows of
float32 or int32; `flip` is packed like one pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.kernels import bitpack, narrowpack
from edge.ops import ConstantType, OpCall
from edge.tensors import NARROW, Encoding, pixel_bytes

BLOCK = 32  # output channels


def lanes(channels: int) -> tuple[int, ...]:
    """The lanes kernels compute of each block of `channels` outputs: 32, 32, ..., and 8, 16, 24 or 32."""
    full, rest = divmod(channels, BLOCK)
    return (BLOCK,) * full + ((8 * math.ceil(rest / 8),) if rest else ())


@dataclass(frozen=True)
class FilterLayout:
    """The layout of a blocked filter: `segments` of `positions`, each `lane_bits` per lane."""

    groups: int
    channels_out: int  # of one group
    segments: int
    segment_taps: int  # taps (pixels) in a segment
    pixel: int  # stored values of a tap: bits for packed inputs, else channels
    positions: int
    per_position: int  # values of a segment in one position
    lane_bits: int
    share: int = 1  # positions that share bytes

    @property
    def rest(self) -> int:
        """Lanes of the narrower last block, 0 where there is none."""
        rest = self.channels_out % BLOCK
        return rest if self.lane_bits >= 8 else 8 * math.ceil(rest / 8)

    @property
    def widths(self) -> Iterator[int]:
        """The lanes of each stored block."""
        yield from itertools.repeat(BLOCK, self.channels_out // BLOCK)
        if self.rest:
            yield self.rest

    @property
    def group_bytes(self) -> int:
        """Bytes of the filters of one group."""
        return self.block_bytes(BLOCK * (self.channels_out // BLOCK) + self.rest)

    @property
    def nbytes(self) -> int:
        return self.groups * self.group_bytes

    def block_bytes(self, width: int) -> int:
        """Bytes of a block of `width` lanes."""
        return self.segments * self.loads * width * self.lane_bits // 8

    @property
    def loads(self) -> int:
        """Rows of lanes in a segment: a position each, or those that share bytes."""
        return math.ceil(self.positions / self.share)


def filter_layout(op: str, call: OpCall) -> FilterLayout:
    """The layout of the filter of a conv2d or dense."""
    channels_out, taps_h, taps_w, depth = call.constants["filter"].shape
    groups = 1 if op == "dense" else call.i("groups")
    whole_rows = groups == 1 and (op == "dense" or call.i("dilation_w") == 1 or taps_w == 1)
    segments, taps = (taps_h, taps_w) if whole_rows else (taps_h * taps_w, 1)
    source, stored = call.inputs[0].encoding, call.constants["filter"].encoding
    pixel = 8 * pixel_bytes(source, depth) if source is Encoding.BITS else depth
    per_position, lane_bits = {
        (Encoding.BITS, Encoding.BITS): (64, 64),
        (Encoding.FLOAT32, Encoding.FLOAT32): (1, 32),
        (Encoding.FLOAT32, Encoding.FLOAT16): (1, 16),
        (Encoding.FLOAT32, Encoding.INT8): (1, 8),
        (Encoding.FLOAT32, Encoding.BITS): (1, 1),
        (Encoding.UINT8, Encoding.BITS): (4, 4),
        (Encoding.INT8, Encoding.BITS): (4, 4),
    }.get((source, Encoding.INT8 if stored in NARROW else stored), (4, 32))
    positions, share = math.ceil(taps * pixel / per_position), 8 // stored.bits if stored in NARROW else 1
    if source is not Encoding.FLOAT32:  # of numbers, anything times 0 is 0: kernels take the positions behind a segment too
        positions = share * math.ceil(positions / share)
    return FilterLayout(groups, channels_out // groups, segments, taps, pixel, positions, per_position, lane_bits, share)


def constant_bytes(op: str, role: str, call: OpCall) -> int:
    """Bytes of a constant in the file."""
    constant = call.constants[role]
    if role == "filter" and len(constant.shape) == 4:
        return filter_layout(op, call).nbytes
    if constant.encoding is not Encoding.BITS:
        return math.prod(constant.shape) * constant.encoding.bits // 8
    if role == "filter":
        return constant.shape[0] * constant.shape[1] * math.ceil(constant.shape[2] / 8)
    return pixel_bytes(Encoding.BITS, constant.shape[-1])


def pack_constant(op: str, role: str, call: OpCall, array: np.ndarray) -> bytes:
    """The bytes of a constant; `array` is as `edge.graph` describes it."""
    if role == "filter" and array.ndim == 4:
        return _pack_filter(filter_layout(op, call), array)
    if array.dtype != np.bool_:
        return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    row = math.ceil(array.shape[-1] / 8) if role == "filter" else pixel_bytes(Encoding.BITS, array.shape[-1])
    return bitpack.pack(array, row).tobytes()


def unpack_constant(op: str, role: str, call: OpCall, data: bytes | memoryview | np.ndarray) -> np.ndarray:
    """The array of a constant from its bytes; the inverse of `pack_constant`."""
    constant = call.constants[role]
    raw: np.ndarray = np.frombuffer(data, np.uint8)
    if role == "filter" and len(constant.shape) == 4:
        return _unpack_filter(filter_layout(op, call), constant, raw)
    if constant.encoding is not Encoding.BITS:
        return _values(raw, constant.encoding).reshape(constant.shape)
    rows = raw.reshape(*constant.shape[:-1], -1)
    return bitpack.unpack(rows, constant.shape[-1])


def _values(raw: np.ndarray, encoding: Encoding) -> np.ndarray:
    return raw.view(_DTYPES[encoding])


_DTYPES: dict[Encoding, np.dtype[Any]] = {
    Encoding.FLOAT32: np.dtype("<f4"),
    Encoding.FLOAT16: np.dtype("<f2"),
    Encoding.INT8: np.dtype("i1"),
    Encoding.INT32: np.dtype("<i4"),
}


def _pack_filter(layout: FilterLayout, array: np.ndarray) -> bytes:
    """(O, kh, kw, I) to bytes."""
    by_group = array.reshape(layout.groups, layout.channels_out, layout.segments, layout.segment_taps, -1)
    return b"".join(
        _pack_block(layout, group[start : start + BLOCK], width)
        for group in by_group
        for start, width in zip(range(0, layout.channels_out, BLOCK), layout.widths, strict=True)
    )


def _pack_block(layout: FilterLayout, block: np.ndarray, width: int) -> bytes:
    """(o, segments, taps, depth) to [segment][position][lane]."""
    outputs, segments, taps, depth = block.shape
    padded = np.zeros((width, segments, layout.loads * layout.share * layout.per_position), block.dtype)
    rows = np.zeros((outputs, segments, taps, layout.pixel), block.dtype)
    rows[..., :depth] = block
    padded[:outputs, :, : taps * layout.pixel] = rows.reshape(outputs, segments, -1)
    if layout.share > 1:
        fields = padded.reshape(width, segments, layout.loads, layout.share, layout.per_position).transpose(1, 2, 0, 4, 3)
        return narrowpack.pack(fields, 8 // layout.share).tobytes()
    split = padded.reshape(width, segments, layout.positions, layout.per_position).transpose(1, 2, 0, 3)
    if block.dtype != np.bool_:
        return np.ascontiguousarray(split).astype(block.dtype.newbyteorder("<"), copy=False).tobytes()
    return bitpack.pack(split.reshape(*split.shape[:2], -1), width * layout.lane_bits // 8).tobytes()


def _unpack_filter(layout: FilterLayout, constant: ConstantType, raw: np.ndarray) -> np.ndarray:
    blocks = []
    start = 0
    for _ in range(layout.groups):
        left = layout.channels_out
        for width in layout.widths:
            size = layout.block_bytes(width)
            blocks.append(_unpack_block(layout, constant, raw[start : start + size], width)[: min(left, width)])
            start, left = start + size, left - width
    return np.concatenate(blocks).reshape(constant.shape)


def _unpack_block(layout: FilterLayout, constant: ConstantType, raw: np.ndarray, width: int) -> np.ndarray:
    """[segment][position][lane] to (lanes, segments, taps, depth)."""
    shape = (layout.segments, layout.loads, width, layout.per_position)
    if layout.share > 1:
        fields = narrowpack.unpack(raw.reshape(shape), 8 // layout.share)
        split = fields.transpose(0, 1, 4, 2, 3).reshape(layout.segments, -1, width, layout.per_position)
    elif constant.encoding is not Encoding.BITS:
        split = _values(raw, constant.encoding).reshape(shape)
    else:
        split = bitpack.unpack(raw.reshape(*shape[:2], -1), width * layout.per_position).reshape(shape)
    rows = split.transpose(2, 0, 1, 3).reshape(width, layout.segments, -1)[:, :, : layout.segment_taps * layout.pixel]
    return rows.reshape(width, layout.segments, layout.segment_taps, layout.pixel)[..., : constant.shape[3]]


def reads_packed_groups(channels: int, groups: int) -> bool:
    """Whether kernels read `channels` packed signs in `groups`: each group is one byte, two, four, or whole words of eight."""
    depth = channels // groups
    return groups == 1 or depth in (8, 16, 32) or depth % 64 == 0


def writes_packed_groups(channels: int, groups: int) -> bool:
    """Whether kernels write `channels` packed signs in `groups`: each group is whole bytes."""
    return groups == 1 or channels // groups % 8 == 0
