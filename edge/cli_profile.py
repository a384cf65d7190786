"""`edge profile`: bytes and time of a model on a device, or on all there are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli_model import file_format, find_model, naming, native_silence
from edge.cli_options import PATH, json_option
from edge.console import Column, Progress, bytes_text, out, out_facts, out_json, out_table, say, seconds_text
from edge.errors import InputError
from edge.plots import check_destination
from edge.widths import CHOICES, width

if TYPE_CHECKING:
    from edge.targets.lite_profile import LiteProfile
    from edge.targets.profile import LayerProfile, Profile
    from edge.targets.survey import Survey, Variant

ALL = "all"

EPILOG = """
\b
Examples:
  edge profile model.edge                            measured on this machine
  edge profile model.edge --target raspberry-pi-4    bytes exact, time predicted
  edge profile model.edge --target all               one line a device
  edge profile model.h5 --html report.html           float, 8-bit and 1-bit side by side, with plots
  edge profile model.keras --bits 8 --bits 4         those two
  edge profile model.tflite                          operators, and LiteRT's time here
  edge profile model.edge --target my-board.toml     with a device profile of your own

\b
Storage and RAM are exact. Time is measured on this machine, and predicted everywhere else, with its expected error.
A Keras model is converted at 32, 8 and 1 bits, or those of --bits, into a folder that is gone afterwards.
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=PATH, metavar="MODEL")
@click.option("--target", default="host", show_default=True, metavar="NAME|all|FILE", help="A device, host (this machine), a .toml file.")
@click.option("--bits", "widths", type=click.Choice(CHOICES), multiple=True, help="Bits of the weights of a Keras model; repeatable.")
@click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="Show times on 1 to N threads (default: all cores).")
@click.option("--html", type=PATH, metavar="FILE", help="Write a page with plots, for all devices.")
@json_option
def profile(model: str, target: str, widths: tuple[str, ...], threads: int | None, html: str | None, as_json: bool) -> None:
    """Show what MODEL costs on a device: storage, RAM and time by layer, what limits each, and what would help most.

    MODEL is a .edge, .tflite or Keras file, or the name of an example such as digits.
    """
    from edge.targets.survey import survey

    path = find_model(model)
    check_destination("--html", html, (path, target))
    with naming(path):
        if widths and file_format(path) != "keras":
            raise InputError(f"--bits takes a Keras file, which is converted for it, got {path}, which is converted already; leave it out")
        if file_format(path) == "tflite":
            _profile_tflite(path, target, threads, html, as_json)
            return
    with Progress() as progress, tempfile.TemporaryDirectory(prefix="edge-profile-") as folder:

        def tell(what: str) -> None:
            progress.update(0, 0, what)

        variants, remarks = _versions(path, Path(folder), widths, tell)
        for remark in remarks:
            say(remark)
        found = survey(path.name, variants, _targets(target, html), remarks=remarks, tell=tell)
    if html is not None:
        _write_page(html, found)
    if as_json:
        out_json(found.to_json(threads) if target == ALL or len(variants) > 1 else found.one(target).to_json(threads))
    elif target == ALL or len(variants) > 1:
        _print_survey(found, target)
    else:
        _print(found.one(target), threads)


def _versions(path: Path, folder: Path, widths: Sequence[str], tell: Callable[[str], None]) -> tuple[list[tuple[str, Path]], list[str]]:
    """(name, `.edge` file): the file itself, or what is made of a Keras file; and sentences on them."""
    if file_format(path) == "edge":
        return [("", path)], []
    from edge.profile_versions import DEFAULT, convert_all

    return convert_all(path, folder, widths=tuple(dict.fromkeys(map(width, widths))) or DEFAULT, tell=tell)


def _targets(target: str, html: str | None) -> list[str]:
    from edge.targets.devices import HOST, available

    everything = [HOST, *available()]
    if target == ALL:
        return everything
    return list(dict.fromkeys([target, *(everything if html is not None else ())]))


def _write_page(html: str, found: Survey) -> None:
    from edge.files import write_atomically
    from edge.targets.report_page import page

    write_atomically(html, [page(found).encode()])
    say(f"wrote {html}")


# -- one device ----------------------------------------------------------------------------------------------------------------


def _print(variant: Variant, threads: int | None) -> None:
    from edge.targets.advice import sentence

    found = variant.profile
    columns = [
        Column("layers", folds=True),
        Column("operation"),
        Column("bits", right=True),
        Column("MACs", right=True),
        Column("storage", right=True),
        Column("output", right=True),
        Column(f"time ({found.time_basis})" if found.time_basis else "time", right=True),
        Column("limited by"),
    ]
    total = [
        "total", "", "", f"{sum(found.macs.values()):,}", bytes_text(sum(layer.storage_bytes for layer in found.layers)), "",
        _time(found.seconds), "",
    ]  # fmt: skip
    out(f"{found.title}, {found.isa}")
    out_table(columns, [_cells(layer) for layer in found.layers], total=total)
    out()
    facts = _facts(found, threads)
    best = [sentence(each, found.seconds) for each in variant.advice[:1]]
    out_facts([*facts, ("would help most", best[0] if best else "nothing that edge knows of")])
    if variant.device is None:
        out("\nThis machine is not calibrated: edge targets calibrate tells what limits each layer, and what a change saves in time.")


