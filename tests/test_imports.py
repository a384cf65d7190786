"""What an import may load: running a model needs neither TensorFlow nor Numba, and dependencies point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("tensorflow", "keras", "numba", "ai_edge_litert", "tflite_runtime")

# What the modules of a folder (or a module) may import of edge: nothing that comes later in the flow of data.
FORBIDDEN = {
    "edge/tensors.py": ("edge.kernels", "edge.converters", "edge.targets", "edge.engine", "edge.graph", "edge.program"),
    "edge/ops.py": ("edge.kernels", "edge.converters", "edge.targets", "edge.engine", "edge.graph", "edge.program"),
    "edge/graph.py": ("edge.converters", "edge.targets", "edge.engine", "edge.program"),
    "edge/program.py": ("edge.converters", "edge.targets", "edge.engine"),
    "edge/engine.py": ("edge.converters", "edge.targets"),
    "kernels": ("edge.converters", "edge.targets", "edge.engine", "edge.cli"),
    "converters": ("edge.targets", "edge.cli"),
    "targets": ("edge.converters.convert", "edge.cli"),
}


def loaded_by(code: str) -> set[str]:
    """The heavy packages that are loaded after running `code` in a new process."""
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


MODULES = sorted(
    [f"edge.{path.stem}" for path in (ROOT / "edge").glob("*.py") if path.stem != "__init__" and not path.stem.startswith("training")]
    + [f"edge.converters.{path.stem}" for path in (ROOT / "converters").glob("*.py") if path.stem != "__init__"]
    + [f"edge.targets.{path.stem}" for path in (ROOT / "targets").glob("*.py") if path.stem != "__init__"]
)


def test_no_module_but_the_training_layers_loads_a_framework() -> None:
    assert loaded_by("import importlib\n" + f"for name in {MODULES!r}: importlib.import_module(name)") == set()


def test_lowering_loads_no_numba() -> None:
    assert loaded_by("from edge.kernels import registry\nfrom edge.ops import OPS\nfor op in OPS: registry.kernels(op)") == set()


def test_public_names_are_there() -> None:
    import edge

    assert all(getattr(edge, name) is not None for name in edge.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = edge.nothing


def imports_of(path: Path) -> set[str]:
    """The modules a file imports anywhere, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("place", FORBIDDEN)
def test_dependencies_point_one_way(place: str) -> None:
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).glob("*.py"))
    for file in files:
        for name in imports_of(file):
            assert not name.startswith(FORBIDDEN[place]), f"{file.relative_to(ROOT)} imports {name}"
