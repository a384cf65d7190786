"""`edge train`: seeds, killed runs, stages, teachers, and what is written down."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge import train as training
from edge.cli import cli
from edge.cli_model import load_model
from edge.errors import EdgeError, InputError, MissingPackage
from edge.recipes import RECIPES, TABLE, Augment, Schedule, Schedules, recipe
from edge.train import Told, _teacher_folder, settings_for, train
from edge.train_fused import fused_norms
from edge.train_loop import Epoch, read_checkpoint

keras = pytest.importorskip("keras", reason="networks are trained by Keras")

CLASSES, SMALL = 10, 0.05
NAMES = [f"bar {number}" for number in range(CLASSES)]


class Killed(Exception):
    """Stands for whatever ends a process."""


def pictures(count: int, shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright bar at a height that tells the class: learnt in a few steps."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    x = random.integers(0, 60, (count, *shape))
    bar = shape[0] // CLASSES
    for picture, label in zip(x, y, strict=True):
        picture[label * bar : (label + 1) * bar] += 150
    return x.astype(np.uint8), y


def data_file(
    folder: Path, shape: tuple[int, int, int] = (28, 28, 1), count: int = 320, names: Sequence[str] = NAMES
) -> str:  # fmt: skip
    x_train, y_train = pictures(count, shape, 1)
    x_test, y_test = pictures(80, shape, 2)
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, names=names)
    return str(folder / "data.npz")


@pytest.fixture(autouse=True, scope="module")
def tiny_recipe() -> Iterator[None]:
    """A recipe with everything in it, for a small dense network: dropout, changed pictures, a teacher to begin as, two stages."""
    made = replace(
        RECIPES["mlp-base"],
        name="tiny",
        schedules=Schedules(
            Schedule(3, 1e-2), Schedule(3, 1e-2, teacher=0.5), Schedule(4, 1e-2, teacher=0.5, signs_first=2, from_teacher=True)
        ),
        batch=32,
        augment=Augment(shift=0.02, turn=0.01, zoom=0.02, noise=1.0),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "tiny", made)  # type: ignore[misc]
        yield


@pytest.fixture(scope="module")
def whole(tiny_recipe: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any], list[Epoch]]:
    """A run with signs that nothing cut off: its folder, the data, result and curve."""
    folder = tmp_path_factory.mktemp("whole")
    data = data_file(folder)
    return folder, data, *tiny("xnor", data, folder)


def tiny(precision: str, data: str, folder: Path, **options: Any) -> tuple[dict[str, Any], list[Epoch]]:
    """The result and the curve of a run of the tiny recipe."""
    told: Told = options.pop("told", Told())
    resume = options.pop("resume", False)
    settings = settings_for("tiny", precision=precision, width=SMALL, data=data, **options)
    result = train(settings, folder / settings.name, resume=resume, told=told)
    return result, read_checkpoint(folder / settings.name).curve


def without_times(curve: list[Epoch]) -> list[Epoch]:
    return [replace(row, seconds=0.0, cpu_seconds=0.0) for row in curve]


def killing_at(epoch: int) -> Told:
    """Ends the process in the middle of an epoch, from 0."""

    def batch(now: int, done: int, total: int) -> None:
        if now == epoch and done == total // 2:
            raise Killed

    return Told(batch=batch)


@pytest.mark.parametrize("killed_in", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_killed_run_resumes_to_the_same_curve(killed_in: int, whole: Any, tmp_path: Path) -> None:
    folder, data, uncut, expected = whole
    teacher = settings_for("tiny", width=SMALL).name
    shutil.copytree(folder / teacher, tmp_path / teacher)
    with pytest.raises(Killed):
        tiny("xnor", data, tmp_path, told=killing_at(killed_in))
    result, curve = tiny("xnor", data, tmp_path, resume=True)
    assert without_times(curve) == without_times(expected) and len(curve) == 4
    assert [row.stage for row in curve] == ["signs", "signs", "", ""]
    models = [keras.models.load_model(side / result["run"] / "model.keras", compile=False) for side in (folder, tmp_path)]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert result["files"]["xnor"]["score"] == uncut["files"]["xnor"]["score"]


def test_a_seed_reproduces_and_another_does_not(tmp_path: Path) -> None:
    data = data_file(tmp_path)
    curves = [without_times(tiny("float", data, tmp_path / str(i), epochs=2, seed=seed)[1]) for i, seed in enumerate((3, 3, 4))]
    assert curves[0] == curves[1] != curves[2]


def test_the_result_is_that_of_the_converted_file(tmp_path: Path) -> None:
    data = data_file(tmp_path)
    result, curve = tiny("xnor-weights", data, tmp_path)
    folder = tmp_path / result["run"]
    file = result["files"]["xnor-weights"]
    model = keras.models.load_model(folder / "model.keras", compile=False)
    x, y = pictures(80, (28, 28, 1), 2)
    assert file["score"] == pytest.approx((model.predict(x, verbose=0).argmax(-1) == y).mean(), abs=0.02)
    assert file["bytes"] == (folder / file["file"]).stat().st_size and file["pictures"] == 80
    assert result["validation"] == max(row.validation for row in curve) and result["validation"] > 0.5
    assert (folder / "curve.csv").read_text().count("\n") == 1 + len(curve)
    assert json.loads((folder / "result.json").read_text()) == result
    assert list(load_model(folder / file["file"]).labels or ()) == NAMES
    assert result["command"].startswith("edge train tiny --precision xnor-weights --seed 0 --epochs 3 --width 0.05 --data data.npz")
    float_run = tmp_path / settings_for("tiny", width=SMALL).name
    assert set(json.loads((float_run / "result.json").read_text())["files"]) == {"float", "int8"}, "the teacher was trained first"


def test_a_finished_run_is_tested_again_without_its_result(tmp_path: Path) -> None:
    data = data_file(tmp_path)
    first, curve = tiny("float", data, tmp_path)
    (tmp_path / first["run"] / "result.json").unlink()
    second, again = tiny("float", data, tmp_path, resume=True)
    assert again == curve and second == first


def test_permuted_recipes_train_and_test_on_permuted_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], permuted=True))
    seen: list[np.ndarray] = []

    def watch(found: Callable[..., Any]) -> Callable[..., Any]:
        def run(learns: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(learns.train.x)
            return found(learns, *args, **kwargs)

        return run

    monkeypatch.setattr(training, "run", watch(training.run))
    result, _ = tiny("float", data_file(tmp_path), tmp_path)
    x, _ = pictures(320, (28, 28, 1), 1)
    order = np.random.default_rng(0).permutation(28 * 28)
    np.testing.assert_array_equal(seen[0].reshape(len(seen[0]), -1), x.reshape(320, -1)[: len(seen[0]), order])
    model = keras.models.load_model(tmp_path / result["run"] / "model.keras", compile=False)
    x, y = pictures(80, (28, 28, 1), 2)
    permuted = x.reshape(80, -1)[:, order].reshape(x.shape)
    assert (model.predict(permuted, verbose=0).argmax(-1) == y).mean() == result["files"]["float"]["score"]


def test_without_tensorboard_its_logs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="pip install tensorboard"):
        train(settings_for("tiny", width=SMALL, data=data_file(tmp_path)), tmp_path / "run", tensorboard=True)


def test_tensorboard_logs_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the logs are written by tensorboard")
    settings = settings_for("tiny", width=SMALL, epochs=1, data=data_file(tmp_path))
    train(settings, tmp_path / "run", tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").rglob("events*"))


NARROW = {"clock": 1 / 8, "alexnet": 1 / 16, "resnet-cifar100": 1 / 8}
SHAPES = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "clocks": (150, 150, 1), "flowers102": (227, 227, 3)}
QUICK = ("cnn-mnist",)


def slow(value: str) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize("precision", ["xnor", slow("xnor-k"), slow("dorefa-weights"), slow("dorefa-2")])
@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in RECIPES])
def test_an_epoch_of_every_recipe_trains_converts_and_runs(name: str, precision: str, tmp_path: Path) -> None:
    shape = SHAPES.get(recipe(name).data, (28, 28, 1))
    x_train, y_train = pictures(48, shape, 1)
    x_test, y_test = pictures(16, shape, 2)
    if recipe(name).data == "clocks":
        y_train, y_test = (np.stack([y, 5 * y], 1) for y in (y_train, y_test))
    np.savez(tmp_path / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    settings = settings_for(name, precision=precision, width=NARROW.get(name, 0.25), epochs=1, data=str(tmp_path / "data.npz"))
    result = train(settings, tmp_path / "run")
    file = result["files"][precision]
    assert file["pictures"] == 16 and 0 <= file["one_bit_share"] < 1 and np.isfinite(result["validation"])


# -- what is refused -----------------------------------------------------------------------------------------------------------


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    data = data_file(tmp_path)
    first = settings_for("tiny", width=SMALL, epochs=1, data=data)
    train(first, tmp_path / "run")
    with pytest.raises(InputError, match="holds this run already; go on with it by --resume"):
        train(first, tmp_path / "run")
    with pytest.raises(InputError, match="holds a run with seed 0, expected 1"):
        train(replace(first, seed=1), tmp_path / "run", resume=True)
    assert train(first, tmp_path / "run", resume=True)["run"] == first.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_train": np.arange(320)}, "tells 10 classes apart, from 0, but the labels of the train pictures go up to 319"),
        ({"y_test": np.full(80, 10)}, "labels of the test pictures go up to 10"),
        ({"y_test": np.zeros((80, 2), int)}, "go up to 0 and 0"),
        ({"x_train": np.zeros((4, 28, 28), np.uint8), "y_train": np.zeros(4, int)}, "needs 10 pictures or more, got 4"),
    ],
)
def test_data_that_the_network_cannot_learn_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = data_file(tmp_path, names=())
    with np.load(path) as file:
        np.savez(path, **{**file, **changes})
    for precision in ("float", "xnor"):  # which trains a teacher first
        with pytest.raises(InputError, match=said):
            tiny(precision, path, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["data.npz"]


def test_other_data_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    path = data_file(tmp_path)
    with pytest.raises(Killed):
        tiny("float", path, tmp_path, told=killing_at(1))
    with np.load(path) as file:
        np.savez(tmp_path / "other.npz", **{**file, "y_train": file["y_train"][::-1]})
    with pytest.raises(InputError, match=r"holds a run on other data, of sha256 [0-9a-f]{16}, expected [0-9a-f]{16}"):
        tiny("float", str(tmp_path / "other.npz"), tmp_path, resume=True)
    Path(path).rename(tmp_path / "moved.npz")  # the same data by another name are the same
    assert len(tiny("float", str(tmp_path / "moved.npz"), tmp_path, resume=True)[1]) == 3


def test_a_run_that_kept_less_of_itself_goes_on(tmp_path: Path) -> None:
    path = data_file(tmp_path)
    with pytest.raises(Killed):
        tiny("float", path, tmp_path, told=killing_at(1))
    (settings,) = tmp_path.glob("*/settings.json")
    kept = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: value for name, value in kept.items() if name != "data_sha256"}))
    tiny("float", path, tmp_path, resume=True)
    assert json.loads(settings.read_text()) == kept


@pytest.mark.parametrize(("settings", "said"), [("{", "is damaged: expected JSON"), ("[]", "is damaged: expected an object, got list")])
def test_damaged_settings_are_named(settings: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / settings_for("tiny", width=SMALL).name
    folder.mkdir()
    (folder / "settings.json").write_text(settings)
    with pytest.raises(InputError, match=said):
        tiny("float", "none.npz", tmp_path)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / settings_for("tiny", width=SMALL).name).write_text("mine")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        tiny("float", "none.npz", tmp_path)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = RECIPES["tiny"]
    fast = replace(made.schedules, floats=Schedule(3, 1e30, "sgd", warm_up=0.1))
    monkeypatch.setitem(RECIPES, "tiny", replace(made, schedules=fast))
    with pytest.raises(EdgeError, match="diverged: expected a finite loss, got nan"):
        tiny("float", data_file(tmp_path), tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    settings = settings_for("tiny", width=SMALL, epochs=2, data=data_file(tmp_path))
    with pytest.raises(Killed):
        train(settings, tmp_path / "run", told=killing_at(1))
    (tmp_path / "run" / "checkpoint.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"checkpoint\.npz is damaged"):
        train(settings, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lenet5"], "there is no recipe 'lenet5', expected one of lenet, digits8"),
        (["lenet5"], "; lenet or alexnet may be meant"),
        (["lenet", "--data", "none.npz"], "cannot read the data set none.npz"),
        (["lenet", "--precision", "half"], "'half' is not one of"),
        (["lenet", "--epochs", "0"], "0 is not in the range"),
        (["lenet", "--width", "0"], "0.0 is not in the range"),
        (["lenet", "--width", "nan"], "expected a finite number"),
        (["lenet", "--width", "1e9"], "is not in the range"),
        (["lenet", "--seed", str(2**32)], "is not in the range"),
        ([], "Missing argument 'RECIPE'"),
    ],
)
def test_wrong_arguments_are_answered_in_a_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["train", *arguments, *(["-o", str(tmp_path / "run")] if arguments else [])])
    assert result.exit_code in (1, 2) and said in result.output


def test_the_recipes_are_listed() -> None:
    result = CliRunner().invoke(cli, ["train", "--list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in RECIPES)


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    monkeypatch.setattr(keras.layers.Dense, "call", recording(keras.layers.Dense.call, computed))
    data = data_file(tmp_path)
    result, _ = tiny("float", data, tmp_path, mixed_precision=True)
    assert "bfloat16" in computed and "float32" in computed  # steps, and what is validated
    model = keras.models.load_model(tmp_path / result["run"] / "model.keras", compile=False)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert {str(variable.dtype) for variable in model.weights} == {"float32"}
    assert result["command"].endswith("--mixed-precision") and result["files"]["float"]["score"] > 0.9
    with pytest.raises(InputError, match="mixed_precision True, expected False"):
        tiny("float", data, tmp_path, resume=True)


@pytest.mark.slow
def test_signs_are_trained_in_bfloat16_with_fused_norms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    monkeypatch.setattr("edge.train_loop.fused_norms", lambda *networks: _noting(fused_norms(*networks), networks[0], seen))
    result, _ = tiny("xnor", data_file(tmp_path), tmp_path, mixed_precision=True)
    assert seen == {"Fused"} and result["files"]["xnor"]["score"] > 0.8


@contextmanager
def _noting(swapped: AbstractContextManager[None], network: Any, seen: set[str]) -> Iterator[None]:
    with swapped:
        seen |= {type(layer).__name__ for layer in network.layers if hasattr(layer, "moving_mean")}
        yield


def test_a_run_at_full_length_has_a_teacher_at_full_length() -> None:
    for name in TABLE:
        for precision in ("xnor", "xnor-weights"):
            theirs, _ = _teacher_folder(Path("runs/mine"), settings_for(name, precision=precision))
            assert theirs.epochs == RECIPES[name].schedule("float").epochs
    theirs, _ = _teacher_folder(Path("runs/mine"), settings_for("lenet", precision="xnor", epochs=2))
    assert theirs.epochs == 2


def recording(call: Callable[..., Any], computed: list[str]) -> Callable[..., Any]:
    """The method, which also writes down the type it computes in."""

    @functools.wraps(call)  # Keras reads the signature
    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(self.compute_dtype)
        return call(self, *args, **kwargs)

    return recorded
