"""Tiles of signs against the bits counted one by one, on every instruction set of this machine; what the code for others holds."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fenced import fenced
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.kernels.build import KernelFunction, assembly
from edge.kernels.cache import KERNEL, addresses
from edge.kernels.isa import ISAS, Machine, available, detect
from edge.kernels.registry import Code
from edge.kernels.shapes import ConvVariant, TileShape, tile_pixels

MACHINES = {isa.name: detect(isa.name) for isa in available()}
LANES = (8, 16, 24, 32)
BITS_OF_WORD = 64


# -- single tiles --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A tile's window; steps in bytes."""

    pixel_step: int = 8
    rows: int = 1
    row_step: int = 8
    columns: int = 1
    column_step: int = 8
    positions: int = 1
    used: int = BITS_OF_WORD  # bits of a segment's last position

    @property
    def total(self) -> int:
        return self.rows * self.columns * self.positions

    @property
    def arguments(self) -> np.ndarray:
        mask = (1 << self.used) - 1 if self.used < BITS_OF_WORD else -1
        steps = (self.pixel_step, self.rows, self.row_step, self.columns, self.column_step, self.positions, mask)
        return np.array(steps, np.int64)

    def words(self, image: np.ndarray, pixels: int) -> np.ndarray:
        """The words of every pixel, (pixels, positions in all)."""
        offsets = [
            row * self.row_step + column * self.column_step + 8 * position
            for row in range(self.rows)
            for column in range(self.columns)
            for position in range(self.positions)
        ]
        found = np.array([[image[p * self.pixel_step + o :][:8].view(np.uint64)[0] for o in offsets] for p in range(pixels)])
        if self.used < BITS_OF_WORD:
            found[:, self.positions - 1 :: self.positions] &= np.uint64((1 << self.used) - 1)
        return found

    def image_bytes(self, pixels: int) -> int:
        last = (self.rows - 1) * self.row_step + (self.columns - 1) * self.column_step
        return (pixels - 1) * self.pixel_step + last + 8 * self.positions


