"""From what was collected to what is said: agreement of classes and accuracy, and whether the files are equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge.cli_model import Head
from edge.compare_layers import EXACT, MOST_BEYOND, LayerComparison
from edge.compare_run import Answers
from edge.compare_statistics import PairedDifference, Share, paired_difference, share
from edge.converters.report import WARN_BELOW
from edge.graph import Array

_CLASSES = ("probabilities", "sigmoid", "logits")


@dataclass(frozen=True)
class Classes:
    """Shares of examples: with the same class, right in the source, right when converted; None where there are no classes or labels."""

    same: Share | None = None
    source: Share | None = None
    converted: Share | None = None
    difference: PairedDifference | None = None


def classes_told_apart(head: Head) -> int | None:
    """How many classes an output tells apart, two where by a single value; None where it names none."""
    return max(2, math.prod(head.shape)) if head.kind in _CLASSES else None


def classes(answers: Sequence[Answers], head: Head) -> Classes:
    """Of the first output, whose `head` says what it is."""
    if head.kind not in _CLASSES:
        return Classes()
    rows = [(_class(a.want[0], head.kind), _class(a.got[0], head.kind), a.label) for a in answers]
    same = share(sum(want == got for want, got, _ in rows), len(rows))
    known = [(want == label, got == label) for want, got, label in rows if label is not None]
    if not known:
        return Classes(same)
    gained, lost = (sum(got and not want for want, got in known), sum(want and not got for want, got in known))
    source, converted = (share(sum(column), len(known)) for column in zip(*known, strict=True))
    return Classes(same, source, converted, paired_difference(gained, lost, len(known)))


def _class(output: Array, kind: str) -> int:
    """The class an output names; of a single value, whether it speaks for class 1."""
    if output.size == 1:
        return int(output.reshape(-1)[0] > (0.5 if kind == "sigmoid" else 0.0))
    return int(output.argmax())


# -- the verdict ---------------------------------------------------------------------------------------------------------------


def first_difference(layers: Sequence[LayerComparison]) -> LayerComparison | None:
    return next((layer for layer in layers if not layer.equal), None)


def verdict(
    answers: Sequence[Answers], tied: Sequence[int], layers: Sequence[LayerComparison], same: Share | None, *, foreign: bool
) -> tuple[bool, str]:
    """Whether a file is equal to its source, or as near as its bits allow, and the sentence that says so.

    tied: the examples that a tie changed. foreign: the file says that it was made from another one.
    """
    first = first_difference(layers)
    beyond = [i for i, answer in enumerate(answers) if not answer.within and i not in tied]
    largest = max((answers[i].difference for i in beyond), default=0.0)
    if foreign and (first is not None or beyond):
        far = f"its outputs differ by up to {_largest(answers):.3g}"
        return False, f"it was made from another file, and {far}; name that file, or convert again"
    if first is not None:
        return False, f"layer {'+'.join(first.layers) or first.tensor} differs from its source: {_difference(first)}"
    if not beyond:
        return True, f"equal to its source on {len(answers)} examples{_but_ties(layers, tied)}"
    if layers and all(layer.precision == EXACT for layer in layers):
        return False, f"the outputs of {len(beyond)} of {len(answers)} examples differ, by up to {largest:.3g}, without a tie"
    return _lowered(answers, same)


def _largest(answers: Sequence[Answers]) -> float:
    return max(answer.difference for answer in answers)


def _lowered(answers: Sequence[Answers], same: Share | None) -> tuple[bool, str]:
    """Where precision was given up, or nothing is known of the layers."""
    if same is None:
        largest, magnitude = _largest(answers), max(answer.magnitude for answer in answers)
        enough = largest <= (1 - WARN_BELOW) * magnitude
        return enough, f"the outputs differ by at most {largest:.3g}, where values reach {magnitude:.3g}"
    return same.value >= WARN_BELOW, f"the same class as its source for {100 * same.value:.2f} % of {len(answers)} examples"


def _but_ties(layers: Sequence[LayerComparison], tied: Sequence[int]) -> str:
    flipped = sum(layer.tied_bits for layer in layers)
    values = sum(layer.values for layer in layers if layer.encoding == "bits")
    text = f", but for {flipped} ties among {values:,} signs" if flipped else ""
    return text + (f", which changed the outputs of {len(tied)}" if tied else "")


def _difference(layer: LayerComparison) -> str:
    if layer.flipped_bits:
        return f"{layer.flipped_bits:,} of {layer.values:,} signs"
    if layer.precision in MOST_BEYOND:
        far = f"{layer.beyond:,} of {layer.values:,} values by more than {layer.tolerance:.3g}, up to {layer.max_abs_error:.3g}"
        return f"{far}; if these are not like the pictures it was calibrated on, give such with --data" if layer.encoding == "int8" else far
    return f"by {layer.max_abs_error:.3g}, where {layer.tolerance:.3g} is rounding"
