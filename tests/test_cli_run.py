"""`edge run`: the two commands of a newcomer, which model is taken, how pictures are prepared, and what a run costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import COLOURS, binary_colour_layers, colour_layers, write_h5
from run_models import SIZE, document, invoke, picture
from run_models import folder as folder
from run_models import models as models

from edge import cli_model

# -- the two commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [colour_layers, binary_colour_layers], ids=["float", "binary"])
@pytest.mark.parametrize("colour", COLOURS)
def test_convert_and_run_in_a_folder_with_nothing_else(folder: Path, colour: str, layers: Callable[[], list[Any]]) -> None:
    write_h5(folder / "model.h5", layers(), (SIZE, SIZE, 3))
    picture(folder / "image.png", colour)
    environment = {name: value for name, value in os.environ.items() if name != "EDGE_MODEL"}
    for command in ("edge convert model.h5 --bits 1", "edge run image.png"):
        words = [str(Path(sys.executable).parent / "edge"), *command.split()[1:]]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {"model.h5", "model.edge", "model.tflite", "image.png"}
    first, best, *others = done.stdout.splitlines()
    assert first.startswith("image.png") and best.split()[0] == str(COLOURS.index(colour)) and best.endswith(" %")
    assert len(others) == 2
    assert "\x1b" not in done.stdout + done.stderr


# -- which model --------------------------------------------------------------------------------------------------------------


def link(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def test_the_one_model_of_the_folder_is_found(folder: Path, models: Path) -> None:
    image = picture(folder / "image.png", "green")
    link(models / "colours.tflite", folder / "a.tflite")
    assert document(invoke("run", image, "--json"))["model"] == "a.tflite"
    link(models / "colours.edge", folder / "b.edge")
    assert document(invoke("run", image, "--json"))["model"] == "b.edge"


def test_several_models_are_an_error_that_lists_them(folder: Path, models: Path) -> None:
    image = picture(folder / "image.png", "green")
    for suffix in (".tflite", ".edge"):
        link(models / f"colours{suffix}", folder / f"a{suffix}")
        link(models / f"colours{suffix}", folder / f"b{suffix}")
        result = invoke("run", image)
        assert result.exit_code == 1 and f"got a{suffix}, b{suffix}" in result.stderr and result.stdout == ""


def test_no_model_says_how_to_get_one(folder: Path) -> None:
    result = invoke("run", picture(folder / "image.png", "green"))
    assert result.exit_code == 1 and "edge convert model.h5" in result.stderr and result.stderr.count("\n") == 1


def test_the_option_comes_before_the_variable_and_that_before_the_folder(
    folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(folder / "image.png", "green")
    link(models / "colours.edge", folder / "here.edge")
    monkeypatch.setenv("EDGE_MODEL", str(models / "colours.edge"))
    assert document(invoke("run", image, "--json"))["model"] == str(models / "colours.edge")
    assert document(invoke("run", image, "--json", "-m", models / "colours.tflite"))["model"] == str(models / "colours.tflite")
    monkeypatch.setenv("EDGE_MODEL", "nowhere.edge")
    result = invoke("run", image)
    assert result.exit_code == 1 and "nowhere.edge" in result.stderr and "$EDGE_MODEL" in result.stderr


def test_an_example_is_found_by_its_name_alone(folder: Path, models: Path, tmp_path_factory: Any, monkeypatch: Any) -> None:
    data = tmp_path_factory.mktemp("data")
    link(models / "colours.edge", data / "shapes.edge")
    monkeypatch.setattr(cli_model, "BUNDLED", data)
    image = picture(folder / "image.png", "green")
    assert document(invoke("run", image, "--json", "-m", "shapes"))["model"] == str(data / "shapes.edge")
    assert "or try the example with -m shapes" in invoke("run", image).stderr
    link(models / "bytes.edge", folder / "shapes")
    assert document(invoke("run", image, "--json", "-m", "shapes"))["model"] == "shapes"


# -- preprocessing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--preset", "mobilenet"), "scaled to -1..1"),
        (("--preset", "caffe"), "BGR, less (103.939, 116.779, 123.68)"),
        (("--range", "-1,1"), "scaled to -1..1"),
        (("--mean", "0.5", "--std", "0.25,0.5,0.25"), "less 0.5, divided by (0.25, 0.5, 0.25)"),
        (("--channel-order", "bgr"), "BGR"),
        (("--gray",), "grey in every channel"),
        (("--invert",), "inverted pixels"),
        (("--resize", "letterbox", "--pad-value", "128"), "fitted into 8x8 with bands of 128"),
        (("--resize", "crop"), "cropped to the middle"),
    ],
)
def test_options_replace_what_is_stored(folder: Path, models: Path, options: tuple[str, ...], words: str) -> None:
    picture(folder / "image.png", "red")
    for model in ("colours.edge", "colours.tflite"):
        result = invoke("run", "image.png", "-m", models / model, *options)
        assert result.exit_code == 0 and words in result.stderr


def test_options_that_change_nothing_give_a_warning(folder: Path, models: Path) -> None:
    image = picture(folder / "image.png", "green")
    grey = invoke("run", image, "-m", "digits", "--channel-order", "bgr")
    assert grey.exit_code == 0 and "warning: --channel-order changes nothing, since the net sees grey" in grey.stderr
    found = invoke("run", image, "-m", models / "colours.edge", "--pad-value", 9, "--channel-order", "rgb")
    assert "warning: --pad-value changes nothing with --resize stretch" in found.stderr and "--channel-order" not in found.stderr
    used = invoke("run", image, "-m", models / "colours.edge", "--pad-value", 9, "--resize", "letterbox")
    assert "warning" not in used.stderr


def test_channel_order_changes_the_answer(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "red")
    found = document(invoke("run", "image.png", "-m", models / "colours.edge", "--channel-order", "bgr", "--json"))
    assert found["results"][0]["outputs"][0]["top"][0]["index"] == 2


def test_a_net_of_bytes_refuses_what_are_none(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "red")
    result = invoke("run", "image.png", "-m", models / "bytes.edge", "--preset", "unit")
    assert result.exit_code == 1 and result.stdout == "" and result.stderr.splitlines()[-1].startswith("edge: ")


@pytest.mark.parametrize("options", ["--range 1", "--range a,b", "--mean 1,2", "--preset x", "-k 0", "--repeat 0", "--pad-value 256"])
def test_wrong_usage_exits_with_two(folder: Path, options: str) -> None:
    assert invoke("run", "image.png", *options.split()).exit_code == 2
    assert invoke("run").exit_code == 2


# -- what a run costs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "absent"), [("colours.edge", {"ai_edge_litert"}), ("colours.tflite", {"llvmlite"})])
def test_a_run_loads_no_compiler_framework_or_table(folder: Path, models: Path, model: str, absent: set[str]) -> None:
    picture(folder / "image.png", "red")
    assert invoke("run", "image.png", "-m", models / model).exit_code == 0  # kernels are compiled now
    code = f"import sys\nfrom edge.cli import cli\ncli(['run', 'image.png', '-m', {str(models / model)!r}], standalone_mode=False)\n"
    done = subprocess.run([sys.executable, "-c", code + "print(*sys.modules)"], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & ({"numba", "tensorflow", "keras", "h5py", "rich", "edge.converters"} | absent)


def test_without_a_cache_it_runs_and_says_so(folder: Path, models: Path) -> None:
    np.save("x.npy", np.zeros((1, 5), np.float32))
    (folder / "file").write_text("")
    environment = {**os.environ, "EDGE_CACHE": str(folder / "file" / "cache")}
    words = [str(Path(sys.executable).parent / "edge"), "run", "x.npy", "-m", str(models / "vector.edge")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    compiling, uncached = done.stderr.splitlines()
    assert done.returncode == 0 and done.stdout.startswith("x.npy")
    assert re.fullmatch(r"edge: compiling \d+ kernels for this machine \.\.\.", compiling) and "compiled anew in every process" in uncached
