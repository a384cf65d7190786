"""`binarize`: the layers of a Keras model swapped for binarized or k-bit ones, and the algorithms by name.

| algorithm       | weights                                   | input of the layer         | beside                       |
|-----------------|-------------------------------------------|----------------------------|------------------------------|
| `xnor-weights`  | alpha * sign(w), one alpha by output      | as it is                   |                              |
| `dorefa-weights`| alpha * sign(w), one alpha for the layer  | as it is                   |                              |
| `xnor`          | as `xnor-weights`                         | sign(x)                    |                              |
| `xnor-k`        | as `xnor-weights`                         | sign(x)                    | K, the mean of abs(x) in it  |
| `dorefa-2` ... 4| 2, 3 or 4 bits                            | 2, 3 or 4 bits, of 0 to 1  |                              |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edge.converters.keras_graph import Flattener, live_calls
from edge.converters.keras_model import Call
from edge.converters.keras_tree import read_model
from edge.errors import InputError, ModelError
from edge.training_base import get_quantizer, keras
from edge.training_layers import (
    QuantConv1D,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantDense,
    QuantDepthwiseConv2D,
    QuantSeparableConv2D,
)
from edge.training_quantizers import ApproxSign, SteSign, SwishSign

Model = Any
"""A Keras model (Keras publishes no types)."""


@dataclass(frozen=True)
class Algorithm:
    """Quantizers as layer arguments name them (`edge.training.get_quantizer`), and whether sums of signs are multiplied by K."""

    kernel_quantizer: object
    input_quantizer: object = None
    magnitude_map: bool = False

    def arguments(self, class_name: str, *, reads_input: bool = False) -> dict[str, Any]:
        """The arguments of a layer of this class of `edge.training`, such as "QuantConv2D"; K where the layer has it.

        `reads_input`: the layer reads what the network is given, pixels say, and takes that as it is.
        """
        kernels = _KERNELS.get(class_name, ("kernel",))
        found = {f"{kernel}_quantizer": self.kernel_quantizer for kernel in kernels}
        found |= {f"{kernel}_constraint": "weight_clip" for kernel in kernels}
        if reads_input:
            return found
        with_map = {"magnitude_map": True} if self.magnitude_map and class_name in _WITH_MAGNITUDES else {}
        return found | {"input_quantizer": self.input_quantizer} | with_map


def _dorefa(bits: int) -> Algorithm:
    weights, activations = ({"class_name": "DoReFa", "config": {"k_bit": bits, "mode": mode}} for mode in ("weights", "activations"))
    return Algorithm(weights, activations)


ALGORITHMS: Mapping[str, Algorithm] = {
    "xnor-weights": Algorithm("xnor_weights"),
    "dorefa-weights": Algorithm("dorefa_weights"),
    "xnor": Algorithm("xnor_weights", "ste_sign"),
    "xnor-k": Algorithm("xnor_weights", "ste_sign", magnitude_map=True),
    **{f"dorefa-{bits}": _dorefa(bits) for bits in (2, 3, 4)},
}

_SWAPS: Mapping[str, type[Any]] = {
    "Conv1D": QuantConv1D,
    "Conv2D": QuantConv2D,
    "Conv2DTranspose": QuantConv2DTranspose,
    "Dense": QuantDense,
    "DepthwiseConv2D": QuantDepthwiseConv2D,
    "SeparableConv2D": QuantSeparableConv2D,
}
_WEIGHTED = frozenset({*_SWAPS, *(f"Quant{name}" for name in _SWAPS)})
_KERNELS = {"QuantDepthwiseConv2D": ("depthwise",), "QuantSeparableConv2D": ("depthwise", "pointwise")}
_WITH_MAGNITUDES = frozenset({"QuantConv1D", "QuantConv2D", "QuantDense"})
# What keeps the sign of every value, or takes it from one place to another.
KEEP_SIGNS = frozenset(
    (*("MaxPooling1D", "MaxPooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "Dropout", "SpatialDropout1D", "SpatialDropout2D"),
     *("Flatten", "Reshape", "Permute", "Identity", "Cropping1D", "Cropping2D"))
)  # fmt: skip
_NEVER_NEGATIVE = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "exponential"})


def find_algorithm(name: str) -> Algorithm:
    """The algorithm of `ALGORITHMS` of this name; `InputError` with the list for another."""
    if name not in ALGORITHMS:
        raise InputError(f"the algorithm should be one of {', '.join(ALGORITHMS)}, got {name!r}")
    return ALGORITHMS[name]


def binarize(
    model: Model,
    algorithm: str | Algorithm = "xnor",
    *,
    keep: Iterable[str] | None = None,
    layers: Mapping[str, str | Algorithm | None] | None = None,
) -> Model:
    """A copy of a functional or sequential Keras model with binarized layers, not compiled; `model` stays as it is.

    algorithm   a name of `ALGORITHMS`, or an `Algorithm` of quantizers of one's own
    keep        names of layers that stay as they are, "outer/inner" in nested models; by default the first and the last with weights
                on every way from an input to an output, where 1 bit costs most accuracy; [] keeps none
    layers      names of layers with an algorithm of their own, whatever the others have; None leaves one as it is

    Convolutions and dense layers (`Conv1D`, `Conv2D`, `Conv2DTranspose`, `Dense`, `DepthwiseConv2D`, `SeparableConv2D`) become those
    of `edge.training`, and their weights latent weights, which training clips to [-1, 1] where they have no constraint of their own. A
    layer that reads what the network is given takes that as it is. Where only signs are taken of what an activation gives that is
    never negative (ReLU, say), the activation is left out, since all of them would be +1. Signs want a batch norm before them, which
    a model should have where it is to be trained so.

    Raises `InputError` for a subclassed model, an unknown algorithm, an unknown layer in `keep`, and where no layer is left to swap.
    """
    own = {name: None if each is None else _algorithm(each) for name, each in (layers or {}).items()}
    changes = _plan(model, _algorithm(algorithm), keep, own)

    def clone(layer: Any) -> Any:
        return changes.get(id(layer), partial(_clone))(layer)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _algorithm(given: str | Algorithm) -> Algorithm:
    return given if isinstance(given, Algorithm) else find_algorithm(given)


def weighted_calls(model: Model) -> Sequence[Call]:
    """The applications of a model's layers with weights that `binarize` can swap, in order. Raises `InputError` as `binarize` does."""
    layers = dict(_leaves(model))
    return [call for call in calls_of(model) if type(layers.get(layer_name(call.name))) in _PLAIN]


