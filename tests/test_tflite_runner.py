"""Running .tflite files: batches, quantized tensors, damaged files, missing interpreters."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tflite_cases import F32, I8, RELU, U8, Net, example, graphs, int8, same

from edge import tflite_runner
from edge.converters.tflite import write_tflite
from edge.errors import EdgeError, FormatError, InputError, MissingPackage
from edge.graph import Graph
from edge.kernels.arithmetic import dequantize
from edge.kernels.reference import run_graph
from edge.tflite_check import check_tflite, description_of
from edge.tflite_runner import TfliteModel, load_tflite

pytest.importorskip("flatbuffers", reason="flatbuffers is not installed, no .tflite can be written")
pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed, no .tflite can be run")

GRAPHS = dict(graphs())
SHARED = Path(__file__).parents[2] / "shared" / "models" / "mlperf_tiny"


def loaded(folder: Path, graph: Graph, *, input_float: bool = True) -> TfliteModel:
    path = folder / "model.tflite"
    path.write_bytes(write_tflite(graph, input_float=input_float))
    return load_tflite(path)


def reference(graph: Graph, value: np.ndarray) -> list[np.ndarray]:
    values = run_graph(graph, {graph.inputs[0]: value})
    return [dequantize(values[name], graph.types[name]) for name in graph.outputs]


def test_a_batch_and_one_example(tmp_path: Path) -> None:
    graph = GRAPHS["bytes_net"]
    model = loaded(tmp_path, graph)
    assert (model.inputs[0].name, model.inputs[0].shape, model.inputs[0].dtype) == ("input0", (12, 12, 1), "float32")
    assert (model.outputs[0].name, model.outputs[0].shape, model.outputs[0].dtype) == ("out0", (10,), "float32")
    assert model.backend.startswith("ai-edge-litert ") and model.notes == ""
    rng = np.random.default_rng(3)
    batch = np.stack([example(graph.types["input0"], rng) for _ in range(3)])
    wanted = np.stack([reference(graph, picture)[0] for picture in batch])
    got = model.run(batch)
    assert got.shape == (3, 10) and got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_array_equal(model.run(batch[1]), got[1])
    assert model.run(batch[:0]).shape == (0, 10)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_bytes_in(tmp_path: Path, dtype: type) -> None:
    graph = GRAPHS["bytes_float"]
    model = loaded(tmp_path, graph, input_float=False)
    picture = example(graph.types["input0"], np.random.default_rng(3))
    assert model.inputs[0].dtype == "uint8"
    np.testing.assert_allclose(model.run(picture.astype(dtype)), reference(graph, picture)[0], rtol=1e-5, atol=1e-5)


def test_int8_in_and_out_are_real_values(tmp_path: Path) -> None:
    graph = GRAPHS["int8_pad"]
    model = loaded(tmp_path, graph)
    stored = example(graph.types["input0"], np.random.default_rng(3))
    wanted = reference(graph, stored)[0]
    assert model.inputs[0].dtype == model.outputs[0].dtype == "int8"
    np.testing.assert_allclose(model.run(dequantize(stored, graph.types["input0"])), wanted, atol=1e-6)
    np.testing.assert_allclose(model.run(stored), wanted, atol=1e-6)
    far = model.run(np.full(stored.shape, 1e9, np.float32))
    assert far.max() == pytest.approx(0.03 * (127 + 5))
    assert np.isfinite(model.run(np.full(stored.shape, np.nan, np.float32))).all()


def test_notes_come_back(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(GRAPHS["float_conv"], description='{"labels": ["Käse", "b"]}'))
    assert load_tflite(path).notes == '{"labels": ["Käse", "b"]}'


def test_several_outputs_are_a_list(tmp_path: Path) -> None:
    graph = GRAPHS["two_heads"]
    value = example(graph.types["input0"], np.random.default_rng(3))
    model = loaded(tmp_path, graph)
    assert [info.name for info in model.outputs] == ["out0", "out1"]
    for got, wanted in zip(model.run(value), reference(graph, value), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_two_threads_share_a_model(tmp_path: Path) -> None:
    graph = GRAPHS["float_conv"]
    model, rng = loaded(tmp_path, graph), np.random.default_rng(3)
    batches = [np.stack([example(graph.types["input0"], rng) for _ in range(40)]) for _ in range(2)]
    wanted = [model.run(batch) for batch in batches]
    got: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: got.update({i: model.run(batches[i])})) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(got[i], wanted[i]) for i in range(2))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), r"expected numbers of shape \(N, 9 x 7 x 3\)"),
        (np.zeros((9, 7, 3), "U1"), "received <U1"),
        (np.zeros((9, 7, 3), complex), "received complex"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loaded(tmp_path, GRAPHS["float_conv"]).run(x)


def test_several_inputs(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    a, b = (random.normal(size=(3, 4, 5, 6)).astype(np.float32) for _ in range(2))
    model = loaded(tmp_path, GRAPHS["add_float"])
    names = [info.name for info in model.inputs]
    for given in ((a, b), ([a, b],), (dict(zip(names, (a, b), strict=True)),)):
        np.testing.assert_array_equal(model.run(*given), np.maximum(a + b, 0))
    np.testing.assert_array_equal(model.run(a, b[0]), np.maximum(a + b[0], 0))
    model.placed(a[0], b[0])()
    with pytest.raises(InputError, match=r"expected .* received 1 of them"):
        model.run(a)


def test_no_file_and_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"nothing\.tflite"):
        load_tflite(tmp_path / "nothing.tflite")
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(GRAPHS["float_conv"]))
    monkeypatch.setattr(tflite_runner, "_BACKENDS", {"none": ("no_such_module", ("no-such-distribution",))})
    with pytest.raises(MissingPackage, match=r"pip install 'edge-lowbit\[litert\]'"):
        load_tflite(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the MLPerf Tiny models are not beside the repository")
def test_files_of_other_converters() -> None:
    model = load_tflite(SHARED / "pretrainedResnet_quant.tflite")
    assert (model.inputs[0].shape, model.inputs[0].dtype) == ((32, 32, 3), "int8")
    found = model.run(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32))
    assert found.shape == (2, 10) and np.allclose(found.sum(1), 1, atol=0.05)
    assert model.notes is None
    assert load_tflite(SHARED / "kws_ref_model_float32.tflite").outputs[0].shape == (12,)


# -- damaged files -------------------------------------------------------------------------------------------------------------


def small() -> bytes:
    net = Net(np.random.default_rng(0)).input((6, 6, 3), U8).conv(4, (3, 3), int8(), I8, **same(3, 3), **RELU)
    return write_tflite(net.dense(5, F32, I8).op("softmax").graph())


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x1c\x00\x00\x00TFL3", b"PK\x03\x04" + bytes(60), b"\x1c\x00\x00\x00TFL3" + bytes(40)])
def test_what_is_no_tflite_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"model\.tflite"):
        load_tflite(path)


def test_every_cut_is_refused() -> None:
    data = small()
    check_tflite(data)
    for length in [*range(64), *range(64, len(data) - 4, 37)]:
        with pytest.raises(FormatError):
            check_tflite(data[:length])


@pytest.mark.parametrize("word", [1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_every_word_may_be_anything(word: int) -> None:
    """The check ends with FormatError or finds nothing, whatever a word of the file says."""
    data = small()
    refused = 0
    for place in range(0, len(data) - 3, 4):
        try:
            check_tflite(data[:place] + word.to_bytes(4, "little") + data[place + 4 :])
        except FormatError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("scales", "zeros", "message"),
    [([np.inf], [0], "a scale"), ([np.nan], [0], "a scale"), ([-1.0], [0], "a scale"), ([1.0], [200], "zero point"), ([], [0], "0 scales"),
     ([1.0, 1.0], [0, 0], "along axis"), ([1.0], [0, 0], "2 zero points")],
)  # fmt: skip
def test_quantization_that_ends_interpreters_is_refused(scales: list[float], zeros: list[int], message: str) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(small(), 0))
    tensor = next(t for t in model.subgraphs[0].tensors if t.quantization is not None)
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.array(scales, np.float32), np.array(zeros, np.int64)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(FormatError, match=message):
        check_tflite(bytes(builder.Output()))


def test_tables_that_point_at_one_another_do_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.tflite_check.MAX_TABLES", 20)
    from edge import tflite_check

    limited = tflite_check._File(small(), tables_left=20)
    with pytest.raises(FormatError, match="more than 20 tables"):
        limited.root().check_below()


_MUTATE = """
import sys
from pathlib import Path
import numpy as np
from edge.errors import EdgeError
from edge.tflite_runner import load_tflite

