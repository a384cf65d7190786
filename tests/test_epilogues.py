"""What `fuse_epilogues` takes into a convolution, what it leaves, and that no value changes: in the reference, in the engine, in a file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_programs import BITS, FLOAT32, INT8, PADDING, RELU, Builder, bits_type, float_type, int8_type

from edge.converters.passes_epilogue import fuse_epilogues, fuse_quantize
from edge.engine import Engine
from edge.errors import FormatError
from edge.format import from_bytes, to_bytes
from edge.graph import Graph
from edge.kernels.reference import run_graph
from edge.lower import to_program
from edge.ops import NO_ACTIVATION, Activation
from edge.tensors import Encoding, TensorType
from edge.verifier import verify

LEAKY = {"activation": int(Activation.LEAKY_RELU), "alpha": 0.25}
PLAIN = dict(NO_ACTIVATION)


def block(
    steps: tuple[str, ...], *, channels: int = 24, stored: Encoding = BITS, seed: int = 0, outputs: tuple[str, ...] = ("sum",)
) -> Graph:
    """signs -> conv 3x3 -> `steps` in order; `outputs` of "sum" (what stands before the sign) and "sign"."""
    b = Builder(seed)
    x = b.input(TensorType((5, 6, channels), FLOAT32))
    source = b.add("binarize", x, output=bits_type()) if stored is BITS else x
    activation = {"relu": RELU, "leaky": LEAKY}.get(steps[0] if steps else "", {})
    y = b.conv(source, channels, (3, 3), stored=stored, output=float_type(), **PADDING, **{**PLAIN, **activation})
    sign = ""
    for step in steps:
        if step == "prelu":
            y = b.add("prelu", y, constants={"slope": b.vector(channels)})
        elif step == "norm":
            y = b.add("affine", y, constants={"mul": b.vector(channels), "add": b.vector(channels)}, **PLAIN)
        elif step in ("add", "add_relu"):
            y = b.add("add", x, y, **{**PLAIN, **(RELU if step == "add_relu" else {})})
        elif step == "sign":
            sign = b.add("binarize", y, output=bits_type(), constants={"mul": b.vector(channels), "add": b.vector(channels)})
    found = {"sum": y, "sign": b.add("unpack", sign, output=float_type()) if sign else ""}
    return b.graph("block", *(found[name] for name in outputs))


def operations(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def example(graph: Graph, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=graph.types[graph.inputs[0]].shape).astype(np.float32)


def assert_same(before: Graph, after: Graph, seed: int = 1) -> None:
    x = example(before, seed)
    want, got = (run_graph(graph, {graph.inputs[0]: x}) for graph in (before, after))
    for first, second in zip(before.outputs, after.outputs, strict=True):
        assert np.array_equal(want[first], got[second], equal_nan=True)


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        (("norm", "add"), ("sum",)),
        (("relu", "norm", "add", "sign"), ("sum", "sign")),
        (("leaky", "norm", "add_relu", "sign"), ("sum", "sign")),
        (("prelu", "norm", "add", "sign"), ("sign",)),
        (("prelu", "sign"), ("sign",)),
        (("sign",), ("sum", "sign")),
        (("add",), ("sum",)),
        (("prelu",), ("sum",)),
    ],
)
def test_all_that_follows_becomes_one_operation(steps: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    before = block(steps, outputs=outputs)
    after = fuse_epilogues(before).verify()
    assert operations(after) == ["binarize", "residual_conv2d", *(["unpack"] if "sign" in outputs else [])]
    fused = after.nodes[1]
    assert len(fused.inputs) == 1 + ("add" in "".join(steps))
    stored = after.types[fused.output].encoding
    assert stored is (FLOAT32 if "sum" in outputs else BITS) and bool(fused.signs) == (len(outputs) == 2)
    assert_same(before, after)
    assert fuse_epilogues(after).text() == after.text()


@pytest.mark.parametrize("stored", [BITS, INT8])
def test_a_result_that_is_only_quantized_is_stored_so(stored: Encoding) -> None:
    b = Builder(6)
    x = b.input(TensorType((5, 6, 16), FLOAT32))
    source = b.add("binarize", x, output=bits_type()) if stored is BITS else b.add("quantize", x, output=int8_type())
    y = b.conv(source, 24, (3, 3), stored=stored, output=float_type(), **PADDING, **{**PLAIN, **RELU})
    before = b.graph("eight", b.add("dequantize", b.add("quantize", y, output=int8_type(0.03, -7)), output=float_type()))
    after = fuse_quantize(before).verify()
    assert operations(after)[1:] == ["conv2d", "dequantize"] and after.types[after.nodes[1].output].encoding is INT8
    assert_same(before, after)
    assert np.array_equal(Engine(to_program(after)).run(example(before)), Engine(to_program(before)).run(example(before)))


def test_a_plain_convolution_stays() -> None:
    before = block(("relu",))
    assert fuse_epilogues(before).text() == before.text()


def test_float_convolutions_are_fused_too() -> None:
    before = block(("relu", "norm", "add", "sign"), stored=FLOAT32, outputs=("sum", "sign"))
    after = fuse_epilogues(before).verify()
    assert operations(after) == ["residual_conv2d", "unpack"]
    assert_same(before, after)


def test_what_others_read_is_not_swallowed() -> None:
    """The convolution's own result is read twice: only its sign may be taken along."""
    b = Builder(3)
    x = b.input(TensorType((4, 4, 16), FLOAT32))
    y = b.conv(b.add("binarize", x, output=bits_type()), 16, (1, 1), stored=BITS, output=float_type())
    z = b.add("add", y, x, **PLAIN)
    before = b.graph("twice", z, b.add("add", z, y, **PLAIN))
    assert "residual_conv2d" not in operations(fuse_epilogues(before))


