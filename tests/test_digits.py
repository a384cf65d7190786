"""The shipped example: what `digits.h5` promises, that its pictures come from the script, and that training resumes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MNIST = EXAMPLES.parent.parent / "shared" / "data" / "mnist.npz"
DIGITS = EXAMPLES / "digits.h5"
OUTPUT_PIXELS = {"conv1": 28 * 28, "conv2": 14 * 14, "conv3": 7 * 7, "dense1": 1, "logits": 1}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """Every array of digits.h5 as "layer/variable"."""
    found: dict[str, np.ndarray] = {}

    def visit(path: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            found["/".join([path.split("/")[0], path.split("/")[-1]])] = entry[()]

    with h5py.File(DIGITS) as file:
        file["model_weights"].visititems(visit)
    return found


# The network


@pytest.mark.parametrize(("name", "step"), [("conv1/kernel", 2.0**-8), ("logits/kernel", 2.0**-7)])
def test_the_weights_of_the_first_and_last_layer_lie_on_their_grid(
    weights: dict[str, np.ndarray], name: str, step: float
) -> None:
    levels = weights[name].astype(np.float64) / step
    np.testing.assert_array_equal(levels, np.round(levels))
    assert 32 < np.abs(levels).max() <= 127


@pytest.mark.parametrize(("name", "step"), [("norm1", 2.0**-16), ("norm2", 1.0), ("norm3", 1.0)])
def test_no_sum_that_can_occur_lies_near_a_threshold(weights: dict[str, np.ndarray], name: str, step: float) -> None:
    gamma, beta, mean, variance = (
        weights[f"{name}/{variable}"].astype(np.float64)
        for variable in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    threshold = (mean - beta * np.sqrt(variance + 1e-3) / gamma) / step
    np.testing.assert_allclose(threshold - np.floor(threshold), 0.5, atol=0.1)


def test_it_is_small_and_mostly_binary(weights: dict[str, np.ndarray]) -> None:
    kernels = {name.split("/")[0]: array for name, array in weights.items() if name.endswith("/kernel")}
    macs = {name: array.size * OUTPUT_PIXELS[name] for name, array in kernels.items()}
    assert sum(array.size for array in weights.values()) == 492_714
    assert DIGITS.stat().st_size <= 3_000_000
    assert (macs["conv2"] + macs["conv3"]) / sum(macs.values()) >= 0.8


def test_every_layer_is_named_and_the_file_holds_no_optimizer() -> None:
    with h5py.File(DIGITS) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        assert list(file) == ["model_weights"]
    assert [(entry["class_name"], entry["config"]["name"]) for entry in layers] == [
        ("InputLayer", "picture"),
        ("Rescaling", "rescale"),
        ("Conv2D", "conv1"),
        ("MaxPooling2D", "pool1"),
        ("BatchNormalization", "norm1"),
        ("QuantConv2D", "conv2"),
        ("MaxPooling2D", "pool2"),
        ("BatchNormalization", "norm2"),
        ("QuantConv2D", "conv3"),
        ("BatchNormalization", "norm3"),
        ("Flatten", "flatten"),
        ("QuantDense", "dense1"),
        ("BatchNormalization", "norm4"),
        ("ReLU", "relu"),
        ("Dense", "logits"),
        ("Softmax", "probabilities"),
    ]


@pytest.mark.slow
def test_it_classifies_mnist() -> None:
    if not MNIST.exists():
        pytest.skip("needs MNIST at ../shared/data/mnist.npz")
    keras, train_digits = _training()
    _, test = train_digits.load(MNIST)
    assert train_digits.accuracy(keras.saving.load_model(DIGITS), test) >= 0.992


# The pictures


def test_the_shipped_pictures_are_those_the_script_draws() -> None:
    drawn = script("draw_digits").pictures()
    assert {f"digits/{path.name}" for path in (EXAMPLES / "digits").iterdir()} < set(drawn)
    for name, picture in drawn.items():
        with Image.open(EXAMPLES / name) as shipped:
            assert (shipped.mode, shipped.size) == (picture.mode, picture.size)
            difference = np.asarray(shipped, np.int16) - np.asarray(picture, np.int16)
        # The last bit of hypot and sin may differ between machines, and move a value across a rounding boundary.
        assert np.abs(difference).max() <= 1, name


def test_the_network_reads_the_shipped_pictures() -> None:
    keras, _ = _training()
    model = keras.saving.load_model(DIGITS)
    small = [np.asarray(Image.open(EXAMPLES / "digits" / f"{digit}.png")) for digit in range(10)]
    with Image.open(EXAMPLES / "digit-photo.png") as photo:
        nearest = np.asarray(photo.convert("L").resize((28, 28), Image.Resampling.NEAREST))
    seen = np.stack([*small, np.asarray(Image.open(EXAMPLES / "image.png")), 255 - nearest])
    probabilities = np.asarray(model(seen[..., None].astype(np.float32)))
    assert probabilities.argmax(axis=1).tolist() == [*range(10), 2, 3]
    assert probabilities.max(axis=1).min() > 0.95


# The training script


def _training() -> tuple[Any, Any]:
    """Keras and the training script, or a skip where TensorFlow is missing."""
    pytest.importorskip("tensorflow", reason="training needs TensorFlow")
    return pytest.importorskip("keras"), script("train_digits")


def blobs(count: int) -> dict[str, np.ndarray]:
    """Pictures whose class is where their bright square is: a task learnt within an epoch or two."""
    random = np.random.default_rng(11)
    labels = random.integers(0, 10, count)
    pictures = random.integers(0, 40, (count, 28, 28)).astype(np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        row, column = 4 + 12 * (label // 5), 1 + 5 * (label % 5)
        picture[row : row + 8, column : column + 5] = 255
    return {"x": pictures, "y": labels.astype(np.uint8)}


def test_a_killed_training_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keras, train_digits = _training()
    train, test = blobs(480), blobs(100)
    data = tmp_path / "blobs.npz"
    np.savez(data, x_train=train["x"], y_train=train["y"], x_test=test["x"], y_test=test["y"])
    output, checkpoints = tmp_path / "out.h5", tmp_path / "checkpoints"
    arguments = [f"--data={data}", f"--output={output}", f"--checkpoints={checkpoints}", "--epochs=3", "--batch=24"]

    after_epoch = train_digits.Checkpoints.on_epoch_end

    def stop_after_two(self: Any, epoch: int, logs: Any = None) -> None:
        after_epoch(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_digits.Checkpoints, "on_epoch_end", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            train_digits.main(arguments)
    assert not output.exists()
    capsys.readouterr()

    train_digits.main([*arguments, "--resume"])
    printed = capsys.readouterr().out
    assert "Epoch 3/3" in printed and "Epoch 2/3" not in printed
    assert "492,714 parameters, test accuracy" in printed
    assert int(keras.saving.load_model(checkpoints / "last.keras").optimizer.iterations) == 3 * (432 // 24)

    shipped, best = keras.saving.load_model(output), keras.saving.load_model(checkpoints / "best.keras")
    x = test["x"][..., None].astype(np.float32)
    np.testing.assert_allclose(np.asarray(shipped(x)), np.asarray(best(x)), atol=1e-6)
    levels = np.asarray(shipped.get_layer("conv1").kernel, np.float64) * 256
    np.testing.assert_array_equal(levels, np.round(levels))


def test_distorted_pictures_stay_pictures() -> None:
    _, train_digits = _training()
    x = np.zeros((50, 28, 28, 1), np.float32)
    x[:, 10:18, 10:18] = 200
    distorted = train_digits.distort(x, np.random.default_rng(2))
    assert distorted.shape == x.shape and distorted.dtype == np.float32
    assert distorted.min() >= 0 and distorted.max() <= 200.01
    np.testing.assert_allclose(distorted.sum(axis=(1, 2, 3)), x[0].sum(), rtol=0.35)


def test_the_learning_rate_rises_then_falls() -> None:
    _, train_digits = _training()
    rates = [train_digits.learning_rate(epoch, 20) for epoch in range(20)]
    assert rates[0] < rates[1] < rates[2] == max(rates)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1e-5)
