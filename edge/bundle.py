"""An archive that runs a model on a device: the model, edge's own sources that running needs, a picture with its known answer.

    NAME/model.edge          the program
    NAME/picture.png         a picture (`.npy` for networks that take none), and
    NAME/answer.json         the answer it must give (`edge.known_answer`)
    NAME/edge/               the runtime: pure Python, nothing of converters, training or TensorFlow
    NAME/requirements.txt    the packages it needs, pinned to the versions it was packed with
    NAME/install.sh          makes NAME/venv and installs them there
    NAME/run.sh              checks the known answer, or classifies the pictures it is given
    NAME/README.md, LICENSE

Nothing in it leaves its folder: no absolute path, no other place is written, kernels are cached in NAME/cache. The same model, picture,
target and versions give the same bytes.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import importlib.util
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from edge.cli_model import require_edge
from edge.errors import EdgeError, FormatError, InputError
from edge.files import write_atomically
from edge.format import read
from edge.known_answer import FILE, record
from edge.paths import require_file
from edge.pictures import write_picture
from edge.program import Program
from edge.targets.devices import HOST, Device, load_device
from edge.verifier import verify

DISTRIBUTION = "edge-lowbit"
ENDING = ".tar.gz"
MARK = "bundle.json"  # in every bundle; a folder that holds it may be replaced

# What running a model on a picture starts from, and what it never needs.
_ROOTS = ("edge.known_answer", "edge.cli", "edge.cli_run", "edge.cli_cache", "edge.cli_doctor", "edge.cli_inspect")
_LEFT_OUT = ("edge.converters", "edge.targets", "edge.training", "edge.tflite", "edge.bundle", "edge.compare", "edge.oracle")
_DISTRIBUTIONS = {"PIL": "pillow"}
_NOT_NEEDED = ("ai_edge_litert", "flatbuffers", "h5py", "keras", "tensorflow", "tflite_runtime")


@dataclass(frozen=True)
class Bundle:
    """What was written: where, its bytes, how many files, and the known answer in words."""

    path: str
    target: str
    nbytes: int
    files: int
    picture: str
    answer: str


def bundle(
    model: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    target: str = "raspberry-pi-4",
    picture: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Bundle:
    """Pack a `.edge` file for a device.

    destination   a name that ends in .tar.gz, or a folder to be made; by default MODEL-TARGET.tar.gz in the current folder
    target        a device profile (`edge.targets.devices`)
    picture       the picture whose answer is stored; noise of the input's shape if none is given
    force         replace a file or folder that is no bundle

    Raises `EdgeError` for an unsound model, an unknown target, a picture that does not fit, a destination in the way.
    """
    path = require_edge(require_file(model, "model"), "packed")
    device = _device(target)
    program = _program(path)
    name = f"{path.stem}-{device.name}"
    where = Path(destination) if destination is not None else Path(name + ENDING)
    _check_replaceable(where, force=force)
    files, text, shown = _contents(path, program, picture, device, name)
    if where.name.endswith(ENDING):
        write_atomically(where, [archive(files, where.name.removesuffix(ENDING))])
    else:
        _write_folder(where, files)
    size = where.stat().st_size if where.is_file() else sum(len(content) for content in files.values())
    return Bundle(os.fspath(where), device.name, size, len(files), shown, text)


def _device(target: str) -> Device:
    if target == HOST:
        raise InputError("a bundle is for another device, and this machine runs the model without one; name a target, or use edge run")
    return load_device(target)


def _program(path: Path) -> Program:
    try:
        program = read(path)
    except FormatError as err:
        raise FormatError(f"cannot pack {path}: {err}") from err
    verify(program)
    return program


# -- contents ------------------------------------------------------------------------------------------------------------------


def _contents(
    path: Path, program: Program, picture: str | os.PathLike[str] | None, device: Device, name: str
) -> tuple[dict[str, bytes], str, str]:
    """The files of a bundle by name, the known answer in words, and the name of the picture."""
    with tempfile.TemporaryDirectory() as folder:
        shown = _picture(Path(folder), program, picture)
        # Of the files that were given, not of copies: errors name them.
        answer = replace(record(path, shown if picture is None else Path(picture)), model="model.edge", picture=shown.name)
        files = {"model.edge": path.read_bytes(), shown.name: shown.read_bytes()}
    modules = runtime_modules()
    runtime = runtime_sources(modules)
    files |= runtime
    files[FILE] = _json(answer.to_json())
    files["requirements.txt"] = "".join(f"{line}\n" for line in requirements(modules)).encode()
    files[MARK] = _json({"edge": _version(DISTRIBUTION), "target": device.name, "model": program.metadata.get("name", path.stem)})
    files |= {"install.sh": _INSTALL.encode(), "run.sh": _RUN.replace("@DIGEST@", _digest(runtime)).encode()}
    files["README.md"] = _README.format(name=name, title=device.title, picture=shown.name, answer=answer.text).encode()
    licence = _licence()
    return files | ({"LICENSE": licence.encode()} if licence else {}), answer.text, shown.name


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(files[name]).digest())
    return digest.hexdigest()[:16]


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _picture(folder: Path, program: Program, given: str | os.PathLike[str] | None) -> Path:
    """The picture in `folder`: the one given, or noise that the network takes."""
    if given is not None:
        source = require_file(given, "picture")
        target = folder / f"picture{source.suffix.lower()}"
        shutil.copyfile(source, target)
        return target
    shape = program.tensors[program.inputs[0]].type.shape
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    if len(shape) == 3 and shape[2] in (1, 3):
        write_picture(folder / "picture.png", noise)
        return folder / "picture.png"
    np.save(folder / "picture.npy", noise.astype(np.float32) / np.float32(255))
    return folder / "picture.npy"


def _licence() -> str | None:
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


# -- the runtime ---------------------------------------------------------------------------------------------------------------


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


def _imports(source: Path) -> Iterator[str]:
    """The names a module imports anywhere: modules, and what may be modules."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def runtime_sources(modules: Mapping[str, Path]) -> dict[str, bytes]:
    """The sources by the name they have in a bundle: packages as folders, wherever they lie here."""
    return {_place(name, source): source.read_bytes() for name, source in modules.items()}


