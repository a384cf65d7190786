"""Options that several commands share: the preprocessing, and values of several numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

PRESETS = ("unit", "byte", "mobilenet", "caffe", "torch")
CHANNEL_ORDERS = ("rgb", "bgr")
RESIZES = ("stretch", "crop", "letterbox")

_FIELDS = ("preset", "range", "mean", "std", "channel_order", "gray", "invert", "resize", "pad_value")

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Numbers(click.ParamType):
    """Numbers separated by commas. kind: int or float; counts: how many there may be, any if empty."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], *counts: int) -> None:
        self.kind = kind
        self.counts = counts

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or (self.counts and len(numbers) not in self.counts):
            counts = f"{' or '.join(map(str, self.counts))} " if self.counts else ""
            whole = "whole " if self.kind is int else ""
            self.fail(f"expected {counts}{whole}number{'' if self.counts == (1,) else 's'} separated by commas, got {value!r}.", param, ctx)
        return numbers


_PREPROCESSING = (
    click.option("--preset", type=click.Choice(PRESETS), help="A known way: unit 0..1, byte 0..255, mobilenet -1..1, caffe, torch."),
    click.option("--range", type=Numbers(float, 2), metavar="LO,HI", help="What the pixel values 0 and 255 become."),
    click.option("--mean", type=Numbers(float, 1, 3), metavar="A,B,C", help="Subtracted after --range, per channel or one for all."),
    click.option("--std", type=Numbers(float, 1, 3), metavar="A,B,C", help="Divided by after --mean."),
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


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, for programs.")
