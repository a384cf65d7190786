"""The page of `edge verify --html`: one file that needs nothing else, readable on light and dark grounds and without scripts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge.compare import Comparison
from edge.compare_layers import EXACT, LayerComparison
from edge.compare_plot import INKS, plot
from edge.compare_print import difference_text, layer_name, rows_of, share_text
from edge.console import count_text, printable
from edge.targets.report_page import STYLE

_METHOD = (
    "Layers of a .edge file are each given the source's own tensors, so an error shows where it is made; a .tflite file runs from the "
    "input on, and its tensors are looked at as they come. A tie is a sign that rounding decides: a value within 8 units in the last place "
    "of the larger term of its sum. Intervals hold 95 %: Wilson's of shares, Bonett and Price's of the paired difference, with the p of "
    "McNemar's exact test."
)
_PLOT = (
    "Dots: largest error of a float layer, relative to its largest value. Squares: share of a packed layer's signs that flipped; empty "
    "ones: that tipped over in ties. What is equal stands on the line at the bottom."
)


def page(comparisons: Sequence[Comparison]) -> str:
    """The page as one HTML file."""
    first = comparisons[0]
    title = _text(Path(first.source).name)
    body = [
        f"<h1>{title}</h1><p>computed by {_text(first.oracle)}, on {_text(first.data)}</p>",
        *(f"<p>{_text(first.oracle_note)}</p>" if first.oracle_note else ""),
        *(_file(each, i) for i, each in enumerate(comparisons)),
        *_layers(comparisons),
        "<h2>What was compared</h2>",
        _facts(comparisons),
        f"<footer><p>{_METHOD}</p></footer>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}: verify</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _text(text: str) -> str:
    return html.escape(printable(text))


def _name(comparison: Comparison) -> str:
    return Path(comparison.converted).name


# -- files -------------------------------------------------------------------------------------------------------------------------


def _file(comparison: Comparison, number: int) -> str:
    square = "display:inline-block;width:.8em;height:.8em;margin-right:.5em;background:var(--ink)"
    key = f'<span class="{INKS[number % len(INKS)]}"><i style="{square}"></i></span>'
    verdict = f'<p class="help"><b class="{"yes" if comparison.equal else "no"}">{_text(comparison.verdict)}</b></p>'
    cards = "".join(f"<li><b>{_text(value)}</b><span>{_text(name)}</span></li>" for value, name in _cards(comparison))
    return f'<h2>{key}{_text(_name(comparison))}</h2>{verdict}<ul class="facts">{cards}</ul>'


def _cards(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield count_text(comparison.examples, "example"), f"by {comparison.backend}"
    signs = [layer for layer in comparison.layers if layer.encoding == "bits"]
    if signs:
        flipped, ties = sum(layer.flipped_bits for layer in signs), sum(layer.tied_bits for layer in signs)
        yield f"{flipped:,}", f"of {sum(layer.values for layer in signs):,} signs flipped, {ties:,} in ties"
    yield f"{comparison.output_difference:.3g}", "largest difference of an output"
    shares = (
        (share_text(comparison.same_class, comparison.same_class_interval), "same class as the source"),
        (share_text(comparison.accuracy, comparison.accuracy_interval), "accuracy"),
        (share_text(comparison.source_accuracy, comparison.source_accuracy_interval), "accuracy of the source"),
        (difference_text(comparison), "accuracy less the source's, paired"),
    )
    for text, name in shares:
        value, _, interval = text.partition(" (")
        if value:
            yield value, f"{name} ({interval}"


# -- layers ------------------------------------------------------------------------------------------------------------------------


def _layers(comparisons: Sequence[Comparison]) -> Iterator[str]:
    if not any(each.layers for each in comparisons):
        yield "<p>The tensors do not have the source's names, so layers could not be compared.</p>"
        return
    rows = rows_of(comparisons)
    names = [layer_name(next(layer for layer in row if layer is not None)) for row in rows]
    yield f"<h2>Layers</h2><p>{_PLOT}</p><figure style='margin:0'>{plot(rows, names)}</figure>"
    columns = [f"<th>{_text(_name(each))}</th>{'<th></th>' * 2}" for each in comparisons]
    head = '<tr><th class="label">layers</th><th class="label">holds</th>' + "".join(columns) + "</tr>"
    body = "".join(_row(name, row) for name, row in zip(names, rows, strict=True))
    yield f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _row(name: str, row: Sequence[LayerComparison | None]) -> str:
    first = next(layer for layer in row if layer is not None)
    cells = "".join(_cells(layer) for layer in row)
    return f'<tr><td class="label" title="{_text(name)}">{_text(name)}</td><td class="label">{first.encoding}</td>{cells}</tr>'


def _cells(layer: LayerComparison | None) -> str:
    """What differs, at what precision, and whether that is too much."""
    if layer is None:
        return "<td>–</td><td></td><td></td>"
    if layer.encoding == "bits":
        value = f"{layer.flipped_bits:,} of {layer.values:,}" + (f", ties {layer.tied_bits:,}" if layer.tied_bits else "")
    else:
        value = f"{layer.max_abs_error:.2g}"
    verdict = '<td class="yes">equal</td>' if layer.equal else '<td class="no">differs</td>'
    if layer.equal and layer.precision != EXACT:
        verdict = "<td>not judged</td>" if layer.tolerance is None else f"<td>within {layer.tolerance:.2g}</td>"
    return f'<td>{value}</td><td class="label">{layer.precision}</td>{verdict}'


# -- facts -------------------------------------------------------------------------------------------------------------------------


def _facts(comparisons: Sequence[Comparison]) -> str:
    first = comparisons[0]
    rows = [("source", first.source), ("its sha256", first.source_sha256), ("computed by", first.oracle), ("examples", first.data)]
    for each in comparisons:
        rows += [(_name(each), f"run by {each.backend}; sha256 of its inputs {each.data_sha256}")]
        rows += [("its program", f"sha256 {each.program_sha256}")] if each.program_sha256 else []
    cells = "".join(f'<tr><td class="label">{_text(name)}</td><td class="label device">{_text(value)}</td></tr>' for name, value in rows)
    return f'<div class="wide"><table><tbody>{cells}</tbody></table></div>'
