"""Helper threads: they give what one thread gives, end with their engine, survive forks, sleep when idle, are used only where they help."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_cases import MACHINES, cases, code_of
from strategies import SPECIALISED, signatures

from edge.engine import Engine
from edge.graph import Graph, Node
from edge.kernels.cache import addresses
from edge.kernels.isa import detect
from edge.kernels.loop import HELPER, LEAD, LOOP, MOST_PARTS, RECORD
from edge.kernels.registry import Code
from edge.lower import to_program
from edge.memory import aligned
from edge.ops import NO_ACTIVATION
from edge.program import Program
from edge.tensors import Encoding, TensorType
from edge.threads import _WORK_PER_MICROSECOND, Entries, Pool, Sharing, groups_of, most_threads, parts_for

CONV = {
    "stride_h": 1, "stride_w": 1, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1,
    "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, **NO_ACTIVATION,
}  # fmt: skip
SIDE = 40

needs_cores = pytest.mark.skipif(most_threads() < 2, reason="this process may use one core only, or cannot park threads")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Always:
    """In place of `Sharing`: every inference is shared."""

    shared = True

    def note(self, seconds: float) -> None:
        """Whatever it took."""


def always_shared(engine: Engine) -> Engine:
    assert engine._pool is not None, "nothing was split"
    engine._pool.sharing = Always()  # type: ignore[assignment]
    return engine


def deep_graph() -> Graph:
    """Enough work in every layer for it to be split among threads."""
    random = np.random.default_rng(3)
    nodes = [
        Node("conv2d", (f"t{i}",), f"t{i + 1}", CONV, {
            "filter": random.random((64, 3, 3, 64)) < 0.5,
            "threshold": random.integers(-20, 20, 64).astype(np.int32),
        }, (f"layer{i}",))
        for i in range(1, 6)
    ]  # fmt: skip
    first = {"filter": random.integers(-99, 99, (64, 3, 3, 3)).astype(np.int8), "threshold": random.integers(-99, 99, 64).astype(np.int32)}
    nodes = [Node("conv2d", ("t0",), "t1", CONV, first, ("first",)), *nodes]
    types = {"t0": TensorType((SIDE, SIDE, 3), Encoding.UINT8)}
    types |= {f"t{i}": TensorType((SIDE, SIDE, 64), Encoding.BITS) for i in range(1, 7)}
    return Graph("deep", ("t0",), ("t6",), tuple(nodes), types)


@pytest.fixture(scope="module")
def deep() -> Program:
    return to_program(deep_graph())


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(deep: Program, pictures: np.ndarray) -> np.ndarray:
    result: np.ndarray = Engine(deep).run(pictures)
    return result


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- what they compute ---------------------------------------------------------------------------------------------------------


@needs_cores
@pytest.mark.parametrize("prepare", [lambda engine: engine, always_shared], ids=["as judged", "always"])
def test_two_threads_give_what_one_gives(
    deep: Program, pictures: np.ndarray, expected: np.ndarray, prepare: Callable[[Engine], Engine]
) -> None:
    engine = prepare(Engine(deep, threads=2))
    for _ in range(50):
        np.testing.assert_array_equal(engine.run(pictures), expected)


@needs_cores
def test_more_threads_than_cores_give_what_one_gives(
    deep: Program, pictures: np.ndarray, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = most_threads() + 1
    monkeypatch.setattr("edge.engine.most_threads", lambda: more)
    engine = always_shared(Engine(deep, threads=more))
    assert engine.threads == more
    for _ in range(100):
        np.testing.assert_array_equal(engine.run(pictures), expected)


@needs_cores
@pytest.mark.parametrize("engines", [1, 3])
def test_engines_with_helpers_run_in_several_threads_at_once(
    deep: Program, pictures: np.ndarray, expected: np.ndarray, engines: int
) -> None:
    made = [always_shared(Engine(deep, threads=2)) for _ in range(engines)]
    right: list[bool] = []

    def work(number: int) -> None:
        right.extend(np.array_equal(made[number % engines].run(pictures), expected) for _ in range(20))

    in_threads(6, work)
    assert len(right) == 120 and all(right)


def _mark(slow_helpers: bool) -> Code:
    """A kernel that counts its calls, 1 for a part and 100 for the whole; helpers, known by a 1 in their scratch memory, may be slow."""

    def build(machine: Any) -> Any:
        from edge.kernels.simd import memory

        words = memory("i64")
        turns = 3_000_000 if slow_helpers else 0

        def mark(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
            where = 8 * (args[0] + part)
            words.put(arena, where, words.get(arena, where) + (100 if parts == 1 else 1))
            x = 1
            for i in range(turns * scratch[0]):
                x = x * 5 + i
            words.put(scratch, 8, x)

        return mark

    return Code(f"mark_{slow_helpers}", build)


@needs_cores
@pytest.mark.parametrize("slow_helpers", [False, True])
def test_every_part_runs_once(slow_helpers: bool) -> None:
    """Also where helpers are so slow that the leader goes on alone."""
    code = _mark(slow_helpers)
    found = addresses([code, LOOP, LEAD, HELPER], detect())
    parts, inferences = [1, 4, 8, 1, 1, 3, 8, 2, 1] * 3, 30
    rows = np.cumsum([0, *parts])[:-1].astype(np.int64)
    records = np.array([(found[code.name], rows[i : i + 1].ctypes.data, count) for i, count in enumerate(parts)], np.int64)
    assert records.shape[1] == RECORD
    arena = aligned(8 * sum(parts))
    pool = Pool(1, records, Entries(*(found[c.name] for c in (LOOP, LEAD, HELPER))), arena, aligned(64), aligned(64))
    pool._scratch[0][:8] = 1, 0, 0, 0, 0, 0, 0, 0
    counts = arena.view(np.int64)
    for _ in range(inferences):
        counts[:] = 0
        pool.infer_shared()
        for row, number in zip(rows, parts, strict=True):
            got = counts[row : row + number].tolist()
            assert got in ([1] * number, [100] + [0] * (number - 1)), (row, number, got)
    pool.close()


def test_neighbouring_records_of_one_part_make_a_group() -> None:
    assert groups_of([1, 1, 4, 1, 2, 2, 1, 1]).tolist() == [[0, 2, 1], [2, 3, 4], [3, 4, 1], [4, 5, 2], [5, 6, 2], [6, 8, 1]]


def test_parts_follow_the_work() -> None:
    assert parts_for("conv2d_bits_bits", 1000, 8) == 1
    assert parts_for("conv2d_bits_bits", 10**9, 1) == 1
    assert parts_for("conv2d_bits_bits", 10**9, 2) >= 4
    assert parts_for("anything", 10**12, 10**6) <= MOST_PARTS


@pytest.mark.parametrize("op", SPECIALISED)
def test_every_kernel_of_products_has_a_rate_of_its_own(op: str) -> None:
    rates = [start for start in _WORK_PER_MICROSECOND if start]
    for signature in signatures(op):
        name = code_of(next(cases(op, signature, 1)), MACHINES["portable"]).name
        assert any(name.startswith(start) for start in rates), f"{name} is taken for an elementwise operation"


# -- their life ----------------------------------------------------------------------------------------------------------------


@needs_cores
def test_helpers_begin_with_the_first_shared_inference_and_end_with_their_engine(deep: Program, pictures: np.ndarray) -> None:
    before = threading.active_count()
    engine = Engine(deep, threads=2)
    engine.run(pictures[0])
    assert threading.active_count() == before, "one inference does not pay for a thread"
    always_shared(engine).run(pictures)
    assert threading.active_count() == before + 1
    del engine
    gc.collect()
    assert threading.active_count() == before


@needs_cores
def test_helpers_keep_off_the_core_of_the_caller(deep: Program, pictures: np.ndarray) -> None:
    engine = always_shared(Engine(deep, threads=2))
    engine.run(pictures)
    pool = engine._pool
    assert pool is not None
    allowed = os.sched_getaffinity(pool._threads[0].native_id or 0)
    assert allowed and allowed == os.sched_getaffinity(0) - {pool._core}


@needs_cores
def test_nothing_spins_while_idle(deep: Program, pictures: np.ndarray) -> None:
    engine = always_shared(Engine(deep, threads=2))
    engine.run(pictures)
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


@needs_cores
@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of forks of processes with threads, which this is about
def test_an_engine_runs_in_forked_processes(deep: Program, pictures: np.ndarray, expected: np.ndarray) -> None:
    engine = always_shared(Engine(deep, threads=2))
    np.testing.assert_array_equal(engine.run(pictures), expected)
    with multiprocessing.get_context("fork").Pool(2, _inherit, (engine, pictures)) as children:
        for result in children.map(_run_inherited, range(4)):
            np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(engine.run(pictures), expected)


_INHERITED: list[Any] = []


def _inherit(*values: Any) -> None:
    _INHERITED[:] = values


def _run_inherited(_: int) -> np.ndarray:
    engine, pictures = _INHERITED
    result: np.ndarray = engine.run(pictures)
    assert len(engine._pool._threads) == 1, "the child has helpers of its own"
    return result


@needs_cores
@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_a_child_forked_amid_inferences_runs(deep: Program, pictures: np.ndarray, expected: np.ndarray) -> None:
    engine = always_shared(Engine(deep, threads=2))
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            engine.run(pictures)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(engine.run(pictures), expected) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        worker.join()


# -- memory --------------------------------------------------------------------------------------------------------------------


def _array_bytes() -> int:
    only = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([only]).traces)


@pytest.mark.parametrize("threads", [1, 2])
def test_inferences_allocate_nothing(deep: Program, pictures: np.ndarray, threads: int) -> None:
    Engine(deep, threads=threads).run(pictures)  # kernels are loaded
    gc.collect()
    tracemalloc.start()
    try:
        before = _array_bytes()
        engine = Engine(deep, threads=threads)
        held = _array_bytes() - before
        if engine._pool is not None:
            always_shared(engine)
        engine.run(pictures)
        after = _array_bytes() - before
        for _ in range(20):
            engine.run(pictures)
        assert _array_bytes() - before == after == held, "memory grew while running"
    finally:
        tracemalloc.stop()


# -- whether they are used -----------------------------------------------------------------------------------------------------


def _simulate(seconds: Callable[[int, bool], float], inferences: int, sharing: Sharing | None = None) -> tuple[float, float]:
    """Seconds of that many inferences as `Sharing` decides, and on one thread; `seconds(i, shared)` is the machine."""
    sharing = sharing or Sharing()
    took = 0.0
    for i in range(inferences):
        one = seconds(i, sharing.shared)
        took += one
        sharing.note(one)
    return took, sum(seconds(i, False) for i in range(inferences))


def test_helpers_that_help_are_used() -> None:
    took, alone = _simulate(lambda i, shared: 0.55 if shared else 1.0, 1000)
    assert took < 0.6 * alone


@pytest.mark.parametrize("slowness", [1.05, 1.3, 2.0, 10.0])
def test_helpers_that_do_not_help_cost_little(slowness: float) -> None:
    took, alone = _simulate(lambda i, shared: slowness if shared else 1.0, 1000)
    assert took < 1.15 * alone


@pytest.mark.parametrize("seed", range(5))
def test_helpers_that_stall_now_and_then_cost_little(seed: int) -> None:
    """A core that is taken away for three inferences' time, in half the cases."""
    random = np.random.default_rng(seed).random(2000)
    took, alone = _simulate(lambda i, shared: 0.55 + 3 * (random[i] < 0.5) if shared else 1.0, 2000)
    assert took < 1.2 * alone


def test_a_core_that_becomes_busy_is_given_up_and_taken_again() -> None:
    sharing = Sharing()
    _simulate(lambda i, shared: 0.55 if shared else 1.0, 300, sharing)
    took, alone = _simulate(lambda i, shared: 4.0 if shared else 1.0, 300, sharing)
    assert took < 1.2 * alone
    took, alone = _simulate(lambda i, shared: 0.55 if shared else 1.0, 1000, sharing)
    assert took < 0.75 * alone
