"""What a Keras file holds, without Keras: layer applications in order, their weights, the inputs and the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Value:
    """A tensor of the source model; `shape` is without the batch, None for a size the file leaves open."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Call:
    """One application of one layer.

    name        the layer's name, "outer/inner" inside a nested model; a further application of a shared layer (or of a layer of a
                shared nested model) is "name#2", "name#3", ...
    class_name  without package: "Larq>QuantConv2D" is "QuantConv2D". A function of `keras.ops` that Keras 3 records like a layer is
                "ops.Add": it takes numbers beside tensors and must not pass for the layer `Add`
    package     what the class was registered under ("Larq", "Custom"), or its module where it is not Keras' own; None: Keras' own,
                or the file does not say
    config      the layer's configuration as written; objects of Keras 3 ({"module", "class_name", "config", ...}) are left as they are
    weights     float32, read-only, by short name: kernel, bias, gamma, beta, moving_mean, moving_variance, depthwise_kernel, ...;
                those of a class this project does not know have the names of the file, which may be "0", "1", ...
    inputs      names of values, in the order of the call
    outputs     names of values: the call's name, then "name:1", ...; as many as are used
    arguments   what else the call was given and is not null: by keyword, or "0", "1", ... by position; a tensor in it is
                {"input": k}, the k-th of `inputs`
    """

    name: str
    class_name: str
    package: str | None
    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class KerasModel:
    """A Keras model as its file describes it.

    calls         in topological order; input layers are not among them, nor calls that no output needs
    outputs       names of values; `output_names` are the layers (or dictionary keys) they come from, in the same order
    training      None where the file has no compile configuration, else {"loss": ..., "from_logits": bool}: loss is a snake_case
                  name or None, or a tuple of these where the model was compiled with several
    source        file name without folder; `sha256` is of the file's bytes, in hexadecimal
    """

    name: str
    keras_version: str
    calls: tuple[Call, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    source: str
    sha256: str
    training: Mapping[str, Any] | None


def without_values(model: KerasModel) -> KerasModel:
    """The same model with zeros for weights, which take no memory: for what asks for shapes and names alone."""
    zero = np.float32(0)
    return replace(
        model,
        calls=tuple(
            replace(call, weights={name: np.broadcast_to(zero, weight.shape) for name, weight in call.weights.items()})
            for call in model.calls
        ),
    )
