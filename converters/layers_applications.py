"""Layers that `keras.applications` define for their own networks."""

from __future__ import annotations

from edge.converters.builder import Builder, Layer, float32, reads


@reads("LayerScale")
def layer_scale(layer: Layer, build: Builder) -> str:
    """x * gamma, one gamma per channel (ConvNeXt)."""
    return build.add("affine", layer, layer.input, constants={"mul": float32(layer.per_channel("gamma"))})


@reads("StochasticDepth")
def stochastic_depth(layer: Layer, build: Builder) -> str:
    """Does nothing once trained."""
    return layer.input
