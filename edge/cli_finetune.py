"""`edge finetune`: a float model distilled into its low-bit self."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, SEED, Number, json_option, mixed_precision_option, overrides, preprocessing_options
from edge.console import Column, Progress, out, out_facts, out_json, out_table, say, seconds_text, styled
from edge.widths import width

if TYPE_CHECKING:
    from edge.train_loop import Epoch

EPILOG = """
\b
Examples:
  edge finetune model.h5 --data train.npz                      1-bit weights, floats between layers
  edge finetune model.h5 --data photos/ --epochs 10            pictures alone: the float model labels them
  edge finetune model.h5 --data train.npz --activation-bits 1 --shortcuts --layer 'skip*=8'
  edge finetune model.h5 --data train.npz --layer dense_1=4 -o small.keras
  edge finetune model.h5 --data train.npz --resume             go on where it was cut off
  edge finetune model.h5 --data train.npz --test test.npz      the test set is read once, at the end

\b
Writes MODEL-1bit.keras and the .edge beside it. Of the pictures a tenth, at most 2,500, chooses the epoch, as many again
are held back for the scores; the rest is learnt from. The first and the last layer with weights stay at 8 bits.
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=PATH, metavar="MODEL")
@click.option("--data", type=PATH, required=True, metavar="FILE|FOLDER", help="Pictures: x_train or x (and y_train or y) of an .npz, say.")
@click.option("--bits", type=click.Choice(("1", "2", "ternary", "4")), default="1", show_default=True, help="Bits of the weights.")
@click.option("--activation-bits", type=click.Choice(("1", "8", "32")), default="32", show_default=True,
              help="Bits between layers; 8 by calibration at the end.")  # fmt: skip
@click.option("--layer", "layers", multiple=True, metavar="PATTERN=BITS", help="Other bits for layers by name; 8 and 32 leave them out.")
@click.option("--shortcuts", is_flag=True, help="With --activation-bits 1, a shortcut around every layer of signs that has room for one.")
@click.option("--prelu", is_flag=True, help="A PReLU that learns where it bends for every ReLU that a layer of few bits reads.")
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Over the pictures learnt from.")
@click.option("--rate", type=Number(min=0, min_open=True), metavar="R", help="The highest learning rate (default: by the bits).")
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True, metavar="N", help="Pictures a step.")
@click.option("--seed", type=SEED, default=0, show_default=True, metavar="S", help="Of parts, order and augmentation.")
@mixed_precision_option
@click.option("--test", type=PATH, metavar="FILE|FOLDER", help="Labelled pictures for the final scores: x_test and y_test of an .npz, say.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="By default MODEL-1bit.keras (-2bit, ...) in this folder.")
@preprocessing_options
@json_option
def finetune(model: str, as_json: bool, **options: Any) -> None:
    """Train MODEL at few bits until it answers as it did: the float model teaches its low-bit self.

    MODEL is a classifier in a .h5 or .keras file. The preprocessing options say what it was trained to see, as for `edge convert`.
    """
    changed = overrides(options)
    output = Path(options["output"] or f"{Path(model).stem}-{_suffix(options['bits'])}.keras")
    with Progress() as progress:
        result = _finetuned(model, output, changed, options, progress)
    if as_json:
        out_json(result)
    else:
        _print(result, output)


def _suffix(bits: str) -> str:
    return f"{bits}bit" if bits.isdecimal() else bits


def _finetuned(model: str, output: Path, changed: dict[str, Any], options: dict[str, Any], progress: Progress) -> dict[str, Any]:
    from edge.cli_convert import preprocess_of
    from edge.converters.layer_bits import parsed
    from edge.finetune import Settings, Told
    from edge.finetune import finetune as finetune_model

    settings = Settings(
        width(options["bits"]), int(options["activation_bits"]), tuple(parsed(text) for text in options["layers"]),
        options["epochs"], options["seed"], options["rate"], options["batch"], options["shortcuts"],
        options["prelu"], options["mixed_precision"],
    )  # fmt: skip

    def epoch(row: Epoch) -> None:
        progress.clear()
        stage = " (signs between layers first)" if row.stage else ""
        found = f"{100 * row.validation:.2f} % of those that choose"
        say(f"epoch {row.epoch}/{settings.epochs}{stage}: loss {row.loss:.4f}, {found}, {seconds_text(row.seconds)}")

    def batch(epoch: int, done: int, total: int) -> None:
        progress.update(done, total, f"epoch {epoch + 1}")

    return finetune_model(
        model, options["data"], output, settings, test=options["test"], preprocess=preprocess_of(model, changed),
        resume=options["resume"], told=Told(say, epoch, batch),
    )  # fmt: skip


_ROWS = {"float": "float model", "untrained": "few bits, before training", "trained": "few bits, trained", "converted": "the .edge, run"}


def _print(result: dict[str, Any], output: Path) -> None:
    right = "right" if result["labels"] else "as the float model"
    parts = {f"{right}, of {result['pictures']['held_back']:,} held back": result["held_back"]}
    if "test" in result:
        parts[f"right, of {result['pictures']['test']:,} for tests"] = result["test"]
    columns = [Column(""), *(Column(name, right=True) for name in parts)]
    out_table(columns, [[text, *(f"{100 * scores[name]:.2f} %" for scores in parts.values())] for name, text in _ROWS.items()])
    out()
    for name in result["files"]:
        out(styled(str(output.parent / name), "bold"))
    facts = f"{result['epochs']} epochs (kept: {result['best_epoch']}), {seconds_text(result['training_s'])}"
    out_facts([("training", f"{facts}, of which {seconds_text(result['training_cpu_s'])} of processors")])
