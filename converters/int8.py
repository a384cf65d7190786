"""Full integer quantization: int8 activations by the ranges seen on example pictures; int8 weights per output channel, or signs.

    x = scale * (q - zero_point)     activations, one scale and zero point per tensor; 0 is exact, so padding is
    w[o] = scale[o] * q              weights, abs(q) <= 127, or the +-1 of packed filters, which stay packed

Tensors of k = 4 or 2 bits take the 2^k whole numbers q up to 127, where int8 saturates by itself. From below a ReLU stops at the zero
point, which is one of them; without one the layer before gives q - 256 + 2^k, where int8 saturates at the least of them, and another one,
which does nothing else, moves them up.

The scales of input and weights are one multiplier per output channel, applied to the sum of products as it is rounded to int8.

Integer are the layers with filters, and between them sums, pools, concatenations, scalings and ReLU; whatever else there is (softmax,
sigmoid, packed layers) reads and gives float32, through `dequantize` and `quantize`. Pools, reshapes, padding and concatenations keep the
quantization of their inputs, so all tensors that they connect share one. Tensors of which only signs are taken are not quantized: a layer
before them gives its sums, of which `find_thresholds` takes the signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edge.converters.calibration import Statistics
from edge.converters.passes_exact import byte_factor, joined, over_filter, parts, per_channel
from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, fresh, new_node, stored
from edge.graph import Array, Graph, Node
from edge.ops import FUSED_ACTIVATIONS, NO_ACTIVATION, OPS, Activation
from edge.tensors import Encoding, TensorType

F32, I8, U8, BITS = Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8, Encoding.BITS
# Give int8 with the quantization of what they read.
CARRIERS = ("max_pool2d", "average_pool2d", "reshape", "pad2d", "concat", "slice", "resize_nearest", "transpose", "depth_to_space")


def to_int8(node: Node) -> Node:
    """A weight node with its float filter as int8 and a scale per output channel; the input stays what it is."""
    return replace(node, constants={**node.constants, **joined(node, [_int8_filter(part) for part in parts(node)])})


def shifted(node: Node, shifts: Mapping[str, Array]) -> Node:
    """A weight node with what is to be added to its bias, if anything is."""
    if node.output not in shifts:
        return node
    return replace(node, constants={**node.constants, "bias": node.constants.get("bias", np.float32(0)) + shifts[node.output]})


def _int8_filter(node: Node) -> dict[str, Array]:
    weights = node.constants["filter"].astype(np.float64)
    largest = over_filter(node, np.abs(weights), np.maximum)
    scale = np.where(largest > 0, largest, 127.0) / 127.0
    whole = np.rint(weights / per_channel(node, scale)).astype(np.int8)
    return {"filter": whole, "scale": scale.astype(np.float32)}


def quantize_int8(
    graph: Graph,
    statistics: Mapping[str, Statistics],
    *,
    floats: frozenset[str] = frozenset(),
    shifts: Mapping[str, Array] | None = None,
    few: Mapping[str, int] | None = None,
    ends: frozenset[str] = frozenset(),
) -> Graph:
    """The integer form of a network; float filters become int8. `statistics` has the range of every float32 tensor.

    Layers that give the tensors of `floats` stay as they are; `shifts` are added to the biases of those whose filters become int8 here.
    The tensors of `few`, and those that share their quantization, take 4 or 2 bits, as it says. Layers that give the tensors of `ends`
    give int8, as others do for integer readers alone.
    """
    plan = _plan(graph, floats)
    work = _Work(graph, plan, *_quantizations(graph, plan, statistics, few or {}), shifts or {}, ends)
    for node in graph.nodes:
        work.take(node)
    outputs = tuple(work.real(name) for name in graph.outputs)
    return edit(replace(graph, nodes=tuple(work.nodes), types=work.types, outputs=outputs))


def _plan(graph: Graph, floats: frozenset[str]) -> frozenset[str]:
    """The outputs of the nodes that become integer."""
    signed = _only_signed(graph)
    integer: set[str] = set()
    for node in graph.nodes:
        known = all(name in integer for name in node.inputs) and node.output not in signed
        layer = _is_integer_layer(graph, node) and node.output not in floats
        if layer or (known and encoding(graph, node.output) is F32 and _has_integer_form(node)):
            integer.add(node.output)
    return frozenset(integer)


def _has_integer_form(node: Node) -> bool:
    """Whether a node without a filter can work on int8."""
    return node.op in (*CARRIERS, "add") or _is_scaling(node)


def _is_scaling(node: Node) -> bool:
    """Whether a node is a scaling per channel, or an activation that such a scaling can have."""
    return node.op == "affine" or (node.op == "activation" and Activation(int(node.attrs["activation"])) in FUSED_ACTIVATIONS)


def _only_signed(graph: Graph) -> set[str]:
    """The tensors of which only signs are taken, at once or behind pools and scalings."""
    signed: set[str] = set()
    for node in reversed(graph.nodes):
        readers = graph.consumers(node.output)
        kept = node.output in graph.outputs or not readers
        if not kept and all(reader.op == "binarize" or reader.output in signed for reader in readers) and _passes_signs(node):
            signed.add(node.output)
    return signed


def _passes_signs(node: Node) -> bool:
    return node.op == "max_pool2d" or _is_scaling(node)


def _is_integer_layer(graph: Graph, node: Node) -> bool:
    """Layers with filters on float32 tensors, unless these are unpacked signs, which 8 bits would only blur."""
    if node.op not in WEIGHT_OPS or (I8, BITS if stored(node) is BITS else I8, I8) not in OPS[node.op].signatures:
        return False
    source = graph.producer(node.inputs[0])
    floats = encoding(graph, node.inputs[0]) is F32 and encoding(graph, node.output) is F32
    return floats and not (source is not None and source.op == "unpack")


# -- ranges --------------------------------------------------------------------------------------------------------------------


def _quantizations(
    graph: Graph, plan: frozenset[str], statistics: Mapping[str, Statistics], few: Mapping[str, int]
) -> tuple[dict[str, TensorType], dict[str, int]]:
    """The int8 type of every float32 tensor, and the bits of those that take less than 8."""
    leader = {name: name for name in graph.types}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        if node.op in CARRIERS and node.output in plan:
            for name in node.inputs:
                leader[find(name)] = find(node.output)
    ranges: dict[str, tuple[float, float]] = {}
    for name, known in statistics.items():
        low, high = ranges.get(find(name), (0.0, 0.0))
        ranges[find(name)] = min(low, known.low), max(high, known.high)
    bits = {find(name): few[name] for name in statistics if name in few}
    narrow = {name: bits[find(name)] for name in statistics if find(name) in bits}
    return {name: int8_type(graph.types[name].shape, *ranges[find(name)], narrow.get(name, 8)) for name in statistics}, narrow


def int8_type(shape: tuple[int, ...], low: float, high: float, bits: int = 8) -> TensorType:
    """The 2^bits - 1 steps from `low` to `high`, up to 127, between which 0 lies; the zero point is whole, so that 0 is exact."""
    steps = 2**bits - 1
    scale = float(np.float32((high - low) / steps)) if high - low > 1e-20 else 1.0
    return TensorType(shape, I8, scale, int(np.clip(np.rint(127 - steps - low / scale), 127 - steps, 127)))


# -- rewriting -----------------------------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """The graph being written. Every tensor keeps its name; a second form of it, float32 or int8, gets a name of its own."""

    graph: Graph
    plan: frozenset[str]
    int8: Mapping[str, TensorType]
    narrow: Mapping[str, int]
    shifts: Mapping[str, Array]
    ends: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    forms: dict[tuple[str, Encoding], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.types.update(self.graph.types)

    def take(self, node: Node) -> None:
        """Write a node of the source, integer or as it is."""
        if node.output not in self.plan:
            self.nodes.append(replace(node, inputs=tuple(self.real(name) for name in node.inputs)))
        elif node.op in WEIGHT_OPS:
            self._layer(node)
        elif _is_scaling(node):
            self._layer(_as_depthwise(self.graph, node))
        else:
            self.types[node.output] = self.int8[node.output]
            self._add(replace(node, inputs=tuple(self.integer(name) for name in node.inputs)), node.output)

    def _layer(self, node: Node) -> None:
        """A layer with a filter: int8 or bytes in; int8 out if an integer node reads it, or an end wants it, else float32."""
        node = shifted(to_int8(node), self.shifts) if stored(node) is F32 else node
        source, factor = self._bytes(node.inputs[0]) or (self.integer(node.inputs[0]), self.int8[node.inputs[0]].scale)
        if node.output in self.ends or any(reader.output in self.plan for reader in self.graph.consumers(node.output)):
            self.types[node.output] = self.int8[node.output]
        scale = (node.constants["scale"].astype(np.float64) * factor).astype(np.float32)
        constants = {**node.constants, "scale": scale}
        if "bias" in constants and self.types[node.output].encoding is I8:
            constants["bias"] = _whole_steps(constants["bias"], scale / np.float32(parts_of_step(constants["filter"])))
        self._add(replace(node, inputs=(source,), constants=constants), node.output)

    def _add(self, node: Node, tensor: str) -> None:
        """Write a node that gives a form of `tensor`, on the levels that it has."""
        kind = self.types[node.output]
        bounded = node.op in CARRIERS or node.attrs.get("activation") == Activation.RELU
        if tensor not in self.narrow or kind.encoding is not I8 or bounded:
            self.nodes.append(node)
            return
        name = fresh(replace(self.graph, types=self.types), f"{node.output}/low")
        self.types[name] = replace(kind, zero_point=kind.zero_point - 256 + 2 ** self.narrow[tensor])
        same = np.full(kind.shape[-1], kind.scale, np.float32)
        self.nodes += [replace(node, output=name), _depthwise(node, name, same, None, NO_ACTIVATION)]

    def _bytes(self, tensor: str) -> tuple[str, float] | None:
        """The bytes that a rescaled picture is made of, and the factor; None for other tensors."""
        producer = self.graph.producer(tensor)
        factor = None if producer is None else byte_factor(self.graph, producer)
        return None if producer is None or factor is None else (producer.inputs[0], float(factor[0]))

    def integer(self, tensor: str) -> str:
        """The int8 form of a tensor."""
        if self.types[tensor].encoding is I8:
            return tensor
        return self._form(tensor, "quantize", self.int8[tensor])

    def real(self, tensor: str) -> str:
        """The form of a tensor that the source has: float32 where this pass made it int8."""
        if self.types[tensor] == self.graph.types[tensor]:
            return tensor
        return self._form(tensor, "dequantize", self.graph.types[tensor])

    def _form(self, tensor: str, op: str, kind: TensorType) -> str:
        key = (tensor, kind.encoding)
        if key not in self.forms:
            name = fresh(replace(self.graph, types=self.types), f"{tensor}/{kind.encoding.name.lower()}")
            producer = self.graph.producer(tensor)
            self.types[name], self.forms[key] = kind, name
            self._add(new_node(op, (tensor,), name, producer.layers if producer else ()), tensor)
        return self.forms[key]


def parts_of_step(filters: Array) -> int:
    """Into how many parts to divide a step of the sum of products for the bias: as many as int8 filters can be multiplied by.

    That is 1 for most int8 filters and 127 for signs: where a layer sums few of these, a bias in whole steps would move outputs far.
    """
    return max(1, 127 // max(1, int(filters.max()), -int(filters.min())))


def _whole_steps(bias: Array, step: Array) -> Array:
    """The bias in whole steps: what integer kernels of other runtimes add, so that they give the same values."""
    steps = np.where(step == 0, 1.0, step).astype(np.float64)
    return np.where(step == 0, bias, np.rint(bias / steps) * steps).astype(np.float32)


def _as_depthwise(graph: Graph, node: Node) -> Node:
    """Scaling per channel, or ReLU, as a 1x1 depthwise convolution."""
    mul = node.constants.get("mul", np.ones(graph.types[node.output].shape[-1], np.float32))
    return _depthwise(node, node.inputs[0], mul, node.constants.get("add"), {name: node.attrs[name] for name in NO_ACTIVATION})


def _depthwise(node: Node, source: str, mul: Array, add: Array | None, attrs: Mapping[str, int | float]) -> Node:
    """A 1x1 depthwise convolution that gives what `node` does: the filter is 127 or -127, all else is in its scale."""
    constants = {"filter": np.where(mul < 0, -127, 127).astype(np.int8).reshape(1, 1, -1), "scale": np.abs(mul) / np.float32(127)}
    if add is not None:
        constants["bias"] = add
    return new_node("depthwise_conv2d", (source,), node.output, node.layers, constants, groups=len(mul), **attrs)
