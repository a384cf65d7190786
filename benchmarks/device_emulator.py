"""How many cycles kernels take on a core that is not here: blocks counted in emulation, cycles of a block by llvm-mca.

Kernels are compiled for the device, linked into one program and run under `qemu-aarch64`, each once on its shape; a plugin counts how often
every basic block runs. `llvm-mca` says how many cycles a block takes on the core when it repeats. Their products are summed. Counts and
cycles are kept in a folder under the hash of the machine code and of what it was run on, so that only what is new is run again.

Known errors: memory is taken to be in the first-level cache, branches to be predicted, and the model of the core is LLVM's. Needs
gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, gcc, qemu-user and llvm (Debian's names; 16 or newer for neoverse-n1).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import EdgeError
from edge.kernels.cache import objects
from edge.kernels.isa import Machine
from edge.kernels.library import symbol
from edge.kernels.move import lower_halo
from edge.kernels.registry import Derived, Lowered, Lowering, Place, select
from edge.program import Program
from edge.tensors import TensorType

HERE = Path(__file__).parent / "device"
COMPILER, EMULATOR, DISASSEMBLER = "aarch64-linux-gnu-gcc", "qemu-aarch64", "llvm-objdump"
TOOLS = (COMPILER, "gcc", EMULATOR, DISASSEMBLER)
ITERATIONS = (10, 40)  # of a block: what those between take, so that neither its start nor its end counts
_BLOCKS = 250  # of one run of llvm-mca
_BATCH = 48  # jobs of one process
_FORMAT = 1  # of what is kept
_BRANCHES = ("b", "cb", "tb", "ret")

Block = tuple[str, ...]  # lines of assembly
Counts = Mapping[Block, int]


@dataclass(frozen=True)
class Model:
    """LLVM's model of a core: its name, the first LLVM that has it, and whether it issues in order."""

    name: str
    llvm: int
    in_order: bool


# Before version 16 LLVM has one model, that of Cortex-A57, for all of A72, A76 and Neoverse N1; its cortex-a76 has it still.
MODELS: Mapping[str, Model] = {
    "cortex-a53": Model("cortex-a53", 14, in_order=True),
    "cortex-a72": Model("cortex-a72", 14, in_order=False),
    "cortex-a76": Model("neoverse-n1", 16, in_order=False),
}


@dataclass(frozen=True)
class Cycles:
    """Cycles between two bounds, which differ where the core issues in order: without any wait for a result, and as LLVM's model waits."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return math.sqrt(self.low * self.high)


def run_tool(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeError(f"{command[0]} failed: {done.stderr[:500]}")
    return done


# -- jobs ----------------------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Job:
    """A kernel with what it is run on."""

    lowered: Lowered
    constants: bytes
    arena_bytes: int

    def packed(self, kernel: int) -> bytes:
        """As `device/harness.c` reads it."""
        args = self.lowered.args
        header = (kernel, len(args), self.arena_bytes, self.lowered.scratch_bytes, len(self.constants))
        return struct.pack(f"<5q{len(args)}q", *header, *args) + self.constants

    def key(self, code: bytes) -> str:
        """sha256 of the machine code and of what it is run on."""
        return hashlib.sha256(bytes([_FORMAT]) + hashlib.sha256(code).digest() + self.packed(0)).hexdigest()


def halo_job(kind: TensorType) -> Job:
    """What fills the halo of a tensor."""
    return Job(lower_halo(Place(kind, 0)), b"", kind.nbytes)


def jobs_of(program: Program, machine: Machine) -> list[tuple[Job, ...]]:
    """The calls of every instruction of a program: its kernel's, then those that fill the halos of its outputs."""
    derived = _Offsets(program)
    found = []
    for instruction in program.instructions:
        lowering = Lowering(program, instruction, machine, derived)
        lowered = select(lowering).lower(lowering)
        halos = [program.tensors[output].type for output in instruction.outputs if program.tensors[output].type.halo]
        found.append((Job(lowered, bytes(derived.data), program.arena_bytes), *map(halo_job, halos)))
    return found


# -- counting ------------------------------------------------------------------------------------------------------------------


