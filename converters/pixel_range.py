"""Which pixel values a model was trained on, as far as its first layers tell: 0..255, or 0..1."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edge.converters.keras_model import Call, KerasModel
from edge.converters.layers_shape import TRAINING_ONLY
from edge.converters.operations import constant_value, is_operation, operation_name

# Means and scales of pixels 0..255 are far beyond these, those of pixels 0..1 far below.
_LARGE = 4.0

_KEEPING = frozenset((*TRAINING_ONLY, "Resizing", "CenterCrop", "Cropping2D", "ZeroPadding2D", "UpSampling2D", "Permute", "Reshape"))
_KEEPING_OPERATIONS = frozenset(
    (
        *("cast", "identity", "convert_to_tensor", "stop_gradient", "copy", "get_item", "get_item_strided", "stack", "unstack", "split"),
        *("concatenate", "flip", "take", "transpose", "swapaxes", "moveaxis", "resize", "pad", "expand_dims", "squeeze", "reshape"),
    )
)


# The preset that is the `preprocess_input` of networks of keras.applications, by the names that these have there.
_USUAL = {
    "mobilenet": re.compile(r"mobilenet(v2)?_\d\.\d\d_\d+|inception(_resnet_v2|_v3)|xception|(nasnet|NASNet)(_\w+)?|resnet\d+v2"),
    "caffe": re.compile(r"vgg1[69]|resnet(50|101|152)"),
    "torch": re.compile(r"densenet\d+"),
}
_SCALING = ("Rescaling", "Normalization", "BatchNormalization")


def first_calls(model: KerasModel, names: set[str]) -> list[Call]:
    """The calls that first compute with the inputs `names`, behind those that keep their values."""
    seen, first = set(names), []
    for call in model.calls:
        if seen.intersection(call.inputs):
            if keeps_values(call):
                seen.update(call.outputs)
            else:
                first.append(call)
    return first


def usual_preset(model: KerasModel, names: set[str]) -> tuple[str, str] | None:
    """The network of keras.applications that sees the inputs `names` first, by its name, and the preset of its `preprocess_input`.

    None for others, for those that scale pixels themselves, and where another layer scales them.
    """
    for call in first_calls(model, names):
        *_, owner, _ = ("", model.name, *call.name.split("/"))
        for chosen, known in _USUAL.items():
            if known.fullmatch(owner) and not is_operation(call) and call.class_name not in _SCALING:
                return owner, chosen
    return None


def keeps_values(call: Call) -> bool:
    """Whether a call gives values of its input as they are, or means of neighbouring ones: pixels stay pixels."""
    return operation_name(call) in _KEEPING_OPERATIONS if is_operation(call) else call.class_name in _KEEPING


def takes_bytes(call: Call) -> bool:
    """Whether a call brings pixels 0..255 to a smaller range: divides them, or takes off a mean that only these have."""
    if is_operation(call):
        return _operation_takes_bytes(call)
    if call.class_name == "Rescaling":
        scales = _numbers(call.config.get("scale", 1.0))
        return bool(scales) and max(map(abs, scales)) < 1 / _LARGE
    if call.class_name == "Normalization":
        return max(map(abs, _numbers(call.config.get("mean", call.weights.get("mean")))), default=0.0) > _LARGE
    if call.class_name == "BatchNormalization":
        return max(map(abs, _numbers(call.weights.get("moving_mean"))), default=0.0) > _LARGE
    return False


def _operation_takes_bytes(call: Call) -> bool:
    given = call.config.get("constants") if call.class_name == "TensorFlowOpLayer" else call.arguments
    largest = max(map(abs, _numbers(given)), default=0.0)
    name = operation_name(call)
    if name == "multiply":
        return 0 < largest < 1 / _LARGE
    return name in ("divide", "subtract", "add") and largest > _LARGE


def _numbers(value: Any) -> list[float]:
    """All numbers of a constant, or of the arguments of a call, but for those that number its tensors."""
    return [number for number in _found(value) if math.isfinite(number)]


def _found(value: Any) -> Iterator[float]:
    value = constant_value(value)
    if isinstance(value, np.ndarray):
        yield from value.reshape(-1).astype(float).tolist()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from () if key in ("input", "name", "dtype") else _found(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _found(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)
