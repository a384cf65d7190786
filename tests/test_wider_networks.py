"""How wide a net of signs must be: answered by made-up rows, and by nothing that was not measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import train_results
import wider_networks
from accuracy_rows import Rows
from test_accuracy_table import row
from wider_networks import WIDTHS, answer, answers, described, plot, section, unanswered

from edge.recipes import RECIPES, TABLE
from edge.train import Settings

FLOAT_BYTES, ONE_BIT_BYTES = 40_000, 9_000


def made_up(recipe: str, *scores: float, floats: float = 0.985) -> Rows:
    """The float row of a recipe, and rows of signs at the first widths."""
    rows = [row(recipe, "float", floats)]
    rows[0]["files"]["float"]["bytes"] = FLOAT_BYTES
    return [*rows, *(signs(recipe, width, score) for width, score in zip(WIDTHS, scores, strict=False))]


def signs(recipe: str, width: float, score: float, **changes: Any) -> dict[str, Any]:
    made = row(recipe, "xnor", score)
    made |= {"width": width, "run": f"{recipe}-xnor-x{width:g}", "best_epoch": 2, **changes}
    made["files"]["xnor"] |= {"bytes": int(ONE_BIT_BYTES * width), "latency_us": 12.5 * width}
    return made


def line(rows: Rows, recipe: str) -> list[str]:
    """The cells of a recipe in the table."""
    (found,) = [text for text in section(rows).splitlines() if text.startswith(f"| `{recipe}` |")]
    return [part.strip() for part in found.strip("|").split("|")]


def test_the_smallest_width_that_reaches_the_description_is_the_answer() -> None:
    rows = made_up("mlp-base", 0.975, 0.9801)  # described: 98.0
    found = answer(rows, "mlp-base")
    assert found is not None and found.smallest == 1.5 and found.untried is None
    steps = 2 * ((60_000 - 5_000) // 128)
    assert line(rows, "mlp-base") == [
        "`mlp-base`", "98", "98.50", "97.50", "**98.01**", "", "", "x1.5", "13,500", "33.8 %", "18.75", "98.01 (x1.5 xnor)", f"{steps:,}",
    ]  # fmt: skip


def test_a_file_under_a_quarter_of_the_float_one_is_marked() -> None:
    assert line(made_up("mlp-base", 0.99), "mlp-base")[7:11] == ["x1", "9,000", "**22.5 %**", "12.5"]


def test_what_is_not_measured_stays_empty() -> None:
    assert len(unanswered([])) == len(answers([])) == sum(described(RECIPES[name]) is not None for name in TABLE)
    assert line([], "cnn-base") == ["`cnn-base`", "99", *[""] * 11]
    assert not plot([], Path("none.svg")) and "wider-networks.svg" not in section([])
    rows = made_up("cnn-base", 0.98)
    assert line(rows, "cnn-base")[7:11] == [""] * 4 and "cnn-base x1.5" in unanswered(rows)


def test_a_width_below_that_was_not_trained_leaves_the_question_open() -> None:
    rows = [*made_up("mlp-base", 0.97), signs("mlp-base", 2.0, 0.99)]
    found = answer(rows, "mlp-base")
    assert found is not None and found.untried == 1.5 and found.smallest is None
    assert line(rows, "mlp-base")[5:8] == ["**99.00**", "", ""]


def test_none_is_an_answer_once_all_were_trained() -> None:
    rows = made_up("mlp-base", *[0.97] * len(WIDTHS))
    assert line(rows, "mlp-base")[7:11] == ["none", "", "", ""]
    assert not any(each.startswith("mlp-base x") for each in unanswered(rows))


def test_of_minutes_fewer_are_better() -> None:
    rows = made_up("clock", 2.2, 1.7, floats=1.5)
    for each in rows:
        for file in each["files"].values():
            file["measure"] = "minutes off"
    assert line(rows, "clock")[1:8] == ["1.89", "1.50", "2.20", "**1.70**", "", "", "x1.5"]
    assert line(rows, "clock")[11] == "1.70 (x1.5 xnor)"


def test_the_highest_is_of_any_width_seed_and_scale() -> None:
    scaled = row("mlp-base", "xnor-k", 0.991, seed=2) | {"best_epoch": 5}
    weights = row("mlp-base", "xnor-weights", 0.999)  # its activations are floats
    rows = [*made_up("mlp-base", 0.975, 0.981), scaled, weights, row("mlp-base", "xnor", 0.999, seed=1, epochs=1)]
    assert line(rows, "mlp-base")[11:] == ["99.10 (x1 xnor-k)", f"{5 * (55_000 // 128):,}"]


def test_other_shortcuts_are_held_to_the_same_figure_and_what_has_none_is_named() -> None:
    assert described(RECIPES["resnet-2-shortcuts"]) == described(RECIPES["resnet-2"]) == 80
    assert described(RECIPES["lenet"]) is None and "`lenet`" not in section([]).partition("| recipe")[2]
    assert "described for `lenet`, " in section([])


def test_the_plot_has_a_panel_for_what_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [*made_up("mlp-base", 0.975, 0.981), *made_up("cnn-base", 0.98)]
    assert plot(rows, tmp_path / "one.svg") and plot(rows, tmp_path / "two.svg")
    content = (tmp_path / "one.svg").read_bytes()
    assert content == (tmp_path / "two.svg").read_bytes() and b">mlp-base, %<" in content and b"cnn-digits" not in content
    assert "![" in section(rows)


# -- what is trained ---------------------------------------------------------------------------------------------------------------


def scores_by_width(monkeypatch: pytest.MonkeyPatch, scores: dict[float, float]) -> list[float]:
    """Training gives these scores, and fails where there is none; the widths that were trained."""
    trained: list[float] = []

    def train(settings: Settings, folder: Path, data: Path | None) -> int:
        trained.append(settings.width)
        if settings.width not in scores:
            return 1
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(signs(settings.recipe, settings.width, scores[settings.width])))
        return 0

    monkeypatch.setattr(train_results, "train", train)
    monkeypatch.setattr(train_results, "write_tables", lambda runs: [])
    return trained


@pytest.mark.parametrize(
    ("scores", "trained", "failed"),
    [
        ({1.0: 0.99}, [1.0], []),
        ({1.0: 0.97, 1.5: 0.98}, [1.0, 1.5], []),
        ({1.0: 0.97, 1.5: 0.97, 2.0: 0.97, 3.0: 0.97}, [1.0, 1.5, 2.0, 3.0], []),
        ({1.0: 0.97}, [1.0, 1.5], ["mlp-base-xnor-x1.5"]),
    ],
)
def test_wider_nets_are_trained_until_one_reaches(
    scores: dict[float, float], trained: list[float], failed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = scores_by_width(monkeypatch, scores)
    assert train_results.run(train_results.WidthJob("mlp-base"), tmp_path, None) == failed
    assert found == trained
    assert list(train_results.WidthJob("mlp-base").missing(tmp_path)) == [] or failed


def test_widths_are_those_of_the_questions_and_a_question_that_stays_open_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {job.recipe for job in train_results.width_jobs(TABLE)} == {each.recipe.name for each in answers([])}
    scores_by_width(monkeypatch, {1.0: 0.99})
    monkeypatch.setattr("sys.argv", ["train_results.py", "--runs", str(tmp_path), "--recipes", "mlp-base", "--widths"])
    with pytest.raises(SystemExit, match=r"widths that are still needed: .*mlp-base x1, "):
        train_results.main()
    assert wider_networks.PRECISION == "xnor"


def test_each_seed_is_a_run_of_its_own(tmp_path: Path) -> None:
    found = train_results.jobs(["mlp-base"], ["float", "xnor"], [0, 1])
    names = [settings.name for job in found for settings in job.missing(tmp_path)]
    assert names == ["mlp-base-float", "mlp-base-xnor", "mlp-base-float-seed1", "mlp-base-xnor-seed1"]
