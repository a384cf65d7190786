"""Random small networks of all kinds of layers, made and computed by Keras: what edge makes of them computes the same.

A network is drawn from a seed; `random_model(keras, seed)` makes it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_oracle import examples, randomize, relative
from layer_draws import of_one_magnitude

import edge
from edge.converters.bits import Request, choose_bits
from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.format import read
from edge.kernels.reference import run_graph, run_program
from edge.lower import to_program

ACTIVATIONS = ("relu", "elu", "silu", "gelu", "sigmoid", "tanh", "softplus", "softsign", "mish", "selu", "hard_sigmoid", "hard_silu")
JOINS = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


class Draw:
    """Random layers that fit an image of the given shape."""

    def __init__(self, layers: Any, seed: int) -> None:
        self.k = layers
        self.random = np.random.default_rng(seed)

    def one(self, *values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def window(self, shape: tuple[int, ...], most: int = 4) -> dict[str, Any]:
        """Of a convolution: sides that need not be equal, strides or dilation, padding."""
        sides = tuple(int(self.random.integers(1, 1 + min(most, size))) for size in shape[:2])
        steps = self.one({"strides": (self.one(1, 2), self.one(1, 2, 3))}, {"strides": 1}, {"strides": 1})
        return {"kernel_size": sides, "padding": self.one("same", "valid"), "use_bias": self.one(True, False), **steps}

    def square(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Of a depthwise convolution, whose strides TensorFlow wants equal."""
        return {**self.window(shape), "strides": self.one(1, 2)}

    def layer(self, shape: tuple[int, ...]) -> Any:
        k, one = self.k, self.one
        return one(
            lambda: k.Conv2D(one(1, 3, 5, 8, 9), **self.window(shape)),
            lambda: k.Conv2D(one(4, 8), one(1, 2), padding="same", dilation_rate=(2, 1)),
            lambda: k.DepthwiseConv2D(depth_multiplier=one(1, 2), **self.square(shape)),
            lambda: k.SeparableConv2D(one(3, 8), **self.square(shape)),
            lambda: k.Conv2DTranspose(one(2, 3, 8), **self.window(shape)),
            lambda: k.BatchNormalization(),
            lambda: k.LayerNormalization(epsilon=0.1),
            lambda: k.Activation(one(*ACTIVATIONS)),
            lambda: k.LeakyReLU(0.3),
            lambda: k.PReLU(shared_axes=[1, 2]),
            lambda: one(k.MaxPooling2D, k.AveragePooling2D)((one(1, 2), one(1, 2, 3)), padding="same"),
            lambda: k.ZeroPadding2D(((one(0, 1), 1), (2, one(0, 1)))),
            lambda: k.Cropping2D(((one(0, 1), 0), (0, one(0, 1)))) if min(shape[:2]) > 2 else k.ReLU(6.0),
            lambda: k.UpSampling2D((one(1, 2), 2), interpolation=one("nearest", "bilinear")),
            lambda: k.Resizing(one(4, 7), one(5, 6), interpolation=one("nearest", "bilinear")),
            lambda: k.Permute((2, 1, 3)),
            lambda: k.Rescaling(0.5, -0.1),
        )()

    def step(self, x: Any) -> Any:
        """`x` after one layer, or after two of its kind that are joined."""
        shape = x.shape[1:]
        if self.random.random() > 0.25:
            return self.layer(shape)(x)
        channels = self.one(4, 8)
        parts = [self.k.Conv2D(channels, self.one(1, 2, 3), padding="same")(x) for _ in range(2)]
        if self.random.random() < 0.3:
            parts[1] = self.k.GlobalAveragePooling2D(keepdims=True)(parts[1])
        join = self.one(*JOINS) if parts[1].shape == parts[0].shape else self.one(*JOINS[:-1])
        return getattr(self.k, join)()(parts)


def random_model(keras: Any, seed: int) -> Any:
    draw = Draw(keras.layers, seed)
    source = keras.Input((draw.one(6, 7, 9), draw.one(5, 8), draw.one(1, 3, 4)))
    x = source
    for _ in range(6):
        y = draw.step(x)
        x = y if min(y.shape[1:3]) >= 1 and max(y.shape[1:3]) <= 40 else x
    pool, units = draw.one(keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D, keras.layers.Flatten)(), draw.one(3, 10)
    model = keras.Model(source, keras.layers.Dense(units)(pool(x)))
    randomize(model, seed)
    return model


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_equal_keras(seed: int, keras: Any, tmp_path: Path) -> None:
    model = random_model(keras, seed)
    x = examples(model.input_shape[1:], seed)
    expected = np.asarray(model(x, training=False))
    model.save(tmp_path / "model.keras")
    plain = read_graph(read_keras(tmp_path / "model.keras"))
    for graph in (plain, run_passes(plain)):
        got = np.stack([run_graph(graph, {graph.inputs[0]: example})[graph.outputs[0]] for example in x])
        assert relative(got, expected) < 2e-5


@pytest.mark.parametrize("seed", [*range(12, 18), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(18, 60))])
def test_random_networks_of_one_magnitude_equal_keras_at_every_width(seed: int, keras: Any, tmp_path: Path) -> None:
    """Weights +-alpha, one alpha for each layer, are the same at 32, 8 and 1 bits, and so is what is computed of them."""
    model = random_model(keras, seed)
    of_one_magnitude(model, seed)
    x = examples(model.input_shape[1:], seed)
    expected = np.asarray(model(x, training=False))
    model.save(tmp_path / "model.keras")
    simple = run_passes(read_graph(read_keras(tmp_path / "model.keras")))
    for bits in (32, 8, 1):
        program = to_program(run_passes(choose_bits(simple, Request(bits, 32)), ENGINE_PASSES))
        got = np.stack([run_program(program, [example])[program.outputs[0]] for example in x])
        assert relative(got, expected) < 2e-5, bits


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 8, 1])
@pytest.mark.parametrize("seed", range(100, 104))
def test_files_of_random_networks_agree(seed: int, bits: int, keras: Any, tmp_path: Path) -> None:
    from edge.tflite_runner import load_tflite

    model = random_model(keras, seed)
    x = examples(model.input_shape[1:], seed)
    model.save(tmp_path / "model.keras")
    edge.convert(tmp_path / "model.keras", tmp_path, bits=bits)
    engine, program = edge.load(tmp_path / "model.edge"), read(tmp_path / "model.edge")
    got = np.stack([engine.run(example) for example in x])
    reference = np.stack([run_program(program, [example])[program.outputs[0]] for example in x])
    assert relative(got, reference) < 1e-4
    assert relative(np.asarray(load_tflite(tmp_path / "model.tflite").run(x)), got) < 1e-3
    if bits == 32:
        assert relative(got, np.asarray(model(x, training=False))) < 1e-4
