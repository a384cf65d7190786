"""Convolutions and dense layers: lowering to the tiled kernel (its code is `edge.kernels.conv_code`).

A dense layer is a convolution whose window is the whole image. The kernel never looks at borders: it reads the input's halo, which holds
zeros (of float32, int8 and uint8) or +1 (packed). What the halo adds is taken off by tables derived here from the filters:

- packed input, acc = N - 2p with p the differing bits of N products. With zero padding the outside taps have added the sum of their
  weights; it depends only on which taps are outside, so output rows and columns fall into few border classes. With a float output the
  table holds N - correction per class and channel; with a packed output the largest p that still gives +1, floor((N - correction - T) / 2).
- int8 or uint8 input: tiles add a number to x that suits the machine (`edge.kernels.int8_forms`), x - zero_point = (x + added) -
  (added + zero_point), so the table holds -(added + zero_point) * sum of w, and the threshold less that. Filters of signs are +1 behind
  the end of a segment, where x is masked to 0 and only what is added counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.kernels.arguments import OVERREAD, epilogue, fused, residual
from edge.kernels.int8_forms import DOTS, added, complements, gathers, way
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering, Place
from edge.kernels.shapes import ConvVariant, Residual, tile_pixels
from edge.layout import BLOCK, FilterLayout, filter_layout, lanes, reads_packed_groups, writes_packed_groups
from edge.tensors import Encoding

_KINDS = {
    (Encoding.BITS, Encoding.BITS): "bits",
    (Encoding.UINT8, Encoding.INT8): "u8i8",
    (Encoding.INT8, Encoding.INT8): "i8i8",
    (Encoding.UINT8, Encoding.BITS): "u8bits",
    (Encoding.INT8, Encoding.BITS): "i8bits",
    (Encoding.FLOAT32, Encoding.FLOAT32): "f32f32",
    (Encoding.FLOAT32, Encoding.FLOAT16): "f32f16",
    (Encoding.FLOAT32, Encoding.INT8): "f32i8",
    (Encoding.FLOAT32, Encoding.BITS): "f32bits",
    (Encoding.UINT8, Encoding.INT4): "u8i4",
    (Encoding.INT8, Encoding.INT4): "i8i4",
    (Encoding.FLOAT32, Encoding.INT4): "f32i4",
    (Encoding.UINT8, Encoding.INT2): "u8i2",
    (Encoding.INT8, Encoding.INT2): "i8i2",
    (Encoding.FLOAT32, Encoding.INT2): "f32i2",
}
NEVER = np.iinfo(np.int32).max  # differing bits that no pixel has

# Filters narrower than what their tile multiplies, and the kind of that tile.
SPREAD = {"f32bits": "f32f32", "f32f16": "f32f32", "f32i8": "f32f32", "i8bits": "i8i8", "u8bits": "u8i8"}
SPREAD |= {"f32i4": "f32f32", "f32i2": "f32f32", "i8i4": "i8i8", "i8i2": "i8i8", "u8i4": "u8i8", "u8i2": "u8i8"}
_SPREAD_PIXELS = 16  # that a block of filters meets: of fewer, spreading it in registers costs less
_SPREAD_BYTES = 1 << 18  # of a block that is spread; more leaves the caches, and memory to what filters of one bit are chosen to spare


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution; of a dense layer: one window over the whole image."""

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)  # top, left
    pad_ones: bool = True  # whether outside taps count +1; also true where there are none
    groups: int = 1


def window_of(low: Lowering) -> Window:
    if low.op == "dense":
        return Window()
    return Window(
        (low.i("stride_h"), low.i("stride_w")),
        (low.i("dilation_h"), low.i("dilation_w")),
        (low.i("pad_top"), low.i("pad_left")),
        bool(low.i("pad_ones")),
        low.i("groups"),
    )


def _kind(low: Lowering) -> str:
    return _KINDS[low.call.inputs[0].encoding, low.call.constants["filter"].encoding]


# -- tables --------------------------------------------------------------------------------------------------------------------


