"""Layers that `keras.applications` define for their own networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from edge.converters.builder import Builder, Layer, float32, reads
from edge.converters.keras_model import Call
from edge.converters.layers_merge import pair, scaled

_BLOCK = re.compile(r"(.*/)?block(35|17|8)_\d{1,3}")


@reads("LayerScale")
def layer_scale(layer: Layer, build: Builder) -> str:
    """x * gamma, one gamma per channel (ConvNeXt)."""
    return build.add("affine", layer, layer.input, constants={"mul": float32(layer.per_channel("gamma"))})


@reads("StochasticDepth")
def stochastic_depth(layer: Layer, build: Builder) -> str:
    """Does nothing once trained."""
    return layer.input


@reads("CustomScaleLayer")
def custom_scale(layer: Layer, build: Builder) -> str:
    """x + y * scale (InceptionResNetV2)."""
    if len(layer.inputs) != 2:
        raise layer.error(f"takes two inputs, got {len(layer.inputs)}")
    first, second = layer.inputs
    return pair(layer, build, "add", first, scaled(layer, build, second, layer.options.number("scale", 1.0)))


def recognised(call: Call) -> Call:
    """A call as what it is known to be: the Lambda of InceptionResNetV2's blocks, until Keras 2.12, is a CustomScaleLayer by now."""
    given = call.config.get("arguments")
    is_block = call.class_name == "Lambda" and len(call.inputs) == 2 and _BLOCK.fullmatch(call.name) is not None
    if not is_block or not isinstance(given, Mapping) or set(given) != {"scale"}:
        return call
    return replace(call, class_name="CustomScaleLayer", config=given)
