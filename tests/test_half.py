"""Filters of float16: every value widened exactly on every instruction set, files of half the bytes, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from keras_files import conv, write_h5
from kernel_cases import BEST, MACHINES
from sample_programs import CONV, FLOAT16, FLOAT32, PADDING, Builder, float_type
from test_verifier import refused, with_constant

import edge
from edge.compare import compare
from edge.compare_layers import SIXTEEN_BITS
from edge.converters.bits import Request
from edge.engine import Engine
from edge.errors import FormatError, InputError, ModelError
from edge.format import from_bytes, read, to_bytes
from edge.graph import Graph
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.ops import NO_ACTIVATION
from edge.tensors import Encoding, TensorType
from edge.tflite_runner import load_tflite
from edge.verifier import verify

FUNCTIONAL = Path(__file__).parent / "fixtures" / "keras2_functional.h5"


def every_half() -> np.ndarray:
    """All finite float16."""
    values: np.ndarray = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return values[np.isfinite(values)]


def of_one(filters: np.ndarray, op: str, width: int) -> Graph:
    """A layer of one product for each output, of an image `width` pixels wide."""
    b, depthwise = Builder(0), op == "depthwise_conv2d"
    x = b.input(TensorType((1, width, len(filters) if depthwise else 1), FLOAT32))
    attrs = NO_ACTIVATION if op == "dense" else {**CONV, "groups": len(filters) if depthwise else 1}
    constants = {"filter": filters.reshape((1, 1, -1) if depthwise else (-1, 1, 1, 1))}
    return b.graph("one", b.add(op, x, constants=constants, output=float_type(), **attrs))


@pytest.mark.parametrize("isa", [pytest.param(name, marks=[pytest.mark.slow] * (name not in (BEST, "generic"))) for name in MACHINES])
@pytest.mark.parametrize(("op", "width"), [("dense", 1), ("conv2d", 16), ("depthwise_conv2d", 2)])
def test_every_value_is_widened_exactly(isa: str, op: str, width: int) -> None:
    halves = every_half()
    graph = of_one(halves, op, width)
    given = np.ones(graph.types[graph.inputs[0]].shape, np.float32)
    found = Engine(to_program(graph), machine=MACHINES[isa])(given)
    expected = np.broadcast_to(halves.astype(np.float32), found.shape)
    np.testing.assert_array_equal(found, expected)


# -- files ---------------------------------------------------------------------------------------------------------------------


def network(stored: Encoding) -> Graph:
    """A convolution, a depthwise one and a dense layer."""
    b, kind = Builder(3), float_type()
    x = b.conv(b.input(TensorType((6, 7, 5), FLOAT32)), 36, (3, 3), stored=stored, output=kind, **PADDING)
    x = b.depthwise(x, 1, stored=stored, output=kind, **PADDING)
    return b.graph("half", b.dense(x, 10, stored=stored, output=kind))


def test_filters_take_half_the_bytes_and_the_file_a_newer_reader() -> None:
    whole, half = (to_program(network(stored)) for stored in (FLOAT32, FLOAT16))
    sizes = [[made.constants[i.constant("filter")].nbytes for i in made.instructions] for made in (whole, half)]
    assert [2 * small for small in sizes[1]] == sizes[0]
    assert [to_bytes(made)[12] for made in (whole, half)] == [0, 4]  # the oldest minor version that understands it
    assert from_bytes(to_bytes(half)).call(half.instructions[0]).constants["filter"].encoding is FLOAT16


@pytest.mark.parametrize("isa", [BEST, "generic"])
def test_a_network_gives_what_the_reference_gives(isa: str) -> None:
    graph = network(FLOAT16)
    given = np.random.default_rng(0).normal(size=(6, 7, 5)).astype(np.float32)
    expected = run_graph(graph, {graph.inputs[0]: given})[graph.outputs[0]]
    np.testing.assert_allclose(Engine(to_program(graph), machine=MACHINES[isa])(given), expected, rtol=1e-5, atol=1e-5)


def test_only_filters_of_floats_are_halves() -> None:
    made = to_program(network(FLOAT16))
    tensors = (replace(made.tensors[0], type=replace(made.tensors[0].type, encoding=FLOAT16)), *made.tensors[1:])
    with pytest.raises(FormatError):
        verify(replace(made, tensors=tensors))
    for role in ("filter", "bias"):
        number = made.instructions[0].constant(role)
        other = FLOAT32 if role == "filter" else FLOAT16
        refused(with_constant(made, number, type=replace(made.constants[number].type, encoding=other)), role)
    b = Builder(1)
    x = b.input(TensorType((4, 4, 8), Encoding.UINT8))
    with pytest.raises(ModelError, match="does not exist"):
        b.graph("bytes", b.conv(x, 8, (1, 1), stored=FLOAT16, output=float_type()))


def test_infinite_halves_are_refused() -> None:
    graph = network(FLOAT16)
    constants = {**graph.nodes[0].constants, "filter": np.full_like(graph.nodes[0].constants["filter"], np.inf)}
    with pytest.raises(ModelError, match="not finite"):
        to_program(replace(graph, nodes=(replace(graph.nodes[0], constants=constants), *graph.nodes[1:])))


# -- conversions -----------------------------------------------------------------------------------------------------------------


def filters_of(path: Path) -> list[np.ndarray]:
    made = read(path)
    return [array for i in made.instructions if "filter" in i.definition.constants and (array := made.array(i, "filter")) is not None]


def test_both_files_have_halves_and_give_nearly_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed, no .tflite can be run")
    edge.convert(FUNCTIONAL, tmp_path / "float.edge", bits=32)
    report = edge.convert(FUNCTIONAL, tmp_path / "half.edge", bits=16)
    assert report.activation_bits == 32 and {row.bits_after for row in report.layers if row.bits_after} == {16}
    whole, half = (filters_of(tmp_path / f"{name}.edge") for name in ("float", "half"))
    for one, other in zip(whole, half, strict=True):
        assert other.dtype == np.float16
        np.testing.assert_array_equal(one.astype(np.float16), other)
    pictures = np.random.default_rng(0).random((3, *edge.load(tmp_path / "half.edge").inputs[0].shape)).astype(np.float32)
    engine = edge.load(tmp_path / "half.edge").run(pictures)
    for name, run, tolerance in (("half.tflite", load_tflite, 1e-5), ("float.edge", edge.load, 1e-2)):
        for found, expected in zip(engine, run(tmp_path / name).run(pictures), strict=True):
            np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    for suffix in ("edge", "tflite"):
        sizes = [(tmp_path / f"{name}.{suffix}").stat().st_size for name in ("half", "float")]
        assert sizes[0] < sizes[1]


def test_weights_beyond_the_range_stay_float32_and_the_report_says_so(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    large = random.normal(size=(3, 3, 3, 8)).astype(np.float32)
    large[0, 0, 0, 0] = 65505
    layers = [conv("large", large), conv("small", random.normal(size=(3, 3, 8, 8)).astype(np.float32) * 60)]
    report = edge.convert(write_h5(tmp_path / "model.h5", layers, (8, 8, 3)), bits=16, formats="edge")
    rows = {row.name: row for row in report.layers}
    assert (rows["large"].bits_after, rows["small"].bits_after) == (32, 16)
    assert "exceed 65504" in rows["large"].note and rows["small"].note == ""


def test_single_layers_of_16_bits_stay_between_layers_of_others(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    layers = [conv(f"c{i}", random.normal(size=(1, 1, 8 if i else 3, 8)).astype(np.float32)) for i in range(4)]
    source = write_h5(tmp_path / "model.h5", layers, (8, 8, 3))
    pictures = random.random((4, 8, 8, 3)).astype(np.float32)
    report = edge.convert(source, bits=4, layers={"c1": 16}, calibrate=pictures, formats="edge")
    kernels = {row.name: row.kernel for row in report.layers}
    assert "float32 x float16" in kernels["c1"] and "int8 x int4 -> int8" in kernels["c2"]
    mixed = edge.convert(source, bits=16, layers={"c2": 4, "c3": 32}, formats="edge")
    assert [row.bits_after for row in mixed.layers] == [16, 16, 4, 32]


@pytest.mark.parametrize("activations", [1, 8])
def test_activations_stay_float(activations: int) -> None:
    with pytest.raises(InputError, match="activation bits should be 32 with bits 16"):
        Request(16, activations)


def test_a_comparison_allows_what_halves_give_up(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="flatbuffers is not installed, no .tflite can be written")
    random = np.random.default_rng(3)
    layers = [conv(name, random.normal(size=(3, 3, depth, 8)).astype(np.float32)) for name, depth in (("c", 3), ("d", 8))]
    source = write_h5(tmp_path / "model.h5", layers, (8, 8, 3))
    edge.convert(source, bits=16)
    for name in ("model.edge", "model.tflite"):
        found = compare(source, tmp_path / name, count=4)
        assert found.equal and found.precision == SIXTEEN_BITS
