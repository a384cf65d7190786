"""Every kernel against the reference, on every instruction set this machine has, in fenced memory; how parts split; what objects hold.

A failure prints the case; `case(op, signature, seed, given)` of `strategies` makes it again. Default runs sample; slow ones take all.
"""

from __future__ import annotations

import functools
import struct
import zlib

import llvmlite.binding as llvm
import numpy as np
import pytest
from draws import Signature, program_of
from fenced import fenced
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import BEST, MACHINES, SIGNATURES, cases, check, code_of, name_of, seeds
from kernel_runs import Run, agreeing, expected, tolerance
from strategies import CASES, SPECIALISED, case, signatures

from edge.engine import Engine
from edge.kernels import cache
from edge.kernels.arithmetic import dequantize
from edge.kernels.build import assembly
from edge.kernels.cache import KERNEL, addresses
from edge.kernels.isa import ISAS, Machine
from edge.kernels.loop import LOOP
from edge.kernels.move import lower_halo
from edge.kernels.registry import Code, Place, kernels
from edge.kernels.tile import has_fma
from edge.ops import OPS
from edge.tensors import Encoding, Halo, TensorType

ALLOWED_SYMBOLS = {"memcpy", "memmove", "memset"}

# -- the reference -------------------------------------------------------------------------------------------------------------


def test_every_operation_has_cases_and_a_kernel() -> None:
    assert set(CASES) == set(OPS)
    without = [op for op in OPS if not kernels(op)]
    assert not without, f"no kernel runs {without}"


@pytest.mark.parametrize(("op", "signature"), SIGNATURES, ids=name_of)
def test_agrees_with_the_reference(op: str, signature: Signature) -> None:
    for seed, one in enumerate(cases(op, signature, seeds(op))):
        check(one, MACHINES[BEST], at_end=seed % 2 == 0)


# Sets that compile most operations to the code of another one are left to the slow tests.
OTHERS = [(isa, op) for isa in MACHINES for op in OPS if isa not in (BEST, "portable") and (op in SPECIALISED or isa != "avx512")]


@pytest.mark.parametrize(("isa", "op"), OTHERS)
def test_agrees_on_other_instruction_sets(isa: str, op: str) -> None:
    choices = signatures(op)
    chosen = zlib.crc32(f"{isa} {op}".encode())
    for seed, one in enumerate(cases(op, choices[chosen % len(choices)], 1 if op in SPECIALISED else 2)):
        check(one, MACHINES[isa], at_end=(chosen + seed) % 2 == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("op", "signature"), SIGNATURES, ids=name_of)
@pytest.mark.parametrize("isa", MACHINES)
def test_agrees_everywhere(isa: str, op: str, signature: Signature) -> None:
    for variant in (1, 2) if op in SPECIALISED else (1,):
        for seed, one in enumerate(cases(op, signature, max(8, 2 * seeds(op)), variant)):
            check(one, MACHINES[isa], at_end=seed % 2 == 0)


@functools.cache
def cheap_signatures() -> list[tuple[str, Signature]]:
    """Operations whose few kernels fit all shapes."""
    return [(op, signature) for op, signature in SIGNATURES if op not in (*SPECIALISED, "max_pool2d", "average_pool2d")]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(cheap_signatures()), st.integers(0, 2**32 - 1), st.booleans())
def test_random_cases_agree(kind: tuple[str, Signature], seed: int, at_end: bool) -> None:
    check(case(*kind, seed), MACHINES[BEST], at_end=at_end)


@pytest.mark.parametrize("op", [op for op in OPS if OPS[op].in_place >= 0])
def test_cases_run_in_place_too(op: str) -> None:
    found = [one.in_place for signature in signatures(op) for one in cases(op, signature, 10)]
    assert True in found and False in found


RUNS_IN_ENGINE = [(op, s) for op, s in SIGNATURES if s[0] in (Encoding.FLOAT32, Encoding.UINT8) and OPS[op].inputs == (1, 1)]


@pytest.mark.parametrize(("op", "signature"), RUNS_IN_ENGINE, ids=name_of)
def test_engine_agrees_under_guard(op: str, signature: Signature) -> None:
    one = next(cases(op, signature, 1))
    got = Engine(program_of(one), machine=MACHINES[BEST], guard=True).run(one.inputs[0])
    want = dequantize(expected(one), one.output)
    assert agreeing(got, want, tolerance(one, fused=has_fma(MACHINES[BEST]))).all()


