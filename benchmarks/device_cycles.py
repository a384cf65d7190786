"""Cycles of edge's kernels on a device that is not here: the figures under `[kernels]` of a profile in `targets/`.

    python benchmarks/device_cycles.py raspberry-pi-4            prints the tables
    python benchmarks/device_cycles.py raspberry-pi-4 --write    puts them into the profile
    python benchmarks/device_cycles.py raspberry-pi-4 --write --kinds 'dense_bits_.*'     those kinds alone, the others stay
    python benchmarks/device_cycles.py raspberry-pi-4 --write --kinds missing            those that the profile does not list
    python benchmarks/device_cycles.py raspberry-pi-4 --model examples/digits.edge

Every kernel is compiled for the device, linked into a program and run under `qemu-aarch64`, where a plugin counts how often each basic
block runs; `llvm-mca` says how many cycles a block takes on the device's core when it repeats. Their products are summed. The rest is a
least-squares fit of cycles = stored_macs * a + values * b + c over a few shapes, none of them from a network that is profiled later.

Known errors: memory is taken to be in the first-level cache, branches to be predicted, and the model of the core is LLVM's. So the figures
are predictions. Needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, gcc, qemu-user and llvm (Debian's names).
"""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import EdgeError
from edge.format import read
from edge.graph import Graph, Node, constant_type
from edge.kernels.build import object_code
from edge.kernels.isa import Machine
from edge.kernels.registry import Derived, Lowered, Lowering, select
from edge.lower import to_program
from edge.op_check import infer
from edge.ops import NO_ACTIVATION, OPS, OpCall
from edge.program import Program
from edge.targets.costs import kind_of, program_cost
from edge.targets.devices import FOLDER, Device, load_device
from edge.tensors import Encoding, TensorType

HERE = Path(__file__).parent / "device"
TOOLS = ("aarch64-linux-gnu-gcc", "gcc", "qemu-aarch64", "llvm-mca", "llvm-objdump")
MODEL_ERROR = 0.3  # of llvm-mca against hardware, first-level cache assumed
ITERATIONS = 100

BITS, F32, I8, U8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8


# -- shapes --------------------------------------------------------------------------------------------------------------------

