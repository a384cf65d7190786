"""Keras files read without Keras: against Keras 3 itself, and against what Keras 2.15 and Larq computed (tests/fixtures)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    model = read_keras(tmp_path / "model.keras")
    assert model.inputs == (Value("a", (4, 3)), Value("b", (None, 3)))
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


def sign_product(call: Call, x: Array) -> Array:
    """A QuantConv2D or QuantDense of signs, from its configuration and weights, in plain NumPy."""
    config, kernel = call.config, call.weights["kernel"]
    scale = np.abs(kernel).mean(axis=tuple(range(kernel.ndim - 1))) if "magnitude" in str(config["kernel_quantizer"]) else 1.0
    signs = np.where(kernel >= 0, 1.0, -1.0) * scale
    if config["input_quantizer"] is not None:
        x = np.where(x >= 0, 1.0, -1.0)
    if kernel.ndim == 4:
        x = windows(x, kernel.shape[:2], config)
        signs = signs.reshape(-1, kernel.shape[-1])
    return np.asarray(x @ signs + call.weights.get("bias", 0.0))


def windows(x: Array, size: tuple[int, ...], config: Mapping[str, Any]) -> Array:
    if config["padding"] == "same":
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(x.shape[1:3], size, config["strides"], strict=True)]
        edges = [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)]
        x = np.pad(x, edges, constant_values=config["pad_values"])
    view = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))[:, :: config["strides"][0], :: config["strides"][1]]
    return np.moveaxis(view, 3, -1).reshape(*view.shape[:3], -1)


@pytest.mark.parametrize("name", ["larq_sequential", "larq_residual"])
def test_larq_weights_give_the_values_of_larq(name: str) -> None:
    model = read_keras(FIXTURES / f"{name}.h5")
    reference = np.load(FIXTURES / f"{name}.npz")
    checked = 0
    for call in model.calls:
        if call.class_name in ("QuantConv2D", "QuantDense"):
            x = reference["input"] if call.inputs[0] == model.inputs[0].name else reference[f"layer/{call.inputs[0]}"]
            np.testing.assert_allclose(sign_product(call, x), reference[f"layer/{call.name}"], rtol=1e-4, atol=1e-4, err_msg=call.name)
            checked += 1
    assert checked == {"larq_sequential": 5, "larq_residual": 2}[name]


def test_larq_configuration_is_kept() -> None:
    calls = {call.name: call for call in read_keras(FIXTURES / "larq_sequential.h5").calls}
    config = calls["quant_conv2d"].config
    assert config["pad_values"] == 1.0
    assert config["kernel_quantizer"]["class_name"] == "SteSign"
    assert calls["first"].config["input_quantizer"] is None
    assert sorted(calls["batch_normalization"].weights) == ["beta", "moving_mean", "moving_variance"]


def test_registered_package_is_split_off(tmp_path: Path) -> None:
    layer = {"class_name": "Larq>QuantDense", "config": {"name": "dense", "use_bias": False, "batch_input_shape": [None, 4]}}
    path = write_h5(tmp_path / "model.h5", [layer], {"dense": {"dense/kernel:0": np.eye(4)}})
    (call,) = read_keras(path).calls
    assert (call.package, call.class_name) == ("Larq", "QuantDense")
    np.testing.assert_array_equal(call.weights["kernel"], np.eye(4))


def write_h5(path: Path, layers: Any, weights: Mapping[str, Mapping[str, Any]], *, version: str = "2.2.0", **config: Any) -> Path:
    """A Keras 2 `.h5` by hand: Sequential, or functional where `config` has outputs."""
    class_name = "Functional" if "output_layers" in config else "Sequential"
    written = {"class_name": class_name, "config": {"name": "made", "layers": layers, **config} if config else layers}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(written).encode()
        file.attrs["keras_version"] = version.encode()
        root = file.create_group("model_weights")
        for layer, arrays in weights.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                group[name] = np.asarray(array)
    return path


def test_long_lists_of_names_come_in_parts(tmp_path: Path) -> None:
    layer = {"class_name": "Dense", "config": {"name": "dense", "batch_input_shape": [None, 2]}}
    path = write_h5(tmp_path / "model.h5", [layer], {"dense": {"dense/kernel_1:0": np.ones((2, 3)), "dense/bias_1:0": np.zeros(3)}})
    with h5py.File(path, "a") as file:
        group = file["model_weights/dense"]
        names = group.attrs["weight_names"]
        del group.attrs["weight_names"]
        group.attrs["weight_names0"], group.attrs["weight_names1"] = names[:1], names[1:]
    assert sorted(read_keras(path).calls[0].weights) == ["bias", "kernel"]


def nested_h5(path: Path, names: list[str]) -> Path:
    """A Keras 2 `.h5` with a nested model of a frozen and a trained layer, whose weights have these names."""
    inner = [
        {"class_name": "Dense", "config": {"name": "one", "trainable": False, "use_bias": False, "batch_input_shape": [None, 2]}},
        {"class_name": "Dense", "config": {"name": "two"}},
    ]
    layer = {"class_name": "Sequential", "config": {"name": "inner", "layers": inner}}
    arrays = dict(zip(names, (np.full((2, 2), 2.0), np.full(2, 20.0), np.full((2, 2), 1.0)), strict=True))
    return write_h5(path, [layer], {"inner": arrays})


def test_nested_weights_go_by_name_then_by_order(tmp_path: Path) -> None:
    for names in (["two/kernel:0", "two/bias:0", "one/kernel:0"], ["x/kernel:0", "x/bias:0", "y/kernel:0"]):
        one, two = read_keras(nested_h5(tmp_path / "model.h5", names)).calls
        assert (one.name, one.weights["kernel"][0, 0]) == ("inner/one", 1.0)
        assert (two.weights["kernel"][0, 0], two.weights["bias"][0]) == (2.0, 20.0)
    with pytest.raises(ModelError, match="which layer of nested model 'inner'"):
        read_keras(nested_h5(tmp_path / "model.h5", ["x/bias:0", "x/kernel:0", "y/kernel:0"]))


@st.composite
def random_graphs(draw: st.DrawFn) -> list[tuple[str, list[str]]]:
    """Layers of one or two inputs each, in an order that is not topological."""
    count = draw(st.integers(1, 12))
    names = ["image", *(f"layer{k}" for k in range(count))]
    layers = [(names[k], draw(st.lists(st.sampled_from(names[:k]), min_size=1, max_size=2))) for k in range(1, count + 1)]
    return draw(st.permutations(layers))


@given(random_graphs())
@settings(max_examples=60, deadline=None)
def test_calls_come_after_what_they_need_and_nothing_is_superfluous(tmp_path_factory: Any, layers: list[tuple[str, list[str]]]) -> None:
    last = max((name for name, _ in layers), key=lambda name: int(name[5:]))
    entries: list[dict[str, Any]] = [
        {"class_name": "Add", "name": name, "config": {"name": name}, "inbound_nodes": [[[source, 0, 0, {}] for source in sources]]}
        for name, sources in layers
    ]
    image = {"class_name": "InputLayer", "name": "image", "config": {"name": "image", "batch_input_shape": [None, 4]}, "inbound_nodes": []}
    path = tmp_path_factory.mktemp("graph") / "model.h5"
    write_h5(path, [*entries, image], {}, input_layers=[["image", 0, 0]], output_layers=[[last, 0, 0]])
    model = read_keras(path)

    sources_of = dict(layers)
    needed, made = {last}, {"image"}
    for call in model.calls:
        assert list(call.inputs) == sources_of[call.name]
        assert made.issuperset(call.inputs)
        made.add(call.name)
    for call in reversed(model.calls):
        assert call.name in needed
        needed.update(call.inputs)


@pytest.mark.skipif(not MLPERF_TINY.is_dir(), reason="MLPerf Tiny's models are not beside the repository")
@pytest.mark.parametrize("name", ["ad01", "pretrainedResnet", "str_ww_ref_model", "vww_96"])
def test_mlperf_tiny(name: str) -> None:
    path = MLPERF_TINY / f"{name}.h5"
    model = read_keras(path)
    with h5py.File(path) as file:
        stored: list[float] = []
        file["model_weights"].visititems(lambda _, item: stored.append(float(np.sum(item))) if isinstance(item, h5py.Dataset) else None)
    read = [float(np.sum(weight)) for call in model.calls for weight in call.weights.values()]
    assert sorted(read) == sorted(stored)
    assert model.calls[0].inputs == (model.inputs[0].name,)
    assert model.calls[-1].outputs == model.outputs
    assert model.training is not None


def test_importing_the_reader_loads_no_hdf5_and_no_tensorflow() -> None:
    code = "import sys, edge.converters.keras_file; print({'h5py', 'tensorflow', 'keras', 'numba'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
