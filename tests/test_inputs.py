"""Files, folders and arrays to named items; hostile array files to one sentence."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from edge.arrays import npz_header
from edge.errors import InputError
from edge.inputs import Item, expand_inputs

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist.npz"
RANDOM = np.random.default_rng(3)


def picture(folder: Path, name: str, level: int = 0) -> Path:
    path = folder / name
    Image.new("L", (4, 3), level).save(path, format="PNG")
    return path


def stored(folder: Path, array: np.ndarray, name: str = "x.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


def header_bytes(descr: str, shape: str, fortran: str = "False") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def names(items: Any) -> list[str]:
    return [item.name for item in items]


def test_files_and_folders_keep_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt"):
        picture(folder, name)
    (folder / "deeper.png").mkdir()
    single = picture(tmp_path, "z.dat", level=9)
    inputs = expand_inputs([single, str(folder)])
    assert len(inputs) == 3
    assert names(inputs) == [str(single), str(folder / "a.jpeg"), str(folder / "b.PNG")]
    first = next(iter(inputs))
    assert first.is_picture and first.label is None and (first.read() == 9).all()


def test_one_damaged_picture_leaves_the_others_readable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    picture(tmp_path, "b.png")
    first, second = expand_inputs([tmp_path])
    with pytest.raises(InputError, match=r"a\.png"):
        first.read()
    assert second.read().shape == (3, 4, 1)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path, ".hidden.png")
    for paths, words in (
        ([], "no input"),
        ([""], "has no name"),
        ([tmp_path], "no picture in the folder"),
        ([tmp_path / "no"], "there is none"),
    ):
        with pytest.raises(InputError, match=words):
            expand_inputs(paths)


@pytest.mark.parametrize(
    ("shape", "count", "item"),
    [((6, 5, 4, 3), 6, (5, 4, 3)), ((6, 5, 4, 1), 6, (5, 4, 1)), ((5, 4, 3), 1, (5, 4, 3)), ((5, 4, 1), 1, (5, 4, 1)),
     ((5, 4), 1, (5, 4, 1)), ((6, 5, 4), 6, (5, 4, 1))],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_divided_by_its_shape(
    tmp_path: Path, shape: Any, count: int, item: Any, suffix: str, dtype: Any, order: Any
) -> None:
    array = np.asarray(RANDOM.integers(0, 256, shape), dtype=dtype, order=order)
    path = tmp_path / f"x.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez_compressed(path, pictures=array)
    inputs = expand_inputs([path])
    values = [entry.read() for entry in inputs]
    assert len(inputs) == len(values) == count and values[0].shape == item
    assert values[0].dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert {entry.is_picture for entry in inputs} == {dtype == np.uint8}
    np.testing.assert_array_equal(np.stack(values).reshape(shape), array)


def test_items_of_an_array_are_numbered(tmp_path: Path) -> None:
    path = stored(tmp_path, np.zeros((2, 4, 4, 1), np.uint8))
    assert names(expand_inputs([path])) == [f"{path}[0]", f"{path}[1]"]
    single = stored(tmp_path, np.zeros((4, 4), np.uint8), "single.npy")
    assert names(expand_inputs([single])) == [str(single)]


def test_the_nets_shape_decides_how_floats_divide(tmp_path: Path) -> None:
    many = stored(tmp_path, np.zeros((7, 784), np.float32), "many.npy")
    assert [item.read().shape for item in expand_inputs([many], shape=(784,))] == [(784,)] * 7
    one = stored(tmp_path, np.zeros((49, 10, 2), np.float32), "one.npy")
    assert [item.read().shape for item in expand_inputs([one], shape=(49, 10, 2))] == [(49, 10, 2)]
    assert [item.read().shape for item in expand_inputs([one], shape=(10, 2))] == [(10, 2)] * 49


def test_the_array_and_its_labels_are_found_in_an_archive(tmp_path: Path) -> None:
    test, train = np.zeros((2, 4, 4, 1), np.uint8), np.ones((3, 4, 4, 1), np.uint8)
    path = tmp_path / "data.npz"
    classes = np.array(["cat", "dog"])
    np.savez(path, x_train=train, y_train=[0, 1, 0], x_test=test, y_test=np.array([[1], [0]]), classes=classes)
    assert [item.label for item in expand_inputs([path])] == [1, 0]
    assert names(expand_inputs([path])) == [f"{path}:x_test[0]", f"{path}:x_test[1]"]
    chosen = list(expand_inputs([path], array_names=("x_train", "x")))
    assert [item.label for item in chosen] == [0, 1, 0] and chosen[0].read().all()


@pytest.mark.parametrize(
    "targets",
    [
        np.zeros((2, 3), np.int64), np.zeros(2, np.float32), np.array(["a", "b"]), np.array([0, None], object),
        np.array([[1, 0], [1, 1]]), np.array([[0.5, 0.5], [0, 1]]), np.zeros((2, 1, 1), np.uint8),
    ],
)  # fmt: skip
def test_targets_that_are_no_classes_are_no_labels(tmp_path: Path, targets: np.ndarray) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((2, 4, 4), np.uint8), y=targets)
    inputs = expand_inputs([path])
    assert [item.label for item in inputs] == [None, None]
    (remark,) = inputs.remarks
    assert f"the labels of {path}:x are not used" in remark


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_one_hot_rows_are_labels(tmp_path: Path, kind: type[np.generic]) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((3, 4, 4), np.uint8), y=np.eye(4, dtype=kind)[[2, 0, 3]])
    inputs = expand_inputs([path])
    assert [item.label for item in inputs] == [2, 0, 3] and not inputs.remarks


@pytest.mark.parametrize("labels", [[1, 2], [-1, 0]])
def test_labels_beyond_the_classes_are_not_used(tmp_path: Path, labels: list[int]) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((2, 4, 4), np.uint8), y=labels)
    inputs = expand_inputs([path]).labelled_for(2)
    assert [item.label for item in inputs] == [None, None] and "expected classes 0 to 1" in inputs.remarks[0]
    assert [item.label for item in expand_inputs([path]).labelled_for(3)] == (labels if labels[0] > 0 else [None, None])


def test_the_only_array_that_can_be_pictures_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, digits=np.zeros((2, 4, 4), np.uint8), labels=[3, 4], names=np.array(["a", "b"]), scale=np.ones(3))
    assert [item.label for item in expand_inputs([path])] == [3, 4]
    np.savez(path, a=np.zeros((2, 4, 4), np.uint8), b=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"cannot tell which array .* got a, b; .*x_test"):
        expand_inputs([path])


def test_labels_of_another_number_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((2, 4, 4), np.uint8), y=[1, 2, 3])
    with pytest.raises(InputError, match=r"expected 2 labels in y .* got 3"):
        expand_inputs([path])


@pytest.mark.parametrize("array", [
    np.zeros((2, 3, 4, 5, 1), np.uint8), np.zeros(5, np.uint8), np.zeros((2, 4, 4, 2), np.uint8), np.array(5.0),
    np.zeros((0, 4, 4, 1), np.uint8), np.zeros((2, 4, 4), np.int64), np.zeros((4, 4), bool), np.array(["a", "b"]),
    np.zeros((4, 4), np.complex64), np.array([{}, []], dtype=object), np.zeros(3, dtype=[("a", "u1")]),
    np.zeros((2, 2), "datetime64[s]"), np.zeros((1, 4, 0, 3), np.float32),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_that_are_no_inputs_are_refused(tmp_path: Path, array: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    np.save(path, array, allow_pickle=True) if suffix == "npy" else np.savez(path, x=array)
    with pytest.raises(InputError, match=r"cannot read .*expected"):
        expand_inputs([path])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_no_net_can_see_are_refused(tmp_path: Path, value: float) -> None:
    array = np.zeros((3, 4, 4, 1))
    array[1, 2, 3, 0] = value
    first, second, third = expand_inputs([stored(tmp_path, array)])
    assert not first.read().any() and not third.read().any()
    with pytest.raises(InputError, match=r"x\.npy\[1\] holds NaN or infinite"):
        second.read()


HEADERS = [
    header_bytes("'|u1'", "(1000000000000, 28, 28, 1)"),
    header_bytes("'<f4'", "(9223372036854775807, 9223372036854775807, 3)"),
    header_bytes("'|u1'", "(-1, 28, 28, 1)"),
    header_bytes("'|u1'", "(2, 28, 28, 1.5)"),
    header_bytes("'|u1'", "'four'"),
    header_bytes("'|u1'", "(2, 28, 28, 1)", "3"),
    header_bytes("'|O'", "(2, 2)"),
    header_bytes("[('a', '|O')]", "(2, 2)"),
    header_bytes("'nonsense'", "(2, 2)"),
    header_bytes("(" * 900, "(2, 2)"),
    b"\x93NUMPY\x01\x00\xff\xff{}",
    b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{}",
    b"\x93NUMPY\x07\x00",
    b"\x93NUM",
    b"",
    b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00",
    b"cos\nsystem\n(S'true'\ntR.",
]


@pytest.mark.parametrize("content", HEADERS)
def test_hostile_headers_are_refused_before_memory_is_asked_for(tmp_path: Path, content: bytes) -> None:
    npy, npz = tmp_path / "x.npy", tmp_path / "x.npz"
    npy.write_bytes(content + bytes(64))
    with zipfile.ZipFile(npz, "w") as archive:
        archive.writestr("x.npy", content + bytes(64))
    for path in (npy, npz):
        tracemalloc.start()
        with pytest.raises(InputError, match="cannot read"):
            next(iter(expand_inputs([path])))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 2_000_000


def test_a_file_cut_short_says_so(tmp_path: Path) -> None:
    path = stored(tmp_path, np.zeros((9, 8, 8, 1), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"expected 576 bytes .* got 575; the file was cut short"):
        expand_inputs([path])
    path.write_bytes(content)
    *_, last = expand_inputs([path])
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="cut short"):
        last.read()
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        last.read()


def test_a_small_archive_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header_bytes("'<f8'", "(3000, 1000, 1000, 1)"))
    with pytest.raises(InputError, match=r"at most 2 GiB at once.*save it as \.npy"):
        next(iter(expand_inputs([path])))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz"):
        expand_inputs([path])


def test_an_archive_of_an_unknown_or_encrypted_kind_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.savez(content, x=np.zeros((2, 4, 4), np.uint8))
    for name, offset, value in (("method", 10, 93), ("flags", 8, 1)):
        changed = bytearray(content.getvalue())
        changed[changed.index(b"PK\x01\x02") + offset] = value
        path = tmp_path / f"{name}.npz"
        path.write_bytes(changed)
        with pytest.raises(InputError, match="damaged or of another kind"):
            expand_inputs([path])


def test_a_wrong_checksum_and_surplus_values_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header_bytes("'|u1'", "(2, 4, 4, 1)") + bytes(33))
    with pytest.raises(InputError, match="longer than its header says"):
        next(iter(expand_inputs([path])))
    np.savez(path, x=np.full((2, 4, 4, 1), 7, np.uint8))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x07" * 32, b"\x07" * 31 + b"\x08"))
    with pytest.raises(InputError, match="damaged"):
        next(iter(expand_inputs([path])))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["npy", "npz", "deflated"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    st.none() | st.integers(0, 10**6),
)
def test_changed_bytes_are_read_or_refused(
    tmp_path: Path, kind: str, changes: list[tuple[int, int]], cut: int | None
) -> None:
    array = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    path = tmp_path / f"x.{'npy' if kind == 'npy' else 'npz'}"
    if kind == "npy":
        np.save(path, array)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, x=array, y=[0, 1])
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content[: None if cut is None else cut % len(content)])
    try:
        values = [item.read() for item in expand_inputs([path])]
    except InputError as err:
        assert str(path) in str(err) and len(str(err)) < 600 + len(str(path))
    else:
        assert all(value.dtype in (np.uint8, np.float32) for value in values)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(np.float32, array_shapes(min_dims=4, max_dims=4, max_side=5), elements=st.floats(-9, 9, width=32)))
def test_floats_reach_the_net_bit_for_bit(tmp_path: Path, array: np.ndarray) -> None:
    items: list[Item] = list(expand_inputs([stored(tmp_path, array)]))
    np.testing.assert_array_equal(np.stack([item.read() for item in items]), array)


@pytest.mark.skipif(not MNIST.exists(), reason="needs ../shared/data/mnist.npz")
def test_mnist_is_read_with_its_labels() -> None:
    inputs = expand_inputs([MNIST])
    items = list(inputs)
    assert len(inputs) == len(items) == 10_000 and [item.label for item in items[:4]] == [7, 2, 1, 0]
    assert items[0].is_picture and items[0].read().shape == (28, 28, 1)
    assert npz_header(MNIST, "x_test").shape == (10_000, 28, 28, 1)