def _axis_classes(size: int, outputs: int, taps: int, stride: int, dilation: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """(class of every output position, [class, (first, end)]) along one axis: the range of taps that lie inside the image.

    Nothing here is larger than outputs + taps, so that no file can ask for more memory than its tensors and filters take.
    """
    first = np.arange(outputs, dtype=np.int64) * stride - pad
    inside = np.stack([np.clip(-(first // dilation), 0, taps), np.clip(-((first - size) // dilation), 0, taps)], axis=1)
    ranges, classes = np.unique(inside, axis=0, return_inverse=True)
    return classes.reshape(-1).astype(np.int32), ranges


def _sums_inside(weights: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums of weights (O, kh, kw) over rectangles of taps, (row ranges, column ranges, O), from sums over all that start at tap (0, 0)."""
    sums = np.pad(weights, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2).transpose(1, 2, 0)
    by_row = sums[rows[:, 1]] - sums[np.minimum(rows[:, 0], rows[:, 1])]
    inside: np.ndarray = by_row[:, columns[:, 1]] - by_row[:, np.minimum(columns[:, 0], columns[:, 1])]
    return inside


@dataclass(frozen=True)
class Borders:
    """Border classes: the class of every output row and column, and the sum of the outside weights per (row, column) class, channel."""

    rows: np.ndarray
    columns: np.ndarray
    outside: np.ndarray  # (row classes, column classes, O)


def _borders(low: Lowering, window: Window, signs: np.ndarray) -> Borders:
    image, out = low.input(), low.output
    taps_h, taps_w = signs.shape[1:3]
    if window.pad_ones:
        zeros = np.zeros((1, 1, signs.shape[0]), np.int64)
        return Borders(np.zeros(out.height, np.int32), np.zeros(out.width, np.int32), zeros)
    rows, inside_h = _axis_classes(image.height, out.height, taps_h, window.stride[0], window.dilation[0], window.pad[0])
    columns, inside_w = _axis_classes(image.width, out.width, taps_w, window.stride[1], window.dilation[1], window.pad[1])
    per_tap = signs.sum(axis=3, dtype=np.int64)  # (O, kh, kw)
    return Borders(rows, columns, per_tap.sum(axis=(1, 2)) - _sums_inside(per_tap, inside_h, inside_w))


def _has_threshold(low: Lowering) -> bool:
    return "threshold" in low.call.constants


def packed_table(low: Lowering, window: Window, signs: np.ndarray) -> tuple[np.ndarray, Borders]:
    """The table of a packed input for filters of signs (O, kh, kw, I), and its border classes."""
    borders = _borders(low, window, signs)
    products = signs[0].size
    true_zero = products - borders.outside  # acc at p = 0
    if not _has_threshold(low):
        return true_zero, borders
    return np.floor_divide(true_zero - low.array("threshold").astype(np.int64), 2), borders


def _integer_table(low: Lowering, kind: str) -> tuple[np.ndarray, Borders]:
    out = low.output
    correction = _sign_correction(low, kind) if kind.endswith("bits") else _int8_correction(low, kind)
    if _has_threshold(low):
        correction = low.array("threshold").astype(np.int64) - correction
    return correction[None, None, :], Borders(np.zeros(out.height, np.int32), np.zeros(out.width, np.int32), correction)


def _int8_correction(low: Lowering, kind: str) -> np.ndarray:
    filters = low.array("filter")
    sums: np.ndarray = filters.sum(axis=(1, 2, 3), dtype=np.int64)
    if filters.dtype == np.bool_:
        sums = filters[0].size - 2 * sums
    correction: np.ndarray = -(low.input().type.zero_point + added(kind, low.machine)) * sums
    return correction


def _sign_correction(low: Lowering, kind: str) -> np.ndarray:
    layout, minus = filter_layout(low.op, low.call), low.array("filter")
    terms, negative = minus[0].size, minus.sum(axis=(1, 2, 3), dtype=np.int64)
    behind = layout.segments * layout.positions * layout.per_position - terms
    more = added(kind, low.machine)
    flipped: np.ndarray = negative * complements(kind, low.machine)
    sums: np.ndarray = flipped - (low.input().type.zero_point + more) * (terms - 2 * negative) - more * behind
    return sums


def _table(low: Lowering, window: Window, kind: str) -> tuple[int, int, int, int]:
    """The arguments of `class_table` for a kind of tile."""
    if kind.startswith("f32"):
        return 0, 0, 0, 0
    if kind == "bits":
        table, borders = packed_table(low, window, 1 - 2 * low.array("filter").astype(np.int8))
        return class_table(low, table, borders, NEVER)
    return class_table(low, *_integer_table(low, kind), np.iinfo(np.int32).min)


def class_table(low: Lowering, table: np.ndarray, borders: Borders, fill: int, spare: int = OVERREAD) -> tuple[int, int, int, int]:
    """(offset of the table, bytes of a class, offsets of the class bytes of every row and column), as arguments.

    `spare` channels after the last have `fill`, which gives bit 0.
    """
    row_classes, column_classes, channels = table.shape
    padded = np.full((row_classes, column_classes, channels + spare), fill, np.int32)
    padded[..., :channels] = np.clip(table, np.iinfo(np.int32).min, NEVER)
    class_bytes = 4 * padded.shape[2]
    rows = borders.rows.astype(np.int64) * column_classes * class_bytes
    columns = borders.columns.astype(np.int64) * class_bytes
    add = low.derived.add
    return add(padded), class_bytes, add(rows), add(columns)


# -- arguments -----------------------------------------------------------------------------------------------------------------


def _segment_arguments(low: Lowering, window: Window, layout: FilterLayout, kind: str) -> tuple[list[int], bool]:
    """The seven numbers of the tile's window, and whether the last position of a segment must be masked."""
    image = low.input()
    taps_w = low.call.constants["filter"].shape[2]
    row_step, column_step = window.dilation[0] * image.row_bytes, window.dilation[1] * image.pixel_bytes
    rows, columns = (layout.segments, 1) if layout.segment_taps == taps_w else (layout.segments // taps_w, taps_w)
    # Of packed pixels 64 bits are a position, of bytes that meet signs, 4 bytes; other filters are 0 behind the end of a segment.
    scalar_bits = {"bits": 64, "u8bits": 32, "i8bits": 32}.get(kind, 0)
    value_bits = 8 if scalar_bits == 32 else 1
    used = layout.segment_taps * layout.pixel * value_bits % scalar_bits if scalar_bits else 0
    mask = (1 << used) - 1 if used else -1
    pixel_step = window.stride[1] * image.pixel_bytes
    return [pixel_step, rows, row_step, columns, column_step, layout.positions, mask], bool(used)


def _filters(low: Lowering, layout: FilterLayout) -> tuple[int, int, int, int, int]:
    """Where the blocks of 32 start, bytes of a group and of a block, and the same of the last, narrower blocks (which may be all)."""
    start, block = low.constant("filter"), layout.block_bytes(BLOCK)
    whole = layout.channels_out // BLOCK
    if layout.rest % 8:
        tail = _filled_up(low, layout)
    else:
        tail = start + whole * block, layout.group_bytes
    return (start, layout.group_bytes, block, *tail) if whole else (*tail, 0, *tail)


def _filled_up(low: Lowering, layout: FilterLayout) -> tuple[int, int]:
    """A copy of the last blocks with zero lanes up to a multiple of 8, whole vectors; where it is, and bytes of a group's."""
    stored = low.program.stored(low.instruction.constant("filter")).reshape(layout.groups, -1)
    rest, lane_bytes = layout.rest, layout.lane_bits // 8
    blocks = stored[:, layout.group_bytes - layout.block_bytes(rest) :].reshape(layout.groups, -1, rest, lane_bytes)
    filled = np.zeros((*blocks.shape[:2], lanes(rest)[0], lane_bytes), np.uint8)
    filled[:, :, :rest] = blocks
    return low.derived.add(filled), filled[0].nbytes


def _group_bytes(image: Place, groups: int) -> int:
    """Bytes between the first channels of neighbouring groups in a pixel."""
    depth = image.channels // groups
    return depth // 8 if image.type.encoding is Encoding.BITS else depth * image.type.encoding.bits // 8


def _accepts(low: Lowering) -> bool:
    """Groups of packed channels must start and end on whole bytes, on both sides."""
    groups = window_of(low).groups
    inside, outside = low.input(), low.signs or low.output
    reads = inside.type.encoding is not Encoding.BITS or reads_packed_groups(inside.channels, groups)
    return reads and (outside.type.encoding is not Encoding.BITS or writes_packed_groups(outside.channels, groups))


def spread_bytes(low: Lowering, layout: FilterLayout, kind: str) -> int:
    """Bytes of a block of filters to be spread before its tiles run; 0 where tiles spread them in registers, position by position."""
    if kind not in SPREAD or _spreads_in_registers(low, layout, kind):
        return 0
    nbytes = 4 * min(BLOCK, lanes(layout.channels_out)[0]) * (layout.segments * layout.positions + layout.share - 1)
    pixels = low.output.height * low.output.width
    return nbytes if pixels >= _SPREAD_PIXELS and nbytes <= _SPREAD_BYTES else 0


def _spreads_in_registers(low: Lowering, layout: FilterLayout, kind: str) -> bool:
    """Whether tiles may spread filters for nothing: signs where they have a faster way, 4 and 2 bits beside products, in units that idle.

    That needs registers: not where smaller tiles cover a row worse than those of int8, nor where blocks are narrow.
    """
    machine, width = low.machine, low.output.width
    if kind.endswith("bits"):
        return gathers(kind, machine)
    if kind[2:] not in ("i4", "i2") or way(kind, machine) != DOTS or machine.isa.vector_bytes < 64:
        return False
    pixels = (tile_pixels(each, machine, BLOCK, width) for each in (kind, SPREAD[kind]))
    own, whole = (-(-width // each) * each for each in pixels)
    return layout.channels_out % BLOCK == 0 and own <= whole


def _variant(low: Lowering, machine: Machine, kind: str, masked: bool, stored: str) -> ConvVariant:
    out = low.output
    channels = low.call.constants["filter"].shape[0] // window_of(low).groups
    widths = lanes(channels)
    block = widths[0]
    tail = widths[-1] if len(widths) > 1 and channels % BLOCK else 0
    pixels = tile_pixels(kind, machine, block, out.width)
    scaled = "scale" in low.call.constants
    return ConvVariant(kind, out.type.encoding.name.lower(), pixels, block, tail, masked, scaled, fused(low), _residual(low), stored)


def _residual(low: Lowering) -> Residual | None:
    if low.op != "residual_conv2d":
        return None
    given = set(low.call.constants)
    stored = low.output.type.encoding is Encoding.FLOAT32
    return Residual(
        sloped="slope" in given,
        scaled=bool(given & {"mul", "add"}),
        added=len(low.call.inputs) == 2,
        relu=bool(low.i("relu_after")),
        stored=stored,
        packed=low.signs is not None or not stored,
        signs_scaled=bool(given & {"sign_mul", "sign_add"}),
    )


def _lower(low: Lowering) -> Lowered:
    window, kind = window_of(low), _kind(low)
    image, out = low.input(), low.output
    layout = filter_layout(low.op, low.call)
    segment, masked = _segment_arguments(low, window, layout, kind)
    scratch_bytes = spread_bytes(low, layout, kind)
    tile = SPREAD[kind] if scratch_bytes else kind
    variant = _variant(low, low.machine, tile, masked, kind if scratch_bytes else "")
    first = image.offset - window.pad[0] * image.row_bytes - window.pad[1] * image.pixel_bytes
    args = (
        *segment,
        first, window.stride[0] * image.row_bytes,
        *_filters(low, layout),
        len(lanes(layout.channels_out)), window.groups, _group_bytes(image, window.groups),
        out.height, out.width, out.offset, out.row_bytes, out.pixel_bytes, layout.channels_out,
        *_table(low, window, tile),
        *epilogue(low, scaled=variant.scaled, biased=not _has_threshold(low)),
        *(residual(low) if variant.residual else ()),
    )  # fmt: skip
    macs = low.instruction.definition.macs(low.call, out.type.shape)
    return Lowered(Code(variant.name, _builder(variant)), args, scratch_bytes, work=macs)


def _builder(variant: ConvVariant):  # type: ignore[no-untyped-def]
    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import conv_code

        return conv_code.kernel(variant, machine)

    return build


KERNELS = (
    Kernel("conv2d", "conv2d", _accepts, _lower),
    Kernel("residual_conv2d", "residual_conv2d", _accepts, _lower),
    Kernel("dense", "dense", lambda low: True, _lower),
)
