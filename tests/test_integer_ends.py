"""Networks with int8 inputs and outputs: which quantization these have, that both files give the same, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bit_networks import FLATTEN, RELU, assert_engine_equals_reference, by_reference, examples, network, rng, simple
from click.testing import CliRunner
from keras_models import conv, dense
from tflite_cases import Net

import edge
from edge.cli import cli
from edge.converters import calibration
from edge.converters.bits import Request, choose_bits, measured
from edge.converters.calibration import measure
from edge.converters.integer_ends import with_int8_inputs, with_int8_outputs
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.engine import Engine
from edge.errors import InputError
from edge.graph import Array, Graph
from edge.kernels.arithmetic import dequantize, quantize
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.ops import NO_ACTIVATION, Activation
from edge.tensors import Encoding, TensorInfo
from edge.tflite_listing import list_tflite
from edge.tflite_runner import load_tflite

FLOAT = Path(__file__).parent / "fixtures" / "keras2_functional.h5"
DIGITS = Path(__file__).parents[1] / "examples" / "digits.h5"
ENDS = {"input_dtype": "int8", "output_dtype": "int8"}
I8, U8, F32 = Encoding.INT8, Encoding.UINT8, Encoding.FLOAT32


def with_ends(graph: Graph, pictures: list[Array], bits: int = 8, activation_bits: int = 8, *, ends: bool = True) -> Graph:
    """`graph` at these bits, with or without int8 ends, as the engine runs it."""
    request = Request(bits, activation_bits, **(ENDS if ends else {}))
    statistics = measure(measured(graph, request), pictures)
    return run_passes(choose_bits(graph, replace(request, statistics=statistics)), ENGINE_PASSES)


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "activations", by_reference)


def ends_of(graph: Graph) -> list[Encoding]:
    return [graph.types[name].encoding for name in (*graph.inputs, *graph.outputs)]


def answers(graph: Graph, pictures: list[Array]) -> Array:
    """Real values of the output, of real pictures."""
    (source,), (output,) = graph.inputs, graph.outputs
    kind = graph.types[source]
    given = [quantize(x.astype(np.float32), kind) if kind.encoding is I8 else x for x in pictures]
    return np.array([dequantize(run_graph(graph, {source: x})[output], graph.types[output]) for x in given])


# -- networks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("bits", [8, 4, 1])
def test_only_the_rounding_of_the_output_is_new(bits: int, softmax: bool, dtype: str) -> None:
    graph, pictures = simple(*network(softmax=softmax), dtype=dtype), examples(dtype=dtype)
    plain, ends = (with_ends(graph, pictures, bits, ends=each) for each in (False, True))
    assert ends_of(ends) == [I8, I8] and ends_of(plain)[1] is F32
    step = ends.types[ends.outputs[0]].scale
    # Ranges are those of float activations, which int8 ones may leave a little; softmax reads logits that are int8 too.
    np.testing.assert_allclose(answers(ends, pictures), answers(plain, pictures), rtol=0, atol=3 * step)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_engine_gives_what_the_reference_does(softmax: bool) -> None:
    graph, pictures = simple(*network(softmax=softmax), dtype="uint8"), examples(dtype="uint8")
    after = with_ends(graph, pictures)
    assert_engine_equals_reference(after, [(x.astype(np.int16) - 128).astype(np.int8) for x in pictures])


def test_bytes_become_int8_for_all_their_readers_and_the_rest_reads_what_they_stand_for() -> None:
    layers = (conv(rng(1), (3, 3), 3, 8, name="first"), RELU, FLATTEN, dense(rng(3), 288, 2, name="last"))
    graph, pictures = simple(("Rescaling", {"scale": 1 / 255}, {}), *layers, dtype="uint8"), examples(dtype="uint8")
    for bits in (8, 32):
        after = with_ends(graph, pictures, bits, 8 if bits == 8 else 32)
        kind = after.types[after.inputs[0]]
        assert (kind.encoding, kind.scale, kind.zero_point) == (I8, 1.0, -128)
        assert U8 not in {each.encoding for each in after.types.values()}
        assert ("dequantize" in {node.op for node in after.nodes}) == (bits == 32)
        plain = with_ends(graph, pictures, bits, 8 if bits == 8 else 32, ends=False)
        step = after.types[after.outputs[0]].scale
        np.testing.assert_allclose(answers(after, pictures), answers(plain, pictures), rtol=0, atol=3 * step)


@pytest.mark.parametrize(("function", "quantization"), [("sigmoid", (1 / 256, -128)), ("tanh", (1 / 128, 0)), ("softmax", (1 / 256, -128))])
def test_values_with_bounds_have_the_steps_of_all_runtimes(function: str, quantization: tuple[float, int]) -> None:
    graph = simple(*network(softmax=False)[:-1], dense(rng(6), 30, 4, name="last", activation=function))
    for activation_bits in (8, 32):
        after = with_ends(graph, examples(), 8, activation_bits)
        kind = after.types[after.outputs[0]]
        assert (kind.encoding, kind.scale, kind.zero_point) == (I8, *quantization)


def test_a_float_network_takes_and_gives_int8_by_its_ranges() -> None:
    graph, pictures = simple(*network(softmax=False)), examples(count=20)
    after = with_ends(graph, pictures, 32, 32)
    assert ends_of(after) == [I8, I8] and {node.op for node in after.nodes} >= {"dequantize", "quantize"}
    before = answers(graph, pictures)
    assert np.abs(answers(after, pictures) - before).max() < 0.05 * np.abs(before).max()


@pytest.mark.parametrize("bits", [8, 4, 1])
def test_a_layer_of_floats_reads_what_an_int8_input_stands_for(bits: int) -> None:
    graph, pictures = simple(*network(softmax=False)), examples(count=20)
    after, plain = (with_ends(graph, pictures, bits, 32, ends=each) for each in (True, False))
    before = answers(plain, pictures)
    assert np.abs(answers(after, pictures) - before).max() < 0.05 * np.abs(before).max()


def test_shapes_behind_softmax_keep_its_steps() -> None:
    graph = Net(rng(0)).input((4,)).op("softmax").op("reshape", rank=2, size_0=2, size_1=2, size_2=0).graph()
    after = with_int8_outputs(graph, {})
    kind = after.types[after.outputs[0]]
    assert (kind.scale, kind.zero_point, kind.shape) == (1 / 256, -128, (2, 2))


def test_an_option_that_changes_no_input_is_refused() -> None:
    net = Net(rng(0)).input((5,)).input((5,))
    with pytest.raises(InputError, match="none of the inputs input0, input1 is a picture"):
        with_int8_inputs(net.op("multiply", inputs=("input0", "input1")).graph(), {})


def test_of_several_inputs_pictures_become_int8() -> None:
    net = Net(rng(0)).input((4, 4, 3), U8).input((3,))
    net.op("affine", F32, inputs=("input0",), mul=np.full(3, 0.1, np.float32), **NO_ACTIVATION)
    graph = with_int8_inputs(net.op("multiply", inputs=(net.last, "input1")).graph(), {}).verify()
    assert [graph.types[name].encoding for name in graph.inputs] == [I8, F32]
    assert [node.op for node in graph.nodes] == ["dequantize", "affine", "multiply"]


@pytest.mark.parametrize("op", ["max_pool2d", "transpose", "pad2d"])
def test_what_moves_bytes_moves_int8(op: str) -> None:
    net = Net(rng(0)).input((4, 4, 3), U8)
    moved = {
        "max_pool2d": lambda: net.pool("max_pool2d", (2, 2), (2, 2)),
        "transpose": lambda: net.op("transpose", axis_0=1, axis_1=0, axis_2=2),
        "pad2d": lambda: net.op("pad2d", pad_top=1, pad_bottom=0, pad_left=2, pad_right=0, value=0.0),
    }[op]()
    graph = moved.op("dequantize", F32).op("activation", **NO_ACTIVATION | {"activation": int(Activation.TANH)}).graph()
    after = with_int8_inputs(graph, {}).verify()
    picture = rng(1).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(answers(after, [picture]), answers(graph, [picture]))


def test_numbers_of_rows_stay_what_they_are() -> None:
    graph = Net(rng(0)).input((1,)).op("embedding", table=np.eye(3, dtype=np.float32)).graph()
    with pytest.raises(InputError, match="numbers the rows of a table"):
        with_int8_inputs(graph, {})


# -- files ---------------------------------------------------------------------------------------------------------------------


def pictures(count: int = 20, shape: tuple[int, ...] = (8, 8, 3)) -> Array:
    return rng(0).normal(size=(count, *shape)).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 1])
def test_both_files_take_and_give_the_same_int8(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    report = edge.convert(FLOAT, tmp_path, bits=bits, calibrate=pictures(), **ENDS)
    assert (report.input_dtype, report.output_dtype) == ("int8", "int8")
    engine, lite = edge.load(tmp_path / f"{FLOAT.stem}.edge"), load_tflite(tmp_path / f"{FLOAT.stem}.tflite", tensorflow=False)
    assert engine.inputs == lite.inputs and engine.outputs == lite.outputs
    listing = list_tflite((tmp_path / f"{FLOAT.stem}.tflite").read_bytes())
    assert {listing.inputs[0].dtype, listing.outputs[0].dtype, *(each.output.dtype for each in listing.operators)} == {"int8"}
    for info, got, wanted in zip(engine.outputs, engine.run(pictures()), lite.run(pictures()), strict=True):
        assert np.abs(got - wanted).max() <= 3 * info.scale


def test_int8_arrays_are_what_is_stored_and_others_are_real_values(tmp_path: Path) -> None:
    edge.convert(DIGITS, tmp_path, bits=1, formats="edge", **ENDS)
    engine = edge.load(tmp_path / "digits.edge")
    assert engine.inputs == (TensorInfo(engine.inputs[0].name, (28, 28, 1), "int8", 1.0, -128),)
    digits = rng(1).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    stored = (digits.astype(np.int16) - 128).astype(np.int8)
    expected = engine.run(stored)
    for given in (digits, digits.astype(np.float32), digits.astype(np.float64)):
        np.testing.assert_array_equal(engine.run(given), expected)
    info, got = engine.outputs[0], engine.run(digits, stored=True)
    assert got.dtype == np.int8 and expected.dtype == np.float32
    np.testing.assert_array_equal((got.astype(np.float32) - info.zero_point) * np.float32(info.scale), expected)
    assert engine.run(digits[0], stored=True).shape == info.shape


def test_an_input_that_was_asked_for_is_that_of_both_files(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    found = {}
    for dtype in ("auto", "float32", "uint8", "int8"):
        edge.convert(DIGITS, tmp_path, bits=1, input_dtype=dtype, force=True)
        listing = list_tflite((tmp_path / "digits.tflite").read_bytes())
        found[dtype] = (edge.load(tmp_path / "digits.edge").inputs[0].dtype, listing.inputs[0].dtype)
    assert found == {"auto": ("uint8", "float32"), **{dtype: (dtype, dtype) for dtype in ("float32", "uint8", "int8")}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dtype": "int8", "preprocess": "unit"}, "the input .* as int8 needs a range, .* give --calibrate"),
        ({"output_dtype": "int8", "bits": 8}, "the output .* as int8 needs a range, .* give --calibrate"),
    ],
)
def test_a_range_that_nobody_measured_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    source = FLOAT if "bits" in options else DIGITS
    with pytest.raises(InputError, match=message):
        edge.convert(source, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_repeats_the_ends(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pictures())
    dtypes = ["--input-dtype", "int8", "--output-dtype", "int8", "--save-recipe", str(tmp_path / "r.toml")]
    run = CliRunner().invoke
    eight = ["--bits", "8", "--calibrate", str(tmp_path / "x.npy"), *dtypes]
    first = run(cli, ["convert", str(FLOAT), "-o", str(tmp_path / "a.edge"), *eight])
    assert first.exit_code == 0, first.output
    again = run(cli, ["convert", str(FLOAT), "--recipe", str(tmp_path / "r.toml"), "-o", str(tmp_path / "b.edge")])
    assert again.exit_code == 0, again.output
    for suffix in (".edge", ".tflite"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    shown = run(cli, ["inspect", str(tmp_path / "a.edge")]).output
    assert shown.count("int8 (scale ") == 3  # one input, two outputs


def test_a_picture_is_classified_through_int8(tmp_path: Path) -> None:
    edge.convert(DIGITS, tmp_path, bits=1, formats="edge", **ENDS)
    image, models = DIGITS.with_name("image.png"), ("digits", str(tmp_path / "digits.edge"))
    plain, whole = (CliRunner().invoke(cli, ["run", str(image), "-m", model, "--json"]) for model in models)
    assert plain.exit_code == whole.exit_code == 0, whole.output
    assert plain.output.split('"label"')[1][:20] == whole.output.split('"label"')[1][:20]


def test_an_engine_of_int8_refuses_what_is_no_number(tmp_path: Path) -> None:
    edge.convert(DIGITS, tmp_path, bits=1, formats="edge", **ENDS)
    engine = edge.load(tmp_path / "digits.edge")
    with pytest.raises(InputError, match="expected float32, uint8 or int8 values"):
        engine.run(np.full((28, 28, 1), "a"))
    with pytest.raises(InputError, match="expected numbers, which become int8, received NaN"):
        engine.run(np.full((28, 28, 1), np.nan))
    for odd in (np.inf, 1e300):
        assert np.isfinite(engine.run(np.full((28, 28, 1), odd))).all()
    assert Engine(to_program(simple(*network()))).run(examples()[0], stored=True).dtype == np.float32
