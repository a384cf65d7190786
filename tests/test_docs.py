"""Documentation that can go stale: generated pages, and what the README says exists."""

from __future__ import annotations

import importlib.util
import json
import re
import statistics
from pathlib import Path
from types import ModuleType

import bench_pages
import pytest
from bench_checklist import THREE_BY_THREE
from bench_rows import BITS_BITS, LAYERS, Run, load

import edge
from edge.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["commands.md", "layers.md", "operations.md"])
def test_generated_pages_are_up_to_date(page: str) -> None:
    expected = generator().PAGES[page]()
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == expected, "run: python docs/generate.py"


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_command_named_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bedge ([a-z]+)\b(?= |`|$)", " ".join(re.findall(r"`(edge [^`]+)`", text))))
    assert named <= set(COMMANDS), named - set(COMMANDS)


def test_every_make_target_named_in_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"\bmake ([a-z0-9-]+)", document.read_text(encoding="utf-8")))
        assert named <= targets, f"{document.name}: {named - targets}"


def results(name: str) -> dict[str, dict[str, object]]:
    """The rows of a stored benchmark by name (or kind and size)."""
    report = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in report["rows"]}


def test_figures_of_the_readme_are_those_of_the_stored_benchmarks() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in results("digits").values():
        for figure in (f"{row['median_us']:.1f} µs", f"{row['accuracy_percent']:.2f} %", f"{row['file_bytes']:,}"):
            assert figure in text, f"README.md does not say {figure}"
    for row in results("resnet8").values():
        for figure in (f"{row['accuracy_percent']:.2f} %", f"{row['median_us']:.0f} µs"):
            assert figure in text, f"README.md does not say {figure}"
    rates = [row.rate for row in bench_run().select(LAYERS, BITS_BITS) if row.name in THREE_BY_THREE and row.rate]
    mean = statistics.geometric_mean(rates) / 1e9
    assert len(rates) == len(THREE_BY_THREE) and f"{mean:,.0f} G multiply-accumulates" in text


def bench_run() -> Run:
    return load(ROOT / "benchmarks" / "results" / "bench.json")


def test_the_stored_report_is_that_of_the_stored_run() -> None:
    stored = (ROOT / "benchmarks" / "results" / "bench.md").read_text(encoding="utf-8")
    assert stored == bench_pages.markdown(bench_run()), "run: make bench-report"


def test_the_file_that_ships_is_what_the_example_converts_to(tmp_path: Path) -> None:
    edge.convert(ROOT / "examples" / "digits.h5", tmp_path / "digits.edge", formats=("edge",))
    converted = (tmp_path / "digits.edge").read_bytes()
    assert (ROOT / "edge" / "data" / "digits.edge").read_bytes() == converted, "run: make bundled"
    assert results("digits")["edge, 1 bit"]["file_bytes"] == len(converted), "run: make bench-digits"
