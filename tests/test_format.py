"""The `.edge` file: what is written is read, damage is refused, old files stay readable, nothing is left half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_programs import GRAPHS, inputs_of, program
from smaps import SMAPS, holding

import edge
import edge.format
from edge.errors import EdgeError, FormatError, InputError
from edge.format import HEADER_BYTES, MAGIC, from_bytes, is_edge_file, read, to_bytes, write
from edge.kernels.reference import run_program
from edge.lower import to_program
from edge.verifier import verify

DATA = Path(__file__).parent / "data"
SMALL = to_bytes(program("digits"))


def resealed(data: bytes) -> bytes:
    """`data` with the checksum it should have."""
    return data[:32] + hashlib.sha256(data[:32] + data[64:]).digest() + data[64:]


def patched(offset: int, form: str, *values: object) -> bytes:
    """The small file with a field replaced and the checksum repaired."""
    data = bytearray(SMALL)
    struct.pack_into(form, data, offset, *values)
    return resealed(bytes(data))


def with_text(text: bytes) -> bytes:
    """The small file with other text, everything else made to fit."""
    fields = struct.unpack_from("<8q", SMALL, 64)
    tensors, constants, inputs, outputs, words, text_bytes, _, _ = fields
    start = HEADER_BYTES + 8 * (12 * tensors + 8 * constants + inputs + outputs + words)
    blob = SMALL[-(-(start + text_bytes) // 64) * 64 :]
    body = SMALL[:start] + text + bytes(-(start + len(text)) % 64) + blob
    header = bytearray(body)
    struct.pack_into("<q", header, 16, len(body))
    struct.pack_into("<q", header, 104, len(text))
    return resealed(bytes(header))


# -- what is written is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_reading_is_the_inverse_of_writing(name: str, tmp_path: Path) -> None:
    made = program(name)
    write(made, tmp_path / "net.edge")
    got = read(tmp_path / "net.edge")
    for field in ("tensors", "constants", "instructions", "inputs", "outputs", "arena_bytes", "layers", "metadata"):
        assert getattr(got, field) == getattr(made, field)
    np.testing.assert_array_equal(got.blob, made.blob)
    assert to_bytes(got) == to_bytes(made) == (tmp_path / "net.edge").read_bytes()


@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_graph_gives_the_same_bytes(name: str) -> None:
    assert to_bytes(to_program(GRAPHS[name]())) == to_bytes(to_program(GRAPHS[name]()))


def test_a_network_of_ten_instructions_takes_little_beside_its_constants() -> None:
    assert len(SMALL) - program("digits").blob.nbytes < 6 * 1024


@pytest.mark.parametrize("mmap", [False, True])
def test_constants_are_aligned_and_read_only(mmap: bool, tmp_path: Path) -> None:
    write(program("residual"), tmp_path / "net.edge")
    blob = read(tmp_path / "net.edge", mmap=mmap).blob
    assert blob.ctypes.data % 64 == 0 and not blob.flags.writeable
    np.testing.assert_array_equal(blob, program("residual").blob)


def test_a_file_that_fills_its_last_page_is_copied_and_not_mapped(tmp_path: Path) -> None:
    """There is nothing to map behind it that vector loads could read."""
    made = program("residual")
    rest = -(len(to_bytes(made)) + 16) % edge.format.mapping.PAGESIZE
    blob = np.concatenate([made.blob, np.zeros(rest, np.uint8)])
    write(replace(made, blob=blob), tmp_path / "net.edge")
    assert -os.path.getsize(tmp_path / "net.edge") % edge.format.mapping.PAGESIZE == 16
    got = read(tmp_path / "net.edge", mmap=True).blob
    if SMAPS.exists():
        (mapping,) = holding([got])
        assert not mapping.file and mapping.size_bytes >= blob.nbytes + 64


def test_text_with_any_letters_survives() -> None:
    made = replace(program("digits"), metadata={"labels": ["häuser", "\U0001f600", 'quote"', "\\"], "range": [0.1, -1e-9], "none": None})
    assert from_bytes(to_bytes(made)).metadata == made.metadata


# -- damage --------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    data = bytearray(SMALL)
    data[position] ^= change
    with pytest.raises(FormatError):
        from_bytes(bytes(data))


@given(st.integers(0, len(SMALL) - 1))
def test_a_file_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match=r"cut off|no \.edge file"):
        from_bytes(SMALL[:length])


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(FormatError, match="added to"):
        from_bytes(SMALL + b"\0")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        from_bytes(data)
    with pytest.raises(FormatError):
        from_bytes(MAGIC + data)


@pytest.mark.parametrize(
    ("major", "minor", "since", "readable"),
    [(1, 0, 0, True), (1, 9, 1, True), (1, 9, 4, True), (1, 9, 5, False), (2, 0, 0, False), (0, 0, 0, False)],
)
def test_versions(major: int, minor: int, since: int, readable: bool) -> None:
    data = patched(8, "<3H", major, minor, since)
    if readable:
        assert from_bytes(data).tensors == program("digits").tensors
    else:
        with pytest.raises(FormatError, match=rf"got {major}\.{minor}; use the version of edge that wrote it or a newer one"):
            from_bytes(data)


@pytest.mark.parametrize("offset", [14, 120])
def test_reserved_fields_must_be_zero(offset: int) -> None:
    with pytest.raises(FormatError, match="reserved"):
        from_bytes(patched(offset, "<H", 1))


@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", [-1, 0, 1 << 31, (1 << 63) - 1])
def test_counts_that_do_not_fit_the_file_are_refused(field: int, value: int) -> None:
    with pytest.raises(FormatError, match=r"expected 0 to \d+|its parts take|padding"):
        from_bytes(patched(64 + 8 * field, "<q", value))


def test_padding_must_be_zero() -> None:
    text_bytes, blob_bytes = struct.unpack_from("<2q", SMALL, 104)
    start = len(SMALL) - blob_bytes
    assert SMALL[start - 1] == 0 and text_bytes % 64, "the file has padding"
    with pytest.raises(FormatError, match="padding"):
        from_bytes(patched(start - 1, "<B", 1))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (HEADER_BYTES, 99, "tensor 0: encoding 99 is unknown"),
        (HEADER_BYTES + 8, 4, "tensor 0: rank 4"),
        (HEADER_BYTES + 8, 1, "tensor 0: rank 1 and sizes"),
        (HEADER_BYTES + 40, 1 << 32, "tensor 0: 4294967296 does not hold the bits of a float32"),
    ],
)
def test_words_that_are_no_record_are_named(offset: int, value: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        from_bytes(patched(offset, "<q", value))


def test_an_unknown_operation_is_named() -> None:
    tensors, constants, inputs, outputs = struct.unpack_from("<4q", SMALL, 64)
    offset = HEADER_BYTES + 8 * (12 * tensors + 8 * constants + inputs + outputs)
    with pytest.raises(FormatError, match="instruction 0: operation 77 is unknown"):
        from_bytes(patched(offset, "<q", 77))
    with pytest.raises(FormatError, match="instruction 0: 1000000 words were expected where"):
        from_bytes(patched(offset + 8, "<q", 10**6))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers":[],"metadata":[]}',
        b'{"layers":[[1]],"metadata":{}}',
        b'{"layers":{},"metadata":{}}',
        b'{"layers":[],"metadata":{"x":NaN}}',
        b'{"layers":[],"metadata":{"x":1e999}}',
        b'{"layers":[],"metadata":{"x":"\\ud800"}}',
        b'{"layers":[],"metadata":{"x":"\xc3\xa4"}}',
        b'{"layers":[],"metadata":{"x":' + b"9" * 5000 + b"}}",
        b'{"layers":[],"metadata":{"x":' + b"[" * 40 + b"]" * 40 + b"}}",
        b'{"layers":[],"metadata":{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}}",
    ],
)
def test_text_of_another_form_is_refused(text: bytes) -> None:
    assert from_bytes(with_text(b'{"layers":[],"metadata":{"x":1}}')).metadata == {"x": 1}
    with pytest.raises(FormatError):
        from_bytes(with_text(text))


def test_metadata_that_could_not_be_read_again_are_not_written() -> None:
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(FormatError, match="nested at most 32 deep"):
        to_bytes(replace(program("digits"), metadata={"x": deep}))


# -- files ---------------------------------------------------------------------------------------------------------------------


def test_edge_files_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "yes").write_bytes(SMALL)
    (tmp_path / "no").write_bytes(b"PNG")
    assert is_edge_file(tmp_path / "yes")
    assert not is_edge_file(tmp_path / "no") and not is_edge_file(tmp_path) and not is_edge_file(tmp_path / "missing")


def test_a_file_that_cannot_be_read_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none"):
        read(tmp_path / "missing.edge")
    (tmp_path / "picture.edge").write_bytes(b"\x89PNG")
    with pytest.raises(FormatError, match=r"cannot read .*picture.edge: it is no .edge file"):
        read(tmp_path / "picture.edge")


def test_writing_replaces_a_file_and_keeps_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.edge").write_bytes(b"old")
    (tmp_path / "link.edge").symlink_to("real.edge")
    write(program("digits"), tmp_path / "link.edge")
    assert (tmp_path / "link.edge").is_symlink() and (tmp_path / "real.edge").read_bytes() == SMALL
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link.edge", "real.edge"]


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.edge").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeError, match=r"net.edge: No space left on device; nothing was changed; make room"):
        write(program("digits"), tmp_path / "net.edge")
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.edge"] and (tmp_path / "net.edge").read_bytes() == b"old"


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(program("digits"), tmp_path / "net.edge")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="make the folder first"):
        write(program("digits"), tmp_path / "missing" / "net.edge")


# -- old files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DATA.glob("golden-*.edge")), ids=lambda path: path.stem)
def test_golden_files_are_read_and_give_the_recorded_outputs(path: Path) -> None:
    golden = read(path)
    verify(golden)
    recorded = json.loads(path.with_suffix(".json").read_text())
    inputs = [np.array(x, value.dtype) for x, value in zip(recorded["inputs"], inputs_of(golden), strict=True)]
    values = run_program(golden, inputs)
    for number, expected in zip(golden.outputs, recorded["outputs"], strict=True):
        np.testing.assert_array_equal(values[number], np.array(expected, np.float32))
    outputs = edge.load(path).run(inputs[0])
    for output, expected in zip(outputs, recorded["outputs"], strict=True):
        np.testing.assert_allclose(output, np.array(expected, np.float32), rtol=1e-5, atol=1e-6)


def test_there_is_a_golden_file_of_this_version() -> None:
    golden = DATA / f"golden-{edge.format.MAJOR}.{edge.format.MINOR}.edge"
    assert golden.exists(), "run python tests/make_golden.py and commit what it writes"
    assert to_bytes(read(golden)) == golden.read_bytes()
