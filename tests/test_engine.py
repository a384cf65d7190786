"""The engine: what it takes, gives and holds, and that several threads may share one."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.engine import Engine
from edge.errors import FormatError, InputError
from edge.format import write
from edge.graph import Graph, Node
from edge.kernels import isa
from edge.kernels.bitpack import signs
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.ops import NO_ACTIVATION
from edge.program import Program
from edge.tensors import Encoding, TensorType

CONV = {
    "stride_h": 1, "stride_w": 1, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1,
    "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, **NO_ACTIVATION,
}  # fmt: skip


def small_graph(seed: int = 0) -> Graph:
    """Bytes - packed convolution by thresholds - packed convolution to floats - dense to 5 scores."""
    random = np.random.default_rng(seed)
    nodes = (
        Node("conv2d", ("x",), "a", CONV, {
            "filter": random.integers(-127, 128, (24, 3, 3, 2)).astype(np.int8),
            "threshold": random.integers(-9000, 9000, 24).astype(np.int32),
        }, ("first",)),
        Node("conv2d", ("a",), "b", CONV, {
            "filter": random.random((40, 3, 3, 24)) < 0.5,
            "threshold": random.integers(-20, 20, 40).astype(np.int32),
        }, ("second", "norm")),
        Node("dense", ("b",), "y", NO_ACTIVATION, {
            "filter": random.random((5, 9, 7, 40)) < 0.5,
            "scale": random.random(5).astype(np.float32),
            "bias": random.normal(size=5).astype(np.float32),
        }, ("scores",)),
    )  # fmt: skip
    types = {
        "x": TensorType((9, 7, 2), Encoding.UINT8),
        "a": TensorType((9, 7, 24), Encoding.BITS),
        "b": TensorType((9, 7, 40), Encoding.BITS),
        "y": TensorType((5,)),
    }
    return Graph("small", ("x",), ("y",), nodes, types, ("scores",))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_graph()


@pytest.fixture(scope="module")
def program(graph: Graph) -> Program:
    return to_program(graph)


@pytest.fixture(scope="module")
def engine(program: Program) -> Engine:
    return Engine(program)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (6, 9, 7, 2), dtype=np.uint8)


def test_a_batch_equals_the_reference(graph: Graph, engine: Engine, pictures: np.ndarray) -> None:
    expected = np.stack([run_graph(graph, {"x": picture})["y"] for picture in pictures])
    np.testing.assert_array_equal(engine.run(pictures), expected)


def test_one_example_comes_back_without_the_batch_axis(engine: Engine, pictures: np.ndarray) -> None:
    np.testing.assert_array_equal(engine.run(pictures[2]), engine.run(pictures)[2])


def test_an_empty_batch_gives_an_empty_answer(engine: Engine) -> None:
    assert engine.run(np.zeros((0, 9, 7, 2), np.uint8)).shape == (0, 5)


def test_whole_floats_are_pixels_and_others_are_refused(engine: Engine, pictures: np.ndarray) -> None:
    np.testing.assert_array_equal(engine.run(pictures.astype(np.float32)), engine.run(pictures))
    for wrong in (pictures / 255.0, pictures - 300.0, np.full(pictures.shape, np.nan)):
        with pytest.raises(InputError, match="whole numbers from 0 to 255"):
            engine.run(wrong)


@pytest.mark.parametrize(
    "wrong", [np.zeros((9, 7, 3)), np.zeros((1, 7, 9, 2)), np.zeros(4), np.array("text"), np.array(None), [[1, 2], [3]]]
)
def test_arrays_that_do_not_fit_are_refused(engine: Engine, wrong: object) -> None:
    with pytest.raises(InputError, match="does not fit"):
        engine.run(wrong)


@pytest.mark.slow  # compiles a network for each; the kernels by themselves are tried on all of them in the other tests
def test_every_instruction_set_gives_the_same_bits(program: Program, engine: Engine, pictures: np.ndarray) -> None:
    expected = engine.run(pictures)
    for available in isa.available():
        np.testing.assert_array_equal(Engine(program, machine=isa.detect(available.name)).run(pictures), expected)


def test_no_weight_buffer_is_allocated(program: Program) -> None:
    """The constants are used where they are; what is derived from them is small."""
    engine = Engine(program)
    assert np.shares_memory(engine._constants, program.blob)
    assert engine.footprint.constants_bytes == program.blob.nbytes


def test_footprint_is_what_the_engine_holds(engine: Engine, program: Program) -> None:
    footprint = engine.footprint
    assert footprint.arena_bytes == program.arena_bytes == engine._arena.nbytes
    assert footprint.scratch_bytes == engine._scratch.nbytes
    assert footprint.argument_bytes == engine._arguments.nbytes + engine._records.nbytes
    assert footprint.derived_bytes == engine._derived.nbytes and footprint.thread_bytes == 0


def test_inputs_and_outputs_are_described(engine: Engine) -> None:
    assert [(t.shape, t.dtype) for t in engine.inputs] == [((9, 7, 2), "uint8")]
    assert [(t.name, t.shape, t.dtype) for t in engine.outputs] == [("scores", (5,), "float32")]


def test_a_trace_holds_every_tensor(graph: Graph, engine: Engine, pictures: np.ndarray) -> None:
    expected = run_graph(graph, {"x": pictures[0]})
    steps = engine.trace(pictures[0])
    assert [step.layers for step in steps] == [("first",), ("second", "norm"), ("scores",)]
    for step, tensor in zip(steps, ("a", "b", "y"), strict=True):
        wanted = expected[tensor] if expected[tensor].dtype == np.float32 else signs(expected[tensor])
        np.testing.assert_array_equal(step.output, wanted)
        assert step.seconds > 0
    with pytest.raises(InputError, match="one example"):
        engine.trace(pictures)


def test_times_are_given_for_every_instruction(engine: Engine, pictures: np.ndarray) -> None:
    seconds = engine.times(pictures[0], repeats=3)
    assert seconds.shape == (3, 3)
    assert (seconds > 0).all()


def test_fewer_than_one_thread_or_repeat_is_refused(program: Program, engine: Engine, pictures: np.ndarray) -> None:
    for count in (0, -1):
        with pytest.raises(InputError, match=f"threads should be 1 or more, got {count}"):
            Engine(program, threads=count)
        with pytest.raises(InputError, match=f"repeats should be 1 or more, got {count}"):
            engine.times(pictures[0], count)


@pytest.mark.parametrize("given", [b"EDGE content", bytearray(9), 7, None, ["model.edge"]])
def test_what_is_no_path_is_refused_without_its_content(given: object) -> None:
    with pytest.raises(InputError, match=f"expected the path of a file, got {type(given).__name__};") as error:
        edge.load(given)  # type: ignore[arg-type]
    assert "content" not in str(error.value)


def test_one_engine_in_two_threads_is_right(engine: Engine, pictures: np.ndarray) -> None:
    expected = engine.run(pictures)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            picture = np.random.default_rng(number).integers(len(pictures))
            if not np.array_equal(engine.run(pictures[picture]), expected[picture]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_is_loaded_copied_or_mapped(program: Program, engine: Engine, pictures: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "small.edge"
    write(program, path)
    for mapped in (False, True):
        np.testing.assert_array_equal(edge.load(path, mmap=mapped).run(pictures), engine.run(pictures))


def test_a_file_that_is_rewritten_does_not_change_a_loaded_engine(
    program: Program, engine: Engine, pictures: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "small.edge"
    write(program, path)
    loaded = edge.load(path)
    path.write_bytes(bytes(path.stat().st_size))
    np.testing.assert_array_equal(loaded.run(pictures), engine.run(pictures))


def test_a_program_that_reaches_outside_is_refused_before_it_runs(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "small.edge"
    write(replace(program, arena_bytes=program.arena_bytes - 64), path)
    with pytest.raises(FormatError):
        edge.load(path)


def test_a_program_that_asks_for_more_memory_than_there_is(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    path = tmp_path / "small.edge"
    write(program, path)
    monkeypatch.setattr(Engine, "_allocate_arena", no_memory)
    with pytest.raises(FormatError, match="does not fit in memory"):
        edge.load(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of forks of processes with threads
def test_a_process_forked_while_another_thread_runs_the_engine_does_not_wait_for_it(engine: Engine, pictures: np.ndarray) -> None:
    expected = engine.run(pictures)
    with engine._lock:  # held, as by a thread inside an inference, at the moment of the fork
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends the child if it waits
            os._exit(0 if np.array_equal(engine.run(pictures), expected) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(engine.run(pictures), expected)
