"""Keras files read without Keras: Larq's layers (tests/fixtures), files written by hand in the ways of older versions, models of others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.converters.keras_file import Call, read_keras
from edge.errors import ModelError

FIXTURES = Path(__file__).parent / "fixtures"
MLPERF_TINY = Path(__file__).resolve().parents[2] / "shared" / "models" / "mlperf_tiny"
SUFFIXES = (".keras", ".h5")
Array = np.ndarray[Any, Any]


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
