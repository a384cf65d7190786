"""What a device needs beside the model, and how soon it answers: with kernels compiled ahead of time, and with Numba.

    python benchmarks/device_start.py                     # needs gcc; writes benchmarks/results/device-start.md
    EDGE_PI_ROOT=DIR python benchmarks/device_start.py    # with the first of them in an emulated Raspberry Pi user space beside it

It makes the bundle of the example for this machine and, as a process of its own, runs what runs on a device: the command line, from the
start of Python to the printed answer. Start is the wall time of that process, the median of `RUNS`; memory is the most it held (VmHWM) when
it ended. With Numba all kernels are in the cache already; "Numba imported" is the process that has to compile one more. Emulated times say
nothing about a board, except that the same start takes so many times longer there under emulation.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge.bundle_contents import contents

ROOT = Path(__file__).resolve().parents[1]
MODEL, PICTURE = ROOT / "edge" / "data" / "digits.edge", ROOT / "examples" / "image.png"
RESULT = ROOT / "benchmarks" / "results" / "device-start.md"
PI = ROOT.parent / "shared" / "rpi"
RUNS = 15
EMULATED_RUNS = 3
CORE = "cortex-a72"
MB = 1e6

# Limits: MB beside Python, numpy and pillow; seconds; MB.
MOST_INSTALLED, MOST_START, MOST_MEMORY = 15.0, 0.5, 60.0

_REPORT = """
import atexit, json, os, sys
def report():
    status = "/proc/self/status"  # not there where the processor is emulated
    lines = open(status).readlines() if os.path.exists(status) else []
    memory = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    loaded = [name for name in ("numba", "llvmlite") if sys.modules.get(name)]
    print(json.dumps({"memory": sum(memory), "loaded": loaded}), file=sys.stderr)
atexit.register(report)
"""
_CLASSIFY = _REPORT + """
from edge.cli import main
sys.argv = ["edge", "run", "-m", "model.edge", "picture.png"]
main()
"""
_IMPORT_NUMBA = _REPORT + """
import numba
from edge.kernels.build import signature
signature()
from edge.cli import main
sys.argv = ["edge", "run", "-m", "model.edge", "picture.png"]
main()
"""


@dataclass(frozen=True)
class Start:
    """Runs of one way to start: seconds to the answer, bytes held, and which of the compilers were imported."""

    seconds: float
    memory_bytes: int
    loaded: tuple[str, ...]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        bundled = Path(folder)
        host = _unpack(bundled / "host", "host")
        rows = [
            ("ahead of time", _start(host, _CLASSIFY, EDGE_KERNELS="kernels.so")),
            ("Numba's, cached", _start(host, _CLASSIFY)),
            ("Numba imported", _start(host, _IMPORT_NUMBA)),
        ]
        emulated = _emulated(bundled)
        installed = _installed(host)
    text = _page(rows, emulated, installed)
    print(text)
    RESULT.write_text(text, "utf-8")
    return _judge(rows[0][1], sum(installed.values()))


# -- running -------------------------------------------------------------------------------------------------------------------


def _unpack(folder: Path, target: str) -> Path:
    """The bundle of the example for a target as files, its Python compiled."""
    for name, content in contents(MODEL, name="digits", title=target, target=target, picture=PICTURE).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder / "edge")], check=True)
    return folder


def _start(folder: Path, code: str, **environment: str) -> Start:
    """The command line in a folder of a bundle, with its own edge alone."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "EDGE_CACHE", "XDG_CACHE_HOME") if name in os.environ}
    # The packages of this interpreter without its .pth files, which would put this repository before the bundle.
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    command = [sys.executable, "-S", "-c", code]
    environment |= {**inherited, "PYTHONPATH": os.pathsep.join([str(folder), packages])}
    return _repeat(lambda: subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True), RUNS)


def _repeat(run: Callable[[], subprocess.CompletedProcess[str]], runs: int) -> Start:
    seconds, said = [], {}
    for _ in range(runs + 1):  # the first one warms the file cache, and compiles what Numba has to
        started = time.perf_counter()
        done = run()
        seconds.append(time.perf_counter() - started)
        if done.returncode or "picture.png" not in done.stdout:
            raise SystemExit(f"the example gave no answer: {done.stdout}{done.stderr}")
        said = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("{")))  # the emulator may have its say too
    return Start(statistics.median(seconds[1:]), said["memory"], tuple(said["loaded"]))


