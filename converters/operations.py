"""Functions that functional models record like layers: `x * 0.5`, `keras.ops.relu(x)`, `tf.split(x, 4, axis=-1)`, `x[:, 1:]`.

Every version of Keras writes them in its own way: Keras 3 the class of the function ("ops.Multiply"), Keras 2 `TFOpLambda` and
`SlicingOpLambda` with the function's name ("math.multiply"), TensorFlow 2.0 to 2.3 `TensorFlowOpLayer` with a node of TensorFlow's graph.
`operation` brings them into one form: a name, operands in order, of which some are constants, and options. One function under
`@computes("name", ...)` turns an operation into layers or nodes: those of values are in `edge.converters.operations_math`, those that move
values in `operations_shape`, those on pictures in `operations_pictures`, those that bring axes to one value in `operations_reduce`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

from edge.converters.builder import READERS, Builder, Layer
from edge.converters.keras_model import Call
from edge.errors import ModelError
from edge.graph import Array

KERAS_2 = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
PREFIX = "ops."


def is_operation(call: Call) -> bool:
    """Whether a call is one of a function, not of a layer."""
    return call.class_name in KERAS_2 or call.class_name.startswith(PREFIX)


# -- one form ------------------------------------------------------------------------------------------------------------------


class Tensor(str):
    """The name of a tensor of the graph: an operand that is no constant."""


@dataclass(frozen=True, eq=False)
class Operation:
    """A function applied to tensors and constants.

    name      of the function in snake case, without module: "multiply", "relu6", "mean"
    operands  tensors (`Tensor`) and constants (anything else), as in the call
    options   what else was given, by the names of the parameters
    """

    layer: Layer
    name: str
    operands: tuple[Any, ...]
    options: Mapping[str, Any]

    def option(self, *names: str, default: Any = None) -> Any:
        """The option known by one of `names`; versions differ in them."""
        return next((self.options[name] for name in names if self.options.get(name) is not None), default)

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(operand for operand in self.operands if isinstance(operand, Tensor))

    def constant(self, position: int, *names: str) -> Any:
        """What is a constant operand in some versions, and an option called one of `names` in others."""
        operands = self.operands[position : position + 1]
        return operands[0] if operands and not isinstance(operands[0], Tensor) else self.option(*names)

    def refuse(self, reason: str, remedy: str = "replace it by layers and save the model again") -> NoReturn:
        raise self.layer.error(f"the operation {_written_name(self.layer.call)!r} {reason}; {remedy}")

    def through(
        self, class_name: str, config: Mapping[str, Any], build: Builder, *tensors: str, weights: Mapping[str, Array] | None = None
    ) -> str:
        """The output of the layer `class_name` with this configuration, applied to `tensors`, or to those of the operation."""
        if class_name not in READERS:
            self.refuse(f"needs the layer {class_name}, which is not supported")
        inputs = tensors or self.tensors
        call = replace(self.layer.call, class_name=class_name, config=config, arguments={}, weights=weights or {})
        output = READERS[class_name](Layer(call, inputs, tuple(build.types[name] for name in inputs)), build)
        assert isinstance(output, str)  # only splitting gives several, and is no layer
        return output


Compute = Callable[[Operation, Builder], str | tuple[str, ...]]
_Function = TypeVar("_Function", bound=Compute)
OPERATIONS: dict[str, Compute] = {}


def computes(*names: str) -> Callable[[_Function], _Function]:
    """Decorator: this function turns the operations of these names into nodes."""

    def register(function: _Function) -> _Function:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def operate(layer: Layer, build: Builder) -> str | tuple[str, ...]:
    """Add the nodes of a call of a function."""
    found = operation(layer)
    if found.name not in OPERATIONS:
        found.refuse(
            f"of {len(found.tensors)} tensors is not supported, there are {', '.join(sorted(OPERATIONS))}",
            "replace it by layers such as Rescaling, Add or Activation",
        )
    return OPERATIONS[found.name](found, build)


def operation_name(call: Call) -> str:
    """The name of the function that a call applies, in snake case, without module."""
    name = _written_name(call).rpartition(".")[2]
    name = name if call.class_name == "TFOpLambda" else _snake_case(name)
    return _ALIASES.get(name, name)


def _written_name(call: Call) -> str:
    if call.class_name == "SlicingOpLambda":
        return str(call.config.get("function", "getitem"))
    if call.class_name == "TensorFlowOpLayer":
        return str(_node_def(call).get("op", "unknown"))
    return str(call.config.get("function")) if call.class_name == "TFOpLambda" else call.class_name.removeprefix(PREFIX)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


# TensorFlow's names, and former ones, by those that are used here.
_ALIASES: Mapping[str, str] = {
    **{"mul": "multiply", "add_v2": "add", "bias_add": "add", "sub": "subtract", "add_n": "add"},
    **{"truediv": "divide", "true_divide": "divide", "real_div": "divide", "div": "divide", "div_no_nan": "divide"},
    **{"pow": "power", "neg": "negative", "abs": "absolute", "reduce_mean": "mean", "reduce_max": "max", "reduce_sum": "sum"},
    **{"reduce_min": "min", "amax": "max", "amin": "min", "reduce_variance": "var", "variance": "var", "reduce_std": "std"},
    **{"l2_normalize": "normalize", "matmul_v2": "matmul", "mat_mul": "matmul", "batch_mat_mul_v2": "matmul", "dot": "matmul"},
    **{"inv": "reciprocal", "reverse": "flip", "reverse_v2": "flip", "gather": "take", "gather_v2": "take", "mirror_pad": "pad"},
    **{"depth_to_space_v2": "depth_to_space", "unpack": "unstack", "unstacked": "unstack", "space_to_depth_v2": "space_to_depth"},
    **{"clip_by_value": "clip", "concat": "concatenate", "concat_v2": "concatenate", "getitem": "get_item"},
    **{"strided_slice": "get_item_strided", "pad_v2": "pad", "zeros_pad": "pad", "swish": "silu", "hard_swish": "hard_silu"},
    **{"pack": "stack", "max_pool2d": "max_pool", "avg_pool2d": "average_pool", "avg_pool": "average_pool"},
    **{"resize_bilinear": "resize", "resize_images_v2": "resize", "resize_v2": "resize"},
}
_NO_OPTIONS = ("name", "dtype", "training")
_POSITIONS: Mapping[str, int] = {"x": 0, "x1": 0, "a": 0, "value": 0, "input": 0, "tensor": 0, "features": 0, "images": 0,
                                 "y": 1, "x2": 1, "b": 1, "bias": 1}  # fmt: skip


def operation(layer: Layer) -> Operation:
    """The call of a function in one form."""
    call = layer.call
    if call.class_name == "TensorFlowOpLayer":
        return _of_node(layer)
    operands, options = _operands(layer)
    own = {key: value for key, value in call.config.items() if key not in ("name", "trainable", "dtype", "function")}
    if call.class_name == "ops.Cast":
        own["dtype"] = call.config.get("dtype")
    return Operation(layer, operation_name(call), operands, {**own, **options})


def _operands(layer: Layer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tensors and constants by position, and the named arguments that are options."""
    placed: dict[int, Any] = {}
    options: dict[str, Any] = {}
    mentioned: set[int] = set()
    for key, value in layer.call.arguments.items():
        found = _tensor_numbers(value)
        mentioned.update(found)
        position = int(key) if re.fullmatch(r"[0-9]{1,2}", key) else _POSITIONS.get(key)
        if position is None or position in placed:
            options[key] = constant_value(value)
        elif key not in _NO_OPTIONS:
            placed[position] = Tensor(layer.inputs[found[0]]) if len(found) == 1 and _is_tensor(value) else constant_value(value)
    rest = [Tensor(name) for number, name in enumerate(layer.inputs) if number not in mentioned]
    ordered: list[Any] = []
    for position in range(len(rest) + max(placed, default=-1) + 1):
        if position in placed:
            ordered.append(placed[position])
        elif rest:
            ordered.append(rest.pop(0))
    return tuple(ordered), {key: value for key, value in options.items() if key not in _NO_OPTIONS or key == "dtype"}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"input"}


