"""Options that several commands share: the preprocessing, and values of several numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

PRESETS = ("unit", "byte", "mobilenet", "caffe", "torch")
CHANNEL_ORDERS = ("rgb", "bgr")
RESIZES = ("stretch", "crop", "letterbox")

PATH = click.Path(readable=False)  # what opens a file says why it can't, as one sentence; click would answer with the usage

_FIELDS = ("preset", "range", "mean", "std", "channel_order", "gray", "invert", "resize", "pad_value")

_Function = TypeVar("_Function", bound=Callable[..., Any])


MOST_WIDTH = 64
SEED = click.IntRange(0, 2**32 - 1)
"""Of what NumPy, Python and TensorFlow draw together."""


def numbers(kind: type[int] | type[float], *counts: int) -> Callable[[str], tuple[int | float, ...]]:
    """A type of options: numbers separated by commas, as many as one of `counts` says, or any number of them."""

    def parse(value: str) -> tuple[int | float, ...]:
        try:
            found = tuple(kind(part) for part in value.split(","))
        except ValueError:
            found = ()
        if not found or (counts and len(found) not in counts):
            expected = f"{' or '.join(map(str, counts))} " if counts else ""
            whole = "whole " if kind is int else ""
            raise click.BadParameter(f"expected {expected}{whole}numbers separated by commas, got {value!r}.")
        return found

    return parse


class Number(click.FloatRange):
    """Of options: a finite number within bounds, where ranges of click let NaN pass, and infinity if they are open above."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"expected a finite number, got {value!r}.", param, ctx)
        return found


_PREPROCESSING = (
    click.option("--preset", type=click.Choice(PRESETS), help="A known way: unit 0..1, byte 0..255, mobilenet -1..1, caffe, torch."),
    click.option("--range", type=numbers(float, 2), metavar="LO,HI", help="What the pixel values 0 and 255 become."),
    click.option("--mean", type=numbers(float, 1, 3), metavar="A,B,C", help="Subtracted after --range, per channel or one for all."),
    click.option("--std", type=numbers(float, 1, 3), metavar="A,B,C", help="Divided by after --mean."),
    click.option("--channel-order", type=click.Choice(CHANNEL_ORDERS), help="Order of the colour channels."),
    click.option("--gray/--color", default=None, help="Show the net a grey or a colour picture (default: what its channels ask for)."),
    click.option("--invert/--no-invert", default=None, help="Swap black and white, for dark writing on light paper."),
    click.option("--resize", type=click.Choice(RESIZES), help="How a picture of another shape is fitted (default: stretch)."),
    click.option("--pad-value", type=click.IntRange(0, 255), help="Level of the bands that --resize letterbox adds."),
)


def preprocessing_options(command: _Function) -> _Function:
    """Decorator: the options that say what a net sees of a picture; they reach the function under the names in `Preprocess`."""
    for option in reversed(_PREPROCESSING):
        command = option(command)
    return command


def overrides(options: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing options that were given, taken out of `options`."""
    taken = {name: options.pop(name) for name in _FIELDS}
    return {name: value for name, value in taken.items() if value is not None}


def idle_options(changed: dict[str, Any], channels: int, resize: str) -> list[str]:
    """Why options that were given change nothing, for a net of so many channels and pictures fitted by `resize`."""
    found = []
    if "channel_order" in changed and channels == 1:
        found.append("--channel-order changes nothing, since the net sees grey pictures; leave it out")
    if "pad_value" in changed and resize != "letterbox":
        found.append(f"--pad-value changes nothing with --resize {resize}, which adds no bands; give --resize letterbox, or leave it out")
    return found


mixed_precision_option = click.option("--mixed-precision", is_flag=True, help="Train in bfloat16: faster where the hardware has it.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, for programs.")
