"""`edge convert`: a Keras model in; `.edge` and `.tflite` files and a table by layer out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edge.cli_options import PATH, json_option, numbers, overrides, preprocessing_options
from edge.cli_search import draw, print_choice, search_options, taken_goal
from edge.console import Column, Progress, bytes_text, out, out_json, out_notes, out_table, printable, styled, warn
from edge.widths import ACTIVATION_WIDTHS, CHOICES, DEFAULT_RANGES, INPUT_DTYPES, OUTPUT_DTYPES, RANGES, width

if TYPE_CHECKING:
    from edge.converters.recipe_file import Recipe
    from edge.converters.report import LayerRow, Report
    from edge.converters.search import Goal
    from edge.preprocess import Preprocess

FORMATS = {"edge": ("edge",), "tflite": ("tflite",), "both": ("edge", "tflite")}
_WARNING = "warning: "
_BESIDE_RECIPE = ("model", "output", "formats", "calibrate", "data", "weights", "recipe", "save_recipe", "force", "as_json")
_OPTION_NAMES = {"layers": "--layer"}  # those that are not their parameter's

EPILOG = """
\b
Examples:
  edge convert model.h5                         1 bit: writes model.edge and model.tflite beside it
  edge convert model.keras -o out/ --format edge
  edge convert model.h5 --bits 8 --calibrate photos/   8-bit weights and activations
  edge convert model.h5 --bits 1 --calibrate photos/   1-bit weights, 8-bit activations
  edge convert model.h5 --bits 4 --activation-bits 4 --calibrate photos/
  edge convert model.h5 --bits 8 --calibrate photos/ --input-dtype int8 --output-dtype int8   integers at both ends
  edge convert model.h5 --bits 4 --calibrate photos/ --layer 'block1_*=8' --layer dense=ternary
  edge convert model.h5 --data test.npz         measures how far the result agrees with the source
  edge convert model.h5 --preset torch --labels classes.txt
  edge convert model.h5 --bits 8 --calibrate photos/ --save-recipe model.toml
  edge convert model.h5 --recipe model.toml     the same bytes again
  edge convert model.h5 --data train.npz --budget 60KB --plot front.svg    the best bits by layer for a size
  edge convert model.h5 --data train.npz --max-drop 1.0 --save-recipe model.toml
  edge convert model.h5 --data train.npz --max-latency 2ms --target raspberry-pi-4

\b
Layers that were trained binary are packed as trained, whatever --bits says.
With a limit (--budget, --max-drop, --max-latency) training pictures choose, those of --calibrate or, without it, of --data (x_train first);
part of them is held back to measure on. --layer fixes the bits of single layers.
With --recipe the choices are those of the file; --format, --calibrate (where its pictures are now) and --data may stand beside it.
--calibrate and --data take a picture, a folder of pictures, or .npy / .npz with x (and y).
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=PATH, metavar="MODEL")
@click.option("--bits", type=click.Choice(CHOICES), default="1", show_default=True,
              help="Bits of the weights.")  # fmt: skip
@click.option("--activation-bits", type=click.Choice(tuple(map(str, ACTIVATION_WIDTHS))),
              show_default="8 with --calibrate and --bits below 16, else 32", help="Bits between layers.")  # fmt: skip
@click.option("--layer", "layers", multiple=True, metavar="PATTERN=BITS", help="Other bits for the weights of layers by name; repeatable.")
@click.option("-o", "--output", type=PATH, metavar="PATH", help="A folder, or a name; by default beside MODEL.")
@click.option("--format", "formats", type=click.Choice(tuple(FORMATS)), default="both", show_default=True, help="Which files to write.")
@click.option("--calibrate", type=PATH, metavar="FILE|FOLDER", help="Pictures to measure ranges on and to round weights by.")
@click.option("--calibration", type=click.Choice(RANGES), default=DEFAULT_RANGES, show_default=True,
              help="How ranges of activations are found on them.")  # fmt: skip
@click.option("--data", type=PATH, metavar="FILE|FOLDER", help="Pictures to compare source and result on.")
@click.option("--weights", type=PATH, metavar="FILE", help="Weights of a model that holds none, such as JSON; of save_weights.")
@click.option("--input-shape", type=numbers(int), metavar="H,W,C", help="Sizes of an input that the model leaves open.")
@click.option("--input-dtype", type=click.Choice(INPUT_DTYPES), default="auto", show_default=True,
              help="What both files are given; auto: floats, but bytes in the .edge where pixels stay 0..255.")  # fmt: skip
@click.option("--output-dtype", type=click.Choice(OUTPUT_DTYPES), default="float32", show_default=True,
              help="What both files give.")  # fmt: skip
@click.option("--labels", type=PATH, metavar="FILE",
              help="Names of the classes, to be stored: .txt, .csv or .json; by default labels.txt beside MODEL, if it fits.")  # fmt: skip
