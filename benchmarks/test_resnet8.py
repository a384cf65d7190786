"""MLPerf Tiny's ResNet-8 on the 10,000 CIFAR-10 test pictures, at 32, 8, 4, 2 and 1 bits, in the engine and in TFLite.

    pytest -s benchmarks/test_resnet8.py --bench-own-report     writes benchmarks/results/resnet8.md

Keras gets 87.19 % of them right. The network takes bytes 0..255 as they are, as int8 where activations have 8 bits, and gives int8 there,
as MLPerf Tiny's own file does. Training pictures give the ranges for activations of 8 bits, which weights of fewer bits have too (those
of 1 bit float ones as well), and round weights of fewer bits; it was trained for none of these. Times are those of one picture on one
thread, for LiteRT of `invoke()` alone; only the accuracies are asserted.
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
from bench_rows import EDGE, EXAMPLES, LITERT_FLOAT, LITERT_INT8, NET_INT8
from bench_timing import ROUNDS, Timing

import edge
from edge.engine import Engine
from edge.tflite_runner import load_tflite

MODEL = SHARED / "models" / "mlperf_tiny" / "pretrainedResnet.h5"
# By bits of weights and of activations.
LEAST_ACCURACY = {(32, 32): 0.8719, (8, 8): 0.865, (4, 8): 0.8619, (2, 8): 0.7919, (1, 8): 0.65, (1, 32): 0.65}
CALIBRATION_PICTURES = 256
INT8_ENDS = {"input_dtype": "int8", "output_dtype": "int8"}
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
    """A file converted at `bits` of weights and activations, and the class it gives each test picture."""

    runtime: str
    bits: tuple[int, int]
    path: Path
    classes: np.ndarray

    @property
    def name(self) -> str:
        weights, activations = self.bits
        if weights == activations:
            return f"{self.runtime}, {weights} bits"
        return f"{self.runtime}, {weights}-bit weights, {'float' if activations == 32 else 'int8'} activations"

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
    """Engine and TFLite at 32 bits, then at 8, then with weights of 1 bit."""
    folder = tmp_path_factory.mktemp("resnet8")
    every = len(data["x_train"]) // CALIBRATION_PICTURES
    calibration = data["x_train"][::every][:CALIBRATION_PICTURES]
    found = []
    for weights, activations in LEAST_ACCURACY:
        path = folder / f"resnet8-{weights}-{activations}.edge"
        ends = INT8_ENDS if activations == 8 else {}
        edge.convert(MODEL, path, bits=weights, activation_bits=activations, preprocess="byte", calibrate=calibration, **ends)
        for runtime, load in (("edge", edge.load), ("TFLite", load_tflite)):
            file = path.with_suffix(f".{runtime.lower()}")
            found.append(Network(runtime, (weights, activations), file, load(file).run(data["x_test"]).argmax(axis=1)))
    return found


def test_accuracy_then_time(bench: Any, networks: list[Network], data: dict[str, np.ndarray]) -> None:
    labels = data["y_test"].reshape(-1)
    for network in networks:
        assert network.accuracy(labels) >= LEAST_ACCURACY[network.bits], network.name
    timings = _timings(bench, networks, data["x_test"][0])
    ours = next(network for network in networks if _contender(network) == EDGE)
    accuracies = {_contender(network): percent(network.accuracy(labels)) for network in networks}
    facts = {"file_bytes": ours.path.stat().st_size, "accuracy_percent": accuracies[EDGE], "accuracies_percent": accuracies}
    compared = {name: timings[name] for name in (EDGE, "edge, 32 bits", LITERT_INT8, LITERT_FLOAT)}
    bench.add(EXAMPLES, "ResNet-8", NET_INT8, compared, facts=facts)
    if bench.own_report:
        rows = [_row(network, networks[0].classes, labels, timings[_contender(network)]) for network in networks]
        notes = [f"Keras: 87.19 %; ranges for 8 bits from {CALIBRATION_PICTURES} training pictures"]
        title = "MLPerf Tiny's ResNet-8: accuracy, and one picture on one thread"
        print("\n" + Report(title, rows, COLUMNS, environment(threads=1), notes).write("resnet8"))


def _contender(network: Network) -> str:
    """Edge at 8 bits is the first contender, and the others are what it is compared with."""
    names = {("edge", (8, 8)): EDGE, ("TFLite", (8, 8)): LITERT_INT8, ("TFLite", (32, 32)): LITERT_FLOAT}
    return names.get((network.runtime, network.bits), network.name)


def _timings(bench: Any, networks: list[Network], picture: np.ndarray) -> dict[str, Timing]:
    first_ours = sorted(networks, key=lambda network: _contender(network) != EDGE)
    calls = {_contender(network): _call(network, picture) for network in first_ours}
    return dict(bench.time(calls, rounds=ROUNDS if bench.own_report else None))


def _call(network: Network, picture: np.ndarray) -> Any:
    if network.runtime == "edge":
        engine: Engine = edge.load(network.path)
        given = (picture.astype(np.int16) - 128).astype(np.int8) if engine.inputs[0].dtype == "int8" else picture
        return lambda: engine.run(given, stored=True)
    peer = LiteRt(network.path.read_bytes())
    peer.put(picture)
    return peer.invoke


def _row(network: Network, expected: np.ndarray, labels: np.ndarray, timing: Timing) -> dict[str, Any]:
    return {
        "name": network.name,
        "file_bytes": network.path.stat().st_size,
        "accuracy_percent": percent(network.accuracy(labels)),
        "agreement_percent": percent(float((network.classes == expected).mean())),
        "median_us": microseconds(timing.median_s),
        **timing.to_json(),
    }
