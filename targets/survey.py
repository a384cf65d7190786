"""A model, or several versions of it, on several devices: profiles with what would help most, and the figures of each device's limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.format import read
from edge.program import Program
from edge.targets.advice import Advice, advise
from edge.targets.costs import program_cost
from edge.targets.devices import HOST, Device, load_device, load_host
from edge.targets.profile import Profile, profile
from edge.targets.roofline import estimates

Told = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """One version (`name`, "" where there is one alone) on one device.

    `device` is its profile, of this machine the calibrated one, None where there is none; `roofs` are, by precision, the most
    multiply-accumulates a second that any of its kernels does by that profile, before memory and overhead.
    """

    name: str
    target: str
    profile: Profile
    advice: tuple[Advice, ...]
    device: Device | None
    roofs: Mapping[str, float]

    @property
    def fits(self) -> bool | None:
        """Whether storage and RAM do; None where the room is not known."""
        both = self.profile.fits_storage, self.profile.fits_memory
        return None if None in both else all(both)

    def to_json(self, threads: int | None = None) -> dict[str, Any]:
        """The profile as JSON-able values, times of more than `threads` threads left out, with the version's name and the advice."""
        found = self.profile.to_json()
        kept = {count: seconds for count, seconds in found["seconds_by_threads"].items() if threads is None or int(count) <= threads}
        return {"version": self.name, **found, "seconds_by_threads": kept, "advice": [dataclasses.asdict(each) for each in self.advice]}


@dataclass(frozen=True)
class Survey:
    """Versions of a model on devices, device by device; `remarks`: sentences on what the versions are."""

    model: str
    variants: tuple[Variant, ...]
    remarks: tuple[str, ...] = ()

    def one(self, target: str) -> Variant:
        """The first version on a device."""
        return next(each for each in self.variants if each.target == target)

    def to_json(self, threads: int | None = None) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return {"model": self.model, "remarks": list(self.remarks), "profiles": [each.to_json(threads) for each in self.variants]}


def survey(
    model: str, versions: Sequence[tuple[str, Path]], targets: Sequence[str], *, remarks: Sequence[str] = (), tell: Told = lambda what: None
) -> Survey:
    """Profile `.edge` files, (name of the version, path), on targets as `profile` takes them; `tell` is told what is being done.

    Raises what `profile` does.
    """
    devices = {target: load_host() if target == HOST else load_device(target) for target in targets}
    programs = [(name, path, read(path)) for name, path in versions]
    variants = []
    for target, device in devices.items():
        for name, path, program in programs:
            tell(f"profiling {name or model} for {target}")
            variants.append(_variant(name, path, program, target, device))
    return Survey(model, tuple(variants), tuple(remarks))


def _variant(name: str, path: Path, program: Program, target: str, device: Device | None) -> Variant:
    usable = device if device is not None and device.kernels else None
    found = profile(path, target)
    return Variant(name, target, found, advise(program, found, usable), device, _roofs(program, found, usable))


def _roofs(program: Program, found: Profile, device: Device | None) -> dict[str, float]:
    if device is None:
        return {}
    cost = program_cost(program, device.machine)
    roofs: dict[str, float] = {}
    for layer, each in zip(found.layers, estimates(cost, device), strict=True):
        if layer.macs and each.compute_s:
            roofs[layer.precision] = max(roofs.get(layer.precision, 0.0), layer.macs / each.compute_s)
    return roofs
