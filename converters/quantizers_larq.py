"""Larq's quantizers. Signs differ only in their gradients, which do not matter here.

| name                                | x becomes                                                                                 |
|-------------------------------------|-------------------------------------------------------------------------------------------|
| ste_sign, approx_sign, swish_sign   | sign(x), sign(0) = +1                                                                     |
| magnitude_aware_sign                | alpha * sign(w), alpha the mean of abs(w) over the filter                                 |
| ste_heaviside                       | 1 where x > 0, else 0                                                                     |
| ste_tern                            | sign(x) where abs(x) >= threshold_value, else 0                                           |
| dorefa_quantizer, "activations"     | round(n * clip(x, 0, 1)) / n, n = 2^k_bit - 1                                             |
| dorefa_quantizer, "weights"         | 2 * round(n * (tanh(w) / (2 * max abs(tanh(w))) + 1/2)) / n - 1 (Zhou et al., 2016)       |
| NoOp                                | x                                                                                         |

The Larq zoo has functions of its own: xnor_weight_scale and magnitude_aware_sign_unclipped are alpha * sign(w), alpha the mean of abs(w)
over each filter, clipped to 1, and over the whole layer; clip_by_value_activation is min(max(x, 0), 1).
"""

from __future__ import annotations

import functools

import numpy as np

from edge.converters.builder import Options
from edge.converters.quantizer_nodes import function
from edge.converters.quantizers import Nothing, Quantizer, Weights, register
from edge.converters.quantizers_levels import Grid, OfWeights, Shaped, Sign, Ternary, TwoLevels
from edge.converters.quantizers_training import ScaledSign
from edge.graph import Array
from edge.ops import Activation

MAX_BITS = 16
_UNIT = Shaped(lambda x: np.clip(x, 0, 1), lambda layer, build, x: function(layer, build, x, Activation.RELU, limit=1.0), Nothing())


def _dorefa(options: Options) -> Quantizer:
    bits = options.whole("k_bit", 2)
    if bits > MAX_BITS:
        raise options.error(f"k_bit should be 1 to {MAX_BITS}, got {bits}; save the model again")
    top = (1 << bits) - 1
    if options.choice("mode", ("activations", "weights"), "activations") == "activations":
        return Grid(float(top), 0, top, bits)
    why = "dorefa_quantizer in mode 'weights' divides by the largest value of the whole batch; give the layer's inputs mode 'activations'"
    return OfWeights(functools.partial(_dorefa_weights, bits), why)


def _dorefa_weights(bits: int, kernel: Array) -> Weights:
    top = (1 << bits) - 1
    bent = np.tanh(kernel)
    largest = np.abs(bent).max()
    halves = bent / (2 * largest) + np.float32(0.5) if largest else np.full_like(bent, 0.5)
    whole = 2 * np.rint(halves * np.float32(top)) - top
    return Weights(whole.astype(np.float32), np.full(1, 1 / top, np.float32), bits)


def _ternary(options: Options) -> Quantizer:
    networks = options.flag("ternary_weight_networks", False)
    return Ternary(1.0, None if networks else options.number("threshold_value", 0.05))


def _xnor(kernel: Array) -> Weights:
    return ScaledSign(layer=False).weights(np.clip(kernel, -1, 1))


def _nothing(options: Options) -> Quantizer:
    return Nothing(options.whole("precision", 32))


_SIGNS = "packed signs"
for _name, _class, _gradient in (
    ("ste_sign", "SteSign", ("clip_value",)),
    ("approx_sign", "ApproxSign", ()),
    ("swish_sign", "SwishSign", ("beta",)),
):
    register("Larq", _name, _gradient, lambda options: Sign(), _SIGNS, _SIGNS, aliases=(_class,))
register("Larq", "magnitude_aware_sign", ("clip_value",), lambda options: Sign("mean"), "refused", f"{_SIGNS}, scaled")
register("Larq", "ste_heaviside", ("clip_value",), lambda options: TwoLevels(), f"{_SIGNS}, shifted", "int8")
_TERNARY = ("threshold_value", "ternary_weight_networks", "clip_value")
register("Larq", "ste_tern", _TERNARY, _ternary, "int8", "int8; pairs of signs on signs")
register("Larq", "dorefa_quantizer", ("k_bit", "mode"), _dorefa, "int8 up to 8 bits", "signs at 1 bit; int8 up to 7", aliases=("DoReFa",))
_WHY = "xnor_weight_scale is for weights: of activations its scale would depend on the whole batch; use ste_sign"
register("Larq zoo", "xnor_weight_scale", (), lambda options: OfWeights(_xnor, _WHY), "refused", f"{_SIGNS}, scaled")
register("Larq zoo", "magnitude_aware_sign_unclipped", (), lambda options: ScaledSign(layer=True), "refused", f"{_SIGNS}, scaled")
register("Larq zoo", "clip_by_value_activation", (), lambda options: _UNIT, "float32", "float32")
register("Larq", "NoOp", ("precision",), _nothing, "as they are", "as they are; packed signs where they are", aliases=("NoOpQuantizer",))