def test_a_sum_with_itself_and_a_bounded_sum_stay() -> None:
    b = Builder(3)
    x = b.input(TensorType((4, 4, 16), FLOAT32))
    y = b.conv(b.add("binarize", x, output=bits_type()), 16, (1, 1), stored=BITS, output=float_type())
    doubled = b.add("add", y, y, **PLAIN)
    z = b.conv(b.add("binarize", doubled, output=bits_type()), 16, (1, 1), stored=BITS, output=float_type())
    before = b.graph("sums", b.add("add", z, doubled, **{**PLAIN, **RELU, "limit": 6.0}))
    after = fuse_epilogues(before).verify()
    assert [op for op in operations(after) if op == "add"] == ["add", "add"]
    assert_same(before, after)


def test_groups_that_are_no_whole_bytes_give_no_signs() -> None:
    b = Builder(4)
    x = b.input(TensorType((4, 4, 24), FLOAT32))
    y = b.conv(x, 12, (1, 1), stored=FLOAT32, output=float_type(), groups=3)
    before = b.graph("groups", b.add("unpack", b.add("binarize", y, output=bits_type()), output=float_type()))
    assert operations(fuse_epilogues(before)) == ["conv2d", "binarize", "unpack"]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["norm", "add", "sign"]), unique=True),
    st.sampled_from(["relu", "leaky", "prelu", "none"]),
    st.sampled_from([16, 40]),
    st.sampled_from([("sum",), ("sign",), ("sum", "sign")]),
    st.integers(0, 1000),
)
def test_the_engine_gives_what_the_parts_give(rest: list[str], first: str, channels: int, outputs: tuple[str, ...], seed: int) -> None:
    steps = (first, *sorted(rest, key=["norm", "add", "sign"].index))
    outputs = tuple(name for name in outputs if name == "sum" or "sign" in steps) or ("sum",)
    before = block(steps, channels=channels, seed=seed, outputs=outputs)
    program = from_bytes(to_bytes(to_program(fuse_epilogues(before))))
    verify(program)
    x = example(before, seed)
    want = run_graph(before, {before.inputs[0]: x})
    got = Engine(program, guard=True).run(x)
    for name, found in zip(before.outputs, got if isinstance(got, list) else [got], strict=True):
        assert np.array_equal(want[name], found, equal_nan=True)


def test_the_sum_is_written_over_the_input_it_is_added_to() -> None:
    """The stream of a residual network takes the bytes of one tensor."""
    b = Builder(5)
    x = stream = b.input(TensorType((6, 6, 32), FLOAT32))
    for _ in range(4):
        packed = b.add("binarize", stream, output=bits_type())
        stream = b.add("add", b.conv(packed, 32, (3, 3), stored=BITS, output=float_type(), **PADDING), stream, **PLAIN)
    program = to_program(fuse_epilogues(b.graph("stream", stream)))
    streams = {tensor.offset for tensor in program.tensors if tensor.type.encoding is FLOAT32}
    assert len(streams) == 1, "expected every sum where the input lies"
    assert x == "input0"


# -- files that ask for what there is not -----------------------------------------------------------------------------------------


def fused_program() -> object:
    return to_program(fuse_epilogues(block(("norm", "add", "sign"), outputs=("sum", "sign"))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: {"signs": i.output}, "second output"),
        (lambda i: {"signs": i.inputs[0]}, "second output"),
        (lambda i: {"signs": 99}, "tensor 99"),
        (lambda i: {"signs": -2}, "tensor -2"),
        (lambda i: {"inputs": (i.inputs[0], i.signs)}, "second input"),
        (lambda i: {"inputs": (i.inputs[0],) * 3}, "takes 1 to 2 inputs"),
        (lambda i: {"attrs": (*i.attrs[:-1], 2)}, "relu_after"),
        (lambda i: {"signs": -1}, "need an output of bits"),
    ],
)
def test_unsound_epilogues_are_refused_by_number(change: object, message: str) -> None:
    program = fused_program()
    number = next(n for n, i in enumerate(program.instructions) if i.definition.name == "residual_conv2d")
    instructions = list(program.instructions)
    instructions[number] = replace(instructions[number], **change(instructions[number]))
    with pytest.raises(FormatError, match=f"instruction {number} .*{message}"):
        verify(replace(program, instructions=tuple(instructions)))


def test_a_second_output_belongs_to_this_operation_alone() -> None:
    program = to_program(block(("norm",)))
    with pytest.raises(FormatError, match="gives one output"):
        changed = [replace(i, signs=2) if i.definition.name == "conv2d" else i for i in program.instructions]
        verify(replace(program, instructions=tuple(changed)))


def test_files_with_the_new_operations_say_so() -> None:
    """A reader that knows version 1.0 alone understands files without them."""
    old, new = to_bytes(to_program(block(("norm",)))), to_bytes(fused_program())
    assert (old[12], new[12]) == (0, 1)
