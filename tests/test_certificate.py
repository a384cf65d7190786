"""The certificate of a `.edge` file: what it is bound to, who may write it, and what hostile ones do."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits_files import DIGITS
from digits_files import compared as compared  # fixtures
from digits_files import digits as digits
from digits_files import signed as signed
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import dense, write_h5
from run_models import invoke
from sample_programs import program

import edge
from edge import self_check
from edge.certificate import KEY, Certificate, program_sha256, read_certificate, repeat_file, state, void_reason, with_certificate
from edge.compare import Comparison, compare
from edge.compare_sign_off import sign_off
from edge.errors import EdgeError, FormatError, InputError
from edge.format import from_bytes, read, to_bytes, write
from edge.program import Program

# -- writing ---------------------------------------------------------------------------------------------------------------------


def test_a_certificate_says_what_was_compared(signed: Path, compared: Comparison) -> None:
    certificate = read_certificate(read(signed))
    assert certificate is not None and void_reason(read(signed), certificate) is None
    assert (certificate.oracle, certificate.source, certificate.examples, certificate.seed) == ("Keras 3.0 on tests", "digits.h5", 3, 0)
    assert (certificate.data_sha256, certificate.source_sha256) == (compared.data_sha256, compared.source_sha256)
    assert certificate.precision == "exact" and certificate.tolerance == {"layer": 1e-4, "output": 1e-4, "tie_ulp": 8}
    assert certificate.result["flipped_signs"] == 0 and certificate.verdict == "equal to its source on 3 examples"
    assert certificate.date.endswith("+00:00")


def test_a_signed_file_computes_and_verifies_as_before(signed: Path, digits: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    assert np.array_equal(edge.load(signed).run(picture), edge.load(digits).run(picture))
    assert compare(DIGITS, signed, keras=False, count=2).equal
    assert program_sha256(read(signed)) == program_sha256(read(digits))


def test_signing_again_replaces_the_certificate(signed: Path, compared: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "again.edge"
    path.write_bytes(signed.read_bytes())
    sign_off(replace(compared, converted=str(path), oracle="Keras 4.0 on tests"))
    certificate = read_certificate(read(path))
    assert certificate is not None and certificate.oracle == "Keras 4.0 on tests"
    assert abs(path.stat().st_size - signed.stat().st_size) < 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"oracle_is_keras": False, "oracle_note": "Keras is not installed"}, "Keras is not installed"),
        ({"equal": False, "verdict": "layer conv2 differs from its source"}, "layer conv2 differs"),
        ({"program_sha256": None}, "only a .edge file"),
        ({"program_sha256": "0" * 64}, "changed while it was compared"),
        ({"layers": ()}, "keeps no names of tensors"),
    ],
)
def test_nothing_is_signed_off_without_a_reason_to(digits: Path, compared: Comparison, change: dict[str, Any], reason: str) -> None:
    before = digits.read_bytes()
    with pytest.raises(EdgeError, match=reason):
        sign_off(replace(compared, **change))
    assert digits.read_bytes() == before


def test_a_file_that_cannot_be_written_stays_as_it_was(digits: Path, compared: Comparison, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    path = tmp_path / "digits.edge"
    path.write_bytes(digits.read_bytes())
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(EdgeError, match="nothing was changed"):
            sign_off(replace(compared, converted=str(path)))
        assert path.read_bytes() == digits.read_bytes() and list(tmp_path.iterdir()) == [path]
    finally:
        tmp_path.chmod(stat.S_IRWXU)


# -- what it is bound to ---------------------------------------------------------------------------------------------------------


def certified(stored: Program) -> Program:
    check = self_check.SelfCheck(0, (0.0, 1.0), {}, (), ())
    texts = {name: "" for name in ("source", "source_sha256", "oracle", "data", "data_sha256", "precision", "verdict", "date", "edge")}
    made = Certificate(program_sha256(stored), **texts, machine="", examples=1, seed=None, tolerance={}, result={}, check=check)
    return with_certificate(stored, made)


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ["digits", "residual", "int8"])
def test_any_flipped_bit_voids_the_certificate(name: str, data: st.DataObject) -> None:
    """Of a constant, a tensor, an instruction, a name, a size: of every byte behind the header but the certificate's own."""
    stored = program(name)
    blob = stored.blob.copy()
    bit = data.draw(st.integers(0, 8 * len(blob) - 1), label="bit")
    blob[bit // 8] ^= 1 << bit % 8
    assert program_sha256(replace(stored, blob=blob)) != program_sha256(stored)
    for change in (_other_instruction, _other_tensor, _other_name, _other_metadata):
        assert program_sha256(change(stored, data)) != program_sha256(stored), change.__name__
    assert program_sha256(certified(stored)) == program_sha256(stored)


def _other_instruction(stored: Program, data: st.DataObject) -> Program:
    number = data.draw(st.integers(0, len(stored.instructions) - 1), label="instruction")
    old = stored.instructions[number]
    attrs = [i for i, name in enumerate(old.definition.attrs) if name not in old.definition.floats]
    if attrs:
        which = data.draw(st.sampled_from(attrs), label="attribute")
        bit = 1 << data.draw(st.integers(0, 30), label="attribute's bit")
        new = replace(old, attrs=(*old.attrs[:which], int(old.attrs[which]) ^ bit, *old.attrs[which + 1 :]))
    else:
        new = replace(old, output=old.output ^ (1 << data.draw(st.integers(0, 20), label="output's bit")))
    return replace(stored, instructions=(*stored.instructions[:number], new, *stored.instructions[number + 1 :]))


def _other_tensor(stored: Program, data: st.DataObject) -> Program:
    number = data.draw(st.integers(0, len(stored.tensors) - 1), label="tensor")
    bit = 64 << data.draw(st.integers(0, 20), label="offset's bit")
    moved = replace(stored.tensors[number], offset=stored.tensors[number].offset ^ bit)
    return replace(stored, tensors=(*stored.tensors[:number], moved, *stored.tensors[number + 1 :]))


def _other_name(stored: Program, data: st.DataObject) -> Program:
    return replace(stored, layers=(("renamed",), *stored.layers[1:]))


def _other_metadata(stored: Program, data: st.DataObject) -> Program:
    return replace(stored, metadata={**stored.metadata, "preprocess": {"range": [0, data.draw(st.integers(2, 255), label="range")]}})


def test_writing_a_file_again_keeps_its_certificate(signed: Path) -> None:
    """Also by a version of the format that writes another header."""
    stored = from_bytes(to_bytes(read(signed)))
    assert state(stored)["state"] == "valid"


def test_the_hash_knows_what_the_parts_are_called_apart() -> None:
    """Moving a number from the inputs to the outputs changes no byte but the counts."""
    stored = program("digits")
    other = replace(stored, inputs=(), outputs=(*stored.inputs, *stored.outputs))
    assert program_sha256(other) != program_sha256(stored)


# -- hostile ones ----------------------------------------------------------------------------------------------------------------


def edited(signed: Path, change: Callable[[dict[str, Any]], object]) -> Program:
    stored = read(signed)
    certificate = json.loads(json.dumps(stored.metadata[KEY]))
    change(certificate)
    return replace(stored, metadata={**stored.metadata, KEY: certificate})


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.clear(),
        lambda c: c.pop("oracle"),
        lambda c: c.update(oracle=7),
        lambda c: c.update(oracle="x" * 5000),
        lambda c: c.update(examples=-1),
        lambda c: c.update(examples=1 << 70),
        lambda c: c.update(examples=True),
        lambda c: c.update(seed="0"),
        lambda c: c.update(tolerance=[1]),
        lambda c: c.update(tolerance={"layer": "0"}),
        lambda c: c.update(result={"accuracy": {}}),
        lambda c: c.update(check=None),
        lambda c: c["check"].update(generator="mt19937"),
        lambda c: c["check"].update(seed=-1),
        lambda c: c["check"].update(seed=1 << 64),
        lambda c: c["check"].update(domain=[1.0]),
        lambda c: c["check"].update(domain=[1.0, 0.0]),
        lambda c: c["check"].update(domain=[0.0, 1e308]),
        lambda c: c["check"].update(ranges=[]),
        lambda c: c["check"].update(ranges={"one": [0.0, 1.0]}),
        lambda c: c["check"].update(ranges={"1": [0.0, None]}),
        lambda c: c["check"].update(operations={}),
        lambda c: c["check"]["operations"].pop(),
        lambda c: c["check"]["operations"].append([[0.0] * 5]),
        lambda c: c["check"]["operations"].__setitem__(0, 3),
        lambda c: c["check"]["operations"].__setitem__(-1, [[0.0] * 4]),
        lambda c: c["check"]["operations"].__setitem__(-1, [["0"] * 5]),
        lambda c: c["check"].update(networks=[[[0.0] * 5]] * 5000),
        lambda c: c["check"].update(networks=[[]]),
    ],
)
def test_a_damaged_certificate_is_a_sentence(signed: Path, change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    stored = edited(signed, change)
    with pytest.raises(FormatError, match="its certificate is damaged"):
        read_certificate(stored)
    assert state(stored)["state"] == "damaged"
    path = tmp_path / "odd.edge"
    write(stored, path)
    result = invoke("verify", "--self", path)
    assert result.exit_code == 1 and "certificate is damaged" in result.stderr and result.stderr.count("\n") == 1
    assert "certificate is damaged" in invoke("inspect", path).stdout


@pytest.mark.parametrize("stored", [[], "certificate", 1, True])
def test_a_certificate_that_is_no_object_is_damaged(digits: Path, stored: Any) -> None:
    found = read(digits)
    with pytest.raises(FormatError, match="expected an object"):
        read_certificate(replace(found, metadata={**found.metadata, KEY: stored}))


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8), lambda inner:
                     st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(value=_JSON, data=st.data())
