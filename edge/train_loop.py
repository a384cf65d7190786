"""The epochs of a training: shuffled batches, validation, a curve, and a checkpoint after each epoch that a kill leaves whole.

Order, dropout and changes of pictures follow from seed and epoch, so that a training that is killed and resumed ends as one that is not.
"""

from __future__ import annotations

import csv
import io
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.datasets import Part
from edge.errors import EdgeError, InputError
from edge.files import write_atomically
from edge.recipes import Recipe, Schedule
from edge.train_fused import fused_norms
from edge.train_pupil import float_weights, half_precision, logits_of, pupil, reseed
from edge.train_scores import measure_for
from edge.train_turned import turn_up_to
from edge.zoo_writer import Model

CHECKPOINT, CURVE = "checkpoint.npz", "curve.csv"
_VALIDATION_BATCH = 500

Batch = Callable[[int, int, int], None]
"""Told of the epoch and of how many of its batches are done."""


@dataclass(frozen=True)
class Epoch:
    """One row of a curve. stage: "signs" where weights were still floats, else "". validation: the score of the pictures held back."""

    epoch: int
    stage: str
    rate: float
    loss: float
    validation: float
    seconds: float
    cpu_seconds: float


@dataclass
class State:
    """Where a training is: epochs done, the best validation so far with its weights, and what has to go on from."""

    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best: list[NDArray[Any]] = field(default_factory=list)
    weights: list[NDArray[Any]] = field(default_factory=list)
    optimizer: list[NDArray[Any]] = field(default_factory=list)

    @property
    def best_validation(self) -> float | None:
        return self.curve[self.best_epoch - 1].validation if self.best_epoch else None


