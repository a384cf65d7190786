"""What would help most, the survey over devices, and the page: estimates that are called estimates, and no figure out of nothing."""

from __future__ import annotations

import html.parser
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_programs import (
    FLOAT32,
    GRAPHS,
    INT8,
    NO_PADDING,
    PADDING,
    Builder,
    TensorType,
    float_type,
    int8_type,
    program,
)

from edge.cli import cli
from edge.format import write
from edge.lower import to_program
from edge.program import Program
from edge.targets.advice import Advice, advise, sentence
from edge.targets.devices import Device, available, load_device
from edge.targets.profile import MEASURED, PREDICTED, Profile, predict
from edge.targets.report_page import page
from edge.targets.survey import survey
from edge.tflite_listing import list_tflite

PI = "raspberry-pi-4"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device(PI)


def float_program() -> Program:
    """Float convolutions, of which the one in the middle takes nearly all of the time, and a wide dense layer."""
    b = Builder(7)
    x = b.conv(b.input(TensorType((16, 16, 3), FLOAT32)), 32, (3, 3), stored=FLOAT32, output=float_type(), **PADDING)
    x = b.conv(x, 64, (3, 3), stored=FLOAT32, output=float_type(), **PADDING)
    x = b.add("average_pool2d", x, window_h=4, window_w=4, stride_h=4, stride_w=4, **NO_PADDING)
    x = b.dense(x, 128, stored=FLOAT32, output=float_type())
    return to_program(b.graph("float", b.dense(x, 10, stored=FLOAT32, output=float_type())))


def predicted(made: Program, device: Device) -> Profile:
    return predict("model.edge", 10**6, made, device)


def test_the_layer_that_takes_the_time_is_the_one_to_change(device: Device) -> None:
    found = predicted(float_program(), device)
    advice = advise(float_program(), replace(found, seconds_by_threads={}), device)
    longest = max(found.layers, key=lambda layer: layer.seconds or 0.0)
    assert advice[0].change.startswith("+".join(longest.layers)) and "1 bit" in advice[0].change
    assert 0 < (advice[0].seconds or 0) < (longest.seconds or 0) and advice[0].basis == PREDICTED and advice[0].expected_error


def test_what_a_change_is_said_to_save_is_what_the_changed_network_is_predicted_to_save(device: Device) -> None:
    """A layer at 8 bits, costed alone, against the whole network converted so."""
    b = Builder(8)
    x = b.conv(b.input(TensorType((16, 16, 32), INT8, 0.1)), 64, (3, 3), stored=INT8, output=int8_type(), **PADDING)
    eight = predicted(to_program(b.graph("eight", x)), device).layers[0]
    b = Builder(8)
    x = b.conv(b.input(TensorType((16, 16, 32), FLOAT32)), 64, (3, 3), stored=FLOAT32, output=float_type(), **PADDING)
    made = to_program(b.graph("float", x))
    found = predicted(made, device)
    (advice,) = (each for each in advise(made, _short_of_storage(found), device) if "at 8 bits" in each.change)
    assert advice.storage_bytes == found.layers[0].storage_bytes - eight.storage_bytes
    assert (found.seconds or 0) - (advice.seconds or 0) == pytest.approx(eight.seconds, rel=0.15)


def _short_of_storage(found: Profile) -> Profile:
    return replace(found, fits_storage=False)


def test_where_a_model_does_not_fit_bytes_come_first(device: Device) -> None:
    found = predicted(float_program(), device)
    for short, key in ((replace(found, fits_memory=False), "ram_bytes"), (_short_of_storage(found), "storage_bytes")):
        advice = advise(float_program(), short, device)
        saved = [getattr(each, key) for each in advice]
        assert saved == sorted(saved, reverse=True) and saved[0] > 0


@pytest.mark.parametrize("name", GRAPHS)
def test_every_network_gets_advice_that_helps(name: str, device: Device) -> None:
    made = program(name)
    found = predicted(made, device)
    for advice in advise(made, found, device):
        assert advice.seconds is None or advice.seconds > 0
        assert sentence(advice, found.seconds).startswith(advice.change) and MEASURED not in sentence(advice, found.seconds)


def test_without_figures_for_kernels_no_time_is_made_up(device: Device) -> None:
    made = float_program()
    found = replace(predicted(made, device), seconds_by_threads={})
    advice = advise(made, found, None)
    assert advice and all(each.seconds is None and each.expected_error is None for each in advice)


def test_a_second_thread_is_weighed_by_its_time(device: Device) -> None:
    found = replace(predicted(program("digits"), device), seconds_by_threads={1: 4.0, 2: 3.0, 4: 3.5}, seconds=4.0)
    first = advise(program("digits"), found, device)[0]
    assert first == Advice("2 threads in place of one", "edge.load(model, threads=2)", 1.0, 0, 0, PREDICTED, found.expected_error)


# -- devices side by side ------------------------------------------------------------------------------------------------------


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.edge"
    write(program("digits"), path)
    return path


