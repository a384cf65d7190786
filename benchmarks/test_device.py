"""The binary tile on cores that are not here: multiply-accumulates a cycle of its inner loop, as llvm-mca predicts them.

The inner loop is the basic block that counts the most bits; a `cnt` of 16 bytes is 128 multiply-accumulates. Data is taken to be in the
first-level cache, and the model of the core is LLVM's.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from bench_checklist import DEVICES
from bench_layers import conv, one_node
from bench_rows import BITS_BITS, DEVICE
from device_emulator import simulator

from edge.errors import EdgeError
from edge.kernels.build import assembly
from edge.kernels.isa import ISAS, Machine
from edge.kernels.registry import Derived, Lowering, select
from edge.lower import to_program

TRIPLE = "aarch64-unknown-linux-gnu"
ITERATIONS = 100
_MACS_OF_COUNT = {"16b": 128, "8b": 64}


@pytest.mark.parametrize("cpu", DEVICES)
def test_tile_on_another_core(bench: Any, cpu: str) -> None:
    code = _tile(Machine(ISAS["neon"], cpu, "", TRIPLE))
    loop = max(_blocks(code), key=_macs)
    assert _macs(loop) > 0, "the kernel counts no bits"
    rate = _macs(loop) / _cycles(loop, cpu, _tool())
    facts = {"binary_mac_per_cycle": round(rate, 1), "instructions": len(loop), "macs": _macs(loop)}
    bench.fact(DEVICE, cpu, "binary 3x3 convolution, inner loop", facts)


def _tile(machine: Machine) -> str:
    """Assembly of a packed 3x3 convolution."""
    program = to_program(one_node(conv(28, 128, 128, 3), BITS_BITS))
    lowering = Lowering(program, program.instructions[0], machine, Derived(0))
    lowered = select(lowering).lower(lowering)
    return assembly("kernel", lowered.code.build(machine), machine)


def _blocks(code: str) -> Iterator[tuple[str, ...]]:
    """The basic blocks: instructions from a label or a branch to the next."""
    block: list[str] = []
    for line in (line.split("//")[0].strip() for line in code.splitlines()):
        if line.startswith(".L") and line.endswith(":"):
            yield tuple(block)
            block = []
        elif line and not line.startswith(".") and not line.endswith(":"):
            block.append(line)
            if re.match(r"(b|b\.\w+|cbn?z|tbn?z|ret)\s", line):
                yield tuple(block)
                block = []
    yield tuple(block)


def _macs(block: tuple[str, ...]) -> int:
    counts = (re.match(r"cnt\s+v\d+\.(\d+b)", line) for line in block)
    return sum(_MACS_OF_COUNT[match[1]] for match in counts if match)


def _tool() -> str:
    """The newest llvm-mca; before 16 it takes a Neoverse-N1 for a Cortex-A57."""
    try:
        return simulator(16)[0]
    except EdgeError as err:
        pytest.skip(str(err))


def _cycles(block: tuple[str, ...], cpu: str, tool: str) -> float:
    """Cycles of one run of a block among many."""
    text = "\n".join(re.sub(r"\.L\w+$", "label", line) for line in block)
    command = [tool, f"-mtriple={TRIPLE}", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    report = subprocess.run(command, input=f"label:\n{text}\n", capture_output=True, text=True, check=True).stdout
    found = re.search(r"Total Cycles:\s+(\d+)", report)
    assert found is not None, report[:300]
    return int(found[1]) / ITERATIONS
