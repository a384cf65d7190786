"""Documentation that can go stale: generated pages, and what the README says exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

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
