"""Python operators that Keras records like layers: `x * 0.5`, `x + y`, `keras.ops.relu(x)`, `tf.split(x, 4, axis=-1)`.

Keras 3 writes the class `ops.Multiply`, Keras 2 the class `TFOpLambda` with the function's name. A number beside the tensor is an argument
of the call, by position or by keyword.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge.converters.builder import Builder, Layer, LayerFunction, reads
from edge.converters.keras_model import Call
from edge.converters.layers_activation import activate
from edge.converters.layers_channels import PAD, tf_pad, tf_split
from edge.converters.layers_shape import add

_KERAS_2 = {
    "__operators__.add": "add",
    "math.add": "add",
    "math.multiply": "multiply",
    "math.subtract": "subtract",
    "math.truediv": "divide",
    "math.divide": "divide",
    "nn.relu": "relu",
}
_KERAS_3 = {
    "ops.Add": "add",
    "ops.Multiply": "multiply",
    "ops.Subtract": "subtract",
    "ops.TrueDivide": "divide",
    "ops.Divide": "divide",
    "ops.Relu": "relu",
}
# Functions of Keras 2 that move values and compute none.
_MOVES: Mapping[str, LayerFunction] = {"compat.v1.pad": tf_pad, "pad": tf_pad, "split": tf_split}
CLASSES = (*_KERAS_3, PAD, "TFOpLambda")


def operator(call: Call) -> str | None:
    """Which operator a call is; None if it is none of those that can be converted."""
    if call.class_name == "TFOpLambda":
        return _KERAS_2.get(str(call.config.get("function")))
    return _KERAS_3.get(call.class_name)


@reads(*_KERAS_3, "TFOpLambda")
def operate(layer: Layer, build: Builder) -> str | tuple[str, ...]:
    moves = _MOVES.get(str(layer.call.config.get("function")))
    if moves is not None and layer.call.class_name == "TFOpLambda":
        return moves(layer, build)
    name = operator(layer.call)
    # A tensor given by keyword is among the inputs already.
    arguments = {key: value for key, value in layer.call.arguments.items() if key != "name" and not isinstance(value, dict)}
    if name == "add" and len(layer.inputs) > 1 and not arguments:
        return add(layer, build)
    if name == "relu" and len(layer.inputs) == 1 and not arguments:
        return activate(layer, build, layer.input, "relu")
    number = next(iter(arguments.values()), None)
    fits = len(layer.inputs) == len(arguments) == 1 and name not in (None, "relu")
    if name is None or not fits or not isinstance(number, (int, float)) or isinstance(number, bool):
        what = layer.call.config.get("function", layer.call.class_name)
        raise layer.error(
            f"the operation {what!r} of {len(layer.inputs)} tensors and {arguments or 'no numbers'} is not supported, expected a sum of "
            "tensors or + - * / with one number; replace it by layers such as Rescaling, Add or Activation"
        )
    return _with_number(layer, build, name, float(number), number_first="0" in arguments or "x" in arguments)


def _with_number(layer: Layer, build: Builder, name: str, number: float, *, number_first: bool) -> str:
    """x + n, n + x, x - n, n - x, x * n, n * x, x / n as x * mul + add."""
    if name == "divide" and (number_first or number == 0):
        raise layer.error("a number divided by a tensor, or a division by 0, is not supported; replace it by layers")
    mul, add = {
        "add": (1.0, number),
        "subtract": (-1.0, number) if number_first else (1.0, -number),
        "multiply": (number, 0.0),
        "divide": (1 / number if number else 0.0, 0.0),
    }[name]
    constants = {role: np.full(layer.shape[-1], v, np.float32) for role, v, neutral in (("mul", mul, 1), ("add", add, 0)) if v != neutral}
    return build.add("affine", layer, layer.input, constants=constants) if constants else layer.input
