"""`edge targets`: the devices that models can be profiled for, what is known of each, and the measuring of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, json_option
from edge.console import Column, Progress, bytes_text, count_text, out, out_facts, out_json, out_table, say, seconds_text
from edge.errors import InputError

if TYPE_CHECKING:
    from edge.targets.devices import Device, Figure, KernelCost

EPILOG = """
\b
Examples:
  edge targets list                         the devices there are
  edge targets show raspberry-pi-4          what is known of one, and where from
  edge targets calibrate                    measure this machine
"""
LIST_EPILOG = """
\b
Examples:
  edge targets list
  edge targets list --json
"""
SHOW_EPILOG = """
\b
Examples:
  edge targets show raspberry-pi-4
  edge targets show raspberry-pi-4 --kernels    with the cycles of every kind of kernel
  edge targets show my-board.toml               a device profile of your own
  edge targets show host                        this machine, once calibrated
"""
CALIBRATE_EPILOG = """
\b
Examples:
  edge targets calibrate                    into ~/.config/edge/host.toml
  edge targets calibrate -o my-board.toml   into a file, as --target of edge profile takes it

\b
Takes a minute or two, most of it to compile kernels that were never used here before. Leave the machine alone meanwhile.
"""


@click.group(epilog=EPILOG)
def targets() -> None:
    """List, show and measure the devices that `edge profile` knows."""


# -- list --------------------------------------------------------------------------------------------------------------------------


@targets.command("list", epilog=LIST_EPILOG)
@json_option
def list_(as_json: bool) -> None:
    """List the devices there are, and whether this machine is calibrated."""
    from edge.targets.devices import HOST, available, host_file, load_device, load_host

    devices = [(name, load_device(name), path) for name, path in available().items()]
    host = load_host()
    if as_json:
        known = [*devices, *([(HOST, host, host_file())] if host else [])]
        out_json([{"name": name, "file": os.fspath(path), **_summary(device)} for name, device, path in known])
        return
    columns = [Column("name"), Column("device", folds=True), Column("code for"), Column("cores", right=True), Column("clock", right=True),
               Column("memory", right=True), Column("time"), Column("error", right=True)]  # fmt: skip
    rows = [_cells(name, device) for name, device, _ in devices]
    rows.append(_cells(HOST, host) if host else [HOST, "this machine", "-", "-", "-", "-", "measured", "-"])
    out_table(columns, rows)
    if host is None:
        out()
        out("This machine is not calibrated: edge targets calibrate lets edge predict for it, and say what limits each layer.")


def _summary(device: Device) -> dict[str, Any]:
    return {
        "title": device.title,
        "isa": device.machine.isa.name,
        "cpu": device.machine.cpu,
        "cores": device.optional("cores"),
        "clock_hz": device.optional("clock_hz"),
        "free_memory_bytes": device.optional("free_memory_bytes"),
        "kinds_of_kernels": len(device.kernels),
        "expected_error": _kernel_error(device),
    }


def _kernel_error(device: Device) -> float | None:
    """The median over its kinds of kernels."""
    errors = sorted(cost.expected_error for cost in device.kernels.values())
    return errors[len(errors) // 2] if errors else None


def _cells(name: str, device: Device) -> list[str]:
    error = _kernel_error(device)
    return [
        name,
        device.title,
        device.machine.isa.name,
        *(_optional_text(device, figure) for figure in ("cores", "clock_hz", "free_memory_bytes")),
        "unknown" if error is None else "measured" if name == "host" else "predicted",
        "-" if error is None else f"{100 * error:.0f} %",
    ]


def _optional_text(device: Device, figure: str) -> str:
    return value_text(figure, device.value(figure)) if figure in device.figures else "-"


# -- show --------------------------------------------------------------------------------------------------------------------------


@targets.command(epilog=SHOW_EPILOG)
@click.argument("name", metavar="NAME|FILE")
@click.option("--kernels", is_flag=True, help="Show the cycles of every kind of kernel too.")
@json_option
def show(name: str, kernels: bool, as_json: bool) -> None:
    """Show what is known of a device: every figure with its source and its error."""
    device = _device(name)
    if as_json:
        out_json(_to_json(device))
        return
    out_facts(_facts(device))
    out()
    out_table(
        [Column("figure"), Column("value", right=True), Column("error", right=True), Column("is"), Column("from", folds=True)],
        [_figure_cells(figure, each) for figure, each in device.figures.items()],
    )
    if kernels and device.kernels:
        out()
        out_table([Column("kind of kernel"), Column("error", right=True), Column("cycles of one", folds=True)], _kernel_rows(device))


def _device(name: str) -> Device:
    from edge.targets.devices import HOST, host_file, load_device, load_host

    if name != HOST:
        return load_device(name)
    host = load_host()
    if host is None:
        raise InputError(
            f"this machine is not calibrated: expected its profile in {host_file()}, and there is none; run edge targets calibrate"
        )
    return host


def _facts(device: Device) -> list[tuple[str, str]]:
    kinds = count_text(len(device.kernels), "kind") + " of kernels" if device.kernels else "no kernels: bytes are known, times are not"
    return [
        ("name", device.name),
        ("device", device.title),
        ("code for", f"{device.machine.isa.name}, {device.machine.cpu}, {device.machine.triple}"),
        ("kernels", kinds),
        *([("constants", "read where the file lies, they take no RAM")] if device.constants_in_storage else []),
    ]


def _figure_cells(name: str, figure: Figure) -> list[str]:
    error = f"{100 * figure.expected_error:.0f} %"
    return [name, value_text(name, figure.value), error, "measured" if figure.measured else "stated", figure.source]


def value_text(name: str, value: float) -> str:
    """A figure in the unit that its name ends in."""
    if name.endswith("bytes_per_s"):
        return f"{value / 1e9:.3g} GB/s"
    if name.endswith("_bytes"):
        return bytes_text(int(value))
    if name.endswith("_hz"):
        return f"{value / 1e9:.2f} GHz" if value >= 1e9 else f"{value / 1e6:.0f} MHz"
    if name.endswith("_s"):
        return seconds_text(value) if value >= 1e-6 else f"{1e9 * value:.3g} ns"
    return f"{value:g}"


def _kernel_rows(device: Device) -> list[list[str]]:
    return [[kind, f"{100 * cost.expected_error:.0f} %", _cycles_text(cost)] for kind, cost in sorted(device.kernels.items())]


def _cycles_text(cost: KernelCost) -> str:
    return ", ".join(f"{feature} {cycles:.3g}" for feature, cycles in cost.cycles.items())


def _to_json(device: Device) -> dict[str, Any]:
    import dataclasses

    return {
        "name": device.name,
        **_summary(device),
        "triple": device.machine.triple,
        "llvm_features": device.machine.llvm_features,
        "constants_in_storage": device.constants_in_storage,
        "figures": {name: dataclasses.asdict(figure) for name, figure in device.figures.items()},
        "kernels": {kind: {**dataclasses.asdict(cost), "cycles": dict(cost.cycles)} for kind, cost in device.kernels.items()},
    }


# -- calibrate ---------------------------------------------------------------------------------------------------------------------


@targets.command(epilog=CALIBRATE_EPILOG)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write here (default: ~/.config/edge/host.toml).")
@click.option("--rounds", type=click.IntRange(1, 1000), default=60, show_default=True, help="How often to time every kernel.")
@json_option
def calibrate(output: str | None, rounds: int, as_json: bool) -> None:
    """Measure the kernels, caches, memory and clock of this machine, and write its device profile."""
    from edge.files import write_atomically
    from edge.targets.calibrate import Settings
    from edge.targets.calibrate import calibrate as measure
    from edge.targets.device_file import to_toml
    from edge.targets.devices import host_file

    path = Path(output) if output is not None else host_file()
    if path.suffix != ".toml":
        raise InputError(f"cannot write the profile to {path}: expected a name that ends in .toml, as --target takes it; choose one")
    if output is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {path}: expected a folder {path.parent}, and there is none; make it, or choose another place")
    with Progress() as line:
        device = measure(Settings(rounds=rounds), lambda step, done, total: line.update(done, total, step))
    write_atomically(path, [to_toml(device).encode()])
    if as_json:
        out_json({"file": os.fspath(path), **_to_json(device)})
        return
    say(f"wrote {path}: {count_text(len(device.kernels), 'kind')} of kernels, {device.title}")
    out_table(
        [Column("figure"), Column("value", right=True), Column("error", right=True)],
        [_figure_cells(name, figure)[:3] for name, figure in device.figures.items()],
    )
