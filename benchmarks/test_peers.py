"""The Larq zoo at 224x224 and single binary layers against Larq Compute Engine, both made from the same `.h5` with random weights.

    make bench-peers        makes Larq's environment (a few minutes, once), the networks (likewise), and runs this

Larq Compute Engine runs in a process of its own (`peers/worker.py`), in turns with edge: while one is timed the other waits. It is timed
with its indirect kernel and without, each with XNNPACK or without, whichever is faster; the input is copied in and the answer out on both
sides.
Right first: every binary layer on Keras' own input gives Keras' own sums, every instruction Keras' own signs and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_layers import assert_right, conv, layer
from bench_rows import BITS_BITS, BITS_FLOAT, EDGE, LARQ, LARQ_INDIRECT, LARQ_LAYERS, NET_BINARY, ZOO
from peers.client import MISSING, Peer, PerLayer, Prepared, Worker, interpreter, prepare
from peers.equality import accumulators, agreement, first_flips, flipped_bits, instructions, truth_of

import edge
from edge.converters.convert import convert
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.engine import Engine
from edge.kernels.isa import available, detect
from edge.tensors import Encoding
from edge.threads import most_threads

NETWORKS = (
    *("QuickNetSmall", "QuickNet", "QuickNetLarge", "BiRealNet", "BinaryAlexNet"),
    *("BinaryResNetE18", "BinaryDenseNet28", "MeliusNet22"),
)
EIGHT_BITS = "first and last layer 8-bit"
SIZES = ((56, 64), (28, 128), (14, 256), (7, 512))  # height and width, channels
STACKS = {BITS_BITS: "signs", BITS_FLOAT: "floats"}
DEEP, SHALLOW = 5, 1
THREADS = sorted({1, most_threads()})
PEERS = {LARQ: False, LARQ_INDIRECT: True}  # with the value of `use_indirect_bgemm`
CLOSE = 1e-4  # of the largest answer: no sign flipped on the way
ROUNDING = 1e-5  # of the largest value of a tensor: how far from 0 a value may be whose sign is the first to differ


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    python = interpreter()
    if python is None:
        pytest.skip(MISSING)
    with Worker([python, Path(__file__).parent / "peers" / "worker.py"]) as process:
        yield process


# -- networks ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted networks are kept for the time of a run."""
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("name", NETWORKS)
def test_network(bench: Any, worker: Worker, folder: Path, name: str, threads: int) -> None:
    network = _prepared(name)
    path = _converted(network, folder, 1)
    right = _assert_right(network, path)
    engine, picture = edge.load(path, threads=threads), network.arrays["pictures"][0]
    np.testing.assert_array_equal(engine.run(picture), edge.load(path).run(picture))
    peers = _peers(worker, network, threads)
    facts = {**right, **_facts(network, peers)}
    bench.row(ZOO, name, NET_BINARY, {EDGE: lambda: engine.run(picture), **peers}, threads=threads, work=_work(engine), facts=facts)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_with_8_bit_layers(bench: Any, worker: Worker, folder: Path, name: str) -> None:
    """What else is on offer: the float layers at 8 bits, calibrated. Larq Compute Engine's stay in float32."""
    network = _prepared(name)
    path = _converted(network, folder, 8)
    engine, picture = edge.load(path), network.arrays["pictures"][0]
    answers = engine.run(network.arrays["pictures"])
    assert np.isfinite(answers).all()
    peers = _peers(worker, network, 1)
    same = 100 * agreement(answers, network.arrays["answers"])
    facts = {"file_bytes": path.stat().st_size, "top1_agreement_percent": same, **_facts(network, peers)}
    bench.row(ZOO, f"{name}, {EIGHT_BITS}", NET_BINARY, {EDGE: lambda: engine.run(picture), **peers}, work=_work(engine), facts=facts)


def _prepared(name: str) -> Prepared:
    return _prepare(name)[0]


@cache
def _prepare(*names: str) -> list[Prepared]:
    python = interpreter()
    if python is None:
        pytest.skip(MISSING)
    return prepare(python, *names)


def _converted(network: Prepared, folder: Path, bits: int) -> Path:
    """The file of a network; with `bits` 8 its float layers are calibrated on the pictures it is compared on."""
    path = folder / f"{network.name}-{bits}.edge"
    if not path.exists():
        convert(network.h5, path, bits=bits, formats=("edge",), calibrate=network.arrays["pictures"] if bits == 8 else None)
    return path


def _peers(worker: Worker, network: Prepared, threads: int) -> dict[str, Peer]:
    return {peer: worker.open(network.tflite, indirect=indirect, threads=threads) for peer, indirect in PEERS.items()}


