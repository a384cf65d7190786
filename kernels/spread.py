"""Spreading a block of filters: from the narrow form of the file to that of a tile, in scratch memory, once for all pixels of an image.

A tile that spreads signs in registers does so again for every few pixels, which costs it a tenth of its time or more. A block of 32
channels is small (3x3x64 float32: 72 KiB) and stays in the caches while the rows of an image pass by; the file's filters stay as they are.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edge.kernels.isa import Machine
from edge.kernels.narrow import Load
from edge.kernels.shapes import lane_bits, sharing
from edge.kernels.simd import INDEX, splat
from edge.kernels.tile import stored_filters
from edge.kernels.tile_window import load_window, variable

I64 = ir.IntType(64)
_LANE_BYTES = 4  # of a position in the tile: a float32, or 4 int8


@functools.cache
def spread_block(kind: str, lanes: int, masked: bool, machine: Machine) -> Any:
    """The code as a Numba intrinsic

    spread(filters, out, window): pointers to a block of `lanes` filters of `kind` (`edge.kernels.tile`), to the memory for
    [segment][position][lane] of 4 bytes, and to the seven numbers of the tile's window. Where `masked`, values behind the end of a segment
    become 0.
    """

    @intrinsic
    def typed(context: Any, filters: Any, out: Any, window: Any) -> Any:
        octets = types.CPointer(types.uint8)
        signature = types.void(octets, octets, types.CPointer(types.int64))

        def code(context: Any, builder: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            _write(builder, stored_filters(kind, machine), kind, lanes, masked, *values)
            return context.get_dummy_value()

        return signature, code

    return typed


def _write(
    builder: ir.IRBuilder, read: Load, kind: str, lanes: int, masked: bool, filters: ir.Value, out: ir.Value, window: ir.Value
) -> None:
    """The loop over segments, and over the positions of each; the last apart where it is masked.

    Where positions share bytes, those behind the end of a segment are overwritten by the next one, or lie behind the block.
    """
    bits, share = lane_bits(kind), sharing(kind)
    width = 16 if lanes % 16 == 0 else 8
    values = load_window(builder, filters, window)
    source, target = variable(builder, filters), variable(builder, out)

    def position(mask: ir.Value | None = None) -> None:
        here, there = builder.load(source), builder.load(target)
        for first in range(0, lanes, width):
            for i, vector in enumerate(read(builder, builder.gep(here, [INDEX(first * bits // 8)]), width)):
                if mask is not None:
                    vector = builder.and_(vector, mask)
                to = builder.gep(there, [INDEX((i * lanes + first) * _LANE_BYTES)])
                builder.store(vector, builder.bitcast(to, vector.type.as_pointer()), align=1)
        builder.store(builder.gep(here, [INDEX(lanes * bits // 8)]), source)
        builder.store(builder.gep(there, [INDEX(share * lanes * _LANE_BYTES)]), target)

    unmasked = builder.sub(values.positions, INDEX(1)) if masked else values.positions
    loads = builder.udiv(builder.add(unmasked, INDEX(share - 1)), INDEX(share))
    segment_bytes = builder.mul(values.positions, INDEX(lanes * _LANE_BYTES))
    with cgutils.for_range(builder, builder.mul(values.rows, values.columns), intp=I64):
        behind = builder.gep(builder.load(target), [segment_bytes])
        with cgutils.for_range(builder, loads, intp=I64):
            position()
        if masked:
            position(_bytes_of(builder, values.mask, width))
        builder.store(behind, target)


def _bytes_of(builder: ir.IRBuilder, mask: ir.Value, width: int) -> ir.Value:
    """The low 4 bytes of a mask, for every lane."""
    lanes = splat(builder, builder.trunc(mask, ir.IntType(32)), ir.VectorType(ir.IntType(32), width))
    return builder.bitcast(lanes, ir.VectorType(ir.IntType(8), _LANE_BYTES * width))
