"""Runs in Larq's environment: further networks of its zoo with random weights, made as `zoo.py` makes its own.

    python zoo_more.py OUT NETWORK...

For every network OUT/NAME.h5 and OUT/NAME.npz as there. No file of Larq Compute Engine: these are compared with Larq alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import numpy as np
import tensorflow as tf
import zoo
from larq_zoo import literature
from larq_zoo.literature import real_to_bin_nets
from zoo import SIZE, answered, main
from zookeeper import factory

PICTURES = 4
_centre = zoo._centre


def _centre_classifiers(model: Any, dense: Any, batch: np.ndarray) -> None:
    """Some of these networks have dense layers that are no classifier, or one without bias: they stay as they are."""
    if dense.bias is not None and dense is model.layers[-2]:
        _centre(model, dense, batch)


zoo._centre = _centre_classifiers


@factory
class PlainRealToBinNet(real_to_bin_nets.RealToBinNetBNNFactory):
    """The binary network without the Lambda layers that only name its blocks."""

    def block(self, x: Any, downsample: bool = False, name: str = "") -> Any:
        half = self.half_binary_block(x, downsample=downsample, name=f"{name}a")
        return self.half_binary_block(half, downsample=False, name=f"{name}b")


def _real_to_binary() -> Any:
    return PlainRealToBinNet(include_top=True, weights=None, input_shape=(SIZE, SIZE, 3), num_classes=1000).build()


def _plain(build: Callable[..., Any]) -> Callable[[], Any]:
    """As a plain Keras model, whatever class the zoo makes of it."""

    def made() -> Any:
        model = build(weights=None, input_shape=(SIZE, SIZE, 3))
        return tf.keras.Model(model.inputs, model.outputs, name=model.name)

    return made


NETWORKS: dict[str, Callable[[], Any]] = {
    "XNORNet": _plain(literature.XNORNet),
    "DoReFaNet": _plain(literature.DoReFaNet),
    "RealToBinaryNet": _real_to_binary,
    "BinaryDenseNet37": _plain(literature.BinaryDenseNet37),
    "BinaryDenseNet37Dilated": _plain(literature.BinaryDenseNet37Dilated),
}


def prepare(name: str, out: Path) -> None:
    model = answered(name, NETWORKS[name], PICTURES, out)
    model.save(out / f"{name}.h5", save_format="h5")  # last: its presence says that the other is complete


if __name__ == "__main__":
    main(sys.argv[1:], prepare)