def _facts(network: Prepared, peers: Mapping[str, Peer]) -> dict[str, Any]:
    """What is known of the peers beside their times."""
    answers = peers[LARQ_INDIRECT].answers(network.arrays["pictures"])
    return {
        "peer_bytes": dict.fromkeys(peers, network.tflite.stat().st_size),
        "peer_xnnpack": {name: peer.xnnpack for name, peer in peers.items()},
        "peer_top1_agreement_percent": 100 * agreement(answers, network.arrays["answers"]),
    }


def _work(engine: Engine) -> dict[str, float]:
    """Multiply-accumulates by the arithmetic of the input: signs, int8 or float32."""
    names = {Encoding.BITS: "binary", Encoding.INT8: "int8", Encoding.UINT8: "int8", Encoding.FLOAT32: "float32"}
    work: dict[str, float] = {}
    for made in engine.program.instructions:
        call = engine.program.call(made)
        macs = made.definition.macs(call, engine.program.tensors[made.output].type.shape)
        if macs:
            kind = names[call.inputs[0].encoding]
            work[kind] = work.get(kind, 0) + macs
    return work


# -- equality ------------------------------------------------------------------------------------------------------------------


@cache
def _assert_right(network: Prepared, path: Path) -> Mapping[str, Any]:
    graph, engine = read_graph(read_keras(network.h5)), edge.load(path)
    picture = network.arrays["pictures"][0]
    truth = truth_of(graph, picture, network.layers, engine.program)
    sums = accumulators(graph, truth, network.layers)
    assert sums and not any(each.wrong for each in sums), [each for each in sums if each.wrong]
    steps = instructions(engine, graph, truth)
    assert steps and all(step.equal for step in steps), [step for step in steps if not step.equal]
    flipped, signs = flipped_bits(engine, graph, picture, truth)
    answers, expected = engine.run(network.arrays["pictures"]), network.arrays["answers"]
    distance = first_flips(engine, graph, picture, truth)
    assert distance <= ROUNDING, f"{network.name}: the first sign to differ is of a value {distance:.1e} of the largest away from 0"
    return {
        "binary_layers": len(sums),
        "accumulators": sum(each.values for each in sums),
        "wrong_accumulators": 0,
        "tied_bits": sum(step.tied_bits for step in steps),
        "flipped_bits": flipped,
        "flipped_bits_percent": 100 * flipped / max(signs, 1),
        "close_answers_percent": float(100 * (np.abs(answers - expected).max(axis=1) <= CLOSE * expected.max()).mean()),
        "first_flip_distance": distance,
        "top1_agreement_percent": 100 * agreement(answers, expected),
        "classes": len(np.unique(expected.argmax(axis=1))),
        "file_bytes": path.stat().st_size,
    }


# -- single layers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stacks:
    """A deep and a shallow stack of one layer."""

    deep: Prepared
    shallow: Prepared

    def contender(self, worker: Worker, *, indirect: bool) -> PerLayer:
        deep, shallow = (worker.open(each.tflite, indirect=indirect) for each in (self.deep, self.shallow))
        return PerLayer(deep, shallow, DEEP - SHALLOW)


@pytest.mark.parametrize("isa", ("", "avx2"))
@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize(("size", "channels"), SIZES)
def test_layer(bench: Any, worker: Worker, size: int, channels: int, kind: str, isa: str) -> None:
    """The time of one layer in Larq Compute Engine is what each takes by which a stack is deeper; signs go in, signs or floats come out."""
    if isa and isa not in [each.name for each in available()]:
        pytest.skip(f"this machine has no {isa}")
    stacks = _stacks(kind, size, channels)
    _assert_stack_right(worker, stacks)
    made = layer(conv(size, channels, channels, 3), kind, machine=detect(isa) if isa else None)
    assert_right(made)
    contenders = {EDGE: made.call(), **{peer: stacks.contender(worker, indirect=indirect) for peer, indirect in PEERS.items()}}
    named = f"{kind}, {isa}" if isa else kind
    bench.row(LARQ_LAYERS, made.shape.name, named, contenders, work=made.work, facts={"kernel": made.kernel})


def _stacks(kind: str, size: int, channels: int) -> _Stacks:
    return _Stacks(*_prepare(*(f"stack-{STACKS[kind]}-{size}-{channels}-{depth}" for depth in (DEEP, SHALLOW))))


def _assert_stack_right(worker: Worker, stacks: _Stacks) -> None:
    """The peer computes what Keras does."""
    arrays = stacks.shallow.arrays
    for indirect in PEERS.values():
        got = worker.open(stacks.shallow.tflite, indirect=indirect).answers(arrays["pictures"])
        np.testing.assert_allclose(got, arrays["answers"], rtol=1e-4, atol=1e-3)
