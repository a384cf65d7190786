"""Several converted files of one source, `.tflite` files tensor by tensor, several inputs, and the page."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from digits_files import DIGITS, EXAMPLES
from digits_files import digits as digits  # fixtures
from digits_files import keras as keras
from PIL import Image
from run_models import invoke
from test_compare import damaged, instruction_of

import edge
from edge.certificate import read_certificate, repeat_file
from edge.compare import Comparison, compare, compare_all
from edge.compare_layers import EIGHT_BITS, EXACT, ONE_BIT, LayerComparison
from edge.compare_page import page
from edge.compare_plot import plot, value_of
from edge.compare_print import rows_of
from edge.compare_sign_off import sign_off
from edge.errors import InputError
from edge.format import read
from edge.preprocess import preset

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def both(digits: Path) -> tuple[Comparison, ...]:
    return compare_all(DIGITS, [digits, digits.with_suffix(".tflite")], data=EXAMPLES / "digits", keras=False)


# -- .tflite files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["larq_sequential", "larq_residual"])
def test_binary_tflite_files_equal_their_source_in_every_sign(tmp_path: Path, name: str) -> None:
    edge.convert(FIXTURES / f"{name}.h5", tmp_path, formats=("tflite",))
    comparison = compare(FIXTURES / f"{name}.h5", tmp_path / f"{name}.tflite", keras=False, count=3)
    assert comparison.equal, comparison.verdict
    packed = [layer for layer in comparison.layers if layer.encoding == "bits"]
    assert packed and not sum(layer.flipped_bits for layer in packed)


@pytest.mark.parametrize(("bits", "worst"), [(32, EXACT), (8, EIGHT_BITS), (1, ONE_BIT)])
def test_what_a_tflite_file_gave_up_is_told(tmp_path: Path, bits: int, worst: str) -> None:
    source = FIXTURES / "keras2_functional.h5"
    edge.convert(source, tmp_path, bits=bits)
    files = [tmp_path / "keras2_functional.tflite", tmp_path / "keras2_functional.edge"]
    lite, engine = compare_all(source, files, keras=False, count=3)
    assert lite.layers and lite.precision == engine.precision == worst
    assert all((layer.tolerance is None) == (layer.precision != EXACT) for layer in lite.layers if layer.encoding != "bits")
    assert all(layer.equal for layer in lite.layers)


def test_int8_activations_of_a_tflite_file_are_told(tmp_path: Path) -> None:
    source = FIXTURES / "keras2_functional.h5"
    shape = edge_input_shape(source)
    pictures = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    edge.convert(source, tmp_path, bits=8, calibrate=pictures)
    lite = compare(source, tmp_path / "keras2_functional.tflite", keras=False, count=3)
    assert lite.precision == EIGHT_BITS and lite.layers[-1].precision == EIGHT_BITS


def edge_input_shape(source: Path) -> tuple[int, ...]:
    from edge.converters.keras_file import read_keras

    shape = read_keras(source).inputs[0].shape
    assert shape is not None
    return tuple(size for size in shape if size is not None)


def test_a_changed_weight_of_a_tflite_file_is_named(digits: Path, tmp_path: Path) -> None:
    """One byte of the second layer's filter, found by its values."""
    data = bytearray(digits.with_suffix(".tflite").read_bytes())
    from edge.tflite_listing import lite_operations

    filters = [array for operation in lite_operations(bytes(data)) for _, array in operation.constants]
    second = max((array for array in filters if array.ndim == 4), key=lambda array: array.size).tobytes()
    start = bytes(data).index(second)
    for place in range(start, start + len(second), 7):
        data[place] = (256 - data[place]) % 256
    path = tmp_path / "damaged.tflite"
    path.write_bytes(data)
    comparison = compare(DIGITS, path, keras=False, count=2)
    assert not comparison.equal and comparison.first_difference is not None
    assert comparison.first_difference[0] in ("conv2", "conv3") and "differs from its source" in comparison.verdict


