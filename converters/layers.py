"""From a Keras model, as its file describes it, to a graph in plain form: one function per layer (`edge.converters.builder`)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from edge.batches import takes_pictures
from edge.converters import (
    layers_activation,
    layers_applications,
    layers_channels,
    layers_conv,
    layers_merge,
    layers_normalize,
    layers_qkeras,
    layers_resample,
    layers_shape,
    layers_training,
    layers_transpose,
    operations_math,
    operations_pictures,
    operations_reduce,
    operations_shape,
)
from edge.converters.builder import READERS, Builder, Layer, attributes, describe
from edge.converters.keras_model import Call, KerasModel, Value
from edge.converters.layouts import SUFFIX, Layouts, turned_inputs, turned_shape
from edge.converters.operations import OPERATIONS, is_operation, operate
from edge.converters.pixel_range import first_calls, takes_bytes, usual_preset
from edge.converters.refusals import reason_against
from edge.errors import InputError, ModelError
from edge.graph import Graph, Node
from edge.tensors import Encoding, TensorType

# Importing them fills READERS, and OPERATIONS.
_FAMILIES = (
    *(layers_activation, layers_channels, layers_conv, layers_merge, layers_normalize, layers_resample, layers_shape, layers_transpose),
    *(layers_applications, layers_training, layers_qkeras),
    *(operations_math, operations_pictures, operations_reduce, operations_shape),
)
# Where layers of these class names may come from; anything else with the same name may do something else.
_PACKAGES = ("keras", "tf_keras", "tensorflow", "Larq", "larq", "qkeras", "edge")
# Keras 2.13 to 2.15 register this layer of InceptionResNetV2 as others do theirs.
_APPLICATIONS = frozenset({("Custom", "CustomScaleLayer")})
_READ_AS = ("float32", "uint8")


def supported_layers() -> tuple[str, ...]:
    """The class names of the Keras and Larq layers that can be converted, sorted; `InputLayer` is among them.

    Beside them, functions are read that Keras recorded like layers (`edge.converters.operations`).
    """
    return tuple(sorted({name for name in READERS if not name.startswith("ops.")} | {"InputLayer"}))


def supported_operations() -> tuple[str, ...]:
    """The names of the functions that can be converted where a functional model applies them, sorted."""
    return tuple(sorted(OPERATIONS))


def _computing() -> list[str]:
    return [name for name in supported_layers() if name not in layers_shape.TRAINING_ONLY]


def rescales_itself(model: KerasModel) -> bool:
    """Whether the first thing the model does with its pictures, but for moving them, is to bring bytes 0..255 to a smaller range."""
    first = [takes_bytes(call) for call in first_calls(model, _pictures(model))]
    return bool(first) and all(first)


def meant_preset(model: KerasModel) -> tuple[str, str] | None:
    """The name of the network of keras.applications that a model begins with, and the preset of pictures it was meant for."""
    return usual_preset(model, _pictures(model))


def _pictures(model: KerasModel) -> set[str]:
    """The inputs that take pictures; a single one may."""
    return {value.name for value in given_inputs(model) if len(model.inputs) == 1 or takes_pictures(value.shape)}


def read_graph(model: KerasModel, *, input_dtype: str = "float32") -> Graph:
    """The graph of a Keras model, verified.

    `input_dtype` is what the program will be given: "float32", or "uint8" for bytes 0..255 that stand for themselves; of several inputs,
    as those that are pictures. Raises `ModelError` for a model, and `InputError` for an option, that does not fit.
    """
    if input_dtype not in _READ_AS:
        raise InputError(f"input_dtype should be one of {', '.join(_READ_AS)}, got {input_dtype!r}")
    _check_names(model)
    build = Builder(frozenset(name for call in model.calls for name in call.outputs), _keras_major(model))
    layouts, sources, turned = Layouts(build), tuple(value.name for value in model.inputs), turned_inputs(model)
    for value in given_inputs(model):
        dtype = input_dtype if len(model.inputs) == 1 or takes_pictures(value.shape) else "float32"
        layouts.hold(value.name, _add_input(build, value.name, _shape(value, model), dtype), turned=value.name in turned)
    for call in model.calls:
        _read_call(call, layouts, build)
    outputs = tuple(_output(build, layouts.tensors[name], name) for name in model.outputs)
    if set(sources).intersection(outputs) or not build.nodes:
        raise ModelError(f"the model {model.source} gives its input back; it has no layer to convert")
    nodes = _needed(build.nodes, outputs)
    return Graph(model.name, sources, outputs, nodes, build.types, output_names=model.output_names, trained=build.trained).verify()


def _keras_major(model: KerasModel) -> int:
    major = model.keras_version.partition(".")[0]
    return int(major) if major.isdecimal() else 3


def _check_names(model: KerasModel) -> None:
    """Names are printed to terminals and stored in files, which refuse control characters."""
    names = [model.name, *model.output_names, *(value.name for value in model.inputs), *(call.name for call in model.calls)]
    odd = next((name for name in names if any(unicodedata.category(c) == "Cc" for c in name)), None)
    if odd is not None:
        raise ModelError(f"the name {odd!r} in {model.source} holds control characters; rename the layer and save the model again")


def _shape(value: Value, model: KerasModel) -> tuple[int, ...]:
    """An input's shape without the batch; the reader has resolved the sizes that the file leaves open."""
    shape = tuple(size for size in value.shape or () if size is not None)
    if len(shape) != len(value.shape or ()) or not 1 <= len(shape) <= 3:
        raise ModelError(
            f"the input {value.name!r} of {model.source} has the shape {value.shape}; expected one to three known axes, "
            "such as height, width, channels"
        )
    return shape


