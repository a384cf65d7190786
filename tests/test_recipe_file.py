"""Recipes of conversions: what they hold, that they make the same bytes again, and what is refused."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import colour_layers, write_h5

import edge
from edge.cli import cli
from edge.converters.recipe_file import ACTIVATION_WIDTHS, Calibration, Recipe, content_sha256, pictures_of, read_recipe, to_toml
from edge.errors import InputError
from edge.preprocess import preset
from edge.widths import WIDTHS

SHAPE = (8, 8, 3)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, args)], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and pictures."""
    monkeypatch.chdir(tmp_path)
    write_h5(tmp_path / "model.h5", colour_layers(), SHAPE)
    np.savez(tmp_path / "pictures.npz", x=np.random.default_rng(1).integers(0, 256, (12, *SHAPE), np.uint8))
    return tmp_path


def digests(*names: str) -> list[str]:
    return [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names]


# -- the same bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--bits", "1"),
        ("--bits", "8", "--calibrate", "pictures.npz"),
        ("--bits", "4", "--calibrate", "pictures.npz", "--layer", "first=ternary", "--layer", "last=32"),
        ("--bits", "2", "--activation-bits", "32", "--preset", "torch", "--labels", "names.txt", "--format", "edge"),
    ],
)
def test_a_saved_recipe_makes_the_same_bytes(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "names.txt").write_text("red\ngreen\nblue\n")
    files = ["model.edge"] if "--format" in options else ["model.edge", "model.tflite"]
    first = invoke("model.h5", *options, "--save-recipe", "saved.toml")
    assert first.exit_code == 0 and "saved.toml" in first.stdout
    made = digests(*files)
    for name in files:
        (folder / name).unlink()
    (folder / "names.txt").unlink()
    again = invoke("model.h5", "--recipe", "saved.toml", "--save-recipe", "again.toml")
    assert again.exit_code == 0 and again.stderr == "" and digests(*files) == made
    assert (folder / "again.toml").read_text() == (folder / "saved.toml").read_text()


def test_pictures_are_found_beside_the_recipe_and_where_they_were_moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("model.h5", "--bits", "4", "--calibrate", "pictures.npz", "--save-recipe", "saved.toml").exit_code == 0
    (made,) = digests("model.edge")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert invoke("../model.h5", "--recipe", "../saved.toml", "-o", "here.edge").exit_code == 0 and digests("here.edge") == [made]
    (folder / "pictures.npz").rename("moved.npz")
    missing = invoke("../model.h5", "--recipe", "../saved.toml")
    assert missing.exit_code == 1 and "name them with --calibrate" in missing.stderr
    assert invoke("../model.h5", "--recipe", "../saved.toml", "-o", "there.edge", "--calibrate", "moved.npz").exit_code == 0
    assert digests("there.edge") == [made]


def test_fewer_pictures_are_remembered(folder: Path) -> None:
    edge.convert("model.h5", bits=8, calibrate="pictures.npz", calibration_pictures=2, save_recipe="saved.toml")
    made = digests("model.edge")
    recipe = read_recipe("saved.toml")
    assert recipe.calibration is not None and recipe.calibration.pictures == 2
    assert invoke("model.h5", "--recipe", "saved.toml").exit_code == 0 and digests("model.edge") == made
    assert invoke("model.h5", "--bits", "8", "--calibrate", "pictures.npz").exit_code == 0 and digests("model.edge") != made


def test_another_model_is_converted_with_a_warning(folder: Path) -> None:
    assert invoke("model.h5", "--save-recipe", "saved.toml").exit_code == 0
    write_h5(folder / "other.h5", colour_layers(), SHAPE)
    result = invoke("other.h5", "--recipe", "saved.toml")
    assert result.exit_code == 0 and "was written for another model, model.h5" in result.stderr


@pytest.mark.parametrize("option", [("--bits", "8"), ("--layer", "a=4"), ("--preset", "torch"), ("--input-dtype", "float32")])
def test_options_that_the_recipe_decides_are_refused(folder: Path, option: tuple[str, str]) -> None:
    assert invoke("model.h5", "--save-recipe", "saved.toml").exit_code == 0
    result = invoke("model.h5", "--recipe", "saved.toml", *option)
    assert result.exit_code == 2 and f"--recipe decides what {option[0]} would" in result.stderr


def test_one_format_may_be_made_of_a_recipe(folder: Path) -> None:
    assert invoke("model.h5", "--save-recipe", "saved.toml").exit_code == 0
    (folder / "model.tflite").unlink()
    assert invoke("model.h5", "--recipe", "saved.toml", "--format", "edge").exit_code == 0 and not (folder / "model.tflite").exists()


# -- what is written -----------------------------------------------------------------------------------------------------------


NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
RECIPES = st.builds(
    Recipe,
    bits=st.sampled_from(WIDTHS),
    activation_bits=st.sampled_from(ACTIVATION_WIDTHS),
    layers=st.dictionaries(NAMES, st.sampled_from(WIDTHS), max_size=4),
    calibration=st.none() | st.builds(Calibration, NAMES, st.just("ab12") | st.just(""), st.none() | st.integers(1, 9999)),
    source=NAMES,
    source_sha256=st.just("cd34"),
    input_dtype=st.sampled_from(("auto", "float32", "uint8")),
    input_shape=st.none() | st.tuples(*[st.integers(1, 999)] * 3),
    preprocess=st.none() | st.sampled_from(("unit", "torch", "caffe")).map(preset),
    formats=st.sampled_from((("edge",), ("tflite",), ("edge", "tflite"))),
    labels=st.none() | st.lists(NAMES, max_size=3).map(tuple),
)


