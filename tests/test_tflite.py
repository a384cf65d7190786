"""TFLite files written from graphs, run by ai-edge-litert with and without XNNPACK, against the reference interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_cases import BITS, F32, I8, RELU, U8, Net, as_lite, close, example, expected, graphs, int8, is_exact, pads, same

from edge.converters import tflite_file
from edge.converters.tflite import explain_size, is_edge_tflite, write_tflite
from edge.errors import MissingPackage, ModelError
from edge.graph import Graph, constant_type
from edge.kernels.bitpack import signs
from edge.ops import NO_ACTIVATION, OPS
from edge.tensors import NARROW, TensorType
from edge.tflite_check import MARK

GRAPHS = dict(graphs())
pytest.importorskip("flatbuffers", reason="flatbuffers is not installed, no .tflite can be written")
litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed, no .tflite can be run")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

DELEGATES = {"xnnpack": litert.OpResolverType.AUTO, "plain": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def run_file(data: bytes, delegate: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name, through the file's signature; inputs as the file's tensors hold them."""
    interpreter = litert.Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=DELEGATES[delegate])
    interpreter.allocate_tensors()
    return dict(interpreter.get_signature_runner("serving_default")(**inputs))


def compare(graph: Graph, delegate: str, inputs: dict[str, np.ndarray], *, exact: bool, input_float: bool = True) -> None:
    data = write_tflite(graph, input_float=input_float)
    given = {name: as_lite(value, graph.types[name], input_float=input_float) for name, value in inputs.items()}
    got, wanted = run_file(data, delegate, given), expected(graph, inputs)
    assert set(got) == set(wanted)
    for name in wanted:
        assert close(got[name], wanted[name], exact=exact), f"{name}: {got[name]}, expected {wanted[name]}"


def parsed(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))


@pytest.mark.parametrize("delegate", DELEGATES)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_operation_is_what_the_reference_computes(name: str, delegate: str) -> None:
    graph = GRAPHS[name]
    rng = np.random.default_rng(11)
    for _ in range(3):
        inputs = {tensor: example(graph.types[tensor], rng) for tensor in graph.inputs}
        compare(graph, delegate, inputs, exact=is_exact(graph))


@pytest.mark.parametrize("name", ["bytes_signs", "bytes_float", "bytes_float_scaled", "bytes_int8", "bytes_net", "bytes_affine"])
def test_an_input_of_bytes(name: str) -> None:
    graph = GRAPHS[name]
    inputs = {tensor: example(graph.types[tensor], np.random.default_rng(12)) for tensor in graph.inputs}
    compare(graph, "xnnpack", inputs, exact=is_exact(graph), input_float=False)


def test_the_cases_cover_every_signature() -> None:
    """(operation, encodings of input, filter and output): a new one needs a case. Fused epilogues are of the engine alone."""
    seen = set()
    for graph in GRAPHS.values():
        for node in graph.nodes:
            stored = constant_type(node.constants["filter"]).encoding if "filter" in node.constants else None
            seen.add((node.op, graph.types[node.inputs[0]].encoding, stored, graph.types[node.output].encoding))
    wanted = {(name, *signature) for name, op in OPS.items() if name != "residual_conv2d" for signature in op.signatures}
    assert {each for each in wanted if each[2] not in NARROW} - seen == set()  # graphs hold those as int8, and so do .tflite files


# -- exactness of signs --------------------------------------------------------------------------------------------------------


