"""`edge.compare` and `edge verify`: what is equal, what is found where it differs, and how much a tie excuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from digits_files import DIGITS, EXAMPLES
from digits_files import digits as digits  # fixtures
from digits_files import keras as keras
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import COLOURS, binary_colour_layers, colour_layers, dense, write_h5
from run_models import invoke
from sample_programs import GRAPHS, inputs_of, program

import edge
from edge import oracle
from edge.compare import Comparison, compare, compare_all
from edge.compare_layers import EIGHT_BITS, EXACT, ONE_BIT, TIE_ULP, Tally, pieces, tensor_names, tolerance
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.engine import Engine
from edge.errors import InputError, MissingPackage, ModelError
from edge.format import read, write
from edge.graph import Graph, Node
from edge.kernels.arithmetic import dequantize
from edge.oracle import Oracle, find_oracle, sign_sources
from edge.program import Program
from edge.tensors import Encoding, TensorType

FIXTURES = Path(__file__).parent / "fixtures"
LARQ = ("larq_sequential", "larq_residual")


def reference(source: Path, converted: Path, **options: Any) -> Comparison:
    return compare(source, converted, keras=False, **{"count": 4, **options})


# -- single instructions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_an_instruction_alone_gives_what_it_gives_in_a_run(name: str) -> None:
    engine = Engine(program(name))
    tensors = engine.program.tensors
    values = dict(zip(engine.program.inputs, inputs_of(engine.program), strict=True))
    steps = engine.trace(next(iter(values.values())))
    real = {i: dequantize(value, tensors[i].type) for i, value in values.items()}
    for made, step in zip(engine.program.instructions, steps, strict=True):
        given = (step.output,) if step.signs is None else (step.output, step.signs)
        real |= dict(zip(made.outputs, given, strict=True))
    for number in reversed(range(len(steps))):
        instruction = engine.program.instructions[number]
        alone = engine.run_instruction(number, [real[i] for i in instruction.inputs])
        assert np.array_equal(alone, real[instruction.output]), (number, instruction.definition.name)


def test_an_instruction_wants_its_own_inputs() -> None:
    engine = Engine(program("digits"))
    with pytest.raises(ValueError):
        engine.run_instruction(1, [])


# -- equal networks ------------------------------------------------------------------------------------------------------------


def test_every_layer_of_the_example_equals_keras(keras: Any, digits: Path) -> None:
    comparison = compare(DIGITS, digits, data=EXAMPLES / "digits")
    assert comparison.oracle.startswith("Keras 3")
    assert comparison.equal and comparison.first_difference is None, comparison.verdict
    assert comparison.examples == 10 and comparison.same_class == 1.0
    assert all(layer.precision == EXACT and layer.flipped_bits == 0 for layer in comparison.layers)
    assert comparison.output_difference < 1e-5
    covered = {name for layer in comparison.layers for name in layer.layers}
    assert covered == {call.name for call in read_keras(DIGITS).calls}


@pytest.mark.parametrize("name", LARQ)
def test_networks_that_larq_saved_equal_keras(keras: Any, tmp_path: Path, name: str) -> None:
    edge.convert(FIXTURES / f"{name}.h5", tmp_path, formats=("edge",))
    comparison = compare(FIXTURES / f"{name}.h5", tmp_path / f"{name}.edge", count=4)
    assert comparison.equal, comparison.verdict
    assert any(layer.encoding == "bits" for layer in comparison.layers)


@pytest.mark.parametrize("input_dtype", ["float32", "uint8"])
def test_the_example_equals_the_reference_interpreter(tmp_path: Path, input_dtype: str) -> None:
    edge.convert(DIGITS, tmp_path, formats=("edge",), input_dtype=input_dtype)
    comparison = reference(DIGITS, tmp_path / "digits.edge")
    assert comparison.equal and comparison.oracle == "the reference interpreter"
    assert max(layer.max_abs_error for layer in comparison.layers) < 1e-5


def test_fused_layers_are_compared_where_their_chain_ends(digits: Path) -> None:
    """A max-pool moved before batch norm leaves a packed tensor that the source has not; it is no tensor of its own."""
    graph = read_graph(read_keras(DIGITS), input_dtype="uint8")
    found = pieces(read(digits), graph)
    assert [piece.layers for piece in found[:2]] == [("rescale", "conv1", "pool1", "norm1"), ("conv2", "pool2", "norm2")]
    assert [len(piece.instructions) for piece in found[:3]] == [2, 2, 1]


def test_nested_and_shared_layers_are_found_in_keras(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    inner_input = layers.Input((6, 6, 4))
    inner = keras.Model(inner_input, layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inner_input), name="inner")
    picture = layers.Input((6, 6, 4), name="picture")
    shared = layers.Conv2D(4, 1, name="shared")
    joined = layers.Add(name="sum")([shared(inner(picture)), shared(picture)])
    model = keras.Model(picture, layers.Dense(3, name="scores")(layers.Flatten()(joined)))
    model.save(tmp_path / "nested.keras")
    edge.convert(tmp_path / "nested.keras", bits=32, formats=("edge",))
    source = read_keras(tmp_path / "nested.keras")
    found = find_oracle(tmp_path / "nested.keras", source, read_graph(source), keras=True)
    assert {call.name for call in source.calls} <= set(found.layers({"picture": np.zeros((1, 6, 6, 4), np.float32)}))
    assert compare(tmp_path / "nested.keras", tmp_path / "nested.edge", count=3).equal


def test_a_tflite_file_is_compared_tensor_by_tensor_from_the_input_on(digits: Path) -> None:
    comparison = reference(DIGITS, digits.with_suffix(".tflite"))
    assert comparison.equal and not comparison.fed_by_source and comparison.output_difference < 1e-5
    assert [layer.layers[-1] for layer in comparison.layers] == ["norm1", "norm2", "flatten", "relu", "logits", "probabilities"]
    assert all(layer.precision == EXACT and layer.flipped_bits == 0 for layer in comparison.layers)


def test_several_files_are_compared_on_the_same_examples(digits: Path) -> None:
    both = compare_all(DIGITS, [digits, digits.with_suffix(".tflite")], keras=False, count=3)
    assert [Path(each.converted).suffix for each in both] == [".edge", ".tflite"]
    assert [each.layers[0].tensor for each in both] == ["conv2/binarize"] * 2
    assert all(each.equal for each in both)
    assert both[0] == reference(DIGITS, digits, count=3)


# -- differences ---------------------------------------------------------------------------------------------------------------


def damaged(converted: Path, role: str, number: int, change: Any) -> Path:
    """The file with one constant changed, as another file."""
    stored = read(converted)
    constant = stored.constants[stored.instructions[number].constant(role)]
    blob = stored.blob.copy()
    blob[constant.offset : constant.offset + constant.nbytes] = change(blob[constant.offset : constant.offset + constant.nbytes])
    path = converted.with_name(f"damaged-{role}-{number}.edge")
    write(replace(stored, blob=blob), path)
    return path


def instruction_of(stored: Program, layer: str) -> int:
    return next(i for i, names in enumerate(stored.layers) if layer in names and stored.instructions[i].definition.constants)


def test_a_changed_weight_is_found_in_its_layer_alone(digits: Path) -> None:
    path = damaged(digits, "filter", instruction_of(read(digits), "conv3"), lambda stored: stored ^ 0x55)
    comparison = reference(DIGITS, path)
    assert not comparison.equal and comparison.first_difference == ("conv3", "norm3")
    assert [layer.layers for layer in comparison.layers if not layer.equal] == [("conv3", "norm3")]
    assert "conv3+norm3 differs" in comparison.verdict and "signs" in comparison.verdict


def test_a_changed_bias_is_found_by_its_error(digits: Path) -> None:
    number = instruction_of(read(digits), "logits")
    path = damaged(digits, "bias", number, lambda stored: (stored.view(np.float32) + np.float32(0.5)).view(np.uint8))
    comparison = reference(DIGITS, path)
    first = next(layer for layer in comparison.layers if not layer.equal)
    assert first.layers == ("logits",) and first.max_abs_error == pytest.approx(0.5, abs=1e-3)


def test_thresholds_moved_by_a_little_are_found(digits: Path) -> None:
    number = instruction_of(read(digits), "conv3")
    path = damaged(digits, "threshold", number, lambda stored: (stored.view(np.int32) + 2).view(np.uint8))
    layer = next(layer for layer in reference(DIGITS, path).layers if layer.layers == ("conv3", "norm3"))
    assert 0 < layer.flipped_bits < layer.values // 20 and not layer.equal


def test_a_changed_first_filter_is_found_though_8_bits_may_differ(digits: Path) -> None:
    path = damaged(digits, "filter", 0, lambda stored: ~stored)
    assert reference(DIGITS, path).first_difference == ("rescale", "conv1", "pool1", "norm1")


def test_a_file_of_another_model_is_refused(tmp_path: Path, digits: Path) -> None:
    source = write_h5(tmp_path / "colours.h5", colour_layers(), (28, 28, 1))
    with pytest.raises(ModelError, match="cannot compare with"):
        compare(FIXTURES / "larq_sequential.h5", digits, keras=False)
    with pytest.raises((InputError, ModelError)):
        compare(source, digits, keras=False)


@pytest.mark.parametrize("suffix", [".edge", ".tflite"])
@pytest.mark.parametrize("name", ["inner", "middle"])
def test_a_file_of_a_model_with_other_weights_differs_though_it_names_the_same_classes(tmp_path: Path, suffix: str, name: str) -> None:
    """With the layers' names or others, under which no layer of the two can be compared."""
    kernel = np.eye(3, dtype=np.float32)
    for source, scale, layer in (("one", 1.0, "middle"), ("two", 1.5, name)):
        write_h5(tmp_path / f"{source}.h5", [dense(layer, kernel * np.float32(scale))], (3,))
        edge.convert(tmp_path / f"{source}.h5", bits=1)
    assert compare(tmp_path / "one.h5", tmp_path / f"one{suffix}", keras=False).equal
    comparison = compare(tmp_path / "one.h5", tmp_path / f"two{suffix}", keras=False)
    assert not comparison.equal and "made from another file" in comparison.verdict


