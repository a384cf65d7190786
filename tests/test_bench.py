"""`edge bench`: figures, the machine's clock, files and comparisons, the command. No time is asserted, only how times relate."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from keras_files import binary_colour_layers, colour_layers, write_h5

import edge
from edge import tflite_runner
from edge.bench import Row, Run, bench
from edge.bench_file import compare, load, save, statistics, to_pytest_benchmark
from edge.bench_machine import Clock
from edge.bench_models import EDGE, TFLITE, Sources, Subject, Subjects, find_subjects
from edge.bench_rounds import Timing
from edge.cli import cli
from edge.errors import InputError, MissingPackage
from edge.format import read
from edge.tensors import Encoding
from edge.threads import usable_cores
from edge.widths import WIDTHS, Bits, described, is_calibrated

STEADY = Clock(spin_s=1e-4, frequency_hz=1.5e9, governor="performance", temperature_c=50.0, throttle_events=0, throttled=(), load=0.0)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, args)], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a float network as colours.h5 and colours.edge, and a binarized one as signs.h5."""
    where = tmp_path_factory.mktemp("models")
    edge.convert(write_h5(where / "colours.h5", colour_layers(), (8, 8, 3)), formats="edge")
    write_h5(where / "signs.h5", binary_colour_layers(), (8, 8, 3))
    return where


@pytest.fixture(scope="module")
def tflite(folder: Path) -> Path:
    pytest.importorskip("flatbuffers", reason="flatbuffers is not installed, no .tflite can be written")
    pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed, no .tflite can be run")
    edge.convert(folder / "colours.h5", folder / "lite.tflite", bits=32, formats="tflite")
    return folder / "lite.tflite"


# -- files ---------------------------------------------------------------------------------------------------------------------


def run_of(**seconds: float) -> Run:
    """A run of rows on one thread whose calls take about so many seconds."""
    steps = np.linspace(0.99, 1.01, 21)
    rows = tuple(
        Row(name, "edge", 1, value * steps, Timing(tuple(value * steps), 1), (2 * value,), (3 * value,), (1.0, 1.0, 1.0))
        for name, value in seconds.items()
    )
    machine = {"processor": "a processor", "cores": 1, "instruction_set": "generic", "system": "Linux", "versions": {"python": "3"}}
    return Run(rows, (("b", "is not installed"),), ("a remark",), STEADY, STEADY, 1.0, 1 << 20, machine, 1e-4)


@given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=50))
def test_statistics_are_those_of_pytest_benchmark(seconds: list[float]) -> None:
    stats = pytest.importorskip("pytest_benchmark.stats", reason="pytest-benchmark is not installed").Stats()
    for value in seconds:
        stats.update(value)
    ours = statistics(np.array(seconds))
    expected = stats.as_dict()
    assert set(expected) <= set(ours) | {"data"}
    for name in ("min", "max", "mean", "stddev", "median", "rounds", "ops", "total"):
        assert ours[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-15), name
    assert ours["min"] <= ours["q1"] <= ours["median"] <= ours["q3"] <= ours["max"]
    assert ours["min"] <= ours["ld15iqr"] <= ours["hd15iqr"] <= ours["max"]


