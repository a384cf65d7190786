"""Layers that normalize over axes of one example, and tables of vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edge.converters.builder import Builder, Layer, float32, reads
from edge.converters.layers_shape import reshaped, transposed
from edge.converters.operations import Operation, computes
from edge.graph import Array


@reads("LayerNormalization")
def layer_normalization(layer: Layer, build: Builder) -> str:
    """Over any axes: turned so that they are the last, seen as rows, and turned back. Keras' gamma and beta have their axes, in order."""
    rank = len(layer.shape)
    axes = sorted(axis - 1 if axis > 0 else axis + rank for axis in layer.options.wholes("axis", (-1,)))
    if layer.options.flag("rms_scaling", False):
        raise layer.error("rms_scaling is not supported; train without")
    if len(set(axes)) < len(axes) or not axes or not 0 <= axes[0] <= axes[-1] < rank:
        raise layer.error(f"axis {layer.call.config.get('axis')!r} is not supported, expected some of 1 to {rank}; train along -1")
    order = [*(place for place in range(rank) if place not in axes), *axes]
    turned = transposed(layer, build, layer.input, [place + 1 for place in order])
    shape = build.types[turned].shape
    rows = (*shape[: rank - len(axes)], math.prod(shape[rank - len(axes) :]))
    constants = _scale_and_shift(layer, tuple(layer.shape[axis] for axis in axes))
    flat = turned if rows == shape else reshaped(layer, build, turned, rows)
    made = _normalized(layer, build, flat, constants)
    whole = made if rows == shape else reshaped(layer, build, made, shape)
    return transposed(layer, build, whole, [order.index(place) + 1 for place in range(rank)])


def _normalized(layer: Layer, build: Builder, tensor: str, constants: dict[str, Array]) -> str:
    epsilon = layer.options.number("epsilon", 1e-3)
    return build.add("layer_norm", layer, tensor, constants=constants, attrs={"epsilon": epsilon})


def _scale_and_shift(layer: Layer, shape: tuple[int, ...]) -> dict[str, Array]:
    """gamma and beta, as far as there are any."""
    found = {}
    for role, weight, flag in (("mul", "gamma", "scale"), ("add", "beta", "center")):
        if layer.options.flag(flag, True):
            array = layer.weight(weight, rank=len(shape))
            if array.shape != shape:
                raise layer.error(f"{weight} should have the shape {shape}, got {array.shape}; save the model again")
            found[role] = float32(array.reshape(-1))
    return found


@reads("GroupNormalization")
def group_normalization(layer: Layer, build: Builder) -> str:
    """Over all pixels and the channels of a group: turned into a row for each group, normalized, turned back, scaled per channel."""
    channels = layer.shape[-1]
    groups = channels if layer.call.config.get("groups") == -1 else layer.options.whole("groups", 32)
    if channels % groups or layer.options.wholes("axis", (-1,)) not in ((-1,), (len(layer.shape),)):
        raise layer.error(f"groups {groups} of {channels} channels along axis {layer.call.config.get('axis')!r} is not supported")
    pixels, depth = math.prod(layer.shape[:-1]), channels // groups
    turn = {"axis_0": 1, "axis_1": 0, "axis_2": 2}
    split = reshaped(layer, build, layer.input, (pixels, groups, depth))
    rows = reshaped(layer, build, build.add("transpose", layer, split, attrs=turn), (groups, pixels * depth))
    back = reshaped(layer, build, _normalized(layer, build, rows, {}), (groups, pixels, depth))
    whole = reshaped(layer, build, build.add("transpose", layer, back, attrs=turn), layer.shape)
    constants = _scale_and_shift(layer, (channels,))
    return build.add("affine", layer, whole, constants=constants) if constants else whole


@reads("Embedding")
def embedding(layer: Layer, build: Builder) -> str:
    """A row of the table for each whole number; numbers beyond the table give its first or last row."""
    table = layer.weight("embeddings", "0", rank=2)
    if len(layer.shape) > 2:
        raise layer.error(f"needs an input of one or two axes of whole numbers, got the shape {layer.shape}")
    return build.add("embedding", layer, layer.input, constants={"table": float32(table)})


@computes("local_response_normalization", "lrn")
def local_response_normalization(op: Operation, build: Builder) -> str:
    """`tf.nn.local_response_normalization(x, depth_radius=5, bias=1, alpha=1, beta=0.5)`."""
    given = {**op.options, **op.layer.call.arguments}  # whose "bias" is no second operand, as it is elsewhere
    defaults = (("depth_radius", 5), ("bias", 1.0), ("alpha", 1.0), ("beta", 0.5))
    found = {name: given.get(name, given.get(str(position), default)) for position, (name, default) in enumerate(defaults, 1)}
    if not all(isinstance(value, (int, float)) and abs(value) < 1e30 for value in found.values()) or found["depth_radius"] < 0:
        op.refuse(f"takes {found}, expected numbers")
    return _over_neighbours(op.layer, build, op.tensors[0], int(found.pop("depth_radius")), found)


@reads("LocalResponseNormalization")
def local_response_layer(layer: Layer, build: Builder) -> str:
    """The layer of `edge.training`, with arguments as of TensorFlow's function."""
    numbers = {name: layer.options.number(name, default) for name, default in (("bias", 1.0), ("alpha", 1.0), ("beta", 0.5))}
    return _over_neighbours(layer, build, layer.input, layer.options.whole("depth_radius", 5), numbers)


def _over_neighbours(layer: Layer, build: Builder, tensor: str, radius: int, numbers: Mapping[str, float]) -> str:
    """A radius beyond the channels there are means all of them."""
    return build.add("local_response_norm", layer, tensor, attrs={"radius": min(radius, layer.shape[-1]), **numbers})
