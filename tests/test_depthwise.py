"""Depthwise convolutions that random cases do not reach: long windows, channels repeated often, images smaller than the window."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from draws import Case, Draw
from kernel_runs import Run, assert_agrees
from sample_programs import PADDING, Builder, bits_type, float_type

from edge.converters.passes_simplify import keep_packed
from edge.kernels.isa import Machine, available, detect
from edge.kernels.reference import run_graph
from edge.kernels.tile import has_fma
from edge.ops import NO_ACTIVATION, OPS
from edge.tensors import Encoding, TensorType

BITS, FLOAT32, INT8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8
MACHINES = [detect(isa.name) for isa in available()]


@pytest.fixture(params=["sampled", pytest.param("all", marks=pytest.mark.slow)])
def machines(request: pytest.FixtureRequest) -> list[Machine]:
    """The best instruction set and one other, or all."""
    best, *others = MACHINES
    return MACHINES if request.param == "all" else [best, others[zlib.crc32(request.node.name.encode()) % len(others)]]


def case(
    shape: tuple[int, int, int], taps: tuple[int, int], source: Encoding, output: Encoding, *, multiplier: int = 1, stride: int = 1,
    pad: int = 0, pad_ones: int = 0,
) -> Case:  # fmt: skip
    draw = Draw(7)
    channels = shape[2] * multiplier
    stored = BITS if source is BITS else INT8
    constants = {"filter": draw.builder.values(stored, (*taps, channels))}
    if output is BITS:
        constants["threshold"] = draw.random.integers(-3, 4, channels).astype(np.int32)
    else:
        constants["scale"] = draw.random.uniform(0.001, 0.01, channels).astype(np.float32)
    attrs = {name: 0 for name in OPS["depthwise_conv2d"].attrs} | NO_ACTIVATION | {"groups": shape[2], "pad_ones": pad_ones}
    attrs |= {"stride_h": stride, "stride_w": stride, "dilation_h": 1, "dilation_w": 1}
    attrs |= {f"pad_{side}": pad for side in ("top", "bottom", "left", "right")}
    return draw.finish("depthwise_conv2d", [draw.kind(shape, source)], draw.kind((1,), output), constants, attrs, special=False)


def check(one: Case, machines: list[Machine]) -> None:
    for machine in machines:
        for at_end in (False, True):
            assert_agrees(one, Run(one, machine, at_end=at_end).run().values, fused=has_fma(machine))


@pytest.mark.parametrize("output", [FLOAT32, BITS])
@pytest.mark.parametrize("taps", [(15, 17), (16, 16)], ids=str)
def test_counts_of_long_windows_do_not_overflow(taps: tuple[int, int], output: Encoding, machines: list[Machine]) -> None:
    one = case((16, 17, 20), taps, BITS, output)
    check(one, machines)
    one.node.constants["filter"][...] = True
    one.inputs[0][...] = False  # all signs differ
    check(one, machines)


@pytest.mark.parametrize("output", [FLOAT32, INT8, BITS])
@pytest.mark.parametrize("multiplier", [2, 3, 8, 11, 64])
def test_signs_are_read_by_several_filters(multiplier: int, output: Encoding, machines: list[Machine]) -> None:
    check(case((3, 5, 9), (3, 3), BITS, output, multiplier=multiplier, pad=1), machines)


@pytest.mark.parametrize("pad_ones", [0, 1])
@pytest.mark.parametrize("output", [FLOAT32, BITS])
def test_signs_outside_small_images_count_nothing_or_one(output: Encoding, pad_ones: int, machines: list[Machine]) -> None:
    check(case((2, 1, 70), (5, 5), BITS, output, pad=4, pad_ones=pad_ones), machines)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("taps_w", [1, 5, 8, 9])
def test_rows_of_int8_of_any_width(taps_w: int, stride: int, machines: list[Machine]) -> None:
    check(case((3, 21, 19), (2, taps_w), INT8, INT8, stride=stride, pad=1 if taps_w > 1 else 0), machines)


def test_layers_of_signs_read_packed_signs() -> None:
    """The converter lets a depthwise layer that was trained binary read what is packed, and no value changes."""
    b = Builder(7)
    x = b.input(TensorType((6, 5, 24), FLOAT32))
    unpacked = b.add("unpack", b.add("binarize", x, output=bits_type()), output=float_type())
    before = b.graph("depthwise", b.depthwise(unpacked, 2, stored=BITS, output=float_type(), **PADDING))
    after = keep_packed(before).verify()
    assert [node.op for node in after.nodes] == ["binarize", "depthwise_conv2d"]
    example = {"input0": b.values(FLOAT32, (6, 5, 24))}
    np.testing.assert_allclose(run_graph(after, example)[after.outputs[0]], run_graph(before, example)[before.outputs[0]], atol=1e-6)
