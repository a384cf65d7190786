"""The command `edge`: its subcommands, and what becomes of errors.

An `EdgeError` is printed as one line to stderr and exits with 1; wrong usage exits with 2, an interrupt with 130. A subcommand is imported
when it is asked for, so that `edge --help` imports none of them and `edge run` only what running needs.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from edge.console import say
from edge.errors import EdgeError

DISTRIBUTION = "edge-lowbit"
INTERRUPTED = 130


@dataclass(frozen=True)
class Entry:
    """Where a subcommand is, "module:name", and the line that `edge --help` shows for it."""

    place: str
    help: str

    def load(self) -> click.Command:
        module, _, name = self.place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


COMMANDS: Mapping[str, Entry] = {
    "convert": Entry("edge.cli_convert:convert", "Convert a Keras model into .edge and .tflite files."),
    "sensitivity": Entry("edge.cli_sensitivity:sensitivity", "Measure how much each layer minds fewer bits."),
    "run": Entry("edge.cli_run:run", "Classify pictures with a converted model."),
    "inspect": Entry("edge.cli_inspect:inspect", "Show what a model file holds."),
    "verify": Entry("edge.cli_verify:verify", "Compare a converted file with its source, layer by layer."),
    "profile": Entry("edge.cli_profile:profile", "Show what a model costs on a device: bytes and time."),
    "targets": Entry("edge.cli_targets:targets", "List, show and measure the devices that edge profile knows."),
    "bench": Entry("edge.cli_bench:bench", "Measure the latency of models on this machine, side by side."),
    "build": Entry("edge.cli_build:build", "Compile the kernels that models need into a library for a device."),
    "bundle": Entry("edge.cli_bundle:bundle", "Pack a model and what runs it into an archive for a device."),
    "deploy": Entry("edge.cli_deploy:deploy", "Put a model onto a device over ssh, and measure it there."),
    "train": Entry("edge.cli_train:train", "Train a network of this project, and test the converted file."),
    "finetune": Entry("edge.cli_finetune:finetune", "Train a float model at few bits, taught by itself."),
    "zoo": Entry("edge.cli_zoo:zoo", "List, show and build the networks of this project."),
    "warm": Entry("edge.cli_cache:warm", "Compile the kernels that models need, ahead of their first run."),
    "cache": Entry("edge.cli_cache:cache", "Show or clear the cache of compiled kernels."),
    "doctor": Entry("edge.cli_doctor:doctor", "Show what edge finds on this machine, and what is wrong."),
    "completion": Entry("edge.cli_completion:completion", "Print a script that completes commands in a shell."),
}


class _Group(click.Group):
    """A group that imports a subcommand when it is asked for, and turns errors into lines and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return COMMANDS[cmd_name].load() if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgeError as err:
            _fail(str(err))
        except ModuleNotFoundError as err:
            if not (err.name or "").startswith("edge"):
                raise
            _fail(f"this needs {err.name}, and only what runs models is on this device; run it where edge is installed whole")
        except MemoryError:
            _fail("there is not enough memory for this; close other programs, or use a machine with more")
        except OSError as err:
            if err.errno == errno.EPIPE:
                raise  # whoever read the output has left: click ends quietly
            _fail(f"{err.strerror or err}{f': {err.filename}' if err.filename else ''}; check the path and its permissions")
        except KeyboardInterrupt:
            click.echo(err=True)
            say("interrupted")
            sys.exit(INTERRUPTED)


def _fail(message: str) -> None:
    say(message, style="red")
    sys.exit(1)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"edge {version()}")
        ctx.exit()


def version() -> str:
    """The version of the installed distribution; "unknown" where edge runs without being installed."""
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


EPILOG = """
\b
Examples:
  edge convert model.h5 --bits 1      write model.edge and model.tflite
  edge run image.png                  classify a picture with the .edge file in this folder
  edge run -m digits image.png        the same with the example that comes with edge
"""


@click.group(cls=_Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version and exit.")
def cli() -> None:
    """Low-precision neural networks on edge devices.

    Keras models become bit-packed programs (.edge) and TFLite files, which classify pictures on this machine or on a small one.
    """


def main() -> None:
    """The console script: run the command line and exit."""
    for name in ("stdout", "stderr"):
        _prepare(name)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # for developers of the packages below, not for users
    code: Any = 0
    try:
        cli(prog_name="edge")
    except SystemExit as stop:
        code = stop.code
    sys.exit(_flushed(code))


def _prepare(name: str) -> None:
    """Make a stream of `sys` take any text, whether or not it is open."""
    stream = getattr(sys, name)
    if stream is None:  # closed by the shell; now the next file that is opened does not get its number
        setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - it stays open
    elif isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # names of files and classes need not fit the terminal's encoding


def _flushed(code: Any) -> Any:
    """`code`, or 1 where the last output could not be written; without this Python reports it when it ends, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError as err:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if err.errno != errno.EPIPE:
            say(f"cannot write the output: {err.strerror}", style="red")
        return code or 1
    return code
