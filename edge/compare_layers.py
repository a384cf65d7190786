"""Layer by layer: the pieces of a program between tensors that the source has too, each run alone on the source's own input.

A tensor of the program that keeps its name from the plain graph of the source (`metadata["tensors"]`) is an anchor: the source has a value
for it. What computes one anchor from others is a piece: usually one instruction, which may stand for several layers, and several where
fused layers leave nothing of the source in between (a packed convolution and the max-pool that its threshold was moved before).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.engine import Engine
from edge.graph import Array, Graph
from edge.oracle import Truth
from edge.program import Instruction, Program
from edge.tensors import NARROW, Encoding

TIE_ULP = 8  # Keras itself takes an approximate reciprocal square root in its batch norm
EXACT_TOLERANCE = 1e-4  # of max(1, largest magnitude of the tensor)
EXACT, SIXTEEN_BITS, EIGHT_BITS, FEW_BITS, ONE_BIT = "exact", "16 bits", "8 bits", "4 or 2 bits", "1 bit"
PRECISIONS = (ONE_BIT, FEW_BITS, EIGHT_BITS, SIXTEEN_BITS, EXACT)  # the least precise first
SHOWN = (ONE_BIT, FEW_BITS)  # and not judged
TOLERANCES = {SIXTEEN_BITS: 0.01, EIGHT_BITS: 0.1}  # of the largest magnitude over all examples, as the step of 8-bit tensors is
MOST_BEYOND = {EIGHT_BITS: 0.001}  # of the values: ranges of least squared error leave the largest out on purpose, a few in 100,000
_KEPT = 1 << 16  # errors that a layer keeps until the largest magnitude is known

_BITS, _FLOAT32, _INT8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8
_GIVEN_UP = {_BITS: ONE_BIT, _INT8: EIGHT_BITS, Encoding.FLOAT16: SIXTEEN_BITS, **dict.fromkeys(NARROW, FEW_BITS)}


@dataclass(frozen=True)
class Piece:
    """The instructions that compute the anchor `output` from the anchors `inputs` (numbers of tensors).

    `precision` says what the conversion gave up on purpose: EXACT nothing, so that only rounding may differ.
    """

    output: int
    inputs: tuple[int, ...]
    instructions: tuple[int, ...]
    layers: tuple[str, ...]
    precision: str


@dataclass(frozen=True)
class LayerComparison:
    """One piece over all examples. Errors are of real values; `relative_error` is of the largest magnitude of the tensor.

    `flipped_bits` leaves out ties, signs that rounding decides; `tied_bits` counts those that came out the other way. `tolerance` is of the
    absolute errors, None where a difference is what was asked for and nothing is judged; `beyond` counts the values that exceed it.
    """

    tensor: str
    layers: tuple[str, ...]
    operations: tuple[str, ...]
    encoding: str
    precision: str
    values: int
    flipped_bits: int
    tied_bits: int
    max_abs_error: float
    relative_error: float
    tolerance: float | None
    equal: bool
    beyond: int = 0


# -- pieces --------------------------------------------------------------------------------------------------------------------


def tensor_names(program: Program) -> tuple[str, ...]:
    """The name of every tensor in the source, as the file keeps them; empty where it keeps none."""
    names = program.metadata.get("tensors")
    if not isinstance(names, list) or len(names) != len(program.tensors) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def anchors(program: Program, graph: Graph) -> dict[int, str]:
    """The tensors that the source has too, by number, with their names there."""
    found = {}
    for number, name in enumerate(tensor_names(program)):
        kind, source = program.tensors[number].type, graph.types.get(name)
        if source is not None and kind.elements == source.elements and (source.encoding is not _BITS or kind.encoding is _BITS):
            found[number] = name
    return found


def pieces(program: Program, graph: Graph) -> tuple[Piece, ...]:
    """The pieces of a program in the order of their outputs; none where the file keeps no names."""
    known = anchors(program, graph)
    if any(number not in known for number in program.inputs):
        return ()
    outputs = [number for made in program.instructions for number in made.outputs]
    return tuple(_piece(program, graph, known, number) for number in outputs if number in known)


def _piece(program: Program, graph: Graph, known: Mapping[int, str], output: int) -> Piece:
    """Walk back from a tensor to the anchors it depends on."""
    producer = {number: i for i, made in enumerate(program.instructions) for number in made.outputs}
    inputs: list[int] = []
    inside = [producer[output]]
    waiting = list(program.instructions[producer[output]].inputs)
    between = set()  # tensors that the source does not have
    while waiting:
        number = waiting.pop()
        if number in known:
            inputs += [number] if number not in inputs else []
            continue
        between.add(number)
        if producer[number] not in inside:
            inside.append(producer[number])
            waiting += program.instructions[producer[number]].inputs
    names = [name for i in sorted(inside) for name in (program.layers[i] if program.layers else ())]
    precision = _precision(program, graph, between, sorted(inside))
    return Piece(output, tuple(inputs), tuple(sorted(inside)), tuple(dict.fromkeys(names)), precision)


def _precision(program: Program, graph: Graph, between: set[int], inside: Sequence[int]) -> str:
    given_up = [_given_up(program, graph, between, i) for i in inside]
    return next((precision for precision in PRECISIONS if precision in given_up), EXACT)


def _given_up(program: Program, graph: Graph, between: set[int], number: int) -> str:
    """What one instruction gives up: signs or integers where the source has float32 values or other weights."""
    instruction = program.instructions[number]
    if _makes_signs(program, instruction).intersection(between):
        return ONE_BIT
    given_up = {_levels(program, i) for i in (*instruction.inputs, instruction.output)}
    if "filter" in instruction.definition.constants and not _keeps_weights(program, graph, number, instruction):
        given_up.add(_GIVEN_UP.get(program.call(instruction).constants["filter"].encoding, EXACT))
    return next(precision for precision in PRECISIONS if precision in given_up)


def _levels(program: Program, number: int) -> str:
    """What a tensor gives up: those of 4 and 2 bits, where the file says that it has such, take the last levels of int8."""
    kind, bits = program.tensors[number].type, program.metadata.get("activation_bits")
    if kind.encoding is not _INT8:
        return EXACT
    return FEW_BITS if bits in (2, 4) and kind.zero_point >= 128 - 2**bits else EIGHT_BITS


def _makes_signs(program: Program, instruction: Instruction) -> set[int]:
    """The outputs that are signs of float values that the instruction computes."""
    if instruction.definition.name not in ("binarize", "residual_conv2d"):
        return set()
    return {number for number in instruction.outputs if program.tensors[number].type.encoding is _BITS}


def _keeps_weights(program: Program, graph: Graph, number: int, instruction: Instruction) -> bool:
    """Whether a stored filter has to be the source's: both are signs, or it is the source's times an exact factor per output channel."""
    names = set(program.layers[number]) if program.layers else set()
    stored = program.array(instruction, "filter")
    operation = instruction.definition.name.removeprefix("residual_")
    sources = [node for node in graph.nodes if node.op == operation and names.intersection(node.layers)]
    candidates = [node.constants["filter"] for node in sources if stored is not None and node.constants["filter"].size == stored.size]
    if stored is None or stored.dtype == np.float32 or any(source.dtype == stored.dtype for source in candidates):
        return True
    return any(proportional(by_channel(stored, operation), by_channel(source, operation)) for source in candidates)


def by_channel(filters: Array, operation: str) -> Array:
    """The filter of an operation as (O, rest) of numbers; True is -1."""
    real = np.where(filters, -1.0, 1.0) if filters.dtype == np.bool_ else filters.astype(np.float64)
    if operation == "depthwise_conv2d":
        return np.asarray(real.reshape(-1, real.shape[-1]).T)
    return np.asarray(real.reshape(len(real), -1))


def proportional(stored: Array, source: Array) -> bool:
    """Whether every row of `source` is that of `stored` times a factor of its own, exactly."""
    if stored.shape != source.shape:
        return False
    largest = np.abs(stored).argmax(axis=1)[:, None]
    divisor = np.take_along_axis(stored, largest, axis=1)
    factor = np.take_along_axis(source, largest, axis=1) / np.where(divisor == 0, 1, divisor)
    return bool((stored * factor == source).all())


# -- running them --------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What has been seen of a piece so far."""

    piece: Piece
    values: int = 0
    flipped: int = 0
    tied: int = 0
    error: float = 0.0
    magnitude: float = 0.0
    times_rounding: float = 0.0  # the largest error as a multiple of what rounding may do in its example
    far: Array = field(default_factory=lambda: np.empty(0, np.float32))  # errors beyond what is tolerated so far, which only grows
    settled: int = 0  # of such errors, those that were counted where they became many

    def add(self, got: Array, want: Array, ties: Array | None) -> None:
        """One example; flat arrays of real values, `ties` for packed tensors."""
        self.values += want.size
        if ties is not None:
            wrong = got != want
            self.flipped += int((wrong & ~ties).sum())
            self.tied += int((wrong & ties).sum())
            return
        errors = np.abs(got - want)
        error, magnitude = _largest(errors), _largest(want)
        self.error, self.magnitude = max(self.error, error), max(self.magnitude, magnitude)
        self.times_rounding = max(self.times_rounding, error / tolerance(EXACT, magnitude))
        if self.piece.precision in TOLERANCES:
            self._note(errors, tolerance(self.piece.precision, self.magnitude))

    def _note(self, errors: Array, allowed: float) -> None:
        far = errors[~(errors <= allowed)]
        if far.size:
            self.far = np.concatenate([self.far[~(self.far <= allowed)], far])
        if self.far.size > _KEPT:
            self.settled, self.far = self.settled + self.far.size, self.far[:0]

    def result(self, program: Program, names: Sequence[str]) -> LayerComparison:
        operations = tuple(program.instructions[i].definition.name for i in self.piece.instructions)
        return self.compared(names[self.piece.output], operations, program.tensors[self.piece.output].type.encoding)

    def compared(self, tensor: str, operations: tuple[str, ...], encoding: Encoding) -> LayerComparison:
        allowed = tolerance(self.piece.precision, self.magnitude)
        beyond = self.settled + int((~(self.far <= allowed)).sum())
        return LayerComparison(
            tensor=tensor,
            layers=self.piece.layers,
            operations=operations,
            encoding=encoding.name.lower(),
            precision=self.piece.precision,
            values=self.values,
            flipped_bits=self.flipped,
            tied_bits=self.tied,
            max_abs_error=self.error,
            relative_error=self.error / self.magnitude if self.magnitude else self.error,
            tolerance=allowed if encoding is not _BITS and self.piece.precision not in SHOWN else None,
            equal=self._equal(beyond),
            beyond=beyond,
        )

    def _equal(self, beyond: int) -> bool:
        """Exact pieces by example, others as a whole."""
        if self.piece.precision == EXACT:
            return not self.flipped and self.times_rounding <= 1
        flips, most = TOLERANCES.get(self.piece.precision, 1.0), MOST_BEYOND.get(self.piece.precision, 0.0)
        is_finite = self.error < float("inf") or self.piece.precision in SHOWN
        return beyond <= most * self.values and self.flipped <= flips * self.values and is_finite