_PADS = {"pad_top": 0, "pad_bottom": 0, "pad_left": 0, "pad_right": 0}
_WINDOW = {"stride_h": 1, "stride_w": 1, **_PADS}
_CONV = {**_WINDOW, "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0, **NO_ACTIVATION}
# (height, width, channels in, channels out, taps)
_CONV_SHAPES = ((14, 14, 64, 64, 3), (10, 10, 128, 96, 1), (16, 16, 32, 32, 5), (7, 7, 256, 128, 3), (9, 9, 16, 24, 3))
_DENSE_SHAPES = ((1024, 128), (256, 64), (2048, 32), (96, 10))
_DEPTHWISE_SHAPES = ((14, 14, 64, 3), (7, 7, 128, 5), (28, 28, 32, 3), (6, 6, 48, 3), (10, 10, 256, 3))
_IMAGE_SHAPES = ((14, 14, 64), (28, 28, 16), (7, 7, 160), (5, 5, 24), (2, 2, 104))


@dataclass(frozen=True)
class Case:
    """One operation on one shape."""

    op: str
    input: TensorType
    output: Encoding
    stored: Encoding | None = None
    channels: int = 0
    taps: int = 1

    def program(self) -> Program:
        random = np.random.default_rng(0)
        constants = self._filter(random) if self.stored else self._slope()
        attrs = self._attrs()
        inputs = ("x", "y") if self.op in ("add", "concat", "multiply") else ("x",)
        types = {name: self.input for name in inputs}
        call = OpCall(tuple(types.values()), {role: constant_type(a) for role, a in constants.items()}, attrs)
        output = TensorType(infer(OPS[self.op], call), self.output, self.input.scale, self.input.zero_point if self.output is I8 else 0)
        node = Node(self.op, inputs, "out", attrs, constants, ("layer",))
        return to_program(Graph("case", inputs, ("out",), (node,), {**types, "out": output}).verify())

    def _filter(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        height, width, depth = self.input.hwc
        shapes = {"conv2d": (self.channels, self.taps, self.taps, depth), "dense": (self.channels, height, width, depth)}
        filters = random.integers(-9, 9, shapes.get(self.op, (self.taps, self.taps, depth)))
        dtype = {BITS: np.bool_, I8: np.int8, F32: np.float32}[self.stored or F32]
        constants = {"filter": (filters < 0 if self.stored is BITS else filters).astype(dtype)}
        channels = self.channels or depth
        if self.output is BITS:
            return constants | {"threshold": np.zeros(channels, np.int32)}
        scale = {} if self.stored is F32 else {"scale": np.ones(channels, np.float32)}
        return constants | scale | {"bias": np.ones(channels, np.float32)}

    def _slope(self) -> dict[str, np.ndarray]:
        return {"slope": np.full(self.input.hwc[2], 0.25, np.float32)} if self.op == "prelu" else {}

    def _attrs(self) -> dict[str, int | float]:
        known: dict[str, int | float] = {**_CONV, "window_h": 2, "window_w": 2, "value": 0.0, "rank": 1, "size_0": self.input.elements}
        known |= {"size_1": 1, "size_2": 1}
        if self.op == "depthwise_conv2d":
            known["groups"] = self.input.hwc[2]
        if self.op.endswith("pool2d"):
            known |= {"stride_h": 2, "stride_w": 2}
        if self.op in ("conv2d", "depthwise_conv2d", "pad2d"):
            known |= dict.fromkeys(_PADS, self.taps // 2)
        return {name: known[name] for name in OPS[self.op].attrs}


def cases() -> Iterator[Case]:
    """All kinds of kernels, each on a few shapes."""
    for op in ("conv2d", "dense", "depthwise_conv2d"):
        for source, stored, output in sorted(OPS[op].signatures, key=str):
            yield from _filtered(op, source, stored or F32, output)
    for op, definition in OPS.items():
        if "filter" not in definition.constants:
            for source, _, output in sorted(definition.signatures, key=str):
                for shape in _IMAGE_SHAPES:
                    yield Case(op, _kind(shape, source), output, taps=3)


def _filtered(op: str, source: Encoding, stored: Encoding, output: Encoding) -> Iterator[Case]:
    if op == "conv2d":
        for height, width, depth, channels, taps in _CONV_SHAPES:
            yield Case(op, _kind((height, width, depth), source), output, stored, channels, taps)
    elif op == "dense":
        for depth, channels in _DENSE_SHAPES:
            yield Case(op, _kind((depth,), source), output, stored, channels)
    else:
        for height, width, depth, taps in _DEPTHWISE_SHAPES:
            yield Case(op, _kind((height, width, depth), source), output, stored, taps=taps)


def _kind(shape: tuple[int, ...], encoding: Encoding) -> TensorType:
    return TensorType(shape, encoding, 0.1 if encoding is I8 else 1.0)


# -- counting blocks -----------------------------------------------------------------------------------------------------------


class _Offsets(Derived):
    """Constants derived at load, behind those of the file in one piece."""

    def __init__(self, program: Program) -> None:
        super().__init__(0)
        self.data = bytearray(program.blob.tobytes())

    def add(self, array: np.ndarray) -> int:
        self.data.extend(bytes(-len(self.data) % 64))
        offset = len(self.data)
        self.data.extend(np.ascontiguousarray(array).tobytes())
        return offset


def _tool(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeError(f"{command[0]} failed: {done.stderr[:500]}")
    return done


class Emulator:
    """Runs kernels for a device and counts their basic blocks."""

    def __init__(self, device: Device, folder: Path) -> None:
        self.machine: Machine = device.machine
        self.folder = folder
        self.plugin = folder / "blocks.so"
        _tool("gcc", "-O2", "-shared", "-fPIC", "-w", "-o", str(self.plugin), str(HERE / "blocks.c"))

    def cycles(self, program: Program) -> list[float]:
        """Cycles of every instruction of a program."""
        derived = _Offsets(program)
        found = []
        for instruction in program.instructions:
            lowering = Lowering(program, instruction, self.machine, derived)
            lowered = select(lowering).lower(lowering)
            found.append(self._cycles(lowered, bytes(derived.data), program.arena_bytes))
        return found

    def _cycles(self, lowered: Lowered, constants: bytes, arena_bytes: int) -> float:
        binary = self._binary(lowered)
        data = self.folder / "data"
        data.write_bytes(np.array([len(lowered.args), *lowered.args], np.int64).tobytes() + constants)
        size = str(arena_bytes), str(lowered.scratch_bytes)
        few, more = (self._run(binary, data, size, repeats) for repeats in (1, 3))
        texts = _instructions(binary)
        times = {block: (count - few.get(block, 0)) / 2 for block, count in more.items() if block[0] in texts}
        return sum(count * _block_cycles(lines, self.machine.cpu) for lines, count in _merged(times, texts) if count > 0)

    def _binary(self, lowered: Lowered) -> Path:
        binary = self.folder / re.sub(r"\W", "_", lowered.code.name)
        if not binary.exists():
            code = object_code("edge_kernel", lowered.code.build(self.machine), self.machine)
            (self.folder / "kernel.o").write_bytes(code)
            parts = (str(self.folder / "kernel.o"), str(HERE / "harness.c"))
            _tool("aarch64-linux-gnu-gcc", "-O1", "-static", "-o", str(binary), *parts)
        return binary

    def _run(self, binary: Path, data: Path, size: tuple[str, str], repeats: int) -> dict[tuple[int, int], int]:
        """How often each block (address, instructions) ran."""
        command = ("qemu-aarch64", "-cpu", self.machine.cpu, "-plugin", str(self.plugin), str(binary), str(data), *size, str(repeats))
        counts: dict[tuple[int, int], int] = defaultdict(int)
        for line in _tool(*command).stderr.splitlines():
            address, instructions, times = (int(word, 16) for word in line.split())
            counts[address, instructions] += times
        return counts


@functools.lru_cache(maxsize=4)
def _instructions(binary: Path) -> dict[int, str]:
    """The instructions of the kernel by address."""
    lines = _tool("llvm-objdump", "-d", "--no-show-raw-insn", "--no-leading-headers", str(binary)).stdout.splitlines()
    found = {}
    inside = False
    for line in lines:
        if line.endswith(">:"):
            inside = "<edge_kernel>" in line or "<mem" in line or "<__mem" in line
        match = re.match(r"\s*([0-9a-f]+):\s+(.*)", line)
        if match and inside:
            found[int(match[1], 16)] = match[2].split("//")[0].split("<")[0].strip()
    return found


def _merged(times: Mapping[tuple[int, int], float], texts: Mapping[int, str]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Blocks as lines of assembly with their counts; those that follow each other and run as often, without a branch, become one."""
    lines: list[str] = []
    end, count = -1, 0.0
    for (address, instructions), ran in sorted(times.items()):
        if lines and (address != end or ran != count or lines[-1].split()[0].startswith(("b", "cb", "tb", "ret"))):
            yield tuple(lines), count
            lines = []
        lines += [texts.get(address + 4 * i, "nop") for i in range(instructions)]
        end, count = address + 4 * instructions, ran
    if lines:
        yield tuple(lines), count


@functools.cache
def _block_cycles(lines: tuple[str, ...], cpu: str) -> float:
    """Cycles of one run of a block among many."""
    # Where a branch goes does not matter to its cost, and the assembler wants a label.
    text = "\n".join(re.sub(r"\b0x[0-9a-f]+$", "label", line) if re.match(r"(b|cb|tb|adr)", line) else line for line in lines)
    command = ("llvm-mca", "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", f"-iterations={ITERATIONS}")
    report = _tool(*command, text=f"label:\n{text}\n").stdout
    match = re.search(r"Total Cycles:\s+(\d+)", report)
    if match is None:
        raise EdgeError(f"llvm-mca gave no cycles: {report[:300]}")
    return int(match[1]) / ITERATIONS


# -- fitting -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What a kernel was given and what it took."""

    macs: int
    values: int
    cycles: float


def fit(samples: Sequence[Sample]) -> tuple[tuple[float, float, float], float]:
    """((per mac, per value, per call), the root mean square of the relative residuals); none of them negative."""
    measured = np.array([sample.cycles for sample in samples])
    terms = np.array([[sample.macs, sample.values, 1.0] for sample in samples]) / measured[:, None]
    used = [i for i in range(3) if terms[:, i].any()]
    while True:
        found = np.linalg.lstsq(terms[:, used], np.ones(len(samples)), rcond=None)[0]
        if (found >= 0).all() or len(used) == 1:
            break
        used.pop(int(found.argmin()))
    values = [0.0, 0.0, 0.0]
    for i, value in zip(used, found, strict=True):
        values[i] = float(value)
    residual = float(np.sqrt(np.mean((terms @ np.array(values) - 1) ** 2)))
    return (values[0], values[1], values[2]), residual


def samples(emulator: Emulator, wanted: Callable[[str], bool]) -> dict[str, list[Sample]]:
    """All cases of the kinds that are wanted, by kind of kernel."""
    found: dict[str, list[Sample]] = defaultdict(list)
    programs = [case.program() for case in cases()]  # all made before the first runs for long
    for program in [program for program in programs if wanted(kind_of(program, program.instructions[0]))]:
        cost = program_cost(program, emulator.machine).instructions[0]
        found[kind_of(program, program.instructions[0])].append(Sample(cost.stored_macs, cost.values, emulator.cycles(program)[0]))
        print(f"{cost.kind}: {program.tensors[0].type} -> {found[cost.kind][-1].cycles:,.0f} cycles", file=sys.stderr)
    return found


def tables(found: Mapping[str, Sequence[Sample]], cpu: str) -> dict[str, str]:
    """The figures of each kind as TOML."""
    version = _tool("llvm-mca", "--version").stdout.split("version")[1].split()[0]
    source = f"benchmarks/device_cycles.py: instructions counted in emulation, cycles of {cpu} by llvm-mca {version}"
    made = {}
    for kind, measured in found.items():
        (per_mac, per_value, per_call), residual = fit(measured)
        lines = [
            f"[kernels.{kind}]",
            f"cycles_per_mac = {per_mac:.5f}",
            f"cycles_per_value = {per_value:.3f}",
            f"cycles_per_call = {per_call:.0f}",
            f'source = "{source}"',
            "measured = false",
            f"expected_error = {MODEL_ERROR + residual:.2f}",
            "",
        ]
        made[kind] = "\n".join(lines)
    return made


def write(name: str, made: Mapping[str, str]) -> None:
    """Replace or add tables of kernels, which are the last of the profile, in the order of their names."""
    path = FOLDER / f"{name}.toml"
    head, *kept = re.split(r"^(?=\[kernels\.)", path.read_text("utf-8"), flags=re.MULTILINE)
    known = {table[len("[kernels.") : table.index("]")]: table.rstrip("\n") + "\n" for table in kept}
    path.write_text(head + "\n".join(table for _, table in sorted({**known, **made}.items())), "utf-8")


def compare_model(device: Device, emulator: Emulator, path: str) -> None:
    """Print, for every instruction of a model, the cycles counted here beside those the profile predicts."""
    from edge.targets.costs import cycles

    program = read(path)
    costs, counted = program_cost(program, device.machine).instructions, emulator.cycles(program)
    predicted = [cycles(cost, device.kernels)[0] for cost in costs]
    rows = [*zip((cost.kind for cost in costs), counted, predicted, strict=True), ("total", sum(counted), sum(predicted))]
    for kind, here, profile in rows:
        print(f"{kind:40} counted {here:12,.0f}  profile {profile:12,.0f}  ratio {profile / here:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--write", action="store_true", help="replace the tables in the profile")
    parser.add_argument("--kinds", default=".*", help="a pattern of the kinds to count, or missing")
    parser.add_argument("--model", help="compare the profile with the cycles of a .edge file")
    options = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found: install gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc qemu-user llvm")
    device = load_device(options.target)
    with tempfile.TemporaryDirectory() as folder:
        emulator = Emulator(device, Path(folder))
        if options.model:
            compare_model(device, emulator, options.model)
            return
        pattern = re.compile(options.kinds)
        listed = device.kernels if options.kinds == "missing" else {}
        made = tables(samples(emulator, lambda kind: kind not in listed if listed else bool(pattern.fullmatch(kind))), device.machine.cpu)
    if options.write:
        write(options.target, made)
    else:
        print("\n".join(made.values()))


if __name__ == "__main__":
    main()
