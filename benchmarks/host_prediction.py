"""How well edge predicts latencies of this machine: prediction against measurement over many models at 32, 8 and 1 bits.

    python benchmarks/host_prediction.py                 # calibrates, measures, writes results/prediction.json, .md and .svg
    python benchmarks/host_prediction.py --profile host.toml --models vww_96 lenet --layers

The profile comes from `edge.targets.calibrate`, which times synthetic instructions alone and knows none of these models. Models are
measured right after it, in rounds over all of them, one thread; the clock of the processor is taken at both times. `--layers` shows by kind
of kernel where predictions are off; nothing is fitted to that.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from prediction_models import BITS, Model, models

from edge.engine import Engine
from edge.format import read
from edge.targets.calibrate import ClockProbe, Settings, calibrate
from edge.targets.costs import program_cost
from edge.targets.device_file import to_toml
from edge.targets.devices import Device, load_device
from edge.targets.measure import example
from edge.targets.roofline import estimates

RESULTS = Path(__file__).parent / "results"
TARGET_MEDIAN, TARGET_WORST = 0.15, 0.35
_PASSES = 7
_PASS_S = 0.06  # of one model in one pass
_MOST = 40


@dataclass(frozen=True)
class Row:
    """A model at a bit width, seconds; `error` is predicted / measured - 1. Measured: the median of the least disturbed pass."""

    model: str
    bits: int
    third_party: bool
    predicted_s: float
    measured_s: float
    expected_error: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.measured_s - 1


class Subject:
    """A model on this machine."""

    def __init__(self, model: Model, bits: int) -> None:
        self.model, self.bits = model, bits
        self.engine = Engine(read(model.build(bits)))
        self.picture = example(self.engine.program)
        self.engine.times(self.picture, 2, whole=True)
        self.found: list[float] = []

    def measure(self) -> None:
        """One pass: the median of several inferences, the first of which warms the caches."""
        once = float(self.engine.times(self.picture, 2, whole=True)[-1, 0])
        repeats = int(np.clip(_PASS_S / once, 3, _MOST))
        self.found.append(float(np.median(self.engine.times(self.picture, repeats, whole=True))))

    def row(self, device: Device) -> Row:
        cost = program_cost(self.engine.program, device.machine)
        parts = estimates(cost, device)
        seconds = sum(part.seconds for part in parts) + (device.optional("inference_s") or 0.0)
        error = sum(part.seconds * part.expected_error for part in parts) / seconds
        return Row(self.model.name, self.bits, self.model.third_party, seconds, min(self.found), error)


def measure(subjects: Sequence[Subject], clock: ClockProbe) -> None:
    """Passes over all models."""
    for number in range(_PASSES):
        for subject in subjects:
            subject.measure()
            clock.measure()
        print(f"pass {number + 1} of {_PASSES}", file=sys.stderr, flush=True)


def at_clock(device: Device, hz: float) -> Device:
    """The profile at another clock; what memory gives stays."""
    figures = {**device.figures, "clock_hz": replace(device.figures["clock_hz"], value=hz)}
    return replace(device, figures=figures)


# -- by kind of kernel -------------------------------------------------------------------------------------------------------------


def by_kind(subjects: Sequence[Subject], device: Device) -> str:
    """Predicted over measured, summed over all instructions of a kind, for finding what the model lacks."""
    predicted: dict[str, list[float]] = defaultdict(list)
    measured: dict[str, list[float]] = defaultdict(list)
    for subject in subjects:
        cost = program_cost(subject.engine.program, device.machine)
        taken = np.median(subject.engine.times(subject.picture, 9), axis=0)
        for each, estimate, seconds in zip(cost.instructions, estimates(cost, device), taken, strict=True):
            predicted[each.kind].append(estimate.seconds)
            measured[each.kind].append(float(seconds))
    kinds = sorted(measured, key=lambda kind: -sum(measured[kind]))
    return "\n".join(
        f"{kind:45} {len(measured[kind]):4} of {1e6 * sum(measured[kind]):12.1f} us  x {sum(predicted[kind]) / sum(measured[kind]):.2f}"
        for kind in kinds
    )


# -- results -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Of all rows: the median and the largest relative error, without sign."""

    models: int
    third_party: int
    median: float
    worst: float
    worst_row: str