def _place(name: str, source: Path) -> str:
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if source.name == "__init__.py" else f"{path}.py"


def requirements(modules: Mapping[str, Path]) -> list[str]:
    """The packages that the runtime imports, pinned to the versions that are installed here."""
    import sys

    names = {wanted.split(".")[0] for source in modules.values() for wanted in _imports(source)}
    outside = {name for name in names if name != "edge" and name not in sys.stdlib_module_names and name not in _NOT_NEEDED}
    distributions = sorted(_DISTRIBUTIONS.get(name, name) for name in outside)
    return [f"{distribution}=={_version(distribution)}" for distribution in distributions]


# -- writing -------------------------------------------------------------------------------------------------------------------


def archive(files: Mapping[str, bytes], root: str) -> bytes:
    """A gzipped tar of `files` under the folder `root`, the same bytes for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            info = tarfile.TarInfo(f"{root}/{name}")
            info.size = len(files[name])
            info.mode = _mode(name)
            tar.addfile(info, io.BytesIO(files[name]))
    return gzip.compress(packed.getvalue(), compresslevel=9, mtime=0)


def _mode(name: str) -> int:
    return 0o755 if name.endswith(".sh") else 0o644


def _check_replaceable(where: Path, *, force: bool) -> None:
    """Raise `InputError` where something is in the way that is no bundle."""
    if where.name.endswith(ENDING):
        ours = where.is_file() and _is_archive(where)
        if where.is_dir() or (where.exists() and not ours and not force):
            raise InputError(f"{where} exists and is no bundle; give --force to replace it, or another name")
    elif where.exists() and (not where.is_dir() or (any(where.iterdir()) and not (where / MARK).is_file() and not force)):
        raise InputError(f"{where} exists and is no bundle; name a new folder, or a file that ends in {ENDING}")


def _is_archive(where: Path) -> bool:
    try:
        with tarfile.open(where, "r:gz") as tar:
            return any(member.name.endswith(f"/{MARK}") for member in tar)
    except (tarfile.TarError, OSError, EOFError):
        return False


def _write_folder(where: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder whole beside its place and put it there; files of an older bundle go, its venv and cache stay."""
    target = Path(os.path.realpath(where))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
    except OSError as err:
        raise EdgeError(f"cannot make the folder {where}: {err.strerror or err}; choose another place") from err
    try:
        for name, content in files.items():
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(_mode(name))
        new.chmod(0o755)
        _swap(new, target)
    except OSError as err:
        raise EdgeError(f"cannot write the folder {where}: {err.strerror or err}; make room or choose another place") from err
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`, with what install.sh and run.sh have made there."""
    if not target.exists():
        new.rename(target)
        return
    for kept in ("venv", "cache"):
        if (target / kept).exists():
            (target / kept).rename(new / kept)
    old = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
    target.rename(old / "old")
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


# -- texts ---------------------------------------------------------------------------------------------------------------------

_HEAD = """#!/bin/sh
# Everything stays in the folder of this script.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
"""

_INSTALL = _HEAD + """
if ! command -v python3 >/dev/null; then
    echo "python3 is missing; install it, 3.11 or newer" >&2
    exit 1
fi
python3 -m venv "$here/venv" || {
    echo "a virtual environment cannot be made; on Debian and Raspberry Pi OS: sudo apt install python3-venv" >&2
    exit 1
}
if [ -d "$here/wheels" ]; then
    "$here/venv/bin/python" -m pip install --no-index --find-links "$here/wheels" -r "$here/requirements.txt"
else
    "$here/venv/bin/python" -m pip install --only-binary :all: -r "$here/requirements.txt"
fi
exec "$here/run.sh"
"""

_RUN = _HEAD + """
python=python3
if [ -x "$here/venv/bin/python" ]; then
    python="$here/venv/bin/python"
fi
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
EDGE_CACHE="${EDGE_CACHE:-$here/cache}"
# By the content of the sources, since all files of a bundle have the same time.
PYTHONPYCACHEPREFIX="$here/cache/@DIGEST@"
export PYTHONPATH EDGE_CACHE PYTHONPYCACHEPREFIX
if [ "$#" -eq 0 ]; then
    exec "$python" -m edge.known_answer "$here"
fi
exec "$python" -c 'from edge.cli import main; main()' run -m "$here/model.edge" "$@"
"""

_README = """# {name}

A model with all that runs it on a {title}.

    ./install.sh              once: makes ./venv and installs requirements.txt there, then runs the check below
    ./run.sh                  checks that {picture} gives the known answer: {answer}
    ./run.sh photo.jpg ...    classifies pictures

It needs 64-bit Linux with Python 3.11 or newer (`sudo apt install python3-venv` on Raspberry Pi OS) and, for install.sh, the package index;
without a network put the wheels of requirements.txt into a folder `wheels` beside it before running install.sh.

The first run compiles the model's kernels for the processor it finds, which takes some seconds, and keeps them in ./cache. Nothing outside
this folder is written. To remove everything, delete the folder.

`edge/` holds the sources of edge, under the Apache License 2.0.
"""
