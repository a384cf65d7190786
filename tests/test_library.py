"""Kernels compiled ahead of time: the same results as those compiled here, nothing of Numba at run time, and only libraries that fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_programs import GRAPHS, inputs_of, program

import edge
from edge.build import build_library, codes_of, machine_of
from edge.build_standard import standard_programs
from edge.cli import cli
from edge.engine import Engine
from edge.errors import InputError
from edge.format import write
from edge.kernels import library
from edge.kernels.elf import exported_symbols, undefined_symbols
from edge.kernels.features import host_architecture, host_features
from edge.kernels.isa import available, detect
from edge.kernels.library import ENVIRONMENT_VARIABLE, MARK, Library, read_manifest, symbol
from edge.kernels.library_build import LEFT_TO_THE_SYSTEM, write_library
from edge.kernels.linker import find_linkers
from edge.kernels.loop import HELPER, LEAD, LOOP
from edge.program import Program
from edge.tensors import Encoding

NAMES = tuple(GRAPHS)
needs_linker = pytest.mark.skipif(not find_linkers(host_architecture()), reason="no linker for this machine")
needs_cross_linker = pytest.mark.skipif(not find_linkers("aarch64"), reason="no linker for aarch64")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for this machine with the kernels of all sample programs."""
    return build_library("host", [program(name) for name in NAMES], tmp_path_factory.mktemp("library") / "kernels.so")


@pytest.fixture(scope="module")
def for_arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for a Raspberry Pi with the kernels of one of them."""
    return build_library("raspberry-pi-4", [program("digits")], tmp_path_factory.mktemp("arm") / "kernels.so")


def engine_of(path: Path, which: Program, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Engine:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    engine = Engine(which, **options)
    assert engine.library is not None and engine.library.path == path
    return engine


# -- the same results ----------------------------------------------------------------------------------------------------------


@needs_linker
@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_equal_to_that_of_kernels_compiled_here(name: str, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = program(name)
    (example,) = inputs_of(which)
    compiled = Engine(which, machine=detect())
    prebuilt = engine_of(built, which, monkeypatch)
    for got, expected in zip(prebuilt.trace(example), compiled.trace(example), strict=True):
        assert got.kernel == expected.kernel
        np.testing.assert_array_equal(got.output, expected.output)
    for got, expected in zip(*(outputs_of(engine, example) for engine in (prebuilt, compiled)), strict=True):
        np.testing.assert_array_equal(got, expected)


def outputs_of(engine: Engine, example: np.ndarray) -> list[np.ndarray]:
    outputs = engine.run(example)
    return outputs if isinstance(outputs, list) else [outputs]


@needs_linker
def test_a_library_for_a_lesser_instruction_set_gives_the_same_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = available()[-2].name
    which = program("digits")
    engine = engine_of(build_library(name, [which], tmp_path / "lesser.so"), which, monkeypatch)
    assert engine.machine.isa.name == name
    (example,) = inputs_of(which)
    for i, (got, expected) in enumerate(zip(engine.trace(example), Engine(which, machine=detect()).trace(example), strict=True)):
        if which.tensors[which.instructions[i].output].type.encoding is not Encoding.FLOAT32:
            np.testing.assert_array_equal(got.output, expected.output)
        np.testing.assert_allclose(got.output, expected.output, rtol=1e-6, atol=1e-6)


@needs_linker
def test_the_loop_shares_work_among_threads(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = program("residual")
    (example,) = inputs_of(which)
    monkeypatch.setattr("edge.engine.most_threads", lambda: 2)
    monkeypatch.setattr("edge.engine.parts_for", lambda kernel, work, threads: 1 if threads == 1 else 3)
    engine, alone = engine_of(built, which, monkeypatch, threads=2), engine_of(built, which, monkeypatch)
    assert engine._pool is not None
    for _ in range(50):
        engine._inputs[0][...] = example
        engine._pool.infer_shared()
    alone.run(example)
    for number in which.outputs:
        np.testing.assert_array_equal(engine.tensor(number), alone.tensor(number))


# -- without Numba -------------------------------------------------------------------------------------------------------------

_RUN = """
import json, sys
for name in {absent}: sys.modules[name] = None
import numpy as np
import edge
from edge.errors import EdgeError
try:
    engine = edge.load(sys.argv[1])
    y = engine.run(np.load(sys.argv[2]))
    found = [part.tolist() for part in (y if isinstance(y, list) else [y])]
    print(json.dumps({{"y": found, "loaded": [n for n in ("numba", "llvmlite") if sys.modules.get(n)]}}))
