"""The picture of how networks learnt: drawn from the stored curves, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import learning_curves
import pytest
from learning_curves import lessons, plot

from edge.train import settings_for
from edge.train_loop import Epoch, curve_text


def row(recipe: str, precision: str, *, kept: int = 2, seed: int = 0, measure: str = "accuracy") -> dict[str, Any]:
    settings = settings_for(recipe, precision=precision, seed=seed)
    about = {"run": settings.name, "recipe": recipe, "precision": precision, "width": 1.0, "seed": seed, "epochs": settings.epochs}
    return {**about, "best_epoch": kept, "files": {precision: {"measure": measure}}}


def store(folder: Path, name: str, scores: list[float], signs_first: int = 0) -> None:
    stages = ["signs" if i < signs_first else "" for i in range(len(scores))]
    epochs = [Epoch(i + 1, stage, 0.1, 1.0, score, 1.0, 1.0) for i, (stage, score) in enumerate(zip(stages, scores, strict=True))]
    (folder / f"{name}.csv").write_text(curve_text(epochs), encoding="utf-8")


def test_curves_are_shares_that_are_wrong_and_minutes(tmp_path: Path) -> None:
    store(tmp_path, "lenet-xnor", [0.5, 0.75, 0.625], signs_first=1)
    store(tmp_path, "lenet-float", [0.875])
    store(tmp_path, "clock-float", [90.0, 4.5])
    rows = [row("lenet", "xnor"), row("lenet", "float", kept=1), row("clock", "float", measure="minutes off"), row("digits8", "xnor")]
    digits, clock = lessons([*rows, row("lenet", "xnor", seed=1)], tmp_path)
    assert (digits.recipe, digits.unit, clock.unit) == ("lenet", "% wrong", "minutes off")
    floats, signs = digits.curves
    assert (floats.precision, signs.precision, signs.float_weights, signs.kept) == ("float", "xnor", 1, 2)
    assert (signs.wrong, clock.curves[0].wrong) == ([50.0, 25.0, 37.5], [90.0, 4.5])


def test_the_plot_has_a_panel_for_each_recipe_and_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    store(tmp_path, "mlp-base-xnor", [0.9, 0.95])
    rows = [row("mlp-base", "xnor")]
    assert plot(rows, tmp_path / "one.svg", tmp_path) and plot(rows, tmp_path / "two.svg", tmp_path)
    content = (tmp_path / "one.svg").read_bytes()
    assert content == (tmp_path / "two.svg").read_bytes() and b">mlp-base, % wrong<" in content and b"lenet" not in content
    assert not plot([], tmp_path / "none.svg") and not (tmp_path / "none.svg").exists()


def test_the_stored_picture_has_all_recipes_that_are_stored() -> None:
    from accuracy_rows import read_rows

    content = learning_curves.PICTURE.read_text(encoding="utf-8")
    for each in lessons(read_rows()):
        assert f">{each.recipe}, {each.unit}<" in content, "run: python benchmarks/accuracy_table.py"
