"""`edge run`: what is printed and written, for one picture and for many, and what becomes of items and models that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import COLOURS, colour_layers, write_h5
from PIL import Image
from run_models import LEVELS, SIZE, arrays, document, invoke, picture
from run_models import folder as folder
from run_models import models as models

from edge import cli_model

# -- what is printed -----------------------------------------------------------------------------------------------------------


def test_the_five_best_classes_and_the_latency_of_each_picture(folder: Path, models: Path) -> None:
    for colour in COLOURS:
        picture(folder / f"{colour}.png", colour)
    result = invoke("run", "red.png", "blue.png", "-m", models / "colours.edge")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[::4]] == ["red.png", "blue.png"] and lines[0].split()[2] in ("us", "ms")
    assert [line.split()[0] for line in (lines[1], lines[5])] == ["0", "2"]
    assert result.stderr == "edge: colours.edge sees pixels 0..255 scaled to 0..1, RGB, stretched to 8x8 (bilinear)\n"


@pytest.mark.parametrize(("model", "text"), [("colours.edge", "%"), ("bytes.edge", ""), ("colours.tflite", "%"), ("bytes.tflite", "")])
def test_softmax_gives_probabilities_and_logits_give_scores(folder: Path, models: Path, model: str, text: str) -> None:
    picture(folder / "image.png", "blue")
    result = invoke("run", "image.png", "-m", models / model, "-k", 1)
    best = result.stdout.splitlines()[1].split()
    assert best[0] == "2" and (best[-1] == "%") == (text == "%")
    sees = "as they are" if model.startswith("bytes") else "scaled to 0..1"
    assert f"{model} sees pixels 0..255 {sees}, RGB" in result.stderr


def test_labels_of_a_file_name_the_classes(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "blue")
    (folder / "names.txt").write_text("\n".join(COLOURS))
    result = invoke("run", "image.png", "-m", models / "colours.edge", "--labels", "names.txt")
    assert result.stdout.splitlines()[1].split()[0] == "blue"
    (folder / "names.txt").write_text("one\ntwo\n")
    result = invoke("run", "image.png", "-m", models / "colours.edge", "--labels", "names.txt")
    assert result.exit_code == 1 and "expected 3 names" in result.stderr and result.stdout == ""


def test_several_heads_are_named(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "red")
    for model in ("heads.edge", "heads.tflite"):
        result = invoke("run", "image.png", "-m", models / model)
        assert result.exit_code == 0
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[1] == ["colour"] and lines[2][0] == "0" and ["mask"] in lines
        assert "picture 8x8x3" in result.stdout


def test_picture_outputs_are_written_as_png(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "red")
    (folder / "out").mkdir()
    for target, name in (("seen.png", "seen.png"), ("out", "out/image-mask.png")):
        result = invoke("run", "image.png", "-m", models / "heads.edge", "-o", target)
        assert result.exit_code == 0 and f"mask written to {name}" in result.stderr
        pixels = np.asarray(Image.open(folder / name))
        assert pixels.shape == (8, 8, 3) and pixels[0, 0, 0] > pixels[0, 0, 1]
    assert "expected a model with such an output" in invoke("run", "image.png", "-m", models / "colours.edge", "-o", "x.png").stderr
    assert not (folder / "x.png").exists()


def test_a_picture_is_never_replaced_by_what_is_made_of_it(folder: Path, models: Path) -> None:
    image = picture(folder / "image.png", "red")
    before = image.read_bytes()
    for option in ("--save-input", "-o"):
        result = invoke("run", "image.png", "-m", models / "heads.edge", option, "./image.png")
        assert result.exit_code == 1 and "the picture itself" in result.stderr and image.read_bytes() == before


def test_save_input_shows_what_the_net_sees(folder: Path, models: Path) -> None:
    Image.new("RGB", (30, 20), (10, 200, 90)).save(folder / "image.png")
    result = invoke("run", "image.png", "-m", models / "colours.edge", "--save-input", "seen.png", "--invert")
    assert result.exit_code == 0 and "sees inverted pixels" in result.stderr
    seen = np.asarray(Image.open(folder / "seen.png"))
    assert seen.shape == (8, 8, 3) and (seen == (245, 55, 165)).all()


def test_several_pictures_are_saved_into_a_folder(folder: Path, models: Path) -> None:
    for colour in COLOURS:
        picture(folder / f"{colour}.png", colour)
    pictures = [f"{colour}.png" for colour in COLOURS]
    result = invoke("run", *pictures, "-m", models / "colours.edge", "--save-input", "seen.png")
    assert result.exit_code == 1 and "one file for 3 pictures" in result.stderr
    (folder / "seen").mkdir()
    assert invoke("run", *pictures, "-m", models / "colours.edge", "--save-input", "seen").exit_code == 0
    assert {path.name for path in (folder / "seen").iterdir()} == {f"{colour}-input.png" for colour in COLOURS}
    twice = invoke("run", "red.png", "./red.png", "-m", models / "colours.edge", "--save-input", "seen")
    assert twice.exit_code == 1 and "already written for another picture" in twice.stderr


def test_json_holds_all_of_it(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "green")
    for model in ("heads.edge", "heads.tflite"):
        result = invoke("run", "image.png", "-m", models / model, "--json", "--timing")
        found = document(result)
        assert found["failed"] == 0 and found["accuracy"] is None and found["preprocessing"]["range"] == [0, 1]
        (entry,) = found["results"]
        colour, mask = entry["outputs"]
        assert entry["name"] == "image.png" and entry["latency_s"] > 0
        assert colour["kind"] == "probabilities" and colour["top"][0]["index"] == 1 and len(colour["values"]) == 3
        assert mask["kind"] == "picture" and mask["shape"] == [8, 8, 3] and np.array(mask["values"]).shape == (8, 8, 3)
        assert bool(found["timing"]["layers"]) == model.endswith(".edge") and found["timing"]["seconds"]["inference"] > 0


def test_timing_shows_stages_and_layers(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "green")
    result = invoke("run", "image.png", "-m", models / "colours.edge", "--timing", "--repeat", 3)
    for word in ("load model", "read", "preprocess", "inference", "softmax", "share"):
        assert word in result.stdout
    assert "inference" in invoke("run", "image.png", "-m", models / "colours.tflite", "--timing").stdout


def test_the_kind_of_output_can_be_told(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "green")
    result = invoke("run", "image.png", "-m", models / "bytes.edge", "--kind", "values", "--json")
    output = document(result)["results"][0]["outputs"][0]
    assert output["kind"] == "values" and [entry["index"] for entry in output["top"]] == [0, 1, 2]


# -- many pictures, arrays -----------------------------------------------------------------------------------------------------


def test_labelled_arrays_give_the_accuracy(folder: Path, models: Path) -> None:
    arrays(folder / "test.npz", COLOURS * 4, [0, 1, 2] * 3 + [0, 1, 1])
    result = invoke("run", "test.npz", "-m", models / "colours.edge")
    lines = result.stdout.splitlines()
    assert lines[-1] == "accuracy 91.67 % (11 of 12)"
    assert lines[0].startswith("test.npz:x[0]: 0 ") and len(lines) == 14  # one line for each, since there are many
    assert lines[11].endswith("(true: 1)") and "true" not in lines[10]
    found = document(invoke("run", "test.npz", "-m", models / "colours.tflite", "--json"))
    assert found["accuracy"] == {"right": 11, "of": 12, "share": 11 / 12}
    assert found["results"][11]["true_class"] == 1 and found["results"][11]["correct"] is False


def test_labels_that_are_none_of_the_classes_give_a_warning_and_no_accuracy(folder: Path, models: Path) -> None:
    arrays(folder / "test.npz", COLOURS, [1, 2, 3])
    result = invoke("run", "test.npz", "-m", models / "colours.edge")
    assert result.exit_code == 0 and "accuracy" not in result.stdout and "true" not in result.stdout
    assert "warning: no accuracy, since the labels of test.npz:x are not used: expected classes 0 to 2" in result.stderr
    assert document(invoke("run", "test.npz", "-m", models / "colours.edge", "--json"))["accuracy"] is None


def test_float_arrays_reach_the_net_as_they_are(folder: Path, models: Path) -> None:
    np.save(folder / "x.npy", np.full((1, SIZE, SIZE, 3), (0.9, 0.1, 0.1), np.float32))
    result = invoke("run", "x.npy", "-m", models / "colours.edge")
    assert result.exit_code == 0 and result.stdout.splitlines()[1].split()[0] == "0" and result.stderr == ""
    np.save(folder / "wide.npy", np.zeros((1, SIZE, SIZE + 1, 3), np.float32))
    result = invoke("run", "wide.npy", "-m", models / "colours.edge")
    assert result.exit_code == 1 and "expected an array of 8 x 8 x 3 values, got 8 x 9 x 3" in result.stderr


def test_a_model_without_a_picture_input_takes_arrays(folder: Path, models: Path) -> None:
    np.save(folder / "x.npy", np.arange(10, dtype=np.float32).reshape(2, 5))
    result = invoke("run", "x.npy", "-m", models / "vector.edge", "-k", 1)
    assert result.exit_code == 0 and [line.split()[0] for line in result.stdout.splitlines()] == ["x.npy[0]", "4", "x.npy[1]", "4"]
    picture(folder / "image.png", "red")
    result = invoke("run", "image.png", "image.png", "-m", models / "vector.edge")
    assert result.exit_code == 1 and "cannot be a picture" in result.stderr and result.stderr.count("\n") == 1


def test_a_folder_of_pictures_is_run_in_order(folder: Path, models: Path) -> None:
    (folder / "pictures").mkdir()
    for colour in COLOURS:
        picture(folder / "pictures" / f"{colour}.png", colour)
    result = invoke("run", "pictures", "-m", models / "colours.edge", "-k", 1)
    assert [line.split()[0] for line in result.stdout.splitlines()[::2]] == [f"pictures/{c}.png" for c in sorted(COLOURS)]


def test_a_bad_picture_does_not_stop_the_others(folder: Path, models: Path) -> None:
    picture(folder / "good.png", "blue")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "torn.npz").write_bytes(b"PK\x03\x04")
    words = ("run", "bad.png", "missing.png", "torn.npz", "good.png", "-m", models / "colours.edge")
    result = invoke(*words)
    assert result.exit_code == 1 and result.stdout.splitlines()[1].split()[0] == "2"
    for name in ("bad.png", "missing.png", "torn.npz"):
        assert sum(name in line for line in result.stderr.splitlines()) == 1
    assert "3 items of 4 failed" in result.stderr
    found = document(invoke(*words, "--json"))
    assert found["failed"] == 3 and ["error" in entry for entry in found["results"]] == [True, True, True, False]


def test_a_missing_picture_is_named_before_the_model_is_loaded(folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **options: object) -> None:
        raise AssertionError("a model was loaded")

    result = invoke("run", "none.png", picture(folder / "good.png", "blue"), "-m", models / "colours.edge")
    assert result.exit_code == 1 and result.stderr.count("none.png") == 1 and "good.png" in result.stdout
    monkeypatch.setattr(cli_model, "load_model", load)
    result = invoke("run", "none.png", "nor.npz", "-m", models / "colours.edge")
    assert result.exit_code == 1 and result.stdout == "" and [line.split(":")[0] for line in result.stderr.splitlines()] == ["edge"] * 2
    assert "cannot read the input none.png" in result.stderr and "cannot read the input nor.npz" in result.stderr


def test_a_damaged_archive_fails_once(folder: Path, models: Path) -> None:
    path = arrays(folder / "x.npz", ["red"] * 3, None)
    content = path.read_bytes()
    path.write_bytes(content.replace(bytes(LEVELS["red"] * 8), bytes(LEVELS["blue"] * 8), 1))
    result = invoke("run", "x.npz", "-m", models / "colours.edge")
    assert result.exit_code == 1 and "x.npz" in result.stderr and result.stdout == ""


# -- models that are none ------------------------------------------------------------------------------------------------------


def test_files_that_are_no_models_are_refused(folder: Path, models: Path) -> None:
    picture(folder / "image.png", "red")
    content = (models / "colours.edge").read_bytes()
    lite = (models / "colours.tflite").read_bytes()
    newer = content[:8] + (2).to_bytes(2, "little") + content[10:]
    write_h5(folder / "model.h5", colour_layers(), (SIZE, SIZE, 3))
    cases = {
        "empty.edge": (b"", "an empty file"),
        "picture.edge": ((folder / "image.png").read_bytes(), "expected a .edge, .tflite or Keras file"),
        "cut.edge": (content[:-1], "cut off"),
        "damaged.edge": (content[:-1] + bytes([content[-1] ^ 1]), "checksum"),
        "newer.edge": (newer, "got 2."),
        "cut.tflite": (lite[: len(lite) // 2], "cut.tflite"),
        "model.h5": ((folder / "model.h5").read_bytes(), "edge convert model.h5 --bits 1"),
    }
    for name, (data, words) in cases.items():
        (folder / name).write_bytes(data)
        result = invoke("run", "image.png", "-m", name)
        assert result.exit_code == 1 and words in result.stderr and result.stdout == "", name
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("edge: ")


def test_what_a_file_stores_is_not_trusted(folder: Path, models: Path) -> None:
    from dataclasses import replace

    from edge.format import read, write

    program = read(models / "colours.edge")
    picture(folder / "image.png", "red")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"preprocess": {"range": "x"}}, "preprocessing"),
        ({"preprocess": {"resize": "newer"}}, "newer than this edge"),
        ({"labels": [1, 2, 3]}, "list of names"),
        ({"labels": ["a"]}, "expected 3 names"),
    ]
    for changed, words in cases:
        write(replace(program, metadata={**program.metadata, **changed}), "x.edge")
        result = invoke("run", "image.png", "-m", "x.edge")
        assert result.exit_code == 1 and words in result.stderr and result.stdout == ""
    write(replace(program, metadata={"outputs": [{"name": "x", "kind": 7, "activation": []}]}), "x.edge")
    result = invoke("run", "image.png", "-m", "x.edge")
    assert result.exit_code == 0 and "assumed, since the file does not say: see --preset" in result.stderr
