"""The passes that only the engine's program sees: what follows a layer becomes part of its epilogue, and no value changes.

    any weights  ->  [quantize]                                         becomes        the layer with an int8 output

    conv2d  ->  [prelu]  ->  [affine]  ->  [add]  ->  [binarize]        becomes        residual_conv2d

    a filter of int8 whose values fit into 4 or 2 bits                  becomes        one that is stored so

residual_conv2d with the activations that are fused into the convolution and into the sum. One pass over the output then does what four did:
where sums of float32 go through the whole network (Bi-Real Net, QuickNet, ReActNet), those passes cost more time than the binary
convolutions. The sums themselves stay float32, and their signs are a second output. (TFLite has no such operation, so its file is made
without this.)
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from edge.converters.levels import pack_filters
from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, is_plain, merge, stored, sweep
from edge.graph import Array, Graph, Node
from edge.layout import writes_packed_groups
from edge.ops import Activation
from edge.tensors import Encoding

F32 = Encoding.FLOAT32


def fuse_quantize(graph: Graph) -> Graph:
    """Layers whose float32 result is only quantized give int8 themselves, rounded as `quantize` does."""
    return sweep(graph, _fuse_quantize)


def _fuse_quantize(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if node.op != "quantize" or source is None or source.op not in WEIGHT_OPS or graph.only_consumer(source.output) is not node:
        return None
    signature = (encoding(graph, source.inputs[0]), stored(source), Encoding.INT8)
    if encoding(graph, source.output) is not F32 or signature not in source.definition.signatures:
        return None
    return edit(graph, replacing={node.output: (merge(source, node),)})


def fuse_epilogues(graph: Graph) -> Graph:
    """Convolutions with a sum, a PReLU, a scaling after an activation, or a sign behind them do that in their epilogue."""
    return sweep(graph, _fuse_epilogue)


ENGINE_PASSES = (fuse_quantize, fuse_epilogues, pack_filters)


@dataclass
class _Epilogue:
    """What a convolution takes in: nodes, itself first, and what comes of them."""

    nodes: list[Node]
    constants: dict[str, Array]
    inputs: tuple[str, ...]
    relu_after: bool = False

    @property
    def result(self) -> str:
        return self.nodes[-1].output


def _fuse_epilogue(graph: Graph, node: Node) -> Graph | None:
    if node.op != "conv2d" or encoding(graph, node.output) is not F32:
        return None
    found = _Epilogue([node], dict(node.constants), node.inputs)
    for take in (_take_prelu, _take_affine, _take_add):
        following = graph.only_consumer(found.result)
        if following is not None:
            take(found, following)
    sign = _sign(graph, found)
    if sign is None and len(found.nodes) == 1:
        return None
    return _replaced(graph, found, sign)


def _take_prelu(found: _Epilogue, node: Node) -> None:
    if node.op == "prelu" and is_plain(found.nodes[-1]):
        found.nodes.append(node)
        found.constants["slope"] = node.constants["slope"]


def _take_affine(found: _Epilogue, node: Node) -> None:
    if node.op == "affine" and is_plain(node):
        found.nodes.append(node)
        found.constants.update(node.constants)


def _take_add(found: _Epilogue, node: Node) -> None:
    if node.op != "add" or node.inputs.count(found.result) != 1:
        return
    activation = Activation(int(node.attrs["activation"]))
    relu = activation is Activation.RELU and node.attrs["limit"] == math.inf
    if relu or activation is Activation.NONE:
        found.inputs = (*found.inputs, *(name for name in node.inputs if name != found.result))
        found.nodes.append(node)
        found.relu_after = relu


def _sign(graph: Graph, found: _Epilogue) -> Node | None:
    """The sign that the epilogue takes too, whose groups of channels must be whole bytes."""
    if not writes_packed_groups(graph.types[found.result].shape[-1], int(found.nodes[0].attrs["groups"])):
        return None
    return next((reader for reader in graph.consumers(found.result) if reader.op == "binarize"), None)


def _replaced(graph: Graph, found: _Epilogue, sign: Node | None) -> Graph:
    """The graph with one node for all of them, in the place of the last one that it needs to be in."""
    node = functools.reduce(merge, found.nodes)
    attrs = {**found.nodes[0].attrs, "relu_after": int(found.relu_after)}
    node = replace(node, op="residual_conv2d", inputs=found.inputs, constants=found.constants, attrs=attrs)
    if sign is None:
        return edit(graph, replacing={node.output: (node,)})
    with_sign = replace(merge(node, sign), constants={**node.constants, **{f"sign_{role}": row for role, row in sign.constants.items()}})
    if graph.only_consumer(node.output) is sign:  # nobody reads the result itself
        return edit(graph, replacing={sign.output: (with_sign,)})
    both = replace(with_sign, output=node.output, signs=sign.output)
    return edit(graph, replacing={node.output: (both,), sign.output: ()})