def test_all_devices_are_in_one_table_and_only_this_machine_is_measured(file: Path) -> None:
    found = json.loads(invoke("profile", file, "--target", "all", "--json").stdout)["profiles"]
    assert [each["target"] for each in found] == ["host", *available()]
    assert [each["target"] for each in found if each["time_basis"] == MEASURED] == ["host"]
    table = invoke("profile", file, "--target", "all").stdout.splitlines()
    assert len(table) == 1 + len(found)
    assert [MEASURED in line for line in table[1:]] == [True] + [False] * len(available())


def test_threads_limit_what_is_shown(file: Path) -> None:
    found = json.loads(invoke("profile", file, "--target", PI, "--threads", 2, "--json").stdout)
    assert list(found["seconds_by_threads"]) == ["1", "2"]
    assert found["advice"][0].keys() >= {"change", "seconds", "basis", "expected_error"}


class Tags(html.parser.HTMLParser):
    """Proves that every element is closed, and that nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe") and not {"src", "href", "onload"} & {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_is_whole_and_says_what_is_predicted(file: Path, tmp_path: Path) -> None:
    result = invoke("profile", file, "--target", PI, "--html", tmp_path / "report.html")
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "report.html").read_text("utf-8")
    tags = Tags()
    tags.feed(text)
    assert not tags.open and "http" not in text and "@import" not in text
    assert "predicted" in text and "Give its Keras source" in text and "<svg" in text
    before_host = text[: text.index("this machine")]
    assert "measured," not in before_host


def test_the_page_never_replaces_the_model(file: Path) -> None:
    before = file.read_bytes()
    result = invoke("profile", file, "--html", file)
    assert result.exit_code == 1 and "name another file" in result.stderr and file.read_bytes() == before


def test_names_of_layers_cannot_break_the_page(tmp_path: Path) -> None:
    made = program("digits")
    write(replace(made, layers=((f"<script>{chr(34)}&",), *made.layers[1:])), tmp_path / "a<b>.edge")
    text = page(survey("a<b>.edge", [("", tmp_path / "a<b>.edge")], [PI]))
    Tags().feed(text)
    assert "<script" not in text


def test_versions_of_a_keras_model_stand_side_by_side(tmp_path: Path) -> None:
    source = ROOT / "tests/fixtures/keras2_functional.h5"
    found = json.loads(invoke("profile", source, "--target", PI, "--json", "--html", tmp_path / "report.html").stdout)
    mine = [each for each in found["profiles"] if each["target"] == PI]
    assert [each["version"] for each in mine] == ["32 bits", "8 bits", "1-bit weights", "1 bit"]
    assert "32x32" in mine[0]["macs"] and "8x8" in mine[1]["macs"] and "1x1" in mine[3]["macs"]
    assert any("training" in remark for remark in found["remarks"])
    assert (tmp_path / "report.html").read_text("utf-8").count("1-bit weights") >= 4


def test_widths_of_a_keras_model_are_chosen(tmp_path: Path) -> None:
    source = ROOT / "tests/fixtures/keras2_functional.h5"
    widths = ("--bits", "2", "--bits", "ternary", "--bits", "2")
    found = json.loads(invoke("profile", source, "--target", PI, "--json", "--html", tmp_path / "page.html", *widths).stdout)
    assert [each["version"] for each in found["profiles"] if each["target"] == PI] == ["2 bits", "ternary"]
    assert any("int8 activations are calibrated on random" in remark for remark in found["remarks"])
    assert not any("training" in remark for remark in found["remarks"])
    Tags().feed((tmp_path / "page.html").read_text("utf-8"))


def test_a_converted_file_has_its_bits(file: Path) -> None:
    result = invoke("profile", file, "--bits", "4")
    assert result.exit_code == 1 and "--bits takes a Keras file" in result.stderr and "leave it out" in result.stderr


# -- .tflite -------------------------------------------------------------------------------------------------------------------


def test_a_tflite_file_is_measured_here_and_nowhere_else(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    assert invoke("convert", ROOT / "examples/digits.h5", "--format", "tflite", "-o", tmp_path / "digits").exit_code == 0
    lite = tmp_path / "digits.tflite"
    found = json.loads(invoke("profile", lite, "--json", "--threads", 1).stdout)
    assert found["storage_bytes"] == lite.stat().st_size and found["time_basis"] == MEASURED and list(found["seconds_by_threads"]) == ["1"]
    edge = json.loads(invoke("profile", ROOT / "edge/data/digits.edge", "--target", PI, "--json").stdout)
    assert sum(found["macs"].values()) == sum(edge["macs"].values()), "one network in two files"
    assert sum(layer["constants_bytes"] for layer in found["layers"]) < found["storage_bytes"]
    for wrong in (("--target", PI), ("--target", "all"), ("--html", tmp_path / "x.html")):
        result = invoke("profile", lite, *wrong)
        assert result.exit_code == 1 and "leave it out" in result.stderr and not (tmp_path / "x.html").exists()


def test_bytes_of_a_lite_tensor_are_those_of_its_values(tmp_path: Path) -> None:
    assert invoke("convert", ROOT / "examples/digits.h5", "--format", "tflite", "-o", tmp_path / "digits").exit_code == 0
    outputs = [each.output for each in list_tflite((tmp_path / "digits.tflite").read_bytes()).operators]
    assert outputs and all(each.nbytes == np.prod(each.shape) * np.dtype(each.dtype).itemsize for each in outputs)
