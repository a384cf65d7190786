"""Bits by layer for a limit: bytes of the file, points of accuracy, or seconds.

    1. The pictures are divided: up to `MAX_CALIBRATION` to calibrate and to measure on, the rest held back.
    2. The damage of every layer at every width, by itself (`edge.converters.sensitivity`).
    3. The bytes, or the seconds, of every layer at every width, from the network with all layers at that width.
    4. The best choices for every limit, by dynamic programming (`edge.converters.knapsack`): exact for damages and costs that add up.
    5. The choice is converted and measured on the pictures that were held back.

Bytes add up exactly, but for the text of the file: a choice whose file turns out too large gives way to a smaller one. Seconds add up but
for what layers leave in caches, and are checked in the same way. Damages add up while they are small: they are the second order of small
errors, which in different layers hardly correlate, and rounding by pictures makes up in later layers for earlier ones. So what a limit on
accuracy needs is measured: of the best choices the smallest is searched by bisection that keeps the limit on pictures held back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge.arena import round_up
from edge.converters.bits import Request, choose_bits, level_layers
from edge.converters.calibration import Statistics, measure
from edge.converters.damage import Reference, Score, reference, score
from edge.converters.knapsack import Option, Point, front
from edge.converters.layer_bits import given_bits
from edge.converters.levels import Levels, on_levels
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.converters.rewriting import WEIGHT_OPS
from edge.converters.rounding import fits
from edge.converters.samples import Samples
from edge.converters.sensitivity import LOWERED, MAX_PICTURES, LayerSensitivity, measured, pattern
from edge.converters.setup import Setup, outputs_of
from edge.errors import InputError
from edge.format import pieces
from edge.graph import Array, Graph
from edge.lower import to_program
from edge.program import Program
from edge.widths import Bits

MAX_CALIBRATION = 1000  # pictures to choose by
MAX_HELD_BACK = 5000
MOST_TRIED = 16  # choices, of which bisection converts four or five
_TRIES = 12  # at a limit that a choice turned out to miss

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Goal:
    """The limit; one of the three. `seconds` are those of every instruction of a program, on `target`, beside `start_s` of an inference."""

    budget_bytes: int | None = None
    max_drop_points: float | None = None
    max_latency_s: float | None = None
    target: str = ""
    seconds: Callable[[Program], Sequence[float]] | None = None
    start_s: float = 0.0

    def latency_s(self, program: Program) -> float | None:
        """Of a whole inference; None where no target was named."""
        return None if self.seconds is None else self.start_s + sum(self.seconds(program))


@dataclass(frozen=True)
class LayerChoice:
    """The width of a layer, and what it costs there and does by itself."""

    layer: str
    bits: Bits
    bytes: int
    damage: float


@dataclass(frozen=True)
class Candidate:
    """A choice as the front has it: bytes or seconds (`Choice.by`) and expected damage."""

    cost: float
    damage: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, and among what.

    `by` is "bytes" or "seconds", the costs of `front`; `expected_damage` the sum of the layers', `measured` that of the whole network on
    pictures held back (activations of 8 bits included); `tried` are the choices that were converted for a limit on accuracy, with their
    drop in points. `latency_s` is None where no target was named.
    """

    by: str
    layers: tuple[LayerChoice, ...]
    expected_damage: float
    measured: Score
    file_bytes: int
    latency_s: float | None
    target: str
    front: tuple[Candidate, ...]
    uniform: Mapping[Bits, Candidate]
    chosen: Candidate
    tried: tuple[tuple[int, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        found = dataclasses.asdict(self)
        found["measured"]["drop_points"], found["measured"]["changed_points"] = self.measured.drop_points, self.measured.changed_points
        found["uniform"] = {str(bits): each for bits, each in found["uniform"].items()}
        return {name: _finite(value) for name, value in found.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True)
class Maker:
    """How `edge.convert` makes files: `lower` gives the calibrated network of a request, `pack` the program of one (after the passes of the
    engine)."""

    lower: Callable[[Request], Graph]
    pack: Callable[[Graph, Request], Program]


def divided(samples: Samples) -> tuple[Samples, Samples]:
    """The pictures to choose by and those that are held back; a single one is both."""
    if len(samples) < 2:
        return samples, samples
    chosen, rest = samples.split(min(MAX_CALIBRATION, len(samples) // 2))
    return chosen, rest.first(MAX_HELD_BACK)


def search(
    setup: Setup, request: Request, goal: Goal, pictures: Samples, held_back: Samples, maker: Maker, tell: Progress
) -> tuple[Request, Graph, Choice]:
    """The request with bits for every layer, its calibrated network, and what was chosen.

    `request` has the bits of activations, and patterns of layers whose bits are given. Raises `InputError` where the limit can't be kept,
    with the least that can.
    """
    with np.errstate(all="ignore"):
        graph = run_passes(setup.graph)
        found = measured(
            setup, graph, pictures, bits=LOWERED, activation_bits=request.activation_bits, pictures=MAX_PICTURES, tell=tell
        )
        statistics = measure(graph, (array for array, _ in pictures.first(32))) if request.has_integers else {}
        work = _Work(setup, graph, request, goal, maker, statistics, _taken(graph, request, found.layers))
        return work.chosen(held_back, tell)


def _taken(graph: Graph, request: Request, layers: Sequence[LayerSensitivity]) -> tuple[LayerSensitivity, ...]:
    """The layers with the widths that they may have: the one that was given, else all."""
    given = given_bits([node for node in graph.nodes if node.op in WEIGHT_OPS], request.layers)
    found = []
    for each in layers:
        fixed = next((given[name] for name in each.layer.outputs if name in given), None)
        scores = each.scores if fixed is None else {fixed: each.scores.get(fixed, Score(0, 0.0))}
        found.append(replace(each, scores=scores))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Work:
    setup: Setup
    graph: Graph
    request: Request
    goal: Goal
    maker: Maker
    statistics: Mapping[str, Statistics]
    layers: tuple[LayerSensitivity, ...]

    def chosen(self, held_back: Samples, tell: Progress) -> tuple[Request, Graph, Choice]:
        tell("choosing bits", 0, 1)
        tables = {bits: self._table(bits) for bits in dict.fromkeys(bits for each in self.layers for bits in each.scores)}
        sizes = {bits: {name: cost[0] for name, cost in table.items()} for bits, table in tables.items()}
        times = {bits: {name: cost[1] for name, cost in table.items()} for bits, table in tables.items()}
        by_time = self.goal.max_latency_s is not None
        groups = [
            [Option((times if by_time else sizes)[bits][each.layer.name], score.damage) for bits, score in each.scores.items()]
            for each in self.layers
        ]
        points = front(groups)
        known = self._known(held_back, tell)
        tried: dict[int, float] = {}
        if self.goal.max_drop_points is not None:
            index, graph = self._by_drop(points, known, tried, tell)
        else:
            index, graph = self._by_limit(points)
        program = self._packed(graph, self._request(points[index]))
        return self._request(points[index]), graph, self._choice(points, index, program, known, sizes, groups, tried)

    # -- costs -----------------------------------------------------------------------------------------------------------------

    def _table(self, bits: Bits) -> dict[str, tuple[int, int]]:
        """Of every layer its bytes and nanoseconds where all have this width."""
        program = self._structure(self._with((each, bits) for each in self.layers if bits in each.scores))
        seconds = self.goal.seconds(program) if self.goal.seconds else [0.0] * len(program.instructions)
        found = {each.layer.name: (0, 0) for each in self.layers}
        seen: set[int] = set()
        for names, instruction, time in zip(program.layers, program.instructions, seconds, strict=True):
            new = {number for number in instruction.constants if number >= 0} - seen
            seen |= new
            owner = next((name for name in names if name in found), None)
            if owner is not None:
                nbytes, spent = found[owner]
                own = sum(round_up(program.constants[number].nbytes) for number in new)
                found[owner] = nbytes + own, spent + round(time * 1e9)
        return found

    def _structure(self, request: Request) -> Program:
        """The program of a request as to bytes and kernels; its weights are rounded each for itself, and its biases made up."""
        layers = level_layers(self.graph, request)
        rounded = {name: self._made_up(name, levels, i) for i, (name, levels) in enumerate(layers.items()) if self._fits(name)}
        lowered = choose_bits(self.graph, replace(request, statistics=self.statistics, rounded=rounded))
        return self._packed(lowered, request)

    def _fits(self, name: str) -> bool:
        node = self.graph.producer(name)
        return node is not None and fits(node)

    def _made_up(self, name: str, levels: Levels, number: int) -> dict[str, Array]:
        """Filter, scale and bias of the sizes that rounding by pictures gives; no two biases are alike, which would be stored once."""
        node = self.graph.producer(name)
        assert node is not None
        found = on_levels(node, levels)
        return {**found, "bias": np.arange(len(found["scale"]), dtype=np.float32) + np.float32(number + 0.5) * 4096}

    def _packed(self, graph: Graph, request: Request) -> Program:
        return self.maker.pack(run_passes(graph, ENGINE_PASSES), request)

    def _request(self, point: Point) -> Request:
        return self._with(self._widths(point))

    def _with(self, widths: Iterable[tuple[LayerSensitivity, Bits]]) -> Request:
        own = ((pattern(each.layer.name), bits) for each, bits in widths)
        return replace(self.request, layers=tuple({**dict(self.request.layers), **dict(own)}.items()))

    def _widths(self, point: Point) -> list[tuple[LayerSensitivity, Bits]]:
        return [(each, list(each.scores)[number]) for each, number in zip(self.layers, point.chosen, strict=True)]

    # -- limits ----------------------------------------------------------------------------------------------------------------

    def _by_limit(self, points: Sequence[Point]) -> tuple[int, Graph]:
        """The best choice whose file is in the budget, or whose latency in the limit, as they turn out, and its network."""
        limit = self.goal.budget_bytes if self.goal.budget_bytes is not None else (self.goal.max_latency_s or 0.0) * 1e9
        index = len(points) - 1
        for _ in range(_TRIES):
            cost = self._cost(self._structure(self._request(points[index])))
            if cost <= limit:
                graph = self.maker.lower(self._request(points[index]))
                cost = self._cost(self._packed(graph, self._request(points[index])))
                if cost <= limit:
                    return index, graph
            if index == 0:
                break
            index = max((i for i in range(index) if points[i].cost <= points[index].cost - (cost - limit)), default=0)
        raise InputError(self._refusal(self._cost(self._structure(self._request(points[0])))))

    def _cost(self, program: Program) -> float:
        """Bytes of the file, or nanoseconds."""
        if self.goal.budget_bytes is not None:
            return _file_bytes(program)
        return (self.goal.latency_s(program) or 0.0) * 1e9

    def _refusal(self, least: float) -> str:
        name = self.setup.model.source
        if self.goal.budget_bytes is not None:
            wanted = f"{self.goal.budget_bytes:,} bytes"
            return f"{name} cannot be made as small as {wanted}: the smallest file that was found takes {int(least):,}; allow as much"
        wanted = f"{(self.goal.max_latency_s or 0) * 1e3:.3g} ms on {self.goal.target}"
        return f"{name} cannot be as fast as {wanted}: the fastest that was found takes {least / 1e6:.3g} ms; allow as much"

    def _by_drop(self, points: Sequence[Point], known: Reference, tried: dict[int, float], tell: Progress) -> tuple[int, Graph]:
        """The smallest of some of the best choices that keeps the limit, by bisection, and its network."""
        limit, spread = self.goal.max_drop_points or 0.0, _spread(points)
        if known.number is None:
            raise InputError("--max-drop counts answers that name classes, but no output of the model does; give --budget or --max-latency")
        low, high, kept = 0, len(spread) - 1, (0, self.graph)
        while low <= high:
            middle = (low + high) // 2
            request = self._request(points[spread[middle]])
            graph = self.maker.lower(request)
            tell("measuring a choice", len(tried), 5)
            drop = drop_of(score(self._packed(graph, request), known))
            tried[points[spread[middle]].cost] = drop
            if drop <= limit:
                kept, high = (spread[middle], graph), middle - 1
            elif middle == len(spread) - 1:
                raise InputError(
                    f"{self.setup.model.source} loses {drop:.2f} points at the highest widths already, more than {limit:g}; allow as many, "
                    "or give --activation-bits 32"
                )
            else:
                low = middle + 1
        return kept

    # -- what was found --------------------------------------------------------------------------------------------------------

    def _known(self, held_back: Samples, tell: Progress) -> Reference:
        kinds = [each["kind"] for each in outputs_of(self.setup.model, self.graph)]
        total = min(MAX_HELD_BACK, len(held_back))
        return reference(
            to_program(self.graph), held_back, kinds, count=MAX_HELD_BACK, tell=lambda done: tell("pictures held back", done, total)
        )

    def _choice(
        self,
        points: Sequence[Point],
        index: int,
        program: Program,
        known: Reference,
        sizes: Mapping[Bits, Mapping[str, int]],
        groups: Sequence[Sequence[Option]],
        tried: Mapping[int, float],
    ) -> Choice:
        rows = [
            LayerChoice(each.layer.name, bits, sizes[bits][each.layer.name], each.scores[bits].damage)
            for each, bits in self._widths(points[index])
        ]
        latency = self.goal.latency_s(program)
        file_bytes = _file_bytes(program)
        by_time = self.goal.max_latency_s is not None
        # What all choices share is not among the layers' costs.
        shared = ((latency or 0.0) * 1e9 if by_time else file_bytes) - points[index].cost
        unit = 1e-9 if by_time else 1.0

        def candidate(cost: int, damage: float) -> Candidate:
            return Candidate((cost + shared) * unit, damage)

        return Choice(
            by="seconds" if by_time else "bytes",
            layers=tuple(rows),
            expected_damage=points[index].damage,
            measured=score(program, known),
            file_bytes=file_bytes,
            latency_s=latency,
            target=self.goal.target,
            front=tuple(candidate(each.cost, each.damage) for each in points),
            uniform={bits: candidate(*sums) for bits, sums in self._uniform(groups).items()},
            chosen=candidate(points[index].cost, points[index].damage),
            tried=tuple((round(cost + shared), drop) for cost, drop in tried.items()),
        )

    def _uniform(self, groups: Sequence[Sequence[Option]]) -> dict[Bits, tuple[int, float]]:
        """Cost and damage with one width for all layers, which take the next higher one where they do not have it."""
        found = {}
        for bits in LOWERED:
            taken = [_at(each, options, bits) for each, options in zip(self.layers, groups, strict=True)]
            found[bits] = sum(each.cost for each in taken), float(sum(each.damage for each in taken))
        return found


def _at(each: LayerSensitivity, options: Sequence[Option], bits: Bits) -> Option:
    names = list(each.scores)
    return options[names.index(bits)] if bits in names else options[0]


def drop_of(found: Score) -> float:
    """Points of accuracy that were lost; where no classes are known, of answers that changed, which are at least as many."""
    return (found.changed_points or 0.0) if found.drop_points is None else found.drop_points


def _file_bytes(program: Program) -> int:
    return sum(len(piece) for piece in pieces(program))


def _spread(points: Sequence[Point]) -> list[int]:
    """At most `MOST_TRIED` of the choices, about evenly by the logarithm of their damage."""
    if len(points) <= MOST_TRIED:
        return list(range(len(points)))
    powers = np.log10([min(max(each.damage, 1e-6), 1e3) for each in points])
    wanted = np.linspace(powers[0], powers[-1], MOST_TRIED)
    return sorted({0, len(points) - 1, *(int(np.abs(powers - power).argmin()) for power in wanted)})
