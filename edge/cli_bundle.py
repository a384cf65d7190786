"""`edge bundle`: a model and what runs it, for a device without edge."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, json_option
from edge.console import bytes_text, count_text, out, out_json, printable

if TYPE_CHECKING:
    from edge.bundle import Bundle

EPILOG = """
\b
Examples:
  edge bundle model.edge                                writes model-raspberry-pi-4.tar.gz
  edge bundle model.edge --picture cat.jpg -o cats/     a folder, checked with a picture of your own
  edge bundle model.edge --offline --python 3.11        with its packages, for a device without a network

\b
On the device: unpack it, then ./install.sh once and ./run.sh photo.jpg from then on.
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=PATH, metavar="MODEL")
@click.option("--target", default="raspberry-pi-4", show_default=True, metavar="NAME|FILE", help="A device, or a .toml file.")
@click.option("-o", "--output", type=PATH, metavar="DIR|FILE.tar.gz", help="By default MODEL-TARGET.tar.gz in this folder.")
@click.option("--picture", type=PATH, metavar="FILE", help="The picture whose answer the device has to repeat (default: noise).")
@click.option("--with-numba", is_flag=True, help="Let Numba compile the kernels on the device, instead of compiling them here.")
@click.option("--offline", is_flag=True, help="Put the packages in, so that the device needs no network.")
@click.option("--python", default="3.13", show_default=True, metavar="VERSION", help="The device's Python, for --offline.")
@click.option("--force", is_flag=True, help="Replace a file or folder that is no bundle.")
@json_option
def bundle(model: str, as_json: bool, **options: Any) -> None:
    """Pack MODEL (.edge) with edge's runtime, a picture and its known answer into an archive for a device."""
    from edge.bundle import bundle as write_bundle

    packed = write_bundle(model, options.pop("output"), **options)
    if as_json:
        out_json(dataclasses.asdict(packed))
    else:
        _print(packed)


def _print(packed: Bundle) -> None:
    out(f"{printable(packed.path)}  {bytes_text(packed.nbytes)}, {count_text(packed.files, 'file')}, for {packed.target}")
    out(f"known answer: {printable(packed.picture)} is {printable(packed.answer)}")