@given(recipe=RECIPES)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    path.write_text(to_toml(replace(recipe, remarks=("a remark",))), encoding="utf-8", newline="")
    assert read_recipe(path) == recipe


def test_recipes_replace_only_recipes(folder: Path) -> None:
    (folder / "notes.toml").write_text("mine = 1\n")
    assert "--force" in invoke("model.h5", "--save-recipe", "notes.toml").stderr and not (folder / "model.edge").exists()
    assert invoke("model.h5", "--save-recipe", "notes.toml", "--force").exit_code == 0
    assert invoke("model.h5", "--save-recipe", "notes.toml").exit_code == 0
    refused = invoke("model.h5", "--save-recipe", "model.h5", "--force")
    assert refused.exit_code == 1 and "which is read" in refused.stderr
    refused = invoke("model.h5", "--save-recipe", "model.tflite")
    assert refused.exit_code == 1 and "which the conversion writes" in refused.stderr


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_recipes_go_to_no_pipe(folder: Path, force: tuple[str, ...]) -> None:
    os.mkfifo("pipe")
    refused = invoke("model.h5", "--save-recipe", "pipe", *force)
    assert refused.exit_code == 1 and "pipe is no regular file" in refused.stderr and not (folder / "model.edge").exists()


def test_names_that_no_recipe_can_hold_are_refused(folder: Path) -> None:
    name = os.fsdecode(b"pictures\xff.npz")
    (folder / "pictures.npz").rename(name)
    refused = invoke("model.h5", "--bits", "8", "--calibrate", name, "--save-recipe", "saved.toml")
    assert refused.exit_code == 1 and "cannot hold the name 'pictures\\udcff.npz'; rename it" in refused.stderr


def test_pictures_without_a_path_have_no_recipe(folder: Path) -> None:
    with pytest.raises(InputError, match="names the pictures to calibrate on by a path"):
        edge.convert("model.h5", bits=8, calibrate=np.zeros((2, *SHAPE), np.uint8), save_recipe="saved.toml")


def test_a_folder_is_known_by_the_pictures_in_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"a")
        (tmp_path / name / "b.png").write_bytes(b"b")
    for name in (".hidden", "notes.txt", "recipe.toml"):
        (tmp_path / "two" / name).write_bytes(b"x")
    assert content_sha256(tmp_path / "one") == content_sha256(tmp_path / "two")
    (tmp_path / "two" / "b.png").rename(tmp_path / "two" / "c.png")
    assert content_sha256(tmp_path / "one") != content_sha256(tmp_path / "two")


# -- what is refused -----------------------------------------------------------------------------------------------------------


GOOD = 'recipe = 1\n[bits]\nweights = 8\nactivations = 8\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "recipe = 1"),
        ("recipe = 2\n", "recipe = 1"),
        (GOOD.replace("1", "true", 1), "recipe = 1"),
        ("recipe = ", "expected TOML"),
        ("\xff\xfe", "recipe = 1|expected TOML"),
        ("recipe = 1\n", "weights in .bits. should be one of"),
        (GOOD.replace("8", "3", 1), "got 3"),
        (GOOD.replace("= 8", '= "8"', 1), "got '8'"),
        (GOOD.replace("= 8", "= true", 1), "got True"),
        (GOOD + "weight = 4\n", "got 'weight'; weights may be meant"),
        (GOOD + "[layer]\na = 4\n", "got 'layer'; layers may be meant"),
        (GOOD + "[layers]\na = 5\n", "a in .layers. should be one of"),
        ("layers = 3\n" + GOOD, r"expected a table \[layers\]"),
        (GOOD + "[calibration]\npictures = 3\n", "should name its file"),
        (GOOD + "[calibration]\nfile = 'a'\npictures = 0\n", "above 0, got 0"),
        (GOOD + "[calibration]\nfile = 'a'\nranges = 'best'\n", 'one of "min-max"'),
        (GOOD + "[calibration]\nfile = 3\n", "should be text"),
        (GOOD + "[input]\ndtype = 'int4'\n", "dtype in .input. should be one of"),
        (GOOD + "[input]\nshape = [1, -2]\n", "shape in .input."),
        (GOOD + "[preprocess]\nresize = 'zoom'\n", "does not fit"),
        (GOOD + "[preprocess]\nzoom = 2\n", "got 'zoom'"),
        (GOOD + "[output]\nformats = ['onnx']\n", "formats in .output. should be one of"),
        (GOOD + "[output]\nlabels = 3\n", "should be a list of texts"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_in_one_sentence(folder: Path, text: str, words: str) -> None:
    (folder / "bad.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_recipe("bad.toml")
    result = invoke("model.h5", "--recipe", "bad.toml")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "cannot read the recipe bad.toml: " in result.stderr


def test_other_pictures_are_refused(folder: Path) -> None:
    known = Calibration("pictures.npz", content_sha256("pictures.npz"))
    recipe = Recipe(8, 8, calibration=known)
    assert pictures_of(recipe, "r.toml") == "pictures.npz"
    np.savez(folder / "other.npz", x=np.zeros((2, *SHAPE), np.uint8))
    with pytest.raises(InputError, match="holds other pictures than"):
        pictures_of(recipe, "r.toml", "other.npz")
    assert pictures_of(replace(recipe, calibration=replace(known, sha256="")), "r.toml", "other.npz") == "other.npz"
    with pytest.raises(InputError, match="converts without pictures"):
        pictures_of(Recipe(8, 32), "r.toml", "pictures.npz")


def test_there_is_no_recipe(folder: Path) -> None:
    result = invoke("model.h5", "--recipe", "none.toml")
    assert result.exit_code == 1 and result.stderr.count("none.toml") == 1 and "there is none" in result.stderr
