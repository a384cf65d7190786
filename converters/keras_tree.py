"""A Keras model configuration as layers that refer to each other: Sequential and functional models, of Keras 2 and 3, in one form.

A Sequential model becomes a functional one: an input, and a chain of layers each applied once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge.converters.keras_json import flatten, index, mapping, sequence, text
from edge.errors import ModelError

INPUT_LAYER = "InputLayer"
# Of tensorflow_model_optimization: the layer within is trained as it will be used.
TRAINING_WRAPPERS = ("PruneLowMagnitude", "ClusterWeights")


@dataclass(frozen=True)
class Reference:
    """Output `tensor` of application `node` of `layer`, as the file numbers them (see `keras_graph` for nested models)."""

    layer: str
    node: int
    tensor: int


@dataclass(frozen=True)
class Node:
    """One application of a layer: the tensors it takes, and the rest of its arguments."""

    inputs: tuple[Reference, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a model: `model` where it is a nested one; `shared` where several configurations are the same object."""

    name: str
    class_name: str
    package: str | None
    config: Mapping[str, Any]
    nodes: tuple[Node, ...]
    model: Model | None = None
    shared: int | None = None
    is_operation: bool = False


@dataclass(frozen=True, eq=False)
class Model:
    """A model: `input_shape` is that of a Sequential model without input layer, batch included, as its configuration tells it."""

    name: str
    class_name: str
    layers: tuple[Layer, ...]
    inputs: tuple[Reference, ...]
    outputs: tuple[Reference, ...]
    output_names: tuple[str, ...]
    trainable: bool = True
    input_shape: Any = None


def read_model(entry: Mapping[str, Any], *, major: int) -> Model:
    """The model that `entry`, {"class_name": ..., "config": ...}, describes; `major` is Keras' version."""
    class_name = text(entry.get("class_name"), "the model's class")
    if not _is_model(entry):
        raise ModelError(
            f"model class {class_name!r} is a subclass whose layers are in code, which is not in the file: "
            "build the model with keras.Sequential or keras.Model(inputs, outputs) and save it again"
        )
    config = entry["config"]
    # Keras before 2.2.3 wrote the list of layers alone.
    if isinstance(config, list):
        return _sequential({"name": "sequential", "layers": config}, entry, major)
    return _functional(config, entry, major) if "output_layers" in config else _sequential(config, entry, major)


def _is_model(entry: Mapping[str, Any]) -> bool:
    config = entry.get("config")
    if isinstance(config, list):
        return entry.get("class_name") == "Sequential"
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        return False
    return "output_layers" in config or entry.get("class_name") == "Sequential"


def _functional(config: Mapping[str, Any], entry: Mapping[str, Any], major: int) -> Model:
    name = text(config.get("name", "model"), "the model's name")
    layers = tuple(_layer(item, major) for item in sequence(config["layers"], f"the layers of {name!r}"))
    _check_unique(layers, name)
    outputs = _references(config["output_layers"], f"the outputs of {name!r}")
    inputs = _references(config.get("input_layers"), f"the inputs of {name!r}")
    if not inputs or not outputs:
        raise ModelError(f"model {name!r} has {len(inputs)} inputs and {len(outputs)} outputs, expected at least one of each")
    return Model(
        name=name,
        class_name=text(entry["class_name"], "the model's class"),
        layers=layers,
        inputs=inputs,
        outputs=outputs,
        output_names=_output_names(config["output_layers"], outputs),
        trainable=config.get("trainable") is not False,
    )


def _output_names(structure: Any, outputs: tuple[Reference, ...]) -> tuple[str, ...]:
    keys = tuple(text(key, "the name of an output") for key in sorted(structure)) if isinstance(structure, dict) else ()
    return keys if len(keys) == len(outputs) else tuple(reference.layer for reference in outputs)


def _references(structure: Any, what: str) -> tuple[Reference, ...]:
    leaves = flatten(structure, _is_reference)
    return tuple(_reference(leaf, what) for leaf in leaves)


def _is_reference(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str)


def _reference(value: list[Any], what: str) -> Reference:
    return Reference(text(value[0], what), index(value[1], what), index(value[2], what))


