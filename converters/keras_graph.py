"""Layers that refer to each other become calls in topological order: nested models dissolve, each use of a shared layer is a call.

How Keras numbers the applications of a nested model needs care: a nested model that has an input of its own counts that as
application 0, so its first use is number 1. Keras 2 counts so everywhere; Keras 3 only where it lists the outputs of a functional
model around a functional one. Every application is used somewhere, which tells the remaining cases apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.converters.keras_model import Call
from edge.converters.keras_tree import INPUT_LAYER, Layer, Model, Node, Reference
from edge.errors import ModelError

# Nested models applied twice at each of n levels make 2^n calls out of a small file.
MAX_CALLS = 100_000

LayerPath = tuple[str, ...]
Weights = Mapping[LayerPath, Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]]
_Application = tuple[str, int]


@dataclass
class Flattener:
    """Collects the calls of a model; `weights` are by the path of the layer, outermost model's layer first."""

    weights: Weights
    major: int
    calls: list[Call] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    visited: int = 0
    scopes: dict[int, _Scope] = field(default_factory=dict)

    def flatten(self, model: Model, inputs: tuple[str, ...], path: LayerPath = (), prefix: str = "") -> tuple[str, ...]:
        """Append the calls of `model`, applied to the values `inputs`; returns the names of its outputs."""
        scope = self._scope(model)
        values = scope.bind_inputs(inputs)
        for layer, application in scope.order:
            node = layer.nodes[application]
            arguments = tuple(scope.value(reference, values) for reference in scope.resolve_all(node.inputs))
            name = prefix + (layer.name if application == 0 else f"{layer.name}#{application + 1}")
            self._count(model, scope.outputs_of(layer))
            if layer.model is not None:
                _check_inference(layer, node)
                outputs = self.flatten(layer.model, arguments, (*path, layer.name), f"{name}/")
            else:
                outputs = self._call(layer, node, arguments, (*path, layer.name), name, scope.outputs_of(layer))
            values.update({(layer.name, application, tensor): output for tensor, output in enumerate(outputs)})
        return tuple(scope.value(reference, values) for reference in scope.outputs)

    def _call(
        self, layer: Layer, node: Node, inputs: tuple[str, ...], path: LayerPath, name: str, count: int
    ) -> tuple[str, ...]:
        name = self._unique(name)
        outputs = (name, *(self._unique(f"{name}:{tensor}") for tensor in range(1, count)))
        weights = self.weights.get(path, {})
        self.calls.append(Call(name, layer.class_name, layer.package, layer.config, weights, inputs, outputs, node.arguments))
        return outputs

    def _unique(self, name: str) -> str:
        """`name`, or "name#2" where another model has a layer of the same full name."""
        self.names[name] = self.names.get(name, 0) + 1
        return name if self.names[name] == 1 else self._unique(f"{name}#{self.names[name]}")

    def _scope(self, model: Model) -> _Scope:
        if id(model) not in self.scopes:
            self.scopes[id(model)] = _Scope(model, self.major)
        return self.scopes[id(model)]

    def _count(self, model: Model, outputs: int) -> None:
        self.visited += outputs
        if self.visited > MAX_CALLS:
            raise ModelError(f"model {model.name!r} applies layers more than {MAX_CALLS} times: nothing of that size is converted")


def _check_inference(layer: Layer, node: Node) -> None:
    if node.arguments.get("training") is True:
        raise ModelError(
            f"nested model {layer.name!r} is applied with training=True, which makes it normalize by the batch at hand: "
            "build the model without that argument and save it again"
        )


def live_calls(calls: list[Call], outputs: tuple[str, ...]) -> tuple[Call, ...]:
    """The calls that `outputs` need, in their order: a nested model may have outputs nobody uses."""
    needed = set(outputs)
    kept = []
    for call in reversed(calls):
        if needed.intersection(call.outputs):
            needed.update(call.inputs)
            kept.append(call)
    return tuple(reversed(kept))


