"""The results table: made from what was measured, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accuracy_rows
import accuracy_table
import pytest
import train_results
from accuracy_rows import COLUMNS, CURVES, Cell, absent, cell, collect, read_rows
from accuracy_table import LEAST_ONE_BIT_SHARE, page, readme_with, short_of_signs

from edge.recipes import RECIPES, TABLE
from edge.train import TEACHER, decisive, settings_for
from edge.zoo import NETWORKS

ROOT = Path(__file__).resolve().parent.parent


def row(recipe: str, precision: str, score: float, *, seed: int = 0, epochs: int | None = None) -> dict[str, Any]:
    settings = settings_for(recipe, precision=precision, seed=seed, epochs=epochs)
    share = 0.0 if precision == "float" else 0.99
    file = {"file": "model.edge", "bytes": 2048, "measure": "accuracy", "score": score, "pictures": 10_000}
    file |= {"further": {}, "weights": 5, "one_bit_share": share}
    files = {"float": file, "int8": {**file, "score": score - 0.01}} if precision == "float" else {precision: file}
    about = {"network": RECIPES[recipe].network, **({"teacher": TEACHER} if RECIPES[recipe].schedule(precision).teacher else {})}
    made = {**about, "run": settings.name, "recipe": recipe, "precision": precision, "width": 1.0, "seed": seed, "epochs": settings.epochs}
    spent = {"best_epoch": 1, "training_s": 60.0, "training_cpu_s": 30.0, "command": settings.command, "files": files}
    return {**made, **spent, "hardware": {"processor": "one", "threads": 1}, "versions": {"tensorflow": "2"}}


def test_the_pages_are_made_from_the_stored_rows() -> None:
    rows = read_rows()
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == page(rows), "run: python benchmarks/accuracy_table.py"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_with(readme, rows) == readme and accuracy_table.START in readme


def test_stored_rows_are_of_recipes_and_of_signs() -> None:
    rows = read_rows()
    assert not short_of_signs(rows)
    for each in rows:
        made = RECIPES[each["recipe"]]
        assert (each["data"], each["permuted"], each["network"]) == (made.data, made.permuted, made.network)
        assert all(file["pictures"] in (10_000, 3_600) for file in each["files"].values()), "the whole test set"
        assert (CURVES / f"{each['run']}.csv").read_text().count("\n") == each["epochs"] + 1


def test_what_is_not_measured_stays_empty() -> None:
    assert len(absent([])) == len(TABLE) * len(COLUMNS)
    rows = [row("lenet", "float", 0.9931)]
    assert "lenet float" not in absent(rows) and "lenet int8" not in absent(rows) and "lenet xnor" in absent(rows)
    (line,) = [line for line in page(rows).splitlines() if line.startswith("| `lenet` |")]
    assert line == "| `lenet` | mnist | **99.31** | 98.31 |  |  |  |  |  |  |"


def test_bold_is_what_reaches_what_was_asked() -> None:
    rows = [row("lenet", "float", 0.9929), row("lenet", "xnor", 0.99)]
    (line,) = [line for line in page(rows).splitlines() if line.startswith("| `lenet` |")]
    assert "| 99.29 |" in line and "| **99.00** |" in line and "2.0 KiB" in line


def test_a_try_with_fewer_epochs_is_no_result() -> None:
    assert cell([row("lenet", "float", 0.99, epochs=1)], "lenet", "float") is None


def test_several_seeds_give_mean_and_spread() -> None:
    found = cell([row("lenet", "xnor", score, seed=seed) for seed, score in ((2, 0.97), (0, 0.99), (1, 0.98))], "lenet", "xnor")
    assert found is not None and found.scores == (0.99, 0.98, 0.97) and found.text() == "98.00 ± 1.00"


def test_minutes_are_not_percent() -> None:
    assert Cell((2.5,), {"measure": "minutes off"}).text() == "2.50"


def test_clocks_have_a_table_of_dials_learnt_and_not() -> None:
    run = row("clock", "float", 0.0)
    for file in run["files"].values():
        file |= {"measure": "minutes off", "score": 1.5, "further": {"unseen": {"score": 12.25, "pictures": 1_000}}}
    made = page([run])
    assert "| clock-float | 1.50 | 12.25 | 2,048 |\n| clock-float, 8 bit | 1.50 | 12.25 | 2,048 |\n" in made
    assert "| **1.50** | 1.50 |" in made
    assert "## Clocks" not in page([row("lenet", "float", 0.99)])


def test_runs_with_a_teacher_whose_dropout_was_on_are_marked() -> None:
    former = {name: value for name, value in row("mlp-base", "xnor", 0.98).items() if name != "teacher"}
    residual = {name: value for name, value in row("resnet-2", "xnor", 0.8).items() if name != "teacher"}
    assert "| mlp-base-xnor † |" in page([former]) and "† learnt from" in page([former])
    assert "†" not in page([row("mlp-base", "float", 0.98), row("mlp-base", "xnor", 0.98), residual])


def test_a_new_run_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "lenet-float").mkdir()
    (tmp_path / "lenet-float" / "result.json").write_text(json.dumps(row("lenet", "float", 0.995)))
    rows = collect(tmp_path, [row("lenet", "float", 0.9), row("lenet", "xnor", 0.9)])
    assert [each["files"][each["precision"]]["score"] for each in rows] == [0.995, 0.9]


def test_a_run_begun_anew_leaves_the_curve_of_the_stored_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own is shorter than the epoch that was kept, until it has ended."""
    monkeypatch.setattr(accuracy_rows, "STORED", tmp_path / "accuracy.json")
    monkeypatch.setattr(accuracy_rows, "CURVES", tmp_path / "curves")
    stored, folder = row("lenet", "float", 0.99), tmp_path / "lenet-float"
    folder.mkdir()
    (folder / "curve.csv").write_text("begun")
    accuracy_rows.keep([stored], tmp_path)
    assert not (tmp_path / "curves" / "lenet-float.csv").exists()
    (folder / "result.json").write_text(json.dumps(stored))
    accuracy_rows.keep([stored], tmp_path)
    assert (tmp_path / "curves" / "lenet-float.csv").read_text() == "begun"


