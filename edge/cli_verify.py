"""`edge verify`: a converted file beside its source, layer by layer and from input to output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, json_option
from edge.console import Column, Progress, count_text, out, out_json, out_table, printable
from edge.errors import EdgeError

if TYPE_CHECKING:
    from edge.compare import Comparison
    from edge.compare_layers import LayerComparison

ORACLES = {"auto": None, "keras": True, "reference": False}

EPILOG = """
\b
Examples:
  edge verify model.h5 model.edge                    on random inputs
  edge verify model.h5 model.edge --data test.npz    on pictures; with labels in the file the accuracy follows
  edge verify model.h5 model.tflite --data photos/   a .tflite from input to output alone

\b
Each layer is given what the source's own layer was given, so an error shows where it is made. The source is computed by Keras where it is
installed, else by edge's reference interpreter. Exit code 0: equal, or as near as the bits allow; 1: not.
"""


@click.command(epilog=EPILOG)
@click.argument("source", type=PATH, metavar="SOURCE")
@click.argument("converted", type=PATH, metavar="CONVERTED")
@click.option("--data", type=PATH, metavar="FILE|FOLDER", help="Pictures, or .npy / .npz; random inputs if not given.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="How many examples, spread over the data.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random inputs.")
@click.option("--oracle", type=click.Choice(tuple(ORACLES)), default="auto", show_default=True, help="What computes the source.")
@json_option
def verify(source: str, converted: str, as_json: bool, **options: Any) -> None:
    """Compare CONVERTED (.edge or .tflite) with the Keras model SOURCE it was made from."""
    comparison = _compare(source, converted, options)
    if as_json:
        out_json(comparison.to_json())
    else:
        _print(comparison)
    if not comparison.equal:
        raise EdgeError(f"{converted}: {comparison.verdict}")


def _compare(source: str, converted: str, options: dict[str, Any]) -> Comparison:
    from edge.compare import compare

    with Progress(f"{Path(converted).name}: comparing") as progress:
        progress.update(0, 0)
        return compare(
            source,
            converted,
            data=options["data"],
            count=options["count"],
            seed=options["seed"],
            keras=ORACLES[options["oracle"]],
            progress=progress.update,
        )


def _print(comparison: Comparison) -> None:
    out(f"source computed by {printable(comparison.oracle)}; {printable(comparison.data)}")
    if comparison.oracle_note:
        out(printable(comparison.oracle_note))
    if comparison.layers:
        columns = [
            Column("layers"),
            Column("computed as"),
            Column("precision"),
            Column("values", right=True),
            Column("flipped", right=True),
            Column("ties", right=True),
            Column("max error", right=True),
            Column("relative", right=True),
            Column(""),
        ]
        out_table(columns, [_cells(layer) for layer in comparison.layers])
    for line in _summary(comparison):
        out(line)


def _cells(layer: LayerComparison) -> list[str]:
    packed = layer.encoding == "bits"
    return [
        "+".join(layer.layers) or layer.tensor,
        f"{', '.join(layer.operations)} -> {layer.encoding}",
        layer.precision,
        f"{layer.values:,}",
        f"{layer.flipped_bits:,}" if packed else "-",
        f"{layer.tied_bits:,}" if packed else "-",
        "-" if packed else f"{layer.max_abs_error:.2g}",
        "-" if packed else f"{layer.relative_error:.2g}",
        "" if layer.equal else "differs",
    ]


def _summary(comparison: Comparison) -> list[str]:
    lines = [f"largest difference of an output: {comparison.output_difference:.3g}"]
    if comparison.same_class is not None:
        lines.append(f"same class as the source: {100 * comparison.same_class:.2f} % of {count_text(comparison.examples, 'example')}")
    if comparison.accuracy is not None and comparison.source_accuracy is not None:
        lines.append(f"accuracy {100 * comparison.accuracy:.2f} %, source {100 * comparison.source_accuracy:.2f} %")
    if comparison.tied_examples:
        lines.append(f"examples in which a tie flipped: {', '.join(map(str, comparison.tied_examples))}")
    return [*lines, *([printable(comparison.verdict)] if comparison.equal else [])]
