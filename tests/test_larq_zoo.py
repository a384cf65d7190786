"""The Larq zoo with random weights, layer by layer on the tensors that Larq itself computes (`benchmarks/peers/zoo.py`, `zoo_more.py`).

Larq needs an environment of its own (`make bench-peers` makes one, or EDGE_PEERS_PYTHON names its Python); where there is none, these tests
are skipped. What Larq makes is kept in `benchmarks/.cache/peers`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from peers.client import MISSING, Prepared, interpreter, prepare
from peers.equality import accumulators, agreement, first_flips, instructions, truth_of

import edge
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.graph import Graph

pytestmark = pytest.mark.slow

BINARY = {
    "zoo.py": (
        *("QuickNetSmall", "QuickNet", "QuickNetLarge", "BiRealNet", "BinaryAlexNet"),
        *("BinaryResNetE18", "BinaryDenseNet28", "MeliusNet22"),
    ),
    "zoo_more.py": ("XNORNet", "RealToBinaryNet", "BinaryDenseNet37", "BinaryDenseNet37Dilated"),
}
ROUNDING = 1e-5  # of the largest value of a tensor


def made(name: str, script: str) -> Prepared:
    python = interpreter()
    if python is None:
        pytest.skip(MISSING)
    return prepare(python, name, script=script)[0]


def converted(network: Prepared, folder: Path) -> tuple[Graph, edge.Engine]:
    """The network as it was read, and its engine."""
    edge.convert(network.h5, folder / "model.edge", bits=1, formats="edge", input_dtype="float32")
    return read_graph(read_keras(network.h5)), edge.load(folder / "model.edge")


@pytest.mark.parametrize(("script", "name"), [(script, name) for script, names in BINARY.items() for name in names])
def test_layers_on_larqs_own_tensors(script: str, name: str, tmp_path: Path) -> None:
    """Every sum of signs is Larq's to the bit, every instruction gives its signs and, but for rounding, its values."""
    network = made(name, script)
    graph, engine = converted(network, tmp_path)
    picture = network.arrays["pictures"][0]
    truth = truth_of(graph, picture, network.layers, engine.program)
    sums = accumulators(graph, truth, network.layers)
    assert sums and not any(each.wrong for each in sums), [each for each in sums if each.wrong]
    steps = instructions(engine, graph, truth)
    assert steps and all(step.equal for step in steps), [step for step in steps if not step.equal]
    assert first_flips(engine, graph, picture, truth) <= ROUNDING
    answers, expected = engine.run(network.arrays["pictures"]), network.arrays["answers"]
    print(f"{name}: {len(sums)} binary layers, {sum(each.values for each in sums)} sums, none wrong; {len(steps)} instructions; "
          f"{sum(step.tied_bits for step in steps)} ties; top-1 {agreement(answers, expected):.0%}")  # fmt: skip


def test_layers_of_few_bits_on_larqs_own_tensors(tmp_path: Path) -> None:
    """DoReFaNet: weights of 1 bit with one scale a layer, activations of 2 bits, which are read as int8."""
    network = made("DoReFaNet", "zoo_more.py")
    _, engine = converted(network, tmp_path)
    answers, expected = engine.run(network.arrays["pictures"]), network.arrays["answers"]
    assert agreement(answers, expected) == 1
    assert np.abs(answers - expected).max() <= 1e-3 * expected.max()
