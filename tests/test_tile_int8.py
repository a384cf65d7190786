"""Tiles of bytes: every way to multiply them against the reference, at the ends of ranges, over long windows; what code they become."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from draws import Case
from kernel_runs import Run, assert_agrees
from strategies import case
from strategies_conv import Fixed

from edge.graph import Graph, Node
from edge.kernels.build import assembly
from edge.kernels.int8_forms import FLIPS, HALVES, LONGS, PAIRS, SIGNED, added, way
from edge.kernels.isa import ISAS, Machine, available, detect
from edge.kernels.registry import Derived, Lowering, select
from edge.layout import filter_layout, pack_constant, unpack_constant
from edge.lower import to_program
from edge.ops import NO_ACTIVATION, Activation, ConstantType, OpCall
from edge.tensors import Encoding, TensorType

BITS, FLOAT32, INT8, UINT8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8
MACHINES = {isa.name: detect(isa.name) for isa in available()}
KINDS = {"u8i8": (UINT8, INT8), "i8i8": (INT8, INT8), "u8bits": (UINT8, BITS), "i8bits": (INT8, BITS)}


def dense(kind: str, depth: int, channels: int, *, weight: int | None, value: int | None) -> Case:
    """A dense layer of constant weights and inputs, or random ones, that gives the sums as float32."""
    source, stored = KINDS[kind]
    random = np.random.default_rng(depth)
    shape = (channels, 1, 1, depth)
    weights = random.integers(-128, 128, shape) if weight is None else np.full(shape, weight)
    low, high, dtype = (0, 256, np.uint8) if source is UINT8 else (-128, 128, np.int8)
    x = (random.integers(low, high, depth) if value is None else np.full(depth, value)).astype(dtype)
    constants = {"filter": weights < 0 if stored is BITS else weights.astype(np.int8), "scale": np.ones(channels, np.float32)}
    types = {"x": TensorType((depth,), source, 1.0, int(random.integers(low, high))), "y": TensorType((channels,), FLOAT32)}
    node = Node("dense", ("x",), "y", dict(NO_ACTIVATION), constants)
    return Case(Graph("dense", ("x",), ("y",), (node,), types), (x,), {name: types[name].halo for name in types})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isa", MACHINES)
def test_nothing_saturates(isa: str, kind: str) -> None:
    values = (0, 255) if kind.startswith("u8") else (-128, 127)
    for depth, weight, value in itertools.product((3, 1030), (-128, 127, None), (*values, None)):
        one = dense(kind, depth, 40, weight=weight, value=value)
        assert_agrees(one, Run(one, MACHINES[isa]).run().values, fused=True)


@pytest.mark.slow
@pytest.mark.parametrize("output", [INT8, BITS])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isa", [name for name in MACHINES if name != "portable"])
def test_convolutions_agree(isa: str, kind: str, output: Encoding) -> None:
    for seed in range(4):
        one = case("conv2d", (*KINDS[kind], output), seed, Fixed(33, 5, Activation.NONE, ()))
        assert_agrees(one, Run(one, MACHINES[isa], at_end=seed % 2 == 0).run().values, fused=True)


@pytest.mark.parametrize(("depth", "channels"), [(1, 1), (4, 8), (7, 31), (9, 32), (64, 33), (5, 70)])
def test_signs_for_bytes_are_packed_by_fours(depth: int, channels: int) -> None:
    signs = np.random.default_rng(depth).random((channels, 3, 3, depth)) < 0.5
    call = OpCall((TensorType((9, 9, depth), INT8),), {"filter": ConstantType(BITS, signs.shape)}, {"groups": 1, "dilation_w": 1})
    packed = pack_constant("conv2d", "filter", call, signs)
    positions = 3 * -(-3 * depth // 4)
    assert len(packed) == filter_layout("conv2d", call).nbytes == positions * 4 * -(-channels // 8)
    assert np.array_equal(unpack_constant("conv2d", "filter", call, packed), signs)
    first = signs[0, 0].reshape(-1)[:4]
    assert packed[0] & 15 == sum(int(bit) << i for i, bit in enumerate(first))


def test_each_machine_has_its_way() -> None:
    def chosen(isa: str, kind: str) -> str:
        return way(kind, Machine(ISAS[isa], ISAS[isa].cpu, "", ""))

    assert [chosen("avx2", kind) for kind in ("u8i8", "i8bits")] == [HALVES, PAIRS]
    assert [chosen("neon", kind) for kind in ("i8i8", "u8bits")] == [LONGS, FLIPS]
    assert {chosen("neondot", kind) for kind in KINDS} == {SIGNED}
    signed = Machine(ISAS["neondot"], "cortex-a76", "", "")
    assert [added(kind, signed) for kind in ("u8i8", "i8i8")] == [-128, 0]


INSTRUCTIONS = {
    ("avx2", "i8i8"): "vpmaddwd",
    ("avx2", "i8bits"): "vpmaddubsw",
    ("neon", "i8i8"): "smull",
    ("neon", "u8bits"): "sadalp",
    ("neondot", "i8bits"): "sdot",
}


@pytest.mark.parametrize(("isa", "kind"), INSTRUCTIONS)
def test_code_has_the_instruction(isa: str, kind: str) -> None:
    chosen = ISAS[isa]
    machine = Machine(chosen, chosen.cpu, "", f"{chosen.architecture}-unknown-linux-gnu")
    program = to_program(dense(kind, 64, 32, weight=None, value=None).graph)
    lowering = Lowering(program, program.instructions[0], machine, Derived(int(program.blob.ctypes.data)))
    code = select(lowering).lower(lowering).code
    text = assembly("edge_kernel", code.build(machine), machine)
    assert INSTRUCTIONS[isa, kind] in text and "stand_in" not in text
