"""Graph to TFLite: a flatbuffer of built-in operators that stock interpreters of 2023 and later run, written without TensorFlow.

A packed layer keeps its meaning exactly (`edge.converters.tflite_convolutions` says how), but TFLite stores a sign in a byte, so the file
is larger than the `.edge`; `explain_size` says by how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edge.converters import tflite_layers as layers
from edge.converters import tflite_moves as moves
from edge.converters.tflite_convolutions import convolution
from edge.converters.tflite_file import serialize
from edge.converters.tflite_integers import whole_activations
from edge.converters.tflite_lowering import Lowering
from edge.converters.tflite_model import LiteModel
from edge.errors import FormatError
from edge.graph import Graph, Node
from edge.tflite_check import MARK, notes_of

_LOWERINGS: Mapping[str, Callable[[Lowering, Node], int]] = {
    "conv2d": convolution,
    "depthwise_conv2d": convolution,
    "dense": convolution,
    "max_pool2d": layers.max_pool2d,
    "average_pool2d": layers.average_pool2d,
    "affine": layers.affine,
    "activation": layers.activation,
    "softmax": layers.softmax,
    "binarize": layers.binarize,
    "unpack": layers.real,
    "quantize": layers.quantize,
    "dequantize": layers.real,
    "add": layers.add,
    "concat": layers.concat,
    "reshape": layers.reshape,
    "pad2d": layers.pad2d,
    "prelu": layers.prelu,
    "magnitude_map": layers.magnitude_map,
    **dict.fromkeys(("multiply", "subtract", "divide", "maximum", "minimum"), moves.pair),
    "slice": moves.slice_,
    "resize_nearest": moves.resize,
    "resize_bilinear": moves.resize,
    "transpose": moves.transpose,
    "depth_to_space": moves.depth_to_space,
    "layer_norm": moves.layer_norm,
    "local_response_norm": moves.local_response_norm,
    "embedding": moves.embedding,
    "log_softmax": moves.log_softmax,
}


def write_tflite(graph: Graph, *, description: str = "", input_float: bool = True) -> bytes:
    """The bytes of a `.tflite` file that computes what `graph` does, for one example at a time; the same bytes for the same graph.

    `input_float` makes an input of uint8 a float32 tensor that takes whole numbers 0..255. int8 inputs and outputs stay int8, packed ones
    are int8 tensors of +-1. Tensors, and the names in the signature `serving_default`, are those of `graph.inputs` and
    `graph.output_names`. The file's description is a mark and then `description` (`edge.tflite_check.notes_of` reads it).

    Raises `MissingPackage` without a schema module, `ModelError` where TFLite can't express a layer.
    """
    return bytes(tflite_content(graph, description=description, input_float=input_float))


def tflite_content(graph: Graph, *, description: str = "", input_float: bool = True) -> memoryview:
    """What `write_tflite` gives, not copied."""
    model = _lower(graph, input_float=input_float)[0]
    return serialize(model, f"{MARK}: {description}" if description else MARK)


def is_edge_tflite(source: str | Path | bytes) -> bool:
    """Whether edge wrote this `.tflite` file (a path or its bytes); False too for what is no TFLite file. Raises `OSError`."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        return notes_of(data) is not None
    except FormatError:
        return False


def explain_size(graph: Graph) -> dict[str, tuple[int, str]]:
    """By source layer (the first of a node's `layers`): the bytes of its constants in the `.tflite`, and why they are as many."""
    _, layer_bytes = _lower(graph, input_float=True)
    reasons: dict[str, list[str]] = {}
    for node in graph.nodes:
        reasons.setdefault(_layer(node), []).extend(_reasons(node))
    return {name: (layer_bytes.get(name, 0), "; ".join(parts)) for name, parts in reasons.items()}


def _lower(graph: Graph, *, input_float: bool) -> tuple[LiteModel, Mapping[str, int]]:
    """The model, and the bytes of constants by layer."""
    low, whole = Lowering(graph, input_float), whole_activations(graph)
    within = {name for each in whole.values() for name in each.within}
    for name in graph.inputs:
        low.add_input(name)
    for node in graph.nodes:
        if node.output not in within:
            low.builder.layer = _layer(node)
            found = whole.get(node.output)
            low.give(node.output, _LOWERINGS[node.op](low, node) if found is None else found.lowered(low))
    inputs = tuple((name, low.inputs[name]) for name in graph.inputs)
    model = LiteModel((), (), inputs, _outputs(low), graph.name)
    return LiteModel(tuple(low.builder.tensors), tuple(low.builder.operators), inputs, model.outputs, graph.name), low.builder.layer_bytes


def _outputs(low: Lowering) -> tuple[tuple[str, int], ...]:
    """The outputs under their public names, each a tensor of its own."""
    taken = set(low.inputs.values())
    found = []
    for tensor, name in zip(low.graph.outputs, low.graph.output_names or low.graph.outputs, strict=True):
        number = low.stored(tensor)
        if number in taken:
            number = low.copy(number, low.shape(number))
        taken.add(number)
        low.builder.rename(number, name)
        found.append((name, number))
    return tuple(found)


def _layer(node: Node) -> str:
    return node.layers[0] if node.layers else node.output


def _reasons(node: Node) -> list[str]:
    stored = node.constants.get("filter")
    if stored is None:
        return []
    if stored.dtype == np.bool_:
        return [f"TFLite stores a sign in a byte: {stored.size} signs, packed they take {math.ceil(stored.size / 8)} bytes"]
    return [f"{stored.size} weights of {8 * stored.itemsize} bits"]
