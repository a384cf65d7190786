"""Device profiles as text, in the order and the form that `edge.targets.devices` describes."""

from __future__ import annotations

import json
import math

from edge.targets.devices import FEATURES, FIGURES, Device, Figure, KernelCost


def to_toml(device: Device) -> str:
    """The whole profile; `load_device` reads it as it was, numbers to 6 digits."""
    machine = device.machine
    head = [f"name = {_text(device.name)}", f"title = {_text(device.title)}"]
    if device.constants_in_storage:
        head.append("constants_in_storage = true")
    described = {"isa": machine.isa.name, "cpu": machine.cpu, "llvm_features": machine.llvm_features, "triple": machine.triple}
    tables = ["\n".join(["[machine]", *(f"{name} = {_text(value)}" for name, value in described.items())])]
    tables += [_figure_table(name, device.figures[name]) for name in FIGURES if name in device.figures]
    tables += [kernel_table(kind, cost) for kind, cost in sorted(device.kernels.items())]
    return "\n\n".join(["\n".join(head), *tables]) + "\n"


def kernel_table(kind: str, cost: KernelCost) -> str:
    """One table of [kernels], without a line break at its end."""
    cycles = [f"cycles_per_{name} = {_number(cost.cycles[name])}" for name in FEATURES if name in cost.cycles]
    return "\n".join([f"[kernels.{kind}]", *cycles, *_provenance(cost)])


def _figure_table(name: str, figure: Figure) -> str:
    return "\n".join([f"[figures.{name}]", f"value = {_number(figure.value)}", *_provenance(figure)])


def _provenance(described: Figure | KernelCost) -> list[str]:
    measured, error = "true" if described.measured else "false", _number(round(described.expected_error, 3))
    return [f"source = {_text(described.source)}", f"measured = {measured}", f"expected_error = {error}"]


def _number(value: float) -> str:
    if value == math.floor(value) and abs(value) < 1e15:
        return f"{int(value):_}"
    return f"{value:.6g}"


def _text(value: str) -> str:
    """A string of TOML, whose escapes are those of JSON but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
