"""Runs random programs in fenced memory, each on one instruction set of this machine in turn, and compares with the reference.

python tests/run_random.py FIRST LAST    the seeds FIRST..LAST-1; prints each seed before it is run, and what was wrong with it
"""

from __future__ import annotations

import sys

import numpy as np
from fenced import run_fenced
from random_programs import random_program
from sample_programs import inputs_of

from edge.errors import FormatError
from edge.kernels.arithmetic import dequantize
from edge.kernels.isa import Machine, available, detect
from edge.kernels.reference import run_program
from edge.program import Program
from edge.verifier import verify


def exact(made: Program, machine: Machine) -> bool:
    """Whether the result must equal the reference in every bit: no exponentials, no roots, and fused multiply-adds."""
    names = {instruction.definition.name for instruction in made.instructions}
    return not names & {"activation", "softmax", "layer_norm", "local_response_norm"} and bool({"fma", "neon"} & machine.features)


def difference(made: Program, machine: Machine) -> str:
    """What is wrong with the outputs of a program; empty if nothing is."""
    inputs = inputs_of(made)
    got = run_fenced(made, inputs[0], machine=machine)
    values = run_program(made, inputs)
    for number, output in zip(made.outputs, got, strict=True):
        expected = dequantize(values[number], made.tensors[number].type)
        if exact(made, machine) and not np.array_equal(output, expected, equal_nan=True):
            return f"output {number} is wrong in {np.mean(output != expected):.0%} of its values"
    return ""


def main() -> None:
    machines = [detect(isa.name) for isa in available()]
    for seed in range(*map(int, sys.argv[1:])):
        print(seed, end=" ", flush=True)
        made = random_program(seed)
        verify(made)
        machine = machines[seed % len(machines)]
        try:
            problem = difference(made, machine)
        except FormatError as err:
            problem = f"refused: {err}"
        print(f"{machine.isa.name}: {problem or 'ok'}", flush=True)


if __name__ == "__main__":
    main()
