"""Keras files read without Keras, against Keras 3 itself; and a file of Keras 2.15 against what that computed (tests/fixtures)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.converters.keras_file import Call, KerasModel, Value, read_keras
from edge.errors import ModelError

FIXTURES = Path(__file__).parent / "fixtures"
MLPERF_TINY = Path(__file__).resolve().parents[2] / "shared" / "models" / "mlperf_tiny"
SUFFIXES = (".keras", ".h5")
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


def sequential(keras: Any) -> Any:
    layers = keras.layers
    model = keras.Sequential(name="chain")
    for layer in (
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(scale=False),
        layers.ReLU(),
        layers.SeparableConv2D(5, 3, depth_multiplier=2),
        layers.BatchNormalization(center=False, scale=False),
        layers.Dropout(0.5),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.PReLU(),
        layers.LayerNormalization(),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    ):
        model.add(layer)
    model.build((None, 9, 9, 2))
    return model


def functional(keras: Any) -> Any:
    """Two applications each of a functional and a Sequential model inside, a layer applied to its own output, functions, three outputs."""
    layers = keras.layers
    inner_image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(inner_image))
    inner = keras.Model(inner_image, [x, layers.ReLU(name="positive")(x)], name="inner")
    chain = keras.Sequential([layers.DepthwiseConv2D(3, name="conv"), layers.Conv2D(4, 1, name="last")], name="chain")
    image = keras.Input((10, 10, 3), name="image")
    first = layers.Conv2D(3, 3, name="conv")(image)
    a, _ = inner(first)
    b, c = inner(layers.Conv2D(3, 3, padding="same")(first), training=False)
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = shared(shared(2.0 - layers.Concatenate(name="join")([layers.Add()([a, b]), c])[..., :4]))
    scores = layers.Dense(5, name="scores")(layers.GlobalAveragePooling2D()(chain(x)))
    return keras.Model(image, {"scores": scores, "map": chain(b), "again": b}, name="outer")


def nested(keras: Any) -> Any:
    """Models in models in models, with layers of the same names at each level; the innermost frozen."""
    layers = keras.layers
    innermost = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3, name="a"), layers.BatchNormalization(name="b")], name="core")
    innermost.trainable = False
    middle = keras.Sequential([keras.Input((6, 6, 2)), innermost, layers.Conv2D(2, 3, name="a"), layers.BatchNormalization(name="b")])
    return keras.Sequential([keras.Input((6, 6, 2)), middle, layers.Flatten(), layers.Dense(4, name="a")], name="outer")


def layer_in_two_models(keras: Any) -> Any:
    """One Conv2D belongs to the outer model and to the inner one: a `.keras` file has its weights once."""
    image = keras.Input((8, 8, 3), name="image")
    shared = keras.layers.Conv2D(4, 3, name="shared")
    inner_image = keras.Input((8, 8, 3))
    inner = keras.Model(inner_image, keras.layers.Conv2D(4, 3, name="own")(shared(inner_image)), name="inner")
    flat = keras.layers.Flatten()
    return keras.Model(image, keras.layers.Concatenate()([flat(shared(image)), flat(inner(image))]), name="outer")


BUILDERS = (sequential, functional, nested, layer_in_two_models)


def randomize(model: Any) -> Any:
    rng = np.random.default_rng(7)
    for weight in model.weights:
        if str(weight.dtype).startswith("float"):
            low, high = (0.3, 2.0) if weight.name == "moving_variance" else (-1.0, 1.0)
            weight.assign(rng.uniform(low, high, size=weight.shape))
    return model


def leaf_layers(model: Any, prefix: str = "") -> dict[str, Any]:
    found = {}
    for layer in model.layers:
        found.update(leaf_layers(layer, f"{prefix}{layer.name}/") if hasattr(layer, "layers") else {prefix + layer.name: layer})
    return found


def short_names(layer: Any) -> list[str]:
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    return ["depthwise_kernel" if depthwise and weight.name == "kernel" else weight.name for weight in layer.weights]


def apply_with_keras(keras: Any, call: Call, inputs: list[Any]) -> Any:
    """What Keras computes for one call, from nothing but what was read."""
    if call.class_name.startswith(("ops.", "TFOpLambda")):
        return OPERATIONS[call.config.get("function", call.class_name)](inputs, call.arguments)
    layer = getattr(keras.layers, call.class_name).from_config(as_in_keras_3(call))
    argument = inputs if call.class_name in ("Add", "Concatenate") else inputs[0]
    layer(argument)
    for name, weight in zip(short_names(layer), layer.weights, strict=True):
        if name in call.weights:
            weight.assign(call.weights[name])
    return layer(argument)


def as_in_keras_3(call: Call) -> dict[str, Any]:
    """Keras 3 takes no slash in a name, no list of axes of a batch norm, and not every option that Keras 2 wrote for a layer."""
    training = ("_initializer", "_regularizer", "_constraint")
    config = {key: value for key, value in call.config.items() if key != "groups" and not key.endswith(training)}
    axis = config.get("axis")
    return {**config, "name": call.name.replace("/", "_"), **({"axis": axis[0]} if isinstance(axis, list) else {})}


OPERATIONS: dict[str, Callable[[list[Any], Mapping[str, Any]], Any]] = {
    "math.multiply": lambda inputs, arguments: inputs[0] * arguments["y"],
    "ops.Subtract": lambda inputs, arguments: arguments["0"] - inputs[0],
    "ops.GetItem": lambda inputs, arguments: inputs[0][..., :4],
}


def run_with_keras(keras: Any, model: KerasModel, image: Array) -> dict[str, Array]:
    values = {model.inputs[0].name: keras.ops.convert_to_tensor(image)}
    for call in model.calls:
        values[call.outputs[0]] = apply_with_keras(keras, call, [values[name] for name in call.inputs])
    return {name: np.asarray(value) for name, value in values.items()}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_weights_and_connections_are_those_of_keras(keras: Any, tmp_path: Path, build: Callable[[Any], Any], suffix: str) -> None:
    original = randomize(build(keras))
    original.save(tmp_path / f"model{suffix}")
    model = read_keras(tmp_path / f"model{suffix}")

    by_layer = {call.name.replace("#2", ""): call for call in model.calls}
    for name, layer in leaf_layers(original).items():
        for short, weight in zip(short_names(layer), layer.get_weights(), strict=True):
            if weight.dtype.kind == "f":
                np.testing.assert_array_equal(by_layer[name].weights[short], weight, err_msg=f"{name} {short}")

    image = np.random.default_rng(0).normal(size=(2, *original.input_shape[1:])).astype(np.float32)
    expected = original(image)
    values = run_with_keras(keras, model, image)
    results = dict(zip(model.output_names, (values[name] for name in model.outputs), strict=True))
    wanted = expected if isinstance(expected, dict) else {model.output_names[0]: expected}
    assert set(results) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(results[name], np.asarray(value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_tell_applications_apart(keras: Any, tmp_path: Path, suffix: str) -> None:
    randomize(functional(keras)).save(tmp_path / f"model{suffix}")
    model = read_keras(tmp_path / f"model{suffix}")
    calls = {call.name: call for call in model.calls}

    assert model.inputs == (Value("image", (10, 10, 3)),)
    assert model.output_names == ("again", "map", "scores")
    assert model.outputs == ("inner#2/norm", "chain#2/last", "scores")
    assert calls["shared#2"].inputs == ("shared",)
    assert calls["shared#2"].weights is calls["shared"].weights
    assert calls["inner/conv"].inputs == ("conv",)
    (subtract,) = (call for call in model.calls if call.class_name == "ops.Subtract")
    assert subtract.arguments == {"0": 2.0}
    # The first application's second output is used by nobody.
    assert "inner#2/positive" in calls
    assert "inner/positive" not in calls


def test_half_precision_weights_are_widened(keras: Any, tmp_path: Path) -> None:
    for dtype in ("bfloat16", "float16", "float64"):
        layer = keras.layers.Dense(3, dtype=dtype)
        randomize(keras.Sequential([keras.Input((4,)), layer])).save(tmp_path / "model.keras")
        (call,) = read_keras(tmp_path / "model.keras").calls
        assert call.weights["kernel"].dtype == np.float32
        np.testing.assert_array_equal(call.weights["kernel"], np.asarray(layer.kernel).astype(np.float32))
        assert not call.weights["kernel"].flags.writeable


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_loss_is_told(keras: Any, tmp_path: Path, suffix: str) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for loss, expected in (
        ("mean_squared_error", {"loss": "mean_squared_error", "from_logits": False}),
        (keras.losses.CategoricalCrossentropy(from_logits=True), {"loss": "categorical_crossentropy", "from_logits": True}),
        ([keras.losses.mean_squared_error], {"loss": ("mean_squared_error",), "from_logits": False}),
    ):
        model.compile(loss=loss)
        model.save(tmp_path / f"model{suffix}")
        assert read_keras(tmp_path / f"model{suffix}").training == expected


def test_several_inputs_are_represented(keras: Any, tmp_path: Path) -> None:
    inputs = {"b": keras.Input((None, 3), name="b"), "a": keras.Input((4, 3), name="a")}
    output = keras.layers.Concatenate(axis=1)([inputs["b"], inputs["a"]])
    keras.Model(inputs, output).save(tmp_path / "model.keras")
    model = read_keras(tmp_path / "model.keras", input_shape=(7, 3))
    assert model.inputs == (Value("a", (4, 3)), Value("b", (7, 3)))
    with pytest.raises(ModelError, match="shape of input 'b' is"):
        read_keras(tmp_path / "model.keras")
    assert model.calls[0].inputs == ("b", "a")


def test_lambda_stays_undecoded(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1, name="plus")])
    model.save(tmp_path / "model.keras")
    (call,) = read_keras(tmp_path / "model.keras").calls
    assert call.class_name == "Lambda"
    assert call.config["function"]["class_name"] == "__lambda__"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_open_sizes_are_filled_or_refused(keras: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)]).save(path)
    assert read_keras(path, input_shape=(32, 16, 3)).inputs[0].shape == (32, 16, 3)
    with pytest.raises(ModelError, match=r"\?,\?,3.*--input-shape H,W,C, for example 224,224,3"):
        read_keras(path)
    for wrong in ((32, 16), (32, 16, 4), (32, 0, 3), ()):
        with pytest.raises(ModelError, match="--input-shape is"):
            read_keras(path, input_shape=wrong)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_keras_2_model_gives_the_values_of_keras_2(keras: Any, suffix: str) -> None:
    model = read_keras(FIXTURES / f"keras2_functional{suffix}")
    reference = np.load(FIXTURES / "keras2_functional.npz")
    values = run_with_keras(keras, model, reference["input"])
    assert model.keras_version == "2.15.0"
    assert model.outputs == ("scores", "tail/re_lu")
    inside = {"inner/conv", "tail/separable"}
    assert {name.removeprefix("layer/") for name in reference} | inside | {"image"} == {*values, "input"}
    for name in set(values) - inside - {"image"}:
        np.testing.assert_allclose(values[name], reference[f"layer/{name}"], rtol=1e-5, atol=1e-5, err_msg=name)
    if suffix == ".keras":
        assert model.training == {"loss": ("categorical_crossentropy", "mse"), "from_logits": False}