def test_a_tflite_file_of_others_is_compared_from_input_to_output(keras: Any, digits: Path, tmp_path: Path) -> None:
    """TensorFlow's converter gives tensors names of its own."""
    import tensorflow as tf

    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(3, 3), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.save(tmp_path / "small.keras")
    (tmp_path / "small.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    comparison = compare(tmp_path / "small.keras", tmp_path / "small.tflite", keras=False, count=3)
    assert comparison.equal and comparison.layers == ()
    shown = invoke("verify", tmp_path / "small.keras", tmp_path / "small.tflite", "--oracle", "reference", "--count", 2)
    assert "compared from input to output alone" in shown.stdout


# -- several files ---------------------------------------------------------------------------------------------------------------


def test_both_files_see_the_same_pictures(both: tuple[Comparison, ...]) -> None:
    assert [each.examples for each in both] == [10, 10] and all(each.equal for each in both)
    assert both[0].fed_by_source and not both[1].fed_by_source
    assert [[cell is not None for cell in row] for row in rows_of(both)] == [[True, True]] * len(both[0].layers)


def test_rows_of_several_files_keep_the_order_of_the_source(both: tuple[Comparison, ...]) -> None:
    first, second = both
    fewer = replace(first, layers=first.layers[1:2] + first.layers[3:])
    names = [next(cell.tensor for cell in row if cell) for row in rows_of([fewer, second])]
    assert names == [layer.tensor for layer in second.layers]
    names = [next(cell.tensor for cell in row if cell) for row in rows_of([fewer, replace(second, layers=second.layers[:4])])]
    assert names == [layer.tensor for layer in second.layers]


def test_the_command_shows_them_side_by_side(digits: Path) -> None:
    shown = invoke("verify", DIGITS, digits, digits.with_suffix(".tflite"), "--oracle", "reference", "--count", 3)
    assert shown.exit_code == 0, shown.stderr
    head = next(line for line in shown.stdout.splitlines() if line.startswith("layers"))
    assert re.split(r"\s{2,}", head.strip()) == ["layers", "engine flipped", "engine max error", "TFLite flipped", "TFLite max error"]
    assert "digits.tflite: equal to its source on 3 examples" in shown.stdout
    document = json.loads(invoke("verify", DIGITS, digits, digits, "--oracle", "reference", "--count", 2, "--json").stdout)
    assert len(document["comparisons"]) == 2 and document["comparisons"][0] == document["comparisons"][1]


def test_one_wrong_file_of_several_fails_by_name(digits: Path) -> None:
    path = damaged(digits, "filter", instruction_of(read(digits), "conv2"), lambda stored: ~stored)
    shown = invoke("verify", DIGITS, digits, path, "--oracle", "reference", "--count", 2)
    assert shown.exit_code == 1 and path.name in shown.stderr and "layer conv2+pool2+norm2 differs" in shown.stderr
    assert "digits.edge: equal to its source" in shown.stdout


# -- accuracy --------------------------------------------------------------------------------------------------------------------


def test_accuracies_come_with_intervals(digits: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (8, 28, 28), dtype=np.uint8)
    answers = edge.load(digits).run(pictures[..., None]).argmax(axis=1)
    np.savez(tmp_path / "test.npz", x_test=pictures, y_test=np.where(np.arange(8) < 2, (answers + 1) % 10, answers))
    found = compare(DIGITS, digits, keras=False, data=tmp_path / "test.npz")
    assert found.accuracy == 0.75 and found.accuracy_interval == pytest.approx((0.4093, 0.9285), abs=1e-4)
    assert found.same_class == 1.0 and found.same_class_interval is not None and found.same_class_interval[1] == 1.0
    assert found.accuracy_difference is not None and (found.accuracy_difference.gained, found.accuracy_difference.lost) == (0, 0)
    shown = invoke("verify", DIGITS, digits, "--oracle", "reference", "--data", tmp_path / "test.npz")
    assert "75.00 % (40.93 to 92.85)" in shown.stdout and "p 1" in shown.stdout


# -- several inputs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_inputs(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A number that looks up a table, and a picture, in this order; two heads."""
    layers = keras.layers
    label, picture = keras.Input((1,), name="label", dtype="int32"), keras.Input((6, 6, 3), name="picture")
    seen = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(layers.Rescaling(1 / 255, name="scaled")(picture)))
    known = layers.Flatten()(layers.Embedding(7, 5, name="table")(label))
    joined = layers.Concatenate(name="joined")([seen, known])
    outputs = [layers.Dense(4, activation="softmax", name="scores")(joined), layers.Dense(2, name="place")(joined)]
    path = Path(tmp_path_factory.mktemp("two") / "two.keras")
    keras.Model([label, picture], outputs).save(path)
    edge.convert(path, bits=32)
    return path


