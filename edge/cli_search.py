"""Limits of `edge convert` by which bits are chosen layer by layer: their options, and what is printed of a choice."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge.cli_options import PATH, Number
from edge.console import Column, bytes_text, out, out_table, printable, say, seconds_text

if TYPE_CHECKING:
    from edge.converters.search import Choice, Goal

LIMITS = ("budget", "max_drop", "max_latency")
_OF_SEARCH = (*LIMITS, "target", "plot")
_BYTES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "kib": 1024, "mib": 1024**2}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)\s*")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def size(text: str) -> int:
    """Bytes of a text such as "100KiB" (1024 bytes each), "60KB" (1000) or "60000"."""
    return math.floor(_measure(text, _BYTES, "a size such as 100KiB, 60KB or 60000"))


def duration(text: str) -> float:
    """Seconds of a text such as "2ms", "150us" or "0.5s"."""
    return _measure(text, _SECONDS, "a time such as 2ms, 150us or 0.5s")


def _measure(text: str, units: Mapping[str, float], what: str) -> float:
    found = _NUMBER.fullmatch(text)
    unit = found.group(2).lower() if found else ""
    if found is None or unit not in units or not 0 < (value := float(found.group(1)) * units[unit]) < 1e15:
        raise click.BadParameter(f"expected {what}, got {text!r}.")
    return value


_OPTIONS = (
    click.option("--budget", type=size, metavar="SIZE", help="Choose bits by layer for a .edge file of at most so many bytes."),
    click.option("--max-drop", type=Number(0, 100), metavar="POINTS",
                 help="Choose them for the smallest file that loses at most so many points of accuracy."),
    click.option("--max-latency", type=duration, metavar="TIME", help="Choose them for at most this time of an inference."),
    click.option("--target", metavar="NAME|FILE", help="The device of --max-latency (default: host, this machine)."),
    click.option("--plot", type=PATH, metavar="FILE.svg", help="Draw the best choices of bits, and the one taken."),
)  # fmt: skip


def search_options(command: _Function) -> _Function:
    """Decorator: the options of a search."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken_goal(model: str, options: dict[str, Any], given: set[str]) -> Goal | None:
    """The limit among the options, with pictures given as --data taken for choosing; None without one. `given` are on the command line."""
    limits = [name for name in LIMITS if options[name] is not None]
    if not limits:
        if idle := sorted(given & set(_OF_SEARCH)):
            raise click.UsageError(f"--{idle[0]} goes with --budget, --max-drop or --max-latency, got none of them.")
        return None
    if len(limits) > 1:
        raise click.UsageError(f"One limit is kept at a time, got {' and '.join(map(_option, limits))}; leave one out.")
    if "bits" in given:
        raise click.UsageError(f"{_option(limits[0])} chooses the bits of every layer; leave out --bits, or fix some by --layer.")
    if options["calibrate"] is None:
        options["calibrate"], options["data"] = options["data"], None
    return _goal(model, options)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _goal(model: str, options: dict[str, Any]) -> Goal:
    from edge.converters.search import Goal
    from edge.plots import check_plot

    check_plot(options["plot"], (model, options["calibrate"], options["data"], options["save_recipe"]))
    limits = Goal(options["budget"], options["max_drop"], options["max_latency"])
    target = options["target"] or ("host" if options["max_latency"] is not None else None)
    if target is None:
        return limits
    from edge.targets.latency import latency_on

    on = latency_on(target)
    return Goal(options["budget"], options["max_drop"], options["max_latency"], on.target, on.seconds, on.start_s)


def draw(path: str, choice: Choice, model: str) -> None:
    """Write the plot of `--plot`."""
    from edge.files import write_atomically
    from edge.front_plot import plot

    write_atomically(path, [plot(choice, model).encode()])
    say(f"wrote {path}")


def print_choice(choice: Choice) -> None:
    """By layer, then in all."""
    columns = [Column("chosen for"), Column("bits", right=True), Column("bytes", right=True), Column("damage alone", right=True)]
    rows = [[each.layer, str(each.bits), bytes_text(each.bytes), f"{each.damage:.2g}"] for each in choice.layers]
    out_table(columns, rows)
    out()
    out(f"damage: {choice.expected_damage:.2g} expected, {choice.measured.damage:.2g} measured on {_held_back(choice)}")
    if choice.latency_s is not None:
        out(f"time of an inference on {printable(choice.target)}: {seconds_text(choice.latency_s)}, one thread")
    if choice.tried:
        out("tried: " + ", ".join(f"{nbytes:,} bytes {-drop:+.2f}" for nbytes, drop in sorted(choice.tried)))
    out()


def _held_back(choice: Choice) -> str:
    found = choice.measured
    parts = [f"{found.pictures:,} pictures that were held back"]
    parts += [f"{found.changed_points:.2f} % of answers changed"] if found.changed_points is not None else []
    if found.gained is not None and found.lost is not None:
        from edge.compare_statistics import paired_difference

        difference = paired_difference(found.gained, found.lost, found.pictures)
        low, high = 100 * difference.low, 100 * difference.high
        parts.append(f"accuracy {100 * difference.value:+.2f} points ({low:+.2f} to {high:+.2f} at 95 %)")
    return ", ".join(parts)
