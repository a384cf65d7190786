"""Kernels compiled here, run on emulated cores of the Raspberry Pi without Numba: the same bits as on this machine. `make test-pi`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import raspberry_pi
from raspberry_pi import CHOSEN, CORES, needs_the_user_space
from sample_programs import GRAPHS, inputs_of, program

from edge.build import build_library
from edge.engine import Engine
from edge.format import write
from edge.kernels.linker import find_linkers
from edge.program import Program
from edge.tensors import Encoding

# Runs every program with the kernels of the library and keeps every tensor.
_SCRIPT = """
import sys
for name in ("numba", "llvmlite", "click", "PIL"): sys.modules[name] = None
import numpy as np
import edge
for name in sys.argv[1:]:
    engine = edge.load(f"{name}.edge", threads=2)
    example = np.load(f"{name}.npy")
    steps = engine.trace(example)
    np.savez(f"{name}.npz", *(step.output for step in steps))
    if engine._pool is not None:
        engine._pool.infer_shared()
    print(name, engine.machine.isa.name, len(steps), [n for n in ("numba", "llvmlite") if sys.modules.get(n)])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, the programs and an input of each, as the emulated machine sees them."""
    made = tmp_path_factory.mktemp("pi")
    raspberry_pi.install(made)
    (made / "run.py").write_text(_SCRIPT)
    for name in GRAPHS:
        write(program(name), made / f"{name}.edge")
        np.save(made / f"{name}.npy", inputs_of(program(name))[0])
    return made


@needs_the_user_space
@pytest.mark.skipif(not find_linkers("aarch64"), reason="no linker for aarch64")
@pytest.mark.parametrize("core", CHOSEN)
def test_a_library_gives_the_bits_of_this_machine(core: str, folder: Path) -> None:
    build_library(CORES[core], [program(name) for name in GRAPHS], folder / f"{core}.so")
    said = raspberry_pi.run(core, folder, "env", f"EDGE_KERNELS=/work/{core}.so", "python3", "run.py", *GRAPHS)
    for name, line in zip(GRAPHS, said.splitlines(), strict=True):
        which = program(name)
        assert line == f"{name} {CORES[core]} {len(which.instructions)} []"
        with np.load(folder / f"{name}.npz") as stored:
            _compare(which, inputs_of(which)[0], [stored[key] for key in stored.files])


def _compare(which: Program, example: np.ndarray, got: list[np.ndarray]) -> None:
    for instruction, step, values in zip(which.instructions, Engine(which).trace(example), got, strict=True):
        if which.tensors[instruction.output].type.encoding is Encoding.FLOAT32:
            np.testing.assert_allclose(values, step.output, rtol=1e-6, atol=1e-6 * float(np.abs(step.output).max(initial=1.0)))
        else:
            np.testing.assert_array_equal(values, step.output)
