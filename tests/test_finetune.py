"""`edge finetune`: what it learns, killed runs, files that agree, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edge
from edge.cli import cli
from edge.errors import EdgeError, InputError
from edge.finetune import Settings, Told, finetune
from edge.preprocess import preset
from edge.train_loop import Epoch

keras = pytest.importorskip("keras", reason="networks are trained by Keras")

from edge.finetune_network import low_bit, prepared, start  # noqa: E402
from edge.training import Algorithm  # noqa: E402

CLASSES = 4
SHAPE = (8, 8, 1)


class Killed(Exception):
    """Stands for whatever ends a process."""


def pictures(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright bar, whose height tells the class: learnt in a few steps, and no flip from left to right changes it."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    x = random.integers(0, 200, (count, *SHAPE))
    for picture, label in zip(x, y, strict=True):
        picture[2 * label : 2 * label + 2] += 55
    return x.astype(np.uint8), y


def float_model(*, norms: bool = True, epochs: int = 0) -> Any:
    """A small network with a residual block, activations within layers and a softmax within the last; trained for `epochs`."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    picture = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(picture)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", kernel_regularizer="l2", name="first")(x)
    y = layers.Conv2D(8, 3, padding="same", name="inner")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y) if norms else y)
    y = layers.Conv2D(8, 3, padding="same", name="second")(y)
    x = layers.Add()([x, layers.BatchNormalization()(y) if norms else y])
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="third")(x)
    model = keras.Model(picture, layers.Dense(CLASSES, activation="softmax", name="last")(layers.Flatten()(x)))
    if epochs:
        model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
        model.fit(*pictures(400), epochs=epochs, batch_size=32, verbose=0)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the float model, and pictures with labels and without."""
    folder = tmp_path_factory.mktemp("finetune")
    float_model(epochs=5).save(folder / "model.keras")
    x, y = pictures(320, 2)
    x_test, y_test = pictures(100, 3)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.save(folder / "data.npy", x)
    yield folder


def tuned(
    folder: Path, name: str, data: str = "data.npz", *, told: Told | None = None, **options: Any
) -> tuple[dict[str, Any], list[Epoch]]:
    """The result and the curve of a short run."""
    given = {key: options.pop(key) for key in ("test", "resume") if key in options}
    curve: list[Epoch] = []
    settings = Settings(**{"epochs": 4, "batch": 32, "rate": 3e-3, **options})
    told = told or Told(epoch=curve.append)
    return finetune(folder / "model.keras", folder / data, folder / name, settings, told=told, **given), curve


def seen(folder: Path) -> np.ndarray:
    return np.load(folder / "data.npz")["x_test"]


def file_agrees(folder: Path, name: str) -> None:
    """The `.keras` converts as it was trained: at 32 bits to what Keras computes, and with the ends at 8 bits to the `.edge` beside it."""
    model = keras.models.load_model(folder / name, compile=False)
    theirs = model.predict(seen(folder), verbose=0)
    edge.convert(folder / name, folder / "exact.edge", bits=32, formats="edge")
    worst = float(np.abs(edge.load(folder / "exact.edge").run(seen(folder)) - theirs).max())
    assert worst < 1e-4
    mine = edge.load((folder / name).with_suffix(".edge")).run(seen(folder))
    assert float(np.mean(mine.argmax(-1) == theirs.argmax(-1))) >= 0.9
    edge.convert(folder / name, folder / "again.edge", bits=8, activation_bits=32, formats="edge")
    assert (folder / "again.edge").read_bytes() == (folder / name).with_suffix(".edge").read_bytes()


def test_one_bit_weights(folder: Path) -> None:
    result, curve = tuned(folder, "one.keras", test=folder / "data.npz")
    assert len(curve) == result["epochs"] == 4
    assert result["labels"] and result["pictures"] == {"learn": 256, "choose": 32, "held_back": 32, "test": 100}
    scores = result["test"]
    assert scores["float"] > 0.9 and scores["converted"] > 0.75
    assert scores["converted"] == pytest.approx(scores["trained"], abs=0.02)
    file_agrees(folder, "one.keras")


@pytest.mark.slow
def test_signs_between_layers_come_first(folder: Path) -> None:
    result, curve = tuned(folder, "signs.keras", activation_bits=1, shortcuts=True, prelu=True, epochs=6, test=folder / "data.npz")
    assert [row.stage for row in curve] == ["signs"] * 2 + [""] * 4
    scores = result["test"]
    assert scores["converted"] > 0.75 > 0.6 > scores["untrained"]
    file_agrees(folder, "signs.keras")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4, "ternary"])
def test_few_bits(folder: Path, bits: int | str) -> None:
    result, _ = tuned(folder, f"few-{bits}.keras", bits=bits, epochs=2)
    assert result["held_back"]["converted"] > 0.7
    file_agrees(folder, f"few-{bits}.keras")


@pytest.mark.slow
def test_pictures_without_labels_are_taught_by_the_float_model(folder: Path) -> None:
    result, _ = tuned(folder, "bare.keras", "data.npy")
    assert not result["labels"] and result["held_back"]["float"] == 1 and result["held_back"]["converted"] > 0.7


@pytest.mark.slow
def test_integers_between_layers(folder: Path) -> None:
    result, _ = tuned(folder, "integers.keras", activation_bits=8, epochs=3)
    assert result["held_back"]["converted"] > 0.7


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_curve(folder: Path) -> None:
    def kill(row: Epoch) -> None:
        if row.epoch == 3:
            raise Killed

    whole, curve = tuned(folder, "whole.keras", activation_bits=1)
    with pytest.raises(Killed):
        tuned(folder, "cut.keras", activation_bits=1, told=Told(epoch=kill))
    with pytest.raises(InputError, match="holds this run already; go on with it by --resume"):
        tuned(folder, "cut.keras", activation_bits=1)
    resumed, rest = tuned(folder, "cut.keras", activation_bits=1, resume=True)
    assert [row.epoch for row in rest] == [4] and rest[0].loss == pytest.approx(curve[3].loss, rel=1e-5)
    assert resumed["held_back"] == whole["held_back"]
    with pytest.raises(InputError, match="seed 0, expected 1"):
        tuned(folder, "cut.keras", activation_bits=1, seed=1)


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_pictures_alone(folder: Path) -> None:
    def kill(row: Epoch) -> None:
        raise Killed

    with pytest.raises(Killed):
        tuned(folder, "begun.keras", told=Told(epoch=kill))
    with np.load(folder / "data.npz") as file:
        np.savez(folder / "relabelled.npz", **{**file, "y_train": file["y_train"][::-1]})
        np.savez(folder / "moved.npz", **file)
    for other in ("relabelled.npz", "data.npy"):
        with pytest.raises(InputError, match=r"begun\.finetune holds a run on other data, of sha256 [0-9a-f]{16}, expected [0-9a-f]{16}"):
            tuned(folder, "begun.keras", other, resume=True)
    with pytest.raises(InputError, match=r"holds a run with preprocess .*'range': .0.0, 255.0"):
        settings = Settings(epochs=4, batch=32, rate=3e-3)
        finetune(folder / "model.keras", folder / "data.npz", folder / "begun.keras", settings, preprocess=preset("unit"), resume=True)
    assert len(tuned(folder, "begun.keras", "moved.npz", resume=True)[1]) == 3


# -- networks ------------------------------------------------------------------------------------------------------------------


def test_prepared_networks_compute_the_same() -> None:
    inner = keras.Sequential([keras.Input((8, 8, 8)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()], name="inner")
    inner.trainable = False
    picture = keras.Input(SHAPE)
    x = inner(keras.layers.Conv2D(8, 1, kernel_regularizer="l2")(picture))
    model = keras.Model(picture, keras.layers.Activation("softmax")(keras.layers.Dense(3)(x)))
    made = prepared(model)
    x = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(made.predict(x, verbose=0), model.predict(x, verbose=0))
    assert not made.losses and len(made.trainable_variables) == len(model.variables) == 6
    assert any(layer.name.startswith("inner_conv2d") for layer in made.layers)


def test_layers_and_models_that_are_used_twice_are_prepared() -> None:
    inner = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(1, 3, padding="same", activation="relu")], name="inner")
    picture = keras.Input(SHAPE)
    outer = keras.Model(picture, inner(inner(picture)), name="outer")
    x = keras.Input(SHAPE)
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(outer(inner(outer(x))))))
    made = prepared(model)
    x = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(made.predict(x, verbose=0), model.predict(x, verbose=0))
    assert len(made.variables) == len(model.variables) == 4


def test_batch_norms_are_inserted_where_the_source_has_none() -> None:
    norms, bare = prepared(float_model()), prepared(float_model(norms=False))
    layers = {name: Algorithm("xnor_weights") for name in ("inner", "second", "third")}

    def inserted(model: Any, **options: Any) -> list[str]:
        return [layer.name for layer in low_bit(model, layers, **options).layers if "norm" in layer.name and "batch" not in layer.name]

    assert inserted(norms) == ["third_norm"]
    assert inserted(bare) == ["inner_norm", "second_norm", "third_norm"]
    layers = {name: Algorithm("xnor_weights", "ste_sign") for name in layers}
    assert inserted(norms) == ["inner_norm_before", "third_norm_before", "third_norm"]
    sums = [layer.name for layer in low_bit(norms, layers, shortcuts=True).layers if layer.name.endswith("_sum")]
    assert sums == ["inner_sum", "second_sum", "third_sum"]


def test_relus_before_layers_of_few_bits_become_bends_that_start_as_relus_with_a_slope() -> None:
    layers = {name: Algorithm("xnor_weights", "ste_sign") for name in ("inner", "second")}
    network = low_bit(prepared(float_model()), layers, shortcuts=True, prelu=True)
    bent = [layer for layer in network.layers if layer.name.endswith("_bend")]
    assert [layer.name.split("_")[0] for layer in bent] == ["first", "re"]  # first_activation_bend, re_lu_1_bend
    assert network.get_layer("third_activation").activation is keras.activations.relu  # the float head reads it
    np.testing.assert_allclose(bent[0](np.array([[[[-4.0] * 8, [2.0] * 8]]]))[0, 0, :, 0], [-1, 2])


def test_a_relu_that_is_called_twice_or_behind_a_pool_becomes_one_bend() -> None:
    k = keras.layers
    picture, twice = keras.Input((8, 8, 3)), k.ReLU(name="twice")
    x = twice(k.Conv2D(4, 3, name="first")(picture))
    x = twice(k.Conv2D(4, 3, padding="same", name="a")(x))
    x = k.Conv2D(4, 3, name="b")(k.Dropout(0.1)(k.MaxPooling2D(2)(x)))
    model = prepared(keras.Model(picture, k.Dense(3, activation="softmax")(k.Flatten()(x))))
    layers = {name: Algorithm("xnor_weights", "ste_sign") for name in ("a", "b")}
    assert [layer.name for layer in low_bit(model, layers, prelu=True).layers if "bend" in layer.name] == ["twice_bend"]
    with pytest.raises(InputError, match="got a model with none there; leave --prelu out"):
        low_bit(model, {"first": Algorithm("xnor_weights")}, prelu=True)


def test_a_network_that_edge_cannot_convert_is_refused_before_it_is_trained(folder: Path, tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([keras.Input((12, 12, 3)), k.Conv2D(4, 3, activation="relu"), k.Conv2D(4, 3), Odd(), k.Flatten(), k.Dense(4)])
    model.save(tmp_path / "odd.keras")
    assert "Odd" in refused(tmp_path / "odd.keras", "--data", folder / "data.npz", "-o", tmp_path / "out.keras")
    assert not (tmp_path / "out.finetune").exists()


@keras.saving.register_keras_serializable("tests")
class Odd(keras.layers.Layer):  # type: ignore[misc]
    """A layer that no converter knows."""

    def call(self, x: Any) -> Any:
        return keras.ops.sin(x)


def test_inserted_norms_give_what_the_float_layer_gives() -> None:
    model = prepared(float_model(norms=False))
    model.set_weights([4 * values for values in model.get_weights()])  # deviations far above the norms' epsilon
    network = low_bit(model, {name: Algorithm("xnor_weights") for name in ("inner", "second")})
    x, _ = pictures(256)
    start(network, model, x)
    for name in ("inner", "second"):
        theirs = keras.Model(model.input, model.get_layer(name).output).predict(x, verbose=0)
        mine = keras.Model(network.input, network.get_layer(f"{name}_norm").output).predict(x, verbose=0)
        np.testing.assert_allclose(mine.mean(axis=(0, 1, 2)), theirs.mean(axis=(0, 1, 2)), atol=0.05)
        np.testing.assert_allclose(mine.std(axis=(0, 1, 2)), theirs.std(axis=(0, 1, 2)), rtol=0.1)


# -- what is refused -----------------------------------------------------------------------------------------------------------


def refused(*arguments: object) -> str:
    """The sentence of a run of the command that fails."""
    ran = CliRunner().invoke(cli, ["finetune", *map(str, arguments)])
    assert ran.exit_code == 1, ran.output
    assert "Traceback" not in ran.output
    return " ".join(ran.output.split())


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    model, data, out = folder / "model.keras", folder / "data.npz", ("-o", tmp_path / "out.keras")
    assert "matches none; near it are" in refused(model, "--data", data, "--layer", "innr=4", *out)
    assert "PATTERN=BITS" in refused(model, "--data", data, "--layer", "inner", *out)
    assert "no layer is left" in refused(model, "--data", data, "--layer", "*=8", *out)
    assert "activation bits should be 8 or 32 with bits 4" in refused(model, "--data", data, "--bits", 4, "--activation-bits", 1, *out)
    assert "there is no" in refused(model, "--data", folder / "absent.npz", *out)
    assert ".keras file, got" in refused(model, "--data", data, "-o", tmp_path / "out.h5")
    np.save(tmp_path / "few.npy", pictures(5)[0])
    assert "20 pictures or more, got 5" in refused(model, "--data", tmp_path / "few.npy", *out)
    np.save(tmp_path / "wide.npy", np.zeros((30, 7), np.float32))
    assert "(8, 8, 1)" in refused(model, "--data", tmp_path / "wide.npy", *out).replace("8x8x1", "(8, 8, 1)")
    np.savez(tmp_path / "bare.npz", x_test=pictures(30)[0])
    assert "no labels" in refused(model, "--data", data, "--test", tmp_path / "bare.npz", *out)
    x, y = pictures(30)
    np.savez(tmp_path / "from1.npz", x_test=x, y_test=y + 1)
    said = refused(model, "--data", data, "--test", tmp_path / "from1.npz", *out)
    assert "expected classes 0 to 3, as the model has, got 4; number them so; leave --test out" in said
    (tmp_path / "empty").mkdir()
    assert "no picture in the folder" in refused(model, "--data", tmp_path / "empty", *out)
    (tmp_path / "mine.keras").write_text("mine")
    assert "is not of this fine-tuning" in refused(model, "--data", data, "-o", tmp_path / "mine.keras")
    assert "is not of this fine-tuning" in refused(model, "--data", data, "-o", model)
    (tmp_path / "out.edge").write_text("mine")
    assert "was not written by edge; remove it, or name another destination" in refused(model, "--data", data, *out)
    assert [path.name for path in tmp_path.glob("out*")] == ["out.edge"]


def test_models_that_are_refused(folder: Path, tmp_path: Path) -> None:
    layers, picture = keras.layers, keras.Input(SHAPE)
    x = layers.Conv2D(4, 3)(picture)
    keras.Model(picture, x).save(tmp_path / "map.keras")
    keras.Model(picture, [layers.Flatten()(x), layers.Flatten()(x)]).save(tmp_path / "two.keras")
    keras.Model(picture, layers.Dense(3, activation="sigmoid")(layers.Flatten()(x))).save(tmp_path / "labels.keras")
    (tmp_path / "text.keras").write_text("no model")
    data = folder / "data.npz"
    assert "takes a classifier" in refused(tmp_path / "map.keras", "--data", data)
    assert "got the activation sigmoid" in refused(tmp_path / "labels.keras", "--data", data)
    assert "one output, got 1 inputs and 2 outputs" in refused(tmp_path / "two.keras", "--data", data)
    assert "text.keras" in refused(tmp_path / "text.keras", "--data", data)

    class Own(keras.Model):  # type: ignore[misc]
        pass

    with pytest.raises(InputError, match="functional or sequential"):
        prepared(Own())


def test_without_keras(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "keras", None)
    assert "pip install tensorflow" in refused(folder / "model.keras", "--data", folder / "data.npz")


@pytest.mark.slow
def test_labels_beyond_the_classes_are_left_out(folder: Path) -> None:
    x, y = pictures(60)
    np.savez(folder / "beyond.npz", x_train=x, y_train=y + CLASSES)
    result, _ = tuned(folder, "beyond.keras", "beyond.npz", epochs=1)
    assert not result["labels"]


@pytest.mark.slow
def test_the_command_prints_scores(folder: Path, tmp_path: Path) -> None:
    given = ["--data", str(folder / "data.npz"), "--epochs", "1", "--batch", "32", "-o", str(tmp_path / "out.keras")]
    ran = CliRunner().invoke(cli, ["finetune", str(folder / "model.keras"), *given, "--test", str(folder / "data.npz")])
    assert ran.exit_code == 0, ran.output
    for text in ("epoch 1/1", "float model", "few bits, before training", "the .edge, run", "of 100 for tests", "out.edge"):
        assert text in ran.output
    ran = CliRunner().invoke(cli, ["finetune", str(folder / "model.keras"), *given, "--resume", "--json"])
    assert ran.exit_code == 0 and json.loads(ran.stdout)["epochs"] == 1


@pytest.mark.slow
def test_preprocessing_reaches_the_file(folder: Path) -> None:
    settings = Settings(epochs=1, batch=32)
    finetune(folder / "model.keras", folder / "data.npz", folder / "bytes.keras", settings, preprocess=preset("byte"))
    assert edge.load(folder / "bytes.edge").program.metadata["preprocess"] == preset("byte").to_json()
    with pytest.raises(EdgeError, match="channel"):
        finetune(folder / "model.keras", folder / "data.npz", folder / "rgb.keras", settings, preprocess=preset("torch"))
