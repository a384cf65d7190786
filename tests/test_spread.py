"""Blocks of narrow filters, spread in scratch memory before their tiles run: the same values as the reference, with any parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_runs import Run, assert_agrees
from strategies import Case

from edge.graph import Graph, Node
from edge.kernels.isa import available, detect
from edge.ops import NO_ACTIVATION
from edge.tensors import NARROW, Encoding, Halo, TensorType

MACHINES = {isa.name: detect(isa.name) for isa in available() if isa.name != "portable"}  # which spreads like generic
BEST = next(iter(MACHINES))
KINDS = {
    "f32bits": (Encoding.FLOAT32, Encoding.BITS),
    "f32i8": (Encoding.FLOAT32, Encoding.INT8),
    "u8bits": (Encoding.UINT8, Encoding.BITS),
    "i8bits": (Encoding.INT8, Encoding.BITS),
    "i8i4": (Encoding.INT8, Encoding.INT4),
    "i8i2": (Encoding.INT8, Encoding.INT2),
}
DTYPES: dict[Encoding, Any] = {Encoding.FLOAT32: np.float32, Encoding.INT8: np.int8, Encoding.UINT8: np.uint8}
WINDOW = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1, "pad_ones": 0}


def convolution(kind: str, size: int, depth: int, channels: int, *, groups: int = 1, dilation_w: int = 1) -> Case:
    """A 3x3 convolution of random values without activation."""
    source, stored = KINDS[kind]
    random = np.random.default_rng(depth * channels)
    half = 1 << stored.bits - 1 if stored in NARROW else 128
    weights = random.integers(-half, half, (channels, 3, 3, depth // groups)).astype(np.int8)
    x = random.integers(*((0, 256) if source is Encoding.UINT8 else (-128, 128)), (size, size, depth)).astype(DTYPES[source])
    width = size + 2 - 2 * dilation_w
    types = {
        "x": TensorType((size, size, depth), source, 1.0, 3 if source is not Encoding.FLOAT32 else 0, halo=Halo(1, 1, 1, 1)),
        "y": TensorType((size, width, channels), Encoding.FLOAT32),
    }
    constants = {"filter": weights < 0 if stored is Encoding.BITS else weights, "scale": np.full(channels, 0.5, np.float32)}
    attrs = {**WINDOW, "groups": groups, "dilation_w": dilation_w, **NO_ACTIVATION}
    node = Node("conv2d", ("x",), "y", attrs, constants, filter_bits=stored.bits if stored in NARROW else 0)
    return Case(Graph("conv", ("x",), ("y",), (node,), types), (x,), {name: types[name].halo for name in types})


@pytest.mark.parametrize("isa", [pytest.param(isa, marks=[pytest.mark.slow] * (isa not in (BEST, "avx2"))) for isa in MACHINES])
@pytest.mark.parametrize("kind", KINDS)
def test_spread_filters_agree(isa: str, kind: str) -> None:
    for depth, channels, groups, dilation_w in ((5, 70, 1, 1), (10, 80, 2, 2)):
        one = convolution(kind, 5, depth, channels, groups=groups, dilation_w=dilation_w)
        run = Run(one, MACHINES[isa])
        for parts in (1, 3):
            assert_agrees(one, run.run(parts).values, fused=True)


@pytest.mark.parametrize(("size", "spreads"), [(3, False), (4, True)])
def test_filters_that_meet_few_pixels_are_spread_in_registers(size: int, spreads: bool) -> None:
    lowered = Run(convolution("f32bits", size, 8, 32), MACHINES["generic"]).kernel
    assert ("spread" in lowered.code.name) == spreads
    assert lowered.scratch_bytes == (9 * 8 * 32 * 4 if spreads else 0)


@pytest.mark.skipif("avx512vnni" not in MACHINES[BEST].features, reason="this machine has no AVX512-VNNI")
@pytest.mark.parametrize("kind", ["i8i4", "i8i2"])
@pytest.mark.parametrize(("size", "channels", "spreads"), [(7, 64, False), (14, 32, False), (13, 32, True), (7, 16, True), (7, 40, True)])
def test_few_bits_are_spread_in_registers_where_tiles_fit(kind: str, size: int, channels: int, spreads: bool) -> None:
    one = convolution(kind, size, 8, channels)
    run = Run(one, MACHINES[BEST])
    assert ("spread" in run.kernel.code.name) == spreads
    for parts in (1, 3):
        assert_agrees(one, run.run(parts).values, fused=True)


def test_large_blocks_take_no_scratch_memory() -> None:
    lowered = Run(convolution("f32bits", 5, 256, 32), MACHINES["generic"]).kernel
    assert lowered.scratch_bytes == 0
