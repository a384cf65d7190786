"""The passes in their order: from the graph as it was read to the graph of which program and TFLite file are made.

Each is a function `Graph -> Graph` that changes no value beyond rounding, proved consistent (`Graph.verify`) after it has run, and finds
nothing to do when it runs again. To add one, write the function, put it in its place here, and add its text before and after to
`tests/test_passes.py`. What lowers precision on request is `edge.converters.bits`.
"""

from __future__ import annotations

from edge.converters.passes_exact import read_exact_bytes, store_exact_int8
from edge.converters.passes_fold import absorb_affine, fold_batch_norm, fuse_activations
from edge.converters.passes_groups import merge_groups
from edge.converters.passes_layout import absorb_transpose
from edge.converters.passes_moves import hoist_channelwise
from edge.converters.passes_quantized import keep_integers, read_integers, read_signs, share_quantized
from edge.converters.passes_simplify import absorb_flatten, absorb_padding, drop_no_ops, fuse_rescaling, keep_packed
from edge.converters.thresholds import find_thresholds
from edge.graph import Graph, Pass

PASSES: tuple[Pass, ...] = (
    drop_no_ops,
    merge_groups,
    hoist_channelwise,
    absorb_flatten,
    absorb_transpose,
    keep_packed,
    absorb_padding,
    fuse_rescaling,
    share_quantized,
    store_exact_int8,
    read_exact_bytes,
    keep_integers,
    read_integers,
    read_signs,
    find_thresholds,
    absorb_affine,
    fold_batch_norm,
    fuse_activations,
)


def run_passes(graph: Graph, passes: tuple[Pass, ...] = PASSES) -> Graph:
    """`graph` after each pass in turn; a pass that breaks it raises `ModelError` with the name of the pass."""
    for step in passes:
        graph = step(graph).verify(after=step.__name__)
    return graph
