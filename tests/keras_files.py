"""Small `.h5` model files in the layout of Keras 2, written with h5py alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Layer = tuple[str, Mapping[str, Any], Mapping[str, np.ndarray]]
"""Class name, configuration with a "name", weights by name."""

COLOURS = ("red", "green", "blue")
# Each output is large where one channel is bright and the others are dark.
OPPONENTS = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)


def write_h5(path: Path, layers: Sequence[Layer], shape: Sequence[int | None], *, loss: str | None = None) -> Path:
    """A sequential model with an input of `shape` (without batch)."""
    first = {"class_name": "InputLayer", "config": {"name": "picture", "batch_input_shape": [None, *shape], "dtype": "float32"}}
    rest = [{"class_name": kind, "config": dict(config)} for kind, config, _ in layers]
    return _write(path, {"class_name": "Sequential", "config": {"name": path.stem, "layers": [first, *rest]}}, layers, loss)


def write_heads(path: Path, shape: Sequence[int], trunk: Layer, heads: Sequence[Sequence[Layer]]) -> Path:
    """A functional model: `trunk` after the input, then chains of layers side by side, each ending in an output."""
    config = {"name": "picture", "batch_input_shape": [None, *shape], "dtype": "float32"}
    nodes: list[dict[str, Any]] = [{"class_name": "InputLayer", "name": "picture", "config": config, "inbound_nodes": []}]
    nodes.append(_node(trunk, "picture"))
    outputs = []
    for chain in heads:
        source = trunk[1]["name"]
        for layer in chain:
            nodes.append(_node(layer, source))
            source = layer[1]["name"]
        outputs.append([source, 0, 0])
    model = {"name": path.stem, "layers": nodes, "input_layers": [["picture", 0, 0]], "output_layers": outputs}
    return _write(path, {"class_name": "Functional", "config": model}, [trunk, *(layer for chain in heads for layer in chain)], None)


def _node(layer: Layer, source: str) -> dict[str, Any]:
    kind, config, _ = layer
    return {"class_name": kind, "name": config["name"], "config": dict(config), "inbound_nodes": [[[source, 0, 0, {}]]]}


def _write(path: Path, model: Mapping[str, Any], layers: Sequence[Layer], loss: str | None) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file.attrs["keras_version"] = "2.11.0"
        file.attrs["backend"] = "tensorflow"
        if loss:
            file.attrs["training_config"] = json.dumps({"loss": loss})
        _write_weights(file.create_group("model_weights"), layers)
    return path


def write_weights_only(path: Path, layers: Sequence[Layer]) -> Path:
    """What `model.save_weights` writes: no configuration."""
    with h5py.File(path, "w") as file:
        _write_weights(file, layers)
    return path


def _write_weights(group: h5py.Group, layers: Sequence[Layer]) -> None:
    group.attrs["layer_names"] = [config["name"].encode() for _, config, _ in layers]
    for _, config, weights in layers:
        own = group.create_group(config["name"])
        own.attrs["weight_names"] = [f"{config['name']}/{name}:0".encode() for name in weights]
        for name, values in weights.items():
            own[f"{config['name']}/{name}:0"] = values


def conv(name: str, kernel: np.ndarray, **config: Any) -> Layer:
    """A convolution with a kernel (kh, kw, in, out) and no bias."""
    given = {"name": name, "filters": kernel.shape[3], "kernel_size": list(kernel.shape[:2]), "use_bias": False, **config}
    return config.get("kind", "Conv2D"), {key: value for key, value in given.items() if key != "kind"}, {"kernel": kernel}


def dense(name: str, kernel: np.ndarray, activation: str = "linear") -> Layer:
    """A dense layer with a kernel (in, out) and no bias."""
    return "Dense", {"name": name, "units": kernel.shape[1], "use_bias": False, "activation": activation}, {"kernel": kernel}


def pool() -> Layer:
    return "GlobalAveragePooling2D", {"name": "pool"}, {}


def rescaling(scale: float = 1 / 255) -> Layer:
    return "Rescaling", {"name": "rescale", "scale": scale, "offset": 0.0}, {}


def colour_layers(activation: str = "softmax") -> list[Layer]:
    """Tells red, green and blue pictures (classes 0, 1, 2) apart, and still does with weights of 1 bit."""
    return [
        conv("first", OPPONENTS[None, None]),
        conv("middle", OPPONENTS[None, None]),
        pool(),
        dense("last", 4 * np.eye(3, dtype=np.float32), activation),
    ]


def binary_colour_layers() -> list[Layer]:
    """The same with a binarized layer, as Larq saves one."""
    first, _, *rest = colour_layers()
    signs = {"kind": "QuantConv2D", "input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return [first, conv("signs", OPPONENTS[None, None], **signs), *rest]
