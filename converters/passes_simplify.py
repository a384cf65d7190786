"""Passes that remove nodes without changing any value: no-ops, padding, flattening, unpacking."""

from __future__ import annotations

from dataclasses import replace

from edge.converters.rewriting import WEIGHT_OPS, edit, encoding, fresh, is_plain, pads, stored, sweep, with_attrs
from edge.graph import Graph, Node
from edge.layout import reads_packed_groups
from edge.tensors import Encoding

BITS, F32, U8 = Encoding.BITS, Encoding.FLOAT32, Encoding.UINT8


def drop_no_ops(graph: Graph) -> Graph:
    """Nodes that give their input back disappear, unless that is the network's input becoming its output."""
    return sweep(graph, _drop_no_op)


def _drop_no_op(graph: Graph, node: Node) -> Graph | None:
    if not _gives_input_back(graph, node) or (node.output in graph.outputs and node.inputs[0] in graph.inputs):
        return None
    return edit(graph, redirect={node.output: node.inputs[0]})


def _gives_input_back(graph: Graph, node: Node) -> bool:
    same = graph.types[node.inputs[0]] == graph.types[node.output]
    if node.op in ("activation", "affine"):
        neutral = "mul" not in node.constants or bool((node.constants["mul"] == 1).all())
        return same and is_plain(node) and neutral and not ("add" in node.constants and node.constants["add"].any())
    if node.op in ("max_pool2d", "average_pool2d"):
        return same and all(node.attrs[name] == 1 for name in ("window_h", "window_w", "stride_h", "stride_w"))
    if node.op == "pad2d":
        return same and not any(pads(node))
    return same and (node.op == "reshape" or (node.op == "concat" and len(node.inputs) == 1))


def absorb_padding(graph: Graph) -> Graph:
    """A convolution of a zero-padded image pads by itself.

    Padding before a sign counts +1, since sign(0) = +1: the convolution of a binarized padded image pads with ones.
    """
    return sweep(graph, _absorb_padding)


