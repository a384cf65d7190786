"""Lowering the precision of a network on request: what `--bits`, `--layer` and `--activation-bits` mean.

| bits    | weights                                                     | activations, by `activation_bits`                    |
|---------|-------------------------------------------------------------|------------------------------------------------------|
| 32      | as they are                                                 | 32: float32                                          |
| 16      | float16, or float32 where its range is too small            | 32                                                   |
| 8       | int8, one scale per output channel                          | 32; 8, 4, 2: calibrated (`edge.converters.int8`)     |
| 4, 2    | whole numbers of so many bits, one scale per output channel | the same                                             |
| ternary | -1, 0 and 1 (`edge.converters.levels`), stored in 2 bits    | the same                                             |
| 1       | alpha * sign(w), alpha = mean of abs(w) per output channel  | the same, and 1: signs                               |

Below 8 the first and last layer stay as with 8. With example pictures weights of less than 8 bits are rounded by what layers give for them
(`edge.converters.rounding`), signs too, unless their inputs become signs. `layers` gives some of them bits of their own.

What a network was trained with is never lowered further: layers with signs, or with weights quantized to 8 bits or less, keep their weights
at every width, and in a network that has such layers `bits` below 8 leave the others as they are too, unless int8 activations make them
integer, as with 8. Which widths there are, `edge.widths` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edge.converters.calibration import Statistics
from edge.converters.int8 import quantize_int8, shifted, to_int8
from edge.converters.integer_ends import before_ends, with_int8_inputs, with_int8_outputs
from edge.converters.layer_bits import given_bits
from edge.converters.levels import EIGHT_BITS, LEVEL_OPS, LEVELS, Levels, narrowest, on_levels
from edge.converters.passes import run_passes
from edge.converters.passes_exact import read_bytes, real_weights
from edge.converters.passes_fold import fuse_activations
from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, stored, sweep
from edge.converters.signs import binarized, binarized_both
from edge.converters.thresholds import find_thresholds
from edge.errors import InputError
from edge.graph import Array, Graph, Node
from edge.tensors import Encoding
from edge.widths import DEFAULT_RANGES, INPUT_DTYPES, INT8, INTEGERS, OUTPUT_DTYPES, RANGES, TERNARY, WIDTHS, Bits

BITS, F32 = Encoding.BITS, Encoding.FLOAT32
_INT8_BITS = 8
LARGEST_HALF = float(np.finfo(np.float16).max)
FIRST_LAYER_SHARE = 0.1  # of all weights; a first layer that holds more is not kept at 8 bits


@dataclass(frozen=True)
class Request:
    """What was asked: bits of weights and of activations, and the statistics of the tensors of `measured` (empty: not calibrated).

    `layers` are patterns of layer names with bits of their own, of which the last that matches counts; `rounded` the filters on levels, by
    the tensor that their layer gives, where pictures have decided on them, `shifts` what is added to the biases of others, by channel
    (`edge.converters.biases`); `ranges` says how ranges of int8 are found. The dtypes are those of the network's ends.
    """

    bits: Bits
    activation_bits: int = 32
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    layers: tuple[tuple[str, Bits], ...] = ()
    rounded: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    shifts: Mapping[str, Array] = field(default_factory=dict)
    ranges: str = DEFAULT_RANGES
    input_dtype: str = "auto"
    output_dtype: str = "float32"

    def __post_init__(self) -> None:
        for bits in (self.bits, *(bits for _, bits in self.layers)):
            if bits not in WIDTHS:
                raise InputError(f"bits should be one of {', '.join(map(str, WIDTHS))}, got {bits!r}")
        _check_one_of("ranges", self.ranges, RANGES)
        _check_one_of("input_dtype", self.input_dtype, INPUT_DTYPES)
        _check_one_of("output_dtype", self.output_dtype, OUTPUT_DTYPES)
        allowed = ACTIVATIONS.get(self.bits, (*INTEGERS, 32))
        if self.activation_bits not in allowed:
            *few, last = map(str, allowed)
            known = f"{', '.join(few)} or {last}" if few else last
            raise InputError(f"activation bits should be {known} with bits {self.bits}, got {self.activation_bits!r}")

    @property
    def has_integers(self) -> bool:
        """Whether activations are int8 when run, on all of its levels or on those of fewer bits."""
        return self.activation_bits in INTEGERS

    @property
    def has_int8_ends(self) -> bool:
        """Whether inputs or outputs are int8, which may need ranges of their own."""
        return INT8 in (self.input_dtype, self.output_dtype)

    @property
    def has_levels(self) -> bool:
        """Whether weights of less than 8 bits were asked for."""
        return any(bits in LEVELS for bits in (self.bits, *(bits for _, bits in self.layers)))


def _check_one_of(name: str, chosen: str, known: tuple[str, ...]) -> None:
    if chosen not in known:
        raise InputError(f"{name} should be one of {', '.join(known)}, got {chosen!r}")


def requested(
    bits: Bits, activation_bits: int | None, *, calibrated: bool, layers: Mapping[str, Bits] | None = None, **others: str
) -> Request:
    """The request for these bits; without `activation_bits`, 8 of them where pictures to calibrate on come with weights of 8 bits or less.

    `layers` gives the layers whose names match a pattern (`conv?`, `block*`) bits of their own; `others` are fields of `Request`.
    """
    default = 8 if calibrated and bits not in (16, 32) else 32
    request = Request(bits, default if activation_bits is None else activation_bits, layers=tuple((layers or {}).items()), **others)  # type: ignore[arg-type]
    if request.has_integers and not calibrated:
        needed = f"activation bits {request.activation_bits} need pictures to measure ranges on"
        raise InputError(f"{needed}, got none; give --calibrate a file or folder with pictures")
    return request


def measured(graph: Graph, request: Request) -> Graph:
    """The network, of `graph`'s tensors, whose statistics `choose_bits` wants: one with weights of few bits has ranges of its own."""
    ends = request.has_int8_ends and request.activation_bits != 1  # signs are placed by statistics of the network as it was
    return with_weights(graph, request) if request.has_integers or ends else graph


