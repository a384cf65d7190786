"""Layers alone: each first right, then timed against the same layer in LiteRT, int8 and float32 (binary ones too: what they replace).

A layer runs through the loop of the engine with the calls that fill its halos; LiteRT's `invoke()` alone is timed, its input in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bench_layers import Shape, assert_right, conv, layer, peers
from bench_rows import (
    BITS_BITS,
    BITS_FLOAT,
    CURVE,
    EDGE,
    FLOAT,
    INT8,
    LAYERS,
    LITERT_FLOAT,
    LITERT_INT8,
    PICTURE_BITS,
    PICTURE_FLOAT,
    WEIGHTS_FLOAT,
    WEIGHTS_INT8,
)

from edge.kernels.isa import available, detect
from edge.threads import most_threads

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'edge-lowbit[litert]'")

SIZES = ((56, 64), (28, 128), (14, 256), (7, 512))  # height and width, channels: the stages of a residual network
ALL = (BITS_BITS, BITS_FLOAT, INT8, FLOAT, WEIGHTS_FLOAT, WEIGHTS_INT8)
QUICK = (BITS_BITS, INT8, FLOAT, WEIGHTS_FLOAT)
PICTURES = (PICTURE_FLOAT, PICTURE_BITS, FLOAT)
DENSE = (BITS_FLOAT, INT8, FLOAT, WEIGHTS_FLOAT, WEIGHTS_INT8)
WIDTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512)

Case = tuple[Shape, str, int]  # with the threads


def shapes() -> Iterator[tuple[Shape, tuple[str, ...]]]:
    """Every layer with its kinds."""
    for taps in (3, 1):
        for size, channels in SIZES:
            yield conv(size, channels, channels, taps), ALL
    for size, channels in SIZES[1:3]:
        yield conv(size, channels, channels, 5), ALL
    for size, channels in SIZES:
        yield Shape("depthwise_conv2d", size, size, channels, channels, 3), (INT8, FLOAT)
    yield conv(224, 3, 64, 7, stride=2), PICTURES
    yield conv(224, 3, 32, 3, stride=2), PICTURES
    yield conv(28, 1, 32, 5), PICTURES
    for inputs, outputs in ((3136, 1024), (9216, 4096)):
        yield Shape("dense", 1, 1, inputs, outputs), DENSE


def cases() -> Iterator[Any]:
    """All on one thread, the 3x3 convolutions on all threads too."""
    for shape, kinds in shapes():
        three = shape.op == "conv2d" and shape.taps == 3 and shape.stride == 1
        for threads in sorted({1, most_threads()}) if three else (1,):
            for kind in kinds:
                marks = [pytest.mark.quick] if three and kind in QUICK and threads == 1 else []
                yield pytest.param(shape, kind, threads, marks=marks, id=f"{shape.name}, {kind}, {threads}")


@pytest.mark.parametrize(("shape", "kind", "threads"), list(cases()))
def test_layer(bench: Any, shape: Shape, kind: str, threads: int) -> None:
    made = layer(shape, kind, threads=threads)
    assert_right(made)
    contenders = {EDGE: made.call(), **peers(shape, threads=threads)}
    bench.row(LAYERS, shape.name, kind, contenders, threads=threads, work=made.work, facts={"kernel": made.kernel})


@pytest.mark.parametrize("kind", (BITS_BITS, BITS_FLOAT))
@pytest.mark.parametrize(("size", "channels"), SIZES)
def test_forced_to_avx2(bench: Any, size: int, channels: int, kind: str) -> None:
    if "avx2" not in [isa.name for isa in available()][1:]:
        pytest.skip("this machine has no AVX2 below its best instruction set")
    shape = conv(size, channels, channels, 3)
    made = layer(shape, kind, machine=detect("avx2"))
    assert_right(made)
    bench.row(LAYERS, shape.name, f"{kind}, avx2", {EDGE: made.call(), **peers(shape)}, work=made.work, facts={"kernel": made.kernel})


_PEERS_OF_WIDTHS = {BITS_BITS: (LITERT_INT8, LITERT_FLOAT), INT8: (LITERT_INT8,), FLOAT: (LITERT_FLOAT,)}


@pytest.mark.parametrize("kind", _PEERS_OF_WIDTHS)
@pytest.mark.parametrize("channels", WIDTHS)
def test_width(bench: Any, channels: int, kind: str) -> None:
    shape = conv(14, channels, channels, 3)
    made = layer(shape, kind)
    assert_right(made)
    facts = {"kernel": made.kernel, "channels": channels}
    bench.row(CURVE, shape.name, kind, {EDGE: made.call(), **peers(shape, *_PEERS_OF_WIDTHS[kind])}, work=made.work, facts=facts)
