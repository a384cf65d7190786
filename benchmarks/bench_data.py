"""Where the benchmarks find data that is not in the repository: `../shared` beside it, or what Keras has fetched before."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CACHE = ROOT / "benchmarks" / ".cache"
MNIST = (SHARED / "data" / "mnist.npz", Path.home() / ".keras" / "datasets" / "mnist.npz")
CIFAR10 = SHARED / "data" / "cifar10_packed.npz"

Pictures = NDArray[np.uint8]
Labels = NDArray[np.int64]


def mnist() -> dict[str, NDArray[Any]] | None:
    """`x_train`, `y_train`, `x_test`, `y_test` of MNIST, pictures (N, 28, 28, 1); None where there is none."""
    path = next((path for path in MNIST if path.exists()), None)
    if path is None:
        return None
    with np.load(path) as data:
        pictures = {name: data[name].reshape(-1, 28, 28, 1) for name in ("x_train", "x_test")}
        return pictures | {name: data[name].reshape(-1).astype(np.int64) for name in ("y_train", "y_test")}


def mnist_test() -> tuple[Pictures, Labels] | None:
    """The 10,000 test pictures (N, 28, 28, 1) with their classes; None where there is no MNIST."""
    data = mnist()
    return None if data is None else (data["x_test"], data["y_test"])


def cifar10() -> dict[str, NDArray[Any]] | None:
    """`x_train`, `y_train`, `x_test`, `y_test` of CIFAR-10, pictures (N, 32, 32, 3); None where there is none.

    Unpacking takes half a minute, so that what is needed is kept: all test pictures, and one training picture in ten.
    """
    kept = CACHE / "cifar10.npz"
    if not kept.exists():
        if not CIFAR10.exists():
            return None
        CACHE.mkdir(exist_ok=True)
        data = _unpack(CIFAR10)
        np.savez(kept, x_train=data["x_train"][::10], y_train=data["y_train"][::10], x_test=data["x_test"], y_test=data["y_test"])
    with np.load(kept) as data:
        return dict(data)


def _unpack(path: Path) -> dict[str, NDArray[Any]]:
    """Read a packed data set with the reader that lies beside it."""
    spec = importlib.util.spec_from_file_location("unpack", path.with_name("unpack.py"))
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} needs its reader unpack.py beside it")
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    return dict(reader.load(path))