def ends_of(model: Model) -> set[str]:
    """The layers that `binarize` keeps unless told otherwise. Raises `InputError` as `binarize` does."""
    return _Calls.of(model).ends()


def calls_of(model: Model) -> Sequence[Call]:
    """The applications of a model's layers, in order, nested models dissolved. Raises `InputError` as `binarize` does."""
    return _Calls.of(model).calls


def _clone(layer: Any, **changes: Any) -> Any:
    return type(layer).from_config({**layer.get_config(), **changes})


def _linear(layer: Any) -> Any:
    return keras.layers.Activation("linear", name=layer.name)


def _swap(layer: Any, arguments: Mapping[str, Any], **changes: Any) -> Any:
    """The layer of `edge.training` in the place of one of Keras; a constraint that it has stays."""
    config = {**layer.get_config(), **changes}
    new = {name: value for name, value in arguments.items() if not (name.endswith("_constraint") and config.get(name) is not None)}
    return _SWAPS[type(layer).__name__].from_config({**config, **new})


def _plan(
    model: Model, algorithm: Algorithm, keep: Iterable[str] | None, own: Mapping[str, Algorithm | None]
) -> dict[int, partial[Any]]:
    """How to clone each layer that changes, by its id."""
    graph = _Calls.of(model)
    layers = dict(_leaves(model))
    ends = graph.ends() if keep is None else {_known(name, layers) for name in keep}
    able = [name for name in map(layer_name, graph.names()) if type(layers.get(name)) in _PLAIN]
    chosen = {name: None if name in ends else algorithm for name in able} | {_known(name, layers, "layers"): own[name] for name in own}
    swapped = {name: each for name, each in chosen.items() if each is not None}
    if not swapped:
        raise InputError(
            f"the model {model.name!r} has no layer to binarize, expected one of {', '.join(_SWAPS)} beside those that are kept "
            f"({', '.join(sorted(ends)) or 'none'}); give keep the names of fewer layers"
        )
    reads_input = graph.reading_input()
    changes: dict[int, partial[Any]] = {}
    for name, each in swapped.items():
        kind = _SWAPS[type(layers[name]).__name__].__name__
        changes[id(layers[name])] = partial(_swap, arguments=each.arguments(kind, reads_input=name in reads_input))
    signed = {name for name, each in swapped.items() if _takes_signs(each.input_quantizer)} - reads_input
    for name in graph.only_signed(signed):
        layer = layers[name]
        if type(layer) is keras.layers.ReLU:
            changes[id(layer)] = partial(_linear)
        else:
            changes[id(layer)] = partial(changes.get(id(layer), partial(_clone)), activation="linear")
    return changes