def code(shape: TileShape) -> Code:
    """A kernel that is one tile: image in the arena, filters in the constants."""

    def build(machine: Machine) -> KernelFunction:
        from edge.kernels.simd import memory
        from edge.kernels.tile import tile

        compute, octets = tile(shape, machine), memory("u8")

        def kernel(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
            compute(octets.at(arena, 0), octets.at(constants, 0), octets.at(scratch, 0), args)

        return kernel

    return Code(f"tile_{shape.kind}_{shape.pixels}x{shape.lanes}{'m' if shape.masked else ''}", build)


def fence(array: np.ndarray) -> np.ndarray:
    """A copy that ends at a fence; spare bytes are all ones."""
    data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    made = fenced(data.nbytes, at_end=True, spare=0xFF)
    made[:] = data
    return made


def counted(shape: TileShape, machine: Machine, window: Window, image: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """What the tile counts, (pixels, lanes)."""
    kernel = KERNEL(addresses([code(shape)], machine)[code(shape).name])
    arena, constants, args = fence(image), fence(filters), window.arguments
    scratch = fence(np.full(4 * shape.pixels * shape.lanes, 0xA5, np.uint8))
    kernel(args.ctypes.data, arena.ctypes.data, constants.ctypes.data, scratch.ctypes.data, 0, 1)
    return scratch.view(np.int32).reshape(shape.pixels, shape.lanes)


def check(shape: TileShape, machine: Machine, window: Window, image: np.ndarray, filters: np.ndarray) -> None:
    """`filters` are (positions in all, lanes); behind a segment they are cleared, as they are in a file."""
    if window.used < BITS_OF_WORD:
        filters = filters.copy()
        filters[window.positions - 1 :: window.positions] &= np.uint64((1 << window.used) - 1)
    differing = window.words(image, shape.pixels)[:, :, None] ^ filters[None]
    expected = np.bitwise_count(differing).sum(axis=1, dtype=np.int32)
    np.testing.assert_array_equal(counted(shape, machine, window, image, filters), expected)


def shapes(machine: Machine) -> list[TileShape]:
    """A tile of one pixel and the widest, of every width of a block; some of them masked."""
    found = []
    for i, lanes in enumerate(LANES):
        for pixels in {1, tile_pixels("bits", machine, lanes, 7), tile_pixels("bits", machine, lanes, 1000)}:
            found.append(TileShape("bits", pixels, lanes, lanes, masked=(i + pixels) % 2 == 0))
    return found


def signs(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 64, shape, np.uint64)


def octets(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8)


TILES = [(isa, shape) for isa, machine in MACHINES.items() for shape in shapes(machine)]
BEST = detect().isa.name
SAMPLED = [each for i, each in enumerate(TILES) if each[0] == BEST or not i % 4]  # the others are left to the slow tests
CHOSEN = [pytest.param(*each, marks=[pytest.mark.slow] * (each not in SAMPLED)) for each in TILES]


def name_of(value: object) -> str:
    return f"{value.pixels}x{value.lanes}{'m' if value.masked else ''}" if isinstance(value, TileShape) else str(value)


@pytest.mark.parametrize(("isa", "shape"), CHOSEN, ids=name_of)
def test_no_count_overflows(isa: str, shape: TileShape) -> None:
    for positions in (1, 4, 30, 31, 32, 33, 61, 62, 63, 93, 250):
        window = Window(positions=positions, pixel_step=8 * positions)
        image = np.full(window.image_bytes(shape.pixels), 0xFF, np.uint8)
        check(shape, MACHINES[isa], window, image, np.zeros((positions, shape.lanes), np.uint64))  # all bits differ
        check(shape, MACHINES[isa], window, image, signs(positions, positions, shape.lanes))


WINDOWS = st.builds(
    Window,
    pixel_step=st.integers(1, 40),
    rows=st.integers(1, 5),
    row_step=st.integers(1, 200),
    columns=st.integers(1, 4),
    column_step=st.integers(1, 50),
    positions=st.sampled_from((1, 2, 3, 4, 5, 7, 8, 9, 24, 31, 32, 40)),
    used=st.integers(1, 64),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(tile=st.sampled_from(SAMPLED), window=WINDOWS, seed=st.integers(0, 1000))
def test_any_window_is_counted(tile: tuple[str, TileShape], window: Window, seed: int) -> None:
    isa, shape = tile
    if not shape.masked:
        window = Window(**{**vars(window), "used": BITS_OF_WORD})
    image = octets(seed, window.image_bytes(shape.pixels))
    check(shape, MACHINES[isa], window, image, signs(seed, window.total, shape.lanes))


# -- code ----------------------------------------------------------------------------------------------------------------------

KINDS = ("bits", "u8i8", "i8i8", "f32f32", "f32i8", "f32bits")


def convolution(kind: str, width: int, machine: Machine) -> str:
    """The assembly of a convolution of full blocks."""
    from edge.kernels import conv_code

    output = "float32" if kind.startswith("f32") else "bits"
    variant = ConvVariant(kind, output, tile_pixels(kind, machine, 32, width), 32, 0, kind == "bits", False, "none")
    return assembly("kernel", conv_code.kernel(variant, machine), machine)


@pytest.mark.skipif("avx2" not in MACHINES, reason="this machine has no AVX2")
@pytest.mark.parametrize("kind", KINDS)
def test_avx2_convolutions_have_no_wider_registers(kind: str) -> None:
    text = convolution(kind, 28, MACHINES["avx2"])
    assert "%ymm" in text and "%zmm" not in text


def counting_loop(text: str) -> list[str]:
    """The instructions of the innermost loop that counts bits."""
    lines = text.splitlines()
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if re.match(r"\.?\w+:", line)}
    found = []
    for i, line in enumerate(lines):
        branch = re.match(r"\s+(?:b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+, #\d+,)\s+(\.?\w+)\s*$", line)
        body = lines[labels[branch[1]] + 1 : i + 1] if branch and branch[1] in labels else []
        if any("\tcnt\t" in inside for inside in body) and not any(re.match(r"\.?\w+:", inside) for inside in body):
            found.append([inside for inside in body if re.match(r"\s+[a-z]", inside)])
    assert len(found) == 1, "one innermost loop counts bits"
    return found[0]


MCA = next(filter(None, (shutil.which(f"llvm-mca-{version}") for version in range(30, 15, -1))), None)


def cycles(lines: list[str], cpu: str) -> float:
    """Cycles of one run of a loop among many, by llvm-mca."""
    command = (str(MCA), "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", "-iterations=200")
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert total, done.stdout
    return int(total[1]) / 200


@pytest.mark.skipif(MCA is None, reason="llvm-mca 16 or newer, which knows the Neoverse-N1, is not installed")
@pytest.mark.parametrize("width", [56, 14])
@pytest.mark.parametrize("cpu", ["cortex-a72", "neoverse-n1"])
def test_neon_counts_80_products_a_cycle(cpu: str, width: int) -> None:
    machine = Machine(ISAS["neon"], cpu, "", "aarch64-unknown-linux-gnu")
    loop = counting_loop(convolution("bits", width, machine))
    products = 128 * sum("\tcnt\t" in line for line in loop)
    assert products / cycles(loop, cpu) >= 80
    assert not any("[sp" in line and line.strip().startswith("st") for line in loop), "an accumulator is spilled"
