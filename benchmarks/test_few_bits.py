"""Layers with weights of 4 and 2 bits beside the same layers with int8 weights, by time and by bytes, in the engine.

    pytest -s benchmarks/test_few_bits.py --bench-own-report     writes benchmarks/results/few_bits.md

Weights of fewer bits are to take no longer. Each layer is first held to the reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bench_layers import FLOAT, INT8, Shape, conv, example, one_node
from bench_report import Report, environment, microseconds
from bench_timing import Call

from edge.engine import Engine
from edge.graph import Graph
from edge.kernels.arithmetic import dequantize
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.tensors import Encoding, TensorType

SIZES = ((56, 64), (28, 128), (14, 256), (7, 512))
SHAPES = (
    *(conv(size, channels, channels, taps) for taps in (3, 1) for size, channels in SIZES),
    *(Shape("dense", 1, 1, inputs, outputs) for inputs, outputs in ((256, 128), (1024, 1000), (3136, 1024), (9216, 4096))),
)
COLUMNS = {"layer": "name", "activations": "activations", "int8, µs": "int8_us", "4 bits / int8": "four", "2 bits / int8": "two",
           "bytes of weights, 8 / 4 / 2 bits": "bytes"}  # fmt: skip
WIDTHS = (8, 4, 2)


def layer(shape: Shape, activations: str, bits: int) -> Graph:
    """The layer with random weights of so many bits."""
    graph = one_node(shape, INT8)
    half = 1 << bits - 1
    weights = np.random.default_rng(shape.macs).integers(-half, half, shape.filter).astype(np.int8)
    node = graph.nodes[0]
    types = dict(graph.types)
    if activations == FLOAT:
        types = {name: TensorType(kind.shape) for name, kind in types.items()}
    node = replace(node, constants={**node.constants, "filter": weights}, filter_bits=bits if bits < 8 else 0)
    return replace(graph, nodes=(node,), types=types)


def call(graph: Graph) -> tuple[Call, int]:
    """A run of the layer, after one that gave what the reference gives, and the bytes of its weights."""
    engine, x = Engine(to_program(graph)), example(graph)
    if graph.types["x"].encoding is Encoding.INT8:
        got = engine.run_instruction(0, [x.astype(np.float32)])
        kind = graph.types["y"]
        np.testing.assert_array_equal(got, dequantize(run_graph(graph, {"x": x})["y"], kind))
    last = len(engine._calls)
    return lambda: engine._invoke(0, last), engine.program.constants[engine.program.instructions[0].constant("filter")].nbytes


CASES = [pytest.param(shape, kind, id=f"{shape.name}, {kind}") for shape in SHAPES for kind in (INT8, FLOAT)]
_ROWS: list[dict[str, Any]] = []


@pytest.mark.parametrize(("shape", "activations"), CASES)
def test_few_bits(bench: Any, shape: Shape, activations: str) -> None:
    made = {f"{bits} bits": call(layer(shape, activations, bits)) for bits in WIDTHS}
    timings = bench.time({name: run for name, (run, _) in made.items()})
    eight, four, two = (timings[name].median_s for name in made)
    sizes = [size for _, size in made.values()]
    assert sizes[0] == 2 * sizes[1] == 4 * sizes[2]
    _ROWS.append({
        "name": shape.name, "activations": "float32" if activations == FLOAT else "int8", "int8_us": microseconds(eight),
        "four": f"{four / eight:.2f}", "two": f"{two / eight:.2f}", "bytes": " / ".join(f"{size:,}" for size in sizes),
    })  # fmt: skip
    if bench.own_report and len(_ROWS) == len(CASES):
        print("\n" + Report("Weights of 4 and 2 bits beside int8", _ROWS, COLUMNS, environment(threads=1), []).write("few_bits"))
