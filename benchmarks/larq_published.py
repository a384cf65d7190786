"""The roofline of `edge.targets.roofline` checked against figures that others published: Larq Compute Engine's own, on three boards.

    python benchmarks/larq_published.py                      prints the table
    python benchmarks/larq_published.py --models FOLDER      and what edge itself is predicted to take for FOLDER/QuickNet*.edge on the
                                                             Pi 4 and 5; writes benchmarks/results/larq-published.{json,md}

Of every network the operators are listed as Larq Compute Engine runs them (larq-zoo's QuickNet; batch norm folded, ReLU fused). Each is so
many runs of a loop (`LOOPS`), whose instructions are counted in the engine's published sources: its binary tiles of 8 channels x 4 pixels
(github.com/larq/compute-engine), and XNNPACK's float32 kernels (github.com/google/XNNPACK). What an instruction takes on a core is the
core's documented throughput (`CORES`), memory is what its profile says. Nothing is fitted to a network or a board, but for one constant of
the framework, `FRAMEWORK`: all that is not in those loops. Published figures: the engine's README, one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.kernels.isa import ISAS, Machine
from edge.targets.costs import InstructionCost
from edge.targets.devices import Device, Figure, KernelCost, load_device
from edge.targets.features import Stream
from edge.targets.profile import PREDICTED, profile
from edge.targets.roofline import estimate

RESULTS = Path(__file__).parent / "results" / "larq-published"
TRIPLE = "aarch64-unknown-linux-gnu"
FRAMEWORK = 1.4  # times the cycles of loops: pointers, edges of tiles, pipelines that run empty; chosen once, for all networks and cores
OPERATOR_S = 2e-6  # between two operators: assumed, TensorFlow Lite's interpreter and a call of a delegate
TOLERANCE = 0.3
BOARDS = ("raspberry-pi-4", "raspberry-pi-5")
OWN = "\n## edge itself on these boards\n\nPredicted by the same roofline from counted instructions (`edge profile`), one thread.\n\n"

PUBLISHED_MS: Mapping[str, Mapping[str, float]] = {
    "QuickNetSmall": {"raspberry-pi-4": 27.7, "pixel-1": 16.8, "mac-mini-m1": 4.0},
    "QuickNet": {"raspberry-pi-4": 45.0, "pixel-1": 25.5, "mac-mini-m1": 5.8},
    "QuickNetLarge": {"raspberry-pi-4": 77.0, "pixel-1": 44.2, "mac-mini-m1": 9.9},
}
# (blocks of a section, filters of a section)
NETWORKS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "QuickNetSmall": ((4, 4, 4, 4), (32, 64, 256, 512)),
    "QuickNet": ((4, 4, 4, 4), (64, 128, 256, 512)),
    "QuickNetLarge": ((6, 8, 12, 6), (64, 128, 256, 512)),
}


# -- loops ---------------------------------------------------------------------------------------------------------------------

# Instructions of one turn by class: simple vector, widening sums, conversions and multiplications of floats, loads, stores, scalar.
LOOPS: Mapping[str, Mapping[str, int]] = {
    "binary128": {"simple": 92, "widen": 4, "load_step": 4, "load": 8, "scalar": 3},  # 4,096 binary multiply-accumulates
    "binary64": {"simple": 44, "widen": 4, "load_spread": 4, "load": 4, "pair": 2, "scalar": 4},  # 2,048
    "binary32": {"simple": 20, "widen": 4, "load_spread": 4, "load": 2, "pair": 2, "scalar": 4},  # 1,024
    "tap": {"pair": 2, "scalar": 3},  # a tap of a tile with more than 128 channels
    "tile": {"simple": 24, "convert": 8, "float": 16, "load": 16, "load_spread": 4, "pair": 2, "store": 8, "scalar": 12},  # 32 outputs
    "pack": {"load_two": 16, "shuffle": 22, "insert": 7, "store": 1, "scalar": 3},  # 128 signs
    "gemm": {"multiply_add": 8, "load": 3, "scalar": 1},  # 32 multiply-accumulates of float32
    "depthwise": {"multiply_add": 9, "simple": 2, "load": 19, "store": 1, "scalar": 4},  # 4 outputs of 3x3
    "max_pool": {"simple": 10, "load": 9, "store": 1, "scalar": 4},  # 4 outputs; XNNPACK reads nine pixels, of which four differ
    "add": {"float": 1, "simple": 2, "load": 2, "store": 1, "scalar": 1},  # 4 outputs
    "mean": {"float": 1, "load": 1, "scalar": 1},  # 4 inputs
    "softmax": {"multiply_add": 12, "simple": 6, "load": 2, "store": 2, "scalar": 2},  # 4 outputs
}


@dataclass(frozen=True)
class Core:
    """Throughput: micro-operations a cycle, and by class of instruction (micro-operations, cycles of the units it takes).

    Units are vector pipes, loads and stores; a loop takes as long as the busiest of them, or as its micro-operations take to be issued.
    """

    source: str
    issue: int
    classes: Mapping[str, tuple[int, float]]

    def cycles(self, loop: str) -> float:
        """Of one turn of a loop, without waits."""
        taken = {"vector": 0.0, "load": 0.0, "store": 0.0}
        operations = 0
        for name, count in LOOPS[loop].items():
            each, cycles = self.classes[name]
            operations += count * each
            if name != "scalar":
                taken[_unit(name)] += count * cycles
        return max(operations / self.issue, *taken.values())


def _unit(name: str) -> str:
    if name == "store":
        return name
    return "load" if name.startswith(("load", "pair")) else "vector"


CORES: Mapping[str, Core] = {
    "raspberry-pi-4": Core(
        "LLVM 19's model cortex-a72, after Arm's Cortex-A72 Software Optimization Guide (UAN 0016A)",
        3,
        {"simple": (1, 0.5), "widen": (1, 1.0), "convert": (2, 1.0), "float": (2, 1.0), "multiply_add": (1, 1.0), "shuffle": (3, 1.5),
         "insert": (1, 0.5), "load": (1, 1.0), "load_step": (2, 1.0), "load_spread": (3, 1.0), "load_two": (5, 2.0), "pair": (2, 1.0),
         "store": (3, 2.0), "scalar": (1, 0.5)},
    ),
    "pixel-1": Core(
        "LLVM 19's model kryo, which Qualcomm contributed",
        5,
        {"simple": (2, 0.5), "widen": (2, 1.0), "convert": (2, 1.0), "float": (2, 0.75), "multiply_add": (2, 1.0), "shuffle": (2, 1.0),
         "insert": (2, 1.0), "load": (1, 0.5), "load_step": (3, 0.5), "load_spread": (3, 0.5), "load_two": (4, 1.0), "pair": (2, 0.5),
         "store": (2, 0.5), "scalar": (1, 0.5)},
    ),
    "mac-mini-m1": Core(
        "D. Johnson's measurements of Firestorm (dougallj.github.io/applecpu): eight wide, four vector pipes, three loads, two stores",
        8,
        {"simple": (1, 0.25), "widen": (1, 0.25), "convert": (1, 0.25), "float": (1, 0.25), "multiply_add": (1, 0.25),
         "shuffle": (1, 0.25), "insert": (1, 0.25), "load": (1, 0.333), "load_step": (2, 0.333), "load_spread": (2, 0.333),
         "load_two": (3, 0.667), "pair": (1, 0.333), "store": (1, 0.5), "scalar": (1, 0.167)},
    ),
}  # fmt: skip


# -- devices -------------------------------------------------------------------------------------------------------------------


def _figures(**given: tuple[float, str, float]) -> dict[str, Figure]:
    return {name: Figure(float(value), source, False, error) for name, (value, source, error) in given.items()}


def devices() -> dict[str, Device]:
    """The three boards, with the engine's loops as their kernels."""
    known = {"raspberry-pi-4": load_device("raspberry-pi-4"), "pixel-1": _pixel(), "mac-mini-m1": _m1()}
    return {name: dataclasses.replace(device, kernels=_kernels(CORES[name])) for name, device in known.items()}