def _cells(layer: LayerProfile) -> list[str]:
    return [
        "+".join(layer.layers) or "-",
        layer.operation,
        layer.precision or "-",
        f"{layer.macs:,}" if layer.macs else "-",
        bytes_text(layer.storage_bytes) if layer.storage_bytes else "-",
        bytes_text(layer.output_bytes),
        _time(layer.seconds),
        layer.limit or "-",
    ]


def _facts(found: Profile, threads: int | None) -> list[tuple[str, str]]:
    memory = found.footprint
    parts = (
        f"constants {bytes_text(memory.constants_bytes)}, derived at load {bytes_text(memory.derived_bytes)}, tensors "
        f"{bytes_text(memory.arena_bytes)}, scratch {bytes_text(memory.scratch_bytes)}, arguments {bytes_text(memory.argument_bytes)}"
    )
    if found.ram_bytes < memory.total_bytes:
        parts += "; the constants stay in storage"
    macs = ", ".join(f"{count:,} at {precision}" for precision, count in found.macs.items())
    facts = [
        ("storage", f"{bytes_text(found.storage_bytes)} ({found.storage_bytes:,} bytes){_fits(found.fits_storage)}"),
        ("RAM", f"{bytes_text(found.ram_bytes)} ({found.ram_bytes:,} bytes){_fits(found.fits_memory)}: {parts}"),
        ("MACs", f"{macs or 'none'} (bits of activations x weights)"),
    ]
    if found.seconds is None:
        return [*facts, ("time", "not known: edge has no kernels for this device yet")]
    by_threads = ", ".join(
        f"{count}: {seconds_text(seconds)}" for count, seconds in found.seconds_by_threads.items() if threads is None or count <= threads
    )
    share = 1 - (found.one_bit_share or 0.0)
    return [
        *facts,
        ("time", f"{seconds_text(found.seconds)} on one thread, {found.time_basis}, expected error {_percent(found.expected_error)}"),
        ("by threads", f"{by_threads} ({found.time_basis})"),
        ("not 1-bit", f"{100 * share:.0f} % of the time ({found.time_basis})"),
    ]


def _fits(fits: bool | None) -> str:
    return "" if fits is None else ", fits" if fits else ", does not fit"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else seconds_text(seconds)


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:.0f} %"


# -- many ------------------------------------------------------------------------------------------------------------------------


def _print_survey(found: Survey, target: str) -> None:
    columns = [
        Column("device", folds=True), Column("model"), Column("storage", right=True), Column("RAM", right=True), Column("fits"),
        Column("one thread", right=True), Column("fastest", right=True), Column("threads", right=True), Column("not 1-bit", right=True),
        Column("time is"), Column("error", right=True),
    ]  # fmt: skip
    shown = [each for each in found.variants if target in (ALL, each.target)]
    out_table(columns, [_survey_cells(each, found.model) for each in shown])


def _survey_cells(variant: Variant, model: str) -> list[str]:
    found = variant.profile
    fits = {None: "-", True: "yes", False: "no"}[variant.fits]
    fastest = min(found.seconds_by_threads.items(), key=lambda each: each[1], default=None)
    not_binary = "-" if found.one_bit_share is None else f"{100 * (1 - found.one_bit_share):.0f} %"
    return [
        found.title, variant.name or model, bytes_text(found.storage_bytes), bytes_text(found.ram_bytes), fits, _time(found.seconds),
        _time(fastest[1]) if fastest else "-", str(fastest[0]) if fastest else "-", not_binary, found.time_basis or "not known",
        _percent(found.expected_error),
    ]  # fmt: skip


# -- .tflite -----------------------------------------------------------------------------------------------------------------------


def _profile_tflite(path: Path, target: str, threads: int | None, html: str | None, as_json: bool) -> None:
    from edge.targets.devices import HOST
    from edge.targets.lite_profile import profile_tflite

    if target != HOST or html is not None:
        asked = "--html" if html is not None else f"--target {target}"
        raise InputError(f"{asked} takes a .edge or Keras file, got {path}, which only this machine's interpreter can time; leave it out")
    with native_silence():
        found = profile_tflite(path, threads=threads)
    if as_json:
        out_json(found.to_json())
    else:
        _print_tflite(found)


def _print_tflite(found: LiteProfile) -> None:
    columns = [Column("output", folds=True), Column("operator"), Column("bits", right=True), Column("MACs", right=True),
               Column("constants", right=True), Column("output bytes", right=True)]  # fmt: skip
    rows = [
        [each.output, each.operator, each.precision or "-", f"{each.macs:,}" if each.macs else "-",
         bytes_text(each.constants_bytes) if each.constants_bytes else "-", bytes_text(each.output_bytes)]
        for each in found.layers
    ]  # fmt: skip
    total = ["total", "", "", f"{sum(found.macs.values()):,}", bytes_text(sum(each.constants_bytes for each in found.layers)), ""]
    out(f"this machine, {found.backend}")
    out_table(columns, rows, total=total)
    out()
    times = ", ".join(f"{count}: {seconds_text(seconds)}" for count, seconds in found.seconds_by_threads.items())
    macs = ", ".join(f"{count:,} at {precision}" for precision, count in found.macs.items())
    out_facts([
        ("storage", f"{bytes_text(found.storage_bytes)} ({found.storage_bytes:,} bytes)"),
        ("RAM", "not known: the interpreter does not tell"),
        ("MACs", f"{macs or 'none'} (bits of activations x weights)"),
        ("by threads", f"{times} ({found.time_basis}, expected error {_percent(found.expected_error)})"),
    ])  # fmt: skip