def summary(rows: Sequence[Row]) -> Summary:
    errors = [abs(row.error) for row in rows]
    worst = int(np.argmax(errors))
    return Summary(
        len({row.model for row in rows}),
        len({row.model for row in rows if row.third_party}),
        float(np.median(errors)),
        errors[worst],
        f"{rows[worst].model} at {rows[worst].bits} bits",
    )


def markdown(rows: Sequence[Row], found: Summary, device: Device) -> str:
    """The page of results."""
    lines = [
        "# Prediction against measurement on the host",
        "",
        "Made by `make check-predictions` (`benchmarks/host_prediction.py`). Costs come from timed synthetic instructions alone, none of",
        "them taken from these models. Measured on one thread: the median of the least disturbed of seven passes. Models marked * are",
        "third-party files or architectures.",
        "",
        f"**Median error {100 * found.median:.1f} %, worst {100 * found.worst:.1f} % ({found.worst_row})** over {found.models} models",
        f"({found.third_party} third-party) at {len(BITS)} bit widths, {len(rows)} files. Aims: {100 * TARGET_MEDIAN:.0f} % and "
        f"{100 * TARGET_WORST:.0f} %.",
        f"Processor: {device.machine.cpu}, {device.machine.isa.name}, {device.value('clock_hz') / 1e9:.2f} GHz while measuring.",
        "",
        "![predicted against measured](prediction.svg)",
        "",
        "| model | bits | measured | predicted | error | the model's own expected error |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        mark = "*" if row.third_party else ""
        lines.append(
            f"| {row.model}{mark} | {row.bits} | {_time(row.measured_s)} | {_time(row.predicted_s)} | {100 * row.error:+.0f} % "
            f"| {100 * row.expected_error:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Predicted over measured, log-log, with the bands of 15 and 35 %."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "edge"
    figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    low, high = (f(row.measured_s for row in rows) * 1e3 for f in (min, max))
    line = np.geomspace(low / 1.6, high * 1.6, 50)
    axes.fill_between(line, line * 0.65, line * 1.35, color="0.92", label="within 35 %")
    axes.fill_between(line, line * 0.85, line * 1.15, color="0.82", label="within 15 %")
    axes.plot(line, line, color="0.5", linewidth=1)
    for bits, colour in zip(BITS, ("#1b6ca8", "#d9822b", "#2a8c4a"), strict=True):
        for third_party, shape in ((True, "o"), (False, "^")):
            chosen = [row for row in rows if row.bits == bits and row.third_party is third_party]
            if chosen:
                label = f"{bits} bit{'s' if bits > 1 else ''}, {'third-party' if third_party else 'edge.zoo'}"
                xy = [1e3 * row.measured_s for row in chosen], [1e3 * row.predicted_s for row in chosen]
                axes.scatter(*xy, s=26, marker=shape, color=colour, edgecolor="white", linewidth=0.5, label=label, zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", xlim=(line[0], line[-1]), ylim=(line[0], line[-1]))
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write(rows: Sequence[Row], device: Device, folder: Path) -> Summary:
    found = summary(rows)
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"cpu": device.machine.cpu, "isa": device.machine.isa.name, "python": platform.python_version(), "numpy": np.__version__}
    content = {"summary": asdict(found), "machine": machine, "rows": [{**asdict(row), "error": row.error} for row in rows]}
    (folder / "prediction.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    (folder / "prediction.md").write_text(markdown(rows, found, device), "utf-8")
    plot(rows, folder / "prediction.svg")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="a calibrated profile; else this machine is calibrated first")
    parser.add_argument("--save-profile", type=Path, help="where to keep the profile that was measured")
    parser.add_argument("--models", nargs="*", help="some of the models")
    parser.add_argument("--layers", action="store_true", help="show by kind of kernel where predictions are off")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    chosen = [model for model in models() if not options.models or model.name in options.models]
    subjects = [Subject(model, bits) for model in chosen for bits in BITS]
    device = load_device(options.profile) if options.profile else calibrate(Settings())
    if options.save_profile:
        options.save_profile.write_text(to_toml(device), "utf-8")
    clock = ClockProbe(device.machine)
    measure(subjects, clock)
    device = at_clock(device, clock.hz)
    rows = [subject.row(device) for subject in subjects]
    found = write(rows, device, options.out)
    print(markdown(rows, found, device))
    if options.layers:
        print(by_kind(subjects, device))
    return 0 if found.median <= TARGET_MEDIAN and found.worst <= TARGET_WORST else 1


if __name__ == "__main__":
    sys.exit(main())
