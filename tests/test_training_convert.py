"""Networks of training layers, saved and converted: the engine computes what Keras does, and packs what is signs."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge
from edge.compare import compare_all
from edge.converters.convert import convert
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.errors import ModelError
from edge.tensors import Encoding

keras = pytest.importorskip("keras", reason="training needs Keras")
training = pytest.importorskip("edge.training")
L: Any = keras.layers

SHAPE = (12, 12, 3)
SIGNS = ("xnor", "xnor-k")
QUICK = (("xnor-weights", ".keras"), ("xnor", ".h5"), ("xnor-k", ".keras"), ("dorefa-3", ".h5"))
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in itertools.product(training.ALGORITHMS, (".keras", ".h5"))
]


def network(algorithm: str) -> Any:
    """Every kind of layer that is swapped, batch norms between them, statistics and biases at random."""
    keras.utils.set_random_seed(0)
    x = source = L.Input(SHAPE)
    x = L.BatchNormalization()(L.Conv2D(16, 3, padding="same", name="first")(x))
    x = x if algorithm in SIGNS else L.ReLU()(x)
    x = L.BatchNormalization()(L.MaxPooling2D()(L.Conv2D(32, 3, padding="same", name="conv")(x)))
    x = L.BatchNormalization()(L.Conv2D(32, 3, strides=2, name="strided")(x))
    x = L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x))
    x = L.BatchNormalization()(L.Conv2DTranspose(16, 3, strides=2, name="transposed")(x))
    x = L.BatchNormalization()(L.SeparableConv2D(16, 3, name="separable")(x))
    x = L.BatchNormalization()(L.Dense(24, name="dense")(L.Flatten()(x)))
    return randomized(training.binarize(keras.Model(source, L.Dense(5, name="last")(x)), algorithm))


def react() -> Any:
    """Learnable signs and PReLUs, around layers with alpha by filter, by layer, and K."""
    keras.utils.set_random_seed(1)
    x = source = L.Input(SHAPE)
    x = training.RSign()(L.Conv2D(16, 3, padding="same")(x))
    x = training.RSign()(training.RPReLU()(training.QuantConv2D(32, 3, kernel_quantizer="xnor_weights", name="conv")(x)))
    x = training.QuantConv2D(32, 3, padding="same", pad_values=1.0, kernel_quantizer="dorefa_weights", use_bias=False, name="strided")(x)
    x = training.RPReLU()(L.BatchNormalization()(x))
    signs = {"kernel_quantizer": "xnor_weights", "input_quantizer": "approx_sign", "magnitude_map": True}
    x = training.QuantConv2D(16, (3, 2), dilation_rate=2, name="dilated", activation="relu", **signs)(x)
    x = training.QuantDense(8, **signs)(x)
    return randomized(keras.Model(source, L.Dense(4)(L.GlobalAveragePooling2D()(x))))


def one_axis() -> Any:
    keras.utils.set_random_seed(2)
    signs = {"kernel_quantizer": "xnor_weights", "input_quantizer": "ste_sign", "magnitude_map": True}
    first = training.QuantConv1D(16, 5, padding="causal", **signs)
    layers = [L.Conv1D(16, 3), first, L.BatchNormalization(), training.QuantConv1D(8, 3, strides=2, **signs)]
    return randomized(keras.Sequential([L.Input((20, 8)), *layers, L.GlobalAveragePooling1D(), L.Dense(3)]))


def randomized(model: Any) -> Any:
    random = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            count = layer.gamma.shape[0]
            variance = np.abs(random.normal(1, 0.3, count))
            layer.set_weights([random.normal(1, 0.7, count), *random.normal(0, 0.5, (2, count)), variance])  # some gammas negative
        elif isinstance(layer, (training.RSign, training.RPReLU)):
            layer.set_weights([random.normal(0, 0.3, weight.shape) for weight in layer.get_weights()])
        elif isinstance(getattr(layer, "bias", None), keras.Variable):
            layer.bias.assign(random.normal(0, 0.2, layer.bias.shape))
    return model


def examples(model: Any, count: int = 4) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


def check_equal(model: Any, path: Path, *, bits: int = 1) -> None:
    """The converted file gives what Keras does, within rounding; no sign of these examples is a tie."""
    convert(path, path.with_suffix(""), bits=bits, formats="edge")
    engine, x = edge.load(path.with_suffix(".edge")), examples(model)
    want, got = np.asarray(model(x)), np.stack([engine.run(example) for example in x])
    assert np.abs(want - got).max() <= 1e-5 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize(("algorithm", "suffix"), CASES)
def test_every_algorithm_saves_loads_converts_and_runs_as_trained(tmp_path: Path, algorithm: str, suffix: str) -> None:
    model, path = network(algorithm), tmp_path / f"model{suffix}"
    model.save(path)
    loaded, x = keras.saving.load_model(path), examples(model)
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(loaded(x)))
    check_equal(model, path)


def neighbours() -> Any:
    keras.utils.set_random_seed(5)
    norms = [training.LocalResponseNormalization(2, 1.5, 0.3, 0.75), training.LocalResponseNormalization()]
    return randomized(keras.Sequential([L.Input(SHAPE), L.Conv2D(16, 3), norms[0], L.Conv2D(3, 3), norms[1], L.Flatten(), L.Dense(4)]))


@pytest.mark.parametrize("bits", [32, 1])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_local_response_normalization_is_one_operation(tmp_path: Path, suffix: str, bits: int) -> None:
    model, path = neighbours(), tmp_path / f"model{suffix}"
    model.save(path)
    convert(path, path.with_suffix(""), bits=bits, formats="edge")
    engine = edge.load(path.with_suffix(".edge"))
    assert sum(step.definition.name == "local_response_norm" for step in engine.program.instructions) == 2
    if bits == 32:
        x = examples(model)
        np.testing.assert_allclose(engine.run(x), np.asarray(model(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "suffix"), [(react, ".keras"), (one_axis, ".h5")])
def test_learnable_activations_and_k_of_any_geometry_run_as_trained(tmp_path: Path, make: Any, suffix: str) -> None:
    model, path = make(), tmp_path / f"model{suffix}"
    model.save(path)
    check_equal(model, path)


@pytest.mark.parametrize("bits", [8, 32])
def test_what_is_trained_stays_at_every_width(tmp_path: Path, bits: int) -> None:
    layers = [training.QuantConv2D(8, 3, kernel_quantizer="xnor_weights"), L.Flatten()]
    model, path = keras.Sequential([L.Input((6, 6, 8)), *layers]), tmp_path / "model.keras"
    model.save(path)
    check_equal(model, path, bits=bits)


@pytest.mark.parametrize(
    "make",
    [react, *(pytest.param(partial(network, name), marks=pytest.mark.slow) for name in ("xnor-k", "dorefa-2"))],
    ids=["react", "xnor-k", "dorefa-2"],
)
def test_engine_and_tflite_are_equal_to_keras_layer_by_layer(make: Any, tmp_path: Path) -> None:
    make().save(tmp_path / "model.keras")
    convert(tmp_path / "model.keras", tmp_path / "model")
    both = compare_all(tmp_path / "model.keras", [tmp_path / "model.edge", tmp_path / "model.tflite"], count=3, keras=True)
    assert [comparison.equal for comparison in both] == [True, True]


# What the files are made of


def encodings(algorithm: str, tmp_path: Path) -> dict[str, set[tuple[Encoding, Encoding, Encoding]]]:
    """By operation: the encodings of input, filter and output of the layers between the first and the last."""
    path = tmp_path / "model.keras"
    network(algorithm).save(path)
    graph = run_passes(read_graph(read_keras(path)))
    found: dict[str, set[tuple[Encoding, Encoding, Encoding]]] = {}
    for node in graph.nodes:
        if "filter" in node.constants and not {"first", "last"} & set(node.layers):
            stored = graph.call(node).constants["filter"].encoding
            found.setdefault(node.op, set()).add((graph.types[node.inputs[0]].encoding, stored, graph.types[node.output].encoding))
    return found


@pytest.mark.parametrize("algorithm", ["xnor-weights", "dorefa-weights"])
def test_weights_of_signs_are_packed_and_alpha_is_the_scale_of_the_sums(algorithm: str, tmp_path: Path) -> None:
    kinds = (Encoding.FLOAT32, Encoding.BITS, Encoding.FLOAT32)
    assert encodings(algorithm, tmp_path) == {op: {kinds} for op in ("conv2d", "depthwise_conv2d", "dense")}


def test_without_k_signs_go_from_layer_to_layer_and_alpha_is_part_of_the_threshold(tmp_path: Path) -> None:
    assert (Encoding.BITS,) * 3 in encodings("xnor", tmp_path)["conv2d"]
    graph = run_passes(read_graph(read_keras(tmp_path / "model.keras")))
    assert {"conv", "strided"} <= {name for node in graph.nodes if "threshold" in node.constants for name in node.layers}


def test_k_is_one_map_for_each_layer_that_has_it(tmp_path: Path) -> None:
    network("xnor-k").save(tmp_path / "model.keras")
    graph = run_passes(read_graph(read_keras(tmp_path / "model.keras")))
    assert [node.layers for node in graph.nodes if node.op == "magnitude_map"] == [("conv",), ("strided",), ("dense",)]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_k_bit_layers_work_on_int8_without_float_between(bits: int, tmp_path: Path) -> None:
    found = encodings(f"dorefa-{bits}", tmp_path)
    assert all(kinds[:2] == (Encoding.INT8, Encoding.INT8) for kinds in found["dense"] | found["depthwise_conv2d"])
    assert (Encoding.INT8, Encoding.INT8, Encoding.FLOAT32) in found["conv2d"]


def test_between_k_bit_layers_with_batch_norm_and_relu_nothing_is_float(tmp_path: Path) -> None:
    x = source = L.Input((8, 8, 16))
    for name in ("first", "second", "third", "last"):
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", name=name)(x)))
    model = randomized(training.binarize(keras.Model(source, L.GlobalAveragePooling2D()(x)), "dorefa-2"))
    model.save(tmp_path / "model.keras")
    graph = run_passes(run_passes(read_graph(read_keras(tmp_path / "model.keras"))), ENGINE_PASSES)
    assert [node.op for node in graph.nodes] == ["conv2d", "quantize", "conv2d", "conv2d", "conv2d", "average_pool2d"]
    encodings = [graph.types[node.output].encoding for node in graph.nodes]
    assert encodings == [Encoding.FLOAT32, *(Encoding.INT8,) * 2, *(Encoding.FLOAT32,) * 3]
    check_equal(model, tmp_path / "model.keras")


def test_k_with_groups_in_a_file_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([L.Input((6, 6, 16)), training.QuantConv2D(16, 3, kernel_quantizer="ste_sign", groups=2)])
    model.layers[0].magnitude_map = True
    model.save(tmp_path / "model.h5")
    with pytest.raises(ModelError, match="magnitude_map together with groups"):
        convert(tmp_path / "model.h5", tmp_path / "model")


@pytest.mark.parametrize("name", ["xnor_weights", "dorefa_weights"])
def test_scales_of_weights_are_refused_for_activations(name: str, tmp_path: Path) -> None:
    keras.Sequential([L.Input((6,)), training.QuantDense(4, input_quantizer=name)]).save(tmp_path / "model.h5")
    with pytest.raises(ModelError, match=r"is for weights.*use ste_sign"):
        convert(tmp_path / "model.h5", tmp_path / "model")
