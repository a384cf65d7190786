"""Models with their channels first, (C, H, W), read into a graph that has them last, (H, W, C).

A file takes pictures as picture files hold them: its input is turned. So is what layers with data_format 'channels_first' give; layers that
act on each value by itself, and those along the channels (axis 1), follow. Everything else gets the source's order back by a `transpose`,
which passes remove where the next layer can read the values in another order (`edge.converters.passes_layout`). An output stays turned.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.converters.builder import Builder, Layer, describe
from edge.converters.keras_model import Call, KerasModel, Value
from edge.converters.layers_activation import name_and_config
from edge.converters.layers_shape import TRAINING_ONLY, transposed
from edge.converters.layouts_functions import FIRST, LAST, Following, data_format, turned_axis, turned_function, with_channels_last
from edge.converters.operations import is_operation
from edge.errors import ModelError

SUFFIX = "/channels_last"  # of the names of turned tensors, whose values are in another order than the source's

_EACH_VALUE = frozenset(("ReLU", "LeakyReLU", "ELU", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", *TRAINING_ONLY))
_ALONG_CHANNELS = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "Normalization", "Softmax")
_ALONG_A_WINDOW = ("softmax", "log_softmax", "Softmax")  # activations that act along the last axis


def is_turned(tensor: str) -> bool:
    """Whether a tensor that a layer gives is turned, by its name."""
    return tensor.removesuffix("/unpack").endswith(SUFFIX)


def turned_shape(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """(C, H, W) as (H, W, C)."""
    return (*shape[1:], shape[0])


def turned_inputs(model: KerasModel) -> frozenset[str]:
    """The inputs whose channels are first: of those that layers with data_format 'channels_first' read, and no other convolution."""
    return frozenset(value.name for value in model.inputs if value.shape and len(value.shape) > 1 and _is_read_first(value, model))


def _is_read_first(value: Value, model: KerasModel) -> bool:
    names, first, last = {value.name}, False, False
    for call in model.calls:
        if not names.intersection(call.inputs):
            continue
        first = first or _is_first(call)
        last = last or data_format(call) == LAST
        if call.class_name not in TRAINING_ONLY and _is_first(call):
            continue
        following = _following(call, len(value.shape or ()))
        if following is not None and following[1]:
            names.update(call.outputs)
    return first and not last


def _is_first(call: Call) -> bool:
    return data_format(call) == FIRST


class Layouts:
    """Which values of the source are held turned, while a graph is being read; `tensors` holds every value so far."""

    def __init__(self, build: Builder) -> None:
        self._build = build
        self._turned: set[str] = set()
        self._turned_back: dict[str, str] = {}
        self.tensors: dict[str, str] = {}

    def hold(self, value: str, tensor: str, *, turned: bool = False) -> None:
        """Note which tensor holds a value of the source, and whether it is turned; vectors cannot be."""
        self.tensors[value] = tensor
        if turned and self._rank(tensor) > 1:
            self._turned.add(value)

    def adapted(self, call: Call) -> tuple[Call, tuple[str, ...], bool]:
        """A call as it is to be read, the tensors it then takes, and whether what it gives is turned."""
        if _is_first(call):
            _check_activation(call)
            return with_channels_last(call), self._all_last(call), True
        if not self._turned.intersection(call.inputs):
            return call, tuple(self.tensors[name] for name in call.inputs), False
        ranks = {self._rank(self.tensors[name]) for name in call.inputs}
        following = _following(call, ranks.pop()) if len(ranks) == 1 else None
        if following is None:
            return call, tuple(self._first(call, name) for name in call.inputs), False
        return following[0], self._all_last(call), following[1]

    def _rank(self, tensor: str) -> int:
        return len(self._build.types[tensor].shape)

    def _first(self, call: Call, value: str) -> str:
        """A value in the order of the source, where it is made under its own name."""
        tensor = self.tensors[value]
        if value not in self._turned:
            return tensor
        if tensor not in self._turned_back:
            rank = self._rank(tensor)
            made = transposed(self._layer(call, tensor), self._build, tensor, (rank, *range(1, rank)))
            if value not in self._build.types and self._build.nodes[-1].output == made:
                made = self._build.rename(made, value)
            self._turned_back[tensor] = made
        return self._turned_back[tensor]

    def _all_last(self, call: Call) -> tuple[str, ...]:
        """What a call takes, with the channels last."""
        return tuple(self._last(call, name) for name in call.inputs)

    def _last(self, call: Call, value: str) -> str:
        tensor = self.tensors[value]
        rank = self._rank(tensor)
        if value in self._turned or rank < 2:
            return tensor
        return transposed(self._layer(call, tensor), self._build, tensor, (*range(2, rank + 1), 1))

    def _layer(self, call: Call, tensor: str) -> Layer:
        return Layer(call, (tensor,), (self._build.types[tensor],))


def _check_activation(call: Call) -> None:
    """Keras applies a fused softmax to the last axis, which is no channel here."""
    if name_and_config(call.config.get("activation"))[0] in _ALONG_A_WINDOW and not call.class_name.startswith("Global"):
        raise ModelError(
            f"{describe(call)}: with data_format 'channels_first' its softmax runs along the width of the image, which is not supported; "
            "take the activation out of the layer and put a Softmax(axis=1) behind it"
        )


def _following(call: Call, rank: int) -> Following | None:
    """The call on turned tensors of this rank that gives the result of its own; None where there is none."""
    if is_operation(call):
        return turned_function(call, rank)
    layer = _turned_layer(call, rank)
    return None if layer is None else (layer, True)


def _turned_layer(call: Call, rank: int) -> Call | None:
    """The layer on turned tensors that gives the turned result of its own."""
    name, config = call.class_name, call.config
    if name == "Activation":
        return None if name_and_config(config.get("activation"))[0] in _ALONG_A_WINDOW else call
    if name in _EACH_VALUE:
        return call
    if name == "Rescaling":
        return None if any(isinstance(config.get(key), (list, tuple)) for key in ("scale", "offset")) else call
    if name == "PReLU":
        weights = {key: np.moveaxis(alpha, 0, -1) for key, alpha in call.weights.items()}
        return replace(call, weights=weights) if all(alpha.ndim == rank for alpha in weights.values()) else None
    if name == "Concatenate":
        axis = turned_axis(config.get("axis", -1), rank)
        return None if axis is None else replace(call, config={**config, "axis": axis})
    if name in _ALONG_CHANNELS:
        return replace(call, config={**config, "axis": -1}) if turned_axis(config.get("axis", -1), rank) == -1 else None
    return None
