"""What a model computed where it was signed off, small enough to go with the file, so that another machine can repeat it.

Inputs are not stored but made again from a seed (`edge.noise`), in two ways:

- every operation alone, on noise in the range that its inputs had when the network ran: what differs has the name of its layer, and no
  difference is passed on;
- the network as a whole, on noise in the domain of its input.

Of every result a sketch is kept. Packed and integer tensors are equal in all bits on every machine: their sketch is a hash. Floats, and
signs of floats, are rounded differently where a processor has no fused multiply-add: their sketch is four sums of all values, each with
random signs of its own, which rounding moves by little more than the square root of their number, and a wrong value by itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge import noise
from edge.engine import Engine
from edge.errors import EdgeError
from edge.kernels.arithmetic import DTYPES, dequantize
from edge.program import Instruction, Program
from edge.tensors import Encoding, TensorType

EXAMPLES = 4
OPERATION_TOLERANCE = 1e-5  # of the largest magnitude: of one operation, fed with the same values
NETWORK_TOLERANCE = 1e-4  # of max(1, largest magnitude): of outputs
_SUMS = 4
_DEVIATIONS = 6  # how far, in standard deviations, rounding may move a sum
_MAX_EXAMPLES = 1 << 10
_ROUNDED = ("binarize", "residual_conv2d")  # their signs are of floats that they compute
_NETWORK_STREAMS = 1 << 40  # streams of whole networks' inputs are below, of single operations above

Sketch = str | tuple[float, ...]
"""Of a tensor that is equal in all bits everywhere a hash; of others `_SUMS` sums and the largest magnitude."""


@dataclass(frozen=True)
class SelfCheck:
    """What is repeated, and what it gave.

    domain       of the values of float inputs that are pixels
    ranges       of the float tensors that operations read, by number
    operations   of every instruction a sketch of each of its outputs
    networks     of every example a sketch of each output
    """

    seed: int
    domain: tuple[float, float]
    ranges: Mapping[int, tuple[float, float]]
    operations: tuple[tuple[Sketch, ...], ...]
    networks: tuple[tuple[Sketch, ...], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "generator": noise.GENERATOR,
            "seed": self.seed,
            "domain": list(self.domain),
            "ranges": {str(number): list(bounds) for number, bounds in self.ranges.items()},
            "operations": _listed(self.operations),
            "networks": _listed(self.networks),
        }


def _listed(rows: Sequence[Sequence[Sketch]]) -> list[list[Any]]:
    return [[sketch if isinstance(sketch, str) else list(sketch) for sketch in row] for row in rows]


@dataclass(frozen=True)
class Outcome:
    """How a repetition went: how many operations and networks, how many tensors were compared in all bits, where, and what is wrong."""

    operations: int
    networks: int
    exact: int
    machine: str
    wrong: tuple[str, ...]
    note: str = ""

    @property
    def text(self) -> str:
        return (
            f"{self.operations} operations ({self.exact} tensors in all bits) and {self.networks} inferences give on {self.machine} what "
            f"they gave where it was signed off{f'; {self.note}' if self.note else ''}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "wrong": list(self.wrong), "equal": not self.wrong}


# -- making and repeating --------------------------------------------------------------------------------------------------------


def record(engine: Engine, domain: tuple[float, float], *, seed: int = 0, examples: int = EXAMPLES) -> SelfCheck:
    """Run everything once and keep the sketches."""
    ranges = _ranges(engine, domain, seed)
    operations = tuple(tuple(_operation(engine, number, ranges, seed)) for number in range(len(engine.program.instructions)))
    return SelfCheck(seed, domain, ranges, operations, tuple(tuple(_network(engine, domain, seed, i)) for i in range(examples)))


def repeat(engine: Engine, check: SelfCheck) -> Outcome:
    """Run everything again and compare."""
    program = engine.program
    wrong = []
    for number, expected in enumerate(check.operations):
        found = _operation(engine, number, check.ranges, check.seed)
        for got, want, output in zip(found, expected, program.instructions[number].outputs, strict=True):
            if not _agree(got, want, program.tensors[output].type, OPERATION_TOLERANCE, 0.0):
                wrong.append(f"operation {number}, {_named(program, number)}")
    networks = [
        i
        for i, expected in enumerate(check.networks)
        for got, want, output in zip(_network(engine, check.domain, check.seed, i), expected, program.outputs, strict=True)
        if not _agree(got, want, program.tensors[output].type, NETWORK_TOLERANCE, 1.0)
    ]
    note = ""
    if networks and not wrong and _may_round_signs(engine):
        note = f"{len(set(networks))} inferences differ, where this processor rounds without fused multiply-add and a sign may tip over"
    elif networks:
        wrong += [f"the outputs of inference {i}" for i in dict.fromkeys(networks)]
    exact = sum(isinstance(sketch, str) for row in check.operations for sketch in row)
    return Outcome(len(check.operations), len(check.networks), exact, engine.machine.isa.name, tuple(dict.fromkeys(wrong)), note)


def require(outcome: Outcome, name: str) -> None:
    """Raise `EdgeError` where something is wrong with the file `name`."""
    if outcome.wrong:
        more = f" and {len(outcome.wrong) - 3} more" if len(outcome.wrong) > 3 else ""
        raise EdgeError(
            f"{name} computes something else here than where it was signed off, in {', '.join(outcome.wrong[:3])}{more}; clear the cache "
            "of kernels, or install edge again, and if it stays, please report it with the output of: edge doctor"
        )


def _named(program: Program, number: int) -> str:
    layers = "+".join(program.layers[number]) if program.layers else ""
    name = program.instructions[number].definition.name
    return f"{name} of {layers}" if layers else name


def _may_round_signs(engine: Engine) -> bool:
    fused = "fma" in engine.machine.features or engine.machine.isa.architecture == "aarch64"
    return not fused and any(instruction.definition.name in _ROUNDED for instruction in engine.program.instructions)


# -- running ---------------------------------------------------------------------------------------------------------------------


def _operation(engine: Engine, number: int, ranges: Mapping[int, tuple[float, float]], seed: int) -> Iterator[Sketch]:
    """The sketches of one instruction alone, on noise."""
    instruction = engine.program.instructions[number]
    inputs = [_noise(engine.program.tensors[i].type, ranges.get(i), seed, _NETWORK_STREAMS + number * 4096 + i) for i in instruction.inputs]
    values = [engine.run_instruction(number, inputs)]
    values += [engine.tensor(instruction.signs)] if instruction.signs >= 0 else []
    for output, found in zip(instruction.outputs, values, strict=True):
        yield _sketch(found, engine.program.tensors[output].type, is_exact=_is_exact(engine.program, instruction, output))


def _network(engine: Engine, domain: tuple[float, float], seed: int, number: int) -> Iterator[Sketch]:
    """The sketches of a network's outputs for example `number`."""
    outputs = engine.run(*_inputs(engine.program, domain, seed, number))
    for output, found in zip(engine.program.outputs, outputs if isinstance(outputs, list) else [outputs], strict=True):
        yield _sketch(found, engine.program.tensors[output].type, is_exact=False)