@st.composite
def packed_convolutions(draw: st.DrawFn) -> Net:
    """bits -> bits of any window, padding, stride, dilation, groups and border."""
    net = Net(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    groups = draw(st.sampled_from([1, 1, 2]))
    depth, taps = draw(st.sampled_from([1, 5, 8, 17, 64])), (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    stride = (1, 1) if max(dilation) > 1 else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    windows = [(t - 1) * d + 1 for t, d in zip(taps, dilation, strict=True)]
    sides = [draw(st.integers(0, 3)) for _ in range(4)]
    least = [max(1, w - sum(sides[2 * i : 2 * i + 2])) for i, w in enumerate(windows)]
    height, width = (draw(st.integers(size, size + 6)) for size in least)
    attrs = {"stride_h": stride[0], "stride_w": stride[1], "dilation_h": dilation[0], "dilation_w": dilation[1]}
    ones = draw(st.integers(0, 1))
    return net.input((height, width, depth * groups), BITS).conv(
        groups * draw(st.integers(3, 9)), taps, BITS, BITS, groups=groups, pad_ones=ones, **attrs, **pads(*sides)
    )


@settings(max_examples=60, deadline=None)
@given(net=packed_convolutions(), delegate=st.sampled_from(sorted(DELEGATES)))
def test_packed_convolutions_are_exact(net: Net, delegate: str) -> None:
    graph = net.graph()
    compare(graph, delegate, {"input0": example(graph.types["input0"], net.rng)}, exact=True)


@pytest.mark.parametrize("delegate", DELEGATES)
@pytest.mark.parametrize(("source", "stored"), [(BITS, BITS), (U8, I8), (I8, I8)])
def test_a_sum_equal_to_the_threshold_is_plus_one(source: Any, stored: Any, delegate: str) -> None:
    quantization = {"scale": 0.37, "zero": 9} if source is I8 else {}
    net = Net(np.random.default_rng(5)).input((4, 4, 32), source, **quantization).dense(64, BITS, stored)
    graph = net.graph()
    value = example(graph.types["input0"], net.rng)
    numbers = signs(value).astype(np.int64) if source is BITS else value.astype(np.int64) - graph.types["input0"].zero_point
    node = graph.nodes[0]
    filters = signs(node.constants["filter"]) if stored is BITS else node.constants["filter"]
    sums = filters.reshape(64, -1).astype(np.int64) @ numbers.ravel()
    for above, sign in ((0, 1), (1, -1)):
        thresholds = (sums + above).astype(np.int32)
        moved = replace(graph, nodes=(replace(node, constants={**node.constants, "threshold": thresholds}),))
        got = run_file(write_tflite(moved), delegate, {"input0": as_lite(value, graph.types["input0"])})
        assert np.all(got["out0"] == sign)


@pytest.mark.parametrize("delegate", DELEGATES)
@pytest.mark.parametrize("sign", [False, True])
def test_the_largest_sums_do_not_wrap(sign: bool, delegate: str) -> None:
    """20,000 equal products, far outside int8 and int16."""
    net = Net(np.random.default_rng(5)).input((20_000,), BITS).dense(2, BITS, BITS)
    node = net.nodes[0]
    constants = {"filter": np.zeros_like(node.constants["filter"]), "threshold": np.array([20_000, 1 - 20_000], np.int32)}
    net.nodes[0] = replace(node, constants=constants)
    compare(net.graph(), delegate, {"input0": np.full(20_000, sign)}, exact=True)


@pytest.mark.parametrize("delegate", DELEGATES)
def test_small_and_large_values_binarize(delegate: str) -> None:
    normal = [0.0, -0.0, 1e-37, -1e-37, 3.4e38, -3.4e38, np.inf, -np.inf, 1.0, -1.0, 2.0**-126, -(2.0**-126)]
    subnormal = [1e-45, -1e-45, 1e-39, -1e-39] if delegate == "plain" else []  # XNNPACK takes them for 0
    values = np.array(normal + subnormal, np.float32)
    graph = Net(np.random.default_rng(0)).input(values.shape).signs(affine=False).graph()
    compare(graph, delegate, {"input0": values}, exact=True)


@pytest.mark.parametrize("delegate", DELEGATES)
@pytest.mark.parametrize("sign", [-127, 127])
def test_thresholds_at_the_ends_of_the_accumulator(sign: int, delegate: str) -> None:
    """Sums of over 2^30, and thresholds that differ from them by as much: in 32 bits."""
    taps = 33_700
    thresholds = np.array([2**31 - 1, 255 * 127 * taps, 0, -255 * 127 * taps, -(2**31)], np.int32)
    net = Net(np.random.default_rng(0)).input((taps,), U8)
    net.op("dense", BITS, filter=np.full((5, 1, 1, taps), sign, np.int8), threshold=thresholds, **NO_ACTIVATION)
    for value in (0, 255):
        compare(net.graph(), delegate, {"input0": np.full(taps, value, np.uint8)}, exact=True)


def test_more_signs_than_32_bits_hold_are_refused() -> None:
    taps = 1 << 28
    net = Net(np.random.default_rng(0)).input((taps,), BITS)
    net.op("dense", BITS, filter=np.broadcast_to(False, (1, 1, 1, taps)), threshold=np.zeros(1, np.int32), **NO_ACTIVATION)
    with pytest.raises(ModelError, match="'layer0' sums 268435456 signs"):
        write_tflite(net.graph())


def test_a_file_of_2_gib_is_refused() -> None:
    net = Net(np.random.default_rng(0)).input((8,)).dense(8, F32, F32)
    node = net.nodes[0]
    wide = np.broadcast_to(np.float32(1), (1 << 26, 1, 1, 8))
    graph = net.graph()
    large = replace(graph, nodes=(replace(node, constants={"filter": wide}),), types={**graph.types, "t0": TensorType((1 << 26,))})
    with pytest.raises(ModelError, match="2 GiB"):
        write_tflite(large)


# -- the file ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes_net", "two_heads", "int8_dense"])
def test_the_same_graph_gives_the_same_bytes(name: str) -> None:
    assert write_tflite(GRAPHS[name]) == write_tflite(dict(graphs())[name])


def test_the_mark_tells_whose_file_it_is(tmp_path: Path) -> None:
    graph = GRAPHS["float_dense"]
    ours = write_tflite(graph, description="digits")
    assert parsed(ours).description == f"{MARK}: digits".encode()
    path = tmp_path / "model.tflite"
    path.write_bytes(ours)
    assert is_edge_tflite(ours) and is_edge_tflite(path) and is_edge_tflite(write_tflite(graph))
    foreign = ours.replace(MARK.encode(), b"x" * len(MARK))
    assert not any(is_edge_tflite(data) for data in (foreign, b"", b"TFL3", ours[:40], b"\x00" * 64))


def test_buffers_are_aligned_for_use_in_place() -> None:
    data = write_tflite(GRAPHS["bytes_net"])
    model = schema.Model.GetRootAsModel(data, 0)
    starts = [model.Buffers(i)._tab.Vector(4) for i in range(1, model.BuffersLength())]  # field 0 of Buffer is at vtable byte 4
    assert len(starts) > 5 and all(start % tflite_file.ALIGNMENT == 0 for start in starts)


def test_public_names_and_shapes() -> None:
    model = parsed(write_tflite(GRAPHS["two_heads"]))
    graph = model.subgraphs[0]
    assert [graph.tensors[i].name for i in graph.inputs] == [b"input0"]
    assert [graph.tensors[i].name for i in graph.outputs] == [b"out0", b"out1"]
    assert list(graph.tensors[graph.inputs[0]].shape) == [1, 6, 6, 8]
    assert [(entry.name, entry.tensorIndex) for entry in model.signatureDefs[0].outputs] == [
        (b"out0", graph.outputs[0]),
        (b"out1", graph.outputs[1]),
    ]


def test_one_tensor_may_be_two_outputs_and_an_input_an_output() -> None:
    net = Net(np.random.default_rng(0)).input((3, 4)).op("affine", **NO_ACTIVATION).op("activation", **RELU)
    graph = net.graph("t0", "t1", "t1")
    value = example(graph.types["input0"], net.rng)
    got = run_file(write_tflite(graph), "xnnpack", {"input0": value[np.newaxis]})
    wanted = np.maximum(value, 0)[np.newaxis]
    assert np.array_equal(got["out0"], value[np.newaxis])
    assert np.array_equal(got["out1"], wanted) and np.array_equal(got["out2"], wanted)


# What tflite-runtime 2.14 knows; it refuses a newer version of an operator.
# The versions that tflite-runtime 2.14 and older have; those of the resizing operations are of 2020, with half-pixel centres.
_OLDEST = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "DEQUANTIZE": 3, "QUANTIZE": 2, "RESIZE_NEAREST_NEIGHBOR": 3,
    "RESIZE_BILINEAR": 3,
}  # fmt: skip


def test_operators_are_old_enough_for_old_runtimes() -> None:
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    for graph in GRAPHS.values():
        for code in parsed(write_tflite(graph)).operatorCodes:
            assert code.version <= _OLDEST.get(names[code.builtinCode], 2), names[code.builtinCode]
            assert code.deprecatedBuiltinCode == min(code.builtinCode, 127)  # what runtimes of before 2020 read; 127 says "look there"


def test_a_sign_takes_a_byte_and_the_report_says_so() -> None:
    net = Net(np.random.default_rng(0)).input((8, 8, 64), BITS).conv(128, (3, 3), BITS, BITS, **same(3, 3)).dense(10, F32, BITS)
    graph = net.graph()
    sizes = explain_size(graph)
    count = 3 * 3 * 64 * 128
    stored, reason = sizes["layer0"]
    assert count <= stored <= count + 4 * 128 + 64
    assert "sign in a byte" in reason and str(count // 8) in reason
    assert sum(size for size, _ in sizes.values()) <= len(write_tflite(graph)) <= sum(size for size, _ in sizes.values()) + 4000
    assert explain_size(GRAPHS["float_relu"])["layer0"] == (0, "")


def test_weights_stay_small() -> None:
    """int8 and packed filters with float activations are stored in a byte, a quarter of float32."""
    for stored in (I8, BITS):
        net = Net(np.random.default_rng(0)).input((8, 8, 64)).conv(64, (3, 3), F32, stored, **same(3, 3))
        assert len(write_tflite(net.graph())) < 3 * 3 * 64 * 64 + 4000


def test_int8_layers_are_integer_all_the_way() -> None:
    net = Net(np.random.default_rng(0)).input((8, 8, 3), U8).conv(16, (3, 3), int8(), I8, **same(3, 3), **RELU)
    net.depthwise(16, (3, 3), int8(), I8, **same(3, 3)).dense(10, int8(), I8)
    model = parsed(write_tflite(net.graph(), input_float=False))
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    used = {names[model.operatorCodes[op.opcodeIndex].builtinCode] for op in model.subgraphs[0].operators}
    assert used == {"QUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE"}


# -- packages ------------------------------------------------------------------------------------------------------------------


def test_without_a_schema_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_file, "_SCHEMAS", ("no_such_module_a", "no_such_module_b"))
    with pytest.raises(MissingPackage, match=r"pip install 'edge-lowbit\[convert\]'"):
        write_tflite(GRAPHS["float_relu"])


def test_tensorflow_is_neither_needed_nor_imported(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['numba'] = None\n"
        "from tflite_cases import write_cases; from pathlib import Path\n"
        "import tflite_cases; tflite_cases.CASES = {'one': tflite_cases.CASES['bytes_net']}\n"
        f"assert write_cases(Path({str(tmp_path)!r})) >= 1\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)
    assert is_edge_tflite(tmp_path / "one.tflite")
