"""The shapes of tiles: how many pixels and channels a kernel takes at once on a machine. Pure arithmetic, no Numba."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge.kernels.int8_forms import INT8_KINDS, gathers, int8_registers
from edge.kernels.isa import Machine

# Pixels of a tile: the addresses of more than 9 leave the registers of x86-64 (12 pixels of floats take half as long again). More of bytes,
# whose epilogues and spread filters cost most beside their products.
_MOST_PIXELS, _MOST_INT8_PIXELS = 9, 16
_LETTERS = {"none": "", "relu": "r", "leaky": "l"}  # of activations, in names


@dataclass(frozen=True)
class Residual:
    """The steps of residual_conv2d after the activation that there are (`edge.ops`): PReLU, scaling, the second input, ReLU; then whether
    the float32 result and its signs are stored, and whether those are taken of the scaled result.
    """

    sloped: bool
    scaled: bool
    added: bool
    relu: bool
    stored: bool
    packed: bool
    signs_scaled: bool

    @property
    def name(self) -> str:
        on = (self.sloped, self.scaled, self.added, self.relu, self.stored, self.packed, self.signs_scaled)
        return "_" + "".join(letter for letter, present in zip("pnarfbc", on, strict=True) if present)


@dataclass(frozen=True)
class ConvVariant:
    """What the code of a convolution is specialised for; everything else is an argument.

    `kind` is that of the tile. `stored`, where not empty, is the kind whose filters the file has: block by block they are spread into those
    of the tile (`edge.kernels.spread`). `residual` is None for conv2d and dense. `lanes` is the width of all blocks but perhaps the last,
    whose width is `tail` (0: the same); `masked`: the last position of a segment holds bits beyond the segment; `scaled`: accumulators are
    multiplied by a scale; `activation` is none, relu or leaky.
    """

    kind: str
    output: str
    pixels: int
    lanes: int
    tail: int
    masked: bool
    scaled: bool
    activation: str
    residual: Residual | None = None
    stored: str = ""

    @property
    def name(self) -> str:
        flags = "".join(letter for letter, on in zip("ms", (self.masked, self.scaled), strict=True) if on) + _LETTERS[self.activation]
        after = self.residual.name if self.residual else ""
        kind = f"{self.stored}_spread" if self.stored else self.kind
        return f"conv2d_{kind}_{self.output}_{self.pixels}x{self.lanes}_{self.tail}{flags}{after}"


@dataclass(frozen=True)
class TileShape:
    """The constants a tile is generated for."""

    kind: str
    pixels: int
    lanes: int  # lanes of this tile
    row_lanes: int  # lanes of the block, the distance between positions of the filter
    masked: bool = False  # the last position of a segment holds bits beyond the segment


_LANE_BITS = {"bits": 64, "u8bits": 4, "i8bits": 4, "f32f16": 16, "f32i8": 8, "f32i4": 8, "f32i2": 8, "f32bits": 1}


def lane_bits(kind: str) -> int:
    """Bits that the filter of a tile has for a lane of a position, or of the positions that share them."""
    return _LANE_BITS.get(kind, 32)


def sharing(kind: str) -> int:
    """How many positions share the bytes of a filter."""
    return {"i4": 2, "i2": 4}.get(kind[-2:], 1)


def vector_lanes(kind: str, machine: Machine, lanes: int) -> int:
    """Lanes of one accumulator vector: what a register holds, and a divisor of `lanes`."""
    register = machine.isa.vector_bytes // (8 if kind == "bits" else 4)
    while lanes % register:
        register //= 2
    return max(register, 8) if kind == "f32bits" else register  # its filters come in whole bytes, a bit a lane


def counts_bytes(machine: Machine) -> bool:
    """Whether the machine counts bits in bytes (`edge.kernels.tile_bits`), for want of an instruction that counts them in words."""
    return "avx512vpopcntdq" not in machine.features


def keeps_registers(kind: str, machine: Machine) -> bool:
    """Whether the sums of a tile stay in registers until they are ended; else a tile leaves them in memory."""
    return machine.isa.vectors == 32 and not gathers(kind, machine) and not (kind == "bits" and counts_bytes(machine))


def tile_vectors(machine: Machine, lanes: int, pixels: int) -> int:
    """Vectors of filters that share the words of a tile of `pixels` whose bits are counted in bytes: a power of 2 that divides `lanes`."""
    fitting = max(1, (machine.isa.vectors - _counting_spare(machine)) // (pixels + 2))
    return math.gcd(1 << fitting.bit_length() - 1, lanes // vector_lanes("bits", machine, lanes))


def _counting_spare(machine: Machine) -> int:
    """Registers beside accumulators, filters in halves (or as many temporaries): tables, masks and temporaries, fewer on NEON."""
    return 2 if machine.isa.vector_bytes == 16 and machine.isa.vectors == 32 else 4


def sub_lanes(kind: str, machine: Machine, lanes: int) -> int:
    """Lanes a tile takes at once out of a block of `lanes`: all of them where there are 32 wide registers, or a loop inside the tile."""
    if machine.isa.vector_bytes == 64 or kind == "bits" or gathers(kind, machine):
        return lanes
    return 16 if lanes % 16 == 0 else 8


def gathered_vectors(count: int) -> int:
    """How many of the `count` vectors of a block a tile with a buffer takes at once: as few as share what a pixel costs."""
    return 2 if count % 2 == 0 else 1


def tile_pixels(kind: str, machine: Machine, lanes: int, width: int) -> int:
    """Pixels of a tile for an image `width` pixels wide: as many as registers allow, with the least waste at the row's end."""
    largest = _MOST_INT8_PIXELS if kind in INT8_KINDS else _MOST_PIXELS
    most = max(1, min(largest, width, _most_pixels(kind, machine, lanes)))
    cost = {pixels: -(-width // pixels) * (pixels + 0.5) for pixels in range(1, most + 1)}
    return min(cost, key=lambda pixels: (cost[pixels], -pixels))


def _most_pixels(kind: str, machine: Machine, lanes: int) -> int:
    """How many pixels' accumulators fit in registers, beside filters, a broadcast and temporaries."""
    registers = machine.isa.vectors
    if kind == "bits" and counts_bytes(machine):
        vectors = registers // (16 if machine.isa.vector_bytes > 16 else 8)
        return (registers - _counting_spare(machine)) // vectors - 2
    if kind in INT8_KINDS:
        vectors = sub_lanes(kind, machine, lanes) // vector_lanes(kind, machine, lanes)
        vectors = gathered_vectors(vectors) if gathers(kind, machine) else vectors
        sums, spare = int8_registers(kind, machine, vectors)
        return (registers - spare) // (sums * vectors)
    per_pixel = 4 * sub_lanes(kind, machine, lanes) * (2 if kind == "bits" else 1) // machine.isa.vector_bytes or 1
    return (registers - (4 if registers == 32 else 3)) // per_pixel


@dataclass(frozen=True)
class DepthwiseVariant:
    """What the code of a depthwise convolution is specialised for; everything else is an argument.

    `repeats` says how often a vector repeats every channel it reads (0: not evenly, channels come from a table); `scaled` and
    `activation` are as in `ConvVariant`. `dot` is the number of columns that one instruction sums (0: taps one by one); then `taps_w` is
    the width of the window and `pair` the number of pixels that share the columns they read.
    """

    kind: str
    output: str
    pixels: int
    lanes: int
    repeats: int
    scaled: bool
    activation: str
    dot: int = 0
    taps_w: int = 0
    pair: int = 1

    @property
    def name(self) -> str:
        flags = "".join(letter for letter, on in zip("s", (self.scaled,), strict=True) if on) + _LETTERS[self.activation]
        taps = f"_{self.dot}of{self.taps_w}by{self.pair}" if self.dot else ""
        return f"depthwise_conv2d_{self.kind}_{self.output}_{self.pixels}x{self.lanes}_{self.repeats}{flags}{taps}"


def depthwise_lanes(machine: Machine, channels: int) -> int:
    """Channels of a depthwise tile; AVX2 takes a cache line of float32, two registers: lines of many channels displace each other."""
    return 16 if channels > 8 and machine.isa.vector_bytes >= 32 else 8


_MOST_DOT_TAPS = 8


def depthwise_dot(machine: Machine, taps_w: int) -> int:
    """How many columns of an int8 row one instruction sums on this machine, 0 if there is none or the window is too wide to unroll."""
    if taps_w > _MOST_DOT_TAPS or machine.isa.vector_bytes < 32:
        return 0
    return 4 if {"avx512vnni", "avx512vl"} <= machine.features else 2


def depthwise_repeats(lanes: int, multiplier: int) -> int:
    """How often each channel is repeated in a vector of `lanes` filters, `multiplier` of which read the same channel."""
    if lanes % multiplier == 0:
        return multiplier
    return lanes if multiplier % lanes == 0 else 0


def depthwise_pixels(machine: Machine, lanes: int, width: int, *, gathered: bool) -> int:
    """Pixels of a depthwise tile for an image `width` pixels wide, with the least waste at the row's end; few, for few variants."""
    registers = max(1, 4 * lanes // machine.isa.vector_bytes)
    most = min(width, 2 if gathered else 8 // registers)
    cost = {pixels: -(-width // pixels) * (pixels + 1) for pixels in (1, 2, 4, 7, 8) if pixels <= most}
    return min(cost, key=lambda pixels: (cost[pixels], -pixels))


@dataclass(frozen=True)
class PoolVariant:
    """What the code of a pool is specialised for: `reduction` (max, average), the element of a pixel and how many are taken at once.

    `window` is the size of a square window whose taps are unrolled, 0 for others; `clipped`: some windows reach out of the image.
    """

    reduction: str
    element: str
    lanes: int
    packed: bool
    flipped: bool
    window: int
    clipped: bool

    @property
    def name(self) -> str:
        kind = "bits_" if self.packed else ""
        flags = "".join(letter for letter, on in zip("fc", (self.flipped, self.clipped), strict=True) if on)
        return f"{self.reduction}_pool2d_{kind}{self.element}x{self.lanes}_{self.window}{flags}"


def pool_lanes(machine: Machine, lane_bytes: int, count: int) -> int:
    """How many of a pixel's `count` elements to take at once, with accumulators of `lane_bytes`.

    4 or 2 registers where that divides the pixel, less than one where that is the pixel, else one: the loads of the last elements read past
    the pixel, by less than 64 bytes.
    """
    register = machine.isa.vector_bytes // lane_bytes
    if count < register and count & (count - 1) == 0:
        return count
    return next((n * register for n in (4, 2) if count % (n * register) == 0), register)


VALUES = 16  # values that elementwise kernels take at once


@dataclass(frozen=True)
class MapVariant:
    """What the code of a map is specialised for: activation((x [+ x2]) [* mul + add]), stored as `output`.

    `inputs` and `output` are names of encodings; `function` is identity, bounded (none or ReLU), leaky, prelu, which has slopes for
    factors, or another activation by its name in small letters.
    """

    inputs: tuple[str, ...]
    output: str
    channelwise: bool
    function: str

    @property
    def name(self) -> str:
        scaled = "_scaled" if self.channelwise else ""
        return f"map_{'_'.join(self.inputs)}_{self.output}{scaled}_{self.function}"
