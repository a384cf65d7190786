"""The data of trainings: by name, from files and from folders, and what is said where they cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.datasets import SOURCES, Dataset, Part, load
from edge.errors import InputError, MissingPackage


def arrays(count: int = 6, shape: tuple[int, ...] = (4, 4, 1)) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (count, *shape)).astype(np.uint8)
    return {"x_train": x, "y_train": np.arange(count) % 3, "x_test": x[:2], "y_test": np.array([2, 1])}


def stored(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "data.npz", **{name: value for name, value in {**arrays(), **changes}.items() if value is not None})
    return folder / "data.npz"


def test_an_npz_is_read_as_it_is(tmp_path: Path) -> None:
    data = load("mnist", path=stored(tmp_path), shape=(4, 4, 1))
    np.testing.assert_array_equal(data.train.x, arrays()["x_train"])
    assert data.test.y.tolist() == [2, 1] and data.test.y.dtype == np.int64 and data.name == "mnist"


def test_grey_pictures_and_columns_of_labels_are_brought_to_form(tmp_path: Path) -> None:
    given = arrays()
    path = stored(tmp_path, x_train=given["x_train"][..., 0], y_train=given["y_train"][:, np.newaxis].astype(np.uint8))
    data = load("mnist", path=path)
    np.testing.assert_array_equal(data.train.x, given["x_train"])
    assert data.train.y.tolist() == given["y_train"].tolist()


def test_a_permutation_is_one_and_the_same_for_all_pictures() -> None:
    x = np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4, 1)
    part = Part(x, np.arange(3))
    permuted = Dataset("any", part, part[:2]).permuted()
    order = permuted.train.x[0].reshape(-1)
    assert sorted(order.tolist()) == list(range(16)) and order.tolist() != list(range(16))
    for i in range(3):
        np.testing.assert_array_equal(permuted.train.x[i].reshape(-1), order + 16 * i)
    np.testing.assert_array_equal(permuted.test.x, permuted.train.x[:2])
    assert permuted.digest() != Dataset("any", part, part[:2]).digest() == Dataset("other", part, part[:2]).digest()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_test": None}, "has no array x_test, expected x_train, y_train, x_test, y_test, got x_train"),
        ({"x_train": np.zeros((6, 4, 4, 1), np.float32)}, r"x_train of .* uint8 \(N, H, W, C\), got float32 \(6, 4, 4, 1\)"),
        ({"y_train": np.zeros(5, np.int64)}, r"the class of each of 6 pictures, whole numbers, got int64 \(5,\)"),
        ({"y_train": np.zeros(6)}, "whole numbers, got float64"),
        ({"y_test": np.array([-1, 0])}, "y_test .* whole numbers"),
        ({"x_train": np.zeros((0, 4, 4, 1), np.uint8), "y_train": np.zeros(0, int)}, "y_train .* each of 0 pictures"),
        ({"y_train": np.array([{}] * 6)}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load("mnist", path=stored(tmp_path, **changes))


def test_an_npz_may_name_its_classes(tmp_path: Path) -> None:
    assert load("mnist", path=stored(tmp_path)).names == ()
    assert load("mnist", path=stored(tmp_path, names=np.array([" a", "b", "c"]))).names == ("a", "b", "c")
    for names, said in ((["a"], "names of 1 classes, but labels up to 2"), (["a", "b\x1b[2J", "c"], r"U\+001B in that of class 1"),
                        ([{}] * 3, "names of .* should be an array of strings"),
                        ([b"\xc3\xa9"] * 3, "names of .* should be an array of strings")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            load("mnist", path=stored(tmp_path, names=np.array(names)))
    assert load("mnist", path=stored(tmp_path, names=np.array("my digits"))).names == ()


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(InputError, match="cannot be read"):
        load("mnist", path=tmp_path / "data.npz")
    (tmp_path / "data.txt").write_text("pictures")
    with pytest.raises(InputError, match="cannot be read"):
        load("mnist", path=tmp_path / "data.txt")
    with pytest.raises(InputError, match="there is none"):
        load("mnist", path=tmp_path / "none.npz")


def test_pictures_of_another_size_than_the_network_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"are \(4, 4, 1\), but the network takes \(28, 28, 1\)"):
        load("mnist", path=stored(tmp_path), shape=(28, 28, 1))


# -- folders -------------------------------------------------------------------------------------------------------------------


def folder_of(root: Path, parts: dict[str, dict[str, int]]) -> Path:
    """Pictures, all of one grey level, by part and class."""
    for part, classes in parts.items():
        for name, grey in classes.items():
            (root / part / name).mkdir(parents=True)
            Image.new("L", (8, 6), grey).save(root / part / name / "a.png")
            (root / part / name / "notes.txt").write_text("not a picture")
    return root


def test_a_folder_of_pictures_is_brought_to_the_network(tmp_path: Path) -> None:
    root = folder_of(tmp_path, {"train": {"dark": 10, "light": 240}, "test": {"light": 250}})
    data = load("own", path=root, shape=(4, 4, 1))
    assert data.names == ("dark", "light") and data.train.y.tolist() == [0, 1] and data.test.y.tolist() == [1]
    assert data.train.x.shape == (2, 4, 4, 1) and data.train.x[:, 0, 0, 0].tolist() == [10, 240] and data.test.x.min() == 250


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"test": {"a": 1}}, "cannot be read"),
        ({"train": {"a": 1}}, "cannot be read"),
        ({"train": {"a": 1}, "test": {"b": 1}}, "has the class b, which train has not"),
        ({"train": {}, "test": {}}, "cannot be read"),
    ],
)
def test_folders_that_do_not_fit_are_refused(parts: dict[str, dict[str, int]], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load("own", path=folder_of(tmp_path, parts), shape=(4, 4, 1))


def test_folders_without_classes_or_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="got no folder of a class in train"):
        load("own", path=tmp_path, shape=(4, 4, 1))
    (tmp_path / "train" / "a").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        load("own", path=tmp_path, shape=(4, 4, 1))


# -- by name -------------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no data set 'mnits', expected one of mnist, fashion_mnist, .*--data"):
        load("mnits")


def test_data_that_cannot_be_fetched_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    keras = pytest.importorskip("keras")

    def fail() -> None:
        raise Exception("URL fetch failure on https://example.org/mnist.npz: None -- no\nroute")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    said: list[str] = []
    with pytest.raises(InputError, match=r"could not be fetched through Keras: URL .* no route; check the connection, or give --data"):
        load("mnist", say=said.append)
    assert "mnist" in said[0]


def test_names_need_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    for name in SOURCES:
        if name != "clocks":
            with pytest.raises(MissingPackage, match="pip install tensorflow"):
                load(name)
