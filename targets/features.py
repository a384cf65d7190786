"""What the work of a kernel consists of on a machine: counts that its cycles follow from, and the bytes it goes through.

The counts (`FEATURES` of `edge.targets.devices`) are those of the loops in `edge.kernels`, given by shapes alone: a convolution computes
tiles of `pixels` x `lanes` (`edge.kernels.shapes`), the last of a row moved left over the one before, so that a row of 13 pixels may cost
as much as one of 14, and 8 channels as much as a whole vector. A tile's positions each load `vectors` of filters and broadcast one scalar
of every pixel (`edge.layout`); then every pixel is ended by its epilogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edge.kernels.arguments import is_flat
from edge.kernels.conv import SPREAD, spread_bytes
from edge.kernels.registry import Lowering
from edge.kernels.shapes import (
    VALUES,
    depthwise_dot,
    depthwise_lanes,
    depthwise_pixels,
    depthwise_repeats,
    pool_lanes,
    sub_lanes,
    tile_pixels,
    vector_lanes,
)
from edge.layout import FilterLayout, filter_layout, lanes
from edge.ops import Activation
from edge.tensors import NARROW, Encoding, TensorType

Features = Mapping[str, float]


@dataclass(frozen=True)
class Stream:
    """Bytes that are read or written out of a set of bytes which are all used before the same ones are used again."""

    nbytes: float
    set_bytes: float


@dataclass(frozen=True)
class Work:
    """What one instruction does. Streams of constants that are read for the first time are not among them, nor the first of tensors."""

    features: Features
    streams: tuple[Stream, ...] = ()


def work_of(low: Lowering) -> Work:
    """The work of the kernel that runs an instruction on a machine."""
    counted = _WORK.get(low.op, _map)(low)
    return Work({name: float(count) for name, count in counted.features.items() if count}, counted.streams)


def halo_work(kind: TensorType) -> Features:
    """The work of filling a tensor's halo, empty where it has none."""
    if not kind.halo:
        return {}
    height, width, _ = kind.hwc
    rows = height + kind.halo.top + kind.halo.bottom
    sides = height * (bool(kind.halo.left) + bool(kind.halo.right))
    return {"value": float(kind.nbytes - height * width * kind.pixel_bytes), "row": float(rows), "tile": float(sides), "call": 1.0}


_CHAINS = 4  # sums that must be under way at once to hide how long a multiply-add takes


# -- convolutions and dense layers ---------------------------------------------------------------------------------------------------

_LETTERS = {Encoding.BITS: "bits", Encoding.FLOAT32: "f32", Encoding.FLOAT16: "f16", Encoding.INT8: "i8", Encoding.UINT8: "u8"}
_LETTERS |= dict.fromkeys(NARROW, "i8")  # whose tile they are spread for


def _tile_kind(low: Lowering) -> str:
    """As `edge.kernels.tile` names it."""
    source, stored = low.call.inputs[0].encoding, low.call.constants["filter"].encoding
    return "bits" if source is stored is Encoding.BITS else _LETTERS[source] + _LETTERS[stored]


def _roomy(low: Lowering) -> int:
    """Sums that a tile may have without running short of registers for what else it does."""
    return low.machine.isa.vectors // 2 + 2


@dataclass(frozen=True)
class _Tiles:
    """Tiles of one width: how many, of how many pixels, lanes at once, vectors, and how many of them store fewer lanes than they have."""

    count: int
    pixels: int
    lanes: int
    vectors: int
    rows: int
    partial: int


def _conv(low: Lowering) -> Work:
    layout = filter_layout(low.op, low.call)
    kind = _tile_kind(low)
    spread = spread_bytes(low, layout, kind)
    tiles = list(_tiles(low, layout, SPREAD[kind] if spread else kind))
    positions = layout.segments * layout.positions
    features = {
        "mac": sum(t.count * t.pixels * t.lanes for t in tiles) * positions * layout.per_position,
        "step": sum(t.count * t.pixels * t.vectors for t in tiles) * positions,
        "chain": sum(t.count * max(0, _CHAINS - t.pixels * t.vectors) for t in tiles) * positions,
        "crowded": sum(t.count * max(0, t.pixels * t.vectors - _roomy(low)) ** 2 for t in tiles) * positions,
        "load": sum(t.count * t.vectors for t in tiles) * positions,
        "scalar": sum(t.count * t.pixels for t in tiles) * positions,
        "spread": spread // 4 * layout.groups * len(lanes(layout.channels_out)),
        "segment": sum(t.count for t in tiles) * layout.segments,
        "masked": sum(t.count * t.pixels for t in tiles) * layout.segments if _is_masked(low, layout) else 0,
        "tile": sum(t.count for t in tiles),
        "value": sum(t.count * t.pixels * t.lanes for t in tiles),
        "pixel": sum(t.count * t.pixels for t in tiles),
        "extra": sum(t.count * t.pixels * t.lanes for t in tiles) * _steps_after(low),
        "partial": sum(t.partial for t in tiles),
        "row": sum(t.rows for t in tiles),
        "call": 1,
    }
    return Work(features, tuple(_conv_streams(low, layout, tiles)))


