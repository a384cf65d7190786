"""The example network in the engine against its ReLU twin in LiteRT: first that both are right, then how long a picture takes.

    pytest -s benchmarks/test_digits.py --bench-own-report      writes benchmarks/results/digits.md

Ours is `engine.run(picture)`, from a uint8 array to a float32 one, Python call included. Of LiteRT (int8, XNNPACK, one thread) `invoke()`
alone is timed: its picture lies in the input tensor already. No time is asserted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_data import ROOT, mnist_test
from bench_litert import LiteRt
from bench_report import Report, environment, microseconds, percent
from bench_rows import EDGE, EXAMPLES, LITERT_INT8, NET_BINARY
from bench_timing import ROUNDS, Timing, ratio
from PIL import Image

import edge
from edge.engine import Engine
from edge.kernels import reference

FOLDER = ROOT / "examples"
LEAST_ACCURACY = 0.988
OURS, PEER = "edge, 1 bit", "LiteRT, int8 ReLU twin"
COLUMNS = {
    "network": "name",
    "file, bytes": "file_bytes",
    "MNIST test accuracy, %": "accuracy_percent",
    "median, µs": "median_us",
    "quartiles, µs": "quartiles_us",
}

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'edge-lowbit[litert]'")


@dataclass(frozen=True)
class Contender:
    """A loaded network, the bytes of its file, and its accuracy on MNIST's test pictures where these are there."""

    network: Any
    file_bytes: int
    accuracy: float | None


def example_pictures() -> np.ndarray:
    """The ten pictures that ship, (10, 28, 28, 1) of 0..255, of the digits 0 to 9."""
    return np.stack([np.asarray(Image.open(FOLDER / "digits" / f"{digit}.png"))[..., np.newaxis] for digit in range(10)])


def accuracy(classify: Any) -> float | None:
    test = mnist_test()
    return None if test is None else float((classify(test[0]) == test[1]).mean())


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Contender:
    path = tmp_path_factory.mktemp("digits") / "digits.edge"
    edge.convert(FOLDER / "digits.h5", path, formats=("edge",))
    engine = edge.load(path)
    return Contender(engine, path.stat().st_size, accuracy(lambda pictures: engine.run(pictures).argmax(axis=1)))


@pytest.fixture(scope="module")
def peer() -> Contender:
    """The twin as `digits_twin.py` trained it, else one with random weights, which is as fast."""
    pytest.importorskip("tensorflow", reason="the twin is made by TensorFlow: pip install 'edge-lowbit[convert]'")
    import digits_twin

    trained: Path = digits_twin.CACHE / digits_twin.INT8_FILE
    content = trained.read_bytes() if trained.exists() else digits_twin.int8_tflite(digits_twin.twin(), example_pictures())
    network = LiteRt(content)
    known = accuracy(lambda pictures: network.classify(digits_twin.rescaled(pictures))) if trained.exists() else None
    network.put(digits_twin.rescaled(example_pictures()[2]))
    return Contender(network, len(content), known)


def assert_right(engine: Engine) -> None:
    """The engine gives what the operations of its program mean, and the right digits."""
    pictures = example_pictures()
    results = engine.run(pictures)
    assert results.argmax(axis=1).tolist() == list(range(10))
    for picture, result in zip(pictures, results, strict=True):
        meant = reference.run_program(engine.program, [picture])[engine.program.outputs[0]]
        np.testing.assert_allclose(result, meant.reshape(result.shape), rtol=0, atol=1e-6)


@pytest.mark.quick
def test_the_example_against_its_twin(bench: Any, ours: Contender, peer: Contender) -> None:
    assert_right(ours.network)
    assert ours.accuracy is None or ours.accuracy >= LEAST_ACCURACY
    assert peer.accuracy is None or peer.accuracy >= LEAST_ACCURACY, "train the twin again, with benchmarks/digits_twin.py"
    engine, picture = ours.network, example_pictures()[2]
    contenders = {EDGE: lambda: engine.run(picture), LITERT_INT8: peer.network.invoke}
    timings = bench.time(contenders, rounds=ROUNDS if bench.own_report else None)
    facts = {"file_bytes": ours.file_bytes, "peer_bytes": {LITERT_INT8: peer.file_bytes}, "accuracy_percent": percent(ours.accuracy)}
    bench.add(EXAMPLES, "handwritten digits", NET_BINARY, timings, facts=facts)
    if bench.own_report:
        print("\n" + report(ours, peer, timings[EDGE], timings[LITERT_INT8]).write("digits"))


def report(ours: Contender, peer: Contender, our_timing: Timing, peer_timing: Timing) -> Report:
    return Report(
        "The example network against its ReLU twin: one picture, one thread",
        [_row(OURS, ours, our_timing), _row(PEER, peer, peer_timing)],
        COLUMNS,
        environment(threads=1),
        _notes(ratio(peer_timing, our_timing), peer),
    )


def _row(name: str, contender: Contender, timing: Timing) -> dict[str, Any]:
    low, high = (microseconds(seconds) for seconds in timing.quartiles_s)
    return {
        "name": name,
        "file_bytes": contender.file_bytes,
        "accuracy_percent": percent(contender.accuracy),
        "median_us": microseconds(timing.median_s),
        "quartiles_us": f"{low:.2f} to {high:.2f}",
        **timing.to_json(),
    }


def _notes(times_as_long: float, peer: Contender) -> list[str]:
    notes = [f"LiteRT takes {times_as_long:.2f} times as long as edge (median over rounds run in turns)"]
    if peer.accuracy is None:
        notes.append("the twin's accuracy is unknown: benchmarks/digits_twin.py trains it, and MNIST must be there to test it")
    return notes
