"""What models with several inputs are run on: `.npz` files by name, a picture and the rest by --input; what is said of misfits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_models import document, invoke
from two_inputs import two_inputs

from edge.converters.layers import read_graph
from edge.converters.tflite import write_tflite
from edge.engine import Engine
from edge.errors import InputError
from edge.feeds import JointInputs, JointItem, read_feeds
from edge.format import write
from edge.lower import to_program
from edge.tensors import TensorInfo

COUNT = 4
INPUTS = (TensorInfo("image", (6, 5, 3), "uint8"), TensorInfo("label", (1,), "float32"))


OUTPUTS = [{"name": "scores", "kind": "probabilities"}, {"name": "place", "kind": "values"}]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(to_program(read_graph(two_inputs(), input_dtype="uint8"), {"outputs": OUTPUTS}))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 3), dtype=np.uint8)


LABELS = np.array([[3], [1], [9], [0]], np.uint8)


@pytest.fixture
def model(tmp_path: Path, engine: Engine) -> Path:
    write(engine.program, tmp_path / "two.edge")
    return tmp_path / "two.edge"


@pytest.fixture
def lite(tmp_path: Path) -> Path:
    path = tmp_path / "two.tflite"
    path.write_bytes(write_tflite(read_graph(two_inputs(), input_dtype="uint8"), description=json.dumps({"outputs": OUTPUTS})))
    return path


def archive(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def scores(result: Any) -> list[list[float]]:
    return [entry["outputs"][0]["values"] for entry in document(result)["results"]]


# -- items ---------------------------------------------------------------------------------------------------------------------


def read(items: Any) -> list[tuple[str, int | None, list[list[int]]]]:
    assert isinstance(items, JointInputs)
    return [(item.name, item.label, [part.read().tolist() for part in item.parts]) for item in items]


def test_an_archive_holds_an_array_for_each_input(tmp_path: Path, images: np.ndarray) -> None:
    path = archive(tmp_path / "both.npz", label=LABELS, image=images, y=np.arange(COUNT))
    items = read_feeds(INPUTS).items(path)
    assert len(items) == COUNT and items.has_labels
    expected = [(f"{path}:image[{i}]", i, [images[i].tolist(), LABELS[i].tolist()]) for i in range(COUNT)]
    assert read(items) == expected
    kept = items.labelled_for(3)
    assert [item.label for item in kept] == [None] * COUNT and "expected classes 0 to 2" in kept.remarks[0]


@pytest.mark.parametrize("labels", [LABELS.reshape(-1), LABELS.astype(np.int64), LABELS.astype(np.float32)])
def test_numbers_may_be_of_any_type(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    items = read_feeds(INPUTS).items(archive(tmp_path / "both.npz", label=labels, image=images))
    assert [parts[1] for _, _, parts in read(items)] == LABELS.tolist()


def test_a_picture_with_a_number(tmp_path: Path, images: np.ndarray) -> None:
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    feeds = read_feeds(INPUTS, ["label=3"])
    (item,) = feeds.items(tmp_path / "image.png")
    assert isinstance(item, JointItem) and item.is_picture and item.name == str(tmp_path / "image.png")
    assert [part.read().tolist() for part in item.parts] == [images[0].tolist(), [3]]
    assert [part.name for part in item.parts][1] == "label=3"


def test_one_example_goes_with_many_and_many_with_as_many(tmp_path: Path, images: np.ndarray) -> None:
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", LABELS)
    one = read(read_feeds(INPUTS, ["label=7"]).items(tmp_path / "images.npy"))
    assert [parts for _, _, parts in one] == [[image.tolist(), [7]] for image in images]
    many = read(read_feeds(INPUTS, [f"label={tmp_path / 'labels.npy'}"]).items(tmp_path / "images.npy"))
    assert [parts[1] for _, _, parts in many] == LABELS.tolist()
    turned = read(read_feeds(INPUTS, [f"image={tmp_path / 'images.npy'}"]).items(tmp_path / "labels.npy"))
    assert [parts for _, _, parts in turned] == [parts for _, _, parts in many]
    np.save(tmp_path / "three.npy", LABELS[:3])
    with pytest.raises(InputError, match="got 4 for image, 3 for label"):
        read_feeds(INPUTS, [f"label={tmp_path / 'three.npy'}"]).items(tmp_path / "images.npy")


def test_everything_by_name(tmp_path: Path, images: np.ndarray) -> None:
    np.save(tmp_path / "image.npy", images[0])
    ((name, _, parts),) = read(read_feeds(INPUTS, ["label=2", f"image={tmp_path / 'image.npy'}"]).alone())
    assert name == str(tmp_path / "image.npy") and parts == [images[0].tolist(), [2]]


def test_vectors_are_numbers_with_commas() -> None:
    inputs = (TensorInfo("noise", (3,), "float32"), TensorInfo("label", (1,), "float32"))
    ((_, _, parts),) = read(read_feeds(inputs, ["label=2", "noise=0.5,-1,2e1"]).alone())
    assert parts == [[0.5, -1, 20], [2]]


def test_a_single_input_by_name(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((2, 4)).astype(np.float32)
    path = archive(tmp_path / "x.npz", other=np.zeros((3, 3)), noise=values)
    items = read_feeds((TensorInfo("noise", (4,), "float32"),)).items(path)
    assert [item.read().tolist() for item in items] == values.tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["lable=3"], r"once for each of image \(6 x 5 x 3\) and label \(1\), got the name 'lable'"),
        (["label"], "got no value"),
        (["label="], "got no value"),
        (["label=3", "label=4"], "got a second value"),
        (["label=nowhere.npy"], "'nowhere.npy', which is neither; check the path"),
        (["label=1,2"], "as many numbers as 1 separated by commas, got 2 of them"),
        (["image=1"], "as many numbers as 6 x 5 x 3 separated by commas, got 1 of them"),
        (["label="], "expected NAME=VALUE"),
        (["=3"], "got the name ''"),
    ],
)
def test_what_is_given_wrong_is_named(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_feeds(INPUTS, given)


def test_a_number_that_is_none(tmp_path: Path) -> None:
    (item,) = read_feeds(INPUTS, ["label=nan", "image=" + ",".join(["0"] * 90)]).alone()
    with pytest.raises(InputError, match="label=nan holds NaN"):
        item.parts[1].read()


def test_files_that_are_not_enough(tmp_path: Path, images: np.ndarray) -> None:
    feeds = read_feeds(INPUTS, [])
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    for path in (tmp_path / "image.png", tmp_path):
        with pytest.raises(InputError, match=r"cannot tell which input .* an array for each of image \(6 x 5 x 3\) and label \(1\)"):
            feeds.items(path)
    with pytest.raises(InputError, match="got image, y; save label under that name, or give it by --input"):
        feeds.items(archive(tmp_path / "x.npz", image=images, y=np.arange(COUNT)))
    with pytest.raises(InputError, match="expected items of the net input"):
        feeds.items(archive(tmp_path / "y.npz", image=images, label=np.zeros((COUNT, 2))))
    with pytest.raises(InputError, match="expected a file, but there is none"):
        feeds.items(tmp_path / "nothing.npz")
    with pytest.raises(InputError, match="nothing was given for image"):
        read_feeds(INPUTS, ["label=1"]).alone()
    with pytest.raises(InputError, match="is for no input"):
        read_feeds(INPUTS, ["label=1", f"image={tmp_path / 'image.png'}"]).items(tmp_path / "image.png")


# -- the command ---------------------------------------------------------------------------------------------------------------


def test_run_an_archive(tmp_path: Path, model: Path, lite: Path, engine: Engine, images: np.ndarray) -> None:
    expected = engine.run(images, LABELS)
    right = expected[0].argmax(axis=1)
    path = archive(tmp_path / "both.npz", image=images, label=LABELS, y=np.where(np.arange(COUNT) == 1, (right + 1) % 4, right))
    for file in (model, lite):
        result = invoke("run", path, "-m", file, "--json", "--range", "0,255")
        np.testing.assert_allclose(scores(result), expected[0], atol=1e-5)
        assert document(result)["accuracy"] == {"right": COUNT - 1, "of": COUNT, "share": 1 - 1 / COUNT}
        assert [output["name"] for output in document(result)["results"][0]["outputs"]] == ["scores", "place"]


def test_labels_are_not_guessed_to_be_of_one_head_of_several(tmp_path: Path, engine: Engine, images: np.ndarray) -> None:
    heads = [{**each, "kind": "probabilities"} for each in OUTPUTS]
    write(replace(engine.program, metadata={**engine.program.metadata, "outputs": heads}), tmp_path / "heads.edge")
    path = archive(tmp_path / "both.npz", image=images, label=LABELS, y=np.zeros(COUNT, int))
    result = invoke("run", path, "-m", tmp_path / "heads.edge", "--json")
    assert document(result)["accuracy"] is None
    assert "may be those of scores or place: expected one output that names classes, got 2" in result.stderr


def test_run_a_picture_with_a_number(tmp_path: Path, model: Path, engine: Engine, images: np.ndarray) -> None:
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    options = ("-m", model, "--range", "0,255")
    result = invoke("run", tmp_path / "image.png", "--input", "label=3", *options, "--json", "--save-input", tmp_path / "seen.png")
    np.testing.assert_allclose(scores(result)[0], engine.run(images[0], 3)[0], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "seen.png")), images[0])
    table = invoke("run", tmp_path / "image.png", "--input", "label=3", *options, "--timing").stdout
    assert "scores" in table and "place" in table and "vectors" in table
    alone = invoke("run", "--input", "label=3", "--input", f"image={tmp_path / 'image.png'}", *options, "--json")
    assert scores(alone) == scores(result)


def test_run_says_what_is_missing(tmp_path: Path, model: Path, images: np.ndarray) -> None:
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    result = invoke("run", tmp_path / "image.png", "-m", model)
    assert result.exit_code == 1 and "image (6 x 5 x 3) and label (1)" in result.stderr
    assert invoke("run", "-m", model, "--input", "label=3").exit_code == 1
    assert invoke("run", "-m", model, "--input", "nothing=3").exit_code == 1
    assert invoke("run", "-m", model).exit_code == 2
