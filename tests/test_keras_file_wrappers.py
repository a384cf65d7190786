"""What training leaves in Keras files: wrappers of tensorflow_model_optimization, mixed precision; and layers refused by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import model_of
from test_keras_file_weights import write_h5

from edge.converters.keras_file import read_keras
from edge.converters.layers import read_graph
from edge.errors import ModelError
from edge.kernels.reference import run_graph

KERNEL = np.array([[1.0, 0.0], [0.0, -2.0]], np.float32)


def wrapped(kind: str) -> dict[str, Any]:
    dense = {"class_name": "Dense", "config": {"name": "dense", "units": 2, "use_bias": False}}
    return {"class_name": kind, "config": {"name": "wrapped", "batch_input_shape": [None, 2], "layer": dense}}


def test_pruned_layers_are_read_as_the_layers_within(tmp_path: Path) -> None:
    arrays = {"wrapped/kernel:0": KERNEL, "wrapped/mask:0": KERNEL != 0, "wrapped/threshold:0": 0.5, "wrapped/pruning_step:0": np.int64(7)}
    arrays["wrapped/mask:0"] = arrays["wrapped/mask:0"].astype(np.float32)
    for kind in ("PruneLowMagnitude", "TensorFlowModelOptimization>PruneLowMagnitude"):
        (call,) = read_keras(write_h5(tmp_path / "model.h5", [wrapped(kind)], {"wrapped": arrays})).calls
        assert (call.name, call.class_name, call.package, list(call.weights)) == ("wrapped", "Dense", None, ["kernel"])
        np.testing.assert_array_equal(call.weights["kernel"], KERNEL)


def test_clustered_layers_take_their_centroids(tmp_path: Path) -> None:
    arrays = {"wrapped/cluster_centroids_kernel_0:0": np.array([-2.0, 0.0, 1.0], np.float32),
              "wrapped/pulling_indices_kernel_0:0": np.array([[2, 1], [1, 0]])}  # fmt: skip
    for further in ({}, {"wrapped/kernel:0": KERNEL + 0.1}):
        (call,) = read_keras(write_h5(tmp_path / "model.h5", [wrapped("ClusterWeights")], {"wrapped": {**arrays, **further}})).calls
        assert (call.class_name, list(call.weights)) == ("Dense", ["kernel"])
        np.testing.assert_array_equal(call.weights["kernel"], KERNEL)


def test_a_wrapper_without_a_layer_is_refused(tmp_path: Path) -> None:
    layer = {"class_name": "PruneLowMagnitude", "config": {"name": "wrapped", "batch_input_shape": [None, 2], "layer": 3}}
    with pytest.raises(ModelError, match=r"'wrapped' \(PruneLowMagnitude\): this layer is not supported"):
        read_graph(read_keras(write_h5(tmp_path / "model.h5", [layer], {})))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_models_of_other_precisions_give_nearly_what_keras_gives(policy: str, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="Keras itself is the oracle, and needs TensorFlow")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    own = {"dtype": policy}
    layers = [
        keras.layers.Conv2D(4, 3, **own),
        keras.layers.BatchNormalization(**own),
        keras.layers.ReLU(**own),
        keras.layers.Flatten(**own),
    ]
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers, keras.layers.Dense(3, activation="softmax", dtype="float32")])
    model.save(tmp_path / f"model{suffix}")
    graph = read_graph(read_keras(tmp_path / f"model{suffix}"))
    x = np.random.default_rng(1).normal(size=(1, 6, 6, 3)).astype(np.float32)
    got = run_graph(graph, {graph.inputs[0]: x[0]})[graph.outputs[0]]
    np.testing.assert_allclose(got, model.predict(x, verbose=0)[0], atol=0.02)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("LSTM", "recurrent layers are not supported; replace it by Conv1D layers"),
        ("ConvLSTM2D", "recurrent layers"),
        ("CuDNNGRU", "recurrent layers"),
        ("MultiHeadAttention", "attention is not supported; replace it by convolutions"),
        ("Conv3D", "three dimensions are not supported; replace it by its 2D form"),
        ("QuantizeWrapperV2", "as it was before quantize_model, and convert it with --bits 8"),
        ("TextVectorization", "prepares text or categories, which edge does not; do it before the model"),
        ("Lambda", "holds Python code, which edge never runs"),
    ],
)
def test_refusals_by_kind_say_what_to_do(kind: str, says: str) -> None:
    with pytest.raises(ModelError, match=rf"layer 'layer0' \({kind}\): .*{says}"):
        read_graph(model_of((kind, {}, {})))
