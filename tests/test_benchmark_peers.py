"""The pure parts of the benchmark against Larq Compute Engine: what talks to its process, and what compares with Keras."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import conv, model_of, norm
from peers import client
from peers.client import PeerError, PerLayer, Prepared, Worker, interpreter, prepare
from peers.equality import accumulators, agreement, first_flips, flipped_bits, instructions, truth_of

from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.engine import Engine
from edge.kernels.reference import run_graph
from edge.lower import to_program

# Says of interpreter k that a call takes (k + 1) ms, and 1 ms less with XNNPACK; answers twice its input.
WORKER = """
import json, sys
import numpy as np
speeds = []
for line in sys.stdin:
    request = json.loads(line)
    answer = {"error": "unknown"}
    if "open" in request:
        speeds.append((len(speeds) + 1 - 1.5 * request["xnnpack"]) / 1000)
        answer = {"interpreter": len(speeds) - 1}
    elif "time" in request:
        answer = {"seconds": speeds[request["time"]] * request["calls"]}
    elif "answer" in request:
        np.save(request["outputs"], 2 * np.load(request["inputs"]))
        answer = {}
    elif "end" in request:
        break
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker([sys.executable, "-c", WORKER]) as process:
        yield process


def test_a_peer_is_timed_and_asked(worker: Worker) -> None:
    peer = worker.open(Path("model.tflite"), indirect=True)
    assert peer.xnnpack and peer.seconds(4) == pytest.approx(4 * 0.0005)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(peer.answers(x), 2 * x)


def test_a_layer_takes_what_makes_stacks_deeper(worker: Worker) -> None:
    shallow, deep = (worker.open(Path(name), indirect=False) for name in ("a", "b"))  # 0.5 and 2.5 ms
    assert PerLayer(deep, shallow, 4).seconds(10) == pytest.approx(10 * (2.5e-3 - 0.5e-3) / 4)


def test_what_the_peer_cannot_do_is_an_error(worker: Worker) -> None:
    with pytest.raises(PeerError, match=r"could not do .*sing.*: unknown"):
        worker.ask(sing=True)
    with pytest.raises(PeerError, match="ended"):
        worker.ask(end=True)


def test_the_environment_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_PEERS_PYTHON", sys.executable)
    assert interpreter() == Path(sys.executable)
    monkeypatch.setenv("EDGE_PEERS_PYTHON", str(tmp_path / "missing"))
    assert interpreter() is None


def test_networks_are_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = "import sys, pathlib; [(pathlib.Path(sys.argv[1]) / f'{n}.h5').open('x') for n in sys.argv[2:]]"
    (tmp_path / "zoo.py").write_text(made)
    monkeypatch.setattr(client, "HERE", tmp_path)
    monkeypatch.setattr(client, "CACHE", tmp_path / "cache")
    with pytest.raises(PeerError, match=r"zoo.py could not make a, b: FileNotFoundError"):
        prepare(Path(sys.executable), "a", "b")
    (tmp_path / "zoo.py").write_text("import sys, pathlib; pathlib.Path(sys.argv[1]).mkdir(parents=True, exist_ok=True); " + made)
    first = prepare(Path(sys.executable), "a", "b")
    assert prepare(Path(sys.executable), "b", "a") == first[::-1] and all(each.h5.exists() for each in first)


def test_layers_are_read_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", pictures=np.zeros(2), **{"layer/conv": np.ones(3)})
    prepared = Prepared(tmp_path, "net")
    assert set(prepared.layers) == {"conv"} and set(prepared.arrays) == {"pictures", "layer/conv"}


# -- equality ------------------------------------------------------------------------------------------------------------------


def binary_network(seed: int = 0) -> tuple[Any, Engine, np.ndarray, dict[str, np.ndarray]]:
    """A plain graph, its engine, a picture, and what each layer gives for it."""
    random = np.random.default_rng(seed)
    first = conv(random, (3, 3), 8, 16, name="first", sign=True, padding="same", pad_values=1.0, activation="relu")
    second = conv(random, (3, 3), 16, 8, name="second", sign=True, kernel_quantizer="magnitude_aware_sign")
    graph = read_graph(model_of(first, norm(random, 16, spread=8), second, norm(random, 8, name="last"), shape=(6, 6, 8)))
    picture = random.normal(size=(6, 6, 8)).astype(np.float32)
    values = run_graph(graph, {"image": picture})
    return graph, Engine(to_program(run_passes(graph))), picture, {name: values[name] for name in ("first", "norm", "second", "last")}


def test_a_right_network_is_found_equal() -> None:
    graph, engine, picture, layers = binary_network()
    truth = truth_of(graph, picture, layers, engine.program)
    sums = accumulators(graph, truth, layers)
    assert [(each.layer, each.values, each.wrong) for each in sums] == [("first", 576, 0), ("second", 128, 0)]
    steps = instructions(engine, graph, truth)
    assert steps and all(step.equal for step in steps)
    flipped, signs = flipped_bits(engine, graph, picture, truth)
    assert flipped == 0 and signs == 6 * 6 * 8 + 6 * 6 * 16
    assert first_flips(engine, graph, picture, truth) == 0


def test_a_wrong_network_is_found_out() -> None:
    graph, engine, picture, layers = binary_network()
    layers["first"] = layers["first"] + np.eye(1, layers["first"].size, 5).reshape(layers["first"].shape).astype(np.float32) * 2
    layers["norm"] = -layers["norm"]
    truth = truth_of(graph, picture, layers, engine.program)
    assert next(each.wrong for each in accumulators(graph, truth, layers)) == 1
    assert any(not step.equal for step in instructions(engine, graph, truth))
    assert flipped_bits(engine, graph, picture, truth)[0] > 0
    assert 0.01 < first_flips(engine, graph, picture, truth) <= 1


def test_agreement_counts_classes() -> None:
    assert agreement(np.array([[0, 1], [1, 0]]), np.array([[0.2, 0.8], [0.1, 0.9]])) == 0.5
