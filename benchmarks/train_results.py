"""Train every network of the results table that is not trained yet, and write the table: `make results`.

    python benchmarks/train_results.py                              # data by name through Keras, runs in runs/
    python benchmarks/train_results.py --data FOLDER --lanes 2      # FOLDER/mnist.npz, fashion_mnist.npz, cifar10.npz
    python benchmarks/train_results.py --recipes lenet mlp-base     # these first and alone

Whatever was cut off goes on from its checkpoint; what failed is tried again at the end. The table is written after each run; the exit code
is 1 while a row is absent.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from accuracy_table import RUNS, absent, write_tables

from edge.recipes import RECIPES, TABLE
from edge.train import settings_for
from edge.train_result import RESULT

# MNIST, Fashion-MNIST, the clock, then colour pictures.
GROUPS = (
    ("lenet", "cnn-mnist", "mlp-base", "digits8", "cnn-base", "mlp-digits", "mlp-base-permuted", "mlp-digits-permuted", "cnn-digits"),
    ("mlp-base-fashion", "mlp-fashion", "mlp-base-fashion-permuted", "mlp-fashion-permuted", "cnn-base-fashion", "cnn-fashion"),
    ("clock",),
    ("resnet-2-shortcuts", "resnet-2"),
    ("cnn-cifar10", "cnn-digits-permuted", "cnn-fashion-permuted"),
    ("resnet-5-shortcuts", "resnet-5"),
)
# Of each group these first: the float nets teach the others.
BY_PRECISION = (("float", "xnor", "xnor-weights"), ("dorefa-weights", "xnor-k"))
PRECISIONS = tuple(name for part in BY_PRECISION for name in part)
ROUNDS = 3
WRITING = threading.Lock()  # one table at a time


@dataclass(frozen=True)
class Job:
    """The runs of one recipe, one after the other: those of 1 bit learn from the float one."""

    recipe: str
    precisions: tuple[str, ...]
    seed: int = 0


def jobs(recipes: Sequence[str], precisions: Sequence[str]) -> list[Job]:
    """All runs of these, in the order in which they are wanted."""
    passes = [(group, part) for group in GROUPS for part in BY_PRECISION]
    found = [Job(name, tuple(p for p in part if p in precisions)) for group, part in passes for name in group if name in recipes]
    return [job for job in found if job.precisions]


def run(job: Job, runs: Path, data: Path | None) -> list[str]:
    """Train what is missing of a job; the names of the runs that failed."""
    failed = []
    for precision in job.precisions:
        settings = settings_for(job.recipe, precision=precision, seed=job.seed)
        folder = runs / settings.name
        if (folder / RESULT).exists():
            continue
        command = [sys.executable, "-c", "from edge.cli import main; main()", "train", job.recipe]
        command += ["--precision", precision, "--seed", str(job.seed)]
        file = data / f"{RECIPES[job.recipe].data}.npz" if data else None
        given = ["--data", str(file)] if file is not None and file.exists() else []
        done = subprocess.run([*command, *given, "--resume", "-o", str(folder)], check=False)
        if done.returncode:
            failed.append(settings.name)
            print(f"{settings.name} failed with exit code {done.returncode}", flush=True)
        with WRITING:
            write_tables(runs)
    return failed


def work(waiting: Queue[Job], runs: Path, data: Path | None, failed: list[str]) -> None:
    while True:
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        failed += run(job, runs, data)


def train_all(todo: Sequence[Job], runs: Path, data: Path | None, lanes: int) -> list[str]:
    """Run the jobs in their order, `lanes` at a time; the names of the runs that failed."""
    waiting: Queue[Job] = Queue()
    for job in todo:
        waiting.put(job)
    failed: list[str] = []
    threads = [threading.Thread(target=work, args=(waiting, runs, data, failed)) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Train what is missing of the results table, and write it.")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs are kept")
    parser.add_argument("--data", type=Path, help="a folder with NAME.npz for the data sets that should not be fetched")
    parser.add_argument("--lanes", type=int, default=1, help="how many runs at a time")
    parser.add_argument("--recipes", nargs="+", choices=TABLE, default=list(TABLE))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    given = parser.parse_args()
    todo = jobs(given.recipes, given.precisions)
    for round_number in range(ROUNDS):
        failed = train_all(todo, given.runs, given.data, given.lanes)
        if not failed:
            break
        print(f"round {round_number + 1}: {', '.join(failed)} failed", flush=True)
        time.sleep(10)
    missing = absent(write_tables(given.runs))
    if missing:
        sys.exit(f"rows absent from the table: {', '.join(missing)}")


if __name__ == "__main__":
    main()
