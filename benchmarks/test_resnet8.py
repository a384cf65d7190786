"""MLPerf Tiny's ResNet-8 on the 10,000 CIFAR-10 test pictures, at 32 and at 8 bits, in the engine and in TFLite.

    pytest -s benchmarks/test_resnet8.py

Keras gets 87.19 % of them right. The network takes bytes 0..255 as they are; training pictures give the ranges for 8 bits. Times are those
of one picture on one thread, for LiteRT of `invoke()` alone; only the accuracies are asserted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_data import SHARED, cifar10
from bench_litert import LiteRt
from bench_report import Report, environment, microseconds, percent
from bench_timing import Timing, interleave

import edge
from edge.engine import Engine
from edge.tflite_runner import load_tflite

MODEL = SHARED / "models" / "mlperf_tiny" / "pretrainedResnet.h5"
LEAST_ACCURACY = {32: 0.8719, 8: 0.865}
CALIBRATION_PICTURES = 256
CALLS = 10  # in a round of the engine at 8 bits
COLUMNS = {
    "network": "name",
    "file, bytes": "file_bytes",
    "CIFAR-10 test accuracy, %": "accuracy_percent",
    "same class as at 32 bits, %": "agreement_percent",
    "median, µs": "median_us",
}

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'edge-lowbit[litert]'")
pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"{MODEL.name} is not in the folder shared beside the repository")


@dataclass(frozen=True)
class Network:
    """A converted file, and the class it gives each test picture."""

    name: str
    bits: int
    path: Path
    classes: np.ndarray

    def accuracy(self, labels: np.ndarray) -> float:
        return float((self.classes == labels).mean())


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    found = cifar10()
    if found is None:
        pytest.skip("CIFAR-10 is not in the folder shared beside the repository")
    return found


@pytest.fixture(scope="module")
def networks(data: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Network]:
    """Engine and TFLite at 32 bits, then at 8."""
    folder = tmp_path_factory.mktemp("resnet8")
    every = len(data["x_train"]) // CALIBRATION_PICTURES
    calibration = data["x_train"][::every][:CALIBRATION_PICTURES]
    found = []
    for bits in LEAST_ACCURACY:
        path = folder / f"resnet8-{bits}.edge"
        edge.convert(MODEL, path, bits=bits, preprocess="byte", calibrate=calibration)
        for name, load in (("edge", edge.load), ("TFLite", load_tflite)):
            file = path.with_suffix(f".{name.lower()}")
            found.append(Network(name, bits, file, load(file).run(data["x_test"]).argmax(axis=1)))
    return found


def test_accuracy_then_time(benchmark: Any, networks: list[Network], data: dict[str, np.ndarray]) -> None:
    labels = data["y_test"].reshape(-1)
    for network in networks:
        assert network.accuracy(labels) >= LEAST_ACCURACY[network.bits], f"{network.name} at {network.bits} bits"
    timings = _timings(benchmark, networks, data["x_test"][0])
    rows = [_row(network, networks[0].classes, labels, timings[network.path.name]) for network in networks]
    notes = [f"Keras: 87.19 %; ranges for 8 bits from {CALIBRATION_PICTURES} training pictures"]
    report = Report("MLPerf Tiny's ResNet-8: accuracy, and one picture on one thread", rows, COLUMNS, environment(threads=1), notes)
    print("\n" + report.write("resnet8"))


def _timings(benchmark: Any, networks: list[Network], picture: np.ndarray) -> dict[str, Timing]:
    calls = {network.path.name: _call(network, picture) for network in networks}
    ours = "resnet8-8.edge"
    return interleave(benchmark, ours, calls.pop(ours), calls, calls=CALLS)


def _call(network: Network, picture: np.ndarray) -> Any:
    if network.name == "edge":
        engine: Engine = edge.load(network.path)
        return lambda: engine.run(picture)
    peer = LiteRt(network.path.read_bytes())
    peer.put(picture)
    return peer.invoke


def _row(network: Network, expected: np.ndarray, labels: np.ndarray, timing: Timing) -> dict[str, Any]:
    return {
        "name": f"{network.name}, {network.bits} bits",
        "file_bytes": network.path.stat().st_size,
        "accuracy_percent": percent(network.accuracy(labels)),
        "agreement_percent": percent(float((network.classes == expected).mean())),
        "median_us": microseconds(timing.median_s),
        **timing.to_json(),
    }
