"""What the engine itself costs an instruction: a program of 200 trivial ones against one of a single one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from bench_rows import EDGE, OVERHEAD
from bench_timing import ratio

from edge.engine import Engine
from edge.graph import Graph, Node
from edge.lower import to_program
from edge.ops import NO_ACTIVATION, Activation
from edge.tensors import TensorType

INSTRUCTIONS = 200


def chain(instructions: int) -> Graph:
    """That many ReLUs, one after the other, of a single value."""
    names = [f"t{i}" for i in range(instructions + 1)]
    attrs = {**NO_ACTIVATION, "activation": int(Activation.RELU)}
    nodes = tuple(Node("activation", (source,), output, attrs) for source, output in itertools.pairwise(names))
    return Graph("chain", (names[0],), (names[-1],), nodes, {name: TensorType((1,)) for name in names})


@pytest.mark.quick
def test_time_of_an_instruction(bench: Any) -> None:
    long, short = (Engine(to_program(chain(count))) for count in (INSTRUCTIONS, 1))
    assert long.run(np.array([3.0], np.float32)).tolist() == [3.0] and long.run(np.array([-3.0], np.float32)).tolist() == [0.0]
    contenders = {EDGE: lambda: long._invoke(0, INSTRUCTIONS), "edge, one instruction": lambda: short._invoke(0, 1)}
    timings = bench.time(contenders)
    many, one = timings.values()
    assert ratio(many, one) > 1, "200 instructions take no longer than one"
    each_s = (many.median_s - one.median_s) / (INSTRUCTIONS - 1)
    facts = {"instruction_ns": round(1e9 * each_s, 2), "instructions": INSTRUCTIONS}
    bench.add(OVERHEAD, "engine", "an instruction", timings, facts=facts)