def few_levels(graph: Graph, request: Request) -> dict[str, int]:
    """The tensors of 4 or 2 bits, where these were asked for, and how many: what layers with weights read, but the first and the last."""
    if not request.has_integers or request.activation_bits == _INT8_BITS:
        return {}
    kept = {node.output for nodes in _ends(graph) for node in nodes}
    return {node.inputs[0]: request.activation_bits for node in _weighted(graph) if node.output not in kept}


def with_weights(graph: Graph, request: Request) -> Graph:
    """The network with weights of less than 8 bits where the request has them; its activations, and all else, as they are."""
    chosen = _weight_bits(graph, request)
    for node in _weighted(graph):
        if node.output in chosen:
            graph = _at_bits(graph, node, chosen[node.output], request)
            now = graph.producer(node.output)
            if now is not None and node.output in request.shifts:
                graph = _each(graph, {node.output: shifted(now, request.shifts)})
    return graph


def lowered_layers(graph: Graph, request: Request) -> list[Node]:
    """The layers whose float weights the request lowers, each for itself unless pictures round them.

    Where all are to have 8 bits, or int8 inputs, some of these may stay float after all.
    """
    chosen, rest = _weight_bits(graph, request), 8 if request.has_integers or request.bits == 8 else 32
    floats = [node for node in _weighted(graph) if stored(node) is F32 and encoding(graph, node.inputs[0]) is F32]
    lowered = [node for node in floats if chosen.get(node.output, rest) not in (16, 32)]
    return [node for node in lowered if not chosen.get(node.output) == request.activation_bits == 1]


