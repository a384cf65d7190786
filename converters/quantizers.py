"""What quantizers do, whoever wrote them, and how files name them.

A quantizer makes weights `whole * scale` at conversion (`Weights`), and activations at run time by nodes of the graph. Where weights are
+-1 and tensors signs, everything downstream is packed; other values keep the levels they were trained with, exactly.

Files name a quantizer by its name ("ste_sign"), by an object of Keras 2, Keras 3 or Larq ({"class_name": "SteSign", "config": ...}), as a
function ({"class_name": "function", "config": "ste_sign"}), or by a call as text ("quantized_bits(4,0,1,alpha=1)"), which is parsed, never
evaluated. To add one, write a class with `weights` and `activation`, and register what makes it of its options.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.converters.builder import Builder, Layer, Options
from edge.graph import Array

MAX_TEXT = 300
# Options that say nothing about the function computed: those of Keras layers, which Larq's quantizers are, and of gradients and training.
_OF_KERAS_LAYERS = frozenset(("name", "trainable", "dtype", "metrics", "batch_input_shape", "dynamic"))


@dataclass(frozen=True)
class Weights:
    """Quantized weights as float32 `whole * scale`.

    whole   of the kernel's shape: +-1, whole numbers, or, for levels that are no multiples of each other, the values themselves
    scale   broadcastable to the kernel
    bits    that the quantizer means each weight to take
    """

    whole: Array
    scale: Array
    bits: int

    @property
    def values(self) -> Array:
        """What they stand for."""
        values: Array = self.whole * self.scale
        return values.astype(np.float32)


class Quantizer(ABC):
    """One quantizer with its options; `by_output`: its scales are those of outputs, whichever axes of the kernel these are."""

    by_output = False

    @abstractmethod
    def weights(self, kernel: Array) -> Weights:
        """The quantized form of float32 weights whose last axis is the one that has scales of its own."""

    @abstractmethod
    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        """Nodes that quantize a tensor at run time; ModelError where that cannot be done for one example alone."""


class Nothing(Quantizer):
    """Larq's NoOp: values stay. `precision` is what the weights have, as an optimizer of signs leaves them."""

    def __init__(self, precision: int | None = None) -> None:
        self.precision = precision

    def weights(self, kernel: Array) -> Weights:
        size = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True)
        if self.precision == 1 and (np.abs(kernel) == size).all() and size.all():
            return Weights(np.sign(kernel), size, 1)
        return Weights(kernel, np.ones(1, np.float32), 32)

    def activation(self, layer: Layer, build: Builder, tensor: str) -> str:
        return tensor


# -- the registry --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """How a quantizer is written: its options in the order of its positions, how it is made, and what the documentation says of it."""

    name: str
    package: str
    options: tuple[str, ...]
    make: Callable[[Options], Quantizer]
    activations: str
    weights: str


FORMS: dict[str, Form] = {}
FUNCTIONS: dict[str, Quantizer] = {}  # of QKeras, under names that Keras gives to others


def register(package: str, name: str, options: tuple[str, ...], make: Callable[[Options], Quantizer], activations: str, weights: str,
             *, aliases: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Make a quantizer known by its name and `aliases`; `activations` and `weights` say what becomes of them."""
    form = Form(name, package, options, make, activations, weights)
    for known in (name, *aliases):
        FORMS[_plain(known)] = form


def forms() -> tuple[Form, ...]:
    """Every quantizer once."""
    return tuple(dict.fromkeys(FORMS.values()))


def _plain(name: str) -> str:
    return name.rpartition(">")[2].replace("_", "").lower()


# -- how files name them -------------------------------------------------------------------------------------------------------


def find(spec: object, where: str, *, qkeras: bool = False, trained: bool = False) -> Quantizer | None:
    """The quantizer that a config entry names, None for what names none; ModelError for one that is named with nonsense.

    qkeras    in a layer of QKeras, where "hard_sigmoid" and the like are functions of its own
    trained   for weights of such a layer: it sets alpha to "auto_po2" where none is given
    """
    name, config = _name_and_config(spec, where)
    if name is None:
        return None
    if qkeras and not config and name in FUNCTIONS:
        return FUNCTIONS[name]
    form = FORMS.get(_plain(name))
    if form is None:
        return None
    options = Options(f"{where} {form.name}", config)
    _check_known(options, form)
    if trained and "alpha" in form.options and config.get("alpha") is None:
        options = Options(options.where, {**config, "alpha": "auto_po2"})
    return form.make(options)


def _check_known(options: Options, form: Form) -> None:
    """Refuse options that are not known, unless they are null: those of later versions that are not used."""
    allowed = {*form.options, *(_OF_KERAS_LAYERS if form.package == "Larq" else ())}
    unknown = sorted(str(key)[:40] for key, value in options.config.items() if key not in allowed and value is not None)
    if unknown:
        raise options.error(f"has no option {', '.join(unknown)}, there are {', '.join(form.options) or 'none'}; save the model again")


def _name_and_config(spec: object, where: str) -> tuple[str | None, Mapping[str, Any]]:
    if isinstance(spec, str):
        return _call(spec, where) if spec.endswith(")") else (spec, {})
    if not isinstance(spec, Mapping):
        return None, {}
    name, config = spec.get("class_name"), spec.get("config")
    if name == "function" and isinstance(config, str):  # a function by its name
        return config, {}
    return (name if isinstance(name, str) else None), (config if isinstance(config, Mapping) else {})


def _call(text: str, where: str) -> tuple[str | None, Mapping[str, Any]]:
    """The name and the options of a call that is written out."""
    name = text.partition("(")[0].strip()
    form = FORMS.get(_plain(name))
    if form is None:
        return name, {}
    options = Options(f"{where} {text[:60]!a}", {})
    try:
        tree = ast.parse(text, mode="eval").body if len(text) <= MAX_TEXT else None
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or len(tree.args) > len(form.options):
            raise ValueError
        given = dict(zip(form.options, (ast.literal_eval(arg) for arg in tree.args), strict=False))
        given |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as err:
        raise options.error(f"is no call of {form.name}({', '.join(form.options)}) with plain values; save the model again") from err
    return name, given


# -- of layers -----------------------------------------------------------------------------------------------------------------


def is_of_qkeras(layer: Layer) -> bool:
    """Whether a layer is one of QKeras: QConv2D, QDense, ... (Larq's begin with Quant)."""
    name = layer.call.class_name
    return name.startswith("Q") and not name.startswith("Quant")


def of_layer(layer: Layer, key: str, *, trained: bool = False) -> Quantizer | None:
    """The quantizer a layer's configuration gives under `key`, None for none; ModelError for one that is not known."""
    spec = layer.call.config.get(key)
    if spec is None:
        return None
    qkeras = is_of_qkeras(layer)
    found = find(spec, f"{layer.options.where}: {key}", qkeras=qkeras, trained=trained and qkeras)
    if found is None:
        name = _name_and_config(spec, layer.options.where)[0]
        known = ", ".join(form.name for form in forms())
        named = str(name or spec)[:60]
        raise layer.error(f"{key} {named!a} is not supported, expected None or one of {known}; train the layer with one of these")
    return found
