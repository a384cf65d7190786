"""`edge zoo`: the networks of the project listed, shown and written as untrained Keras models."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from edge.cli_options import MOST_WIDTH, PATH, SEED, Number, json_option
from edge.console import Column, bytes_text, out, out_facts, out_json, out_table, shape_text, styled
from edge.zoo_writer import PRECISIONS

EPILOG = """
\b
Examples:
  edge zoo list                                       networks, and the recipes that train them
  edge zoo show lenet --precision xnor                layers, weights and how many take 1 bit
  edge zoo build "resnet(5)" --precision xnor-k -o net.keras
  edge zoo trained                                    the trained files that come with edge
  edge train lenet --precision xnor                   train one
"""
_FLOAT_BYTES = 4


@click.group(epilog=EPILOG)
def zoo() -> None:
    """The networks of this project, float or at 1 bit."""


_network = click.argument("network", metavar="NETWORK")
_precision = click.option("--precision", type=click.Choice(PRECISIONS), default="float", show_default=True, help="Of weights, activations.")
_width = click.option("--width", type=Number(0, MOST_WIDTH, min_open=True), default=1.0, show_default=True, help="Times the channels.")


@zoo.command("list")
@json_option
def list_networks(as_json: bool) -> None:
    """List the networks and the recipes that train them."""
    from edge.recipes import RECIPES
    from edge.recipes_gan import GANS
    from edge.zoo import GENERATORS, NETWORKS

    recipes = [*((r.network, r.name) for r in RECIPES.values()), *((r.network, r.name) for r in GANS.values())]
    networks = {**NETWORKS, **GENERATORS}
    rows = [(name, _about(build), [recipe for network, recipe in recipes if network == name]) for name, build in networks.items()]
    if as_json:
        out_json([{"network": name, "about": about, "recipes": recipes} for name, about, recipes in rows])
    else:
        columns = [Column("network"), Column("recipes", folds=True), Column("about", folds=True)]
        out_table(columns, [(name, ", ".join(recipes) or "-", about) for name, about, recipes in rows])


def _about(build: Callable[..., Any]) -> str:
    """The first line of a network's docstring."""
    function = build.func if isinstance(build, partial) else build
    return (inspect.getdoc(function) or "").splitlines()[0]


@zoo.command()
@_network
@_precision
@_width
@json_option
def show(network: str, precision: str, width: float, as_json: bool) -> None:
    """Show the layers of NETWORK, their weights, and how many of those take 1 bit."""
    from edge.zoo import build

    model = build(network, precision, width=width)
    layers = [_row(layer) for layer in model.layers if layer.weights]
    kernels = sum(row["kernel"] for row in layers)
    signs = sum(row["kernel"] for row in layers if row["bits"] == 1)
    summary = {
        "network": network,
        "precision": precision,
        "width": width,
        "input": [list(each.shape[1:]) for each in model.inputs] if len(model.inputs) > 1 else list(model.input_shape[1:]),
        "parameters": model.count_params(),
        "one_bit_share": signs / kernels,
        "layers": layers,
    }
    if as_json:
        out_json(summary)
        return
    columns = [Column("layer"), Column("kind"), Column("output"), Column("bits", right=True), Column("weights", right=True)]
    out_table(columns, [(r["name"], r["kind"], shape_text(r["output"]), str(r["bits"]), f"{r['parameters']:,}") for r in layers])
    out()
    size = bytes_text(_FLOAT_BYTES * model.count_params())
    share = f"{100 * signs / kernels:.1f} % of the {kernels:,} in kernels"
    inputs = " and ".join(f"{each.name} {shape_text(each.shape[1:])}" for each in model.inputs)
    out_facts([("input", inputs), ("weights", f"{model.count_params():,}, {size} as float32"), ("1 bit", share)])


def _row(layer: Any) -> dict[str, Any]:
    quantizer = getattr(layer, "kernel_quantizer", None)
    return {
        "name": layer.name,
        "kind": type(layer).__name__,
        "output": list(layer.output.shape[1:]),
        "bits": quantizer.precision if quantizer is not None else 32,
        "parameters": layer.count_params(),
        "kernel": math.prod(layer.kernel.shape) if hasattr(layer, "kernel") else 0,
    }


@zoo.command()
@_network
@_precision
@_width
@click.option("-o", "--output", type=PATH, metavar="FILE", help="By default NETWORK-PRECISION.keras in this folder.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the initial weights.")
@json_option
def build(network: str, precision: str, width: float, output: str | None, seed: int, as_json: bool) -> None:
    """Write NETWORK, untrained, as a .keras file."""
    from edge.zoo import build as build_network
    from edge.zoo_writer import check_keras_file, keras_package, save

    path = Path(output or f"{network}-{precision}.keras")
    check_keras_file(path)
    keras_package().utils.set_random_seed(seed)
    model = build_network(network, precision, width=width)
    save(model, path)
    if as_json:
        out_json({"path": str(path), "nbytes": path.stat().st_size, "parameters": model.count_params()})
    else:
        out(f"{path}  {model.count_params():,} weights, {bytes_text(path.stat().st_size)}")


@zoo.command()
@json_option
def trained(as_json: bool) -> None:
    """List the trained files that come with edge, what they learnt from, and under which terms.

    Their names stand for them wherever a model is run: edge run image.png -m digits
    """
    from edge.format import read
    from edge.train_result import weights_of
    from edge.train_scores import MEASURES
    from edge.trained_files import trained_files

    rows = [{**vars(each), "nbytes": each.path.stat().st_size, **weights_of(read(each.path))} for each in trained_files()]
    if as_json:
        out_json(rows)
        return
    for row in rows:
        out(styled(row["name"], "bold"))
        share = f"{100 * row['one_bit_share']:.1f} % of {row['weights']:,} weights"
        score = MEASURES[row["measure"]].text(row["score"])
        facts = [("about", row["about"]), ("test set", score), ("size", bytes_text(row["nbytes"])), ("1 bit", share)]
        out_facts([*facts, ("data", row["data"]), ("terms", row["terms"]), ("trained by", row["command"])], indent="  ")


def print_recipes() -> None:
    """The recipes of `edge train`, on stdout."""
    from edge.recipes import RECIPES
    from edge.recipes_gan import GANS

    columns = [Column("recipe"), Column("network"), Column("data"), Column("epochs: float, 1-bit weights, all 1 bit", right=True)]
    rows = []
    for each in RECIPES.values():
        data = f"{each.data}, permuted" if each.permuted else each.data
        plans = (each.schedules.floats, each.schedules.weights, each.schedules.signs)
        epochs = ", ".join(str(plan.epochs) for plan in plans)
        rows.append((each.name, each.network, data, epochs))
    rows += [(each.name, each.network, each.data, ", ".join([str(each.epochs)] * 3)) for each in GANS.values()]
    out_table(columns, rows)
