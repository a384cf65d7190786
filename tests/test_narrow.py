"""Filters of 4 and 2 bits: packed as said, half and a quarter of int8's bytes, spread like it, refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_programs import PADDING, Builder, int8_type
from test_verifier import index, refused, with_constant

from edge.engine import Engine
from edge.errors import FormatError, ModelError
from edge.format import from_bytes, to_bytes
from edge.graph import Graph
from edge.kernels import narrowpack
from edge.kernels.arithmetic import dequantize
from edge.kernels.isa import available, detect
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.ops import OpError
from edge.program import Program
from edge.tensors import NARROW, Encoding, TensorType
from edge.verifier import verify

INT8, FLOAT32, UINT8 = Encoding.INT8, Encoding.FLOAT32, Encoding.UINT8

BEST = detect().isa.name
ISAS = [pytest.param(isa.name, marks=[pytest.mark.slow] * (isa.name != BEST)) for isa in available() if isa.name != "portable"]


@given(st.sampled_from([2, 4]), st.integers(1, 20), st.integers(0, 99))
def test_unpacking_is_the_inverse_of_packing(bits: int, count: int, seed: int) -> None:
    half = 1 << bits - 1
    values = np.random.default_rng(seed).integers(-half, half, (3, count, 8 // bits)).astype(np.int8)
    data = narrowpack.pack(values, bits)
    assert data.dtype == np.uint8 and data.shape == (3, count)
    np.testing.assert_array_equal(narrowpack.unpack(data, bits), values)


def test_the_first_value_lies_in_the_lowest_bits() -> None:
    assert narrowpack.pack(np.array([[-8, 7], [0, 1]], np.int8), 4).tolist() == [0xF0, 0x98]
    assert narrowpack.pack(np.array([[-2, -1, 0, 1]], np.int8), 2).tolist() == [0b11100100]


@pytest.mark.parametrize(("bits", "value"), [(4, 8), (4, -9), (2, 2), (2, -3)])
def test_values_that_do_not_fit_are_not_packed(bits: int, value: int) -> None:
    with pytest.raises(ValueError, match=f"values of {bits} bits are"):
        narrowpack.pack(np.full((1, 8 // bits), value, np.int8), bits)


def network(stored: Encoding, source: Encoding = INT8, *, channels: int = 76, classes: int = 10) -> Graph:
    """A convolution of bytes or floats and a dense layer."""
    b = Builder(5)
    kinds = {INT8: int8_type(0.05, -3), FLOAT32: TensorType((1,))}
    x = b.input(TensorType((6, 7, 16), UINT8 if source is INT8 else FLOAT32))
    x = b.conv(x, channels, (3, 3), stored=stored, output=kinds[source], **PADDING)
    return b.graph("narrow", b.dense(x, classes, stored=stored, output=TensorType((1,))))


def filter_bytes(program: Program) -> int:
    return sum(constant.nbytes for constant in program.constants if len(constant.type.shape) == 4)


@pytest.mark.parametrize("source", [INT8, FLOAT32])
def test_filters_take_half_and_a_quarter_of_the_bytes(source: Encoding) -> None:
    # rows of 48 weights, and 6 of 7 * 80: no position has to be filled up
    whole, four, two = (filter_bytes(to_program(network(stored, source, channels=80))) for stored in (INT8, *NARROW))
    assert (2 * four, 4 * two) == (whole, whole)


@pytest.mark.parametrize("stored", NARROW)
def test_files_name_the_version_that_knows_them(stored: Encoding) -> None:
    program = to_program(network(stored))
    data = to_bytes(program)
    assert to_bytes(from_bytes(data)) == data
    assert int.from_bytes(data[12:14], "little") == 3
    assert int.from_bytes(to_bytes(to_program(network(INT8)))[12:14], "little") < 3


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", [INT8, FLOAT32])
@pytest.mark.parametrize("stored", NARROW)
def test_networks_give_what_the_reference_gives(stored: Encoding, source: Encoding, isa: str) -> None:
    graph = network(stored, source)
    engine = Engine(to_program(graph), machine=detect(isa))
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (6, 7, 16)).astype(np.uint8) if source is INT8 else random.normal(size=(6, 7, 16)).astype(np.float32)
    values = run_graph(graph, {graph.inputs[0]: picture})
    for node, step in zip(graph.nodes, engine.trace(picture), strict=True):
        kind = graph.types[node.output]
        tolerance = 1e-5 if source is FLOAT32 else 0
        np.testing.assert_allclose(step.output, dequantize(values[node.output], kind), rtol=tolerance, atol=tolerance)


def test_no_copy_of_the_filters_is_kept() -> None:
    engine = Engine(to_program(network(Encoding.INT4, channels=80, classes=16)))
    assert engine.footprint.derived_bytes < 2048  # tables of zero points alone


# -- hostile -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", NARROW)
def test_constants_of_another_size_are_refused(stored: Encoding) -> None:
    made = to_program(network(stored))
    verify(made)
    number = made.instructions[index(made, "conv2d")].constant("filter")
    nbytes = made.constants[number].nbytes
    for wrong in (nbytes - 1, nbytes + 1, nbytes // 2, 1):
        refused(with_constant(made, number, nbytes=wrong), "filter")


@pytest.mark.parametrize("stored", NARROW)
def test_filters_said_to_be_of_other_bits_are_refused(stored: Encoding) -> None:
    made = to_program(network(stored))
    number = made.instructions[index(made, "dense")].constant("filter")
    for other in (INT8, *NARROW):
        if other is not stored:
            kind = replace(made.constants[number].type, encoding=other)
            refused(with_constant(made, number, type=kind), "filter")


@pytest.mark.parametrize("stored", NARROW)
def test_tensors_and_other_constants_have_no_few_bits(stored: Encoding) -> None:
    made = to_program(network(INT8))
    tensors = (replace(made.tensors[0], type=replace(made.tensors[0].type, encoding=stored)), *made.tensors[1:])
    with pytest.raises(FormatError):
        verify(replace(made, tensors=tensors))
    number = made.instructions[0].constant("scale")
    refused(with_constant(made, number, type=replace(made.constants[number].type, encoding=stored)), "scale")


def test_graphs_store_no_depthwise_or_float_filter_in_few_bits() -> None:
    b = Builder(1)
    x = b.input(TensorType((4, 4, 8), UINT8))
    graph = b.graph("depthwise", b.depthwise(x, 1, stored=INT8, output=int8_type(), **PADDING))
    with pytest.raises(ModelError, match="does not exist"):
        replace(graph, nodes=(replace(graph.nodes[0], filter_bits=4),)).verify()
    with pytest.raises(OpError, match="not stored in 4 bits"):
        graph.call(replace(graph.nodes[0], constants={"filter": np.zeros((3, 3, 8), np.float32)}, filter_bits=4))
