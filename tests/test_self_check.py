"""Repeating a certificate by itself: every instruction alone, and the whole network, on this machine and on devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits_files import DIGITS, EXAMPLES
from digits_files import compared as compared  # fixtures
from digits_files import digits as digits
from digits_files import signed as signed
from run_models import invoke
from sample_programs import GRAPHS, program

from edge import self_check
from edge.build import build_library
from edge.bundle_runtime import runtime_modules, runtime_sources
from edge.certificate import repeat_file
from edge.engine import Engine
from edge.errors import EdgeError
from edge.format import read, write
from edge.kernels.features import host_architecture
from edge.kernels.isa import available, detect
from edge.kernels.linker import find_linkers
from edge.known_answer import FILE, check, record
from edge.tensors import Encoding

# -- repeating -------------------------------------------------------------------------------------------------------------------


def test_a_certificate_is_repeated_without_its_source(signed: Path) -> None:
    certificate, outcome = repeat_file(signed)
    assert not outcome.wrong and not outcome.note
    assert (outcome.operations, outcome.networks) == (len(read(signed).instructions), self_check.EXAMPLES)
    assert outcome.exact == 5 and certificate.oracle == "Keras 3.0 on tests"


@pytest.mark.slow
@pytest.mark.parametrize("isa", [isa.name for isa in available()])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_instruction_set_agrees(name: str, isa: str) -> None:
    """What is recorded here is what any other set computes, with or without fused multiply-add."""
    stored = program(name)
    check = self_check.record(Engine(stored), (0.0, 1.0), examples=2)
    read_again = self_check.read_self_check(json.loads(json.dumps(check.to_json())), stored)
    assert read_again == check
    outcome = self_check.repeat(Engine(stored, machine=detect(isa)), read_again)
    assert not outcome.wrong, outcome.wrong


@pytest.mark.parametrize("name", GRAPHS)
def test_a_wrong_operation_is_found_and_named(name: str) -> None:
    """Wherever a constant is another one, as if a kernel misread it."""
    stored = program(name)
    check = self_check.record(Engine(stored), (0.0, 1.0), examples=1)
    for number, instruction in enumerate(stored.instructions):
        constant = next((i for i in instruction.constants if i >= 0), None)
        if constant is None or (instruction.definition.name == "prelu" and check.ranges[instruction.inputs[0]][0] >= 0):
            continue  # a slope below zero is of no concern where nothing is below zero
        place = stored.constants[constant]
        blob = stored.blob.copy()
        blob[place.offset : place.offset + place.nbytes] ^= 0x55 if place.type.encoding.name in ("BITS", "INT8") else 0
        if (blob == stored.blob).all():
            blob[place.offset : place.offset + place.nbytes].view(np.float32)[...] *= np.float32(-1.5)
        outcome = self_check.repeat(Engine(replace(stored, blob=blob)), check)
        assert any(f"operation {number}," in wrong for wrong in outcome.wrong), (number, outcome.wrong)


class _Broken(Engine):
    """One value of one operation's output is off by a little."""

    number = 0

    def run_instruction(self, number: int, inputs: Any) -> np.ndarray:
        values = super().run_instruction(number, inputs).copy()
        if number == self.number:
            where = values.size // 2
            values.reshape(-1)[where] = -values.reshape(-1)[where] if set(np.unique(values)) <= {-1.0, 1.0} else values.max() * 1.02 + 0.01
        return values


@pytest.mark.parametrize("name", GRAPHS)
def test_a_single_wrong_value_is_found(name: str) -> None:
    stored = program(name)
    check = self_check.record(Engine(stored), (0.0, 1.0), examples=1)
    broken = _Broken(stored)
    for number, sketches in enumerate(check.operations):
        broken.number = number
        wrong = self_check.repeat(broken, check).wrong
        encoding = stored.tensors[stored.instructions[number].output].type.encoding
        signs_of_floats = not isinstance(sketches[0], str) and encoding is Encoding.BITS
        assert signs_of_floats or any(text.startswith(f"operation {number},") for text in wrong), (number, wrong)


def test_wrong_operations_are_a_sentence_and_json(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "run_instruction", lambda self, number, inputs: self.tensor(self.program.instructions[number].output))
    result = invoke("verify", "--self", signed, "--json")
    assert result.exit_code == 1 and "computes something else here than where it was signed off" in result.stderr
    document = json.loads(result.stdout)
    assert document["equal"] is False and document["wrong"] and document["certificate"]["oracle"] == "Keras 3.0 on tests"


def test_a_known_answer_repeats_the_certificate(signed: Path, tmp_path: Path) -> None:
    for name in ("digits.edge", "image.png"):
        (tmp_path / name).write_bytes((signed if name == "digits.edge" else EXAMPLES / name).read_bytes())
    answer = record(tmp_path / "digits.edge", tmp_path / "image.png")
    (tmp_path / FILE).write_text(json.dumps(answer.to_json()))
    assert "8 operations (5 tensors in all bits) and 4 inferences" in check(tmp_path)
    stored = read(signed)
    write(replace(stored, layers=(("renamed",), *stored.layers[1:])), tmp_path / "digits.edge")
    with pytest.raises(EdgeError, match="is void"):
        check(tmp_path)


@pytest.mark.skipif(not find_linkers(host_architecture()), reason="no linker for this machine is installed")
def test_a_device_repeats_it_with_what_bundles_carry(signed: Path, tmp_path: Path) -> None:
    """With kernels compiled ahead of time; neither Numba nor Keras nor anything else of edge can be imported."""
    for name, content in runtime_sources(runtime_modules()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    library = build_library("host", [read(signed)], tmp_path / "kernels.so")
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in ('numba', 'llvmlite', 'keras', 'tensorflow', 'h5py'): raise ImportError(name)\n"
        "sys.meta_path = [Refuse(), *(f for f in sys.meta_path if 'editable' not in repr(f).lower())]\n"
        f"sys.path = [{str(tmp_path)!r}, *(p for p in sys.path if p and p != {str(EXAMPLES.parent)!r})]\n"
        "import edge; assert edge.__file__.startswith(sys.path[0]), edge.__file__\n"
        "from edge.cli import main; main()"
    )
    environment = {"PATH": os.environ["PATH"], "EDGE_KERNELS": str(library), "EDGE_CACHE": str(tmp_path / "cache")}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    repeated = run("verify", "--self", signed)
    assert repeated.returncode == 0 and "8 operations (5 tensors in all bits)" in repeated.stdout, repeated.stderr
    with_source = run("verify", DIGITS, signed)
    assert with_source.returncode == 1 and "only what runs models is on this device" in with_source.stderr