@dataclass(frozen=True)
class Training:
    """A network and all that decides how it is trained.

    train, held_back: pictures that it learns from, and that choose the epoch. settle: what is done to the network behind each epoch,
    before it is validated. mixed_precision: steps compute in bfloat16; what is validated, and kept, computes in float32.
    """

    network: Model
    recipe: Recipe
    schedule: Schedule
    train: Part
    held_back: Part
    seed: int
    teacher: Model | None = None
    settle: Callable[[Model], None] | None = None
    mixed_precision: bool = False

    @property
    def steps(self) -> int:
        """Batches an epoch; pictures that fill no batch wait for the next epoch's order."""
        return max(len(self.train) // self.recipe.batch, 1)

    def reach(self, epoch: int) -> float:
        """How far pictures are turned in an epoch, from 0, as a share of the furthest."""
        grown_after = self.recipe.turning * self.schedule.epochs
        return min(1.0, (epoch + 0.5) / grown_after) if grown_after else 0.0


def run(training: Training, folder: Path, *, told: Callable[[Epoch], None], batch: Batch, callbacks: Any = None) -> State:
    """Train, or go on from the checkpoint in `folder`; leaves the best epoch's weights in the network."""
    state = read_checkpoint(folder)
    for first, last, stage in _stages(training.schedule):
        if len(state.curve) < last:
            with float_weights(training.network) if stage else nullcontext():
                _stage(training, state, folder, (first, last, stage), told, batch, callbacks)
    training.network.set_weights(state.best)
    return state


def _stages(schedule: Schedule) -> list[tuple[int, int, str]]:
    """First and last epoch, from 0, of each stage, and its name."""
    parts = [(0, schedule.signs_first, "signs"), (schedule.signs_first, schedule.epochs, "")]
    return [part for part in parts if part[0] < part[1]]


def _stage(
    training: Training, state: State, folder: Path, part: tuple[int, int, str], told: Callable[[Epoch], None], batch: Batch, callbacks: Any
) -> None:
    first, last, stage = part
    model = pupil(
        training.network, training.recipe, training.schedule, training.steps, epochs=last - first, teacher=training.teacher
    )  # fmt: skip
    if state.weights:
        training.network.set_weights(state.weights)
    if len(state.curve) > first:
        model.optimizer.build(model.trainable_variables)
        for variable, value in zip(model.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
    elif first:
        state.best_epoch, state.best = 0, []  # what was best had float weights
    if callbacks is not None:
        callbacks.set_model(model)
    validate = logits_of(training.network)
    for epoch in range(len(state.curve), last):
        row = _epoch(training, model, validate, epoch, stage, batch)
        _record(state, row, training, model)
        write_checkpoint(state, folder)
        told(row)
        if callbacks is not None:
            callbacks.on_epoch_end(epoch, {"loss": row.loss, "val_score": row.validation, "learning_rate": row.rate})


def _epoch(training: Training, model: Model, validate: Model, epoch: int, stage: str, batch: Batch) -> Epoch:
    reseed(model, training.seed, epoch)
    turn_up_to(model, training.reach(epoch))
    order = np.random.default_rng((training.seed, epoch, 0)).permutation(len(training.train))
    rate, started, cpu, total = float(model.optimizer.learning_rate), time.monotonic(), time.process_time(), 0.0
    size = training.recipe.batch
    networks = training.network, training.teacher
    with fused_norms(*networks), half_precision(*networks) if training.mixed_precision else nullcontext():
        for step in range(training.steps):
            rows = order[step * size : (step + 1) * size]
            model.reset_metrics()
            total += model.train_on_batch(training.train.x[rows], _targets(training.train.y[rows]), return_dict=True)["loss"]
            batch(epoch, step + 1, training.steps)
    if not np.isfinite(total):
        raise EdgeError(f"the training diverged: expected a finite loss, got {total} in epoch {epoch + 1}; start anew with another --seed")
    if training.settle is not None:
        training.settle(training.network)
    outputs = validate.predict(training.held_back.x, batch_size=_VALIDATION_BATCH, verbose=0)
    found = measure_for(training.held_back.y).of(outputs if isinstance(outputs, list) else [outputs], training.held_back.y)
    return Epoch(epoch + 1, stage, rate, float(total) / training.steps, found, time.monotonic() - started, time.process_time() - cpu)


def _targets(y: NDArray[np.int64]) -> Any:
    return y if y.ndim == 1 else list(y.T)


def _record(state: State, row: Epoch, training: Training, model: Model) -> None:
    state.weights = training.network.get_weights()
    state.optimizer = [np.asarray(variable) for variable in model.optimizer.variables]
    if state.best_validation is None or measure_for(training.held_back.y).is_better(row.validation, state.best_validation):
        state.best_epoch, state.best = row.epoch, state.weights
    state.curve.append(row)


# -- files ---------------------------------------------------------------------------------------------------------------------


def write_checkpoint(state: State, folder: Path) -> None:
    """The whole state in one file, there as it was before or as it is now, and the curve beside it."""
    arrays = {f"{name}_{i}": value for name in _LISTS for i, value in enumerate(getattr(state, name))}
    facts = {"curve": [asdict(row) for row in state.curve], "best_epoch": state.best_epoch}
    content = io.BytesIO()
    np.savez(content, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    write_atomically(folder / CHECKPOINT, [content.getbuffer()])
    write_atomically(folder / CURVE, [curve_text(state.curve).encode()])


_LISTS = ("weights", "optimizer", "best")


def read_checkpoint(folder: Path) -> State:
    """The state in `folder`, a new one where there is none. Raises InputError for a damaged file."""
    path = folder / CHECKPOINT
    if not path.exists():
        return State()
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            facts = json.loads(file["facts"].tobytes())
            counts = {name: sum(key.startswith(f"{name}_") for key in file.files) for name in _LISTS}
            lists = {name: [file[f"{name}_{i}"] for i in range(count)] for name, count in counts.items()}
            return State(curve=[Epoch(**row) for row in facts["curve"]], best_epoch=facts["best_epoch"], **lists)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as err:
        raise InputError(f"the checkpoint {path} is damaged: {err}; remove it to train from the start") from err


def curve_text(curve: list[Epoch]) -> str:
    """The curve as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Epoch.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    for row in curve:
        values = asdict(row)
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()})
    return text.getvalue()