def level_layers(graph: Graph, request: Request) -> dict[str, Levels]:
    """The layers whose weights pictures can round, by the tensor that they give: those on levels and, if there are any, those of 8 bits
    behind the first."""
    chosen, first = _weight_bits(graph, request), {node.output for node in _ends(graph)[0]}
    able = {node.output for node in _weighted(graph) if node.op in LEVEL_OPS and stored(node) is F32}
    able -= {name for name, bits in chosen.items() if bits == request.activation_bits == 1}  # they read something else
    few = {name: LEVELS[bits] for name, bits in chosen.items() if bits in LEVELS and name in able}
    eight = {name: EIGHT_BITS for name, bits in chosen.items() if bits == 8 and name in able - first}
    return few | eight if few else {}


def misses_pictures(graph: Graph, request: Request) -> bool:
    """Whether pictures would have rounded weights of a network, as it was read."""
    return request.has_levels and request.activation_bits != 1 and not _is_trained_low(graph)


def choose_bits(graph: Graph, request: Request) -> Graph:
    """`graph`, after the passes of `edge.converters.passes`, at the precision that was asked for, and simplified again."""

    def lower_precision(graph: Graph) -> Graph:
        return _LOWERING.get(request.bits, _few_bits)(edit(graph, note=_quantized_notes(graph, request)), request)

    def int8_ends(graph: Graph) -> Graph:
        return _int8_ends(graph, request)

    return run_passes(graph, (lower_precision, _read_bytes, find_thresholds, fuse_activations, int8_ends))


def _int8_ends(graph: Graph, request: Request) -> Graph:
    graph = with_int8_inputs(graph, request.statistics) if request.input_dtype == INT8 else graph
    return with_int8_outputs(graph, request.statistics) if request.output_dtype == INT8 else graph


def is_binarized(graph: Graph) -> bool:
    """Whether a network was trained with signs: it has packed tensors or packed filters."""
    packed = any(kind.encoding is BITS for kind in graph.types.values())
    return packed or any(stored(node) is BITS for node in _weighted(graph))


def _quantized(graph: Graph, node: Node) -> int:
    """To how many bits a layer's weights were quantized in training; 0 where they were not, or to more than 8."""
    bits = max((graph.trained.get(name, 0) for name in node.layers), default=0)
    return bits if bits <= _INT8_BITS else 0


def _quantized_notes(graph: Graph, request: Request) -> dict[str, str]:
    """How many bits quantized weights take here, beside those they were trained for."""
    notes: dict[str, str] = {}
    for node in _weighted(graph):
        bits = max((graph.trained.get(name, 0) for name in node.layers), default=0)
        kept = stored(node) is not F32 or request.bits == 32 or (bits <= _INT8_BITS and request.activation_bits == 32)
        if bits > 1 and kept:
            place = "as pairs of signs" if stored(node) is BITS else f"in {narrowest(node).bits} bits"
            notes |= dict.fromkeys(node.layers, f"trained with weights of {bits} bits, stored exactly, {place}")
    return notes


def _read_bytes(graph: Graph) -> Graph:
    return sweep(graph, lambda graph, node: read_bytes(graph, node, exact=False) if encoding(graph, node.output) is not BITS else None)


# -- 32 bits and 8 bits --------------------------------------------------------------------------------------------------------


def _as_it_is(graph: Graph, request: Request) -> Graph:
    return with_weights(graph, request)


def _eight_bits(graph: Graph, request: Request) -> Graph:
    graph = with_weights(graph, request)
    if request.has_integers:
        return _integer(graph, request)
    return _each(graph, {node.output: shifted(to_int8(node), request.shifts) for node in _left_to_lower(graph, request)})


def _sixteen_bits(graph: Graph, request: Request) -> Graph:
    graph = with_weights(graph, request)
    for node in _left_to_lower(graph, request):
        graph = _at_16(graph, node)
    return graph


def _left_to_lower(graph: Graph, request: Request) -> list[Node]:
    """The layers with float weights that were not quantized in training and have no bits of their own."""
    given = given_bits(_weighted(graph), request.layers)
    return [node for node in _weighted(graph) if stored(node) is F32 and not _quantized(graph, node) and node.output not in given]


