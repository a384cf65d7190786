"""One random application of an operation, and the draws that the generators of `strategies` are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from sample_programs import Builder

from edge.arena import round_up
from edge.graph import Graph, Node
from edge.lower import to_program
from edge.ops import OPS, Activation
from edge.program import Program, Tensor
from edge.tensors import Encoding, Halo, TensorType

BITS, FLOAT32, INT8, UINT8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8
Signature = tuple[Encoding, Encoding | None, Encoding]

CHANNELS = (1, 3, 7, 8, 9, 10, 16, 17, 24, 31, 32, 33, 63, 64, 65, 70, 128, 130)
FUSED = (Activation.NONE, Activation.RELU, Activation.LEAKY_RELU)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 0.5, 1.5, -2.5], np.float32)


@dataclass(frozen=True)
class Case:
    """One application: a graph of one node, the values of its inputs, halos beyond those it needs, and whether it runs in place."""

    graph: Graph
    inputs: tuple[np.ndarray, ...]
    halos: Mapping[str, Halo]
    in_place: bool = False

    @property
    def node(self) -> Node:
        return self.graph.nodes[0]

    @property
    def output(self) -> TensorType:
        return self.graph.types[self.node.output]

    def __str__(self) -> str:
        halos = {name: halo for name, halo in self.halos.items() if halo}
        return f"{self.graph.text()}\n{halos or 'no halos'}{', in place' if self.in_place else ''}"


class Draw:
    """A random source with the draws that generators need."""

    def __init__(self, seed: int) -> None:
        self.builder = Builder(seed)
        self.random = self.builder.random

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.random.integers(low, high + 1))

    def one_of(self, *values: int) -> int:
        return int(self.random.choice(values))

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def channels(self) -> int:
        return self.one_of(*CHANNELS)

    def shape(self) -> tuple[int, ...]:
        """A shape of one to three axes, mostly an image."""
        shape = (self.integer(1, 9), self.integer(1, 9), self.channels())
        return shape[self.one_of(0, 0, 0, 0, 1, 2) :]

    def kind(self, shape: tuple[int, ...], encoding: Encoding) -> TensorType:
        """A tensor with random quantization; a picture mostly has none."""
        if encoding is UINT8 and self.chance(0.7):
            return TensorType(shape, encoding)
        low, high = {INT8: (-128, 127), UINT8: (0, 255)}.get(encoding, (0, 0))
        scale = float(np.float32(self.random.uniform(0.01, 0.2))) if encoding in (INT8, UINT8) else 1.0
        return TensorType(shape, encoding, scale, self.integer(low, high))

    def values(self, kind: TensorType, *, special: bool = False) -> np.ndarray:
        """Values of a tensor; `special`: some are not numbers, infinite, zeros of both signs, very small or very large."""
        values = self.builder.values(kind.encoding, kind.shape)
        if special and kind.encoding is FLOAT32 and self.chance(0.3):
            where = self.random.random(kind.shape) < 0.2
            values = np.where(where, self.random.choice(SPECIAL, kind.shape), values)
        return values

    def halo(self) -> Halo:
        if self.chance(0.5):
            return Halo()
        return Halo(*(self.integer(0, 2) for _ in range(4)))

    def activation(self, *functions: Activation) -> dict[str, float]:
        number = self.one_of(*functions)
        limit = self.one_of(1, 6) if self.chance(0.5) else np.inf
        alpha = float(np.float32(self.random.uniform(-0.5, 1.0)))
        return {"activation": number, "alpha": alpha, "limit": float(limit) if number == Activation.RELU else np.inf}

    def finish(
        self, op: str, kinds: list[TensorType], output: TensorType, constants: Mapping[str, np.ndarray], attrs: Mapping[str, float],
        *, special: bool = True, image_halos: bool = True, signs: str = "", stored: Encoding | None = None,
    ) -> Case:  # fmt: skip
        """The case of an operation; the output's shape is inferred. `stored` is the encoding of its filter."""
        names = [self.builder.input(kind) for kind in kinds]
        result = self.builder.add(op, *names, output=output, constants=constants, signs=signs, stored=stored or INT8, **attrs)
        graph = self.builder.graph(op, result, *([signs] if signs else []))
        source = OPS[op].in_place
        same_bytes = 0 <= source < len(kinds) and kinds[source].nbytes == graph.types[result].nbytes
        in_place = same_bytes and self.chance(0.4)
        halos = {name: self.halo() for name in graph.types}
        if in_place:
            halos |= {names[source]: Halo(), result: Halo()}
        if not image_halos:
            halos |= {names[0]: Halo(), result: Halo()}
        return Case(graph, tuple(self.values(kind, special=special) for kind in kinds), halos, in_place)


# -- windows --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """The geometry of a window along one axis."""

    size: int
    stride: int
    dilation: int
    before: int
    after: int


def random_axis(draw: Draw, outputs: int, taps: int, *, dilation: int = 1) -> Axis:
    """An axis with so many outputs; the image may be smaller than the filter, and the last columns unused."""
    stride = draw.integer(1, 3)
    window = (taps - 1) * dilation + 1
    before, after = draw.integer(0, window - 1), draw.integer(0, window - 1)
    size = (outputs - 1) * stride + window - before - after + draw.integer(0, stride - 1)
    while size < 1:
        before, after = (before, after - 1) if after else (before - 1, after)
        size += 1
    return Axis(size, stride, dilation, before, after)


def window_attrs(rows: Axis, columns: Axis) -> dict[str, float]:
    return {
        "stride_h": rows.stride, "stride_w": columns.stride,
        "pad_top": rows.before, "pad_bottom": rows.after, "pad_left": columns.before, "pad_right": columns.after,
    }  # fmt: skip


# -- programs -------------------------------------------------------------------------------------------------------------------


def program_of(given: Case) -> Program:
    """The program of a case: tensors with the halos of the case, one after the other, or the output on an input."""
    program = to_program(given.graph)
    names = [*given.graph.inputs, *given.node.outputs]
    tensors: list[Tensor] = []
    end = 0
    for name, tensor in zip(names, program.tensors, strict=True):
        kind = replace(tensor.type, halo=tensor.type.halo.union(given.halos[name]))
        if name == given.node.output and given.in_place:
            tensors.append(Tensor(kind, tensors[given.node.definition.in_place].offset))
        else:
            tensors.append(Tensor(kind, end))
            end = round_up(end + kind.nbytes)
    return replace(program, tensors=tuple(tensors), arena_bytes=end)
