"""Cycles of edge's kernels on devices that are not here: the figures under `[kernels]` of profiles in `targets/`.

    python benchmarks/device_cycles.py raspberry-pi-4                     prints the tables
    python benchmarks/device_cycles.py raspberry-pi-4 raspberry-pi-5 --write               puts them into the profiles
    python benchmarks/device_cycles.py raspberry-pi-4 --write --kinds 'dense_bits_.*'      those kinds alone, the others stay
    python benchmarks/device_cycles.py raspberry-pi-4 --write --kinds missing             those that the profile does not list
    python benchmarks/device_cycles.py raspberry-pi-3b-plus --write --code-of raspberry-pi-4   code for another core, compiled once for all
    python benchmarks/device_cycles.py raspberry-pi-4 --model examples/digits.edge        each instruction of a model, counted and predicted

The cases of `edge.targets.cases` are run in emulation (`device_emulator.py`), their cycles fitted as those of the host are
(`edge.targets.fitting`). None of their shapes is taken from a network that is profiled later. Counts are kept in --folder, so that a second
run takes seconds. A core that issues in order is given as the middle of a range (`device_emulator.Cycles`), half its width as expected
error.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from device_emulator import TOOLS, Cycles, Emulator, Job, Simulator, halo_job, jobs_of

from edge.errors import EdgeError
from edge.format import read
from edge.kernels.cache import folder as cache_folder
from edge.kernels.isa import Machine
from edge.targets.cases import CONV_SHAPES, HALO_SHAPES, Case, cases
from edge.targets.costs import HALO, cycles, program_cost
from edge.targets.device_file import kernel_table
from edge.targets.devices import FOLDER, Device, KernelCost, load_device
from edge.targets.features import halo_work
from edge.targets.fitting import Sample, fit
from edge.targets.profile import emulated, predict
from edge.tensors import Encoding, Halo, TensorType

MODEL_ERROR = 0.3  # of llvm-mca against hardware, first-level cache assumed
MISSING = "missing"
PROGRESS = 100  # calls
HALOS = (Halo(1, 1, 1, 1), Halo(0, 1, 0, 1), Halo(2, 2, 2, 2))
HALO_ENCODINGS = (Encoding.BITS, Encoding.FLOAT32, Encoding.INT8)


@dataclass(frozen=True)
class Counted:
    """What an instruction consists of, and the cycles it takes."""

    features: Mapping[str, float]
    cycles: Cycles

    @property
    def sample(self) -> Sample:
        return Sample(self.features, self.cycles.middle)


@dataclass(frozen=True)
class Sized:
    """A call of a kernel with what is known of it."""

    kind: str
    features: Mapping[str, float]
    job: Job


def chosen_cases() -> Iterator[Case]:
    """Those to count: of convolutions every second shape, since counts are exact, and most of the time goes into compiling."""
    shapes = set(CONV_SHAPES[::2])
    for case in cases():
        if case.op != "conv2d" or (*case.input.shape, case.channels, case.taps) in shapes:
            yield case


def sized_calls(machine: Machine) -> Iterator[Sized]:
    """The calls to count: cases, and every way to fill a halo."""
    for case in chosen_cases():
        program = case.program()
        cost = program_cost(program, machine).instructions[0]
        yield Sized(cost.kind, cost.features, jobs_of(program, machine)[0][0])
    for (shape, encoding), halo in itertools.product(itertools.product(HALO_SHAPES, HALO_ENCODINGS), HALOS):
        tensor = TensorType(shape, encoding, halo=halo)
        yield Sized(HALO, halo_work(tensor), halo_job(tensor))


def count(machine: Machine, cpu: str, folder: Path, wanted: Callable[[str], bool]) -> dict[str, list[Counted]]:
    """All calls of the kinds that are wanted, by kind of kernel: code made for a machine, on a core."""
    calls = [call for call in sized_calls(machine) if wanted(call.kind)]
    counts = []
    for each in Emulator(machine, folder).counts([call.job for call in calls]):
        counts.append(each)
        if len(counts) % PROGRESS == 0:
            print(f"{machine.cpu}: {len(counts)} of {len(calls)} calls counted", file=sys.stderr)
    found: dict[str, list[Counted]] = defaultdict(list)
    for call, taken in zip(calls, Simulator(cpu, folder).cycles(counts), strict=True):
        found[call.kind].append(Counted(call.features, taken))
    return found


def kernel_cost(counted: Sequence[Counted], source: str) -> KernelCost:
    """The figures of a kind."""
    found = fit([each.sample for each in counted])
    width = float(np.mean([each.cycles.high / each.cycles.middle - 1 for each in counted]))
    return KernelCost(found.cycles, source, False, round(max(MODEL_ERROR, width) + found.error, 2))


def write(name: str, made: Mapping[str, str], *, keep: bool) -> None:
    """Replace or add tables of kernels, which are the last of the profile, in the order of their names; `keep` others of it."""
    path = FOLDER / f"{name}.toml"
    head, *known = re.split(r"^(?=\[kernels\.)", path.read_text("utf-8"), flags=re.MULTILINE)
    kept = {part[len("[kernels.") : part.index("]")]: part.rstrip("\n") + "\n" for part in known} if keep else {}
    path.write_text(head.rstrip("\n") + "\n\n" + "\n".join(part for _, part in sorted({**kept, **made}.items())), "utf-8")


def compare_model(device: Device, folder: Path, path: str) -> None:
    """Print, for every instruction of a model, the cycles counted here beside those the profile predicts, and both as times."""
    program = read(path)
    costs = program_cost(program, device.machine).instructions
    jobs = jobs_of(program, device.machine)
    counts = list(Emulator(device.machine, folder).counts([job for calls in jobs for job in calls]))
    taken = iter(Simulator(device.machine.cpu, folder).cycles(counts))
    counted = [sum(next(taken).middle for _ in calls) for calls in jobs]
    predicted = [cycles(cost, device.kernels)[0] for cost in costs]
    rows = [*zip((cost.kind for cost in costs), counted, predicted, strict=True), ("total", sum(counted), sum(predicted))]
    for kind, here, profile in rows:
        print(f"{kind:40} counted {here:12,.0f}  profile {profile:12,.0f}  ratio {profile / here:5.2f}")
    nbytes = Path(path).stat().st_size
    for each in (emulated(path, nbytes, program, device, counted, expected_error=MODEL_ERROR), predict(path, nbytes, program, device)):
        print(f"{device.title}: {1e3 * (each.seconds or 0):.3f} ms, one thread, {each.time_basis}")


def tables(device: Device, code_of: Device, folder: Path, kinds: str) -> dict[str, str]:
    """The tables of the kinds that match a pattern, or that the profile does not list, as TOML."""
    pattern = re.compile(kinds)

    def wanted(kind: str) -> bool:
        return kind not in device.kernels if kinds == MISSING else bool(pattern.fullmatch(kind))

    found = count(code_of.machine, device.machine.cpu, folder, wanted)
    counted = f"instructions of code for {code_of.machine.cpu} counted in emulation"
    source = f"benchmarks/device_cycles.py: {counted}, {Simulator(device.machine.cpu, folder).source}"
    return {kind: kernel_table(kind, kernel_cost(calls, source)) + "\n" for kind, calls in found.items()}


def run(targets: Iterable[str], options: argparse.Namespace) -> None:
    for name in targets:
        device = load_device(name)
        if options.model:
            compare_model(device, options.folder, options.model)
            continue
        made = tables(device, load_device(options.code_of or name), options.folder, options.kinds)
        if options.write:
            write(name, made, keep=options.kinds != ".*")
        else:
            print("\n".join(made.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--write", action="store_true", help="replace the tables in the profiles")
    parser.add_argument("--kinds", default=".*", help=f"a pattern of the kinds to count, or {MISSING}")
    parser.add_argument("--code-of", metavar="TARGET", help="count the code that is made for the core of another profile")
    parser.add_argument("--model", help="compare the profiles with the cycles of a .edge file")
    parser.add_argument("--folder", type=Path, default=(cache_folder() or Path()) / "counts", help="where counts are kept")
    options = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found: install gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc qemu-user llvm")
    try:
        run(options.targets, options)
    except EdgeError as err:
        raise SystemExit(f"error: {err}") from err


if __name__ == "__main__":
    main()