class _Scope:
    """The references of one model, resolved: which application of which layer each means; `order` is that of the applications."""

    def __init__(self, model: Model, major: int) -> None:
        self._model = model
        self._layers = {layer.name: layer for layer in model.layers}
        inner = [reference for layer in model.layers for node in layer.nodes for reference in node.inputs]
        for reference in (*inner, *model.outputs, *model.inputs):
            self._check(reference)
        self._offsets = _all_offsets(model, inner, major)
        self._resolved = {reference: self._resolve(reference, 0) for reference in inner}
        self.outputs = tuple(self._resolve(reference, 1) for reference in model.outputs)
        self._used: dict[str, int] = {}
        for reference in (*self._resolved.values(), *self.outputs):
            self._used[reference.layer] = max(self._used.get(reference.layer, 0), reference.tensor)
        self.order = self._in_order()

    def resolve_all(self, references: tuple[Reference, ...]) -> tuple[Reference, ...]:
        return tuple(self._resolved[reference] for reference in references)

    def outputs_of(self, layer: Layer) -> int:
        """How many outputs of a layer's call are used somewhere; at least one."""
        return self._used.get(layer.name, 0) + 1

    def bind_inputs(self, inputs: tuple[str, ...]) -> dict[tuple[str, int, int], str]:
        expected = len(self._model.inputs)
        if len(inputs) != expected:
            raise ModelError(
                f"nested model {self._model.name!r} is given {len(inputs)} tensors, expected {expected}: save the model again"
            )
        for reference in self._model.inputs:
            if self._layers[reference.layer].class_name != INPUT_LAYER:
                raise ModelError(
                    f"model {self._model.name!r} takes its input in the middle, at layer {reference.layer!r}: "
                    "make it start with keras.Input and save it again"
                )
        return {(reference.layer, 0, 0): name for reference, name in zip(self._model.inputs, inputs, strict=True)}

    def value(self, reference: Reference, values: Mapping[tuple[str, int, int], str]) -> str:
        key = (reference.layer, reference.node, reference.tensor)
        if key not in values:
            raise ModelError(
                f"output {reference.tensor} of layer {reference.layer!r} is used in model {self._model.name!r} but nothing "
                "makes it: the model configuration is damaged, save the model again"
            )
        return values[key]

    def _in_order(self) -> list[tuple[Layer, int]]:
        """All applications, each after those it takes tensors from, otherwise in the order of the file."""
        position = {layer.name: k for k, layer in enumerate(self._model.layers)}
        waiting, users = self._dependencies()
        ready = [(position[name], application) for (name, application), count in waiting.items() if count == 0]
        heapq.heapify(ready)
        order = []
        while ready:
            place, application = heapq.heappop(ready)
            layer = self._model.layers[place]
            order.append((layer, application))
            for user in users.get((layer.name, application), ()):
                waiting[user] -= 1
                if waiting[user] == 0:
                    heapq.heappush(ready, (position[user[0]], user[1]))
        if len(order) < len(waiting):
            raise ModelError(f"the layers of model {self._model.name!r} form a loop, expected none: save the model again")
        return order

    def _dependencies(self) -> tuple[dict[_Application, int], dict[_Application, list[_Application]]]:
        """Per application the number of others it waits for, and the reverse: who waits for it."""
        waiting: dict[_Application, int] = {}
        users: dict[_Application, list[_Application]] = {}
        for layer in self._model.layers:
            for application, node in enumerate(layer.nodes):
                needs = {(reference.layer, reference.node) for reference in self.resolve_all(node.inputs)}
                needs = {need for need in needs if self._layers[need[0]].class_name != INPUT_LAYER}
                waiting[layer.name, application] = len(needs)
                for need in needs:
                    users.setdefault(need, []).append((layer.name, application))
        return waiting, users

    def _check(self, reference: Reference) -> None:
        if reference.layer not in self._layers:
            raise ModelError(
                f"model {self._model.name!r} uses layer {reference.layer!r}, which it does not have: "
                "the model configuration is damaged, save the model again"
            )

    def _resolve(self, reference: Reference, place: int) -> Reference:
        """`reference` with applications counted from 0; `place` is 0 between layers, 1 for an output of the model."""
        layer = self._layers[reference.layer]
        if layer.class_name == INPUT_LAYER:
            return Reference(reference.layer, 0, reference.tensor)
        node = reference.node - (self._offsets[layer.name][place] if layer.model is not None else 0)
        if not 0 <= node < len(layer.nodes):
            raise ModelError(
                f"model {self._model.name!r} uses application {reference.node} of layer {layer.name!r}, which is applied "
                f"{len(layer.nodes)} times: the model configuration is damaged, save the model again"
            )
        return Reference(reference.layer, node, reference.tensor)


def _all_offsets(model: Model, inner: list[Reference], major: int) -> dict[str, tuple[int, int]]:
    used: dict[str, tuple[set[int], set[int]]] = {layer.name: (set(), set()) for layer in model.layers if layer.model is not None}
    for place, references in enumerate((inner, model.outputs)):
        for reference in references:
            if reference.layer in used:
                used[reference.layer][place].add(reference.node)
    return {layer.name: _offsets(layer, *used[layer.name], major) for layer in model.layers if layer.name in used}


def _offsets(layer: Layer, inner: set[int], outer: set[int], major: int) -> tuple[int, int]:
    """What to take off the number of an application of a nested model: between layers, and in the list of outputs."""
    keras_3 = ((0, 1), (0, 0), (1, 1)) if layer.class_name != "Sequential" else ((0, 0), (0, 1), (1, 1))
    candidates = keras_3 if major >= 3 else ((1, 1), (0, 0))
    everything = set(range(len(layer.nodes)))
    for between, listed in candidates:
        if {number - between for number in inner} | {number - listed for number in outer} == everything:
            return between, listed
    return candidates[0]
