"""From a net's output to an answer: ranked names, scores, values, or a picture.

Kinds of output:

- `probabilities`: a softmax; the classes exclude each other and add up to 1.
- `sigmoid`: each output is a probability by itself.
- `logits`: scores, larger is more likely.
- `values`: a regression; nothing is ranked.
- `picture`: height x width x 1 or 3.

A single sigmoid or logit tells two classes apart, as Keras trains them: its value speaks for class 1, and 1 - value
(for a logit, -value) for class 0. With one name only, that is class 1's, and class 0 is called "not" and that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import EdgeError, InputError
from edge.labels import TWO_SIDED, check_labels

KINDS = ("probabilities", "sigmoid", "logits", "values", "picture")
_OF_CLASSES = ("probabilities", "sigmoid", "logits")
_PER_CENT = ("probabilities", "sigmoid")


@dataclass(frozen=True)
class Ranked:
    """One line of an answer. label: None where the classes have no names. value: probability 0..1, score or value."""

    index: int
    label: str | None
    value: float

    @property
    def name(self) -> str:
        """The label, or else the index."""
        return str(self.index) if self.label is None else self.label


def kind_of(activation: str | None, shape: tuple[int, ...]) -> str:
    """The kind of an output, guessed from its layer's activation and its shape without batch.

    softmax and sigmoid speak for themselves; a map of 1 or 3 channels is a picture; of linear (or any other) outputs a
    single one is a value and several are logits. What is guessed wrong must be told by the user: a regression of
    several values cannot be told from logits, nor a picture from a segmentation.
    """
    if len(shape) == 3 and shape[0] > 1 and shape[1] > 1 and shape[2] in (1, 3):
        return "picture"
    if activation in ("softmax", "sigmoid"):
        return "probabilities" if activation == "softmax" else "sigmoid"
    return "values" if int(np.prod(shape)) == 1 else "logits"


def names_classes(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether an output has one value for each of several classes (or one that tells two apart)."""
    return kind in _OF_CLASSES and int(np.prod(shape)) == max(shape, default=1)


def class_output(outputs: Sequence[tuple[str, tuple[int, ...]]]) -> int | None:
    """Of the outputs of a net, each its kind and shape, the one that names classes; None where none or several do.

    Beside probabilities, what could be logits counts as values.
    """
    for kinds in (_OF_CLASSES[:1], _OF_CLASSES):
        found = [number for number, (kind, shape) in enumerate(outputs) if kind in kinds and names_classes(kind, shape)]
        if len(found) == 1:
            return found[0]
    return None


def class_count(outputs: Sequence[tuple[str, tuple[int, ...]]]) -> int | None:
    """How many classes the output that names classes tells apart, two where by a single value; None where none does, or several."""
    number = class_output(outputs)
    return None if number is None else max(2, int(np.prod(outputs[number][1])))


def top(output: NDArray[Any], labels: Sequence[str] | None, kind: str, *, k: int = 5) -> tuple[Ranked, ...]:
    """The k most likely classes of one output, the best first, equal ones by index; of `values` the first k.

    output: one net output without batch, (classes,) or with further axes of length 1.
    labels: names of the classes, or None.
    Raises InputError for labels of another number, k < 1, an unknown kind, an output with several axes; EdgeError for
    NaN and infinities.
    """
    values = _vector(output, kind)
    if k < 1:
        raise InputError(f"expected at least 1 class to show, got {k}; ask for 5, say")
    if labels is not None:
        check_labels(labels, values.size, kind=kind)
    names: Sequence[str | None] = [None] * values.size if labels is None else labels
    if values.size == 1 and kind in TWO_SIDED:
        other = 1.0 - values[0] if kind == "sigmoid" else 0.0 - values[0]
        values, names = np.array([other, values[0]]), _two_names(labels)
    # A stable sort of the negated values leaves equal ones in the order of their indexes.
    order = np.arange(values.size) if kind == "values" else np.argsort(-values, kind="stable")
    return tuple(Ranked(int(index), names[index], float(values[index])) for index in order[:k])


def format_value(value: float, kind: str) -> str:
    """A value as text: "99.8 %" for probabilities, else a plain number of five digits."""
    # Clipped: quantized and polynomial softmaxes leave 0..1 by a rounding error.
    return f"{100.0 * min(max(value, 0.0), 1.0):.1f} %" if kind in _PER_CENT else f"{value:.5g}"


def format_top(ranked: Sequence[Ranked], kind: str) -> str:
    """One line for each entry, name and value in columns: "7  99.8 %"."""
    values = [format_value(entry.value, kind) for entry in ranked]
    names = max((len(entry.name) for entry in ranked), default=0)
    width = max(map(len, values), default=0)
    return "\n".join(f"{entry.name:<{names}}  {value:>{width}}" for entry, value in zip(ranked, values, strict=True))


def top_to_json(ranked: Sequence[Ranked], kind: str) -> dict[str, object]:
    """A JSON-able dict: the kind, and index, label (null without names) and value of each entry."""
    entries = [{"index": entry.index, "label": entry.label, "value": entry.value} for entry in ranked]
    return {"kind": kind, "top": entries}


def output_picture(output: NDArray[Any], *, activation: str | None = None) -> NDArray[np.uint8]:
    """A picture output, (H, W, 1 or 3) without batch, as uint8 of the same shape.

    activation: what the output's layer ends in. tanh maps -1..1 to 0..255, sigmoid and softmax 0..1, both clipped; for
    any other the smallest value becomes 0 and the largest 255 (a constant picture becomes 0).
    Raises InputError for another shape, EdgeError for NaN and infinities.
    """
    if output.ndim != 3 or output.shape[2] not in (1, 3) or output.size == 0:
        raise InputError(f"the output is no picture: expected height x width x 1 or 3, got shape {output.shape}")
    values = _finite(output)
    low, high = _picture_range(values, activation)
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    levels: NDArray[np.uint8] = np.rint(scaled.clip(0.0, 255.0)).astype(np.uint8)
    return levels


def _picture_range(values: NDArray[np.float64], activation: str | None) -> tuple[float, float]:
    if activation == "tanh":
        return -1.0, 1.0
    if activation in ("sigmoid", "softmax"):
        return 0.0, 1.0
    return float(values.min()), float(values.max())


def _vector(output: NDArray[Any], kind: str) -> NDArray[np.float64]:
    if kind not in KINDS or kind == "picture":
        raise InputError(f"cannot rank an output of kind {kind!r}; expected one of {', '.join(KINDS[:-1])}")
    if output.size == 0 or output.size != max(output.shape, default=1):
        raise InputError(
            f"cannot rank an output of shape {output.shape}: expected one value for each class; "
            "take its array from --json or the Python API instead"
        )
    return _finite(output).reshape(-1)


def _finite(output: NDArray[Any]) -> NDArray[np.float64]:
    values = output.astype(np.float64)
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise EdgeError(
            f"the model gave no usable answer: expected {values.size} finite values, got {bad} NaN or infinite; "
            "check the input, its preprocessing and the source model's weights"
        )
    return values


def _two_names(labels: Sequence[str] | None) -> tuple[str | None, str | None]:
    if labels is None:
        return None, None
    return (f"not {labels[0]}", labels[0]) if len(labels) == 1 else (labels[0], labels[1])
