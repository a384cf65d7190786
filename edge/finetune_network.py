"""A float network made ready for fine-tuning, and its low-bit self.

    float_net = prepared(keras.models.load_model("model.h5", compile=False))
    network = low_bit(float_net, {"conv2d_1": Algorithm("xnor_weights")})
    start(network, float_net, pictures)

Keras is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.zoo_writer import Model, Tensor, keras_package

if TYPE_CHECKING:
    from edge.training import Algorithm

NORM, NORM_BEFORE, SUM, BEND = "_norm", "_norm_before", "_sum", "_bend"
"""What names of inserted layers end in, behind the name of the layer that they belong to."""
_LOOKED_THROUGH = ("MaxPooling2D", "AveragePooling2D", "ZeroPadding2D", "Dropout", "SpatialDropout2D", "Flatten", "Reshape")
_BATCH = 128
_STATISTICS_PICTURES = 4_096


# -- the float network ---------------------------------------------------------------------------------------------------------


def prepared(model: Model) -> Model:
    """A copy of a classifier with the same weights, as fine-tuning wants it.

    It is functional; nested models are dissolved ("outer_inner"), activations are layers of their own, the last one a Softmax; nothing is
    frozen or regularized. Raises `InputError` for a subclassed model, and for outputs other than one of two classes or more.
    """
    keras = keras_package()
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise InputError(
            f"the layers of the model cannot be swapped: expected a functional or sequential Keras model that knows its input, "
            f"got {type(model).__name__}; build it with keras.Model(inputs, outputs)"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        counts = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise InputError(f"fine-tuning takes a model with one input and one output, got {counts}; build one with a single output")
    picture, flat = keras.Input(model.inputs[0].shape[1:], name="picture"), _Flat(keras)
    outputs = flat.run(model, picture, "")
    made = keras.Model(picture, outputs, name=model.name)
    flat.copy_weights()
    classes = made.output_shape[1:]
    if len(classes) != 1 or (classes[0] or 0) < 2:
        raise InputError(
            f"fine-tuning takes a classifier, whose output has a number for each of two classes or more, got the shape {classes}; "
            "build the model without what is behind its classes"
        )
    end = made.outputs[0]._keras_history.operation
    if isinstance(end, keras.layers.Activation) and end.activation is not keras.activations.linear:
        raise InputError(
            f"fine-tuning takes a classifier that ends in softmax or in logits, got the activation {end.activation.__name__}; "
            "build the model without it"
        )
    return made


class _Flat:
    """Copies of the layers of a model, nested ones included, in one functional graph."""

    def __init__(self, keras: Any) -> None:
        self.keras = keras
        self.copies: dict[int, tuple[Any, Any]] = {}
        self.activations: dict[int, Any] = {}

    def run(self, model: Model, inputs: Tensor, prefix: str) -> Tensor:
        """What copies of a model's layers give for `inputs`."""
        graph = self.keras.Model(model.inputs, model.outputs) if isinstance(model, self.keras.Sequential) else model
        # Not clone_model, which wants inputs that are no results of other layers.
        found = graph._run_through_graph(inputs, lambda layer: partial(self.called, layer, prefix))
        return self.keras.tree.flatten(found)[0]

    def called(self, layer: Any, prefix: str, *args: Any, **kwargs: Any) -> Tensor:
        """What the copy of one layer gives."""
        if isinstance(layer, self.keras.Model):
            return self.run(layer, args[0], f"{prefix}{layer.name}_")
        if not isinstance(layer, self.keras.layers.Layer):
            return layer(*args, **kwargs)
        x = self.copy(layer, prefix)(*args, **kwargs)
        return x if _activation(layer) is None else self._activated(layer, prefix, x)

    def copy(self, layer: Any, prefix: str) -> Any:
        """The layer's copy, the same at each application."""
        if id(layer) not in self.copies and _is_softmax(layer, self.keras):
            self.copies[id(layer)] = layer, self.keras.layers.Softmax(name=prefix + layer.name)
        if id(layer) not in self.copies:
            config = {name: None if name.endswith("_regularizer") else value for name, value in layer.get_config().items()}
            changes = {"activation": "linear"} if _activation(layer) is not None else {}
            copied = type(layer).from_config({**config, **changes, "name": prefix + layer.name, "trainable": True})
            self.copies[id(layer)] = layer, copied
        return self.copies[id(layer)][1]

    def _activated(self, layer: Any, prefix: str, x: Tensor) -> Tensor:
        layers, name, function = self.keras.layers, f"{prefix}{layer.name}_activation", _activation(layer)
        if id(layer) not in self.activations:
            is_softmax = function is self.keras.activations.softmax
            self.activations[id(layer)] = layers.Softmax(name=name) if is_softmax else layers.Activation(function, name=name)
        return self.activations[id(layer)](x)

    def copy_weights(self) -> None:
        for layer, copied in self.copies.values():
            copied.set_weights(layer.get_weights())