@search_options
@click.option("--recipe", type=PATH, metavar="FILE", help="Convert by the choices in FILE, which --save-recipe wrote.")
@click.option("--save-recipe", type=PATH, metavar="FILE", help="Write every choice into FILE (TOML), to repeat the conversion by.")
@click.option("--force", is_flag=True, help="Replace files that edge did not write.")
@preprocessing_options
@json_option
def convert(model: str, as_json: bool, **options: Any) -> None:
    """Convert a Keras model (.h5, .keras or a SavedModel folder) into a bit-packed .edge program and a .tflite file.

    The preprocessing options say what the model was trained to see; they are stored and used by `edge run`. Without them pixels are 0..255
    where the model rescales them itself, else 0..1.
    """
    changed = overrides(options)
    recipe = _recipe(options["recipe"])
    goal = taken_goal(model, options, _given()) if recipe is None else None
    if recipe is None and options["calibrate"] is None and "calibration" in _given():
        raise click.UsageError("--calibration says how ranges are found on pictures, got none; give --calibrate, or leave it out.")
    report = _convert(model, _chosen(model, changed, options, goal) if recipe is None else _by_recipe(recipe, options), options)
    if recipe is not None:
        _warn_of_another_model(recipe, report)
    for message in report.messages:
        if message.startswith(_WARNING):
            warn(message.removeprefix(_WARNING))
    if report.choice is not None and options["plot"] is not None:
        draw(options["plot"], report.choice, report.source)
    if as_json:
        out_json(report.to_json())
    else:
        _print(report)


def _recipe(path: str | None) -> Recipe | None:
    if path is None:
        return None
    from edge.converters.recipe_file import read_recipe

    return read_recipe(path)


def _convert(model: str, arguments: dict[str, Any], options: dict[str, Any]) -> Report:
    from edge.converters.convert import convert as convert_model

    places = {name: options[name] for name in ("data", "weights", "save_recipe", "force")}
    with Progress() as progress:

        def tell(step: str, done: int, total: int) -> None:
            progress.update(done, total if total > 1 else 0, f"{Path(model).name}: {step}")

        tell("reading", 0, 1)
        return convert_model(model, options["output"], **arguments, **places, progress=tell)


def _chosen(model: str, changed: dict[str, Any], options: dict[str, Any], goal: Goal | None) -> dict[str, Any]:
    """The choices of a conversion by its options."""
    from edge.converters.layer_bits import parsed

    return {
        "bits": width(options["bits"]),
        "layers": dict(parsed(text) for text in options["layers"]),
        "activation_bits": int(options["activation_bits"]) if options["activation_bits"] else None,
        "formats": FORMATS[options["formats"]],
        "calibrate": options["calibrate"],
        "ranges": options["calibration"],
        "input_dtype": options["input_dtype"],
        "output_dtype": options["output_dtype"],
        "input_shape": options["input_shape"],
        "preprocess": preprocess_of(model, changed, input_shape=options["input_shape"], weights=options["weights"]),
        "labels": options["labels"],
        "goal": goal,
    }


def _by_recipe(recipe: Recipe, options: dict[str, Any]) -> dict[str, Any]:
    """The choices of a conversion by those of a recipe, beside which only options may stand that change none of them."""
    from edge.converters.recipe_file import pictures_of

    given = _given()
    if wrong := sorted(given - set(_BESIDE_RECIPE)):
        names = ", ".join(_OPTION_NAMES.get(name, f"--{name.replace('_', '-')}") for name in wrong)
        raise click.UsageError(f"--recipe decides what {names} would; edit {options['recipe']}, or leave one of them out.")
    formats = FORMATS[options["formats"]] if "formats" in given else recipe.formats
    pictures = pictures_of(recipe, options["recipe"], options["calibrate"])
    limit = recipe.calibration.pictures if recipe.calibration else None
    return {**recipe.arguments(), "formats": formats, "calibrate": pictures, "calibration_pictures": limit}


def _given() -> set[str]:
    """The parameters that stand on the command line."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def _warn_of_another_model(recipe: Recipe, report: Report) -> None:
    if recipe.source_sha256 and recipe.source_sha256 != report.source_sha256:
        warn(f"the recipe was written for another model, {printable(recipe.source) or 'without a name'}; its choices may not suit this one")


def preprocess_of(model: str, changed: dict[str, Any], **source: Any) -> Preprocess | None:
    """The default for this model with the options given in place of its own; None, the default, without any."""
    if not changed:
        return None
    from edge.preprocess import combine, default_for

    if {"preset", "range"} & set(changed):
        return combine(default_for(False), changed)
    from edge.converters.keras_file import read_keras
    from edge.converters.layers import rescales_itself

    return combine(default_for(rescales_itself(read_keras(model, **source))), changed)


# -- the report ------------------------------------------------------------------------------------------------------------------


def _print(report: Report) -> None:
    if report.choice is not None:
        print_choice(report.choice)
    columns = [
        Column("layer"),
        Column("kind"),
        Column("bits", right=True),
        Column("bytes", right=True),
        Column("computed as", folds=True),
    ]
    before, after = (sum(sizes) for sizes in zip(*((row.bytes_before, row.bytes_after) for row in report.layers), strict=True))
    total = ["total", "", "", _change(bytes_text(before), bytes_text(after)), f"{before / after:.1f}x smaller" if after else ""]
    out_table(columns, [_cells(row) for row in report.layers], total=total)
    notes = [(row.name, row.note) for row in report.layers if row.note and row.kernel]
    if notes:
        out()
        out_notes(notes)
    out()
    width = max((len(file.path) for file in report.files), default=0)
    for file in report.files:
        out(f"{styled(f'{printable(file.path):<{width}}', 'bold')}  {bytes_text(file.bytes):>10}  ({file.bytes:,} bytes)")
    for message in report.messages:
        if not message.startswith(_WARNING):
            out(printable(message))


def _cells(row: LayerRow) -> list[str]:
    bits = _change(_bits(row.bits_before), _bits(row.bits_after))
    sizes = _change(bytes_text(row.bytes_before), bytes_text(row.bytes_after)) if row.bytes_before or row.bytes_after else "-"
    return [row.name, row.class_name, bits, sizes, row.kernel or row.note or "-"]


def _bits(bits: int | None) -> str:
    return "-" if bits is None else str(bits)


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"