def _absorb_padding(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if node.op not in ("conv2d", "depthwise_conv2d") or source is None:
        return None
    if source.op == "pad2d" and source.attrs["value"] == 0 and encoding(graph, source.output) is F32:
        return edit(graph, replacing={node.output: (_padded(node, source, source.inputs[0], 0),)})
    padding = graph.producer(source.inputs[0])
    if source.op != "binarize" or source.constants or padding is None or padding.op != "pad2d":
        return None
    if padding.attrs["value"] < 0 or any(pads(node)) or graph.only_consumer(source.output) is not node:
        return None
    inner = replace(source, inputs=padding.inputs)
    types = {source.output: replace(graph.types[source.output], shape=graph.types[padding.inputs[0]].shape)}
    new = _padded(node, padding, source.output, 1)
    return edit(graph, replacing={source.output: (inner,), node.output: (new,)}, types=types)


def _padded(node: Node, padding: Node, source: str, ones: int) -> Node:
    top, bottom, left, right = (a + b for a, b in zip(pads(node), pads(padding), strict=True))
    padded = with_attrs(node, pad_top=top, pad_bottom=bottom, pad_left=left, pad_right=right, pad_ones=ones)
    layers = (*padding.layers, *(name for name in node.layers if name not in padding.layers))
    return replace(padded, inputs=(source,), layers=layers)


def absorb_flatten(graph: Graph) -> Graph:
    """A dense layer reads the image itself, in the same order (H, W, C); signs and activations are taken before a flattening.

    So does a 1x1 convolution of a single pixel, which is a dense layer by another name.
    """
    return sweep(graph, _absorb_flatten)


def _absorb_flatten(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if source is None or source.op != "reshape":
        return None
    if _reads_all(graph, node):
        return edit(graph, replacing={node.output: (_read_image(graph, node, source, source.inputs[0]),)})
    if node.op == "binarize":
        return _binarize_image(graph, node, source)
    if node.op == "activation" or (node.op in ("affine", "unpack") and _keeps_channels(graph, source)):
        return _sink(graph, node, source)
    return None


def _reads_all(graph: Graph, node: Node) -> bool:
    """Whether each output of a node is a sum over its whole input, in order."""
    if node.op == "conv2d":
        single = graph.types[node.inputs[0]].hwc[:2] == (1, 1) == node.constants["filter"].shape[1:3]
        return single and node.attrs["groups"] == 1 and not any(pads(node))
    return node.op == "dense"


def _keeps_channels(graph: Graph, node: Node) -> bool:
    return graph.types[node.inputs[0]].shape[-1] == graph.types[node.output].shape[-1]


def _read_image(graph: Graph, node: Node, flatten: Node, source: str) -> Node:
    """A node on the image `source` that `flatten` flattens: its window is the whole image."""
    filters = node.constants["filter"]
    constants = {**node.constants, "filter": filters.reshape(len(filters), *graph.types[flatten.inputs[0]].hwc)}
    layers = (*flatten.layers, *(name for name in node.layers if name not in flatten.layers))
    return replace(node, inputs=(source,), constants=constants, layers=layers)


def _binarize_image(graph: Graph, node: Node, flatten: Node) -> Graph | None:
    """Packed tensors cannot be reshaped, so the sign moves only where every reader is a layer that can."""
    readers = graph.consumers(node.output)
    channelwise = not node.constants or _keeps_channels(graph, flatten)
    if node.output in graph.outputs or not channelwise or not all(_reads_all(graph, reader) for reader in readers):
        return None
    replacing = {reader.output: (_read_image(graph, reader, flatten, node.output),) for reader in readers}
    replacing[node.output] = (replace(node, inputs=flatten.inputs),)
    types = {node.output: replace(graph.types[node.output], shape=graph.types[flatten.inputs[0]].shape)}
    return edit(graph, replacing=replacing, types=types)


def _sink(graph: Graph, node: Node, flatten: Node) -> Graph:
    inner = fresh(graph, f"{node.output}/image")
    types = {inner: replace(graph.types[node.output], shape=graph.types[flatten.inputs[0]].shape)}
    nodes = (replace(node, inputs=flatten.inputs, output=inner), replace(flatten, inputs=(inner,), output=node.output))
    return edit(graph, replacing={node.output: nodes}, types=types)


def keep_packed(graph: Graph) -> Graph:
    """What can work on packed signs reads them, rather than the float32 copy that `unpack` gives; +-1 stay +-1."""
    return sweep(graph, _keep_packed)


def _keep_packed(graph: Graph, node: Node) -> Graph | None:
    sources = [graph.producer(name) for name in node.inputs]
    unpacks = [source for source in sources if source is not None and source.op == "unpack"]
    if len(unpacks) != len(node.inputs):
        return None
    packed = tuple(source.inputs[0] for source in unpacks)
    if node.op in WEIGHT_OPS and stored(node) is BITS:
        groups = int(node.attrs.get("groups", 1))
        if node.op != "depthwise_conv2d" and not reads_packed_groups(graph.types[packed[0]].shape[-1], groups):
            return None
        return edit(graph, replacing={node.output: (replace(node, inputs=packed),)})
    if node.op == "binarize" and not node.constants:
        return edit(graph, redirect={node.output: packed[0]})
    whole_bytes = all(graph.types[name].shape[-1] % 8 == 0 for name in packed[:-1])
    if node.op == "max_pool2d" or (node.op == "concat" and whole_bytes):
        return _unpack_after(graph, node, packed)
    return None


def _unpack_after(graph: Graph, node: Node, packed: tuple[str, ...]) -> Graph:
    inner = fresh(graph, f"{node.output}/bits")
    unpack = graph.producer(node.inputs[0])
    assert unpack is not None  # `_keep_packed` found it
    nodes = (replace(node, inputs=packed, output=inner), replace(unpack, inputs=(inner,), output=node.output, layers=node.layers))
    types = {inner: replace(graph.types[node.output], encoding=BITS)}
    return edit(graph, replacing={node.output: nodes}, types=types)


def fuse_rescaling(graph: Graph) -> Graph:
    """Scaling reads the bytes of the picture itself: `dequantize` before `affine` disappears."""
    return sweep(graph, _fuse_rescaling)


def _fuse_rescaling(graph: Graph, node: Node) -> Graph | None:
    source = graph.producer(node.inputs[0])
    if node.op != "affine" or source is None or source.op != "dequantize" or not is_bytes(graph, source.inputs[0]):
        return None
    return edit(graph, replacing={node.output: (replace(node, inputs=source.inputs),)})


def is_bytes(graph: Graph, tensor: str) -> bool:
    """Whether a tensor holds bytes 0..255 that stand for themselves."""
    kind = graph.types[tensor]
    return kind.encoding is U8 and kind.scale == 1.0 and kind.zero_point == 0
