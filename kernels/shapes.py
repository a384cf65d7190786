"""The shapes of tiles: how many pixels and channels a kernel takes at once on a machine. Pure arithmetic, no Numba."""

from __future__ import annotations

from dataclasses import dataclass

from edge.kernels.isa import Machine

_MOST_PIXELS = 12


@dataclass(frozen=True)
class ConvVariant:
    """What the code of a convolution is specialised for; everything else is an argument.

    `lanes` is the width of all blocks but perhaps the last, whose width is `tail` (0: the same); `masked`: the last position of a segment
    holds bits beyond the segment; `scaled`: accumulators are multiplied by a scale; `leaky`: the slope below zero is used.
    """

    kind: str
    output: str
    pixels: int
    lanes: int
    tail: int
    masked: bool
    scaled: bool
    leaky: bool

    @property
    def name(self) -> str:
        flags = "".join(letter for letter, on in zip("msl", (self.masked, self.scaled, self.leaky), strict=True) if on)
        return f"conv2d_{self.kind}_{self.output}_{self.pixels}x{self.lanes}_{self.tail}{flags}"


def vector_lanes(kind: str, machine: Machine, lanes: int) -> int:
    """Lanes of one accumulator vector: what a register holds, and a divisor of `lanes`."""
    register = machine.isa.vector_bytes // (8 if kind == "bits" else 4)
    while lanes % register:
        register //= 2
    return max(register, 8) if kind == "f32bits" else register  # its filters come in whole bytes, a bit a lane


def sub_lanes(kind: str, machine: Machine, lanes: int) -> int:
    """Lanes a tile takes at once out of a block of `lanes`: all of them where there are 32 wide registers."""
    if machine.isa.vector_bytes == 64:
        return lanes
    return 16 if kind != "bits" and lanes % 16 == 0 else 8


def tile_pixels(kind: str, machine: Machine, lanes: int, width: int) -> int:
    """Pixels of a tile for an image `width` pixels wide: as many as registers allow, with the least waste at the row's end."""
    sub = sub_lanes(kind, machine, lanes)
    per_pixel = 4 * sub * (2 if kind == "bits" else 1) // machine.isa.vector_bytes or 1
    spare = 4 if machine.isa.vectors == 32 else 3  # filters, the broadcast and a temporary
    if kind == "bits" and machine.isa.vector_bytes < 64:
        spare += 3  # the tables and temporaries of a popcount without an instruction for it
    most = max(1, min(_MOST_PIXELS, width, (machine.isa.vectors - spare) // per_pixel))
    cost = {pixels: -(-width // pixels) * (pixels + 0.5) for pixels in range(1, most + 1)}
    return min(cost, key=lambda pixels: (cost[pixels], -pixels))