def _is_softmax(layer: Any, keras: Any) -> bool:
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.softmax


def _activation(layer: Any) -> Any:
    """The activation that a layer with weights ends in, None for none."""
    keras = keras_package()
    weighted = isinstance(layer, keras.layers.Dense) or hasattr(layer, "kernel_size")
    function = getattr(layer, "activation", None)
    return function if weighted and function is not keras.activations.linear else None


# -- its low-bit self ----------------------------------------------------------------------------------------------------------


def low_bit(model: Model, layers: Mapping[str, Algorithm], *, shortcuts: bool = False, prelu: bool = False) -> Model:
    """A copy of a `prepared` network with these layers at few bits, and batch norms where they want one and have none.

    That is before signs of what no batch norm gives, and behind sums that no batch norm reads, since few bits change their scale.
    shortcuts: what layers read whose input is signs is added to their sums (Bi-Real Net, https://arxiv.org/abs/1808.00278). prelu: what
    is below 0 goes on in front of these layers, by an `RPReLU` in place of ReLU (ReActNet, https://arxiv.org/abs/2003.03488).
    """
    from edge.training import binarize
    from edge.training_binarize import calls_of, weighted_calls

    names = [call.name for call in weighted_calls(model)]
    copy = binarize(model, layers={name: layers.get(name) for name in names})
    calls = calls_of(copy)
    read = {call.name: [reader.class_name for reader in calls if call.outputs[0] in reader.inputs] for call in calls}
    normed = {name for name, readers in read.items() if readers and all(reader == "BatchNormalization" for reader in readers)}
    bent = _relus_before(model, set(layers)) if prelu else set()
    made = keras_package().models.clone_model(copy, call_function=_Inserted(set(layers), normed, shortcuts, bent).call)
    for layer in (each for each in copy.layers if each.weights):
        made.get_layer(layer.name).set_weights(layer.get_weights())
    return made


def _relus_before(model: Model, low: set[str]) -> set[str]:
    """The ReLU layers that one of these layers reads, straight or behind pools and dropout; raises `InputError` where there are none."""
    from edge.training_binarize import calls_of, layer_name

    calls = calls_of(model)
    giving = {tensor: call for call in calls for tensor in call.outputs}
    found: set[str] = set()
    waiting = [tensor for call in calls if layer_name(call.name) in low for tensor in call.inputs]
    while waiting:
        call = giving.get(waiting.pop())
        if call is not None and _is_relu(model.get_layer(layer_name(call.name))):
            found.add(layer_name(call.name))
        elif call is not None and call.class_name in _LOOKED_THROUGH:
            waiting += call.inputs
    if not found:
        raise InputError("a PReLU takes the place of ReLU in front of layers of few bits, got a model with none there; leave --prelu out")
    return found


def _is_relu(layer: Any) -> bool:
    keras = keras_package()
    if isinstance(layer, keras.layers.ReLU):
        return not (layer.negative_slope or layer.threshold) and layer.max_value is None
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.relu