def test_a_saved_run_is_read_again_and_names_nobody(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save(run_of(a=1e-4, b=2e-4), path)
    stored = load(path)
    assert list(stored.rows) == ["a, 1 thread", "b, 1 thread"] and stored.rows["a, 1 thread"].median_s == pytest.approx(1e-4)
    assert stored.spin_s == 1e-4 and stored.processor == "a processor"
    text = path.read_text()
    assert platform.node() not in text and json.loads(text)["machine_info"]["node"] == ""
    assert getpass.getuser() == "root" or getpass.getuser() not in text


def test_pytest_benchmark_reads_what_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    for name, seconds in (("old", 1e-4), ("new", 2e-4)):
        save(run_of(a=seconds, b=seconds), tmp_path / f"{name}.json")
    command = [sys.executable, "-m", "pytest_benchmark", "compare", tmp_path / "old.json", tmp_path / "new.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "4 tests" in done.stdout and "(2.00)" in done.stdout and "Failed to load" not in done.stdout + done.stderr


def test_a_comparison_is_at_equal_clocks(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    save(run_of(a=1e-4, b=1e-4, gone=1.0), path)
    now = run_of(a=2e-4, b=1e-4, new=1.0)
    found = compare(now, load(path))
    assert [(each.name, each.clear) for each in found.changes] == [("a, 1 thread", True), ("b, 1 thread", False)]
    assert found.worst is found.changes[0] and found.worst.times == pytest.approx(2.0)
    assert found.missing == ("gone, 1 thread",) and found.clocks == 1.0
    hidden = replace(found, changes=(replace(found.changes[0], clear=False), found.changes[1]))
    assert hidden.worst is None and hidden.to_json()["worst"] is None
    slower_clock = compare(replace(now, spin_s=2e-4), load(path))
    assert slower_clock.clocks == 0.5 and [each.times for each in slower_clock.changes] == pytest.approx([1.0, 0.5])


def test_clocks_of_different_machines_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    save(run_of(a=1e-4), path)
    now = replace(run_of(a=1e-4), spin_s=2e-4)
    other = replace(now, machine={**now.machine, "processor": "another"})
    found = compare(other, load(path))
    assert found.clocks == 1.0 and "another processor, a processor" in found.remarks[0]
    document = to_pytest_benchmark(run_of(a=1e-4))
    document["machine_info"]["python_version"] = "3.0.0"
    path.write_text(json.dumps(document))
    assert "Python 3.0.0" in compare(now, load(path)).remarks[0]
    del document["machine_info"]["edge"]
    path.write_text(json.dumps(document))
    assert "does not tell its clock" in compare(now, load(path)).remarks[0]


def test_runs_without_a_common_row_do_not_compare(tmp_path: Path) -> None:
    save(run_of(a=1e-4), tmp_path / "old.json")
    with pytest.raises(InputError, match="it holds a, 1 thread, this one b, 1 thread"):
        compare(run_of(b=1e-4), load(tmp_path / "old.json"))


def damaged() -> dict[str, str | bytes]:
    def change(name: str, value: Any) -> str:
        document = to_pytest_benchmark(run_of(a=1e-4))
        document["benchmarks"][0]["stats"][name] = value
        return json.dumps(document)

    return {
        "empty": b"",
        "binary": b"\x00\xff\xfe",
        "list": "[]",
        "no rows": "{}",
        "rows of text": '{"benchmarks": ["a"], "machine_info": {}}',
        "null": '{"benchmarks": null, "machine_info": {}}',
        "no machine": '{"benchmarks": []}',
        "machine of text": '{"benchmarks": [], "machine_info": "x"}',
        "edge of text": '{"benchmarks": [], "machine_info": {"edge": "x"}}',
        "deep": "[" * 100_000,
        "not a number": change("median", float("nan")),
        "infinite": change("q1", float("inf")),
        "zero": change("median", 0),
        "negative": change("q3", -1.0),
        "text": change("median", "fast"),
        "true": change("median", True),
        "huge": change("median", 10**400),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    content = damaged()[name]
    path = tmp_path / "old.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"expected JSON of edge bench --save or pytest-benchmark, got .*; name another file"):
        load(path)


# -- what is timed -------------------------------------------------------------------------------------------------------------


def test_files_of_one_name_are_told_apart_without_their_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "colours.edge").write_bytes((folder / "colours.edge").read_bytes())
    found = find_subjects([str(folder / "colours.edge"), str(tmp_path / "colours.edge"), "digits"], tmp_path, Sources())
    assert [each.name for each in found.subjects] == ["colours.edge", "colours.edge (2)", "digits.edge"]
    assert {each.kind for each in found.subjects} == {EDGE}


def test_a_keras_file_is_converted_for_both_engines(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="flatbuffers is not installed, no .tflite can be written")
    steps: list[str] = []
    found = find_subjects([str(folder / "colours.h5")], tmp_path, Sources(bits=(1, 8)), tell=steps.append)
    assert [(each.name, each.kind) for each in found.subjects] == [
        ("colours.h5 edge 1-bit", EDGE),
        ("colours.h5 edge 8-bit", EDGE),
        ("colours.h5 LiteRT float32", TFLITE),
        ("colours.h5 LiteRT int8", TFLITE),
    ]
    assert found.absent == () and "16 random examples" in found.remarks[0] and len(found.remarks) == 1
    assert len(steps) == 5 and all("colours.h5" in step for step in steps)


def test_of_a_binarized_network_tflite_has_wider_layers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="flatbuffers is not installed, no .tflite can be written")
    found = find_subjects([str(folder / "signs.h5")], tmp_path, Sources())
    assert any("trained with signs" in remark for remark in found.remarks)


def test_given_pictures_are_what_is_calibrated_on(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "x.npy"
    np.save(pictures, np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8))
    found = find_subjects([str(folder / "colours.h5")], tmp_path, Sources(bits=(8,), calibrate=str(pictures), litert=False))
    assert [each.name for each in found.subjects] == ["colours.h5 edge 8-bit"] and "the pictures given" in found.remarks[0]


@pytest.mark.parametrize("bits", [bits for bits in WIDTHS if is_calibrated(bits)])
def test_every_width_below_16_works_on_int8(folder: Path, tmp_path: Path, bits: Bits) -> None:
    found = find_subjects([str(folder / "colours.h5")], tmp_path, Sources(bits=(bits,), litert=False))
    (subject,) = found.subjects
    assert subject.name == f"colours.h5 edge {described(bits)}" and "random examples" in found.remarks[0]
    assert any(tensor.type.encoding is Encoding.INT8 for tensor in read(subject.path).tensors)


def test_what_tflite_cannot_hold_is_absent_and_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise MissingPackage("flatbuffers is not installed")

    monkeypatch.setattr("edge.converters.convert.tflite_content", fail)
    found = find_subjects([str(folder / "colours.h5")], tmp_path, Sources())
    assert [each.name for each in found.subjects] == ["colours.h5 edge 1-bit"]
    assert found.absent == tuple((f"colours.h5 LiteRT {kind}", "flatbuffers is not installed") for kind in ("float32", "int8"))


# -- measuring -----------------------------------------------------------------------------------------------------------------


def test_rows_hold_warm_and_cold_calls_and_their_ratio(folder: Path, tflite: Path) -> None:
    told: list[tuple[str, float]] = []
    found = Subjects((Subject("ours", EDGE, folder / "colours.edge"), Subject("peer", TFLITE, tflite)))
    run = bench(found, threads=[1], seconds=0.3, progress=lambda what, share: told.append((what, share)))
    ours, peer = run.rows
    assert (ours.name, peer.name) == ("ours", "peer") and ours.backend.startswith("edge ") and "litert" in peer.backend
    assert len(ours.rounds.seconds) == len(peer.rounds.seconds) >= 3
    assert len(ours.latencies_s) == ours.rounds.calls * len(ours.rounds.seconds)
    assert 1 <= len(ours.first_s) <= 5 and 3 <= len(ours.flushed_s) <= 30
    assert ours.times == (1.0, 1.0, 1.0) and peer.times[0] <= peer.times[1] <= peer.times[2]
    assert peer.times[1] == pytest.approx(float(np.median(np.divide(peer.rounds.seconds, ours.rounds.seconds))))
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    json.dumps(run.to_json(), allow_nan=False)


def test_percentiles_of_few_calls_are_not_told() -> None:
    row = run_of(a=1.0).rows[0]
    assert row.percentile_s(95) is not None and row.percentile_s(99) is None
    assert replace(row, latencies_s=row.latencies_s[:19]).percentile_s(95) is None


@pytest.mark.parametrize("threads", [[0], [-1], [usable_cores() + 1], []])
def test_threads_that_are_not_there_are_refused(threads: list[int], folder: Path) -> None:
    with pytest.raises(InputError, match=r"threads should be 1 to \d+"):
        bench(Subjects((Subject("a", EDGE, folder / "colours.edge"),)), threads=threads)


def test_without_an_interpreter_rows_of_tflite_files_are_absent(folder: Path, tflite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_runner, "_BACKENDS", {"nothing": ("no_such_module", ("nothing",)), "tensorflow": ("sys", ("x",))})
    ours, peer = Subject("ours", EDGE, folder / "colours.edge"), Subject("peer", TFLITE, tflite)
    run = bench(Subjects((ours, peer)), threads=[1], seconds=0.1)
    assert [row.name for row in run.rows] == ["ours"]
    assert [name for name, _ in run.absent] == ["peer"] and "none is installed" in run.absent[0][1]
    with pytest.raises(MissingPackage, match="needs one of nothing"):
        bench(Subjects((peer,)), threads=[1], seconds=0.1)


def test_neither_tensorflow_nor_keras_is_imported(folder: Path, tflite: Path) -> None:
    arguments = ["bench", str(folder / "colours.h5"), str(tflite), "--seconds", "0.1", "--threads", "1"]
    code = f"import sys\nfrom edge.cli import cli\ncli({arguments!r}, standalone_mode=False)\n"
    code += "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n") and "lite.tflite" in done.stdout


def test_a_program_is_measured_without_what_a_small_device_lacks(folder: Path) -> None:
    arguments = ["bench", str(folder / "colours.edge"), "--seconds", "0.1", "--threads", "1"]
    code = f"import sys\nfrom edge.cli import cli\ncli({arguments!r}, standalone_mode=False)\n"
    code += "print([name for name in ('h5py', 'rich', 'PIL', 'flatbuffers', 'ai_edge_litert') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


# -- the command ---------------------------------------------------------------------------------------------------------------


def test_the_command_prints_tables_and_saves_a_run_that_compares(folder: Path, tmp_path: Path) -> None:
    model, saved = folder / "colours.edge", tmp_path / "run.json"
    first = invoke(model, "--threads", "1", "--seconds", "0.2", "--save", saved)
    assert first.exit_code == 0 and "p99" in first.stdout and "flushed" in first.stdout and "\x1b" not in first.stdout
    assert f"saved to {saved}" in first.stderr
    again = invoke(model, "--threads", "1", "--seconds", "0.2", "--save", saved, "--compare", saved, "--json")
    document = json.loads(again.stdout)
    assert again.exit_code == 0 and [row["name"] for row in document["rows"]] == ["colours.edge"]
    assert document["compared"]["changes"][0]["name"] == "colours.edge, 1 thread"
    assert set(document["clock"]) == {"before", "after", "not_available"}


@pytest.mark.parametrize(("factor", "code", "word"), [(1e-3, 1, "slower"), (1e3, 0, "faster")])
def test_a_regression_is_shown_and_fails(factor: float, code: int, word: str, folder: Path, tmp_path: Path) -> None:
    model, saved = folder / "colours.edge", tmp_path / "run.json"
    assert invoke(model, "--threads", "1", "--seconds", "0.2", "--save", saved).exit_code == 0
    document = json.loads(saved.read_text())
    for name in ("median", "q1", "q3"):
        document["benchmarks"][0]["stats"][name] *= factor
    saved.write_text(json.dumps(document))
    result = invoke(model, "--threads", "1", "--seconds", "0.2", "--compare", saved, "--fail-above", "1.5")
    assert result.exit_code == code and word in result.stdout
    assert ("expected at most 1.5" in result.stderr) == (code == 1)


def test_a_keras_file_gets_a_row_of_each_engine(folder: Path, tflite: Path) -> None:
    result = invoke(folder / "colours.h5", "--bits", "8", "--bits", "32", "--bits", "8", "--threads", "1", "--seconds", "0.3")
    assert result.exit_code == 0 and "random examples" in result.stderr
    for name in ("edge 8-bit", "edge float32", "LiteRT float32", "LiteRT int8"):
        assert result.stdout.count(f"colours.h5 {name}") >= 2
    alone = invoke(folder / "colours.h5", "--no-litert", "--threads", "1", "--seconds", "0.1")
    assert alone.exit_code == 0 and "LiteRT" not in alone.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.edge"], "cannot read the model no.edge: expected a file"),
        (["notes.txt"], "expected a .edge, .tflite or Keras file"),
        (["cut.edge"], "cut.edge"),
        (["cut.tflite"], "cut.tflite"),
        (["cut.h5"], "cut.h5"),
        (["colours.edge", "--threads", "0"], "threads should be 1 to"),
        (["colours.edge", "--save", "nowhere/run.json"], "cannot save to nowhere/run.json"),
        (["colours.edge", "--save", "colours.edge"], "cannot read colours.edge as a saved run"),
        (["colours.edge", "--save", "."], "cannot read the run to compare with ."),
        (["colours.edge", "--compare", "no.json"], "no.json"),
        (["colours.h5", "--calibrate", "no.npz", "--bits", "8"], "no.npz"),
        (["colours.h5", "--input-shape", "9,9,9"], "9"),
    ],
)
def test_errors_are_one_sentence_and_nothing_is_measured(
    arguments: list[str], words: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, keras = (folder / "colours.edge").read_bytes(), (folder / "colours.h5").read_bytes()
    files = {"colours.edge": program, "colours.h5": keras, "cut.edge": program[:-100], "cut.h5": keras[:900], "notes.txt": b"hello, world"}
    for name, content in {**files, "cut.tflite": b"\x1c\x00\x00\x00TFL3" + bytes(40)}.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments, "--seconds", "0.1")
    assert result.exit_code == 1 and result.stdout == "" and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.stderr
    assert (tmp_path / "colours.edge").read_bytes() == program


@pytest.mark.parametrize("arguments", [[], ["x.edge", "--fail-above", "1.1"], ["x.edge", "--seconds", "0"], ["x.edge", "--bits", "7"],
                                       ["x.edge", "--threads", "two"], ["x.edge", "--compare", "a", "--fail-above", "0"]])  # fmt: skip
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2 and "Usage:" in result.stderr
