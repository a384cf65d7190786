"""Every layer of the table in docs/layers.md, with random options, at 32, 8 and 1 bits against Keras.

With weights of one magnitude a layer, which every width holds exactly, the converted network has to equal its source at all of them
(`EXACT`). With other weights it does at 32 bits; at 8, where each weight is off by at most 1/254 of the largest of its channel, outputs of
such small networks are within `ROUNDED` of it. Both are relative to the largest output where that is above 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_oracle import examples, randomize, relative
from layer_draws import JOINS, LAYERS, model_with, of_one_magnitude

from edge.converters.bits import Request, choose_bits
from edge.converters.keras_file import read_keras
from edge.converters.layer_support import REFUSED, layer_support
from edge.converters.layers import read_graph
from edge.converters.layers_shape import TRAINING_ONLY
from edge.converters.passes import run_passes
from edge.converters.passes_epilogue import ENGINE_PASSES
from edge.kernels.reference import run_program
from edge.lower import to_program
from edge.tensors import Encoding
from edge.verifier import verify

EXACT = 2e-5
ROUNDED = 0.1
# Layers of other packages have tests of their own, as has Embedding, and those that keras.applications define.
ELSEWHERE = ("Quant", "Q", "RSign", "RPReLU", "Embedding", "LayerScale", "StochasticDepth", "CustomScaleLayer", "LocalResponse")
# Whose weights are packed at 1 bit.
WEIGHTED = ("Conv", "Depthwise", "Separable", "Dense", *JOINS)


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    return pytest.importorskip("keras")


def errors(name: str, model: Any, path: Path, seed: int, widths: tuple[int, ...]) -> dict[int, float]:
    """By width: how far what the file's instructions mean is from Keras."""
    x = examples(model.input_shape[1:], seed)
    expected = np.asarray(model(x, training=False))
    model.save(path)
    simple = run_passes(read_graph(read_keras(path)))
    found = {}
    for bits in widths:
        program = to_program(run_passes(choose_bits(simple, Request(bits, 32)), ENGINE_PASSES))
        verify(program)
        packed = any(constant.type.encoding is Encoding.BITS for constant in program.constants)
        between = sum("filter" in node.constants for node in simple.nodes) > 2  # a 1 x 1 depthwise convolution joins the layer before it
        assert packed or bits > 1 or not (between and name.startswith(WEIGHTED)), [node.op for node in simple.nodes]
        got = np.stack([run_program(program, [example])[program.outputs[0]] for example in x])
        found[bits] = relative(got, expected)
    return found


def check(keras: Any, name: str, seed: int, path: Path) -> None:
    model = model_with(keras, name, seed)
    of_one_magnitude(model, seed)
    same = errors(name, model, path, seed, (32, 8, 1))
    assert max(same.values()) < EXACT, same
    randomize(model, seed)
    rounded = errors(name, model, path, seed, (32, 8))
    assert rounded[32] < EXACT and rounded[8] < ROUNDED, rounded


def test_every_layer_of_the_table_is_tried() -> None:
    table = {name for name, words in layer_support().items() if words[0] != REFUSED and name not in TRAINING_ONLY}
    assert {name for name in table if not name.startswith(ELSEWHERE)} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_keras_at_every_width(name: str, keras: Any, tmp_path: Path) -> None:
    check(keras, name, 1, tmp_path / "model.keras")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_many_options_equal_keras_at_every_width(name: str, keras: Any, tmp_path: Path) -> None:
    for seed in range(2, 14):
        check(keras, name, seed, tmp_path / "model.keras")
