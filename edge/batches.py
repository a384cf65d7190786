"""What a caller gives a network, sorted by its inputs: one array, several, a list of them, or a dict by name.

A network with one input takes an array. One with several takes an array for each, `run(a, b)`, the same as a list, `run([a, b])`, or by
name, `run({"image": a, "label": b})`; each a batch of as many examples, or a single example, which then goes with every other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edge.errors import InputError


class Input(Protocol):
    """What is known of an input; the shape is without the batch."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def size_text(shape: Sequence[int]) -> str:
    """A shape in words: "32 x 32 x 3"."""
    return " x ".join(map(str, shape))


def inputs_text(inputs: Sequence[Input]) -> str:
    """Names and shapes in words: "image (32 x 32 x 3) and label (1)"."""
    words = [f"{each.name} ({size_text(each.shape)})" for each in inputs]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def takes_pictures(shape: Sequence[int | None] | None) -> bool:
    """Whether an input of this shape takes pictures: height, width, and 1 or 3 channels."""
    return shape is not None and len(shape) == 3 and shape[2] in (1, 3)


def by_input(given: Sequence[Any], inputs: Sequence[Input]) -> tuple[Any, ...]:
    """What was given for each input, in their order. Raises InputError where there is too little, too much, or an unknown name."""
    only = given[0] if len(given) == 1 else None
    if isinstance(only, Mapping):
        if set(only) != {each.name for each in inputs}:
            received = ", ".join(sorted(map(str, only))) or "none"
            raise InputError(f"the inputs do not fit: expected {inputs_text(inputs)} by name, received {received}; give one array for each")
        return tuple(only[each.name] for each in inputs)
    values = tuple(only) if len(inputs) > 1 and isinstance(only, (list, tuple)) else tuple(given)
    if len(values) != len(inputs):
        raise InputError(
            f"the inputs do not fit: expected {inputs_text(inputs)}, received {len(values)} of them; "
            "give one array for each, in this order, as a list, or by name"
        )
    return values


def together(found: Sequence[tuple[np.ndarray, bool]], inputs: Sequence[Input]) -> tuple[list[np.ndarray], bool]:
    """Batches of equal length, one for each input, and whether all were single examples.

    `found` holds a batch for each input and whether it was one example, which is repeated (without a copy) along the other batches.
    """
    lengths = {len(batch) for batch, single in found if not single}
    if len(lengths) > 1:
        received = ", ".join(f"{len(batch)} for {each.name}" for (batch, _), each in zip(found, inputs, strict=True))
        raise InputError(f"the inputs do not fit together: expected as many examples of each, received {received}; give equally many")
    count = max(lengths, default=1)
    batches = [np.broadcast_to(batch, (count, *batch.shape[1:])) if single else batch for batch, single in found]
    return batches, not lengths
