"""The files of a bundle: the model, a picture with its known answer, edge's runtime, the scripts that install and run them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.batches import takes_pictures
from edge.bundle_runtime import lowest_requirements, requirements, runtime_licence, runtime_modules, runtime_sources, runtime_version
from edge.bundle_scripts import COMPILED, COMPILED_THERE, EDGE, ENVIRONMENT, INSTALL, README, RUN, WITH_INDEX, WITH_WHEELS
from edge.errors import FormatError, MissingPackage
from edge.format import read
from edge.known_answer import FILE, record
from edge.paths import require_file
from edge.pictures import write_picture
from edge.program import Program
from edge.tensors import TensorType
from edge.verifier import verify

MARK = "bundle.json"  # in every bundle; a folder that holds it may be replaced


@dataclass(frozen=True)
class Contents:
    """Files by name, the picture among them, and the answer it must give, in words."""

    files: Mapping[str, bytes]
    picture: str
    answer: str


def contents(
    path: Path,
    *,
    name: str,
    title: str,
    target: str | None,
    picture: str | os.PathLike[str] | None = None,
    wheels: Mapping[str, bytes] | None = None,
) -> Contents:
    """The files of a bundle of a `.edge` file.

    name, title   of the bundle, and of the device it is for
    target        the device profile that kernels are compiled for here; None: Numba compiles them on the device
    picture       the picture whose answer is stored; noise of the input's shape if none is given
    wheels        the packages, where they go along

    Raises `EdgeError` for an unsound model, a picture that does not fit, and without a linker for the target.
    """
    program = _program(path)
    with tempfile.TemporaryDirectory() as folder:
        shown = _picture(Path(folder), program, picture)
        # Of the files that were given, not of copies: errors name them.
        answer = replace(record(path, shown if picture is None else Path(picture)), model="model.edge", picture=shown.name)
        files = {"model.edge": path.read_bytes(), shown.name: shown.read_bytes()}
    modules = runtime_modules()
    files |= runtime_sources(modules)
    files[FILE] = _json(answer.to_json())
    files |= {"requirements.txt": _lines(requirements(modules, numba=target is None))}
    files |= {"requirements-system.txt": _lines(lowest_requirements(modules, numba=target is None))}
    files |= {} if target is None else {"kernels.so": _library(target, program)}
    files[MARK] = _json({"edge": runtime_version(), "target": target or title, "model": program.metadata.get("name", path.stem)})
    files |= {"environment.sh": ENVIRONMENT.encode(), "install.sh": INSTALL.encode(), "run.sh": RUN.encode(), "edge.sh": EDGE.encode()}
    files |= {f"wheels/{wheel}": content for wheel, content in (wheels or {}).items()}
    words = {"packages": WITH_INDEX if wheels is None else WITH_WHEELS, "kernels": COMPILED_THERE if target is None else COMPILED}
    page = README.format(name=name, title=title, picture=shown.name, answer=answer.text, **words)
    licence = runtime_licence()
    files |= {"README.md": page.encode()} | ({"LICENSE": licence.encode()} if licence else {})
    return Contents(files, shown.name, answer.text)


def _program(path: Path) -> Program:
    try:
        program = read(path)
    except FormatError as err:
        raise FormatError(f"cannot pack {path}: {err}") from err
    verify(program)
    return program


def _library(target: str, program: Program) -> bytes:
    """The kernels of a program, compiled for a target."""
    from edge.build import build_library

    with tempfile.TemporaryDirectory() as folder:
        try:
            return build_library(target, [program], Path(folder) / "kernels.so").read_bytes()
        except MissingPackage as err:
            raise MissingPackage(f"{err}; or let the device compile them, with --with-numba") from err


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _picture(folder: Path, program: Program, given: str | os.PathLike[str] | None) -> Path:
    """The picture in `folder`: the one given, or noise that the network takes."""
    if given is not None:
        source = require_file(given, "picture")
        target = folder / f"picture{source.suffix.lower()}"
        shutil.copyfile(source, target)
        return target
    return _noise(folder, program)


def _noise(folder: Path, program: Program) -> Path:
    random = np.random.default_rng(0)
    drawn = {name: random.integers(0, 256, kind.shape).astype(np.uint8) for name, kind in _inputs(program).items()}
    arrays: dict[str, Any] = {
        name: noise if takes_pictures(noise.shape) else noise.astype(np.float32) / np.float32(255) for name, noise in drawn.items()
    }
    if len(arrays) > 1:
        np.savez(folder / "picture.npz", **{name: array[np.newaxis] for name, array in arrays.items()})
        return folder / "picture.npz"
    (array,) = arrays.values()
    if array.dtype == np.uint8:
        write_picture(folder / "picture.png", array)
        return folder / "picture.png"
    np.save(folder / "picture.npy", array)
    return folder / "picture.npy"


def _inputs(program: Program) -> dict[str, TensorType]:
    names = program.metadata.get("inputs") or [f"input{i}" for i in range(len(program.inputs))]
    return {name: program.tensors[number].type for name, number in zip(names, program.inputs, strict=True)}
