"""What a source model computes, tensor by tensor: the oracle that a converted file is compared with.

The source is read into its plain graph (`edge.converters.layers`), whose tensors keep their names through every pass and in the file.
Keras, where it is installed and reads the file, gives the output of every layer, each layer fed with Keras' own input; what lies inside a
layer (the sign of a quantized input, a fused activation) is computed from those by `edge.kernels.reference`. Without Keras everything is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.converters.keras_model import Call, KerasModel
from edge.converters.layouts import SUFFIX, turned_inputs
from edge.errors import MissingPackage
from edge.graph import Array, Graph, Node
from edge.kernels.arithmetic import DTYPES, dequantize
from edge.kernels.reference import evaluate
from edge.ops import Activation
from edge.oracle_parts import load_source
from edge.tensors import Encoding, TensorType

Batch = Mapping[str, Array]
"""Arrays (N, ...) of what the network takes, by the name of the input."""

LayerOutputs = Callable[[Batch], Mapping[str, Array]]
"""From a batch to the outputs (N, ...) of layers by name."""

_WEIGHTED = ("conv2d", "depthwise_conv2d", "dense")
_SIGN_KEEPING = (Activation.RELU, Activation.LEAKY_RELU)
# What Keras raises for files and layers it does not take: of many kinds, since files are configurations of its own classes.
_REFUSALS = (ValueError, TypeError, KeyError, AttributeError, OSError, ImportError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Oracle:
    """A source model that can be asked for its tensors.

    `name` says what computes them; `layers` gives the layer outputs that are known, none for the reference interpreter. `note` says why
    Keras is not the oracle, where it is not.
    """

    graph: Graph
    name: str
    layers: LayerOutputs
    is_keras: bool = False
    note: str = ""

    def truths(self, batch: Batch, wanted: Iterable[str]) -> list[Truth]:
        """The tensors `wanted` of every example of a batch."""
        outputs = self.layers(batch)
        names = {name for name, kind in self.graph.types.items() if name in outputs and outputs[name][0].size == kind.elements}
        nodes = _needed(self.graph, {*self.graph.inputs, *names}, wanted)
        count = len(batch[self.graph.inputs[0]])
        given = [({name: batch[name][i] for name in batch}, {name: outputs[name][i] for name in names}) for i in range(count)]
        return [self._truth(example, known, nodes) for example, known in given]

    def _truth(self, example: Mapping[str, Array], known: Mapping[str, Array], nodes: Sequence[Node]) -> Truth:
        graph = self.graph
        values = {name: _stored(array, graph.types[name]) for name, array in known.items()}
        for name, array in example.items():
            values[name] = array.reshape(graph.types[name].shape).astype(DTYPES[graph.types[name].encoding], copy=False)
        for node in nodes:
            operands = [values[name] for name in node.inputs]
            values[node.output] = evaluate(node.op, graph.call(node), graph.types[node.output], operands, node.constants)
        return Truth(graph, values)


def _stored(array: Array, kind: TensorType) -> Array:
    """What a layer of Keras gives, all of it float32, as the graph has it: signs as bools."""
    values = array.reshape(kind.shape).astype(np.float32, copy=False)
    return values < 0 if kind.encoding is Encoding.BITS else values


@dataclass(frozen=True)
class Truth:
    """Tensors of one example by name, as the types of the plain graph store them."""

    graph: Graph
    values: Mapping[str, Array]

    def real(self, name: str) -> Array:
        """A tensor as float32 values; bits are +-1."""
        return dequantize(self.values[name], self.graph.types[name])

    def ties(self, name: str, ulp: int) -> Array:
        """Of a packed tensor, the values whose sign rounding decides, as flat bools.

        Those are within `ulp` units in the last place of the larger term of the sum (a batch norm's, say) whose sign is taken.
        """
        node = self.graph.producer(name)
        if node is None or node.op != "binarize":
            return np.zeros(self.graph.types[name].elements, np.bool_)
        terms = self._largest_terms(node.inputs[0]).reshape(-1)
        return np.asarray(np.abs(self.real(node.inputs[0]).reshape(-1)) <= ulp * np.spacing(terms))

    def _largest_terms(self, name: str) -> Array:
        """Per value, the magnitude of the larger term of the sum it is; of a sum of products, the sum of their magnitudes."""
        node = self.graph.producer(name)
        if node is None or any(source not in self.values for source in node.inputs):
            return np.asarray(np.abs(self.real(name)))
        if node.op == "reshape" or (node.op == "activation" and Activation(int(node.attrs["activation"])) in _SIGN_KEEPING):
            return self._largest_terms(node.inputs[0])
        terms = {"affine": self._affine_terms, "add": self._add_terms}.get(node.op)
        if terms is None:
            terms = self._product_terms if node.op in _WEIGHTED else lambda node: np.abs(self.real(node.output))
        return terms(node)

    def _affine_terms(self, node: Node) -> Array:
        scaled = np.abs(self.real(node.inputs[0]) * node.constants.get("mul", np.float32(1)))
        return np.asarray(np.maximum(scaled, np.abs(node.constants.get("add", np.float32(0)))))

    def _add_terms(self, node: Node) -> Array:
        first, second = (np.abs(self.real(name)) for name in node.inputs)
        return np.asarray(np.maximum(first, second))

    def _product_terms(self, node: Node) -> Array:
        if node.constants["filter"].dtype == np.bool_:
            return np.asarray(np.abs(self.real(node.output)))  # the sum is of whole numbers, and exact
        constants = {role: np.abs(array) for role, array in node.constants.items()}
        operand = np.abs(self.values[node.inputs[0]])
        return evaluate(node.op, self.graph.call(node), self.graph.types[node.output], [operand], constants)


def sign_sources(graph: Graph, names: Iterable[str]) -> set[str]:
    """The tensors that `Truth.ties` looks at for the packed tensors `names`."""
    found: set[str] = set()
    for name in names:
        node = graph.producer(name)
        waiting = [*node.inputs] if node is not None and node.op == "binarize" else []
        while waiting:
            found.add(waiting[0])
            maker = graph.producer(waiting.pop(0))
            if maker is not None:
                found.update(maker.inputs)
                waiting += maker.inputs if maker.op in ("reshape", "activation") else ()
    return found


def _needed(graph: Graph, known: set[str], wanted: Iterable[str]) -> list[Node]:
    """The nodes to run, in order, for the tensors `wanted` where those `known` are given."""
    missing = set(wanted) - known
    nodes = []
    for node in reversed(graph.nodes):
        if node.output in missing:
            nodes.append(node)
            missing.update(set(node.inputs) - known)
    return nodes[::-1]


# -- choosing the oracle -------------------------------------------------------------------------------------------------------


def find_oracle(
    path: Path, model: KerasModel, graph: Graph, *, keras: bool | None = None, weights: str | os.PathLike[str] | None = None
) -> Oracle:
    """Keras where it is installed and reads the file, else the reference interpreter; `keras` True or False asks for one of them.

    weights: the file that the model's weights are in, where that is another.

    Raises `MissingPackage` where Keras is asked for and is not there.
    """
    if keras is not False:
        try:
            return _keras_oracle(path, model, graph, weights)
        except MissingPackage as err:
            if keras:
                raise
            note = f"Keras is not installed ({err})"
        except _REFUSALS as err:
            note = f"Keras does not read this file ({type(err).__name__}: {_first_line(err)})"
    else:
        note = ""
    return Oracle(graph, "the reference interpreter", lambda batch: {}, note=note)


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or ["no reason given"])[0][:160]


def _keras_oracle(path: Path, model: KerasModel, graph: Graph, weights: str | os.PathLike[str] | None) -> Oracle:
    with _quiet_stderr():
        from edge import training  # Keras, and this project's layers, which it then finds

        import keras  # isort: skip

        known = _custom_objects(keras, training)
        loaded, half = load_source(lambda whole: keras.saving.load_model(whole, custom_objects=known, compile=False), path, weights)
    replaced = f", in float32 in the place of {' and '.join(half)}" if half else ""
    name = f"Keras {keras.__version__} on {keras.backend.backend()}{replaced}"
    return Oracle(graph, name, lambda batch: _layer_outputs(loaded, model, batch), is_keras=True)


def _custom_objects(keras: Any, training: Any) -> dict[str, Any]:
    """This project's layers under their own names and Larq's, and a layer that takes a key Keras 2 wrote and Keras 3 refuses."""

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    classes = {name: found for name, found in vars(training).items() if isinstance(found, type)}
    quantized = {name: found for name, found in classes.items() if name.startswith("Quant") and issubclass(found, keras.layers.Layer)}
    larq = {f"Larq>{name}": layer for name, layer in quantized.items()}
    return {**quantized, **larq, "DepthwiseConv2D": DepthwiseConv2D}


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Swallow what native code writes to stderr: TensorFlow tells of its build there, whatever the log level; errors are exceptions."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _layer_outputs(loaded: Any, model: KerasModel, batch: Batch) -> dict[str, Array]:
    """The output of every layer that Keras has by itself, each computed by Keras from Keras' own outputs before it.

    Of a model with its channels first also with the channels last, as graphs hold them (`edge.converters.layouts`).
    """
    import keras

    turned = turned_inputs(model)
    given = {name: np.moveaxis(array, -1, 1) if name in turned else array for name, array in batch.items()}
    values: dict[str, Any] = {name: keras.ops.convert_to_tensor(array.astype(np.float32)) for name, array in given.items()}
    for call in model.calls:
        layer = _find_layer(loaded, re.sub(r"#\d+$", "", call.name))
        if layer is not None and not call.arguments and len(call.outputs) == 1 and all(name in values for name in call.inputs):
            values[call.outputs[0]] = _apply(layer, call, values)
    outputs = {name: np.asarray(keras.ops.convert_to_numpy(value), np.float32) for name, value in values.items()}
    return outputs | {name + SUFFIX: np.moveaxis(array, 1, -1) for name, array in outputs.items() if array.ndim > 2}


def _apply(layer: Any, call: Call, values: Mapping[str, Any]) -> Any:
    operands = [values[name] for name in call.inputs]
    return layer(operands if len(operands) > 1 else operands[0])


def _find_layer(model: Any, name: str) -> Any:
    """The layer "outer/inner" of nested models; None for what is no layer, as the operators in functional models are not."""
    for layer in model.layers:
        if layer.name == name:
            return layer
        if name.startswith(f"{layer.name}/") and hasattr(layer, "layers"):
            return _find_layer(layer, name[len(layer.name) + 1 :])
    return None