def test_no_certificate_is_worse_than_a_sentence(signed: Path, value: Any, data: st.DataObject) -> None:
    """Whatever stands in any place of it."""
    stored = read(signed)
    fields = [(KEY,), *((KEY, name) for name in stored.metadata[KEY]), *((KEY, "check", name) for name in stored.metadata[KEY]["check"])]
    place = data.draw(st.sampled_from(fields))
    metadata = json.loads(json.dumps(dict(stored.metadata)))
    inner = metadata
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    assert state(replace(stored, metadata=metadata))["state"] in ("none", "valid", "void", "damaged")


def test_an_edited_file_has_a_void_certificate(signed: Path, tmp_path: Path) -> None:
    stored = read(signed)
    blob = stored.blob.copy()
    blob[100] ^= 1
    path = tmp_path / "edited.edge"
    write(replace(stored, blob=blob), path)
    assert state(read(path))["state"] == "void"
    shown = invoke("inspect", path)
    assert shown.exit_code == 0 and "VOID, the file was edited after it was signed off" in shown.stdout
    assert json.loads(invoke("inspect", path, "--json").stdout)["certificate"]["state"] == "void"
    result = invoke("verify", "--self", path)
    assert result.exit_code == 1 and "is void: the file was edited" in result.stderr


# -- the command -----------------------------------------------------------------------------------------------------------------


