"""Device profiles: what is known of a device, each figure with its unit, its source and its error.

A profile is a `.toml` file, in this folder or anywhere; that of this machine is `host_file()`, which `edge targets calibrate` writes:

    name = "raspberry-pi-4"
    title = "Raspberry Pi 4 Model B"
    constants_in_storage = false        # true: constants are read where the file lies (flash), and take no RAM; may be left out

    [machine]                           # what code is generated for (`edge.kernels.isa`)
    isa = "neon"
    cpu = "cortex-a72"
    llvm_features = ""
    triple = "aarch64-unknown-linux-gnu"

    [figures.clock_hz]                  # one table for each name in `FIGURES` that is known; the unit is in the name
    value = 1_500_000_000
    source = "where the value comes from"
    measured = false                    # whether it was measured on this very device
    expected_error = 0.0                # relative

    [kernels.conv2d_bits_bits_bits]     # one table for each kind of kernel (`edge.targets.costs.kind_of`)
    cycles_per_mac = 0.05               # cycles_per_<feature> for each of `FEATURES` that counts, others are 0
    cycles_per_value = 4.0
    cycles_per_call = 200
    source = "..."
    measured = false
    expected_error = 0.4

A device without kernels (a microcontroller) has no [kernels]: of a model there its bytes are known, its time is not. One with kernels has
all figures of `NEEDED_FOR_TIME`.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError, unknown_name
from edge.kernels.isa import ISAS, Machine
from edge.paths import require_file

HOST = "host"
FOLDER = Path(__file__).parent
CONFIG_VARIABLE = "XDG_CONFIG_HOME"

FIGURES: Mapping[str, str] = {
    "clock_hz": "processor clock under load",
    "cores": "processor cores",
    "l1d_bytes": "first-level data cache of a core",
    "l2_bytes": "second-level cache that one core can fill",
    "l3_bytes": "third-level cache that one core can fill",
    "l1_bytes_per_s": "bandwidth one core gets from its first-level cache",
    "l2_bytes_per_s": "bandwidth one core gets from the second-level cache",
    "l3_bytes_per_s": "bandwidth one core gets from the third-level cache",
    "memory_bytes_per_s": "bandwidth one core gets from memory",
    "memory_shared_bytes_per_s": "bandwidth all cores get from memory together",
    "free_memory_bytes": "memory left for a process",
    "free_storage_bytes": "storage left for models",
    "overhead_s": "time an instruction takes beside its kernel's work",
    "inference_s": "time an inference takes beside its instructions",
    "barrier_s": "time several threads take to meet before and after an instruction that they share",
}
NEEDED_FOR_TIME = ("clock_hz", "cores", "l1d_bytes", "l2_bytes", "l2_bytes_per_s", "memory_bytes_per_s", "overhead_s")
_MAY_BE_ZERO = ("overhead_s", "inference_s", "barrier_s")

FEATURES: Mapping[str, str] = {
    "mac": "multiply-accumulates, with what tiles compute twice and lanes that no channel uses",
    "step": "vector operations of a tile's inner loop; of maps and pools vectors of values",
    "chain": "vector operations that a small tile has too few of to hide their latency",
    "crowded": "squares of the sums that a tile has too many of for its registers, by position",
    "load": "vectors of filters that tiles load; of magnitude_map vectors that are added",
    "scalar": "values, or words of bits, that are broadcast to a vector",
    "spread": "filter values of one bit that are spread into wider ones before tiles run",
    "segment": "stretches of contiguous input that tiles go through",
    "masked": "broadcasts of which a part is left out, at the end of a stretch",
    "tile": "tiles; of pools vectors of an output pixel",
    "value": "output values, with what tiles compute twice; of a pool those of all windows",
    "extra": "values times the vector operations on each beside those that every epilogue or map has",
    "function": "values of sigmoid, tanh or exponentials",
    "pixel": "pixels that are ended, or copied",
    "partial": "vectors of which only a part is stored",
    "row": "rows of tiles, chunks of maps, pixels of softmax",
    "call": "1",
}
_COST = "cycles_per_"
_PROVENANCE = ("source", "measured", "expected_error")


@dataclass(frozen=True)
class Figure:
    """A value with where it comes from, whether it was measured on this very device, and its relative error."""

    value: float
    source: str
    measured: bool
    expected_error: float


@dataclass(frozen=True)
class KernelCost:
    """Cycles of a kernel: the sum of what an instruction has of each feature (`FEATURES`) times the cycles of one."""

    cycles: Mapping[str, float]
    source: str
    measured: bool
    expected_error: float


@dataclass(frozen=True)
class Device:
    """A device profile."""

    name: str
    title: str
    machine: Machine
    figures: Mapping[str, Figure]
    kernels: Mapping[str, KernelCost]
    constants_in_storage: bool = False

    def value(self, figure: str) -> float:
        """Of a figure that the profile has."""
        return self.figures[figure].value

    def optional(self, figure: str) -> float | None:
        """Of a figure, None where the profile does not have it."""
        return self.figures[figure].value if figure in self.figures else None


def available() -> dict[str, Path]:
    """The profiles that come with edge, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def host_file() -> Path:
    """Where the profile of this machine is kept: $XDG_CONFIG_HOME/edge/host.toml, else ~/.config/edge/host.toml."""
    folder = os.environ.get(CONFIG_VARIABLE)
    return (Path(folder) if folder else Path.home() / ".config") / "edge" / f"{HOST}.toml"