def given_inputs(model: KerasModel) -> tuple[Value, ...]:
    """The inputs as the graph takes them: pictures with their channels last."""
    turned = turned_inputs(model)
    return tuple(replace(value, shape=turned_shape(value.shape or ())) if value.name in turned else value for value in model.inputs)


def _needed(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[Node, ...]:
    """The nodes that the outputs come from, in their order: a tensor that was turned, and back, may be read by none."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def _add_input(build: Builder, name: str, shape: tuple[int, ...], dtype: str) -> str:
    """Declare the input; bytes are made float32 by a node of their own, which passes remove where they can."""
    build.types[name] = TensorType(shape, Encoding.UINT8 if dtype == "uint8" else Encoding.FLOAT32)
    if dtype == "float32":
        return name
    as_float = f"{name}/dequantize"
    build.types[as_float] = TensorType(shape)
    build.nodes.append(Node("dequantize", (name,), as_float, attributes("dequantize"), {}, ()))
    return as_float


def _read_call(call: Call, layouts: Layouts, build: Builder) -> None:
    """Add a layer's nodes; a single tensor that it gives has the layer's name unless the layer does nothing, or it is turned."""
    call = layers_applications.recognised(call)
    _check(call)
    call, inputs, turned = layouts.adapted(call)
    layer = Layer(call, inputs, tuple(build.types[name] for name in inputs))
    before = len(build.nodes)
    made = operate(layer, build) if is_operation(call) else READERS[call.class_name](layer, build)
    tensors = made if isinstance(made, tuple) else (made,)
    if len(call.outputs) != len(tensors):
        raise layer.error(f"has {len(call.outputs)} outputs, expected {len(tensors)}")
    if len(tensors) == 1 and build.nodes[before:] and build.nodes[-1].output == tensors[0]:
        turns = turned and len(build.types[tensors[0]].shape) > 1
        tensors = (build.rename(tensors[0], call.outputs[0] + (SUFFIX if turns else "")),)
    for value, tensor in zip(call.outputs, tensors, strict=True):
        layouts.hold(value, tensor, turned=turned)


def _check(call: Call) -> None:
    reason = None if call.class_name in READERS else reason_against(call)
    if reason is not None:
        raise ModelError(f"{describe(call)}: {reason}")
    if call.class_name not in READERS and not is_operation(call):
        raise ModelError(
            f"{describe(call)}: this layer is not supported; there are {', '.join(_computing())} and those that only train; "
            "replace it by these and train again"
        )
    if call.package is not None and not call.package.startswith(_PACKAGES) and (call.package, call.class_name) not in _APPLICATIONS:
        raise ModelError(f"{describe(call)}: a custom layer of {call.package!r} is not Keras' own; replace it by a layer of Keras or Larq")
    unknown = sorted(set(call.arguments) - {"training"})
    if unknown and not is_operation(call):
        raise ModelError(f"{describe(call)}: called with {', '.join(unknown)}, which is not supported; call it with tensors alone")
    if not call.inputs:
        raise ModelError(f"{describe(call)}: has no input; expected one")


def _output(build: Builder, tensor: str, name: str) -> str:
    """Networks give numbers: signs that are an output are unpacked."""
    if build.types[tensor].encoding is not Encoding.BITS:
        return tensor
    as_float = f"{tensor}/unpack"
    if as_float not in build.types:
        build.types[as_float] = TensorType(build.types[tensor].shape)
        build.nodes.append(Node("unpack", (tensor,), as_float, attributes("unpack"), {}, (name,)))
    return as_float
