"""The quantizers of `edge.training` that Larq does not have: weights alpha * sign(w). Its others are Larq's, under the same names.

| name           | alpha                                                                    |
|----------------|--------------------------------------------------------------------------|
| xnor_weights   | by output channel, the mean of abs(w) over its filter (XNOR-Net, BWN)    |
| dorefa_weights | one for the layer, the mean of abs(w) over all of it (DoReFa-Net, 1 bit) |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.converters.builder import Builder, Layer
from edge.converters.quantizers import Quantizer, Weights, register
from edge.converters.quantizers_levels import per_channel_axes
from edge.graph import Array


@dataclass(frozen=True)
class ScaledSign(Quantizer):
    """alpha * sign(w), alpha the mean of abs(w): of the whole `layer`, or of what each output sums over."""

    layer: bool
    by_output = True

    def weights(self, kernel: Array) -> Weights:
        axes = None if self.layer else per_channel_axes(kernel)
        alpha = np.abs(kernel).mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
        return Weights(np.where(kernel < 0, np.float32(-1), np.float32(1)), alpha, 1)

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        raise layer.error("alpha * sign(x) is for weights: of activations alpha would depend on the whole batch; use ste_sign")


register("edge", "xnor_weights", ("clip_value",), lambda options: ScaledSign(layer=False), "refused", "packed signs, scaled")
register("edge", "dorefa_weights", ("clip_value",), lambda options: ScaledSign(layer=True), "refused", "packed signs, scaled")