def _at_16(graph: Graph, node: Node) -> Graph:
    filters = node.constants["filter"]
    if not np.abs(filters).max() <= LARGEST_HALF:
        why = f"its weights stay float32, since some exceed {LARGEST_HALF:g}, the largest number of float16"
        return _each(graph, {}, dict.fromkeys(node.layers, why))
    return _each(graph, {node.output: replace(node, constants={**node.constants, "filter": filters.astype(np.float16)})})


def _each(graph: Graph, changed: Mapping[str, Node], notes: Mapping[str, str] | None = None) -> Graph:
    return edit(graph, replacing={name: (node,) for name, node in changed.items()}, note=notes)


def _weighted(graph: Graph) -> list[Node]:
    """The nodes with weights, without those whose filter only selects channels: they are exact in int8, and nothing at 1 bit."""
    return [node for node in graph.nodes if node.op in WEIGHT_OPS and not _selects(node)]


def _selects(node: Node) -> bool:
    """Whether a node gives some of its input's channels, as `tf.split` does: a 1x1 convolution by rows of the identity."""
    filters, scale = node.constants["filter"], node.constants.get("scale", np.ones(1, np.float32))
    if node.op != "conv2d" or filters.shape[1:3] != (1, 1) or stored(node) is BITS or "bias" in node.constants:
        return False
    ones = np.count_nonzero(filters, axis=(1, 2, 3)) == 1
    return bool(ones.all() and (filters.max(axis=(1, 2, 3)) == 1).all() and (scale == 1).all())


# -- fewer bits ----------------------------------------------------------------------------------------------------------------


def _few_bits(graph: Graph, request: Request) -> Graph:
    integer, trained = request.has_integers, _is_trained_low(graph)
    notes = {} if trained and integer else _as_trained(graph) if trained else _kept_at_8(graph, request)[1]
    graph = edit(with_weights(graph, request), note=notes)
    return _integer(graph, request) if integer else graph


def _integer(graph: Graph, request: Request) -> Graph:
    floats, few = _left_float(graph, request), few_levels(graph, request)
    ends = before_ends(graph) if request.output_dtype == INT8 else frozenset[str]()
    return quantize_int8(graph, request.statistics, floats=floats, shifts=request.shifts, few=few, ends=ends)


def _left_float(graph: Graph, request: Request) -> frozenset[str]:
    """What layers give that are to stay float32 between int8 ones."""
    return frozenset(name for name, bits in given_bits(_weighted(graph), request.layers).items() if bits in (16, 32))


def _is_trained_low(graph: Graph) -> bool:
    """Whether some layer was trained with signs, or with weights of 8 bits or less."""
    return is_binarized(graph) or any(_quantized(graph, node) for node in _weighted(graph))


def _weight_bits(graph: Graph, request: Request) -> dict[str, Bits]:
    """The bits of the layers whose weights are lowered, by the tensor that they give."""
    given = given_bits(_weighted(graph), request.layers)
    if request.bits in (8, 16, 32) or _is_trained_low(graph):
        return given
    kept, _ = _kept_at_8(graph, request)
    return {node.output: 8 if node.output in kept else request.bits for node in _weighted(graph)} | given


def _at_bits(graph: Graph, node: Node, bits: Bits, request: Request) -> Graph:
    """`graph` with weights of `bits` in one layer, which keeps what it was trained with if that is less."""
    if bits == 32 or stored(node) is BITS:
        return graph
    if bits == 16:
        return _at_16(graph, node) if stored(node) is F32 else graph
    if bits == 8:
        rounded = request.rounded.get(node.output)
        return _each(graph, {node.output: replace(node, constants={**node.constants, **rounded})}) if rounded else _stays_at_8(graph, node)
    if bits == request.activation_bits == 1:
        return binarized_both(graph, node, request.statistics)
    if node.op == "depthwise_conv2d" and bits != 1:
        return _stays_at_8(graph, node, "its filter stays at 8 bits: depthwise ones are small, and few bits cost them most")
    if node.op == "depthwise_conv2d" and request.has_integers:
        return _stays_at_8(graph, node, "its filter stays at 8 bits, as its input has 8; --activation-bits 32 packs it")
    return _each(graph, {node.output: _on_levels(node, bits, request)})