def _emulated(folder: Path) -> list[tuple[str, Start]]:
    """The same in a Raspberry Pi user space, where there is one."""
    root = os.environ.get("EDGE_PI_ROOT")
    if not root:
        return []
    board = _unpack(folder / "board", "raspberry-pi-4")

    # The bundle's folder is /work there, and on the path.
    command = [str(PI / "pi_run.sh"), root, CORE, str(board), "env", "EDGE_KERNELS=/work/kernels.so", "python3", "-c", _CLASSIFY]
    start = _repeat(lambda: subprocess.run(command, capture_output=True, text=True), EMULATED_RUNS)
    return [("ahead of time", start)]


# -- sizes ---------------------------------------------------------------------------------------------------------------------


def _installed(bundle: Path) -> dict[str, int]:
    """Bytes on a device beside Python, numpy, pillow and the model, by part."""
    return {
        "edge, with its compiled Python": _size(path for path in (bundle / "edge").rglob("*") if path.is_file()),
        "kernels of the model": (bundle / "kernels.so").stat().st_size,
        "click": _package("click"),
    }


def _package(name: str) -> int:
    """Bytes of an installed distribution."""
    return _size(Path(str(file.locate())) for file in metadata.distribution(name).files or ())


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


# -- the page ------------------------------------------------------------------------------------------------------------------


def _page(rows: list[tuple[str, Start]], emulated: list[tuple[str, Start]], installed: Mapping[str, int]) -> str:
    compilers = {name: _package(name) for name in ("numba", "llvmlite")}
    return "\n".join(
        [
            "# What a device needs, and how soon it answers",
            "",
            "Made by `make bench-device`: the example (`digits.edge`) by `edge run`, from the start of Python to the printed answer.",
            f"{platform.machine()}, Python {platform.python_version()}, numpy {metadata.version('numpy')}, "
            f"numba {metadata.version('numba')}, llvmlite {metadata.version('llvmlite')}.",
            "",
            "| kernels | measured | start to answer | most memory held | imports |",
            "|---|---|---:|---:|---|",
            *(_row(name, f"here, median of {RUNS}", start) for name, start in rows),
            *(_row(name, f"emulated {CORE}, median of {EMULATED_RUNS}", start, emulated=True) for name, start in emulated),
            "",
            "Emulated times are those of an emulator, not of a board; memory there is the emulator's too, and left out.",
            "",
            "| beside Python, numpy and pillow | MB |",
            "|---|---:|",
            *(f"| {name} | {nbytes / MB:.2f} |" for name, nbytes in installed.items()),
            f"| **together** | **{sum(installed.values()) / MB:.2f}** |",
            f"| more with Numba: numba {compilers['numba'] / MB:.0f} MB, llvmlite {compilers['llvmlite'] / MB:.0f} MB "
            f"| {sum(compilers.values()) / MB:.0f} |",
            "",
        ]
    )


def _row(name: str, where: str, start: Start, *, emulated: bool = False) -> str:
    memory = "-" if emulated else f"{start.memory_bytes / MB:.0f} MB"
    return f"| {name} | {where} | {start.seconds:.2f} s | {memory} | {', '.join(start.loaded) or 'neither'} |"


def _judge(start: Start, installed_bytes: int) -> int:
    """The exit code: 1 where a limit is passed."""
    passed = {
        f"{installed_bytes / MB:.1f} MB to install, at most {MOST_INSTALLED}": installed_bytes / MB <= MOST_INSTALLED,
        f"{start.seconds:.2f} s to the first answer, at most {MOST_START}": start.seconds <= MOST_START,
        f"{start.memory_bytes / MB:.0f} MB held, at most {MOST_MEMORY:.0f}": start.memory_bytes / MB <= MOST_MEMORY,
    }
    for statement, held in passed.items():
        print(f"{'ok' if held else 'MISSED'} {statement}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
