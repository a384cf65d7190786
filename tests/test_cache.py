"""The cache of machine code: a second process compiles nothing and needs no Numba; whatever is wrong with the folder, code still runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.kernels import cache
from edge.kernels.cache import ENVIRONMENT_VARIABLE, ObjectCache
from edge.kernels.isa import available, detect
from edge.kernels.registry import Code

# A network of one operation: its kernels are the loop and a map.
PROGRAM = """
import json, sys
import numpy as np
from edge.engine import Engine
from edge.graph import Graph, Node
from edge.lower import to_program
from edge.ops import NO_ACTIVATION
from edge.tensors import TensorType

kind = TensorType((5,))
graph = Graph("relu", ("x",), ("y",), (Node("activation", ("x",), "y", {**NO_ACTIVATION, "activation": 1}),), {"x": kind, "y": kind})
compiled = []
engine = Engine(to_program(graph), progress=lambda done, total: compiled.append(total))
y = engine.run(np.array([-2, -1, 0, 1, 2], np.float32))
print(json.dumps({"y": y.tolist(), "compiled": max(compiled, default=0), "numba": "numba" in sys.modules}))
"""
KERNELS = 2
RIGHT = [0.0, 0.0, 0.0, 1.0, 2.0]
NAME = cache.object_name(Code("test", lambda machine: print), detect())


@dataclass(frozen=True)
class Outcome:
    """What a process printed: its result, how many kernels it compiled, whether it imported Numba, and its messages."""

    y: list[float]
    compiled: int
    numba: bool
    messages: list[str]


def run(folder: Path) -> Outcome:
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(folder)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return Outcome(**json.loads(done.stdout), messages=done.stderr.splitlines())


def test_second_process_compiles_nothing_and_needs_no_numba(tmp_path: Path) -> None:
    first, second = run(tmp_path / "new"), run(tmp_path / "new")
    assert first == Outcome(RIGHT, KERNELS, True, [])
    assert second == Outcome(RIGHT, 0, False, [])


def test_torn_object_is_made_anew(tmp_path: Path) -> None:
    assert run(tmp_path).compiled == KERNELS
    torn = max(tmp_path.glob("*.o"), key=lambda path: path.stat().st_size)
    torn.write_bytes(torn.read_bytes()[:-7])
    assert run(tmp_path) == Outcome(RIGHT, 1, True, [])
    assert run(tmp_path) == Outcome(RIGHT, 0, False, [])


def test_process_runs_with_one_line_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    outcome = run(tmp_path / "file" / "cache")
    assert (outcome.y, outcome.compiled) == (RIGHT, KERNELS)
    (message,) = outcome.messages
    assert message.startswith("edge: ") and str(tmp_path / "file" / "cache") in message and ENVIRONMENT_VARIABLE in message


# -- the object cache by itself ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the cache."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_objects_are_kept_across_caches(folder: Path) -> None:
    ObjectCache().put(NAME, b"code")
    assert ObjectCache().get(NAME) == b"code"
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert cache.clear() == 1
    assert ObjectCache().get(NAME) is None


def test_folders_named_like_objects_are_left_alone(folder: Path) -> None:
    ObjectCache().put(NAME, b"code")
    (folder / "x.o").mkdir()
    assert cache.clear() == 1
    assert [path.name for path in folder.iterdir()] == ["x.o"]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:10], lambda data: b"", lambda data: data[:-1] + b"X"])
def test_torn_objects_are_not_used(folder: Path, damage) -> None:  # type: ignore[no-untyped-def]
    ObjectCache().put(NAME, b"code")
    (folder / NAME).write_bytes(damage((folder / NAME).read_bytes()))
    assert ObjectCache().get(NAME) is None


def assert_kept_in_memory_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    objects = ObjectCache()
    objects.put(NAME, b"code")
    objects.put(NAME + "2", b"more")
    assert (objects.get(NAME), objects.get(NAME + "2")) == (b"code", b"more")
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("edge: kernels are compiled anew in every process")


def test_folder_others_can_write_is_not_trusted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ObjectCache().put(NAME, b"code")
    folder.chmod(0o777)
    assert ObjectCache().get(NAME) is None
    assert_kept_in_memory_with_one_line(capsys)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder to another user")
def test_folder_of_another_user_is_not_trusted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ObjectCache().put(NAME, b"code")
    os.chown(folder, 12345, 12345)
    assert ObjectCache().get(NAME) is None
    assert_kept_in_memory_with_one_line(capsys)


@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir(mode=0o500)
    assert_kept_in_memory_with_one_line(capsys)


def test_no_home(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (ENVIRONMENT_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache.folder() is None
    assert_kept_in_memory_with_one_line(capsys)


def test_folder_obeys_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert cache.folder() == Path("/xdg/edge")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/mine")
    assert cache.folder() == Path("/mine")


def test_names_tell_kernels_and_machines_apart() -> None:
    codes = [Code(name, lambda machine: print) for name in ("a", "b")]
    machines = [detect(isa.name) for isa in available()]
    assert len({cache.object_name(code, machine) for code in codes for machine in machines}) == len(codes) * len(machines)


def test_shared_functions_are_let_go_of_even_where_compiling_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[bool] = []

    def fails(code: Code, machine: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(cache, "_forget_shared", lambda: forgotten.append(True))
    monkeypatch.setattr(cache, "_compile", fails)
    with pytest.raises(MemoryError):
        cache.objects([Code("never compiled", lambda machine: print)], detect())
    assert forgotten == [True]