def _kernels(core: Core) -> dict[str, KernelCost]:
    cycles = {loop: FRAMEWORK * core.cycles(loop) for loop in LOOPS}
    return {"larq": KernelCost(cycles, core.source, False, TOLERANCE)}


def _pixel() -> Device:
    figures = _figures(
        clock_hz=(2_150_000_000, "Snapdragon 821 product brief: two performance cores at up to 2.15 GHz in Google's Pixel", 0.1),
        cores=(4, "Snapdragon 821 product brief: quad-core Kryo", 0.0),
        l1d_bytes=(32_768, "AnandTech's preview of the Snapdragon 820: 32 KB", 0.3),
        l2_bytes=(1_048_576, "Snapdragon 820: 1 MB for the two performance cores", 0.0),
        l2_bytes_per_s=(17_200_000_000, "assumed: 8 bytes a cycle", 0.4),
        memory_bytes_per_s=(10_000_000_000, "assumed: a third of the 29.8 GB/s of its LPDDR4-3733 for one core", 0.4),
        overhead_s=(OPERATOR_S, "assumed: TensorFlow Lite's interpreter", 1.0),
    )
    return Device("pixel-1", "Google Pixel (2016), Snapdragon 821", Machine(ISAS["neon"], "kryo", "", TRIPLE), figures, {})


