"""Bits for single layers: patterns of their names, as `--layer PATTERN=BITS` gives them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from edge.errors import InputError
from edge.graph import Node
from edge.widths import Bits


def parsed(text: str) -> tuple[str, Bits]:
    """A pattern and its bits, of `PATTERN=BITS`; raises `InputError` for another form. Which bits there are, `Request` knows."""
    pattern, equals, bits = text.rpartition("=")
    if not equals or not pattern or not bits:
        raise InputError(f"--layer takes PATTERN=BITS, such as 'block*=4' or conv2d_1=ternary, got {text!r}")
    return pattern, int(bits) if bits.isdecimal() else bits


def given_bits(nodes: Sequence[Node], patterns: Sequence[tuple[str, Bits]]) -> dict[str, Bits]:
    """The bits given to layers of `nodes`, by the tensor they give: of the patterns that match one of a node's layers, the last counts.

    A pattern matches whole names, with * and ? for any. Raises `InputError` for one that matches no layer with weights.
    """
    found: dict[str, Bits] = {}
    for pattern, bits in patterns:
        matching = [node.output for node in nodes if any(fnmatch.fnmatchcase(name, pattern) for name in node.layers)]
        if not matching:
            raise InputError(nothing_matches(pattern, [name for node in nodes for name in node.layers[:1]]))
        found |= dict.fromkeys(matching, bits)
    return found


def nothing_matches(pattern: str, layers: Sequence[str]) -> str:
    """The sentence on a pattern that is the name of none of `layers`, those with weights."""
    names = list(dict.fromkeys(layers))
    near = difflib.get_close_matches(pattern.strip("*?"), names, n=3, cutoff=0.4) or names[:3]
    known = f"near it are {', '.join(near)}" if near else "the model has no such layers"
    return f"--layer {pattern!r} should match layers with weights, but matches none; {known}"