except EdgeError as err:
    print(json.dumps({{"error": str(err)}}))
"""


def run_without(absent: tuple[str, ...], which: Program, folder: Path, **environment: str) -> dict[str, Any]:
    """What a new process gives in which these packages are not installed."""
    (example,) = inputs_of(which)
    write(which, folder / "model.edge")
    np.save(folder / "input.npy", example)
    command = [sys.executable, "-c", _RUN.format(absent=absent), str(folder / "model.edge"), str(folder / "input.npy")]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout) | {"messages": done.stderr.splitlines()}
    return found


@needs_linker
@pytest.mark.parametrize("absent", [(), ("numba",), ("numba", "llvmlite", "h5py", "rich", "click", "PIL")])
def test_models_run_without_numba_and_llvmlite(absent: tuple[str, ...], built: Path, tmp_path: Path) -> None:
    which = program("digits")
    (example,) = inputs_of(which)
    found = run_without(absent, which, tmp_path, EDGE_KERNELS=str(built), EDGE_CACHE=str(tmp_path / "empty"))
    assert found == {"y": [Engine(which).run(example).tolist()], "loaded": [], "messages": []}
    assert not (tmp_path / "empty").exists()


@needs_linker
def test_the_command_line_runs_without_numba_and_llvmlite(built: Path, tmp_path: Path) -> None:
    write(program("digits"), tmp_path / "model.edge")
    np.save(tmp_path / "input.npy", inputs_of(program("digits"))[0])
    code = "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = sys.modules['h5py'] = None; from edge.cli import main; main()"
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(built)}
    for words in (["run", "-m", "model.edge", "input.npy", "--json"], ["inspect", "model.edge"], ["doctor"], ["warm", "model.edge"]):
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert str(built) in subprocess.run([sys.executable, "-c", code, "doctor"], env=environment, capture_output=True, text=True).stdout


def test_without_kernels_of_any_kind_the_error_says_what_to_do(tmp_path: Path) -> None:
    found = run_without(("numba", "llvmlite"), program("digits"), tmp_path, EDGE_ISA="", EDGE_KERNELS="")
    if library.shipped():
        assert "y" in found
    else:
        assert "there are no kernels for this machine" in found["error"] and ENVIRONMENT_VARIABLE in found["error"]


@needs_linker
def test_a_kernel_the_library_lacks_is_compiled_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_library("host", [program("digits")], tmp_path / "digits.so")
    which = program("int8")
    (example,) = inputs_of(which)
    expected = [part.tolist() for part in outputs_of(Engine(which), example)]
    assert run_without((), which, tmp_path, EDGE_KERNELS=str(path))["y"] == expected
    error = run_without(("numba",), which, tmp_path, EDGE_KERNELS=str(path))["error"]
    assert "lacks kernels that this model needs" in error and "edge build --target host MODEL" in error


# -- which library -------------------------------------------------------------------------------------------------------------


def test_numba_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert library.in_use() is None


@needs_linker
def test_one_that_came_with_edge_is_used_without_numba(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best that this machine can run, whatever lies beside it."""
    lesser = build_library(available()[-2].name, [program("digits")], tmp_path / "a.so")
    (tmp_path / "kernels.so").write_bytes(built.read_bytes())
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    found = library.in_use()
    assert found is not None and found.path == tmp_path / "kernels.so"
    monkeypatch.setenv("EDGE_ISA", read_manifest(lesser).machine.isa.name)
    found = library.in_use()
    assert found is not None and found.path == lesser