class Emulator:
    """Runs kernels for a machine and counts their blocks; `folder` keeps the counts."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def counts(self, jobs: Sequence[Job]) -> Iterator[Counts]:
        """How often each block ran, of every job, in their order."""
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            codes = objects([job.lowered.code for job in batch], self.machine)
            files = [self.folder / f"{job.key(codes[job.lowered.code.name])}.json" for job in batch]
            absent = [(job, file) for job, file in zip(batch, files, strict=True) if not file.exists()]
            if absent:
                self._run(absent, codes)
            yield from (_read(file) for file in files)

    def _run(self, absent: Sequence[tuple[Job, Path]], codes: Mapping[str, bytes]) -> None:
        names = sorted({job.lowered.code.name for job, _ in absent})
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            program = _linked({each: codes[each] for each in names}, folder)
            data = folder / "data"
            data.write_bytes(b"".join(job.packed(names.index(job.lowered.code.name)) for job, _ in absent))
            plugin = folder / "blocks.so"
            run_tool("gcc", "-O2", "-shared", "-fPIC", "-w", "-o", str(plugin), str(HERE / "blocks.c"))
            output = run_tool(EMULATOR, "-cpu", self.machine.cpu, "-plugin", str(plugin), str(program), str(data)).stderr
            texts = _instructions(program)
        found = [_counted(part, texts) for part in output.split("job ")[1:]]
        for (_, file), counts in zip(absent, found, strict=True):
            _write(file, [["\n".join(block), count] for block, count in counts.items()])


def _linked(codes: Mapping[str, bytes], folder: Path) -> Path:
    """A program with the harness and all kernels."""
    objects = []
    for number, code in enumerate(codes.values()):
        objects.append(folder / f"kernel{number}.o")
        objects[-1].write_bytes(code)
    declared = "".join(f"extern void {symbol(name)}(void);\n" for name in codes)
    table = ", ".join(symbol(name) for name in codes)
    (folder / "table.c").write_text(f"{declared}void (*const edge_kernels[])(void) = {{{table}}};\n")
    program = folder / "program"
    sources = (*map(str, objects), str(folder / "table.c"), str(HERE / "harness.c"))
    run_tool(COMPILER, "-O1", "-static", "-o", str(program), *sources)
    return program


def _instructions(program: Path) -> dict[int, str]:
    """The instructions of kernels, and of what they call to move memory, by address."""
    lines = run_tool(DISASSEMBLER, "-d", "--no-show-raw-insn", "--no-leading-headers", str(program)).stdout.splitlines()
    found = {}
    inside = False
    for line in lines:
        if line.endswith(">:"):
            inside = re.search(r"<(edge_|mem|__mem)", line) is not None
        match = re.match(r"\s*([0-9a-f]+):\s+(.*)", line) if inside else None
        if match:
            found[int(match[1], 16)] = match[2].split("//")[0].split("<")[0].strip()
    return found


def _counted(output: str, texts: Mapping[int, str]) -> Counter[Block]:
    """What the plugin printed of one job, without what ran outside kernels."""
    times: Counter[tuple[int, int]] = Counter()
    for line in output.splitlines()[1:]:
        address, instructions, count = (int(word, 16) for word in line.split())
        if address in texts:
            times[address, instructions] += count
    merged: Counter[Block] = Counter()
    for block, count in _merged(times, texts):
        merged[block] += count
    return merged


def _merged(times: Mapping[tuple[int, int], int], texts: Mapping[int, str]) -> Iterator[tuple[Block, int]]:
    """Blocks with their counts; those that follow each other and run as often, without a branch, become one."""
    lines: list[str] = []
    end, count = -1, 0
    for (address, instructions), ran in sorted(times.items()):
        if lines and (address != end or ran != count or lines[-1].startswith(_BRANCHES)):
            yield _anonymous(lines), count
            lines = []
        lines += [texts.get(address + 4 * i, "nop") for i in range(instructions)]
        end, count = address + 4 * instructions, ran
    if lines:
        yield _anonymous(lines), count


def _anonymous(lines: Iterable[str]) -> Block:
    """Without addresses: where a branch goes does not matter to its cost, and the assembler wants a label."""
    return tuple(re.sub(r"\b0x[0-9a-f]+$", "label", line) if re.match(r"(b|cb|tb|adr)", line) else line for line in lines)


# -- cycles --------------------------------------------------------------------------------------------------------------------


class Simulator:
    """Cycles of blocks on a core by llvm-mca; `folder` keeps them."""

    def __init__(self, cpu: str, folder: Path) -> None:
        if cpu not in MODELS:
            raise EdgeError(f"cannot count cycles of {cpu}: expected one of {', '.join(MODELS)}; name a profile of one of these")
        self.model = MODELS[cpu]
        self.tool, self.version = simulator(self.model.llvm)
        self._file = folder / f"cycles-{self.model.name}-{self.version}.json"
        self._known: dict[str, list[float]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    @property
    def source(self) -> str:
        return f"cycles of {self.model.name} by llvm-mca {self.version}"

    def cycles(self, counted: Sequence[Counts]) -> list[Cycles]:
        """Cycles of each job."""
        self._learn(block for counts in counted for block in counts)
        return [self._total(counts) for counts in counted]

    def _total(self, counts: Counts) -> Cycles:
        low = sum(count * self._known["\n".join(block)][0] for block, count in counts.items())
        high = sum(count * self._known["\n".join(block)][1] for block, count in counts.items())
        return Cycles(low, high) if self.model.in_order else Cycles(high, high)

    def _learn(self, blocks: Iterable[Block]) -> None:
        new = sorted({"\n".join(block) for block in blocks} - set(self._known))
        for start in range(0, len(new), _BLOCKS):
            part = new[start : start + _BLOCKS]
            (few, least), (many, _) = (self._simulated(part, iterations) for iterations in ITERATIONS)
            between = ITERATIONS[1] - ITERATIONS[0]
            for block, low, first, last in zip(part, least, few, many, strict=True):
                high = (last - first) / between
                self._known[block] = [min(low, high), high]
            _write(self._file, self._known)

    def _simulated(self, blocks: Sequence[str], iterations: int) -> tuple[list[float], list[float]]:
        """Cycles of some runs of each block in a row, and the least that one run takes, by what the core has of its busiest unit."""
        regions = "".join(f"# LLVM-MCA-BEGIN r{i}\n{block}\n# LLVM-MCA-END\n" for i, block in enumerate(blocks))
        command = (self.tool, "-mtriple=aarch64-linux-gnu", f"-mcpu={self.model.name}", f"-iterations={iterations}")
        report = run_tool(*command, "-instruction-info=0", "-resource-pressure=0", text=f"label:\n{regions}").stdout
        totals = [float(found) for found in re.findall(r"Total Cycles:\s+(\d+)", report)]
        least = [float(found) for found in re.findall(r"Block RThroughput:\s+([\d.]+)", report)]
        if len(totals) != len(blocks) or len(least) != len(blocks):
            raise EdgeError(f"llvm-mca gave {len(totals)} results for {len(blocks)} blocks: {report[:300]}")
        return totals, least


@functools.cache
def simulator(least: int) -> tuple[str, str]:
    """The newest llvm-mca and its version. Raises EdgeError where there is none, or all are older than `least`."""
    names = {path.name for folder in os.get_exec_path() for path in Path(folder).glob("llvm-mca*")}
    versions = {}
    for name in names:
        match = re.search(r"version (\d+)([.\d]*)", run_tool(name, "--version").stdout) if shutil.which(name) else None
        if match:
            versions[int(match[1]), match[1] + match[2]] = name
    if not versions or max(versions)[0] < least:
        raise EdgeError(f"cannot count cycles: expected llvm-mca {least} or newer, got {sorted(names) or 'none'}; install Debian's llvm-19")
    return versions[max(versions)], max(versions)[1]


# -- what is kept --------------------------------------------------------------------------------------------------------------


def _write(file: Path, content: object) -> None:
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content), "utf-8")
    temporary.replace(file)


def _read(file: Path) -> Counts:
    return {tuple(block.split("\n")): count for block, count in json.loads(file.read_text("utf-8"))}
