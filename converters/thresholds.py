"""The pass `find_thresholds`: a chain from an integer accumulator to a sign becomes one comparison per output channel.

    conv2d or dense  ->  [max_pool2d]  ->  affine, activation, ...  ->  binarize

1. Let F(a) = +-1 be the sign at the end for the accumulator a. It is evaluated at every integer a that can be reached, with the float32
   arithmetic of `edge.kernels.reference`, rounding included. (Folding batch norm first would round differently, and change bits.)
2. No flip over all a: a constant, the threshold lies outside what can be reached. One flip upward: +1 where a >= T. One flip downward:
   +1 where a <= T, which is -a >= -T: the filter is negated. More flips (a leaky ReLU with a negative slope): the layer stays float.
3. A max-pool takes the largest of E(a), the part of the chain before it. Where E rises and F rises, or both fall, that is the largest of
   the signs; else it is their smallest, and the pool is told so per channel (`flip`).

Where a channel can reach more than `EXHAUSTIVE` accumulators the flip is found by bisection instead, if each step is monotone: float32
rounding keeps the order of values, so a chain of such steps flips at most once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge.converters.passes_exact import over_filter
from edge.converters.rewriting import edit, encoding, fresh, new_node, stored, sweep
from edge.graph import Array, Graph, Node, constant_type
from edge.kernels.reference import evaluate
from edge.layout import writes_packed_groups
from edge.ops import NO_ACTIVATION, OPS, Activation, OpCall
from edge.tensors import Encoding, TensorType

EXHAUSTIVE = 1 << 20
_VALUES_AT_ONCE = 1 << 22
BITS = Encoding.BITS


def find_thresholds(graph: Graph) -> Graph:
    """Chains from an integer accumulator to a sign become one packed layer with a threshold per channel."""
    return sweep(graph, _find_thresholds)


@dataclass(frozen=True)
class _Chain:
    """From a weight node to a sign. `before` and `after` are elementwise steps around the max-pool (all in `after` without one)."""

    node: Node
    before: tuple[Node, ...]
    pool: Node | None
    after: tuple[Node, ...]
    sign: Node


def _find_thresholds(graph: Graph, node: Node) -> Graph | None:
    chain = _chain(graph, node)
    if chain is None:
        return None
    found = _search(graph, chain)
    if found is None:
        note = "its sign changes more than once, so it stays float before it; use an activation that never falls"
        known = all(name in graph.notes for name in node.layers)
        return None if known else edit(graph, note=dict.fromkeys(node.layers, note))
    return _packed(graph, chain, found)


# -- finding the chain ---------------------------------------------------------------------------------------------------------


def _chain(graph: Graph, node: Node) -> _Chain | None:
    if node.op not in ("conv2d", "dense") or not _is_integer(graph, node) or encoding(graph, node.output) is not Encoding.FLOAT32:
        return None
    if not writes_packed_groups(graph.types[node.output].shape[-1], int(node.attrs.get("groups", 1))):
        return None
    before: list[Node] = []
    steps: list[Node] = []
    pool: Node | None = None
    step = graph.only_consumer(node.output)
    while step is not None and step.op != "binarize":
        if step.op == "max_pool2d" and pool is None:
            pool, before, steps = step, steps, []
        elif step.op == "affine" or (step.op == "activation" and step.attrs["activation"] in (Activation.RELU, Activation.LEAKY_RELU)):
            steps.append(step)
        else:
            return None
        step = graph.only_consumer(step.output)
    return None if step is None else _Chain(node, tuple(before), pool, tuple(steps), step)


def _is_integer(graph: Graph, node: Node) -> bool:
    signature = (encoding(graph, node.inputs[0]), stored(node), BITS)
    return signature[0] is not Encoding.FLOAT32 and signature in OPS[node.op].signatures


# -- evaluating it -------------------------------------------------------------------------------------------------------------


def _epilogue(node: Node) -> Node:
    """Scale, bias and activation of a weight node as an affine step of its own."""
    roles = {"mul": "scale", "add": "bias"}
    constants = {role: node.constants[name] for role, name in roles.items() if name in node.constants}
    return new_node("affine", ("",), "", (), constants, **{name: node.attrs[name] for name in NO_ACTIVATION})


def _run(steps: tuple[Node, ...], values: Array, channels: slice) -> Array:
    """`values` (K, C of `channels`) after each step; the last may be a sign."""
    kind = TensorType(values.shape)
    for step in steps:
        constants = {role: array[channels] for role, array in step.constants.items()}
        call = OpCall((kind,), {role: constant_type(array) for role, array in constants.items()}, step.attrs)
        output = replace(kind, encoding=BITS) if step.op == "binarize" else kind
        values = evaluate(step.op, call, output, [values], constants)
    return values


@dataclass(frozen=True)
class _Found:
    """Per output channel: the threshold, whether F falls (the filter must be negated), and whether the pool takes the smallest."""

    threshold: Array
    falls: Array
    flip: Array


def _search(graph: Graph, chain: _Chain) -> _Found | None:
    low, high = _reach(graph, chain.node)
    before = (_epilogue(chain.node), *chain.before) if chain.pool is not None else ()
    whole = (*before, *chain.after, chain.sign) if before else (_epilogue(chain.node), *chain.after, chain.sign)
    parts = []
    for channels in _runs_of_equal_reach(low, high):
        first, last = int(low[channels.start]), int(high[channels.start])
        search = _exhaustive if last - first < EXHAUSTIVE else _bisected if _is_monotone(whole) else None
        part = None if search is None else search(before, whole, first, last, channels)
        if part is None:
            return None
        parts.append(part)
    return _Found(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("threshold", "falls", "flip")))


def _reach(graph: Graph, node: Node) -> tuple[Array, Array]:
    """The least and the largest accumulator of each output channel; taps outside the image count 0, which lies between."""
    kind, filters = graph.types[node.inputs[0]], node.constants["filter"]
    if kind.encoding is BITS:
        terms = np.full(len(filters), filters[0].size, np.int64)
        return -terms, terms
    filters = np.where(filters, -1, 1) if stored(node) is BITS else filters
    least, most = (bound - kind.zero_point for bound in ((0, 255) if kind.encoding is Encoding.UINT8 else (-128, 127)))
    products = np.stack([filters.astype(np.int64) * least, filters.astype(np.int64) * most])
    return over_filter(node, products.min(axis=0), np.add), over_filter(node, products.max(axis=0), np.add)


def _runs_of_equal_reach(low: Array, high: Array) -> Iterator[slice]:
    """Neighbouring channels with the same reach, as many as fit into one evaluation."""
    start = 0
    for channel in range(1, len(low) + 1):
        most = max(1, _VALUES_AT_ONCE // int(high[start] - low[start] + 1))
        if channel == len(low) or (low[channel], high[channel]) != (low[start], high[start]) or channel - start == most:
            yield slice(start, channel)
            start = channel


def _exhaustive(before: tuple[Node, ...], whole: tuple[Node, ...], low: int, high: int, channels: slice) -> _Found | None:
    count = channels.stop - channels.start
    values = np.repeat(np.arange(low, high + 1).astype(np.float32)[:, None], count, axis=1)
    minus = _run(whole, values, channels)
    flips = minus[1:] != minus[:-1]
    falling = _falling(_run(before, values, channels)) if before else np.zeros(count, np.bool_)
    if flips.sum(axis=0).max(initial=0) > 1 or falling is None:
        return None
    last_before = low + (flips.argmax(axis=0) if len(flips) else np.zeros(count, np.int64))
    return _found(minus[0], minus[-1], last_before, (low, high), falling)


def _falling(values: Array) -> Array | None:
    """Per column whether values fall from row to row; None if one both rises and falls."""
    steps = np.diff(values, axis=0)
    rises, falls = (steps > 0).any(axis=0), (steps < 0).any(axis=0)
    return None if (rises & falls).any() or not np.isfinite(values).all() else np.asarray(falls)


def _found(first: Array, last: Array, last_before: Array, reach: tuple[int, int], falling: Array) -> _Found:
    """From the signs at both ends (True is -1), the last accumulator before a flip, and whether the pooled values fall."""
    constant, falls = first == last, last & ~first
    low, high = reach
    rising_threshold = np.where(constant, np.where(first, high + 1, low), last_before + 1)
    return _Found(np.where(falls, -last_before, rising_threshold), falls, falls ^ falling)


def _is_monotone(steps: tuple[Node, ...]) -> bool:
    return all(step.attrs.get("activation") != Activation.LEAKY_RELU or step.attrs["alpha"] >= 0 for step in steps)


def _bisected(before: tuple[Node, ...], whole: tuple[Node, ...], low: int, high: int, channels: slice) -> _Found | None:
    count = channels.stop - channels.start

    def sign(accumulators: Array) -> Array:
        return np.asarray(_run(whole, accumulators.astype(np.float32)[None], channels)[0])

    lower, upper = np.full(count, low), np.full(count, high)
    first, last = sign(lower), sign(upper)
    while (upper - lower).max() > 1:
        middle = (lower + upper) // 2
        early = sign(middle) == first
        lower, upper = np.where(early, middle, lower), np.where(early, upper, middle)
    ends = np.repeat(np.array([[low], [high]], np.float32), count, axis=1)
    falling = _falling(_run(before, ends, channels)) if before else np.zeros(count, np.bool_)
    return None if falling is None else _found(first, last, lower, (low, high), falling)


# -- writing it ----------------------------------------------------------------------------------------------------------------


def _packed(graph: Graph, chain: _Chain, found: _Found) -> Graph:
    filters = chain.node.constants["filter"]
    falls = found.falls.reshape(-1, 1, 1, 1)
    negated = filters ^ falls if filters.dtype == np.bool_ else np.where(falls, -filters, filters).astype(np.int8)
    name = chain.sign.output if chain.pool is None else fresh(graph, f"{chain.node.output}/bits")
    constants = {"filter": negated, "threshold": found.threshold.astype(np.int32)}
    attrs = {**chain.node.attrs, **NO_ACTIVATION}
    layers = _layers(graph, chain, (*chain.before, *chain.after, chain.sign) if chain.pool is None else chain.before)
    node = replace(chain.node, output=name, constants=constants, attrs=attrs, layers=layers)
    types = {name: TensorType(graph.types[chain.node.output].shape, BITS), chain.sign.output: graph.types[chain.sign.output]}
    if chain.pool is None:
        return edit(graph, replacing={chain.sign.output: (node,)}, types=types)
    pool = _pool(graph, chain, found.flip, name)
    return edit(graph, replacing={chain.sign.output: (node, pool)}, types=types)


def _pool(graph: Graph, chain: _Chain, flip: Array, source: str) -> Node:
    assert chain.pool is not None  # `_packed` asks only then
    names = _layers(graph, replace(chain, node=chain.pool), (*chain.after, chain.sign))
    return replace(chain.pool, inputs=(source,), output=chain.sign.output, constants={"flip": flip} if flip.any() else {}, layers=names)


def _layers(graph: Graph, chain: _Chain, steps: tuple[Node, ...]) -> tuple[str, ...]:
    """The layers of a node and of the steps it takes over; an input quantizer belongs to the layer that reads it."""
    readers = {name for reader in graph.consumers(chain.sign.output) for name in reader.layers}
    names = [*chain.node.layers]
    for step in steps:
        names += [name for name in step.layers if name not in names and (step is not chain.sign or name not in readers)]
    return tuple(names)