def _check_unique(layers: tuple[Layer, ...], model: str) -> None:
    seen: set[str] = set()
    for layer in layers:
        if layer.name in seen:
            raise ModelError(f"model {model!r} has two layers named {layer.name!r}, expected unique names: save the model again")
        seen.add(layer.name)


def _sequential(config: Mapping[str, Any], entry: Mapping[str, Any], major: int) -> Model:
    name = text(config.get("name", "sequential"), "the model's name")
    layers = [_layer(item, major) for item in sequence(config["layers"], f"the layers of {name!r}")]
    given = layers[0] if layers and layers[0].class_name == INPUT_LAYER else None
    first = given or Layer(_free_name(layers), INPUT_LAYER, None, {}, ())
    chain = layers[1:] if given else layers
    if not chain:
        raise ModelError(f"model {name!r} has no layers: nothing to convert")
    before = [first, *chain[:-1]]
    linked = [replace(layer, nodes=(Node((_only(previous),)),)) for previous, layer in zip(before, chain, strict=True)]
    _check_unique((first, *linked), name)
    build = entry.get("build_config")
    return Model(
        name=name,
        class_name=text(entry["class_name"], "the model's class"),
        layers=(first, *linked),
        inputs=(_only(first),),
        outputs=(_only(linked[-1]),),
        output_names=(linked[-1].name,),
        trainable=config.get("trainable") is not False,
        input_shape=_first_shape(chain[0])
        or config.get("build_input_shape")
        or (build.get("input_shape") if isinstance(build, dict) else None),
    )


def _free_name(layers: list[Layer]) -> str:
    names = {layer.name for layer in layers}
    return next(name for name in ("input", *(f"input_{k}" for k in range(len(names)))) if name not in names)


def _only(layer: Layer) -> Reference:
    return Reference(layer.name, 0, 0)


def _first_shape(layer: Layer) -> Any:
    """Input shape of a Sequential model's first layer, batch included, or None."""
    if layer.model is None:
        return batch_shape(layer.config)
    inner = layer.model
    shapes = [batch_shape(item.config) for item in inner.layers if item.name == inner.inputs[0].layer]
    return shapes[0] or inner.input_shape


def batch_shape(config: Mapping[str, Any]) -> Any:
    """The input shape a layer's configuration carries: `batch_shape` in Keras 3, `batch_input_shape` in Keras 2, or None."""
    return config.get("batch_shape") or config.get("batch_input_shape")


def _layer(item: Any, major: int) -> Layer:
    entry = _unwrapped(mapping(item, "a layer"))
    registered = text(entry.get("class_name"), "a layer's class")
    config = entry.get("config")
    model = read_model(entry, major=major) if _is_model(entry) else None
    config = {} if model else mapping(config, f"the configuration of a {registered}")
    name = text(entry.get("name") or (model.name if model else config.get("name")), f"the name of a {registered}")
    package, class_name = _class_of(entry, registered)
    operation = model is None and _is_operation(entry, config, major)
    nodes = entry.get("inbound_nodes") or []
    return Layer(
        name=name,
        class_name=f"ops.{class_name}" if operation else class_name,
        package=package,
        config=config,
        nodes=tuple(_node(node, f"the inputs of layer {name!r}") for node in sequence(nodes, f"the inputs of layer {name!r}")),
        model=model,
        shared=shared if isinstance(shared := entry.get("shared_object_id"), int) else None,
        is_operation=operation,
    )


def _unwrapped(entry: dict[str, Any]) -> dict[str, Any]:
    """The layer within a wrapper that only trains, under the wrapper's name, by which its weights are stored."""
    config, class_name = entry.get("config"), str(entry.get("class_name")).rpartition(">")[2]
    inner = config.get("layer") if class_name in TRAINING_WRAPPERS and isinstance(config, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("config"), dict) or not isinstance(config, dict):
        return entry
    name = entry.get("name") or config.get("name") or inner["config"].get("name")
    shape = batch_shape(config) or batch_shape(inner["config"])
    own = {**inner["config"], "name": name, **({"batch_input_shape": shape} if shape else {})}
    return {**entry, "class_name": inner.get("class_name"), "registered_name": None, "config": own, "name": name}


