"""`edge verify`: converted files beside their source, layer by layer and from input to output; certificates, and repeating them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, json_option
from edge.console import Progress, out, out_json, printable, say, warn
from edge.errors import EdgeError, InputError
from edge.plots import check_destination

if TYPE_CHECKING:
    from edge.compare import Comparison

ORACLES = {"auto": None, "keras": True, "reference": False}

EPILOG = """
\b
Examples:
  edge verify model.h5 model.edge                    on random inputs
  edge verify model.h5 model.edge model.tflite       side by side
  edge verify model.h5 model.edge --data test.npz    on pictures; with labels in the file the accuracy follows
  edge verify model.h5 model.edge --sign-off         and keep the result in the file, as its certificate
  edge verify --self model.edge                      repeat what the certificate holds on this device, without Keras

\b
Each layer of a .edge file is given what the source's own layer was given, so an error shows where it is made; a .tflite file runs from the
input on. The source is computed by Keras where it is installed, else by edge's reference interpreter. Exit code 0: equal, or as near as the
bits allow; 1: not.
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="SOURCE CONVERTED...")
@click.option("--data", type=PATH, metavar="FILE|FOLDER", help="Pictures, or .npy / .npz; random inputs if not given.")
@click.option("--weights", type=PATH, metavar="FILE", help="The weights of a SOURCE that holds none, such as JSON.")
@click.option("--count", type=click.IntRange(1, 1 << 20), metavar="N", help="How many examples, spread over the data.")
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), metavar="N", help="Of random inputs (default: 0).")
@click.option("--oracle", type=click.Choice(tuple(ORACLES)), help="What computes the source (default: auto).")
@click.option("--sign-off", is_flag=True, help="Store the result in the .edge file as a certificate; Keras has to agree.")
@click.option("--self", "alone", is_flag=True, help="Repeat the certificates of .edge files on this device instead; no SOURCE.")
@click.option("--html", type=PATH, metavar="FILE", help="Write a page with the error of every layer.")
@json_option
def verify(files: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare CONVERTED files (.edge or .tflite) with the Keras model SOURCE they were made from."""
    if options.pop("alone"):
        _refuse_options(options)
        _repeat_all(files, as_json)
        return
    if len(files) < 2:
        raise click.UsageError("Expected SOURCE and CONVERTED files, got one file. To check a .edge file by itself: --self FILE.")
    check_destination("--html", options["html"], (*files, options["data"], options["weights"]))
    comparisons = _compare(files[0], files[1:], options)
    certificate = _sign_off(comparisons) if options["sign_off"] and all(each.equal for each in comparisons) else None
    if options["html"] is not None:
        _write_page(options["html"], comparisons)
    for remark in dict.fromkeys(remark for each in comparisons for remark in each.remarks):
        warn(remark)
    _show(comparisons, certificate, as_json)
    wrong = [f"{each.converted}: {each.verdict}" for each in comparisons if not each.equal]
    if wrong:
        raise EdgeError("; ".join([*wrong, *(["nothing was signed off"] if options["sign_off"] else [])]))


def _refuse_options(options: dict[str, Any]) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None and value is not False]
    if given:
        raise click.UsageError(f"--self repeats what the certificate says and takes no {', '.join(given)}.")


# -- with the source ---------------------------------------------------------------------------------------------------------------


def _compare(source: str, converted: tuple[str, ...], options: dict[str, Any]) -> tuple[Comparison, ...]:
    from edge.compare import compare_all

    if options["sign_off"]:
        _check_signable(converted, options["oracle"])
    with Progress(f"{', '.join(Path(path).name for path in converted)}: comparing") as progress:
        progress.update(0, 0)
        return compare_all(
            source,
            converted,
            data=options["data"],
            count=options["count"],
            seed=options["seed"] or 0,
            weights=options["weights"],
            keras=True if options["sign_off"] else ORACLES[options["oracle"] or "auto"],
            progress=progress.update,
        )


def _check_signable(converted: tuple[str, ...], oracle: str | None) -> None:
    from edge.cli_model import file_format

    found = [path for path in converted if file_format(Path(path)) == "edge"]
    if len(found) != 1:
        raise InputError(f"--sign-off writes into one .edge file, got {len(found)} of them; name one")
    if oracle == "reference":
        raise InputError("--sign-off needs Keras to compute the source, got --oracle reference; leave it out")


def _sign_off(comparisons: tuple[Comparison, ...]) -> dict[str, Any]:
    from edge.compare_sign_off import sign_off

    (signable,) = (each for each in comparisons if each.program_sha256 is not None)
    return sign_off(signable).to_json()


def _show(comparisons: tuple[Comparison, ...], certificate: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        documents = [each.to_json() for each in comparisons]
        document = documents[0] if len(documents) == 1 else {"comparisons": documents}
        out_json(document | ({"certificate": certificate} if certificate else {}))
        return
    from edge.compare_print import show

    show(comparisons)
    if certificate is not None:
        out(f"signed off: {certificate['oracle']}, {certificate['examples']} examples, {certificate['date']}")


def _write_page(html: str, comparisons: tuple[Comparison, ...]) -> None:
    from edge.compare_page import page
    from edge.files import write_atomically

    write_atomically(html, [page(comparisons).encode()])
    say(f"wrote {html}")


# -- by itself ---------------------------------------------------------------------------------------------------------------------


def _repeat_all(files: tuple[str, ...], as_json: bool) -> None:
    from edge.certificate import facts, repeat_file
    from edge.self_check import require

    found = []
    for file in files:
        with Progress(f"{Path(file).name}: repeating its certificate") as progress:
            progress.update(0, 0)
            found.append(repeat_file(Path(file)))
    if as_json:
        rows = zip(files, found, strict=True)
        documents = [{"file": file, "certificate": facts(certificate), **outcome.to_json()} for file, (certificate, outcome) in rows]
        out_json(documents[0] if len(documents) == 1 else documents)
    for file, (certificate, outcome) in zip(files, found, strict=True):
        require(outcome, file)
        if not as_json:
            out(f"{printable(file)}, signed off {printable(certificate.date)} with {printable(certificate.oracle)}: {outcome.text}")