def tolerance(precision: str, magnitude: float) -> float:
    """The largest absolute error for a tensor whose largest magnitude is `magnitude`."""
    if precision in SHOWN:
        return float("inf")
    return EXACT_TOLERANCE * max(1.0, magnitude) if precision == EXACT else TOLERANCES[precision] * max(magnitude, 1e-6)


def _largest(values: Array) -> float:
    """The largest magnitude; infinite where a value is not a number."""
    largest = float(np.abs(values).max(initial=0.0))
    return float("inf") if np.isnan(largest) else largest


def run_piece(engine: Engine, piece: Piece, known: Mapping[int, str], truth: Truth) -> Array:
    """The output of a piece, real values, flat, where all it reads are the source's tensors."""
    values = {number: truth.real(known[number]) for number in piece.inputs}
    for number in piece.instructions:
        instruction = engine.program.instructions[number]
        values[instruction.output] = engine.run_instruction(number, [values[i] for i in instruction.inputs])
        if instruction.signs >= 0:
            values[instruction.signs] = engine.tensor(instruction.signs)
    return values[piece.output].reshape(-1)


def tally(engine: Engine, tallies: Sequence[Tally], known: Mapping[int, str], truth: Truth) -> None:
    """Run every piece on one example and add what differs."""
    for each in tallies:
        name = known[each.piece.output]
        packed = engine.program.tensors[each.piece.output].type.encoding is _BITS
        ties = truth.ties(name, TIE_ULP) if packed else None
        each.add(run_piece(engine, each.piece, known, truth), truth.real(name).reshape(-1), ties)


