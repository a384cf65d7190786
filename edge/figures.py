"""What a deployed model does on the machine it is on: the known answer, times, memory, and the state of the machine.

    python -m edge.figures FOLDER [SECONDS]     the folder is a bundle; prints one line of JSON, and exits with 1 if the answer differs
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench_machine import clock_now, clock_remarks, processor_name, versions
from edge.bench_rounds import Contender, take_turns
from edge.cli_model import load_model
from edge.errors import EdgeError
from edge.known_answer import check, read_answer

_LEAST_ROUNDS = 10


def figures(folder: Path, *, seconds: float = 1.0) -> dict[str, Any]:
    """Check the known answer, then run inferences for about so many seconds on one thread.

    Times are in seconds, `start_s` from the start of this process to the checked answer (None where the system does not tell).
    Raises `EdgeError` where the answer is another one.
    """
    answer = check(folder)
    start_s = _since_start()
    before = clock_now()
    model = load_model(folder / read_answer(folder).model)
    latencies = _latencies(model, seconds)
    after = clock_now()
    p50, p95, p99 = (float(value) for value in np.quantile(latencies, (0.5, 0.95, 0.99)))
    return {
        "answer": answer,
        "start_s": start_s,
        "p50_s": p50,
        "p95_s": p95,
        "p99_s": p99,
        "inferences": len(latencies),
        "threads": 1,
        "backend": model.backend,
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": processor_name(),
        "versions": versions(),
        "clock": after.to_json(),
        "remarks": list(clock_remarks(before, after)),
    }


def _latencies(model: Any, seconds: float) -> list[float]:
    """Seconds of single inferences of noise, in rounds."""
    info = model.input
    x = np.random.default_rng(0).integers(0, 256, info.shape).astype(info.dtype)
    contender = Contender(lambda: model.runner.run(x), each=True)
    take_turns({"edge": contender}, seconds=seconds, least=_LEAST_ROUNDS)
    return contender.latencies_s


def _since_start() -> float | None:
    """Seconds since this process began, to a hundredth."""
    try:
        ticks = int(Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str]) -> int:
    """The exit code of `python -m edge.figures FOLDER [SECONDS]`."""
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m edge.figures FOLDER [SECONDS]", file=sys.stderr)
        return 2
    try:
        print(json.dumps(figures(Path(arguments[0]), **({"seconds": float(arguments[1])} if arguments[1:] else {}))))
    except EdgeError as err:
        print(f"edge: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
