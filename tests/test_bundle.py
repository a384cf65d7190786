"""`edge bundle`: what is in the archive, that it runs by itself, here and in a Raspberry Pi user space."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import raspberry_pi
from click.testing import CliRunner, Result
from raspberry_pi import CHOSEN, needs_the_user_space
from two_inputs import two_inputs

import edge
from edge.bundle import archive, bundle
from edge.bundle_contents import MARK
from edge.bundle_runtime import lowest_requirements, requirements, runtime_modules
from edge.cli import cli
from edge.converters.layers import read_graph
from edge.errors import EdgeError, InputError
from edge.format import write
from edge.kernels.library import read_manifest
from edge.kernels.linker import find_linkers
from edge.known_answer import FILE, check, main, read_answer
from edge.lower import to_program

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits.h5"
PICTURE = ROOT / "examples" / "image.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    edge.convert(DIGITS, folder, formats=("edge",))
    return folder / "digits.edge"


@pytest.fixture(scope="module")
def unpacked(model: Path) -> Path:
    """The bundle of the example as a folder, which compiles its kernels itself, so that it runs here too."""
    bundle(model, model.parent / "unpacked", picture=PICTURE, with_numba=True)
    return model.parent / "unpacked"


@pytest.fixture(scope="module")
def compiled(unpacked: Path) -> subprocess.CompletedProcess[str]:
    """The first run of the bundle, which compiles its kernels into its own cache."""
    return isolated(unpacked, f"from edge.known_answer import main; raise SystemExit(main([{str(unpacked)!r}]))")


@pytest.fixture
def copy(unpacked: Path, compiled: object, tmp_path: Path) -> Path:
    """A copy of the bundle with its kernels compiled."""
    return Path(shutil.copytree(unpacked, tmp_path / "moved"))


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


# -- contents ------------------------------------------------------------------------------------------------------------------


def test_the_runtime_holds_nothing_of_conversion_or_training() -> None:
    names = set(runtime_modules())
    assert {"edge", "edge.engine", "edge.kernels.conv", "edge.kernels.conv_code", "edge.known_answer"} <= names
    assert not [name for name in names if name.startswith(("edge.converters", "edge.training", "edge.targets", "edge.tflite"))]


def test_requirements_are_pinned_and_hold_no_framework() -> None:
    lines = requirements(runtime_modules(), numba=True)
    assert [line.split("==")[0] for line in lines] == ["click", "llvmlite", "numba", "numpy", "pillow"]
    assert all(line.count("==") == 1 for line in lines)
    assert [line.split("==")[0] for line in requirements(runtime_modules(), numba=False)] == ["click", "numpy", "pillow"]
    assert lowest_requirements(runtime_modules(), numba=False) == ["click>=8.1", "numpy>=1.24", "pillow>=10.1"]


def test_no_file_names_a_place_outside_the_folder(unpacked: Path) -> None:
    texts = [path for path in unpacked.rglob("*") if path.is_file() and path.suffix in (".sh", ".md", ".json", ".txt")]
    assert len(texts) >= 6
    for path in texts:
        text = path.read_text("utf-8").replace("#!/bin/sh", "").replace("/dev/null", "")
        assert str(ROOT) not in text and "/usr" not in text and "/home" not in text and "/tmp" not in text, path


def test_the_same_model_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    packed = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        bundle(model, tmp_path / name / "digits.tar.gz", picture=PICTURE, with_numba=True)
        packed.append((tmp_path / name / "digits.tar.gz").read_bytes())
    assert packed[0] == packed[1]


def test_archives_are_sorted_timeless_and_belong_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(archive({"b.sh": b"2", "a/c": b"1"}, "root"))
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        members = tar.getmembers()
    assert [(m.name, m.mtime, m.uid, m.gid, m.mode) for m in members] == [("root/a/c", 0, 0, 0, 0o644), ("root/b.sh", 0, 0, 0, 0o755)]


# -- running it ----------------------------------------------------------------------------------------------------------------


def isolated(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run in a bundle's folder with its own edge alone: neither this repository nor its installation can be imported."""
    code = (
        "import sys, runpy; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        f"sys.path = [{str(folder)!r}, *(p for p in sys.path if p and p != {str(ROOT)!r})]; "
        "import edge; assert edge.__file__.startswith(sys.path[0]), edge.__file__; " + command[0]
    )
    environment = {"PATH": os.environ["PATH"], "EDGE_CACHE": str(folder / "cache")}
    return subprocess.run([sys.executable, "-c", code, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_runtime_gives_the_known_answer_by_itself(unpacked: Path, compiled: subprocess.CompletedProcess[str]) -> None:
    assert compiled.returncode == 0, compiled.stderr
    assert compiled.stdout.startswith("picture.png: 2 (") and "as expected" in compiled.stdout
    assert {path.suffix for path in (unpacked / "cache").iterdir()} == {".o"}


def test_the_runtime_classifies_other_pictures_by_itself(copy: Path) -> None:
    shutil.copy(ROOT / "examples" / "digits" / sorted(os.listdir(ROOT / "examples" / "digits"))[0], copy / "other.png")
    done = isolated(copy, "from edge.cli import main; sys.argv[1:] = ['run', '-m', 'model.edge', 'other.png']; main()")
    assert done.returncode == 0, done.stderr
    assert "other.png" in done.stdout


def test_commands_that_a_device_lacks_are_one_sentence(copy: Path) -> None:
    done = isolated(copy, "from edge.cli import main; sys.argv[1:] = ['convert', 'x.h5']; main()")
    assert done.returncode == 1 and done.stderr.startswith("edge: this needs edge.cli_convert, and only what runs models is on this device")


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_the_script_runs_from_any_folder(copy: Path, tmp_path: Path) -> None:
    (copy / "venv" / "bin").mkdir(parents=True)
    (copy / "venv" / "bin" / "python").symlink_to(sys.executable)
    environment = {"PATH": os.environ["PATH"], "PYTHONNOUSERSITE": "1", "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["sh", str(copy / "run.sh")], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "as expected" in done.stdout and (copy / "cache").is_dir()


def test_another_answer_is_an_error(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = json.loads((copy / FILE).read_text("utf-8"))
    stored["outputs"][0]["values"][0] += 0.5
    (copy / FILE).write_text(json.dumps(stored), "utf-8")
    with pytest.raises(EdgeError, match="another answer here: expected 2"):
        check(copy)
    assert main([str(copy)]) == 1 and "another answer" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": "../model.edge", "picture": "p", "outputs": [], "answer": ""}'])
def test_a_damaged_answer_is_refused(copy: Path, content: str) -> None:
    (copy / FILE).write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"answer.json"):
        read_answer(copy)


def test_without_a_picture_noise_is_packed(model: Path, tmp_path: Path) -> None:
    packed = bundle(model, tmp_path / "noise", with_numba=True)
    assert packed.picture == "picture.png" and "as expected" in check(tmp_path / "noise")


def test_a_network_that_takes_no_picture_gets_an_array(tmp_path: Path) -> None:
    from keras_files import dense, write_h5

    write_h5(tmp_path / "vector.h5", [dense("last", np.eye(5, dtype=np.float32))], (5,))
    edge.convert(tmp_path / "vector.h5", bits=32, formats=("edge",))
    packed = bundle(tmp_path / "vector.edge", tmp_path / "vector", with_numba=True)
    assert packed.picture == "picture.npy" and "as expected" in check(tmp_path / "vector")


def test_a_network_of_several_inputs_gets_an_archive_of_arrays(tmp_path: Path) -> None:
    write(to_program(read_graph(two_inputs(), input_dtype="uint8")), tmp_path / "two.edge")
    packed = bundle(tmp_path / "two.edge", tmp_path / "two", with_numba=True)
    with np.load(tmp_path / "two" / packed.picture) as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {"image": (1, 6, 5, 3), "label": (1, 1)}
    assert packed.picture == "picture.npz" and "as expected" in check(tmp_path / "two")


# -- where it is written -------------------------------------------------------------------------------------------------------


def test_only_bundles_are_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "mine.tar.gz").write_bytes(b"mine")
    for name in ("mine", "mine.tar.gz"):
        with pytest.raises(InputError, match="is no bundle"):
            bundle(model, tmp_path / name)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    bundle(model, tmp_path / "mine.tar.gz", force=True, with_numba=True)
    bundle(model, tmp_path / "mine.tar.gz", with_numba=True)


def test_a_second_bundle_keeps_what_was_installed(copy: Path, model: Path) -> None:
    (copy / "venv").mkdir()
    (copy / "venv" / "kept").write_text("")
    (copy / "edge" / "stale.py").write_text("")
    bundle(model, copy, with_numba=True)
    assert (copy / "venv" / "kept").exists() and (copy / MARK).exists() and not (copy / "edge" / "stale.py").exists()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_bad_input_is_one_sentence_and_writes_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.edge").write_bytes(model.read_bytes()[:500])
    (tmp_path / "no.png").write_bytes(b"none")
    before = sorted(os.listdir())
    good = [[model, *rest] for rest in (("--target", "host"), ("--target", "toaster"), ("--picture", "no.png"))]
    for arguments in (["broken.edge"], ["absent"], *good):
        result = invoke("bundle", *arguments)
        assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert sorted(os.listdir()) == before


def test_a_bad_picture_and_a_model_to_convert_are_named_as_given(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.png").write_bytes(b"none")
    assert "cannot read the picture no.png:" in invoke("bundle", model, "--picture", "no.png").stderr
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    result = invoke("bundle", "model.h5")
    assert result.exit_code == 1 and "convert it first: edge convert model.h5 --bits 1" in result.stderr


def test_the_command_names_the_known_answer(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("bundle", model, "--picture", PICTURE, "--with-numba")
    assert result.exit_code == 0 and "picture.png is 2" in result.stdout
    assert (tmp_path / "digits-raspberry-pi-4.tar.gz").exists()
    found = json.loads(invoke("bundle", model, "-o", "again.tar.gz", "--with-numba", "--json").stdout)
    assert found["nbytes"] == (tmp_path / "again.tar.gz").stat().st_size


# -- the device ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled_here(model: Path) -> Path:
    """The bundle of the example with its kernels in a library for a Raspberry Pi 4."""
    if not find_linkers("aarch64"):
        pytest.skip("needs a linker for aarch64: apt-get install gcc-aarch64-linux-gnu")
    bundle(model, model.parent / "compiled", picture=PICTURE)
    return model.parent / "compiled"


def test_kernels_are_compiled_for_the_device(compiled_here: Path) -> None:
    manifest = read_manifest(compiled_here / "kernels.so")
    assert (manifest.target, manifest.machine.cpu) == ("raspberry-pi-4", "cortex-a72")
    assert "numba" not in (compiled_here / "requirements.txt").read_text()
    assert "kernels.so" in (compiled_here / "environment.sh").read_text()


@needs_the_user_space
@pytest.mark.parametrize("core", CHOSEN)
def test_the_bundle_classifies_its_picture_in_a_raspberry_pi_user_space(core: str, compiled_here: Path, tmp_path: Path) -> None:
    """Emulated: it shows that the archive runs on the processor, and that the answer is the same; it says nothing about time."""
    shutil.copytree(compiled_here, tmp_path / "digits")
    said = raspberry_pi.run(core, tmp_path / "digits", "sh", "./run.sh")
    assert said.startswith("picture.png: 2 (") and "as expected" in said
    assert not (tmp_path / "digits" / "cache").exists()


def test_what_runs_on_a_device_imports_nothing_that_is_left_out() -> None:
    modules = runtime_modules()
    for name, source in modules.items():
        for node in ast.parse(source.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edge."):
                assert node.module in modules, f"{name} imports {node.module}, which bundles leave out"
