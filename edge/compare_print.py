"""Comparisons in the terminal: the layers, and the source beside what it became."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.compare import Comparison
from edge.compare_layers import EXACT, LayerComparison
from edge.console import Column, count_text, out, out_table, printable

NOT_COMPARED = "compared from input to output alone: its tensors do not have the source's names"
FROM_INPUT_ON = "runs from the input on, so an error stays in all that follows"


def show(comparisons: Sequence[Comparison]) -> None:
    """Layers and outputs of one or several files converted from the same source."""
    first = comparisons[0]
    out(f"source computed by {printable(first.oracle)}; {printable(first.data)}")
    if first.oracle_note:
        out(printable(first.oracle_note))
    for each in comparisons:
        remark = NOT_COMPARED if not each.layers else "" if each.fed_by_source else FROM_INPUT_ON
        if remark:
            out(f"{printable(Path(each.converted).name)}: {remark}")
    out()
    if any(each.layers for each in comparisons):
        columns, rows = _one(first) if len(comparisons) == 1 else _side_by_side(comparisons)
        out_table(columns, rows)
        out()
    out_table([Column(""), Column("source"), *(Column(Path(each.converted).name) for each in comparisons)], list(_summary(comparisons)))
    for each in comparisons:
        if each.tied_examples:
            out(f"{printable(Path(each.converted).name)}: examples in which a tie flipped: {', '.join(map(str, each.tied_examples))}")
        if each.equal:
            out(f"{printable(Path(each.converted).name)}: {printable(each.verdict)}")


# -- layers ------------------------------------------------------------------------------------------------------------------------


def _one(comparison: Comparison) -> tuple[list[Column], list[list[str]]]:
    words = [Column("layers", folds=True), Column("computed as"), Column("precision")]
    numbers = [Column(title, right=True) for title in ("values", "flipped", "ties", "max error", "relative", "beyond")]
    return [*words, *numbers, Column("")], [_full(layer) for layer in comparison.layers]


def _full(layer: LayerComparison) -> list[str]:
    *numbers, verdict = _cells(layer)
    beyond = "-" if layer.tolerance is None or layer.precision == EXACT else f"{layer.beyond:,}"
    return [layer_name(layer), _operations(layer), layer.precision, f"{layer.values:,}", *numbers, beyond, verdict]


def _operations(layer: LayerComparison) -> str:
    return f"{', '.join(layer.operations)} -> {layer.encoding}" if layer.operations else layer.encoding


def _cells(layer: LayerComparison) -> list[str]:
    packed = layer.encoding == "bits"
    return [
        f"{layer.flipped_bits:,}" if packed else "-",
        f"{layer.tied_bits:,}" if packed else "-",
        "-" if packed else f"{layer.max_abs_error:.2g}",
        "-" if packed else f"{layer.relative_error:.2g}",
        "" if layer.equal else "differs",
    ]


def layer_name(layer: LayerComparison) -> str:
    return "+".join(layer.layers) or layer.tensor


def _side_by_side(comparisons: Sequence[Comparison]) -> tuple[list[Column], list[list[str]]]:
    names = _short_names(comparisons)
    columns = [Column("layers", folds=True), Column("")]
    columns += [Column(f"{name} {what}", right=True) for name in names for what in ("flipped", "max error")]
    columns += [Column("")]
    return columns, [_row(row, names) for row in rows_of(comparisons)]


def _short_names(comparisons: Sequence[Comparison]) -> list[str]:
    """What runs each file, where that tells them apart; else the names of the files."""
    kinds = ["engine" if each.program_sha256 else "TFLite" for each in comparisons]
    return kinds if len(set(kinds)) == len(kinds) else [Path(each.converted).name for each in comparisons]


def rows_of(comparisons: Sequence[Comparison]) -> list[list[LayerComparison | None]]:
    """One row for every tensor that any of them compared, in the order of the source; a cell for each, None where it has none."""
    found = [{layer.tensor: layer for layer in each.layers} for each in comparisons]
    longest = max(found, key=len)
    names = list(longest)
    for each in found:  # what only another file has comes before the tensor that follows it there
        following = None
        for name in reversed(list(each)):
            if name not in names:
                names.insert(names.index(following) if following else len(names), name)
            following = name
    return [[each.get(name) for each in found] for name in names]


def _row(row: Sequence[LayerComparison | None], names: Sequence[str]) -> list[str]:
    first = next(layer for layer in row if layer is not None)
    cells = [cell for layer in row for cell in (_compact(layer) if layer else ("", ""))]
    differing = [name for name, layer in zip(names, row, strict=True) if layer is not None and not layer.equal]
    return [layer_name(first), first.encoding, *cells, f"{', '.join(differing)} differs" if differing else ""]


def _compact(layer: LayerComparison) -> tuple[str, str]:
    flipped, ties, error, _, _ = _cells(layer)
    return (f"{flipped} (ties {ties})" if layer.tied_bits else flipped), error


# -- outputs -------------------------------------------------------------------------------------------------------------------------


def _summary(comparisons: Sequence[Comparison]) -> list[list[str]]:
    first = comparisons[0]
    rows = [["computed by", first.oracle, *(each.backend for each in comparisons)]]
    rows += [["largest difference of an output", "", *(f"{each.output_difference:.3g}" for each in comparisons)]]
    same = [share_text(each.same_class, each.same_class_interval) for each in comparisons]
    rows += _optional("same class as the source (95 % interval)", "", same)
    accuracies = [share_text(each.accuracy, each.accuracy_interval) for each in comparisons]
    rows += _optional("accuracy (95 % interval)", share_text(first.source_accuracy, first.source_accuracy_interval), accuracies)
    rows += _optional("accuracy less the source's (paired)", "", [difference_text(each) for each in comparisons])
    examples = [count_text(each.examples, "example") for each in comparisons]
    return [*rows, ["of", examples[0], *examples]]


def _optional(title: str, source: str, cells: Sequence[str]) -> list[list[str]]:
    """A row, if any file has something to say in it."""
    return [[title, source, *cells]] if any(cells) else []


def share_text(value: float | None, interval: tuple[float, float] | None) -> str:
    """A share and its 95 % interval, in per cent."""
    if value is None or interval is None:
        return ""
    return f"{100 * value:.2f} % ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})"


def difference_text(comparison: Comparison) -> str:
    """The paired difference of accuracy, its 95 % interval and McNemar's p."""
    found = comparison.accuracy_difference
    if found is None:
        return ""
    return f"{100 * found.value:+.2f} % ({100 * found.low:+.2f} to {100 * found.high:+.2f}), p {found.p:.2g}"