def test_several_inputs_are_compared_with_keras(two_inputs: Path) -> None:
    found = compare_all(two_inputs, [two_inputs.with_suffix(".edge"), two_inputs.with_suffix(".tflite")], count=4, keras=True)
    assert [each.equal for each in found] == [True, True], [each.verdict for each in found]
    assert {name for layer in found[0].layers for name in layer.layers} >= {"conv", "table", "joined", "scores", "place"}


def test_several_inputs_come_by_name_from_an_archive(two_inputs: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {"picture": random.integers(0, 256, (5, 6, 6, 3), dtype=np.uint8), "label": random.integers(0, 7, 5)}
    np.savez(tmp_path / "data.npz", **arrays, y_test=np.zeros(5, np.int64))
    found = compare(two_inputs, two_inputs.with_suffix(".edge"), data=tmp_path / "data.npz", keras=True)
    assert found.equal and found.examples == 5 and found.data == "5 of 5 of data.npz"
    np.savez(tmp_path / "less.npz", picture=arrays["picture"])
    with pytest.raises(InputError, match="label"):
        compare(two_inputs, two_inputs.with_suffix(".edge"), data=tmp_path / "less.npz", keras=False)
    with pytest.raises(InputError, match="a dict with arrays for label"):
        compare(two_inputs, two_inputs.with_suffix(".edge"), data=arrays["picture"], keras=False)


@pytest.mark.parametrize("form", ["archive", "arrays"])
def test_pictures_by_name_are_seen_as_the_converted_file_sees_them(two_inputs: Path, tmp_path: Path, form: str) -> None:
    """Resized and normalised by the file's own preprocessing, as where a picture is the only input; other numbers stay as they are."""
    seen = preset("torch")
    path = tmp_path / "two.edge"
    edge.convert(two_inputs, path, bits=32, preprocess=seen, formats="edge")
    random = np.random.default_rng(1)
    pictures, label = random.integers(0, 256, (3, 9, 7, 3), dtype=np.uint8), np.array([[6], [0], [3]], np.uint8)
    given: dict[str, np.ndarray] = {"picture": pictures, "label": label}
    data: Any = given if form == "arrays" else tmp_path / "given.npz"
    np.savez(tmp_path / "given.npz", **given)
    found = compare(two_inputs, path, data=data, keras=False)
    shown = np.stack([seen.apply(picture, (6, 6, 3)) for picture in pictures])
    np.savez(tmp_path / "seen.npz", picture=shown, label=label.astype(np.float32))
    assert found.equal and found.data_sha256 == compare(two_inputs, path, data=tmp_path / "seen.npz", keras=False).data_sha256
    digest = hashlib.sha256()
    for row in zip(label.astype(np.float32), shown, strict=True):
        for array in row:
            digest.update(array.tobytes())
    assert found.data_sha256 == digest.hexdigest() and found.examples == 3


@pytest.mark.parametrize("command", ["verify", "convert", "sensitivity"])
def test_only_commands_that_take_inputs_by_name_advise_it(command: str, two_inputs: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / "picture.png")
    np.savez(tmp_path / "one.npz", picture=np.zeros((2, 6, 6, 3), np.uint8))
    files = {"verify": [two_inputs.with_suffix(".edge")], "convert": ["-o", tmp_path], "sensitivity": []}[command]
    for data, said in (("picture.png", "cannot tell which input"), ("one.npz", "save label under that name")):
        ran = invoke(command, two_inputs, *files, "--data", tmp_path / data)
        assert ran.exit_code == 1 and said in ran.stderr and "--input" not in ran.stderr


def test_several_inputs_are_signed_off_and_repeated(two_inputs: Path) -> None:
    path = two_inputs.with_suffix(".edge")
    made = sign_off(compare(two_inputs, path, count=4, keras=True))
    assert read_certificate(read(path)) == made
    _, outcome = repeat_file(path)
    assert not outcome.wrong and outcome.networks == 4


def test_a_file_with_other_inputs_is_refused(two_inputs: Path, digits: Path) -> None:
    with pytest.raises(edge.EdgeError):
        compare(two_inputs, digits, keras=False)
    with pytest.raises(edge.EdgeError):
        compare(DIGITS, two_inputs.with_suffix(".edge"), keras=False)


# -- the page --------------------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_names_every_layer(digits: Path, tmp_path: Path) -> None:
    where = tmp_path / "report.html"
    shown = invoke("verify", DIGITS, digits, digits.with_suffix(".tflite"), "--oracle", "reference", "--count", 2, "--html", where)
    assert shown.exit_code == 0 and "wrote" in shown.stderr
    text = where.read_text("utf-8")
    assert not re.search(r"<script|https?://|<link|@import", text)
    drawing = ElementTree.fromstring(re.search(r"<svg.*?</svg>", text, re.DOTALL)[0])  # type: ignore[index]
    assert len(drawing.findall(".//rect")) == 6 and len(drawing.findall(".//circle")) == 6
    for name in ("conv2+pool2+norm2", "probabilities", "digits.tflite", "equal to its source on 2 examples"):
        assert name in text


def test_the_page_of_a_file_that_differs_is_written_and_says_so(digits: Path, tmp_path: Path) -> None:
    path = damaged(digits, "filter", instruction_of(read(digits), "conv3"), lambda stored: ~stored)
    where = tmp_path / "report.html"
    shown = invoke("verify", DIGITS, path, "--oracle", "reference", "--count", 2, "--html", where)
    assert shown.exit_code == 1
    assert 'class="no">layer conv3+norm3 differs' in where.read_text("utf-8")


def test_names_that_are_markup_stay_text(both: tuple[Comparison, ...]) -> None:
    odd = "<script>alert(1)</script>"
    layers = (replace(both[0].layers[0], layers=(odd,)), *both[0].layers[1:])
    assert "<script>" not in page([replace(both[0], source=odd, converted=f"{odd}.edge", verdict=odd, oracle=odd, data=odd, layers=layers)])


def layer(**changes: Any) -> LayerComparison:
    plain = LayerComparison("t", ("l",), (), "float32", EXACT, 10, 0, 0, 0.0, 0.0, 1e-4, True)
    return replace(plain, **changes)


@pytest.mark.parametrize(
    "odd",
    [
        layer(max_abs_error=float("inf"), relative_error=float("inf"), equal=False),
        layer(relative_error=1e-300),
        layer(encoding="bits", flipped_bits=10, tied_bits=0),
        layer(encoding="bits", tied_bits=10),
        layer(encoding="bits", values=0),
    ],
)
def test_extremes_are_drawn_inside_the_picture(odd: LayerComparison) -> None:
    drawing = ElementTree.fromstring(plot([[odd, None], [None, layer()]], ["a" * 80, "&"]))
    marks = [float(mark.get("cy") or mark.get("y") or -1) for mark in (*drawing.findall(".//circle"), *drawing.findall(".//rect"))]
    assert marks and all(0 <= place <= 390 for place in marks)
    assert value_of(odd) >= 0


@pytest.mark.parametrize("count", ["0", "99999999999999"])
def test_counts_that_never_end_are_refused(count: str) -> None:
    shown = invoke("verify", DIGITS, DIGITS, "--count", count)
    assert shown.exit_code == 2 and "is not in the range" in shown.stderr
