"""The arena plan and the lowering of a graph to a program."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_programs import CONV, FLOAT32, GRAPHS, PADDING, Builder, bits_type, float_type

from edge.arena import Lifetime, plan
from edge.errors import ModelError
from edge.lower import to_program, with_halos
from edge.ops import NO_ACTIVATION
from edge.program import Program
from edge.tensors import Halo, TensorType

_LIFE = st.tuples(st.integers(-1, 20), st.integers(0, 8)).map(lambda pair: Lifetime(pair[0], pair[0] + pair[1]))
_TENSORS = st.lists(st.tuples(st.integers(1, 1000), _LIFE), max_size=25)


@given(_TENSORS)
def test_tensors_alive_together_never_share_bytes(tensors: list[tuple[int, Lifetime]]) -> None:
    sizes, lives = [size for size, _ in tensors], [life for _, life in tensors]
    offsets, total = plan(sizes, lives)
    for i, j in itertools.combinations(range(len(tensors)), 2):
        if lives[i].overlaps(lives[j]):
            assert offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
    assert all(offset % 64 == 0 and offset + size <= total for offset, size in zip(offsets, sizes, strict=True))


@given(_TENSORS)
def test_the_peak_is_at_least_what_is_alive_and_at_most_everything(tensors: list[tuple[int, Lifetime]]) -> None:
    sizes, lives = [size for size, _ in tensors], [life for _, life in tensors]
    _, total = plan(sizes, lives)
    alive = [sum(size for size, life in tensors if life.first <= now <= life.last) for now in range(-1, 30)]
    assert max(alive) <= total <= sum(-(-size // 64) * 64 for size in sizes)


@given(_TENSORS)
def test_the_plan_is_deterministic(tensors: list[tuple[int, Lifetime]]) -> None:
    sizes, lives = [size for size, _ in tensors], [life for _, life in tensors]
    assert plan(sizes, lives) == plan(list(sizes), list(lives))


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12))
def test_a_chain_in_place_takes_the_bytes_of_one_tensor(readers: list[int]) -> None:
    lives = [Lifetime(i, i + 1) for i in range(len(readers))]
    offsets, total = plan([100] * len(readers), lives, in_place={i + 1: i for i in range(len(readers) - 1)})
    assert set(offsets) == {0} and total == 128


@pytest.mark.parametrize(("sizes", "last"), [((100, 101), 1), ((100, 100), 2)])
def test_tensors_that_cannot_share_are_refused(sizes: tuple[int, int], last: int) -> None:
    with pytest.raises(ValueError, match="tensor 1 cannot be written over tensor 0"):
        plan(sizes, [Lifetime(0, last), Lifetime(1, 3)], in_place={1: 0})


@pytest.mark.parametrize("name", GRAPHS)
def test_a_program_needs_less_than_all_tensors_together(name: str) -> None:
    program = to_program(GRAPHS[name]())
    assert program.arena_bytes < 0.75 * sum(tensor.type.nbytes for tensor in program.tensors)


def _offsets(program: Program) -> list[int]:
    return [tensor.offset for tensor in program.tensors]


def test_an_operation_in_place_writes_over_its_dead_input() -> None:
    b = Builder(0)
    x = b.add("softmax", b.add("activation", b.input(TensorType((8,))), **NO_ACTIVATION))
    program = to_program(b.graph("chain", x))
    assert _offsets(program) == [0, 0, 0] and program.arena_bytes == 64


def test_nothing_is_written_over_a_tensor_that_is_read_again() -> None:
    b = Builder(0)
    x = b.input(TensorType((8,)))
    once, twice = b.add("softmax", x), b.add("activation", x, **NO_ACTIVATION)
    program = to_program(b.graph("fork", once, twice))
    assert len(set(_offsets(program))) == 2 and _offsets(program)[1] != _offsets(program)[0]


def test_a_tensor_added_to_itself_is_kept() -> None:
    b = Builder(0)
    x = b.input(TensorType((8,)))
    program = to_program(b.graph("double", b.add("add", x, x, **NO_ACTIVATION)))
    assert _offsets(program)[0] != _offsets(program)[1]


def test_a_halo_is_the_largest_that_a_reader_needs() -> None:
    b = Builder(0)
    x = b.input(TensorType((9, 9, 2)))
    outputs = [b.conv(x, 2, (3, 3), stored=FLOAT32, output=float_type(), **{**PADDING, "pad_left": 2})]
    outputs.append(b.conv(x, 2, (5, 1), stored=FLOAT32, output=float_type(), pad_top=2, pad_bottom=2))
    graph = with_halos(b.graph("two readers", *outputs))
    assert graph.types[x].halo == Halo(2, 2, 2, 1)
    assert not any(graph.types[name].halo for name in outputs)


@pytest.mark.parametrize(("stride", "halo"), [(2, Halo(0, 1, 0, 1)), (3, Halo())])
def test_padding_that_no_window_reaches_gives_no_halo(stride: int, halo: Halo) -> None:
    b = Builder(0)
    x = b.input(TensorType((4, 4, 1)))
    y = b.conv(x, 1, (3, 3), stored=FLOAT32, output=float_type(), stride_h=stride, stride_w=stride, pad_bottom=1, pad_right=1)
    assert with_halos(b.graph("stride", y)).types[x].halo == halo


def test_equal_constants_are_stored_once() -> None:
    b = Builder(0)
    x = b.input(TensorType((6, 6, 3)))
    weights = b.values(FLOAT32, (4, 1, 1, 3))
    ones = {"mul": np.ones(4, np.float32), "add": np.ones(4, np.float32)}
    y = b.add("conv2d", x, output=float_type(), constants={"filter": weights}, **CONV)
    z = b.add("conv2d", x, output=float_type(), constants={"filter": weights.copy()}, **CONV)
    packed = b.add("binarize", b.add("add", y, z, **NO_ACTIVATION), constants=ones, output=bits_type())
    program = to_program(b.graph("twins", packed))
    assert len(program.constants) == 2 and program.blob.nbytes == 64 + 16  # the second starts on a boundary of 64


def test_scales_and_attributes_are_rounded_to_float32() -> None:
    b = Builder(0)
    x = b.input(TensorType((4,), scale=1.0))
    program = to_program(b.graph("relu", b.add("activation", x, activation=1, alpha=0.1, limit=1e300)))
    assert program.instructions[0].attrs == (1, float(np.float32(0.1)), float("inf"))


def test_weights_that_are_not_finite_are_refused() -> None:
    b = Builder(0)
    x = b.input(TensorType((4,)))
    y = b.add("affine", x, constants={"mul": np.array([1, np.nan, 1, 1], np.float32)}, **NO_ACTIVATION)
    with pytest.raises(ModelError, match="its mul holds values that are not finite"):
        to_program(b.graph("broken", y))


def test_metadata_names_inputs_and_outputs() -> None:
    metadata = to_program(GRAPHS["residual"](), {"name": "mine", "labels": ["a"]}).metadata
    assert metadata["name"] == "mine" and metadata["labels"] == ["a"] and metadata["inputs"] == ["input0"]
    assert len(metadata["outputs"]) == 2 and all(set(output) == {"name"} for output in metadata["outputs"])
