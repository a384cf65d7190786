"""Write the pages of this folder that are made from the code: `python docs/generate.py`; a test fails where one is out of date."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli import COMMANDS, cli
from edge.converters.layer_support import COLUMNS, layer_support
from edge.converters.layers import supported_operations
from edge.converters.layers_activation import ACTIVATIONS
from edge.converters.quantizers import forms
from edge.ops import OPS
from edge.tensors import Encoding

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code; do not edit. -->\n\n"


def commands() -> str:
    """The help text of every command."""
    settings = {**cli.context_settings, "terminal_width": 100}
    parent = click.Context(cli, info_name="edge", **settings)
    pages = [f"# Commands\n\n```text\n{cli.get_help(parent)}\n```"]
    for name, entry in COMMANDS.items():
        command = entry.load()
        context = click.Context(command, info_name=name, parent=parent, terminal_width=100)
        pages.append(f"## edge {name}\n\n```text\n{command.get_help(context)}\n```")
        for part, inner in command.commands.items() if isinstance(command, click.Group) else ():
            help_text = inner.get_help(click.Context(inner, info_name=part, parent=context, terminal_width=100))
            pages.append(f"### edge {name} {part}\n\n```text\n{help_text}\n```")
    return NOTE + "\n\n".join(pages) + "\n"


def layers() -> str:
    """The layers that convert, and what each becomes at each precision."""
    rows = [f"| `{name}` | {' | '.join(words)} |" for name, words in sorted(layer_support().items())]
    head = [f"| layer | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    text = (
        "Layers of Keras, Larq and QKeras that `edge convert` reads, the latter two without these packages. Any other is refused with its "
        "name and what to do instead.\n\n"
        "- **fast**: works on float32 at 32 bits, on int8 at 8 (weights and activations, with `--calibrate`), on packed weights at 1.\n"
        "- **supported**: converts, and works on float32 there, between layers of lower precision.\n"
        "- **free**: does nothing at run time.\n"
        "- **signs**: in a network trained with signs, whether the layer reads and gives packed ones.\n"
    )
    activations = ", ".join(f"`{name}`" for name in ACTIVATIONS)
    functions = ", ".join(f"`{name}`" for name in supported_operations())
    further = (
        f"\n\nActivations, by name or as layers: {activations}.\n\n"
        "Functions that functional models record like layers, by `keras.ops`, by TensorFlow (`TFOpLambda`, `SlicingOpLambda`, "
        f"`TensorFlowOpLayer`) or by Python's operators, with numbers and constants by channel beside tensors: {functions}.\n\n"
        f"{_quantizers()}"
        "[Networks that convert](networks.md) lists public ones that are tried.\n"
    )
    return f"{NOTE}# Layers\n\n{text}\n" + "\n".join(head + rows) + further


def _quantizers() -> str:
    """What becomes of what each quantizer gives."""
    rows = [f"| `{form.name}` | {form.package} | {form.activations} | {form.weights} |" for form in forms()]
    text = (
        "## Quantizers\n\n"
        "Of inputs, as activation of a layer, in `Activation` or `QActivation`; of kernels and biases. Every level is exact, at 32, 8 and "
        "1 bits: weights trained at 8 bits or less are never lowered further; the report says how many bits they were meant to take. Where "
        "the levels of activations are int8, layers with int8 weights or signs read that int8, and the sums are whole numbers. "
        "[How](quantizers.md).\n\n"
    )
    head = ["| quantizer | of | activations are stored as | weights are stored as |", "|---|---|---|---|"]
    return text + "\n".join(head + rows) + "\n\n"


def operations() -> str:
    """The operations of a program: number, operands, encodings."""
    rows = ["| number | operation | constants | attributes | input, filter, output |", "|---|---|---|---|---|"]
    for op in OPS.values():
        kinds = sorted(op.signatures, key=str)
        signatures = "; ".join(" ".join(_short(e) for e in kind if e is not None) for kind in kinds)
        rows.append(f"| {op.number} | {op.name} | {', '.join(op.constants)} | {', '.join(op.attrs)} | {signatures} |")
    text = "What a `.edge` program is made of. `edge/ops.py` defines shapes, `kernels/reference.py` what each computes.\n"
    return NOTE + "# Operations\n\n" + text + "\n" + "\n".join(rows) + "\n"


def _short(encoding: Encoding) -> str:
    return encoding.name.lower()


PAGES = {"commands.md": commands, "layers.md": layers, "operations.md": operations}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
