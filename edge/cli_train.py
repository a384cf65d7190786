"""`edge train`: a network trained by its recipe, converted and tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import MOST_WIDTH, PATH, SEED, Number, json_option, mixed_precision_option
from edge.console import Progress, bytes_text, out, out_facts, out_json, say, seconds_text, styled
from edge.recipes import PRECISIONS

if TYPE_CHECKING:
    from edge.train import Settings, Told
    from edge.train_loop import Epoch

EPILOG = """
\b
Examples:
  edge train lenet                                 MNIST through Keras, float, into runs/lenet-float
  edge train lenet --precision xnor                signs, taught by the float net (trained first if it is missing)
  edge train lenet --precision xnor --data mnist.npz --seed 1
  edge train resnet-2 --precision xnor --resume    go on where it was cut off
  edge train lenet --data pictures/ --epochs 3     pictures/train/CLASS/*.png and pictures/test/CLASS/*.png
  edge train cgan-digits --precision xnor          a generator and its discriminator in turns; digits as they are asked for
  edge train --list                                the recipes

\b
The test set is looked at once, by the engine, which runs the converted file; the epoch is chosen on training pictures that are held back.
"""


def _list(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from edge.cli_zoo import print_recipes

        print_recipes()
        ctx.exit()


@click.command(epilog=EPILOG)
@click.argument("recipe", metavar="RECIPE")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float", show_default=True, help="Of weights, and of activations.")
@click.option("--data", type=PATH, metavar="FILE|FOLDER", help="An .npz or a folder of pictures, in place of the data fetched by name.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="By default the recipe's.")
@click.option("--seed", type=SEED, default=0, show_default=True, metavar="S", help="Of weights, order and augmentation.")
@click.option("--width", type=Number(0, MOST_WIDTH, min_open=True), default=1.0, show_default=True, metavar="W", help="Times channels.")
@mixed_precision_option
@click.option("--discriminator-steps", type=click.IntRange(min=1), metavar="N", help="GANs: for a step of the generator.")
@click.option("--classifier", type=PATH, metavar="FILE", help="GANs: the .edge file that judges what is made.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the folder.")
@click.option("--tensorboard", is_flag=True, help="Write logs for TensorBoard into the folder.")
@click.option("-o", "--output", type=PATH, metavar="FOLDER", help="By default runs/RECIPE-PRECISION.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List the recipes and exit.")
@json_option
def train(recipe: str, output: str | None, as_json: bool, **options: Any) -> None:
    """Train the network of RECIPE, convert it, and run the converted file on the whole test set.

    The folder gets checkpoint, curve, model.keras, the .edge files and result.json.
    """
    from edge.train import Told

    settings, train_network = _task(recipe, options)
    folder = Path(output) if output else Path("runs") / settings.name
    with Progress() as progress:

        def epoch(run: Settings, row: Epoch) -> None:
            progress.clear()
            say(_line(run, row))

        def batch(epoch: int, done: int, total: int) -> None:
            progress.update(done, total, f"epoch {epoch + 1}")

        result = train_network(folder, Told(say, epoch, batch))
    if as_json:
        out_json(result)
    else:
        _print(result, folder)


def _task(recipe: str, options: dict[str, Any]) -> tuple[Settings, Callable[[Path, Told], dict[str, Any]]]:
    """The settings of the run, and what trains it in a folder. Options that are not for this recipe are wrong usage."""
    from edge import train
    from edge.recipes_gan import GANS

    resume, board = options.pop("resume"), options.pop("tensorboard")
    classifier, steps = options.pop("classifier"), options.pop("discriminator_steps")
    if recipe in GANS:
        from edge import train_gan

        if board:
            raise click.UsageError("--tensorboard is for networks that classify; the curve of this one is in curve.csv.")
        if options.pop("mixed_precision"):
            raise click.UsageError("--mixed-precision is for networks that classify; two that train in turns compute in float32.")
        made = train_gan.settings_for(recipe, discriminator_steps=steps, **options)
        judge = Path(classifier) if classifier else None
        return made, lambda folder, told: train_gan.train(made, folder, resume=resume, told=told, classifier=judge)
    if classifier or steps:
        raise click.UsageError(f"--classifier and --discriminator-steps are for networks that make pictures: {', '.join(GANS)}.")
    settings = train.settings_for(recipe, **options)
    return settings, lambda folder, told: train.train(settings, folder, resume=resume, told=told, tensorboard=board)


def _line(run: Settings, row: Epoch) -> str:
    stage = f" ({row.stage})" if row.stage else ""
    found = _held_back(run.recipe, row.validation)
    return f"{run.name} epoch {row.epoch}/{run.epochs}{stage}: loss {row.loss:.4f}, {found}, {seconds_text(row.seconds)}"


def _held_back(name: str, validation: float) -> str:
    from edge.recipes import recipe
    from edge.recipes_gan import GANS
    from edge.train_scores import ACCURACY, MINUTES_OFF

    if name in GANS:
        return f"told apart {ACCURACY.text(validation)}"
    measure = MINUTES_OFF if recipe(name).data == "clocks" else ACCURACY
    return f"held back {measure.text(validation)}"


def _tested(file: dict[str, Any]) -> list[tuple[str, str]]:
    """What was found of the test set."""
    from edge.train_scores import ACCURACY, MINUTES_OFF

    measure = ACCURACY if file["measure"] == ACCURACY.name else MINUTES_OFF
    further = [(f"on {part}", measure.text(found["score"])) for part, found in file["further"].items()]
    return [("test set", f"{measure.text(file['score'])} of {file['pictures']:,} pictures, by the engine"), *further]


def _made(file: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """What was found of the pictures that were made."""
    found = [("made", f"{file['pictures']:,} pictures, by the engine; the first are in {folder / 'samples.png'}")]
    if "judged" in file:
        judged = file["judged"]
        asked = f", {100 * judged['as_asked']:.2f} % as asked" if "as_asked" in judged else ""
        found.append(("judged", f"{judged['modes']} of {judged['of']} classes covered{asked}, by {judged['classifier']}"))
    if "levels_off" in file:
        found.append(("colours", f"{file['levels_off']:.1f} of 255 levels off the real ones"))
    return found


def _print(result: dict[str, Any], folder: Path) -> None:
    for name, file in result["files"].items():
        out(styled(f"{folder / file['file']}", "bold"))
        facts = [("precision", name), *(_tested(file) if "score" in file else _made(file, folder))]
        share = f"{100 * file['one_bit_share']:.1f} % of {file['weights']:,} weights"
        out_facts([*facts, ("1 bit", share), ("size", bytes_text(file["bytes"]))], indent="  ")
    out_facts([("training", f"{result['epochs']} epochs, {seconds_text(result['training_s'])}"), ("command", result["command"])])