def _inputs(program: Program, domain: tuple[float, float], seed: int, number: int) -> list[np.ndarray]:
    """The same as `edge.compare_data.random_example` gives."""
    count = len(program.inputs)
    kinds = [(program.tensors[tensor].type, _rows(program, tensor)) for tensor in program.inputs]
    return [noise.network_input(kind, domain, seed, number * count + i, rows=rows) for i, (kind, rows) in enumerate(kinds)]


def _rows(program: Program, tensor: int) -> int | None:
    tables = [program.call(i).constants["table"] for i in program.instructions if i.definition.name == "embedding" and tensor in i.inputs]
    return min((table.shape[0] for table in tables), default=None)


def _noise(kind: TensorType, bounds: tuple[float, float] | None, seed: int, stream: int) -> np.ndarray:
    """Real values that a tensor can hold: of floats within `bounds`, of integers and signs any."""
    if kind.encoding is Encoding.FLOAT32:
        return noise.between(*(bounds or (-1.0, 1.0)), seed, stream, kind.shape)
    if kind.encoding is Encoding.BITS:
        return noise.signs(seed, stream, kind.elements).reshape(kind.shape)
    return dequantize(noise.levels(seed, stream, kind.shape).view(DTYPES[kind.encoding]), kind)


def _ranges(engine: Engine, domain: tuple[float, float], seed: int) -> dict[int, tuple[float, float]]:
    """The least and largest value of every float tensor that an operation reads, in a run of the first example."""
    program = engine.program
    values = dict(zip(program.inputs, _inputs(program, domain, seed, 0), strict=True))
    for instruction, step in zip(program.instructions, engine.trace(*values.values()), strict=True):
        values[instruction.output] = step.output
    read = {tensor for instruction in program.instructions for tensor in instruction.inputs}
    floats = sorted(tensor for tensor in read if program.tensors[tensor].type.encoding is Encoding.FLOAT32)
    return {tensor: _bounds(values[tensor]) for tensor in floats}


