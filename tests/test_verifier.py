"""The verifier: sound programs pass, and each thing that could reach foreign bytes, or hang, is refused and named."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_programs import GRAPHS, INT8, POOL, Builder, program

from edge.arena import round_up
from edge.errors import FormatError
from edge.lower import to_program
from edge.memory import aligned
from edge.ops import NO_ACTIVATION, OPS
from edge.program import Constant, Instruction, Program, Tensor
from edge.tensors import Encoding, Halo, TensorType
from edge.verifier import verify

ATTRS = tuple(NO_ACTIVATION.values())


def with_tensor(made: Program, number: int, *, offset: int | None = None, **kind: Any) -> Program:
    """`made` with a tensor changed, and an arena that fits."""
    old = made.tensors[number]
    new = Tensor(replace(old.type, **kind), old.offset if offset is None else offset)
    tensors = (*made.tensors[:number], new, *made.tensors[number + 1 :])
    return replace(made, tensors=tensors, arena_bytes=round_up(max(t.offset + t.type.nbytes for t in tensors)))


def with_constant(made: Program, number: int, **fields: Any) -> Program:
    changed = replace(made.constants[number], **fields)
    return replace(made, constants=(*made.constants[:number], changed, *made.constants[number + 1 :]))


def with_instruction(made: Program, number: int, *, attrs: Mapping[str, float] | None = None, **fields: Any) -> Program:
    old = made.instructions[number]
    values = {**old.attributes(), **(attrs or {})}
    changed = replace(old, attrs=tuple(values.values()), **fields)
    return replace(made, instructions=(*made.instructions[:number], changed, *made.instructions[number + 1 :]))


def index(made: Program, op: str) -> int:
    """The first instruction of an operation."""
    return next(i for i, instruction in enumerate(made.instructions) if instruction.definition.name == op)


def refused(made: Program, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        verify(made)


@pytest.mark.parametrize("name", GRAPHS)
def test_programs_of_sound_graphs_pass(name: str) -> None:
    verify(program(name))


def test_a_network_without_instructions_passes() -> None:
    b = Builder(0)
    verify(to_program(b.graph("identity", b.input(TensorType((4,))))))


# -- tensors, arena, constants -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"shape": (0, 3, 3)}, "no tensor shape"),
        ({"shape": (-1, -1)}, "no tensor shape"),
        ({"shape": (1 << 31, 4, 4)}, "too large"),
        ({"halo": Halo(-1, 0, 0, 0)}, "halo .* out of range"),
        ({"halo": Halo(0, 1 << 40, 0, 0)}, "halo .* out of range"),
        ({"halo": Halo(1 << 20, 1 << 20, 1 << 20, 1 << 20)}, "too large"),
        ({"scale": float("nan")}, "scale nan"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"zero_point": 300}, "zero point 300"),
        ({"offset": 32}, "offset 32 is no multiple of 64"),
        ({"offset": -64}, "offset -64"),
    ],
)
def test_tensors_out_of_bounds(kind: dict[str, Any], message: str) -> None:
    refused(with_tensor(program("digits"), 0, **kind), "tensor 0: .*" + message)


@pytest.mark.parametrize("change", [-64, 64, 1 << 33, -(1 << 40)])
def test_the_arena_ends_with_its_last_tensor(change: int) -> None:
    made = program("digits")
    refused(replace(made, arena_bytes=made.arena_bytes + change), "arena: expected")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset": 1}, "offset 1 is no multiple"),
        ({"offset": -64}, "offset -64"),
        ({"offset": 1 << 40}, "it ends at byte"),
        ({"nbytes": 0}, "at least 1 byte"),
        ({"nbytes": -5}, "at least 1 byte"),
        ({"nbytes": 1 << 40}, "it ends at byte"),
    ],
)
def test_constants_out_of_bounds(fields: dict[str, Any], message: str) -> None:
    refused(with_constant(program("digits"), 2, **fields), "constant 2: .*" + message)


def test_a_constant_with_fewer_bytes_than_its_operation_reads_is_refused() -> None:
    made = program("digits")
    used = made.instructions[1].constant("filter")
    refused(with_constant(made, used, nbytes=made.constants[used].nbytes - 8), r"instruction 1 \(conv2d\): filter has \d+ bytes, expected")


@pytest.mark.parametrize(("field", "numbers"), [("inputs", ()), ("outputs", ()), ("inputs", (99,)), ("outputs", (-1,)), ("inputs", (0, 0))])
def test_inputs_and_outputs_exist(field: str, numbers: tuple[int, ...]) -> None:
    refused(replace(program("digits"), **{field: numbers}), f"{field}: ")


def test_inputs_are_what_users_give() -> None:
    made = chain([0, 64])
    refused(with_tensor(made, 0, encoding=Encoding.BITS), "inputs: tensor 0 is bits, expected float32, uint8 or int8")


# -- instructions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [-1, 99, 1 << 62])
def test_operands_exist(number: int) -> None:
    made = program("digits")
    refused(with_instruction(made, 1, inputs=(number,)), f"instruction 1 .*tensor {number} is none")
    refused(with_instruction(made, 1, output=number), f"instruction 1 .*tensor {number} is none")
    if number != -1:
        refused(with_instruction(made, 1, constants=(number, -1, -1, -1)), f"instruction 1 .*constant {number} is none")


def test_unknown_operations_and_wrong_counts_are_refused() -> None:
    made = program("digits")
    refused(replace(made, instructions=(Instruction(99, (0,), 1),)), r"instruction 0 \(unknown\): operation 99")
    refused(with_instruction(made, 1, constants=(0,)), "expected 4 constants and 13 attributes, got 1 and 13")
    refused(replace(made, instructions=(replace(made.instructions[0], attrs=()),)), "got 4 and 0")
    refused(with_instruction(made, 1, inputs=()), "takes 1 to 1 inputs, got 0")


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"stride_h": 0}, "stride"),
        ({"stride_w": -1}, "stride"),
        ({"pad_top": -1}, "padding"),
        ({"pad_left": 1 << 40}, "padding"),
        ({"dilation_h": 0}, "dilation_h"),
        ({"groups": 0}, "groups 0"),
        ({"pad_ones": 2}, "pad_ones"),
        ({"activation": 3}, "activation 3"),
        ({"alpha": float("inf")}, "alpha"),
        ({"limit": float("nan")}, "limit"),
        ({"pad_top": 2, "pad_bottom": 0}, "halo"),
        ({"pad_top": 2}, "output is"),
        ({"activation": 1}, "a packed output takes no activation"),
    ],
)
def test_attributes_out_of_bounds(attrs: dict[str, float], message: str) -> None:
    refused(with_instruction(program("digits"), 1, attrs=attrs), r"instruction 1 \(conv2d\): .*" + message)


def test_a_window_beyond_the_halo_is_refused() -> None:
    made = program("digits")
    source = made.instructions[1].inputs[0]
    refused(with_tensor(made, source, halo=Halo(1, 1, 1, 0)), "is narrower than")


def test_roles_that_do_not_belong_are_refused() -> None:
    made = program("digits")
    swapped = made.instructions[1].constants[::-1]
    refused(with_instruction(made, 1, constants=swapped), r"instruction 1 \(conv2d\): filter must have 4 axes")
    refused(with_instruction(made, 1, constants=(made.instructions[1].constants[0], -1, -1, -1)), "a threshold belongs to packed outputs")


def test_a_filter_value_of_minus_128_is_safe() -> None:
    b = Builder(0)
    x = b.add("quantize", b.input(TensorType((4,))), output=TensorType((4,), INT8, 0.1))
    weights = {"filter": np.full((3, 1, 1, 4), -128, np.int8), "scale": np.ones(3, np.float32)}
    verify(to_program(b.graph("low", b.add("dense", x, output=TensorType((1,)), constants=weights, **NO_ACTIVATION))))


def test_sums_that_overflow_are_refused() -> None:
    b = Builder(0)
    x = b.add("quantize", b.input(TensorType((258, 258, 1))), output=TensorType((1,), INT8, 0.1))
    window = {**POOL, "window_h": 258, "window_w": 258}
    made = to_program(b.graph("pool", b.add("average_pool2d", x, **{**window, "window_h": 250})))
    refused(with_instruction(with_tensor(made, 2, shape=(1, 1, 1)), 1, attrs={"window_h": 258}), "may overflow")


# -- overlap and order ---------------------------------------------------------------------------------------------------------


def chain(offsets: list[int], op: str = "activation", size: int = 16) -> Program:
    """Operations one after the other, tensors of `size` float32 at `offsets`."""
    tensors = tuple(Tensor(TensorType((size,)), offset) for offset in offsets)
    attrs = ATTRS if OPS[op].attrs else ()
    constants = (-1,) * len(OPS[op].constants)
    steps = tuple(Instruction(OPS[op].number, (i,), i + 1, constants, attrs) for i in range(len(offsets) - 1))
    return Program(tensors, (), steps, (0,), (len(offsets) - 1,), round_up(max(offsets) + 4 * size), aligned(0))


def test_an_output_lies_on_an_input_only_where_the_operation_allows_it() -> None:
    verify(chain([0, 0, 0]))
    refused(chain([0, 64, 0], size=32), r"instruction 0 \(activation\): the output lies on input 0")
    pool = Builder(0)
    x = pool.input(TensorType((4, 4, 4)))
    made = to_program(pool.graph("pool", pool.add("max_pool2d", x, **{**POOL, "window_h": 1, "window_w": 1, "stride_h": 1, "stride_w": 1})))
    verify(made)
    refused(with_tensor(made, 1, offset=0), "the output lies on input 0")


def test_an_add_may_not_lie_on_its_second_input() -> None:
    b = Builder(0)
    x, y = b.input(TensorType((16,))), b.input(TensorType((16,)))
    made = to_program(b.graph("add", b.add("add", x, y, **NO_ACTIVATION)))
    verify(made)
    assert made.tensors[2].offset == made.tensors[0].offset
    refused(with_tensor(made, 2, offset=made.tensors[1].offset), "the output lies on input 1")


def test_an_output_in_place_may_have_no_halo() -> None:
    made = chain([0, 0])
    with_halo = with_tensor(with_tensor(made, 0, shape=(4, 4, 1), halo=Halo(0, 1, 0, 0)), 1, shape=(4, 4, 1), halo=Halo(0, 1, 0, 0))
    refused(with_halo, "the output lies on input 0")


def test_a_tensor_is_read_only_while_it_is_whole() -> None:
    made = chain([0, 64, 128])
    verify(made)
    refused(replace(made, instructions=made.instructions[::-1]), r"instruction 0 .*tensor 1 is read before it is written")
    refused(
        replace(made, outputs=(0, 2), tensors=(*made.tensors[:2], Tensor(made.tensors[2].type, 0)), arena_bytes=128), "outputs: tensor 0"
    )
    refused(replace(made, instructions=made.instructions[:1]), "outputs: tensor 2 is read before it is written")
    refused(replace(made, instructions=(made.instructions[0], made.instructions[0])), "tensor 1 is written twice")
    refused(replace(made, instructions=(replace(made.instructions[0], output=0),)), "tensor 0 is written twice")
    refused(replace(made, inputs=(0, 1), tensors=(made.tensors[0], made.tensors[0], made.tensors[2])), "inputs: tensor 0")


def _sound(offsets: list[int], size: int, reads: list[int]) -> bool:
    """The same question asked byte by byte: step i reads tensor reads[i] and writes tensor i + 1, apart from it or exactly over it."""
    places = [slice(offset, offset + size) for offset in offsets]
    owner = np.full(max(offsets) + size, -1)
    owner[places[0]] = 0
    for step, source in enumerate(reads):
        whole = (owner[places[source]] == source).all()
        owner[places[step + 1]] = step + 1
        partly = 0 < (owner[places[source]] == source).sum() < size
        if source > step or not whole or partly:
            return False
    return bool((owner[places[-1]] == len(reads)).all())


_READS = st.lists(st.integers(0, 3), min_size=1, max_size=8).map(lambda back: [max(0, i - b) for i, b in enumerate(back)])


@given(_READS, st.lists(st.integers(0, 7), min_size=9, max_size=9))
def test_the_order_agrees_with_a_simulation_byte_by_byte(reads: list[int], places: list[int]) -> None:
    """Tensors of 128 bytes at multiples of 64, so that they lie apart, partly and exactly over each other."""
    offsets = [64 * place for place in places[: len(reads) + 1]]
    made = chain(offsets, size=32)
    steps = tuple(replace(step, inputs=(source,)) for step, source in zip(made.instructions, reads, strict=True))
    try:
        verify(replace(made, instructions=steps))
        accepted = True
    except FormatError:
        accepted = False
    assert accepted == _sound(offsets, 128, reads)


# -- work and text -------------------------------------------------------------------------------------------------------------


def test_work_is_bounded() -> None:
    b = Builder(0)
    x = b.input(TensorType((2000, 2000, 8)))
    pool = {
        "window_h": 999,
        "window_w": 999,
        "stride_h": 1,
        "stride_w": 1,
        "pad_top": 499,
        "pad_bottom": 499,
        "pad_left": 499,
        "pad_right": 499,
    }
    refused(
        to_program(b.graph("slow", b.add("max_pool2d", x, **pool))),
        r"instruction 0 \(max_pool2d\): the work up to here, \d+ bytes, exceeds",
    )


def test_as_many_records_as_a_file_can_hold_are_verified_quickly() -> None:
    made = chain([64 * (i % 2) for i in range(1 << 14)])
    started = time.perf_counter()
    verify(made)
    assert time.perf_counter() - started < 10


def test_a_constant_of_two_billion_channels_is_refused_quickly() -> None:
    made = program("digits")
    number = made.instructions[7].constant("filter")
    huge = replace(made.constants[number].type, shape=(1 << 31, 1, 1, 64))
    refused(with_constant(made, number, type=huge), "filter has an absurd shape")
    refused(with_constant(made, number, type=replace(huge, shape=(1 << 31, 1, 1, 1))), "filter covers")


def test_constants_may_share_bytes() -> None:
    made = program("residual")
    used = [number for number in made.instructions[0].constants if number >= 0]
    shared = Constant(made.constants[used[0]].type, made.constants[used[1]].offset, made.constants[used[0]].nbytes)
    verify(with_constant(made, used[0], offset=shared.offset))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"inputs": "x"}, "inputs must be a list"),
        ({"inputs": ["a", "b"]}, "inputs must be a list with a name for each"),
        ({"tensors": ["a"]}, "tensors must be a list with a name for each"),
        ({"name": 3}, "name must be a text"),
        ({"labels": "cat"}, "labels must be a list of names"),
        ({"labels": [1]}, "labels must be a list of names"),
        ({"labels": None}, None),
        ({"outputs": ["a"]}, "outputs must be a list of objects"),
        ({"outputs": [{"name": 3}]}, "outputs must be a list of objects"),
        ({"outputs": []}, None),
        ({"labels": ["a\x1b[31m"]}, "control characters"),
        ({"deep": [{"key\x00": 1}]}, "control characters"),
        ({"notes": {"layer": "two\nlines"}}, None),
    ],
)
def test_metadata_have_the_types_that_readers_expect(metadata: dict[str, Any], message: str | None) -> None:
    made = replace(program("digits"), metadata=metadata)
    if message is None:
        verify(made)
    else:
        refused(made, "metadata: " + message if "must" in message else message)


def test_layer_names_belong_to_instructions() -> None:
    refused(replace(program("digits"), layers=(("a",),)), "layer names: expected names for 9 instructions, got them for 1")
