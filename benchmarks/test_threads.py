"""Two threads against one: back to back, with pauses between inferences, beside a busy process; and what sharing costs an instruction.

What two threads can give on this machine is measured beside it: two engines of one thread each, running at once.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from bench_rows import EDGE, OVERHEAD
from bench_timing import ratio

from edge.engine import Engine
from edge.graph import Graph, Node
from edge.lower import to_program
from edge.ops import NO_ACTIVATION
from edge.program import Program
from edge.tensors import Encoding, TensorType
from edge.threads import most_threads

THREADS = 2
PAUSE_S = 0.005
ONE_THREAD = "edge, one thread"
CONV = {
    "stride_h": 1, "stride_w": 1, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1,
    "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, **NO_ACTIVATION,
}  # fmt: skip
NETS = {"20 x 56x56x64": (20, 56, 64), "40 x 28x28x128": (40, 28, 128), "30 x 14x14x256": (30, 14, 256)}  # layers, side, channels

pytestmark = pytest.mark.skipif(most_threads() < THREADS, reason="this process may use one core only, or cannot park threads")


def signs(layers: int, side: int, channels: int) -> Program:
    """That many 3x3 convolutions from signs to signs."""
    random = np.random.default_rng(0)
    kind = TensorType((side, side, channels), Encoding.BITS)
    nodes = []
    for i in range(layers):
        constants = {
            "filter": random.random((channels, 3, 3, channels)) < 0.5,
            "threshold": random.integers(-20, 20, channels).astype(np.int32),
        }
        nodes.append(Node("conv2d", (f"t{i}",), f"t{i + 1}", CONV, constants, (f"layer{i}",)))
    return to_program(Graph("signs", ("t0",), (f"t{layers}",), tuple(nodes), {f"t{i}": kind for i in range(layers + 1)}))


def engines(program: Program) -> tuple[Engine, Engine, Engine]:
    """One of two threads and two of one, which give the same."""
    made = Engine(program, threads=THREADS), Engine(program), Engine(program)
    view = made[0]._inputs[0]
    signs_in = np.random.default_rng(1).integers(0, 256, view.shape, dtype=np.uint8)
    for _ in range(10):  # on one thread, then shared
        for engine in made:
            engine._inputs[0][...] = signs_in
            engine._infer()
        assert all(np.array_equal(engine._outputs[0], made[0]._outputs[0]) for engine in made)
    return made


def seconds_of(work: Callable[[], None], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


def possible(first: Engine, second: Engine, calls: int = 60) -> float:
    """How many times the work of one engine two of them do at once."""
    alone = seconds_of(first._infer, calls)
    together: list[float] = []
    threads = [threading.Thread(target=lambda e=e: together.append(seconds_of(e._infer, calls))) for e in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(alone / one for one in together)


@dataclass(frozen=True)
class Paused:
    """A contender that sleeps before every call, which is not counted."""

    call: Callable[[], None]

    def seconds(self, calls: int) -> float:
        total = 0.0
        for _ in range(calls):
            time.sleep(PAUSE_S)
            total += seconds_of(self.call, 1)
        return total


@contextmanager
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def record(bench: Any, name: str, kind: str, contenders: dict[str, Any], **facts: Any) -> None:
    timings = bench.time(contenders)
    two, one = timings.values()
    bench.add(OVERHEAD, name, kind, timings, threads=THREADS, facts={"times_as_fast": round(ratio(one, two), 2), **facts})


@pytest.mark.parametrize("name", NETS)
def test_back_to_back(bench: Any, name: str) -> None:
    two, one, other = engines(signs(*NETS[name]))
    bound = round(possible(one, other), 2)
    record(bench, name, "back to back", {EDGE: two._infer, ONE_THREAD: one._infer}, possible=bound)


@pytest.mark.parametrize("name", NETS)
def test_with_pauses(bench: Any, name: str) -> None:
    two, one, _ = engines(signs(*NETS[name]))
    record(bench, name, "5 ms pauses", {EDGE: Paused(two._infer), ONE_THREAD: Paused(one._infer)})


@pytest.mark.parametrize("name", NETS)
def test_beside_a_busy_process(bench: Any, name: str) -> None:
    two, one, _ = engines(signs(*NETS[name]))
    with busy_process():
        record(bench, name, "a busy core", {EDGE: two._infer, ONE_THREAD: one._infer})


def test_time_of_a_shared_instruction(bench: Any) -> None:
    """200 short instructions, each in two parts, against half of what they take on one thread."""
    layers = 200
    two, one, _ = engines(signs(layers, 24, 64))
    assert two._pool is not None
    shared = int((two._records[:, 2] > 1).sum())
    assert shared == layers, "every instruction is shared"
    timings = bench.time({EDGE: two._pool.infer_shared, ONE_THREAD: one._infer})
    both, alone = timings.values()
    cost_ns = round(1e9 * (both.median_s - alone.median_s / THREADS) / shared, 1)
    bench.add(OVERHEAD, "engine", "a shared instruction", timings, threads=THREADS, facts={"sharing_ns": cost_ns, "instructions": shared})
