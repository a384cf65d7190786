"""SavedModel folders: one that Keras 2.15 saved (tests/fixtures/make_saved_model.py), and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge
from edge.converters.keras_file import read_keras
from edge.converters.saved_model import METADATA, _fields, _root
from edge.errors import ModelError

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / "saved_model", tmp_path / "net")
    return tmp_path / "net"


def test_a_saved_model_computes_what_keras_2_computed(folder: Path) -> None:
    pytest.importorskip("tensorflow", reason="the weights of a SavedModel are read through TensorFlow")
    edge.convert(folder, bits=32, formats="edge", input_dtype="float32")
    known = np.load(FIXTURES / "saved_model.npz")
    np.testing.assert_allclose(edge.load(folder.with_suffix(".edge")).run(known["x"]), known["y"], atol=1e-5)
    model = read_keras(folder)
    assert (model.name, model.keras_version, len(model.sha256)) == ("net", "2.15.0", 64)


def test_an_exported_folder_is_refused_with_what_to_do(folder: Path) -> None:
    (folder / METADATA).unlink()
    with pytest.raises(ModelError, match=r"^net: is a SavedModel folder without keras_metadata.pb: .*model.save\('model.keras'\)"):
        read_keras(folder)


def test_a_damaged_folder_is_refused(folder: Path) -> None:
    pytest.importorskip("tensorflow", reason="the weights of a SavedModel are read through TensorFlow")
    for file in (folder / "variables").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="TensorFlow cannot load it"):
        read_keras(folder)


@given(st.integers(0, 25_000), st.binary(min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_metadata_are_refused_or_read(place: int, garbage: bytes) -> None:
    data = (FIXTURES / "saved_model" / METADATA).read_bytes()
    for damaged in (data[:place], data[:place] + garbage + data[place + len(garbage) :], garbage):
        try:
            assert isinstance(_root(damaged), dict)
        except ModelError as err:
            assert "save" in str(err)


def test_fields_of_other_kinds_are_passed_over() -> None:
    assert list(_fields(b"\x08\x96\x01" + b"\x12\x02ab" + b"\x1d\x00\x00\x00\x00" + b"\x21" + bytes(8) + b"\x1a\x01c")) == [
        (2, b"ab"),
        (3, b"c"),
    ]