_PLAIN = tuple(getattr(keras.layers, name) for name in _SWAPS)


def _known(name: str, layers: Mapping[str, Any], argument: str = "keep") -> str:
    if name not in layers:
        raise InputError(f"{argument} should name layers of the model, got {name!r}; with weights there are {_listed(layers)}")
    return name


def _listed(layers: Mapping[str, Any]) -> str:
    return ", ".join(name for name, layer in layers.items() if type(layer).__name__ in _WEIGHTED) or "none"


def _takes_signs(quantizer: object) -> bool:
    return isinstance(get_quantizer(quantizer), (SteSign, ApproxSign, SwishSign))


def _leaves(model: Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The layers that are no models, by their names, "outer/inner" in nested ones."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def layer_name(call: str) -> str:
    """The name of the layer of a call: further applications have a number behind it."""
    return re.sub(r"#\d+(?=/|$)", "", call)


# -- what reads what -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Calls:
    """The applications of a model's layers, in order, nested models dissolved; `inputs` and `outputs` are names of values."""

    calls: Sequence[Call]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: Model) -> _Calls:
        if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
            raise InputError(
                f"binarize takes a functional or sequential Keras model that knows its input, got {type(model).__name__}; "
                "build it with keras.Model(inputs, outputs), or give a Sequential model an Input layer"
            )
        try:
            structure = read_model(json.loads(model.to_json()), major=3)
            inputs = tuple(reference.layer for reference in structure.inputs)
            flattener = Flattener({}, 3, names=dict.fromkeys(inputs, 1))
            outputs = flattener.flatten(structure, inputs)
        except (ModelError, NotImplementedError) as err:
            raise InputError(f"the layers of the model {model.name!r} cannot be swapped: {err}") from err
        return cls(live_calls(flattener.calls, outputs), inputs, outputs)

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def ends(self) -> set[str]:
        """The layers with weights that have none before them, and those that have none after them."""
        return self.reading_input() | self._last()

    def reading_input(self) -> set[str]:
        """The layers with weights that have none before them."""
        behind: set[str] = set()  # values that depend on a layer with weights
        first = set()
        for call in self.calls:
            depends = bool(behind.intersection(call.inputs))
            if call.class_name in _WEIGHTED and not depends:
                first.add(layer_name(call.name))
            if call.class_name in _WEIGHTED or depends:
                behind.update(call.outputs)
        return first

    def _last(self) -> set[str]:
        ahead: set[str] = set()  # values that a layer with weights depends on
        last = set()
        for call in reversed(self.calls):
            leads = bool(ahead.intersection(call.outputs))
            if call.class_name in _WEIGHTED and not leads:
                last.add(layer_name(call.name))
            if call.class_name in _WEIGHTED or leads:
                ahead.update(call.inputs)
        return last

    def only_signed(self, signed: set[str]) -> set[str]:
        """The layers whose activation is never negative and of whose outputs only the layers `signed` take signs."""
        read_otherwise = set(self.outputs)
        found: set[str] = set()
        others: set[str] = set()
        for call in reversed(self.calls):
            plain = not read_otherwise.intersection(call.outputs)
            if _is_never_negative(call):
                (found if plain else others).add(layer_name(call.name))
            keeps = plain and (call.class_name in KEEP_SIGNS or (_is_never_negative(call) and call.class_name in _ACTIVATIONS))
            if layer_name(call.name) not in signed and not keeps:
                read_otherwise.update(call.inputs)
        return found - others


_ACTIVATIONS = ("ReLU", "Activation")


def _is_never_negative(call: Call) -> bool:
    """Whether a layer ends in an activation that gives nothing below 0."""
    if call.class_name == "ReLU":
        return not call.config.get("negative_slope")
    known = call.class_name in _WEIGHTED or call.class_name == "Activation"
    return known and call.config.get("activation") in _NEVER_NEGATIVE
