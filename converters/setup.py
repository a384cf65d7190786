"""A model as it was read: its network, what that takes, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.answers import class_count, kind_of
from edge.batches import size_text, takes_pictures
from edge.converters.keras_model import KerasModel, without_values
from edge.converters.layers import meant_preset, read_graph, rescales_itself
from edge.converters.layouts import is_turned
from edge.converters.samples import Samples, Source, load_examples
from edge.errors import InputError
from edge.graph import Graph
from edge.ops import Activation
from edge.preprocess import Preprocess, default_for, preset
from edge.tensors import TensorInfo
from edge.widths import INPUT_DTYPES, INT8

_LOSSES_OF_VALUES = ("mean_squared_error", "mse", "mean_absolute_error", "mae", "huber", "log_cosh")


@dataclass(frozen=True)
class Setup:
    """A model as read, and how its input is made. `input_dtype` is what the program will take; the graph has no int8 input yet."""

    model: KerasModel
    graph: Graph
    input_dtype: str
    preprocess: Preprocess | None  # None where the input is no picture
    is_assumed: bool = False  # the preprocess: nobody said what it is

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        types = {name: self.graph.types[name] for name in self.graph.inputs}
        return tuple(TensorInfo(name, kind.shape, kind.encoding.name.lower()) for name, kind in types.items())

    def samples(self, source: Source | None, array_names: Sequence[str]) -> Samples | None:
        """The examples behind `source`, with labels where they are classes of the network."""
        if source is None:
            return None
        found = load_examples(source, inputs=self.inputs, preprocess=self.preprocess, array_names=array_names)
        return found if (classes := self._classes()) is None else found.labelled_for(classes)

    def _classes(self) -> int | None:
        """How many classes the network tells apart, None where its outputs name none."""
        shapes = [self.graph.types[name].shape for name in self.graph.outputs]
        kinds = [each["kind"] for each in outputs_of(self.model, self.graph)]
        return class_count(list(zip(kinds, shapes, strict=True)))

    def described(self) -> str:
        """What the network sees, in words."""
        seen = {info.name: self.preprocess if takes_pictures(info.shape) else None for info in self.inputs}
        words = {info.name: how.describe(info.shape) if (how := seen[info.name]) else f"arrays of {info.shape}" for info in self.inputs}
        return "; ".join(f"{name}: {text}" for name, text in words.items()) if len(words) > 1 else "".join(words.values())

    def doubt(self) -> tuple[str, ...]:
        """The sentence on a network that is known to be meant for other pixels than those that are assumed."""
        meant = meant_preset(self.model) if self.is_assumed and self.preprocess is not None else None
        if meant is None or self.preprocess == preset(meant[1]):
            return ()
        network, name = meant
        return (f"{network} of keras.applications takes {_pixels(preset(name))}: give --preset {name} if this one was trained on these",)

    def turned(self) -> tuple[str, ...]:
        """The sentence on a source with its channels first, whose pictures the files take and give channels last."""
        given = {value.name: tuple(value.shape or ()) for value in self.model.inputs}
        taken = [f"take {info.name} as {size_text(info.shape)}" for info in self.inputs if given[info.name] != info.shape]
        ends = zip(self.graph.output_names, self.graph.outputs, strict=True)
        taken += [f"give {name} channels last" for name, end in ends if is_turned(end)]
        return (f"channels last: where the source has its channels first, the files {', and '.join(taken)}",) if taken else ()


def _pixels(preprocess: Preprocess) -> str:
    return preprocess.describe().rpartition(", ")[0]


def prepare(model: KerasModel, input_dtype: str, preprocess: Preprocess | str | None) -> Setup:
    """A model with its network; `input_dtype` is one of `INPUT_DTYPES`. Raises `InputError` where these don't fit together."""
    if input_dtype not in INPUT_DTYPES:
        raise InputError(f"input_dtype should be one of {', '.join(INPUT_DTYPES)}, got {input_dtype!r}")
    given = preset(preprocess) if isinstance(preprocess, str) else preprocess
    chosen = given or default_for(rescales_itself(model))
    seen_as = "uint8" if chosen.is_bytes else "float32"
    dtype = seen_as if input_dtype == "auto" else input_dtype
    if dtype == "uint8" and not chosen.is_bytes:
        seen, advice = chosen.describe(), "give --preset byte, or --input-dtype float32"
        raise InputError(f"an input of uint8 takes pixels 0..255, but the network sees {seen}; {advice}")
    graph = read_graph(model, input_dtype=seen_as if dtype == INT8 else dtype)
    shapes = [graph.types[name].shape for name in graph.inputs]
    pictures = [shape for shape in shapes if takes_pictures(shape)]
    for shape in (pictures or shapes[:1]) if given is not None else ():
        chosen.check(shape)
    return Setup(without_values(model), graph, dtype, chosen if pictures else None, given is None)


def outputs_of(model: KerasModel, graph: Graph) -> list[dict[str, str]]:
    """Of each output its name, its activation, and its kind (`edge.answers.KINDS`)."""
    found = []
    for name, tensor in zip(graph.output_names, graph.outputs, strict=True):
        activation = _activation(graph, tensor)
        kind = kind_of(activation, graph.types[tensor].shape)
        loss = (model.training or {}).get("loss")
        found.append({"name": name, "activation": activation, "kind": "values" if kind == "logits" and loss in _LOSSES_OF_VALUES else kind})
    return found


def _activation(graph: Graph, tensor: str) -> str:
    node = graph.producer(tensor)
    while node is not None and node.op in ("reshape", "dequantize", "quantize"):
        node = graph.producer(node.inputs[0])
    if node is None or node.op == "softmax":
        return "linear" if node is None else "softmax"
    return {Activation.SIGMOID: "sigmoid", Activation.TANH: "tanh"}.get(Activation(int(node.attrs.get("activation", 0))), "linear")
