"""`edge train`: a recipe's network trained, converted, and the converted file run on the whole test set.

    result = train("lenet", precision="xnor", folder=Path("runs/lenet-xnor"))

A run's folder holds its settings, checkpoint, curve, `model.keras`, the converted files, and last of all `result.json`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.datasets import Dataset, load
from edge.errors import InputError, MissingPackage
from edge.files import write_atomically
from edge.recipes import PRECISIONS, Recipe, recipe
from edge.train_folder import RESULT, check, claim, read_json
from edge.train_loop import Batch, Epoch, State, Training, run
from edge.train_pupil import begin_as
from edge.train_result import convert_and_test
from edge.zoo import build
from edge.zoo_writer import Model, keras_package, save

LEAST_PICTURES = 10
MODEL = "model.keras"
TEACHER = "the float net, without dropout"  # results without it: the same with its dropout on


@dataclass(frozen=True)
class Settings:
    """What decides a run; a run is resumed only with the same."""

    recipe: str
    precision: str
    width: float
    seed: int
    epochs: int
    data: str | None = None
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"nets are trained at one of the precisions {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.epochs < 1:
            raise InputError(f"a training has 1 epoch or more, got {self.epochs}")

    @property
    def name(self) -> str:
        """Of the run's folder."""
        width = "" if self.width == 1 else f"-x{self.width:g}"
        return f"{self.recipe}-{self.precision}{width}{f'-seed{self.seed}' if self.seed else ''}"

    @property
    def command(self) -> str:
        """That reproduces the run; of a path of data the name alone."""
        parts = [f"edge train {self.recipe} --precision {self.precision} --seed {self.seed} --epochs {self.epochs}"]
        parts += [f"--width {self.width:g}"] * (self.width != 1) + [f"--data {Path(self.data or '').name}"] * (self.data is not None)
        return " ".join(parts + ["--mixed-precision"] * self.mixed_precision)


@dataclass(frozen=True)
class Told:
    """Who is told how it goes: say takes sentences; epoch each finished one of a run; batch how far the epoch is."""

    say: Callable[[str], None] = lambda text: None
    epoch: Callable[[Settings, Epoch], None] = lambda settings, row: None
    batch: Batch = lambda epoch, done, total: None


def settings_for(
    name: str, *, precision: str = "float", width: float = 1.0, seed: int = 0, epochs: int | None = None, data: str | None = None,
    mixed_precision: bool = False,
) -> Settings:  # fmt: skip
    """The settings of a run; without `epochs` those of the recipe."""
    if epochs is None:
        epochs = recipe(name).schedule(precision).epochs
    return Settings(name, precision, width, seed, epochs, data, mixed_precision)


