"""Train every network of the results table that is not trained yet, and write the table: `make results`.

    python benchmarks/train_results.py                              # data by name through Keras, runs in runs/
    python benchmarks/train_results.py --data FOLDER --lanes 2      # FOLDER/mnist.npz, fashion_mnist.npz, cifar10.npz
    python benchmarks/train_results.py --recipes lenet mlp-base     # these first and alone
    python benchmarks/train_results.py --seeds 0 1 2                # each three times, for mean and spread
    python benchmarks/train_results.py --mixed-precision            # in bfloat16, where the processor has it
    python benchmarks/train_results.py --widths                     # wider nets of signs, until they reach what was described

Whatever was cut off goes on from its checkpoint; what failed is tried again at the end; what has another recipe now is trained anew.
The table is written after each run; the exit code is 1 while a row is absent, with `--widths` while a question is open.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue

from accuracy_rows import RUNS, absent, is_whole
from accuracy_table import write_tables
from wider_networks import PRECISION, answer, answers, unanswered

from edge.errors import InputError
from edge.recipes import RECIPES, TABLE
from edge.train import RESULT, Settings, decisive, settings_for
from edge.train_folder import check

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
REPLACED = "replaced"  # the folder of runs whose recipe has changed since
WRITING = threading.Lock()  # one table at a time


@dataclass(frozen=True)
class Job:
    """The runs of one recipe, one after the other: those of 1 bit learn from the float one."""

    recipe: str
    precisions: tuple[str, ...]
    seed: int = 0
    mixed_precision: bool = False

    def missing(self, runs: Path) -> Iterator[Settings]:
        """The runs that are not finished."""
        for precision in self.precisions:
            settings = settings_for(self.recipe, precision=precision, seed=self.seed, mixed_precision=self.mixed_precision)
            if not is_finished(runs / settings.name):
                yield settings


def is_finished(folder: Path) -> bool:
    """Whether a run ended, trained as its recipe says now."""
    result = folder / RESULT
    return result.exists() and is_whole(json.loads(result.read_text(encoding="utf-8")))


def holds_another(folder: Path, settings: Settings) -> bool:
    """Whether the folder holds a run that these settings, or the recipe as it is now, do not go on with."""
    try:
        check(folder, decisive(settings, how=RECIPES[settings.recipe].how(settings.precision)), resume=True)
    except InputError:
        return True
    return False


@dataclass(frozen=True)
class WidthJob:
    """The runs of one recipe with signs, wider each time, up to one that reaches the float figure described."""

    recipe: str
    mixed_precision: bool = False

    def missing(self, runs: Path) -> Iterator[Settings]:
        """What is to be trained next, as long as that gets finished."""
        tried: set[float] = set()
        while (width := self._untried(runs)) is not None and width not in tried:
            tried.add(width)
            yield settings_for(self.recipe, precision=PRECISION, width=width, mixed_precision=self.mixed_precision)

    def _untried(self, runs: Path) -> float | None:
        results = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob(f"{self.recipe}-{PRECISION}*/{RESULT}")]
        found = answer(results, self.recipe)
        return found.untried if found else None


def jobs(recipes: Sequence[str], precisions: Sequence[str], seeds: Sequence[int] = (0,)) -> list[Job]:
    """All runs of these, in the order in which they are wanted."""
    passes = [(seed, group, part) for seed in seeds for group in GROUPS for part in BY_PRECISION]
    found = [
        Job(name, tuple(p for p in part if p in precisions), seed) for seed, group, part in passes for name in group if name in recipes
    ]
    return [job for job in found if job.precisions]


def width_jobs(recipes: Sequence[str]) -> list[WidthJob]:
    """One for each of these recipes that has a figure to reach."""
    asked = {each.recipe.name for each in answers([])}
    return [WidthJob(name) for group in GROUPS for name in group if name in recipes and name in asked]


def run(job: Job | WidthJob, runs: Path, data: Path | None) -> list[str]:
    """Train what is missing of a job; the names of the runs that failed."""
    failed = []
    for settings in job.missing(runs):
        code = train(settings, runs / settings.name, data)
        if code:
            failed.append(settings.name)
            print(f"{settings.name} failed with exit code {code}", flush=True)
        with WRITING:
            write_tables(runs)
    return failed


def train(settings: Settings, folder: Path, data: Path | None) -> int:
    """One run in a process of its own; its exit code. What is there of a recipe that has changed since is kept, in another folder."""
    if holds_another(folder, settings):
        former = folder.parent / REPLACED / f"{folder.name}-{time.time_ns()}"
        former.parent.mkdir(exist_ok=True)
        folder.rename(former)
    command = [sys.executable, "-c", "from edge.cli import main; main()", "train", settings.recipe]
    command += ["--precision", settings.precision, "--seed", str(settings.seed), "--width", f"{settings.width:g}"]
    file = data / f"{RECIPES[settings.recipe].data}.npz" if data else None
    given = ["--data", str(file)] if file is not None and file.exists() else []
    given += ["--mixed-precision"] * settings.mixed_precision
    return subprocess.run([*command, *given, "--resume", "-o", str(folder)], check=False).returncode


def work(waiting: Queue[Job | WidthJob], runs: Path, data: Path | None, failed: list[str]) -> None:
    while True:
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        failed += run(job, runs, data)


def train_all(todo: Sequence[Job | WidthJob], runs: Path, data: Path | None, lanes: int) -> list[str]:
    """Run the jobs in their order, `lanes` at a time; the names of the runs that failed."""
    waiting: Queue[Job | WidthJob] = Queue()
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
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="each run is trained with each of these")
    parser.add_argument("--mixed-precision", action="store_true", help="train in bfloat16")
    parser.add_argument("--widths", action="store_true", help="answer how wide a net of signs must be, instead")
    given = parser.parse_args()
    wanted = width_jobs(given.recipes) if given.widths else jobs(given.recipes, given.precisions, given.seeds)
    todo = [replace(job, mixed_precision=given.mixed_precision) for job in wanted]
    for round_number in range(ROUNDS):
        failed = train_all(todo, given.runs, given.data, given.lanes)
        if not failed:
            break
        print(f"round {round_number + 1}: {', '.join(failed)} failed", flush=True)
        time.sleep(10)
    rows = write_tables(given.runs)
    missing = unanswered(rows) if given.widths else absent(rows)
    if missing:
        sys.exit(f"{'widths that are still needed' if given.widths else 'rows absent from the table'}: {', '.join(missing)}")


if __name__ == "__main__":
    main()
