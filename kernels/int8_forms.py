"""Which arithmetic a machine has for sums of products of bytes, and what of it the tables of a convolution take off again.

    way        machine                  instruction                          x it multiplies
    dots       AVX512-VNNI, AVX-VNNI    vpdpbusd: 4 u8 x s8                  unsigned
    signed     dotprod (Cortex-A76)     sdot: 4 s8 x s8                      signed
    halves     other x86-64             pmaddwd: 2 s16 x s16                 as it is, in 16 bits
    pairs      AVX2, of signs           pmaddubsw: 2 u8 x s8                 unsigned
    longs      other aarch64            smull, sadalp: s8 x s8               signed
    flips      the same, of signs       eor, sadalp: complements of s8       signed
    widening   any                      whatever LLVM makes of it            unsigned

A signed x becomes unsigned by adding 128, an unsigned one signed by adding -128: both flip the top bit. Pure arithmetic, no Numba.
"""

from __future__ import annotations

from edge.kernels.isa import Machine

INT8_KINDS = ("u8i8", "i8i8", "u8bits", "i8bits", "u8i4", "i8i4", "u8i2", "i8i2")  # of tiles: the input, then the filter
DOTS, SIGNED, HALVES, PAIRS, LONGS, FLIPS, WIDENING = "dots", "signed", "halves", "pairs", "longs", "flips", "widening"


def way(kind: str, machine: Machine) -> str:
    """How a machine computes tiles of a kind."""
    features, packed = machine.features, kind.endswith("bits")
    if {"avx512vnni", "avx512vl"} <= features or ("avxvnni" in features and machine.isa.vector_bytes <= 32):
        return DOTS
    if machine.isa.architecture == "x86_64":
        return PAIRS if packed and machine.isa.vector_bytes >= 32 else HALVES
    if machine.isa.architecture == "aarch64":
        return SIGNED if "dotprod" in features else FLIPS if packed else LONGS
    return WIDENING


def gathers(kind: str, machine: Machine) -> bool:
    """Whether tiles of a kind prepare pixels in a buffer (`edge.kernels.tile_gathered`)."""
    return kind in INT8_KINDS and way(kind, machine) in (HALVES, PAIRS, LONGS, FLIPS)


def added(kind: str, machine: Machine) -> int:
    """What a tile of `kind` adds to every x: its sums are of (x + added) * w."""
    chosen = way(kind, machine)
    if chosen == HALVES:
        return 0
    if chosen in (SIGNED, LONGS, FLIPS):
        return -128 if kind.startswith("u8") else 0
    return 128 if kind.startswith("i8") else 0


def complements(kind: str, machine: Machine) -> bool:
    """Whether a tile of signs takes the complement of x for -x: each -1 among the signs then makes the sum 1 too small."""
    return way(kind, machine) == FLIPS


def int8_registers(kind: str, machine: Machine, vectors: int) -> tuple[int, int]:
    """(registers of a vector of accumulators, registers a tile of so many vectors of lanes needs beside its accumulators)."""
    if kind.endswith(("i4", "i2")) and way(kind, machine) == DOTS:
        return 1, 2 * vectors + 3  # filters of two positions, a pixel and the constants that spread them
    return {
        HALVES: (1, 2 * vectors + 3),  # filters and a pixel, both in two halves, and a product
        PAIRS: (1, vectors + 4),  # a pixel, a product and two constants that spread signs
        LONGS: (2, 2 * vectors + 3),
        FLIPS: (1, vectors + 4),
    }.get(way(kind, machine), (1, vectors + 2))