def _class_of(entry: Mapping[str, Any], class_name: str) -> tuple[str | None, str]:
    """Package and class: "Larq>QuantConv2D" in either place, else the module where that is not Keras' own."""
    registered = entry.get("registered_name")
    for name in (class_name, registered if isinstance(registered, str) else ""):
        if ">" in name:
            package, _, short = name.rpartition(">")
            return package, short
    module = entry.get("module")
    own = not isinstance(module, str) or module.split(".")[0] in ("keras", "tf_keras", "tensorflow")
    return (None if own else module), class_name


def _is_operation(entry: Mapping[str, Any], config: Mapping[str, Any], major: int) -> bool:
    """Is this a function of `keras.ops`? Keras 3's `.keras` names the module; its `.h5` does not, but only layers have a dtype."""
    module = entry.get("module")
    if isinstance(module, str):
        return module.startswith(("keras.ops", "keras.src.ops"))
    casts = entry.get("class_name") in ("Cast", "ConvertToTensor")  # functions whose result has the dtype
    return major >= 3 and "inbound_nodes" in entry and (casts or "dtype" not in config)


def _node(node: Any, what: str) -> Node:
    if isinstance(node, dict) and set(node) == {"args", "kwargs"}:
        return _node_of_keras_3(node, what)
    return _node_of_keras_2(node, what)


def _node_of_keras_3(node: Mapping[str, Any], what: str) -> Node:
    inputs: list[Reference] = []
    arguments = {}
    named = mapping(node["kwargs"], what).items()
    for key, value in [*((str(k), arg) for k, arg in enumerate(sequence(node["args"], what))), *named]:
        before = len(inputs)
        kept = _without_tensors(value, inputs, _keras_3_tensor, what)
        if kept is not None and not (key.isdigit() and _only_tensors(kept, len(inputs) - before)):
            arguments[key] = kept
    return Node(tuple(inputs), arguments)


def _only_tensors(kept: Any, count: int) -> bool:
    """Does an argument hold tensors and nothing else? Then `inputs` says it all."""
    leaves = flatten(kept, lambda value: not isinstance(value, (dict, list)) or _is_placeholder(value))
    return count > 0 and len(leaves) == count


def _is_placeholder(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"input"}


def _without_tensors(value: Any, inputs: list[Reference], tensor: Any, what: str) -> Any:
    """`value` with each tensor appended to `inputs` and replaced by {"input": its position}."""
    reference = tensor(value, what)
    if reference is not None:
        inputs.append(reference)
        return {"input": len(inputs) - 1}
    if isinstance(value, dict):
        return {key: _without_tensors(value[key], inputs, tensor, what) for key in sorted(value)}
    if isinstance(value, list):
        return [_without_tensors(item, inputs, tensor, what) for item in value]
    return value


def _keras_3_tensor(value: Any, what: str) -> Reference | None:
    if not isinstance(value, dict) or value.get("class_name") != "__keras_tensor__":
        return None
    history = mapping(value.get("config"), what).get("keras_history")
    if not isinstance(history, list) or not _is_reference(history):
        raise ModelError(f"{what} name no layer: the model configuration is damaged, save the model again")
    return _reference(history, what)


def _keras_2_tensor(value: Any, what: str) -> Reference | None:
    numbered = _is_reference(value) and all(isinstance(item, int) and not isinstance(item, bool) for item in value[1:3])
    return _reference(value, what) if numbered else None


def _node_of_keras_2(node: Any, what: str) -> Node:
    """`[[layer, node, tensor, kwargs], ...]`; a TFOpLambda's lacks the outer list, and its first argument may be a constant."""
    leaves = flatten(node, _is_reference)
    inputs: list[Reference] = []
    arguments: dict[str, Any] = {}
    for position, leaf in enumerate(leaves):
        if leaf[0] == "_CONSTANT_VALUE":
            arguments[str(position)] = leaf[2]
        else:
            inputs.append(_reference(leaf, what))
    named = leaves[0][3] if leaves and len(leaves[0]) == 4 else {}
    for key, value in mapping(named, what).items():
        kept = _without_tensors(value, inputs, _keras_2_tensor, what)
        if kept is not None:
            arguments[key] = kept
    return Node(tuple(inputs), arguments)