folder, rng, outcome = Path(sys.argv[1]), np.random.default_rng(20), {True: 0, False: 0}
original = (folder / "model.tflite").read_bytes()
for _ in range(400):
    data = bytearray(original)
    for place in rng.integers(8, len(data) - 4, rng.integers(1, 4)):
        value = int(rng.choice([0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1, rng.integers(0, 2**32)]))
        width = int(rng.choice([1, 4]))
        data[place : place + width] = value.to_bytes(8, "little")[:width]
    (folder / "mutated.tflite").write_bytes(data)
    try:
        model = load_tflite(folder / "mutated.tflite")
        model.run(np.zeros((1, *model.inputs[0].shape), np.float32))
        outcome[True] += 1
    except EdgeError:
        outcome[False] += 1
print(outcome[True], outcome[False])
"""


def test_mutated_files_are_refused_or_run(tmp_path: Path) -> None:
    """In a process of its own, which an interpreter that trusts a bad offset would end."""
    (tmp_path / "model.tflite").write_bytes(small())
    done = subprocess.run([sys.executable, "-c", _MUTATE, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    ran, refused = map(int, done.stdout.split())
    assert ran + refused == 400 and ran > 10 and refused > 100


def test_the_description_of_a_damaged_file_is_an_error() -> None:
    with pytest.raises(EdgeError):
        description_of(small()[:50])