def train(settings: Settings, folder: Path, *, resume: bool = False, told: Told | None = None, tensorboard: bool = False) -> dict[str, Any]:
    """Train in `folder`, or with `resume` go on where a run with the same settings was cut off; the content of its `result.json`.

    Weights of 1 bit learn from the float net of the same recipe, which stands in the folder beside this one, or is trained there first.
    Raises `EdgeError` for settings and data that do not fit, and where the folder holds another run.
    """
    told = told or Told()
    made = recipe(settings.recipe)
    schedule = made.schedule(settings.precision)
    board = _tensorboard(folder) if tensorboard else None
    how = made.how(settings.precision)
    if (done := finished(settings, folder, resume=resume, how=how)) is not None:
        told.say(f"{folder} is done already")
        return done
    if schedule.teacher:
        _teach(settings, folder, told)
    network = _new_network(made, settings)
    data = _data(made, settings, network, told)
    claim(folder, decisive(settings, data, how), resume=resume)
    teacher = _teacher(settings, folder) if schedule.teacher else None
    if schedule.from_teacher:
        begin_as(teacher, network)
    part = max(min(made.held_back, len(data.train) // 5), 1)
    scaled = replace(schedule, epochs=settings.epochs, signs_first=round(schedule.signs_first * settings.epochs / schedule.epochs))
    training = Training(
        network, made, scaled, data.train[:-part], data.train[-part:], settings.seed, teacher, mixed_precision=settings.mixed_precision
    )
    state = run(training, folder, told=lambda row: told.epoch(settings, row), batch=told.batch, callbacks=board)
    save(network, folder / MODEL)
    names = data.names if network.output_shape[1:] == (len(data.names),) else ()  # a folder may have fewer classes
    # Pictures that only the training turns do not look as those in use; those held back do.
    usual = training.held_back if made.turning else training.train
    found = convert_and_test(folder, settings.precision, data, usual, names)
    taught = {"teacher": TEACHER} if teacher is not None else {}
    result = {**facts(settings, made.network, data, permuted=made.permuted), **training_facts(state), "how": how, **taught, **found}
    write_atomically(folder / RESULT, [json.dumps(result, indent=2).encode()])
    return result


def decisive(settings: Settings, data: Dataset | None = None, how: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a run is resumed only with: all settings but the name of the data; what these are, once known; how its recipe trains."""
    known = {name: value for name, value in vars(settings).items() if name != "data"}
    return known | ({} if data is None else {"data_sha256": data.digest()}) | ({} if how is None else {"how": dict(how)})


def finished(settings: Settings, folder: Path, *, resume: bool, how: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The result in the folder of a run that has ended; None for others. Raises `InputError` where the folder holds another run."""
    check(folder, decisive(settings, how=how), resume=resume)
    return read_json(folder / RESULT) if (folder / RESULT).exists() else None


# -- networks and data ---------------------------------------------------------------------------------------------------------


def _new_network(made: Recipe, settings: Settings) -> Model:
    keras_package().utils.set_random_seed(settings.seed)
    return build(made.network, settings.precision, width=settings.width)


def _data(made: Recipe, settings: Settings, network: Model, told: Told) -> Dataset:
    data = load(made.data, path=settings.data, shape=tuple(network.input_shape[1:]), say=told.say)
    _check(data, network)
    return data.permuted() if made.permuted else data


def _check(data: Dataset, network: Model) -> None:
    """Refuse labels that the network has no answer for, and too few pictures to hold some back."""
    classes = [shape[-1] for shape in (network.output_shape if isinstance(network.output_shape, list) else [network.output_shape])]
    for part, pictures in (("train", data.train), ("test", data.test)):
        columns = pictures.y.reshape(len(pictures), -1)
        if columns.shape[1] != len(classes) or (columns.max(axis=0) >= classes).any():
            raise InputError(
                f"the network tells {' and '.join(map(str, classes))} classes apart, from 0, but the labels of the {part} pictures "
                f"go up to {' and '.join(map(str, columns.max(axis=0)))}; give data of as many classes"
            )
    if len(data.train) < LEAST_PICTURES:
        raise InputError(f"a training needs {LEAST_PICTURES} pictures or more, got {len(data.train)}; give more")


def _teacher_folder(folder: Path, settings: Settings) -> tuple[Settings, Path]:
    made = recipe(settings.recipe)
    whole = made.schedule("float").epochs
    is_try = settings.epochs < made.schedule(settings.precision).epochs
    theirs = replace(settings, precision="float", epochs=min(whole, settings.epochs) if is_try else whole)  # a try has a short teacher
    return theirs, folder.parent / theirs.name


def _teach(settings: Settings, folder: Path, told: Told) -> None:
    theirs, beside = _teacher_folder(folder, settings)
    if (beside / RESULT).exists():
        return
    told.say(f"training the float net first, in {beside}")
    train(theirs, beside, resume=True, told=told)


def _teacher(settings: Settings, folder: Path) -> Model:
    return keras_package().models.load_model(_teacher_folder(folder, settings)[1] / MODEL, compile=False)


def _tensorboard(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingPackage("logs for TensorBoard need tensorboard, which is not installed; pip install tensorboard, or leave them out")
    return keras_package().callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)


# -- what is written down ------------------------------------------------------------------------------------------------------


def facts(settings: Settings, network: str, data: Dataset, *, permuted: bool = False) -> dict[str, Any]:
    """What a run was, and where it ran."""
    from edge.bench_machine import processor_name, versions

    return {
        "run": settings.name,
        "recipe": settings.recipe,
        "network": network,
        "data": data.name,
        "data_sha256": data.digest(),
        "permuted": permuted,
        "precision": settings.precision,
        "width": settings.width,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "command": settings.command,
        "hardware": {"processor": processor_name(), "machine": platform.machine(), "threads": _threads()},
        "versions": versions(),
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _threads() -> int:
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or len(os.sched_getaffinity(0))


def training_facts(state: State) -> dict[str, Any]:
    """What came of the epochs."""
    return {
        "best_epoch": state.best_epoch,
        "validation": state.best_validation,
        "training_s": round(sum(row.seconds for row in state.curve), 1),
        "training_cpu_s": round(sum(row.cpu_seconds for row in state.curve), 1),
    }