def test_runs_that_make_pictures_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "gan-digits-float").mkdir()
    (tmp_path / "gan-digits-float" / "result.json").write_text(json.dumps({"recipe": "gan-digits", "run": "gan-digits-float"}))
    assert collect(tmp_path, []) == []


def test_every_recipe_is_trained_at_every_precision_and_named_well() -> None:
    jobs = train_results.jobs(TABLE, train_results.PRECISIONS)
    runs = [(job.recipe, precision) for job in jobs for precision in job.precisions]
    assert len(runs) == len(set(runs)) == len(TABLE) * (len(COLUMNS) - 1)
    for name, made in RECIPES.items():
        assert name == made.name and made.network in NETWORKS and re.fullmatch(r"[a-z0-9-]+", name)
        assert next((p for recipe, p in runs if recipe == name), None) == (None if made.later else "float"), "it teaches the others"


def test_the_runner_fails_while_a_row_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[str] = []
    monkeypatch.setattr(train_results, "run", lambda job, runs, data: tried.append(job.recipe) or [])
    monkeypatch.setattr(train_results, "write_tables", lambda runs: [])
    monkeypatch.setattr("sys.argv", ["train_results.py", "--runs", str(tmp_path), "--recipes", "lenet", "--precisions", "float"])
    with pytest.raises(SystemExit, match="rows absent from the table: lenet float"):
        train_results.main()
    assert tried == ["lenet"]
    assert LEAST_ONE_BIT_SHARE == 0.95


SHORTER = {"epochs": RECIPES["lenet"].schedule("float").epochs - 1}
OTHERWISE = {"how": {**RECIPES["lenet"].how("float"), "rate": 1.0}}


@pytest.mark.parametrize("change", [SHORTER, OTHERWISE], ids=["shorter", "otherwise"])
@pytest.mark.parametrize("ended", [True, False])
def test_a_run_of_a_former_recipe_is_trained_anew(
    change: dict[str, Any], ended: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(train_results, "write_tables", lambda runs: [])
    monkeypatch.setattr(train_results.subprocess, "run", lambda command, check: SimpleNamespace(returncode=0))
    job, folder = train_results.Job("lenet", ("float",)), tmp_path / "lenet-float"
    settings = next(iter(job.missing(tmp_path)))
    mine = decisive(settings, how=RECIPES["lenet"].how("float"))
    for facts, is_kept in (({**mine, **change}, False), (mine, True)):
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps(facts))
        if ended:
            (folder / "result.json").write_text(json.dumps(facts))
        assert train_results.run(job, tmp_path, None) == []
        assert folder.exists() == is_kept
        assert (list(job.missing(tmp_path)) == []) == (is_kept and ended)
    assert len(list((tmp_path / "replaced").glob("lenet-float-*/settings.json"))) == 1
