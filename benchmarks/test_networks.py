"""Whole networks in the engine against their ReLU twins in LiteRT: first that the answers are right, then how long a picture takes.

    pytest -s benchmarks/test_networks.py

Ours is `engine.run(picture)`, from a NHWC array to a float32 one, Python call included: of bytes, in the float row of float32 as for the
twin. Of LiteRT (XNNPACK) `invoke()` alone is timed: its picture lies in the input tensor already, rescaled and quantized. The networks and
their files are those of `benchmarks/networks.py`, which are built first where they are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from bench_litert import LiteRt
from bench_rows import EDGE, LITERT_FLOAT, LITERT_INT8, NET_BINARY, NET_FLOAT, NET_INT8
from bench_rows import NETWORKS as GROUP
from bench_timing import Call
from networks import KINDS, NETWORKS, Network, rescaled

import edge
from edge.engine import Engine
from edge.kernels import reference
from edge.targets.costs import program_cost
from edge.threads import most_threads

COMPARED_PICTURES = 16
LOGIT_TOLERANCE = 1e-3  # of float files, relative to the largest logit
SHOWN_INSTRUCTIONS = 6
THREADS = sorted({1, most_threads()})
TWINS = {LITERT_INT8: NET_INT8, LITERT_FLOAT: NET_FLOAT}

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'edge-lowbit[litert]'")
pytest.importorskip("keras", reason="Keras is not installed: pip install 'edge-lowbit[convert]'")

QUICK = {("lenet", NET_BINARY, 1), ("resnet(18)", NET_BINARY, 1)}
ROWS = [
    pytest.param(*row, marks=pytest.mark.quick if row in QUICK else ())
    for row in ((name, kind, threads) for name in NETWORKS for kind in KINDS for threads in THREADS)
]


@pytest.mark.parametrize(("name", "kind", "threads"), ROWS)
def test_network(bench: Any, name: str, kind: str, threads: int) -> None:
    network = Network(name)
    picture = _input(network, kind, 1)[0]
    agreement = _assert_right(name, kind)
    path = network.edge_file(kind)
    engine = edge.load(path, threads=threads)
    peers = {peer: _peer(network, twin, threads) for peer, twin in TWINS.items()}
    contenders: dict[str, Call] = {EDGE: lambda: engine.run(picture), **{peer: twin.invoke for peer, twin in peers.items()}}
    facts = {
        "file_bytes": path.stat().st_size,
        "peer_bytes": {peer: network.tflite_file(twin).stat().st_size for peer, twin in TWINS.items()},
        **agreement,
        "slowest_us": _slowest(engine, picture),
    }
    bench.row(GROUP, name, kind, contenders, threads=threads, work=_work(engine), facts=facts)


def _input(network: Network, kind: str, count: int) -> np.ndarray:
    """What the file of a kind takes: pictures of 0..1 for floats, else bytes."""
    pictures = network.pictures(count)
    return rescaled(pictures) if kind == NET_FLOAT else pictures


def _peer(network: Network, twin: str, threads: int) -> LiteRt:
    peer = LiteRt(network.tflite_file(twin).read_bytes(), threads=threads)
    peer.put(rescaled(network.pictures(1))[0])
    return peer


# -- equality ------------------------------------------------------------------------------------------------------------------


@cache
def _assert_right(name: str, kind: str) -> Mapping[str, Any]:
    """Assert what can be asserted of a file before it is timed; how often it names the class that Keras names."""
    network = Network(name)
    engine = edge.load(network.edge_file(kind))
    _assert_as_defined(engine, _input(network, kind, 1)[0])
    if kind == NET_BINARY:
        _assert_signs(network)
    expected = _keras(name, "xnor" if kind == NET_BINARY else "folded")
    got = engine.run(_input(network, kind, COMPARED_PICTURES))
    if kind == NET_FLOAT:
        np.testing.assert_allclose(got, expected, rtol=0, atol=LOGIT_TOLERANCE)
    return {"same_class_as_keras_percent": float(100 * (got.argmax(axis=1) == expected.argmax(axis=1)).mean())}


def _assert_as_defined(engine: Engine, picture: np.ndarray) -> None:
    """The engine gives what the operations of its program mean."""
    meant = reference.run_program(engine.program, [picture])[engine.program.outputs[0]]
    np.testing.assert_allclose(engine.run(picture).reshape(-1), meant.reshape(-1), rtol=0, atol=1e-4)


def _assert_signs(network: Network) -> None:
    """The network of signs with its float layers left in float gives Keras' own answers."""
    engine = edge.load(network.exact_file())
    expected, got = _keras(network.name, "xnor"), engine.run(network.pictures(COMPARED_PICTURES))
    same = np.isclose(got, expected, rtol=0, atol=LOGIT_TOLERANCE).all(axis=1)
    # A value so close to 0 that rounding decides its sign changes an answer, in few pictures.
    assert same.mean() >= 0.75, f"{network.name}: only {same.sum()} of {len(same)} answers are Keras' own"


@cache
def _keras(name: str, precision: str) -> np.ndarray:
    """Keras' probabilities for the pictures that answers are compared on."""
    network = Network(name)
    model = network.load_keras(precision)
    return np.asarray(model(network.pictures(COMPARED_PICTURES).astype(np.float32), training=False))


# -- what it costs -------------------------------------------------------------------------------------------------------------


def _work(engine: Engine) -> dict[str, float]:
    """Multiply-accumulates by the arithmetic they take: of signs, of 8 bits, and all others in float32."""
    work: dict[str, float] = {}
    for cost in program_cost(engine.program, engine.machine).instructions:
        if cost.macs:
            arithmetic = {(1, 1): "binary", (8, 8): "int8"}.get(cost.precision, "float32")
            work[arithmetic] = work.get(arithmetic, 0) + cost.macs
    return work


def _slowest(engine: Engine, picture: np.ndarray) -> list[dict[str, Any]]:
    """The instructions that take most time, alone: layers, kernel, microseconds and what part of all."""
    engine.times(picture, 2)
    seconds = np.median(engine.times(picture, 9), axis=0)
    layers = engine.program.layers or [()] * len(seconds)
    order = np.argsort(-seconds)[:SHOWN_INSTRUCTIONS]
    return [
        {
            "instruction": int(i),
            "layers": "+".join(layers[i]),
            "kernel": engine.kernels[i],
            "us": round(1e6 * float(seconds[i]), 2),
            "percent": round(100 * float(seconds[i] / seconds.sum()), 1),
        }
        for i in order
    ]