def _m1() -> Device:
    figures = _figures(
        clock_hz=(3_200_000_000, "AnandTech's test of the Mac mini (2020): 3.2 GHz on performance cores", 0.0),
        cores=(8, "Apple: four performance and four efficiency cores", 0.0),
        l1d_bytes=(131_072, "AnandTech's test of the Mac mini (2020): 128 KB", 0.0),
        l2_bytes=(12_582_912, "AnandTech's test of the Mac mini (2020): 12 MB for the performance cores", 0.0),
        l2_bytes_per_s=(102_400_000_000, "assumed: 32 bytes a cycle", 0.3),
        memory_bytes_per_s=(58_000_000_000, "AnandTech's test of the Mac mini (2020): about 58 GB/s read by one core", 0.2),
        overhead_s=(OPERATOR_S / 2, "assumed: TensorFlow Lite's interpreter", 1.0),
    )
    return Device("mac-mini-m1", "Apple Mac mini with M1", Machine(ISAS["neondot"], "apple-m1", "", TRIPLE), figures, {})


# -- networks ------------------------------------------------------------------------------------------------------------------


def operators(network: str) -> Iterator[InstructionCost]:
    """The operators of a network in the order in which the engine runs them, for pictures of 224 x 224."""
    blocks, filters = NETWORKS[network]
    stem = filters[0] // 4
    yield _conv("stem convolution", 112, 3, stem, 3, read_side=224)
    yield _depthwise("stem depthwise", 56, stem, read_side=112)
    yield _conv("stem pointwise", 56, stem, filters[0], 1)
    side, depth = 56, filters[0]
    for count, channels in zip(blocks, filters, strict=True):
        if channels != depth:
            yield _values("max pool", "max_pool", 4, side - 1, depth, inputs=1)
            side //= 2
            yield _depthwise("blur", side, depth, read_side=2 * side - 1)
            yield _conv("transition", side, depth, channels, 1)
            depth = channels
        for _ in range(count):
            yield _packing(side, depth)
            yield _binary(side, depth)
            yield _values("add", "add", 4, side, depth, inputs=2)
    yield _operator("mean", {"mean": side * side * depth / 4}, read=4 * side * side * depth, written=4 * depth)
    yield _operator("dense", {"gemm": depth * 1000 / 32}, read=4 * depth, written=4000, constants=4 * depth * 1000, macs=depth * 1000)
    yield _operator("softmax", {"softmax": 250}, read=4000, written=4000)


def _operator(
    name: str,
    loops: Mapping[str, float],
    *,
    read: int,
    written: int,
    constants: int = 0,
    macs: int = 0,
    bits: int = 32,
    streams: tuple[Stream, ...] = (),
) -> InstructionCost:
    return InstructionCost(
        operation=name,
        kernel=name,
        kind="larq",
        macs=macs,
        stored_macs=macs,
        values=written // 4,
        precision=(bits, bits),
        constants_bytes=constants,
        derived_bytes=0,
        input_bytes=read,
        output_bytes=written,
        read_bytes=constants,
        scratch_bytes=0,
        work=macs,
        features=loops,
        streams=streams,
    )


def _conv(name: str, side: int, depth: int, channels: int, taps: int, *, read_side: int | None = None) -> InstructionCost:
    macs = side * side * depth * channels * taps * taps
    read = 4 * (read_side or side) ** 2 * depth
    loops = {"gemm": macs / 32}
    return _operator(name, loops, read=read, written=4 * side * side * channels, constants=4 * depth * channels * taps * taps, macs=macs)


def _depthwise(name: str, side: int, channels: int, *, read_side: int) -> InstructionCost:
    values = side * side * channels
    return _operator(
        name, {"depthwise": values / 4}, read=4 * read_side**2 * channels, written=4 * values, constants=40 * channels, macs=9 * values
    )


def _values(name: str, loop: str, per_turn: int, side: int, channels: int, *, inputs: int) -> InstructionCost:
    values = side * side * channels
    return _operator(name, {loop: values / per_turn}, read=4 * values * inputs, written=4 * values)