def _on_levels(node: Node, bits: Bits, request: Request) -> Node:
    """The same layer with weights on levels: those that pictures have decided on, else those nearest to its own."""
    found = request.rounded.get(node.output)
    if found is None and bits == 1:
        return binarized(node)
    if found is None:
        real = replace(node, constants={"filter": real_weights(node)})
        found = on_levels(real, LEVELS[bits])
    return replace(node, constants={**node.constants, **found})


def _stays_at_8(graph: Graph, node: Node, why: str = "") -> Graph:
    return _each(graph, {node.output: to_int8(node)} if stored(node) is F32 else {}, dict.fromkeys(node.layers if why else (), why))


def _notes(nodes: list[Node], text: str) -> dict[str, str]:
    """The same note for the layers of all nodes whose filter is not packed."""
    return {name: text for node in nodes if stored(node) is not BITS for name in node.layers}


def _as_trained(graph: Graph) -> dict[str, str]:
    """Why layers of a network that was trained with signs are not at 1 bit."""
    whole, real = ([node for node in _weighted(graph) if stored(node) is kind] for kind in (Encoding.INT8, F32))
    exact = "not trained with signs; weights on a grid of 8 bits, stored so, exactly; train binary to have them packed"
    float_ = "not trained with signs, so kept in float32; --bits 8 stores 8 bits, training binary packs them"
    return _notes(whole, exact) | _notes(real, float_)


def _kept_at_8(graph: Graph, request: Request) -> tuple[set[str], dict[str, str]]:
    """The outputs of the first and last weight layers, which stay at 8 bits, and the notes that say so."""
    given = given_bits(_weighted(graph), request.layers)
    sizes = {node.output: node.constants["filter"].size for node in _weighted(graph)}
    first, last = _ends(graph)
    notes: dict[str, str] = {}
    if sum(sizes[node.output] for node in first) > FIRST_LAYER_SHARE * sum(sizes.values()):
        first = []
    for nodes, place in ((first, "first"), (last, "last")):
        notes |= _notes([node for node in nodes if node.output not in given], _why_kept(place, request.bits))
    return {node.output for node in (*first, *last)}, notes


def _why_kept(place: str, bits: Bits) -> str:
    if bits == 1:
        return f"the {place} layer stays at 8 bits, where 1 bit costs most accuracy; train it binary to have it packed"
    fewer = "ternary weights cost" if bits == TERNARY else f"{bits} bits cost"
    return f"the {place} layer stays at 8 bits, where {fewer} most accuracy; --layer NAME={bits} stores it so all the same"


def _ends(graph: Graph) -> tuple[list[Node], list[Node]]:
    """Weight nodes with no weight node before them, and those with none after them."""
    weighted = {node.output for node in _weighted(graph)}
    behind: set[str] = set()  # tensors that depend on a weight node
    first = []
    for node in graph.nodes:
        depends = any(name in behind for name in node.inputs)
        first += [node] if node.output in weighted and not depends else []
        behind.update([node.output] if depends or node.output in weighted else [])
    ahead: set[str] = set()  # tensors that a weight node depends on
    last = []
    for node in reversed(graph.nodes):
        last += [node] if node.output in weighted and node.output not in ahead else []
        ahead.update(node.inputs if node.output in weighted or node.output in ahead else ())
    return first, last[::-1]


_LOWERING: Mapping[Bits, Callable[[Graph, Request], Graph]] = {8: _eight_bits, 16: _sixteen_bits, 32: _as_it_is}
ACTIVATIONS: Mapping[Bits, tuple[int, ...]] = {1: (1, *INTEGERS, 32), 16: (32,), 32: (32,)}  # by bits of weights; all others: no signs
