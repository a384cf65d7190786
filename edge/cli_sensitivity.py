"""`edge sensitivity`: how much each layer of a Keras model minds fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, json_option, numbers, overrides, preprocessing_options
from edge.console import Column, Progress, count_text, out, out_json, out_table, printable, say, warn
from edge.widths import CHOICES, Bits, width

if TYPE_CHECKING:
    from edge.converters.damage import Score
    from edge.converters.sensitivity import LayerSensitivity, Sensitivity

EPILOG = """
\b
Examples:
  edge sensitivity model.h5 --data train.npz                     a table of damage by layer and width
  edge sensitivity model.h5 --data photos/ --plot layers.svg     the same as a picture
  edge sensitivity model.h5 --data train.npz --bits 4,2 --json

\b
--data takes a picture, a folder of pictures, or .npy / .npz with x_train or x (and y_train or y): training pictures, since choices are made
by them. Damage needs no labels: of classifiers it is the mean KL divergence of the probabilities from the float model's, in nats; of
other outputs the squared error relative to the variance.
"""


def _widths(value: str) -> tuple[Bits, ...]:
    parts = value.split(",")
    wrong = next((part for part in parts if part not in CHOICES or part == "32"), None)
    if wrong is not None:
        known = ", ".join(each for each in CHOICES if each != "32")
        raise click.BadParameter(f"expected widths of {known}, separated by commas, got {wrong!r}.")
    return tuple(dict.fromkeys(map(width, parts)))


@click.command(epilog=EPILOG)
@click.argument("model", type=PATH, metavar="MODEL")
@click.option("--data", type=PATH, metavar="FILE|FOLDER", required=True, help="Pictures to measure on.")
@click.option("--bits", type=_widths, metavar="WIDTH,...", help="Which widths (default: 8,4,ternary,2,1).")
@click.option("--pictures", type=click.IntRange(1, 1 << 20), default=512, show_default=True, help="At most so many, spread over all.")
@click.option("--plot", type=PATH, metavar="FILE.svg", help="Draw damage by layer and width.")
@click.option("--weights", type=PATH, metavar="FILE", help="Weights of a model that holds none, such as JSON; of save_weights.")
@click.option("--input-shape", type=numbers(int), metavar="H,W,C", help="Sizes of an input that the model leaves open.")
@click.option("--input-dtype", type=click.Choice(("auto", "float32", "uint8")), default="auto", show_default=True,
              help="What the network is given; auto: bytes where pixels stay 0..255.")  # fmt: skip
@preprocessing_options
@json_option
def sensitivity(model: str, as_json: bool, plot: str | None, bits: tuple[Bits, ...] | None, **options: Any) -> None:
    """Measure what fewer bits in one layer of MODEL, a Keras model, do to its answers, layer by layer, all others float."""
    from edge.cli_convert import preprocess_of
    from edge.converters.sensitivity import LOWERED
    from edge.converters.sensitivity import sensitivity as measure
    from edge.plots import check_plot

    check_plot(plot, (model, options["data"]))
    changed = overrides(options)
    source = {name: options[name] for name in ("input_shape", "weights")}
    with Progress() as progress:

        def tell(step: str, done: int, total: int) -> None:
            progress.update(done, total if total > 1 else 0, f"{Path(model).name}: {step}")

        tell("reading", 0, 1)
        preprocess = preprocess_of(model, changed, **source)
        found = measure(model, options["data"], bits=bits or LOWERED, pictures=options["pictures"], preprocess=preprocess,
                        input_dtype=options["input_dtype"], progress=tell, **source)  # fmt: skip
    for remark in found.remarks:
        warn(remark)
    if plot is not None:
        _write(plot, found)
    if as_json:
        out_json(found.to_json())
    else:
        _print(found)


def _write(path: str, found: Sensitivity) -> None:
    from edge.files import write_atomically
    from edge.sensitivity_plot import plot as drawn

    write_atomically(path, [drawn(found).encode()])
    say(f"wrote {path}")


def _print(found: Sensitivity) -> None:
    from edge.sensitivity_plot import number

    _table(found, lambda score: number(score.damage), "damage")
    scores = [score for each in found.layers for score in each.scores.values()]
    if scores[0].changed is not None:
        out()
        _table(found, lambda score: f"{score.changed_points:.1f}", "answers changed, %")
    if scores[0].drop_points is not None:
        out()
        _table(found, lambda score: f"{score.drop_points:+.1f}", "accuracy lost, points")
    out()
    pictures = count_text(found.pictures, "picture")
    out(f"{printable(found.model)}: {_accuracy(scores[0])}{pictures}, one layer at that width, all others float")


def _accuracy(score: Score) -> str:
    return "" if score.source_right is None else f"accuracy at float {100 * score.source_right / score.pictures:.2f} %; "


def _table(found: Sensitivity, text: Callable[[Score], str], title: str) -> None:
    columns = [Column(title), Column("weights", right=True), *(Column(str(bits), right=True) for bits in found.bits)]
    out_table(columns, [_cells(each, found.bits, text) for each in found.layers])


def _cells(each: LayerSensitivity, widths: tuple[Bits, ...], text: Callable[[Score], str]) -> list[str]:
    cells = [text(each.scores[bits]) if bits in each.scores else "-" for bits in widths]
    return [each.layer.name, f"{each.layer.weights:,}", *cells]
