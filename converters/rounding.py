"""Rounding weights by what their layer gives on example pictures, not each for itself: second moments of inputs, layer after layer.

With rows a of inputs (the values a window meets) and the float network's sums y = a_float W, the levels of one output channel minimise

    E |y - s q a - b|^2 = s^2 q H q - 2 s q c + constant        H = cov(a, a), c = cov(a, y), b = E y - s q E a

where a is what the network gives that was rounded so far: later layers make up for what earlier ones have lost, and the bias b takes all
of the mean. Where the sums are only added to a tensor that is there before, y includes what that one has lost. Layers of 8 bits behind the
first take part, with more levels. Per layer:

    1. H, c and the means from the pictures; the best real weights w = H^-1 c, held near the trained ones by a ridge.
    2. Scales by least squares (`edge.converters.levels`), each term times its input's variance.
    3. Column by column, in the order of falling variance, the rest of the weights makes up for the rounding of one (GPTQ: Frantar et al.,
       2022, by the Cholesky factor of H^-1), all output channels at once.
    4. Sweeps over the columns: each weight takes the level that is best given all others; between sweeps the best scale for the levels.

Everything is linear algebra in float64; no gradient, no random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.converters.bits import Request, level_layers, with_weights
from edge.converters.calibration import activations
from edge.converters.levels import Levels, fitted_scales
from edge.converters.rewriting import edit, is_plain
from edge.converters.samples import Example
from edge.errors import InputError
from edge.graph import Array, Graph, Node
from edge.kernels.windows import Window
from edge.widths import Bits

MAX_TERMS = 3200  # of a sum; H takes the square of it, several times over
MAX_PRODUCTS = 1 << 32  # of H with the weights of a layer, which every sweep computes
MAX_ROWS = 128  # of a picture; neighbours say much the same
_RIDGE = 0.02  # of the mean variance
_SWEEPS = 8
_BLOCK = 128  # columns, whose changes reach all others at once

Progress = Callable[[int, int], None]
Filters = dict[str, dict[str, Array]]


def with_rounded(graph: Graph, request: Request, pictures: Sequence[Example], tell: Progress | None = None) -> Request:
    """The request with the filters that suit the pictures, for the layers of `graph` that it puts on levels, if any."""
    layers = level_layers(graph, request)
    return replace(request, rounded=rounded(graph, with_weights(graph, request), layers, pictures, tell)) if layers else request


def rounded(graph: Graph, low: Graph, layers: Mapping[str, Levels], pictures: Iterable[Example], tell: Progress | None = None) -> Filters:
    """`filter` (int8, or signs), `scale` and `bias` that suit the inputs on `pictures`, by the tensor that a layer gives.

    `graph` is the float network, `low` the same with weights on levels, `layers` the levels of each. Pictures are iterated once for every
    layer. Layers that do not fit (`fits`) are left out. `tell` is called with the layers done and their number.
    """
    found: Filters = {}
    chosen = [node for node in graph.nodes if node.output in layers and fits(node)]
    for done, node in enumerate(chosen):
        if tell is not None:
            tell(done, len(chosen))
        found[node.output] = _rounded(node, _moments(graph, low, node, pictures), layers[node.output])
        before = low.producer(node.output)
        assert before is not None  # both networks have the same tensors
        low = edit(low, replacing={node.output: (replace(before, constants={**before.constants, **found[node.output]}),)})
    return found


def rounded_alone(graph: Graph, node: Node, widths: Mapping[Bits, Levels], pictures: Iterable[Example]) -> dict[Bits, dict[str, Array]]:
    """`filter`, `scale` and `bias` of one layer by each of several levels, all others as they are; pictures are iterated once.

    Nothing where the layer does not fit.
    """
    if not fits(node):
        return {}
    moments = _moments(graph, graph, node, pictures)
    return {bits: _rounded(node, moments, levels) for bits, levels in widths.items()}


def fits(node: Node) -> bool:
    """Whether a layer is small enough to be rounded by pictures."""
    terms, channels = node.constants["filter"][0].size, len(node.constants["filter"])
    return bool(terms <= MAX_TERMS and terms * terms * channels <= MAX_PRODUCTS)


# -- moments -------------------------------------------------------------------------------------------------------------------


@dataclass
class _Moments:
    """Of the rows of one group of channels: products of inputs, products of inputs and sums of the float network, and all of them added."""

    inputs: Array  # (K, K)
    products: Array  # (K, O)
    input_mean: Array  # (K,)
    output_mean: Array  # (O,)
    rows: int = 0

    def add(self, a: Array, y: Array) -> None:
        for first in range(0, len(self.inputs), _BLOCK):
            self.inputs[first : first + _BLOCK] += a[:, first : first + _BLOCK].T @ a
        self.products += a.T @ y
        self.input_mean += a.sum(axis=0)
        self.output_mean += y.sum(axis=0)
        self.rows += len(a)

    def centred(self) -> _Moments:
        """The covariances, in place of the products, and the means."""
        mean, given = self.input_mean / self.rows, self.output_mean / self.rows
        for products, value in zip(self.inputs, mean, strict=True):
            products /= self.rows
            products -= value * mean
        return _Moments(self.inputs, self.products / self.rows - np.outer(mean, given), mean, given, self.rows)


def _moments(graph: Graph, low: Graph, node: Node, pictures: Iterable[Example]) -> list[_Moments]:
    """Of each group of channels, over all pictures."""
    groups = int(node.attrs.get("groups", 1))
    channels, terms = node.constants["filter"].shape[0] // groups, node.constants["filter"][0].size
    found = [
        _Moments(np.zeros((terms, terms)), np.zeros((terms, channels)), np.zeros(terms), np.zeros(channels)) for _ in range(groups)
    ]
    source, beside = node.inputs[0], _added_to(graph, node)
    graph, low = (up_to(each, (source, beside)) for each in (graph, low))
    for number, (real, now) in enumerate(zip(activations(graph, pictures), activations(low, pictures), strict=True)):
        real_rows, now_rows = (_rows(node, values[source], groups, number) for values in (real, now))
        lost = _taken(real[beside] - now[beside], number) if beside else np.zeros((1, groups * channels), np.float32)
        parts = zip(found, real_rows, now_rows, np.split(node.constants["filter"], groups), np.split(lost, groups, axis=1), strict=True)
        for moments, a_real, a, filters, rest in parts:
            moments.add(a.astype(np.float64), (a_real @ filters.reshape(channels, -1).T + rest).astype(np.float64))
    if not all(np.isfinite(moments.inputs).all() and np.isfinite(moments.products).all() for moments in found):
        raise InputError(f"calibrating {graph.name}: what {source!r} becomes is infinite on a picture; check their range (--preset)")
    return [moments.centred() for moments in found]


def up_to(graph: Graph, tensors: Iterable[str]) -> Graph:
    """What it takes to compute some tensors, of which "" is none; the whole network where that would be nothing."""
    outputs = tuple(dict.fromkeys(name for name in tensors if name not in ("", *graph.inputs)))
    return edit(replace(graph, outputs=outputs, output_names=outputs)) if outputs else graph


def _added_to(graph: Graph, node: Node) -> str:
    """The tensor that the sums of a node, as they are, are added to and that is known before them; "" if there is none."""
    reader = graph.only_consumer(node.output)
    if reader is None or reader.op != "add" or not is_plain(node):
        return ""
    known = {*graph.inputs}
    for each in graph.nodes:
        if each is node:
            break
        known.update(each.outputs)
    return next((name for name in reader.inputs if name in known), "")


def _taken(image: Array, number: int) -> Array:
    """The pixels of an image that are looked at, a row each."""
    pixels = image.reshape(-1, image.shape[-1])
    step = -(-len(pixels) // MAX_ROWS)
    return pixels[number % step :: step]


def _rows(node: Node, image: Array, groups: int, number: int) -> list[Array]:
    """The values that windows meet, a row (kh * kw * depth) for each output pixel, by group; of many, `MAX_ROWS` that differ by picture."""
    taken = np.stack([_taken(tap, number) for tap in seen_by(node, image)], axis=1)  # (rows, taps, channels)
    depth = taken.shape[-1] // groups
    return [taken[..., g * depth : (g + 1) * depth].reshape(len(taken), -1) for g in range(groups)]


def seen_by(node: Node, image: Array) -> list[Array]:
    """What each tap of the window of a layer meets, (rows, columns, C) of its output; of a dense layer, which is one tap, (1, 1, all)."""
    if node.op == "dense":
        return [image.reshape(1, 1, -1)]
    image = image.reshape((1,) * (3 - image.ndim) + image.shape)
    taps_h, taps_w = node.constants["filter"].shape[:2] if node.op == "depthwise_conv2d" else node.constants["filter"].shape[1:3]
    sides = [(int(node.attrs[f"pad_{a}"]), int(node.attrs[f"pad_{b}"])) for a, b in (("top", "bottom"), ("left", "right"))]
    padded = np.pad(image, (*sides, (0, 0)))
    steps = tuple((int(node.attrs[f"{name}_h"]), int(node.attrs[f"{name}_w"])) for name in ("stride", "dilation"))
    return [tap for _, _, tap in Window(taps_h, taps_w, *steps).taps(padded)]


# -- rounding ------------------------------------------------------------------------------------------------------------------


def _rounded(node: Node, moments: list[_Moments], levels: Levels) -> dict[str, Array]:
    """Filter, scale and bias of a layer."""
    filters = node.constants["filter"]
    parts = np.split(filters.reshape(len(filters), -1).astype(np.float64), len(moments))
    found = [_rounded_group(weights, each, levels) for weights, each in zip(parts, moments, strict=True)]
    whole, scale, shift = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    bias = node.constants.get("bias", np.zeros(len(filters), np.float32)) + shift
    return {"filter": levels.stored(whole).reshape(filters.shape), "scale": scale.astype(np.float32), "bias": bias.astype(np.float32)}


def _rounded_group(weights: Array, moments: _Moments, levels: Levels) -> tuple[Array, Array, Array]:
    """Levels (O, K), scales (O) and what is added to the bias (O)."""
    h, terms = moments.inputs.copy(), len(moments.inputs)
    ridge = max(_RIDGE * float(np.trace(h)) / terms, 1e-12)
    h[np.diag_indices(terms)] += ridge
    target = np.linalg.solve(h, moments.products + ridge * weights.T).T
    scale = fitted_scales(target, levels, np.diag(h))
    whole = _column_by_column(target, scale, h, levels)
    for _ in range(_SWEEPS):
        whole = _swept(target, scale, whole, h, levels)
        scale = _best_scale(target, whole, h, scale)
    scale = scale if levels.zero else np.where(target.any(axis=1), scale, 0.0)  # signs alone give no zeros
    return whole, scale, moments.output_mean - (scale[:, None] * whole) @ moments.input_mean


def _column_by_column(target: Array, scale: Array, h: Array, levels: Levels) -> Array:
    """GPTQ: each column rounded in turn, its error spread over those that follow."""
    order = np.argsort(-np.diag(h))
    back = np.argsort(order)
    factor = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    left, whole, errors = target[:, order].copy(), np.empty_like(target), np.empty((len(target), _BLOCK))
    for first in range(0, len(h), _BLOCK):
        end = min(first + _BLOCK, len(h))
        for k in range(first, end):
            whole[:, k] = levels.nearest(left[:, k] / scale)
            errors[:, k - first] = (left[:, k] - scale * whole[:, k]) / factor[k, k]
            left[:, k:end] -= np.outer(errors[:, k - first], factor[k, k:end])
        left[:, end:] -= errors[:, : end - first] @ factor[first:end, end:]
    return whole[:, back]


def _swept(target: Array, scale: Array, whole: Array, h: Array, levels: Levels) -> Array:
    """Every weight at its best level, given all others as they are by then."""
    whole = whole.copy()
    slopes = (target - scale[:, None] * whole) @ h  # minus half the gradient of the squared error
    for first in range(0, len(h), _BLOCK):
        end = min(first + _BLOCK, len(h))
        near, steps = slopes[:, first:end].copy(), np.zeros((len(target), end - first))
        for k in range(first, end):
            best = levels.nearest(whole[:, k] + near[:, k - first] / (h[k, k] * scale))
            step = scale * (best - whole[:, k])
            if step.any():
                near -= np.outer(step, h[k, first:end])
                whole[:, k], steps[:, k - first] = best, step
        slopes -= steps @ h[first:end]
    return whole


def _best_scale(target: Array, whole: Array, h: Array, scale: Array) -> Array:
    given = whole @ h
    products, squares = np.einsum("ok,ok->o", given, target), np.einsum("ok,ok->o", given, whole)
    fits = (squares > 0) & (products != 0)
    return np.where(fits, products / np.where(squares > 0, squares, 1.0), scale)