# -- parts ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_parts_write_the_same_bytes_in_any_order(op: str) -> None:
    for signature in signatures(op):
        for seed, one in enumerate(cases(op, signature, 1)):
            run = Run(one, MACHINES[BEST])
            whole = run.run().stored
            for parts in (2, 3, 7, 1000):
                order = np.random.default_rng(seed).permutation(parts)
                assert run.run(parts, order).stored == whole, f"{parts} parts differ from one\n{one}"


@pytest.mark.parametrize("op", OPS)
def test_parts_write_disjoint_bytes(op: str) -> None:
    for signature in signatures(op):
        one = next(one for one in cases(op, signature, 100) if not one.in_place)
        run = Run(one, MACHINES[BEST])
        whole = run.written(0, 1).astype(int)
        for parts in (2, 7):
            each = sum(run.written(part, parts).astype(int) for part in range(parts))
            assert np.array_equal(each, whole), f"a byte is written by several of {parts} parts, or by none\n{one}"


def test_halos_are_filled_in_parts() -> None:
    kind = TensorType((3, 4, 5), Encoding.INT8, 0.5, -7, Halo(1, 2, 3, 1))
    lowered = lower_halo(Place(kind, 64))
    function = KERNEL(addresses([lowered.code], MACHINES[BEST])[lowered.code.name])
    args = np.array(lowered.args, np.int64)
    image = np.pad(np.full((3, 4, 5), 1, np.int8), ((1, 2), (3, 1), (0, 0)), constant_values=-7)
    for parts in (1, 2, 5, 1000):
        arena = fenced(64 + kind.nbytes, at_end=True, spare=0)
        arena[:] = 1
        for part in range(parts):
            function(args.ctypes.data, arena.ctypes.data, arena.ctypes.data, arena.ctypes.data, part, parts)
        assert arena[64:].tobytes() == image.tobytes()


# -- objects -------------------------------------------------------------------------------------------------------------------


def codes(machine: Machine, count: int = 1) -> dict[str, Code]:
    """The kernels of cases of every operation and signature, by name."""
    made = [code_of(one, machine) for op, signature in SIGNATURES for one in cases(op, signature, count)]
    return {code.name: code for code in [*made, LOOP]}


def undefined_symbols(code: bytes) -> set[str]:
    """Names that an ELF object refers to and does not define."""
    sections = {section.name(): section.data() for section in llvm.ObjectFileRef.from_data(code).sections()}
    names, symbols = sections[b".strtab"], sections[b".symtab"]
    found = set()
    for start in range(0, len(symbols), 24):
        name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", symbols, start)
        if name and section == 0:
            found.add(names[name : names.index(b"\0", name)].decode())
    return found


def test_kernels_refer_to_no_library() -> None:
    machine = MACHINES[BEST]
    for code in codes(machine, 2).values():
        compiled = cache._OBJECTS.get(cache.object_name(code, machine)) or cache._compile(code, machine)
        assert undefined_symbols(compiled) <= ALLOWED_SYMBOLS, code.name


def test_undefined_symbols_are_found() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    text = "declare double @tanh(double)\ndefine double @f(double %x) {\n %y = call double @tanh(double %x)\n ret double %y\n}"
    assert undefined_symbols(target.emit_object(llvm.parse_assembly(text))) == {"tanh"}


@pytest.mark.skipif("avx2" not in MACHINES, reason="this machine has no AVX2")
def test_avx2_code_has_no_wider_registers() -> None:
    machine = MACHINES["avx2"]
    found = codes(machine)
    for name in ("depthwise_conv2d", "average_pool2d", "map_float32", "binarize", "softmax", "conv2d_bits", "conv2d_i8i8"):
        code = next(code for known, code in found.items() if known.startswith(name))
        text = assembly(f"edge_{code.name}", code.build(machine), machine)
        assert "%ymm" in text and "%zmm" not in text, code.name


@pytest.mark.slow
def test_kernels_compile_for_aarch64_without_a_library() -> None:
    neon = ISAS["neon"]
    machine = Machine(neon, neon.cpu, "", "aarch64-unknown-linux-gnu")
    for code in codes(MACHINES["portable"]).values():
        assert undefined_symbols(cache._compile(code, machine)) <= ALLOWED_SYMBOLS, code.name
