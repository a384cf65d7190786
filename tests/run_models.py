"""What the tests of `edge run` share: models of a few colours, pictures and arrays of them, and how the command is invoked.

The fixtures `models` and `folder` are used by importing them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from keras_files import OPPONENTS, colour_layers, conv, dense, pool, rescaling, write_h5, write_heads
from PIL import Image

import edge
from edge.cli import cli

SIZE = 8
LEVELS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def picture(path: Path, colour: str, size: int = SIZE) -> Path:
    Image.new("RGB", (size, size), LEVELS[colour]).save(path)
    return path


def arrays(path: Path, colours: Sequence[str], labels: Sequence[int] | None) -> Path:
    pictures = np.array([np.full((SIZE, SIZE, 3), LEVELS[colour], np.uint8) for colour in colours])
    np.savez(path, x=pictures, **({} if labels is None else {"y": labels}))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with converted models."""
    folder = tmp_path_factory.mktemp("models")
    shape = (SIZE, SIZE, 3)
    logits = [rescaling(), *colour_layers("linear")]
    write_h5(folder / "colours.h5", colour_layers(), shape)
    write_h5(folder / "bytes.h5", logits, shape)
    heads = [[pool(), dense("colour", 4 * np.eye(3, dtype=np.float32), "softmax")], [conv("mask", OPPONENTS[None, None])]]
    write_heads(folder / "heads.h5", shape, conv("trunk", OPPONENTS[None, None]), heads)
    write_h5(folder / "vector.h5", [dense("last", np.eye(5, dtype=np.float32))], (5,))
    for source in sorted(folder.glob("*.h5")):
        edge.convert(source, bits=32)
        source.unlink()
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one, with no model named from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGE_MODEL", raising=False)
    return tmp_path