def _bounds(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)].astype(np.float32)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    return (low, high) if high > low else (low, low + 1.0)


# -- sketches --------------------------------------------------------------------------------------------------------------------


def _is_exact(program: Program, instruction: Instruction, output: int) -> bool:
    """Whether an output is equal in all bits on every machine, given equal inputs."""
    return program.tensors[output].type.encoding is not Encoding.FLOAT32 and instruction.definition.name not in _ROUNDED


def _sketch(values: np.ndarray, kind: TensorType, *, is_exact: bool) -> Sketch:
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    if is_exact:
        return hashlib.sha256(flat.astype("<f4").tobytes()).hexdigest()[:32]
    wide = np.where(np.isfinite(flat), flat, 0.0).astype(np.float64)
    sums = (float((wide * noise.signs(0, i, len(wide))).sum()) for i in range(_SUMS))
    return (*sums, float(np.abs(wide).max(initial=0.0)))


def _agree(got: Sketch, want: Sketch, kind: TensorType, tolerance: float, least: float) -> bool:
    """Whether two sketches are of the same values but for rounding. least: the magnitude below which the tolerance does not shrink."""
    if isinstance(got, str) or isinstance(want, str):
        return got == want
    magnitude = max(got[-1], want[-1], least)
    allowed = _DEVIATIONS * tolerance * magnitude * math.sqrt(kind.elements)
    if kind.encoding is not Encoding.FLOAT32:  # a value that is rounded to the other side moves by a whole step
        allowed += (2.0 if kind.encoding is Encoding.BITS else kind.scale) * (2 + kind.elements * 1e-5)
    return all(abs(a - b) <= allowed for a, b in zip(got, want, strict=True))


# -- reading -----------------------------------------------------------------------------------------------------------------------


def read_self_check(stored: Any, program: Program) -> SelfCheck:
    """What `SelfCheck.to_json` gave for this program. Raises ValueError, KeyError or TypeError for anything else."""
    if not isinstance(stored, dict) or not isinstance(stored["ranges"], dict):
        raise ValueError(f"expected results with ranges by tensor, got {stored!r:.60}")
    if stored["generator"] != noise.GENERATOR:
        raise ValueError(f"expected inputs of the generator {noise.GENERATOR}, got {stored['generator']!r:.60}")
    seed = stored["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= noise.MAX_SEED:
        raise ValueError(f"expected a seed of 0 to {noise.MAX_SEED}, got {seed!r:.60}")
    ranges = {int(name): _pair(bounds) for name, bounds in stored["ranges"].items()}
    operations, networks = _rows_of(stored["operations"]), _rows_of(stored["networks"])
    fits = [len(row) for row in operations] == [len(each.outputs) for each in program.instructions]
    if not fits or len(networks) > _MAX_EXAMPLES or any(len(row) != len(program.outputs) for row in networks):
        raise ValueError("expected results for every operation and every output, got others")
    return SelfCheck(seed, _pair(stored["domain"]), ranges, operations, networks)


def _pair(values: Any) -> tuple[float, float]:
    low, high = _finite(values)
    if not low <= high:
        raise ValueError(f"expected a range, got {low:g} to {high:g}")
    return low, high


def _rows_of(stored: Any) -> tuple[tuple[Sketch, ...], ...]:
    if not isinstance(stored, list) or not all(isinstance(row, list) for row in stored):
        raise ValueError("expected lists of results, got something else")
    return tuple(tuple(_stored_sketch(sketch) for sketch in row) for row in stored)


def _stored_sketch(stored: Any) -> Sketch:
    if isinstance(stored, str):
        return stored
    values = _finite(stored)
    if len(values) != _SUMS + 1:
        raise ValueError(f"expected {_SUMS} sums and a magnitude, got {len(values)} numbers")
    return values


def _finite(values: Any) -> tuple[float, ...]:
    numbers = isinstance(values, list) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not numbers or not all(math.isfinite(value) and abs(value) < 1e300 for value in values):
        raise ValueError(f"expected finite numbers, got {values!r:.60}")
    return tuple(float(value) for value in values)
