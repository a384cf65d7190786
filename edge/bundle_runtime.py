"""What running a model needs of edge: its own modules, found by their imports, and the packages beneath them."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from edge.errors import EdgeError

DISTRIBUTION = "edge-lowbit"

# What running a model on a device starts from, and what it never needs.
_ROOTS = ("edge.known_answer", "edge.figures", "edge.cli", "edge.cli_run", "edge.cli_verify", "edge.cli_cache", "edge.cli_doctor")
_LEFT_OUT = (
    "edge.converters", "edge.targets", "edge.training", "edge.tflite", "edge.build", "edge.bundle", "edge.deploy", "edge.compare",
    "edge.oracle", "edge.wheels", "edge.kernels.reference",
)  # fmt: skip
_DISTRIBUTIONS = {"PIL": "pillow"}
_COMPILERS = ("llvmlite", "numba")
_NOT_NEEDED = ("ai_edge_litert", "flatbuffers", "h5py", "keras", "rich", "tensorflow", "tflite_runtime")


def runtime_modules() -> dict[str, Path]:
    """The modules of edge that running needs, by name, with their sources: all that is imported from `_ROOTS`, in functions too."""
    found: dict[str, Path] = {}
    waiting = [*_ROOTS, *_kernel_families()]
    while waiting:
        name = waiting.pop()
        if name in found or name.startswith(_LEFT_OUT):
            continue
        source = _source(name)
        if source is None:  # a name in a module, not a module
            continue
        found[name] = source
        waiting += [name.rpartition(".")[0], *(wanted for wanted in _imports(source) if wanted.split(".")[0] == "edge")]
    return {name: found[name] for name in sorted(found)}


def _kernel_families() -> list[str]:
    from edge.kernels.registry import FAMILIES

    return [f"edge.kernels.{family}" for family in FAMILIES]


def _source(name: str) -> Path | None:
    if not name:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.origin.endswith(".py") else None


@functools.cache
def _imports(source: Path) -> tuple[str, ...]:
    """The names a module imports anywhere: modules, and what may be modules."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(names)


def runtime_sources(modules: Mapping[str, Path]) -> dict[str, bytes]:
    """The sources by the name they have in a bundle: packages as folders, wherever they lie here."""
    return {_place(name, source): source.read_bytes() for name, source in modules.items()}


def _place(name: str, source: Path) -> str:
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if source.name == "__init__.py" else f"{path}.py"


def requirements(modules: Mapping[str, Path], *, numba: bool) -> list[str]:
    """The packages that the runtime imports, pinned to the versions that are installed here. numba: it compiles kernels there."""
    names = {wanted.split(".")[0] for source in modules.values() for wanted in _imports(source)}
    known = {"edge", *_NOT_NEEDED, *(() if numba else _COMPILERS), *sys.stdlib_module_names}
    outside = names - known
    distributions = sorted(_DISTRIBUTIONS.get(name, name) for name in outside)
    return [f"{distribution}=={_version(distribution)}" for distribution in distributions]


def lowest_requirements(modules: Mapping[str, Path], *, numba: bool) -> list[str]:
    """The same packages with the lowest versions that edge runs with, for systems that have them already."""
    lowest = {re.split(r"[<>=!~; ]", line, maxsplit=1)[0]: line for line in metadata.requires(DISTRIBUTION) or () if "extra" not in line}
    return [lowest[line.split("==")[0]] for line in requirements(modules, numba=numba)]


def runtime_version() -> str:
    """The version of edge."""
    return _version(DISTRIBUTION)


def runtime_licence() -> str | None:
    """The text of edge's licence, where it is installed with one."""
    try:
        found = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    return found.read_text("licenses/LICENSE") or found.read_text("LICENSE")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError as err:
        raise EdgeError(f"the package {distribution} is not installed, so its version cannot be pinned; install edge with pip") from err