class _Inserted:
    """Calls the layers of a network, with batch norms (sums, bends) put between them, and bends in the place of some."""

    def __init__(self, low: set[str], normed: set[str], shortcuts: bool, bent: set[str]) -> None:
        self.low, self.normed, self.shortcuts, self.bent = low, normed, shortcuts, bent
        self.normal: dict[int, Tensor] = {}  # tensors that a batch norm gives, by id
        self.bends: dict[str, Any] = {}  # what stands in the place of a ReLU, the same at each of its calls
        self.pending: dict[int, tuple[str, Tensor]] = {}  # sums whose batch norm comes next: the layer, and what it read

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Tensor:
        if layer.name in self.bent:
            return self._bend(layer.name)(args[0])
        if not args or layer.name not in self.low:
            return self._other(layer, *args, **kwargs)
        signs = layer.input_quantizer is not None
        x = args[0]
        if signs and id(x) not in self.normal:
            x = self._norm(layer, NORM_BEFORE)(x)
        y = layer(x, *args[1:], **kwargs)
        if layer.name in self.normed:
            self.pending[id(y)] = layer.name if signs else "", args[0]
            return y
        return self._finished(self._norm(layer, NORM)(y), layer.name if signs else "", args[0])

    def _bend(self, name: str) -> Any:
        from edge.training import RPReLU

        if name not in self.bends:
            self.bends[name] = RPReLU(name=name + BEND)
        return self.bends[name]

    def _other(self, layer: Any, *args: Any, **kwargs: Any) -> Tensor:
        keras = keras_package()
        y = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.BatchNormalization):
            return self._finished(y, *self.pending.get(id(args[0]), ("", None)))
        from edge.training_binarize import KEEP_SIGNS

        linear = type(layer) is keras.layers.Activation and layer.activation is keras.activations.linear
        if args and id(args[0]) in self.normal and (linear or type(layer).__name__ in KEEP_SIGNS):
            self.normal[id(y)] = y
        return y

    def _finished(self, y: Tensor, name: str, source: Tensor) -> Tensor:
        """What a batch norm gives, with a shortcut around it where one is wanted and possible."""
        if self.shortcuts and name and (way := _way(source, y, name)) is not None:
            return keras_package().layers.Add(name=name + SUM)([y, way])
        self.normal[id(y)] = y
        return y

    def _norm(self, layer: Any, ending: str) -> Any:
        first = getattr(layer, "data_format", "channels_last") == "channels_first"
        return keras_package().layers.BatchNormalization(axis=1 if first else -1, name=layer.name + ending)


def _way(source: Tensor, y: Tensor, name: str) -> Tensor | None:
    """What a shortcut adds: the source itself, or, of twice the size and half the channels, its means of 2 x 2, twice; None for others."""
    layers = keras_package().layers
    if source.shape == y.shape:
        return source
    if len(y.shape) == 4 and tuple(source.shape[1:]) == (2 * y.shape[1], 2 * y.shape[2], y.shape[3] // 2):
        small = layers.AveragePooling2D(2, name=f"{name}_half")(source)
        return layers.Concatenate(name=f"{name}_twice")([small, small])
    return None


# -- where it starts -----------------------------------------------------------------------------------------------------------


def start(network: Model, float_net: Model, pictures: NDArray[Any]) -> None:
    """Measure the statistics of all batch norms anew; those inserted behind a layer then give what the float network's layer gives, by
    mean and deviation.
    """
    keras = keras_package()
    behind = {layer.name.removesuffix(NORM): layer for layer in network.layers if layer.name.endswith(NORM)}
    chosen = {name: float_net.get_layer(name).output for name in behind}
    if chosen:
        given = keras.Model(float_net.input, list(chosen.values())).predict(pictures[: _BATCH * 4], batch_size=_BATCH, verbose=0)
        for layer, values in zip(behind.values(), given if len(chosen) > 1 else _listed(given), strict=True):
            axes = tuple(axis for axis in range(values.ndim) if axis != layer.axis % values.ndim)
            layer.gamma.assign(values.std(axis=axes))
            layer.beta.assign(values.mean(axis=axes))
    estimate_norms(network, pictures[:_STATISTICS_PICTURES])


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def estimate_norms(network: Model, pictures: NDArray[Any]) -> None:
    """Batch norms with the means over these pictures for their moving statistics."""
    norms = [layer for layer in network.layers if isinstance(layer, keras_package().layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    batches = [pictures[first : first + _BATCH] for first in range(0, len(pictures), _BATCH)]
    for number, batch in enumerate(batches):
        for layer in norms:
            layer.momentum = number / (number + 1)
        network(np.asarray(batch, np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