def tie_decided(engine: Engine, example: Sequence[Array], known: Mapping[int, str], truth: Truth) -> bool:
    """Whether, running through the whole network, the first packed tensor that differs from the source differs in ties alone."""
    for step, instruction in zip(engine.trace(*example), engine.program.instructions, strict=True):
        for number, output in zip(instruction.outputs, (step.output, step.signs), strict=False):
            if output is None or engine.program.tensors[number].type.encoding is not _BITS or number not in known:
                continue
            wrong = output.reshape(-1) != truth.real(known[number]).reshape(-1)
            if wrong.any():
                return bool(truth.ties(known[number], TIE_ULP)[wrong].all())
    return False


class EngineLayers:
    """The pieces of an engine's program over all examples."""

    fed_by_source = True

    def __init__(self, engine: Engine, graph: Graph) -> None:
        self._engine = engine
        self._known = anchors(engine.program, graph)
        self._tallies = [Tally(piece) for piece in pieces(engine.program, graph)]

    @property
    def names(self) -> set[str]:
        """The tensors of the source that `take` looks at."""
        return set(self._known.values())

    def take(self, example: Sequence[Array], truth: Truth, *, differs: bool) -> bool:
        """Add one example; whether its outputs, which are another's where `differs`, are explained by a tie."""
        tied = differs and tie_decided(self._engine, example, self._known, truth)
        tally(self._engine, self._tallies, self._known, truth)
        return tied

    def result(self) -> tuple[LayerComparison, ...]:
        names = tensor_names(self._engine.program)
        return tuple(each.result(self._engine.program, names) for each in self._tallies)