def _is_masked(low: Lowering, layout: FilterLayout) -> bool:
    """Whether segments end inside a position, whose other bits or bytes are left out; filters of numbers are 0 there."""
    kind = _tile_kind(low)
    whole = {"bits": 64, "u8bits": 4, "i8bits": 4}.get(kind, 1)  # stored values of the image in a position
    return layout.segment_taps * layout.pixel % whole != 0


def _tiles(low: Lowering, layout: FilterLayout, kind: str) -> Iterator[_Tiles]:
    machine, out = low.machine, low.output
    widths = lanes(layout.channels_out)
    pixels = tile_pixels(kind, machine, widths[0], out.width)
    across = -(-out.width // pixels)
    for width in sorted(set(widths)):
        sub = sub_lanes(kind, machine, width)
        rows = out.height * layout.groups * widths.count(width)
        whole = width == 32 or layout.channels_out % 8 == 0
        tiles = rows * across * (width // sub)
        vectors = sub // min(sub, vector_lanes(kind, machine, sub))
        yield _Tiles(tiles, pixels, sub, vectors, rows, 0 if whole else rows * across * pixels)


def _steps_after(low: Lowering) -> int:
    """Vector operations on a value between the accumulator and what is stored, beside those that every epilogue has."""
    given = low.call.constants
    count = ("slope" in given) + 2 * sum(role in given for role in ("mul", "sign_mul"))
    bounded = low.output.type.encoding is not Encoding.FLOAT32 and low.i("activation") == Activation.RELU  # by what quantizes anyway
    activation = 0 if bounded or low.i("activation") == Activation.NONE else 2
    residual = 2 * (len(low.call.inputs) - 1) + (low.i("relu_after") if "relu_after" in low.call.attrs else 0)
    return count + activation + residual + 2 * (low.signs is not None)


def _conv_streams(low: Lowering, layout: FilterLayout, tiles: list[_Tiles]) -> Iterator[Stream]:
    """Filters again for every tile, out of those of a block; the image again for every block of channels."""
    blocks = len(lanes(layout.channels_out))
    block_bytes = layout.block_bytes(min(32, 8 * math.ceil(layout.channels_out / 8)))
    again = max(1, low.output.height * -(-low.output.width // tiles[-1].pixels))
    window_rows = low.call.constants["filter"].shape[1]
    near = min(low.input().type.nbytes, window_rows * low.input().row_bytes)
    yield Stream(layout.nbytes * (again - 1), block_bytes + near)
    yield Stream(low.input().type.nbytes * (blocks - 1), low.input().type.nbytes + block_bytes)


# -- depthwise convolutions --------------------------------------------------------------------------------------------------------


def _depthwise(low: Lowering) -> Work:
    out, channels = low.output, low.output.channels
    taps_h, taps_w, _ = low.call.constants["filter"].shape
    multiplier = channels // low.input().channels
    packed = low.call.inputs[0].encoding is Encoding.BITS
    floats = low.call.inputs[0].encoding is Encoding.FLOAT32
    if packed:
        width = next(width for width in (8, 16, 32, 64) if width >= channels or width == 64)
        pixels = depthwise_pixels(low.machine, max(8, width // 4), out.width, gathered=False)
        dot = 0
    else:
        width = depthwise_lanes(low.machine, channels)
        repeats = depthwise_repeats(width, multiplier)
        pixels = depthwise_pixels(low.machine, width, out.width, gathered=repeats == 0)
        dot = 0 if floats or repeats != 1 else depthwise_dot(low.machine, taps_w)
    tiles = out.height * -(-out.width // pixels) * -(-channels // width)
    pair = 2 if dot and pixels > 1 and low.i("stride_w") == low.i("dilation_w") == 1 else 1
    per_row = -(-(taps_w + pair - 1) // dot) if dot else taps_w
    features = {
        "mac": tiles * pixels * width * taps_h * taps_w,
        "step": tiles * pixels * taps_h * per_row,
        "load": tiles * (pixels // pair) * taps_h * (taps_w + pair - 1) if dot else tiles * taps_h * taps_w,
        "segment": tiles * taps_h,
        "tile": tiles,
        "value": tiles * pixels * width,
        "extra": tiles * pixels * width * _steps_after(low),
        "partial": out.height * out.width if channels % min(16, width) else 0,
        "row": out.height * -(-channels // (4 * width)),
        "call": 1,
    }
    near = taps_h * low.input().row_bytes
    return Work(features, (Stream(low.input().type.nbytes * (taps_h - 1), near),))


# -- the rest ----------------------------------------------------------------------------------------------------------------------


def _pool(low: Lowering) -> Work:
    image, out = low.input(), low.output
    packed = image.type.encoding is Encoding.BITS
    nbytes = min(image.pixel_bytes, 8) if packed else image.type.encoding.bits // 8
    count = out.pixel_bytes // nbytes
    width = pool_lanes(low.machine, 4 if low.op == "average_pool2d" else nbytes, count)
    vectors = -(-count // width)
    registers = max(1, width * (4 if low.op == "average_pool2d" else nbytes) // low.machine.isa.vector_bytes)
    window = low.i("window_h") * low.i("window_w")
    unrolled = low.i("window_h") == low.i("window_w") and low.i("window_w") in (2, 3)
    pixels = out.height * out.width
    features = {
        "value": out.type.elements * window,
        "step": pixels * vectors * window * registers,
        "load": 0 if unrolled else pixels * vectors * window,
        "tile": pixels * vectors,
        "pixel": pixels * -(-vectors // 4),
        "partial": pixels if count % width else 0,
        "row": out.height * -(-vectors // 4),
        "call": 1,
    }
    return Work(features)


_PLAIN_ACTIVATIONS = (Activation.NONE, Activation.RELU, Activation.LEAKY_RELU)


def _map(low: Lowering) -> Work:
    """Values in vectors; the last of a chunk one by one in narrower ones."""
    kind = low.output.type
    wide = low.machine.isa.vector_bytes
    rows, values = _rows_of(low)
    channelwise, packed = bool(low.call.constants), Encoding.BITS in (kind.encoding, low.call.inputs[0].encoding)
    channels = low.output.channels
    period = _period(channels, wide) if channelwise or packed else wide
    pixelwise = not period or any(_has_spare_bits(each) for each in (kind, low.call.inputs[0]))
    chunk = channels if pixelwise else period * max(1, 4096 // period)
    chunks = rows * -(-values // chunk)
    last = min(chunk, values)
    features = {
        "value": kind.elements,
        "step": chunks * (last // wide),
        "extra": kind.elements * (len(low.call.inputs) - 1 + channelwise),
        "function": 0 if low.call.attrs.get("activation", 0) in _PLAIN_ACTIVATIONS else kind.elements,
        "partial": chunks * -(-(last % wide) // VALUES),
        "row": chunks,
        "call": 1,
    }
    return Work(features)


def _has_spare_bits(kind: TensorType) -> bool:
    return kind.encoding is Encoding.BITS and kind.hwc[2] != 8 * kind.pixel_bytes


def _period(channels: int, wide: int) -> int:
    whole = math.lcm(channels, wide)
    return whole if whole in (channels, wide) or whole <= 1024 else 0


def _rows_of(low: Lowering) -> tuple[int, int]:
    """Rows without a gap, and the values of one."""
    height, width, channels = low.output.type.hwc
    flat = all(is_flat(place) for place in (low.output, *(low.input(i) for i in range(len(low.call.inputs)))))
    return (1, height * width * channels) if flat else (height, width * channels)


def _softmax(low: Lowering) -> Work:
    height, width, channels = low.output.type.hwc
    wide = low.machine.isa.vector_bytes
    pixels = height * width
    rest = -(-(channels % wide) // VALUES)
    features = {"value": pixels * channels, "step": pixels * (channels // wide), "partial": pixels * rest, "row": pixels, "call": 1}
    return Work(features)


def _move(low: Lowering) -> Work:
    """Bytes copied, in rows (reshape: none where the output lies on the input) or, of concat, in pixels of every input."""
    out, inputs = low.output, len(low.call.inputs)
    stays = low.op == "reshape" and low.input().offset == out.offset
    pixels = out.height * out.width * inputs if low.op == "concat" else 0
    return Work({
        "value": 0 if stays else out.type.elements,
        "step": 0 if stays else -(-out.type.nbytes // 64),
        "pixel": pixels,
        "row": 0 if stays else out.height,
        "call": 1,
    })  # fmt: skip


def _magnitude(low: Lowering) -> Work:
    image, out = low.input(), low.output
    window_h, window_w = low.i("window_h"), low.i("window_w")
    strided = low.i("stride_w") > 1
    sums = out.height * min(window_h, image.height) * -(-image.width // VALUES)
    columns = out.height * window_w * (out.width if strided else -(-out.width // VALUES))
    return Work({
        "value": image.type.elements,
        "step": image.height * image.width * -(-image.channels // VALUES),
        "pixel": image.height * image.width,
        "load": sums + columns,
        "row": out.height,
        "call": 1,
    })  # fmt: skip


def _multiply(low: Lowering) -> Work:
    (height, width, channels), factor = low.output.type.hwc, low.input(1).type.hwc
    by_one = factor[2] == 1 and (channels > 1 or factor[1] == 1)
    whole_row = factor[1] == (1 if by_one else width)
    segment, segments = (width * channels, height) if whole_row else (channels, height * width)
    return Work({
        "value": height * width * channels,
        "step": segments * -(-segment // VALUES),
        "tile": segments,
        "partial": segments if segment % VALUES else 0,
        "row": height,
        "call": 1,
    })  # fmt: skip


_WORK: Mapping[str, Callable[[Lowering], Work]] = {
    "conv2d": _conv,
    "residual_conv2d": _conv,
    "dense": _conv,
    "depthwise_conv2d": _depthwise,
    "max_pool2d": _pool,
    "average_pool2d": _pool,
    "softmax": _softmax,
    "reshape": _move,
    "pad2d": _move,
    "concat": _move,
    "magnitude_map": _magnitude,
    "multiply": _multiply,
}
