"""A picture file through the commands, on networks of `keras.applications`, beside Keras' own answer for the picture as prepared there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import model_of
from PIL import Image
from run_models import document, invoke
from shared_models import randomize

from edge.converters.layers import meant_preset

CLASSES = 10


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def mobilenet(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 as keras.applications has it, which scales nothing itself."""
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("mobilenet")
    made = randomize(keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), alpha=0.35, classes=CLASSES))
    for suffix in (".keras", ".h5"):
        made.save(folder / f"mobilenet{suffix}")
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waves of another size and shape than what networks take."""
    rows, columns = np.mgrid[:120, :150]
    waves = np.stack([128 + 100 * np.sin(columns / 17 + k) * np.cos(rows / (11 + k)) for k in range(3)], axis=-1)
    path = tmp_path_factory.mktemp("picture") / "waves.png"
    Image.fromarray(waves.astype(np.uint8)).save(path)
    return path


def expected(keras: Any, source: Path, picture: Path, prepared: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The probabilities that Keras gives; resized as its loaders of pictures do."""
    import tensorflow as tf

    model = keras.saving.load_model(source, compile=False)
    pixels = tf.image.resize(np.asarray(Image.open(picture))[None].astype(np.float32), model.input_shape[1:3]).numpy()
    return np.asarray(model.predict(prepared(pixels), verbose=0)[0])


def answered(model: Path, picture: Path) -> np.ndarray:
    top = document(invoke("run", picture, "-m", model, "-k", CLASSES, "--json"))["results"][0]["outputs"][0]["top"]
    assert len(top) == CLASSES
    return np.array([each["value"] for each in sorted(top, key=lambda each: each["index"])])


def agree(got: np.ndarray, want: np.ndarray) -> bool:
    assert np.ptp(want) > 0.02  # the classes differ at all
    return bool(np.abs(got - want).max() < 1e-5)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        *[(name, "mobilenet") for name in ("mobilenet_0.25_128", "mobilenetv2_1.00_224", "inception_v3", "NASNet", "resnet101v2")],
        *[("vgg19", "caffe"), ("resnet152", "caffe"), ("xception", "mobilenet")],
        *[("densenet169", "torch"), ("my_net", None), ("efficientnetb0", None), ("resnet50_of_mine", None), ("MobilenetV3small", None)],
    ],
)
def test_networks_are_known_by_their_names(name: str, chosen: str | None) -> None:
    filters = {"kernel": np.ones((1, 1, 3, 2), np.float32)}
    alone = model_of(("Conv2D", {"kernel_size": 1, "use_bias": False}, filters), shape=(8, 8, 3))
    inside = model_of(("Conv2D", {"name": f"outer/{name}/conv", "kernel_size": 1, "use_bias": False}, filters), shape=(8, 8, 3))
    scaled = model_of(("Rescaling", {"scale": 2.0, "offset": -1.0}, {}), *[("ReLU", {}, {})], shape=(8, 8, 3))
    expected = None if chosen is None else (name, chosen)
    assert meant_preset(replace(alone, name=name)) == meant_preset(inside) == expected
    assert meant_preset(replace(scaled, name=name)) is None


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_network_with_the_preset_it_is_meant_for(keras: Any, mobilenet: Path, picture: Path, tmp_path: Path, suffix: str) -> None:
    source = mobilenet / f"mobilenet{suffix}"
    result = invoke("convert", source, "-o", tmp_path / "net", "--bits", "32", "--preset", "mobilenet")
    assert result.exit_code == 0 and "scaled to -1..1" in result.stdout and "give --preset" not in result.stdout
    want = expected(keras, source, picture, keras.applications.mobilenet_v2.preprocess_input)
    assert agree(answered(tmp_path / "net.edge", picture), want)
    assert agree(answered(tmp_path / "net.tflite", picture), want)


@pytest.mark.slow
def test_without_a_preset_pixels_are_0_to_1_and_the_other_is_named(keras: Any, mobilenet: Path, picture: Path, tmp_path: Path) -> None:
    source = mobilenet / "mobilenet.keras"
    shown = invoke("convert", source, "-o", tmp_path / "net", "--bits", "32", "--format", "edge").stdout
    assert "scaled to 0..1" in shown
    assert "mobilenetv2_0.35_96 of keras.applications takes pixels 0..255 scaled to -1..1, RGB: give --preset mobilenet if" in shown
    assert agree(answered(tmp_path / "net.edge", picture), expected(keras, source, picture, lambda pixels: pixels / np.float32(255)))


def test_a_network_that_prepares_pictures_itself(keras: Any, picture: Path, tmp_path: Path) -> None:
    """Blue first and less ImageNet's means, as VGG16 and ResNet50 take them: nothing has to be said."""
    k = keras.layers
    given = keras.Input((40, 32, 3))
    base = keras.Sequential([keras.Input((40, 32, 3)), k.Conv2D(8, 3, strides=2, activation="relu"), k.MaxPooling2D()], name="vgg16")
    x = k.GlobalAveragePooling2D()(base(keras.applications.vgg16.preprocess_input(given)))
    randomize(keras.Model(given, k.Dense(CLASSES, activation="softmax")(k.Rescaling(0.02)(x)))).save(tmp_path / "net.keras")
    result = invoke("convert", tmp_path / "net.keras", "--bits", "32")
    assert "pixels 0..255 as they are, RGB" in result.stdout and "give --preset" not in result.stdout
    want = expected(keras, tmp_path / "net.keras", picture, lambda pixels: pixels)
    # Bytes stay bytes: what was resized is rounded, which Keras does not do.
    assert np.abs(answered(tmp_path / "net.edge", picture) - want).max() < 5e-3
    Image.open(picture).resize((32, 40)).save(tmp_path / "small.png")
    want = expected(keras, tmp_path / "net.keras", tmp_path / "small.png", lambda pixels: pixels)
    assert agree(answered(tmp_path / "net.edge", tmp_path / "small.png"), want)


def test_a_network_that_is_meant_for_the_caffe_preset(keras: Any, picture: Path, tmp_path: Path) -> None:
    k = keras.layers
    layers = [keras.Input((32, 32, 3)), k.Conv2D(8, 3, strides=2, activation="relu"), k.GlobalAveragePooling2D(), k.Rescaling(0.02)]
    randomize(keras.Sequential([*layers, k.Dense(CLASSES, activation="softmax")], name="resnet50")).save(tmp_path / "net.keras")
    shown = invoke("convert", tmp_path / "net.keras", "--bits", "32", "--format", "edge").stdout
    assert "resnet50 of keras.applications takes pixels 0..255 as they are, BGR, less (103.939, 116.779, 123.68): give --preset" in shown
    shown = invoke("convert", tmp_path / "net.keras", "--bits", "32", "--preset", "caffe").stdout
    assert "give --preset" not in shown
    want = expected(keras, tmp_path / "net.keras", picture, keras.applications.resnet50.preprocess_input)
    assert agree(answered(tmp_path / "net.edge", picture), want)
