"""`binarize`: which layers it swaps, which it keeps, and what it leaves as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge.errors import InputError

keras = pytest.importorskip("keras", reason="training needs Keras")
training = pytest.importorskip("edge.training")
L: Any = keras.layers


def sequential() -> Any:
    return keras.Sequential(
        [
            L.Input((12, 12, 3)),
            L.Conv2D(8, 3, activation="relu", name="first"),
            L.BatchNormalization(),
            L.Conv2D(16, 3, activation="relu", name="fused", kernel_constraint="non_neg"),
            L.MaxPooling2D(),
            L.Conv2D(16, 3, name="plain"),
            L.BatchNormalization(),
            L.ReLU(name="relu"),
            L.Flatten(),
            L.Dense(8, activation="relu", name="dense"),
            L.Dense(3, activation="softmax", name="last"),
        ]
    )


def functional() -> Any:
    """Nested, with a sum, two outputs, and every layer that is swapped."""
    two = [L.DepthwiseConv2D(3, name="depthwise"), L.SeparableConv2D(8, 3, name="separable")]
    inner = keras.Sequential([L.Input((10, 10, 8)), *two], name="inner")
    x = source = L.Input((12, 12, 3))
    before = L.ReLU(name="before")(L.Conv2D(8, 3, name="first")(x))
    x = L.Add()([before, L.Conv2D(8, 3, padding="same", name="shared_input")(before)])
    x = L.Conv2DTranspose(8, 3, name="transposed")(inner(x))
    x = L.GlobalAveragePooling2D()(x)
    head = L.Dense(4, name="head")(L.Dense(6, activation="relu", name="hidden")(x))
    return keras.Model(source, [L.Dense(3, name="other_head")(x), head])


def layer(model: Any, name: str) -> Any:
    for part in name.split("/"):
        model = model.get_layer(part)
    return model


def classes(model: Any, *names: str) -> list[str]:
    return [type(layer(model, name)).__name__ for name in names]


def test_all_layers_but_the_first_and_the_last_are_swapped_and_keep_their_weights() -> None:
    model = sequential()
    found = training.binarize(model)
    assert isinstance(found, keras.Sequential)
    assert classes(found, "first", "fused", "plain", "dense", "last") == ["Conv2D", "QuantConv2D", "QuantConv2D", "QuantDense", "Dense"]
    for before, after in zip(model.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert classes(model, "fused") == ["Conv2D"]  # the model itself is as it was
    swapped = found.get_layer("plain")
    assert isinstance(swapped.kernel_quantizer, training.XnorWeights)
    assert isinstance(swapped.kernel_constraint, training.WeightClip)
    assert isinstance(found.get_layer("fused").kernel_constraint, keras.constraints.NonNeg)


def test_in_nested_models_and_with_several_outputs_every_way_has_its_ends() -> None:
    found = training.binarize(functional())
    names = ["first", "shared_input", "inner/depthwise", "inner/separable", "transposed", "hidden", "head", "other_head"]
    swapped = ["QuantConv2D", "QuantDepthwiseConv2D", "QuantSeparableConv2D", "QuantConv2DTranspose", "QuantDense"]
    assert classes(found, *names) == ["Conv2D", *swapped, "Dense", "Dense"]
    assert [output.shape for output in found(np.zeros((1, 12, 12, 3), np.float32))] == [(1, 3), (1, 4)]


def test_activations_of_which_only_signs_would_be_taken_are_left_out() -> None:
    found = training.binarize(sequential(), "xnor")
    assert found.get_layer("fused").activation is keras.activations.linear
    assert isinstance(found.get_layer("relu"), L.Activation)
    assert found.get_layer("relu").activation is keras.activations.linear
    assert found.get_layer("first").activation is keras.activations.relu  # a batch norm reads it
    assert found.get_layer("dense").activation is keras.activations.relu  # the last layer, which is kept, reads it
    assert isinstance(training.binarize(functional(), "xnor").get_layer("before"), L.ReLU)  # a sum reads it


@pytest.mark.parametrize("algorithm", ["xnor-weights", "dorefa-weights", "dorefa-3"])
def test_activations_stay_where_no_signs_are_taken(algorithm: str) -> None:
    found = training.binarize(sequential(), algorithm)
    assert found.get_layer("fused").activation is keras.activations.relu
    assert isinstance(found.get_layer("relu"), L.ReLU)


@pytest.mark.parametrize("algorithm", training.ALGORITHMS)
def test_every_algorithm_makes_a_model_that_runs_and_trains(algorithm: str) -> None:
    model = training.binarize(sequential(), algorithm)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 12, 12, 3)).astype(np.float32), random.integers(0, 3, 8)
    before = model.get_layer("plain").kernel.numpy()
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(x, y)
    assert np.isfinite(np.asarray(model(x))).all()
    assert not np.array_equal(before, model.get_layer("plain").kernel.numpy())
    wanted = training.find_algorithm(algorithm)
    assert model.get_layer("plain").magnitude_map is wanted.magnitude_map
    assert (model.get_layer("plain").input_quantizer is None) == (wanted.input_quantizer is None)


def test_keep_names_the_layers_that_stay_and_a_first_layer_reads_its_input_as_it_is() -> None:
    found = training.binarize(sequential(), "xnor-k", keep=["plain"])
    assert classes(found, "first", "fused", "plain") == ["QuantConv2D", "QuantConv2D", "Conv2D"]
    assert classes(found, "dense", "last") == ["QuantDense", "QuantDense"]
    assert found.get_layer("first").input_quantizer is None
    assert found.get_layer("fused").magnitude_map
    nested = training.binarize(functional(), keep=["inner/depthwise"])
    assert classes(nested, "first", "inner/depthwise", "head") == ["QuantConv2D", "DepthwiseConv2D", "QuantDense"]


def test_quantizers_of_ones_own_make_an_algorithm() -> None:
    own = training.Algorithm({"class_name": "SteTern", "config": {"threshold_value": 0.02}}, "swish_sign")
    found = training.binarize(sequential(), own).get_layer("plain")
    assert isinstance(found.kernel_quantizer, training.SteTern)
    assert isinstance(found.input_quantizer, training.SwishSign)


def test_shared_layers_stay_shared() -> None:
    shared = L.Conv2D(8, 3, padding="same", name="shared")
    x = source = L.Input((8, 8, 8))
    x = L.Conv2D(8, 3, padding="same", name="first")(x)
    x = L.Flatten()(shared(shared(x)))
    found = training.binarize(keras.Model(source, L.Dense(2, name="last")(x)))
    assert classes(found, "first", "shared", "last") == ["Conv2D", "QuantConv2D", "Dense"]
    assert len(found.layers) == 5


def test_functions_in_functional_models_are_kept() -> None:
    x = source = L.Input((8, 8, 8))
    x = L.Conv2D(8, 3, padding="same", name="first")(x)
    x = keras.ops.relu(x + 2 * L.Conv2D(8, 3, padding="same", name="middle")(x))
    model = keras.Model(source, L.Dense(2, name="last")(L.Flatten()(x)))
    found = training.binarize(model, "dorefa-weights")
    assert classes(found, "first", "middle", "last") == ["Conv2D", "QuantConv2D", "Dense"]
    assert found(np.zeros((1, 8, 8, 8), np.float32)).shape == (1, 2)


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def called() -> Any:
    model = Subclassed()
    model(np.zeros((1, 3), np.float32))
    return model


@pytest.mark.parametrize(
    ("model", "arguments", "problem"),
    [
        (Subclassed, {}, "functional or sequential Keras model.*got Subclassed"),
        (called, {}, "functional or sequential Keras model.*got Subclassed"),
        (lambda: keras.Sequential([L.Dense(3)]), {}, "give a Sequential model an Input layer"),
        (lambda: "model.keras", {}, "got str"),
        (sequential, {"algorithm": "binary"}, "expected one of|should be one of xnor-weights, .*got 'binary'"),
        (sequential, {"keep": ["nope"]}, "got 'nope'; with weights there are first, fused, plain, dense, last"),
        (lambda: keras.Sequential([L.Input((3,)), L.Dense(3, name="only")]), {}, r"no layer to binarize.*\(only\)"),
    ],
)
def test_what_cannot_be_swapped_is_refused(model: Any, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        training.binarize(model(), **arguments)