def load_host() -> Device | None:
    """The calibrated profile of this machine; None where there is none. Raises `InputError` where it is damaged."""
    path = host_file()
    return _parsed(path) if path.is_file() else None


def load_device(name: str) -> Device:
    """The profile of this name, or in this file (a path that ends in .toml). Raises `InputError` with what there is."""
    known = available()
    if name in known:
        return _parsed(known[name])
    if name.endswith(".toml"):
        return _parsed(require_file(name, "device profile"))
    raise unknown_name("target", name, (HOST, *known), f" ({HOST} is this machine), or the path of a .toml file")


def _parsed(path: Path) -> Device:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise InputError(f"cannot read the device profile {os.fspath(path)}: expected TOML ({err}); correct it") from err
    return _Reader(path, content).device()


@dataclass(frozen=True)
class _Reader:
    """A profile read with suspicion; errors name the file and the place in it."""

    path: Path
    content: Mapping[str, Any]

    def device(self) -> Device:
        self._only(self.content, "", ("name", "title", "constants_in_storage", "machine", "figures", "kernels"))
        figures = self._table(self.content, "figures")
        kernels = self._table(self.content, "kernels") if "kernels" in self.content else {}
        self._only(figures, "figures", tuple(FIGURES))
        needed = NEEDED_FOR_TIME if kernels else ()
        return Device(
            self._text(self.content, "", "name"),
            self._text(self.content, "", "title"),
            self._machine(),
            {name: self._figure(figures, name) for name in FIGURES if name in figures or name in needed},
            {name: self._cost(kernels, name) for name in kernels},
            self._flag(self.content, "", "constants_in_storage", default=False),
        )

    def _machine(self) -> Machine:
        table = self._table(self.content, "machine")
        self._only(table, "machine", ("isa", "cpu", "llvm_features", "triple"))
        isa = self._text(table, "machine", "isa")
        if isa not in ISAS:
            raise self._error("machine.isa", f"one of {', '.join(ISAS)}", isa)
        cpu, triple = (self._text(table, "machine", name) for name in ("cpu", "triple"))
        features = table.get("llvm_features", "")
        if not isinstance(features, str):
            raise self._error("machine.llvm_features", "text", features)
        return Machine(ISAS[isa], cpu, features, triple)

    def _figure(self, figures: Mapping[str, Any], name: str) -> Figure:
        where = f"figures.{name}"
        table = self._table(figures, name, "figures")
        self._only(table, where, ("value", *_PROVENANCE))
        value = self._number(table, where, "value")
        if value <= 0 and name not in _MAY_BE_ZERO:
            raise self._error(f"{where}.value", "a number above 0", value)
        return Figure(value, *self._provenance(table, where))

    def _cost(self, kernels: Mapping[str, Any], name: str) -> KernelCost:
        where = f"kernels.{name}"
        table = self._table(kernels, name, "kernels")
        self._only(table, where, (*(f"{_COST}{feature}" for feature in FEATURES), *_PROVENANCE))
        given = [feature for feature in FEATURES if f"{_COST}{feature}" in table]
        if not given:
            raise self._error(where, f"a table with some of {', '.join(f'{_COST}{feature}' for feature in FEATURES)}", "none of them")
        return KernelCost({each: self._number(table, where, f"{_COST}{each}") for each in given}, *self._provenance(table, where))

    def _provenance(self, table: Mapping[str, Any], where: str) -> tuple[str, bool, float]:
        measured = self._flag(table, where, "measured")
        return self._text(table, where, "source"), measured, self._number(table, where, "expected_error")

    def _flag(self, table: Mapping[str, Any], where: str, name: str, *, default: bool | None = None) -> bool:
        value = table.get(name, default)
        if not isinstance(value, bool):
            raise self._error(f"{where}.{name}".lstrip("."), "true or false", value)
        return value

    def _table(self, parent: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
        table = parent.get(name)
        if not isinstance(table, dict):
            raise self._error(f"{where}.{name}".lstrip("."), "a table", table)
        return table

    def _text(self, table: Mapping[str, Any], where: str, name: str) -> str:
        value = table.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self._error(f"{where}.{name}".lstrip("."), "text", value)
        return value

    def _number(self, table: Mapping[str, Any], where: str, name: str) -> float:
        value = table.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise self._error(f"{where}.{name}", "a number of at least 0", value)
        return float(value)

    def _only(self, table: Mapping[str, Any], where: str, names: tuple[str, ...]) -> None:
        unknown = sorted(set(table) - set(names))
        if unknown:
            raise self._error(f"{where}.{unknown[0]}".lstrip("."), f"nothing but {', '.join(names)}", "it")

    def _error(self, where: str, expected: str, got: object) -> InputError:
        received = "nothing" if got is None else str(got)
        return InputError(f"the device profile {self.path}: {where} should be {expected}, got {received}; correct the file")