def test_the_command_signs_off_where_keras_is(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    pytest.importorskip("keras")
    path = tmp_path / "digits.edge"
    path.write_bytes(digits.read_bytes())
    result = invoke("verify", DIGITS, path, digits.with_suffix(".tflite"), "--count", 3, "--sign-off", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [each["equal"] for each in document["comparisons"]] == [True, True]
    assert document["certificate"]["oracle"].startswith("Keras 3") and state(read(path))["state"] == "valid"
    assert "equal to its source on 3 examples; Keras 3" in invoke("inspect", path).stdout
    repeated = invoke("verify", "--self", path)
    assert repeated.exit_code == 0 and "4 inferences give on" in repeated.stdout


def test_a_file_that_differs_is_not_signed_off(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    stored = read(digits)
    blob = stored.blob.copy()
    blob[: len(blob) // 2] ^= 0x11
    path = tmp_path / "digits.edge"
    write(replace(stored, blob=blob), path)
    before = path.read_bytes()
    result = invoke("verify", DIGITS, path, "--count", 2, "--sign-off")
    assert result.exit_code == 1 and "nothing was signed off" in result.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--self", "{edge}", "--sign-off"], 2, "takes no --sign-off"),
        (["--self", "{edge}", "--seed", "1", "--data", "x.npz"], 2, "takes no --seed, --data"),
        (["--self", "{edge}"], 1, "holds no certificate"),
        (["--self", "{tflite}"], 1, "only a .edge file can be checked by itself"),
        (["--self", "{keras}"], 1, "only a .edge file can be checked by itself"),
        (["--self", "nothing.edge"], 1, "nothing.edge"),
        (["{edge}"], 2, "--self FILE"),
        (["{edge}", "{edge}", "--oracle", "reference"], 1, "name the model it was made from"),
        (["{keras}", "{keras}"], 1, "has to be converted before it runs"),
        (["{keras}", "{tflite}", "--sign-off"], 1, "writes into one .edge file, got 0"),
        (["{keras}", "{edge}", "{edge}", "--sign-off"], 1, "writes into one .edge file, got 2"),
        (["{keras}", "{edge}", "--sign-off", "--oracle", "reference"], 1, "needs Keras"),
        (["{keras}", "{edge}", "--html", "{edge}"], 1, "is among the files that are read or written"),
        (["{keras}", "{edge}", "--data", "{keras}", "--html", "{keras}"], 1, "is among the files that are read or written"),
        (["{keras}", "{edge}", "--html", "nowhere/page.html"], 1, "there is no folder nowhere; make it first"),
    ],
)
def test_wrong_use_is_a_sentence(digits: Path, arguments: list[str], code: int, reason: str) -> None:
    places = {"edge": digits, "tflite": digits.with_suffix(".tflite"), "keras": DIGITS}
    result = invoke("verify", *(argument.format(**places) for argument in arguments))
    assert result.exit_code == code and reason in result.stderr, result.stderr


def test_a_source_of_another_network_signs_nothing_off(tmp_path: Path) -> None:
    """With the same shapes, so that it can be compared at all."""
    for source, scale in (("one", 1.0), ("two", 1.5)):
        write_h5(tmp_path / f"{source}.h5", [dense("middle", np.eye(3, dtype=np.float32) * np.float32(scale))], (3,))
        edge.convert(tmp_path / f"{source}.h5", bits=32, formats=("edge",))
    comparison = replace(compare(tmp_path / "one.h5", tmp_path / "two.edge", keras=False), oracle_is_keras=True)
    with pytest.raises(EdgeError, match="made from another file"):
        sign_off(comparison)


def test_a_truncated_file_is_refused_before_its_certificate_is_read(signed: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.edge"
    path.write_bytes(signed.read_bytes()[:-7])
    result = invoke("verify", "--self", path)
    assert result.exit_code == 1 and "cut off" in result.stderr


def test_input_errors_are_input_errors(digits: Path) -> None:
    with pytest.raises(InputError, match="holds no certificate"):
        repeat_file(digits)
