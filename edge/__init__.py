"""Low-precision inference on edge devices.

    report = edge.convert("model.h5", bits=1)       # writes model.edge and model.tflite
    engine = edge.load("model.edge")
    scores = engine.run(pictures)                   # NHWC float32 or uint8, one or a batch

Names are imported when first used: reading or running a model loads neither TensorFlow nor Numba.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.converters.convert import convert
    from edge.converters.report import Report
    from edge.engine import Engine, Step, load
    from edge.errors import EdgeError
    from edge.footprint import Footprint
    from edge.tensors import TensorInfo

__all__ = ["EdgeError", "Engine", "Footprint", "Report", "Step", "TensorInfo", "__version__", "convert", "load"]

_WHERE = {
    "EdgeError": "edge.errors",
    "Engine": "edge.engine",
    "Footprint": "edge.footprint",
    "Step": "edge.engine",
    "TensorInfo": "edge.tensors",
    "load": "edge.engine",
    "Report": "edge.converters.report",
    "convert": "edge.converters.convert",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("edge-lowbit")
    if name not in _WHERE:
        raise AttributeError(f"module 'edge' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
