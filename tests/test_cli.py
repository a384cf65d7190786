"""The command `edge`: help, errors and exit codes, pipes and terminals, and the small commands."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from keras_files import colour_layers, write_h5
from PIL import Image

import edge
from edge import cli_options, cli_run, preprocess
from edge.answers import KINDS
from edge.cli import COMMANDS, cli
from edge.console import Column, bytes_text, compiling, out_table, printable, seconds_text, styled
from edge.errors import EdgeError, InputError
from edge.pictures import read_picture

EDGE = str(Path(sys.executable).parent / "edge")
ESCAPE = "\x1b"


def invoke(*args: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


def process(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EDGE, *map(str, args)], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = write_h5(tmp_path_factory.mktemp("model") / "colours.h5", colour_layers(), (8, 8, 3))
    edge.convert(source, formats=["edge"])
    return source.with_suffix(".edge")


# -- help ----------------------------------------------------------------------------------------------------------------------


def test_help_lists_all_commands() -> None:
    result = invoke("--help")
    assert result.exit_code == 0 and "Examples:" in result.stdout
    for name, entry in COMMANDS.items():
        assert f"  {name} " in result.stdout and entry.help in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0 and "Examples:" in result.stdout and f"edge {name}" in result.stdout
    command = COMMANDS[name].load()
    assert all(isinstance(p, click.Argument) or getattr(p, "help", None) for p in command.params), "an option without help"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"completion"}))
def test_every_command_speaks_json(name: str) -> None:
    command = COMMANDS[name].load()
    for each in command.commands.values() if isinstance(command, click.Group) else (command,):
        assert any(parameter.name == "as_json" for parameter in each.params), each.name


def test_help_imports_no_command() -> None:
    code = "import sys\nfrom edge.cli import cli\ncli(['--help'], standalone_mode=False)\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not {"numpy", "llvmlite", "rich", "PIL", "h5py", "numba"} & loaded
    assert not [name for name in loaded if name.startswith("edge.cli_")]


def test_choices_are_those_of_the_modules_they_stand_for() -> None:
    assert cli_options.PRESETS == preprocess.PRESETS and cli_options.CHANNEL_ORDERS == preprocess.CHANNEL_ORDERS
    assert cli_options.RESIZES == preprocess.RESIZES and cli_run.KINDS == KINDS


def test_the_version_is_that_of_the_distribution() -> None:
    assert re.fullmatch(r"edge \d+\.\d+\.\d+\n", invoke("--version").stdout)


def test_wrong_usage_exits_with_two() -> None:
    for words in (["nonsense"], ["convert"], ["convert", "x.h5", "--bits", "3"], ["warm"], ["cache", "x"], ["completion", "csh"]):
        result = invoke(*words)
        assert result.exit_code == 2 and "Usage:" in result.stderr and result.stdout == ""


# -- errors --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (EdgeError("the model is\nbroken\x1b[31m"), 1, "edge: the model is broken\\x1b[31m\n"),
        (MemoryError(), 1, "not enough memory"),
        (PermissionError(13, "Permission denied", "x.edge"), 1, "edge: Permission denied: x.edge; check the path and its permissions\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("edge.cli_cache.cache_state", fail)
    result = invoke("cache")
    assert result.exit_code == code and words in result.stderr and result.stdout == ""
    assert "Traceback" not in result.stderr


def test_files_that_may_not_be_read_are_one_sentence_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.write_bytes(b"")

    def refuse(*args: object, **options: object) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(closed))

    # As for a file of another user; root, as whom tests may run, reads those as well.
    monkeypatch.setattr(os, "access", lambda *args, **options: False)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    for command in (["convert", closed], ["inspect", closed], ["verify", closed, closed], ["run", "-m", closed, closed], ["warm", closed]):
        result = invoke(*command)
        assert result.exit_code == 1 and "Permission denied" in result.stderr and result.stderr.count("\n") == 1, command


def test_a_picture_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match="Permission denied; check its permissions"):
        read_picture(tmp_path / "a.png")


def test_a_fault_of_edge_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("edge.cli_cache.cache_state", fail)
    with pytest.raises(ZeroDivisionError):
        invoke("cache")


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.zeros((3000, 8, 8, 3), np.uint8))
    return tmp_path / "x.npy"


def test_a_reader_that_leaves_ends_it_quietly(model: Path, arrays: Path) -> None:
    with subprocess.Popen([EDGE, "run", arrays, "-m", model], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stderr
        running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read()
    assert running.returncode == 1 and "Traceback" not in errors and "Exception" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["cache", "run"])
def test_a_full_disk_is_one_line(model: Path, arrays: Path, command: str) -> None:
    words = ["cache"] if command == "cache" else ["run", arrays, "-m", model]
    with open("/dev/full", "w") as full:
        done = subprocess.run([EDGE, *map(str, words)], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    done = subprocess.run(f"{EDGE} cache {closed}", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "" and ("folder" in done.stdout) == (closed == "2>&-")


def test_names_that_the_encoding_lacks_are_printed_all_the_same(model: Path, tmp_path: Path) -> None:
    name = tmp_path / "grün\u2603\udcff.png"
    Image.new("RGB", (8, 8), "red").save(name.with_name("x.png"))
    os.rename(name.with_name("x.png"), name)
    done = process("run", name, "-m", model, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, encoding="latin-1")
    assert done.returncode == 0 and "grün\\u2603\\udcff.png" in done.stdout


# -- terminals -----------------------------------------------------------------------------------------------------------------


def in_terminal(*args: object, **environment: str) -> str:
    """What a command prints where stdout and stderr are one terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    env.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None
    with subprocess.Popen([EDGE, *map(str, args)], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as running:
        os.close(theirs)
        read = bytearray()
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux ends a terminal without writers so
                break
            if not piece:
                break
            read += piece
    os.close(ours)
    assert running.returncode == 0, read
    return read.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colour_and_a_pipe_none(model: Path, tmp_path: Path) -> None:
    source = write_h5(tmp_path / "colours.h5", colour_layers(), (8, 8, 3))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png")
    for words in (["run", tmp_path / "x.png", "-m", model], ["inspect", model], ["doctor"]):
        assert ESCAPE in in_terminal(*words)
        piped = process(*words)
        assert piped.returncode == 0 and ESCAPE not in piped.stdout + piped.stderr
    shown = in_terminal("convert", source)
    assert "colours.h5: reading" in shown and "─" in shown
    piped = process("convert", source)
    assert ESCAPE not in piped.stdout + piped.stderr and "reading" not in piped.stderr and "─" not in piped.stdout


def test_no_color_and_dumb_terminals_are_respected(model: Path) -> None:
    assert not re.search(r"\x1b\[\d*m", in_terminal("doctor", NO_COLOR="1"))
    assert ESCAPE not in in_terminal("inspect", model, TERM="dumb")


def test_long_batches_show_progress(model: Path, arrays: Path) -> None:
    shown = in_terminal("run", arrays, "-m", model, "-k", "1")
    assert re.search(r"running #*-* [\d,]+/3,000", shown) and f"{arrays}[2999]: " in shown
    assert shown.rstrip().splitlines()[-1].count("running") == 0


def test_tables_are_aligned_columns_where_they_are_piped(capsys: pytest.CaptureFixture[str]) -> None:
    out_table([Column("name"), Column("bytes", right=True)], [["a", "1"], ["long \x1b", "22"]], total=["total", "23"])
    assert capsys.readouterr().out == "name       bytes\na              1\nlong \\x1b     22\ntotal         23\n"


@pytest.mark.parametrize(("nbytes", "text"), [(1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (5 << 30, "5.0 GiB")])
def test_sizes_read_well(nbytes: int, text: str) -> None:
    assert bytes_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21e-7, "0.321 us"), (8.5e-5, "85.0 us"), (4.2e-4, "420 us"), (9.999e-4, "1.00 ms"), (75, "75.00 s")]
)
def test_times_read_well(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_what_terminals_would_obey_is_escaped() -> None:
    assert printable("a\x1b[2J\n\x07ü\ud800") == "a\\x1b[2J \\x07ü\\ud800"
    assert styled("x", "bold") == "x"  # no terminal here


@pytest.mark.parametrize(("cached", "text"), [(True, "edge: compiling 2 kernels for this machine (once) ... done in "),
                                              (False, "edge: compiling 2 kernels for this machine ...\n")])  # fmt: skip
def test_compiling_is_one_line(cached: bool, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with compiling(cached) as progress:
        for done in range(3):
            progress(done, 2)
    printed = capsys.readouterr().err
    assert printed.startswith(text) and printed.count("\n") == 1
    with pytest.raises(EdgeError), compiling(cached) as progress:
        progress(0, 1)
        raise EdgeError("x")
    assert capsys.readouterr().err.endswith("\n")


# -- the small commands --------------------------------------------------------------------------------------------------------


def test_warm_fills_the_cache_that_cache_shows_and_clears(model: Path, tmp_path: Path) -> None:
    where = {**os.environ, "EDGE_CACHE": str(tmp_path / "cache")}
    before = json.loads(process("cache", "--json", env=where).stdout)
    assert before == {"folder": str(tmp_path / "cache"), "objects": 0, "bytes": 0, "writable": True}
    warmed = process("warm", model, "--json", env=where)
    assert warmed.returncode == 0 and warmed.stderr.startswith("edge: compiling ")
    (entry,) = json.loads(warmed.stdout)["files"]
    state = json.loads(process("cache", "--json", env=where).stdout)
    assert entry["compiled"] == state["objects"] > 0 and state["bytes"] > 0
    again = process("warm", model, env=where)
    assert again.returncode == 0 and again.stderr == f"edge: {model} is ready for {entry['instruction_set']}, nothing had to be compiled\n"
    assert f"{state['objects']} kernels" in process("cache", env=where).stdout
    assert process("cache", "--clear", env=where).stdout == f"deleted {state['objects']} files from {tmp_path / 'cache'}\n"
    assert json.loads(process("cache", "--json", env=where).stdout)["objects"] == 0


def test_warm_goes_on_after_a_bad_file(model: Path, tmp_path: Path) -> None:
    result = invoke("warm", tmp_path / "none.edge", model, "--json")
    assert result.exit_code == 1 and "none.edge" in result.stderr
    assert ["error" in entry for entry in json.loads(result.stdout)["files"]] == [True, False]


def test_warm_says_how_a_model_is_converted(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    result = invoke("warm", tmp_path / "model.h5")
    assert result.exit_code == 1 and f"convert it first: edge convert {tmp_path / 'model.h5'}" in result.stderr


def test_a_cache_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = invoke("cache", EDGE_CACHE=str(blocked / "cache"))
    assert result.exit_code == 0 and "not writable" in result.stdout


def test_doctor_says_what_there_is() -> None:
    result = invoke("doctor", "--json", EDGE_ISA="")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["problems"] == [] and found["instruction_set"] == found["instruction_sets"][0]
    assert found["packages"]["numpy"] == np.__version__ and set(found["runtimes"]) == {"ai-edge-litert", "tflite-runtime", "tensorflow"}
    text = invoke("doctor").stdout
    for word in ("Python", "numba", "instruction sets", "kernel cache", "TFLite runtimes", "TensorFlow"):
        assert word in text
    result = invoke("doctor", EDGE_ISA="nonsense")
    assert result.exit_code == 1 and "EDGE_ISA=nonsense cannot be used" in result.stderr and "nonsense" in result.stdout


def test_doctor_imports_no_framework() -> None:
    code = "import sys\nfrom edge.cli import cli\ncli(['doctor'], standalone_mode=False)\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "numba", "h5py", "ai_edge_litert", "rich"} & set(done.stderr.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    if shell == "bash" and not any((Path(folder) / "bash").exists() for folder in os.environ["PATH"].split(":")):
        pytest.skip("click asks bash for its version")
    result = invoke("completion", shell)
    assert result.exit_code == 0 and "_EDGE_COMPLETE" in result.stdout
    word = {"COMP_WORDS": "edge con", "COMP_CWORD": "con" if shell == "fish" else "1"}
    completed = process(env={**os.environ, **word, "_EDGE_COMPLETE": f"{shell}_complete"})
    assert "convert" in completed.stdout