def test_the_same_network_saved_as_another_file_is_equal(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_h5(tmp_path / f"{name}.h5", [dense("middle", np.eye(3, dtype=np.float32))], (3,))
    with h5py.File(tmp_path / "two.h5", "r+") as file:
        file.attrs["note"] = "the same network in other bytes"
    edge.convert(tmp_path / "one.h5", formats=["edge"])
    assert compare(tmp_path / "two.h5", tmp_path / "one.edge", keras=False).equal


def test_a_file_without_tensor_names_is_compared_from_input_to_output(digits: Path) -> None:
    stored = read(digits)
    path = digits.with_name("nameless.edge")
    write(replace(stored, metadata={name: value for name, value in stored.metadata.items() if name != "tensors"}), path)
    assert tensor_names(read(path)) == ()
    comparison = reference(DIGITS, path)
    assert comparison.equal and comparison.layers == ()


# -- precision -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "expected"), [(32, {EXACT}), (8, {EXACT, EIGHT_BITS}), (1, {EXACT, EIGHT_BITS, ONE_BIT})])
def test_what_a_conversion_gave_up_is_told(tmp_path: Path, bits: int, expected: set[str]) -> None:
    source = FIXTURES / "keras2_functional.h5"
    edge.convert(source, tmp_path, bits=bits, formats=("edge",))
    comparison = reference(source, tmp_path / "keras2_functional.edge")
    assert {layer.precision for layer in comparison.layers} == expected
    assert all(layer.tolerance is None for layer in comparison.layers if layer.precision == ONE_BIT)
    assert all(layer.equal for layer in comparison.layers)


def test_weights_on_a_grid_are_exact_at_8_bits(digits: Path) -> None:
    first = reference(DIGITS, digits).layers[0]
    assert read(digits).array(read(digits).instructions[0], "filter").dtype == np.int8  # type: ignore[union-attr]
    assert first.precision == EXACT


@given(st.sampled_from([EXACT, EIGHT_BITS]), st.floats(0, 1e6), st.floats(0, 1e6))
def test_tolerance_grows_with_magnitude(precision: str, first: float, second: float) -> None:
    small, large = sorted((first, second))
    assert 0 < tolerance(precision, small) <= tolerance(precision, large)


def test_values_that_are_no_numbers_are_never_equal(digits: Path) -> None:
    stored = read(digits)
    piece = pieces(stored, read_graph(read_keras(DIGITS), input_dtype="uint8"))[-1]
    for precision in (EXACT, EIGHT_BITS, ONE_BIT):
        tally = Tally(replace(piece, precision=precision))
        tally.add(np.array([np.nan, 0.5], np.float32), np.array([0.5, 0.5], np.float32), None)
        assert tally.result(stored, tensor_names(stored)).equal is (precision == ONE_BIT)


# -- ties ----------------------------------------------------------------------------------------------------------------------


def sign_graph(mul: float, add: float) -> Graph:
    """x -> x * mul + add -> sign -> values."""
    plain = {"activation": 0, "alpha": 0.0, "limit": float("inf")}
    constants = {"mul": np.array([mul], np.float32), "add": np.array([add], np.float32)}
    nodes = (
        Node("affine", ("x",), "norm", plain, constants, ("norm",)),
        Node("binarize", ("norm",), "sign", {}, {}, ("next",)),
        Node("unpack", ("sign",), "out", {}, {}, ("next",)),
    )
    kind = TensorType((4, 1))
    types = {"x": kind, "norm": kind, "sign": TensorType((4, 1), Encoding.BITS), "out": kind}
    return Graph("signs", ("x",), ("out",), nodes, types).verify()


def ties(mul: float, add: float, values: np.ndarray) -> np.ndarray:
    graph = sign_graph(mul, add)
    wanted = {"sign", *sign_sources(graph, ["sign"])}
    truth = Oracle(graph, "reference", lambda batch: {}).truths({"x": values.reshape(1, 4, 1)}, wanted)[0]
    return truth.ties("sign", TIE_ULP)


@settings(max_examples=50)
@given(st.floats(0.125, 128, width=32), st.floats(-128, 128, width=32).filter(lambda add: abs(add) > 0.01))
def test_ties_are_values_within_8_units_of_the_larger_term(mul: float, add: float) -> None:
    root = np.float32(-add / mul)
    step = np.spacing(np.float32(abs(add)))
    near, far = np.float32(step / mul), np.float32(40 * step / mul)
    found = ties(mul, add, np.array([root, root + near, root + far, root - far], np.float32))
    assert found.tolist() == [True, True, False, False]


def test_a_sign_far_from_zero_is_no_tie() -> None:
    assert not ties(1.0, 1.0, np.array([5, 100, -3, 7], np.float32)).any()


def test_a_flipped_tie_is_excused_and_counted(digits: Path) -> None:
    piece = pieces(read(digits), read_graph(read_keras(DIGITS), input_dtype="uint8"))[0]
    tally = Tally(piece)
    got, want = np.array([1, -1, 1, 1], np.float32), np.array([1, 1, -1, 1], np.float32)
    tally.add(got, want, np.array([False, True, False, True]))
    assert (tally.flipped, tally.tied) == (1, 1)
    excused = Tally(piece)
    excused.add(got, want, np.array([False, True, True, False]))
    assert excused.result(read(digits), tensor_names(read(digits))).equal and excused.tied == 2


# -- examples ------------------------------------------------------------------------------------------------------------------


def test_random_examples_come_from_the_seed(digits: Path) -> None:
    first, same, other = (reference(DIGITS, digits, seed=seed) for seed in (0, 0, 1))
    assert first == same and first.data_sha256 != other.data_sha256 and (first.seed, other.seed) == (0, 1)
    assert first.data == "random inputs, seed 0" and first.examples == 4


def test_labels_in_the_data_give_accuracies(tmp_path: Path, digits: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    answers = edge.load(digits).run(pictures[..., None]).argmax(axis=1)
    np.savez(tmp_path / "test.npz", x_test=pictures, y_test=np.where(np.arange(6) < 2, (answers + 1) % 10, answers))
    comparison = reference(DIGITS, digits, data=tmp_path / "test.npz", count=6)
    assert comparison.accuracy == comparison.source_accuracy == pytest.approx(4 / 6)
    assert comparison.data.startswith("6 of 6 of")


@pytest.mark.parametrize("first", [1, -1])
def test_labels_that_are_no_classes_are_left_out_and_named(tmp_path: Path, digits: Path, first: int) -> None:
    """Counted as wrong they would be an accuracy that nobody measured."""
    np.savez(tmp_path / "test.npz", x_test=np.zeros((10, 28, 28), np.uint8), y_test=np.arange(first, first + 10))
    comparison = reference(DIGITS, digits, data=tmp_path / "test.npz", count=2)
    assert comparison.accuracy is None and comparison.source_accuracy is None
    (remark,) = comparison.remarks
    assert remark.startswith("no accuracy, since the labels of ")
    assert f"expected classes 0 to 9, as the model has, got {10 if first == 1 else -1}; number them so" in remark
    shown = invoke("verify", DIGITS, digits, "--oracle", "reference", "--data", tmp_path / "test.npz", "--count", 2)
    assert shown.exit_code == 0 and f"warning: {remark}" in shown.stderr


def test_no_example_is_an_error(digits: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        compare(DIGITS, digits, count=0, keras=False)


def test_without_a_framework_the_reference_is_the_oracle(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> Oracle:
        raise MissingPackage("no Keras here")

    monkeypatch.setattr(oracle, "_keras_oracle", missing)
    comparison = compare(DIGITS, digits, count=2)
    assert comparison.oracle == "the reference interpreter" and "no Keras here" in comparison.oracle_note
    with pytest.raises(MissingPackage):
        compare(DIGITS, digits, keras=True)


# -- the command ---------------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_row_for_each_layer(digits: Path) -> None:
    result = invoke("verify", DIGITS, digits, "--oracle", "reference", "--count", 3)
    assert result.exit_code == 0
    assert "conv2+pool2+norm2" in result.stdout and "equal to its source on 3 examples" in result.stdout


def test_the_command_exits_with_1_and_a_sentence_where_it_differs(digits: Path) -> None:
    path = damaged(digits, "filter", instruction_of(read(digits), "conv2"), lambda stored: ~stored)
    result = invoke("verify", DIGITS, path, "--oracle", "reference", "--count", 2, "--json")
    assert result.exit_code == 1
    assert "layer conv2+pool2+norm2 differs from its source" in result.stderr
    document = json.loads(result.stdout)
    assert document["equal"] is False and document["first_difference"] == ["conv2", "pool2", "norm2"]


def test_a_binary_network_in_memory_verifies(tmp_path: Path) -> None:
    source = write_h5(tmp_path / "colours.h5", binary_colour_layers(), (8, 8, len(COLOURS)))
    edge.convert(source, formats=("edge",))
    result = invoke("verify", source, tmp_path / "colours.edge", "--oracle", "reference")
    assert result.exit_code == 0, result.stderr