def _packing(side: int, channels: int) -> InstructionCost:
    values = side * side * channels
    return _operator("pack signs", {"pack": values / 128}, read=4 * values, written=values // 8)


def _binary(side: int, channels: int) -> InstructionCost:
    """A 3x3 convolution of signs: tiles of 8 channels x 4 pixels over nine taps; all filters are read again for every 4 pixels."""
    tiles, taps, words = math.ceil(side * side / 4) * channels / 8, 9, max(1, channels // 128)
    loop = f"binary{min(channels, 128)}"
    loops = {loop: tiles * taps * words, "tile": tiles} | ({"tap": tiles * taps} if words > 1 else {})
    filters = channels * taps * channels // 8
    return _operator(
        "binary convolution",
        loops,
        read=side * side * channels // 8,
        written=4 * side * side * channels,
        constants=filters,
        macs=side * side * channels * channels * taps,
        bits=1,
        streams=(Stream(filters * (side * side / 4 - 1), filters),),
    )


# -- the table -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A network on a board; times in milliseconds, shares of the predicted time by operator."""

    network: str
    device: str
    title: str
    published_ms: float
    predicted_ms: float
    shares: dict[str, float]

    @property
    def error(self) -> float:
        return self.predicted_ms / self.published_ms - 1


def rows() -> list[Row]:
    """All networks on all boards."""
    return [_row(network, name, device) for name, device in devices().items() for network in NETWORKS]


def _row(network: str, name: str, device: Device) -> Row:
    listed = list(operators(network))
    # The interpreter's arena shares memory among tensors: what one inference goes through is the constants and a few of the largest.
    program_bytes = sum(each.constants_bytes for each in listed) + 3 * max(each.output_bytes for each in listed)
    seconds = [(each.operation, estimate(each, device, program_bytes).seconds) for each in listed]
    total = sum(each for _, each in seconds)
    names = dict.fromkeys(operation for operation, _ in seconds)
    shares = {operation: sum(each for other, each in seconds if other == operation) / total for operation in names}
    return Row(network, name, device.title, PUBLISHED_MS[network][name], total * 1e3, shares)


def table(found: list[Row]) -> str:
    """As Markdown."""
    lines = ["| board | network | published | predicted | error | binary convolutions |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in found:
        binary = row.shares["binary convolution"]
        times = f"{row.published_ms:.1f} ms | {row.predicted_ms:.1f} ms | {100 * row.error:+.0f} %"
        lines.append(f"| {row.title} | {row.network} | {times} | {100 * binary:.0f} % |")
    return "\n".join(lines) + "\n"


def page(found: list[Row]) -> str:
    """The check as Markdown."""
    cores = "\n".join(f"- {name}: {core.source}" for name, core in CORES.items())
    worst = max(abs(row.error) for row in found)
    return f"""# The roofline against published figures

Larq Compute Engine's own figures, one thread (README of github.com/larq/compute-engine, 2021 and 2022), and what the roofline of
`edge profile` predicts with that engine's instruction counts. Largest error {100 * worst:.0f} %; asked: each within
{100 * TOLERANCE:.0f} %.
Made by `python benchmarks/larq_published.py`; all times of these boards are predicted or published, none was measured here.

{table(found)}
The one constant of the framework is {FRAMEWORK}, by which the cycles of all loops are multiplied; it was chosen once, so that errors of
both signs are about equally large. Throughput of the cores:

{cores}
"""


@dataclass(frozen=True)
class Own:
    """What edge itself is predicted to take for a network on a board, one thread."""

    network: str
    device: str
    title: str
    predicted_ms: float
    expected_error: float


def own(folder: Path) -> list[Own]:
    """Of the networks whose .edge files are in a folder; weights do not matter to the time."""
    found = []
    for target, network in itertools.product(BOARDS, NETWORKS):
        made = profile(folder / f"{network}.edge", target)
        found.append(Own(network, target, made.title, 1e3 * (made.seconds or 0.0), made.expected_error or 0.0))
    return found


def own_table(found: list[Own]) -> str:
    """As Markdown."""
    published = {(network, name): f"{figure:.1f} ms" for network, given in PUBLISHED_MS.items() for name, figure in given.items()}
    lines = ["| board | network | edge, predicted | expected error | Larq, published |", "| --- | --- | ---: | ---: | ---: |"]
    for each in found:
        other = published.get((each.network, each.device), "-")
        lines.append(f"| {each.title} | {each.network} | {each.predicted_ms:.1f} ms | {100 * each.expected_error:.0f} % | {other} |")
    return "\n".join(lines) + "\n"


def to_json(found: list[Row], ours: list[Own]) -> dict[str, Any]:
    made = [dataclasses.asdict(row) | {"error": row.error} for row in found]
    loops = {name: {loop: core.cycles(loop) for loop in LOOPS} for name, core in CORES.items()}
    checked = {"framework": FRAMEWORK, "tolerance": TOLERANCE, "time_basis": PREDICTED, "rows": made, "cycles_per_loop": loops}
    return checked | {"edge": [dataclasses.asdict(each) for each in ours]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="a folder with QuickNetSmall.edge, QuickNet.edge and QuickNetLarge.edge")
    options = parser.parse_args()
    found = rows()
    print(table(found), end="")
    if options.models:
        ours = own(options.models)
        print(own_table(ours), end="")
        RESULTS.with_suffix(".json").write_text(json.dumps(to_json(found, ours), indent=1) + "\n", "utf-8")
        RESULTS.with_suffix(".md").write_text(page(found) + OWN + own_table(ours), "utf-8")


if __name__ == "__main__":
    main()