def test_none_is_taken_from_beside_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(program("digits"), tmp_path / "model.edge")
    (tmp_path / "kernels.so").write_bytes(b"not to be read")
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert edge.load(tmp_path / "model.edge").library is None


# -- libraries that must not be used -------------------------------------------------------------------------------------------


def altered(path: Path, to: Path, change: Any) -> Path:
    """A copy of a library whose manifest has been changed, its length kept."""
    data = bytearray(path.read_bytes())
    start = data.index(MARK) + len(MARK)
    length = int.from_bytes(data[start : start + 4], "little")
    content = json.loads(data[start + 4 : start + 4 + length])
    change(content)
    text = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    assert len(text) <= length
    data[start + 4 : start + 4 + length] = text.ljust(length)
    to.write_bytes(data)
    return to


@needs_linker
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["machine"].update(triple="aarch64-x"), "is for aarch64, and this machine is"),
        (lambda m: m["machine"].update(llvm_features="+avx512fp16,+amx"), "for processors with avx512fp16, which this one lacks"),
        (lambda m: m["sources"].update({"kernels/conv.py": "0"}), r"for another version of edge: .* kernels/conv.py differs; build"),
        (lambda m: m["sources"].clear(), r"differs, and \d+ more; build it again with: edge build --target host"),
        (lambda m: m["kernels"].append("x"), "cannot load the kernel library"),
        (lambda m: m["machine"].pop("cpu"), "no manifest or a damaged one"),
        (lambda m: m["machine"].update(isa="z80"), "no manifest or a damaged one"),
    ],
)  # fmt: skip
@pytest.mark.skipif(host_architecture() != "x86_64" or "avx512fp16" in host_features(), reason="the features are those of x86-64")
def test_a_library_that_does_not_fit_is_refused(change: Any, message: str, built: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        Library(altered(built, tmp_path / "altered.so", _shortened(change)))


def _shortened(change: Any) -> Any:
    """The change, with room made for what it adds."""

    def both(manifest: Any) -> None:
        manifest["made_by"] = {}
        manifest["machine"]["llvm_features"] = ""
        change(manifest)

    return both


@needs_linker
@pytest.mark.parametrize("keep", [0, 3, 4000, -1])
def test_a_torn_library_is_refused(keep: int, built: Path, tmp_path: Path) -> None:
    data = built.read_bytes()
    whole = len(data) if keep == -1 else keep
    (tmp_path / "torn.so").write_bytes(data[:whole].replace(MARK, b"") if keep == -1 else data[:whole])
    with pytest.raises(InputError, match=r"torn\.so"):
        Library(tmp_path / "torn.so")


@pytest.mark.parametrize("name", [".", "absent.so", "/dev/null"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        Library(tmp_path / name)


@needs_linker
def test_a_library_that_cannot_be_used_is_an_error_or_with_numba_a_line(built: Path, tmp_path: Path) -> None:
    stale = altered(built, tmp_path / "stale.so", lambda manifest: manifest["sources"].clear())
    compiled = run_without((), program("digits"), tmp_path, EDGE_KERNELS=str(stale))
    (message,) = compiled["messages"]
    assert "y" in compiled and message.startswith("edge: the kernel library") and message.endswith("kernels are compiled by Numba instead")
    assert "made for another version" in run_without(("numba",), program("digits"), tmp_path, EDGE_KERNELS=str(stale))["error"]


# -- what is in it -------------------------------------------------------------------------------------------------------------


@needs_linker
def test_a_library_needs_nothing_that_a_c_library_may_lack(built: Path) -> None:
    data = built.read_bytes()
    assert set(undefined_symbols(data)) <= LEFT_TO_THE_SYSTEM
    assert {"sem_wait", "sem_post", "sched_yield", "clock_gettime"} <= set(undefined_symbols(data))
    assert set(exported_symbols(data)) == {"edge_manifest", *map(symbol, read_manifest(built).kernels)}


@needs_cross_linker
def test_a_library_for_a_raspberry_pi_is_small_and_fits_large_pages(for_arm: Path) -> None:
    data = for_arm.read_bytes()
    assert set(undefined_symbols(data)) <= LEFT_TO_THE_SYSTEM and len(data) < 100_000
    programs_at, entry_bytes, count = (int.from_bytes(data[at : at + n], "little") for at, n in ((0x20, 8), (0x36, 2), (0x38, 2)))
    loaded = [at for at in range(programs_at, programs_at + count * entry_bytes, entry_bytes) if data[at] == 1]
    assert loaded and all(int.from_bytes(data[at + 48 : at + 56], "little") == 65536 for at in loaded)
    assert data[0x12] == 183  # aarch64


@needs_cross_linker
@pytest.mark.skipif(host_architecture() == "aarch64", reason="it fits this machine")
def test_a_library_for_another_processor_is_refused(for_arm: Path) -> None:
    with pytest.raises(InputError, match="is for aarch64, and this machine is"):
        Library(for_arm)


@needs_linker
def test_the_same_programs_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build_library("host", [program(name) for name in reversed(NAMES)], tmp_path / "again.so")
    assert again.read_bytes() == built.read_bytes()


@needs_linker
def test_every_linker_makes_a_library_that_loads(tmp_path: Path) -> None:
    codes = codes_of([program("digits")], detect())
    for number, each in enumerate(find_linkers(host_architecture())):
        assert write_library(codes, detect(), "host", tmp_path / f"{number}.so", linker=each) == each
        assert set(Library(tmp_path / f"{number}.so").find(["loop", "softmax", "nothing"])) == {"loop", "softmax"}


def test_programs_share_their_kernels() -> None:
    machine = machine_of("neon")
    codes = codes_of([program("digits"), program("digits")], machine)
    names = [code.name for code in codes]
    assert len(names) == len(set(names)) and {LOOP.name, LEAD.name, HELPER.name, "fill_halo"} <= set(names)


# -- what common networks need -------------------------------------------------------------------------------------------------


def test_the_standard_kernels_run_the_example_on_every_board() -> None:
    from edge.format import read

    example = read(Path(edge.__file__).parent / "data" / "digits.edge")
    for name in ("neon", "neondot"):
        held = {code.name for code in codes_of(standard_programs(), machine_of(name))}
        assert {code.name for code in codes_of([example], machine_of(name))} <= held
        assert len(held) < 250


# -- the command ---------------------------------------------------------------------------------------------------------------


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


@needs_linker
def test_the_command_builds_what_a_model_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(program("digits"), "model.edge")
    result = invoke("build", "model.edge", "--target", "host", "--json")
    shown = json.loads(result.stdout)
    assert shown["path"] == "kernels-host.so" and shown["nbytes"] == (tmp_path / "kernels-host.so").stat().st_size
    assert shown["instruction_set"] == detect().isa.name and "loop" in shown["kernels"]
    plain = invoke("build", "model.edge", "--target", "host", "-o", "other.so")
    assert plain.exit_code == 0 and plain.stdout.startswith("other.so  ") and len(plain.stdout.splitlines()) == 1


def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(program("digits"), "model.edge")
    Path("broken.edge").write_bytes(Path("model.edge").read_bytes()[:500])
    before = sorted(os.listdir())
    for words in (["absent.edge"], ["broken.edge"], ["model.edge", "--target", "toaster"], ["model.edge", "-o", "no/folder.so"]):
        result = invoke("build", *words, *([] if "--target" in words else ["--target", "host"]))
        assert result.exit_code == 1 and "Traceback" not in result.stderr, (words, result.output)
        assert len([line for line in result.stderr.splitlines() if "compiling" not in line]) == 1, result.stderr
    assert sorted(os.listdir()) == before