def _tensor_numbers(value: Any) -> list[int]:
    if _is_tensor(value):
        return [value["input"]]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [number for item in items for number in _tensor_numbers(item)]


def constant_value(value: Any) -> Any:
    """A constant as Python writes it: arrays of Keras 3 ({"class_name": "__numpy__", ...}) become lists; the rest stays."""
    if isinstance(value, Mapping) and value.get("class_name") in ("__numpy__", "__tensor__"):
        config = value.get("config")
        return config.get("value") if isinstance(config, Mapping) else None
    return value


# -- nodes of TensorFlow 2.0 to 2.3 --------------------------------------------------------------------------------------------


def _node_def(call: Call) -> Mapping[str, Any]:
    """The node of TensorFlow's graph, which the file has as JSON text."""
    text = call.config.get("node_def")
    try:
        node = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as err:
        raise ModelError(
            f"layer {call.name!r} (TensorFlowOpLayer): its node_def is not JSON; save the model again with TensorFlow 2.4"
        ) from err
    return node if isinstance(node, Mapping) else {}


def _of_node(layer: Layer) -> Operation:
    """A TensorFlowOpLayer: constants by their place among the operands, attributes as {"keep_dims": {"b": true}}."""
    node, constants = _node_def(layer.call), layer.call.config.get("constants")
    constants = constants if isinstance(constants, Mapping) else {}
    placed = {int(key): value for key, value in constants.items() if re.fullmatch(r"[0-9]{1,2}", str(key))}
    rest = [Tensor(name) for name in layer.inputs]
    operands = tuple(placed[k] if k in placed else rest.pop(0) for k in range(len(placed) + len(rest)) if k in placed or rest)
    attributes = node.get("attr")
    options = {key: _attribute(value) for key, value in attributes.items()} if isinstance(attributes, Mapping) else {}
    return Operation(layer, operation_name(layer.call), operands, options)


def _attribute(value: Any) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1:
        return None
    ((kind, content),) = value.items()
    if kind == "i":
        return int(content) if re.fullmatch(r"-?\d{1,18}", str(content)) else None
    if kind == "s":
        return base64.b64decode(str(content)[:1000]).decode(errors="replace")
    if kind == "list" and isinstance(content, Mapping):
        return [_attribute({"i": item}) for item in content["i"]] if isinstance(content.get("i"), list) else None
    return content
