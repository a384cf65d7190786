"""Functions of values that functional models record like layers: arithmetic with numbers and tensors, powers, activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edge.converters.builder import Builder
from edge.converters.layers_merge import pair
from edge.converters.operations import PREFIX, Operation, computes
from edge.graph import Array
from edge.ops import Activation

# -- arithmetic ----------------------------------------------------------------------------------------------------------------


def _channel_constant(op: Operation, value: Any, tensor: str, build: Builder) -> Array:
    """A number, or one for each channel, as float64 of one value a channel."""
    shape = build.types[tensor].shape
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        op.refuse(f"takes {str(value)[:60]!r}, expected a number, or one for each of {shape[-1]} channels")
    fits = array.ndim <= len(shape) + 1 and array.size in (1, array.shape[-1] if array.ndim else 1) and array.size in (1, shape[-1])
    if not fits or not np.isfinite(array).all() or np.abs(array).max(initial=0) > np.finfo(np.float32).max:
        op.refuse(f"takes a constant of shape {array.shape}, expected a finite number, or one for each of {shape[-1]} channels")
    return np.asarray(np.broadcast_to(array.reshape(-1), (shape[-1],)))


def linear(op: Operation, build: Builder, tensor: str, mul: Any = 1.0, add: Any = 0.0) -> str:
    """tensor * mul + add, numbers or one per channel; nothing where that changes nothing."""
    channels = build.types[tensor].shape[-1]
    given = {"mul": (mul, 1.0), "add": (add, 0.0)}
    constants = {
        role: np.broadcast_to(np.asarray(value, np.float32), (channels,)).copy()
        for role, (value, neutral) in given.items()
        if np.any(np.asarray(value) != neutral)
    }
    return build.add("affine", op.layer, tensor, constants=constants) if constants else tensor


_LAYERS = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply", "maximum": "Maximum", "minimum": "Minimum"}


@computes("add", "subtract", "multiply", "divide", "maximum", "minimum")
def arithmetic(op: Operation, build: Builder) -> str:
    """Two tensors (or more, added) as the layer of that name; a tensor and a constant as a linear function."""
    if len(op.tensors) == len(op.operands) >= 2:
        return op.through(_LAYERS[op.name], {}, build) if op.name in _LAYERS else _divided(op, build, *op.tensors)
    if len(op.operands) != 2 or len(op.tensors) != 1:
        op.refuse(f"takes {len(op.operands)} operands, expected two")
    tensor = op.tensors[0]
    constant_first = op.operands[1] is tensor
    constant = _channel_constant(op, op.operands[0 if constant_first else 1], tensor, build)
    return _WITH_CONSTANT[op.name](op, build, tensor, constant, constant_first)


def _subtract(op: Operation, build: Builder, x: str, c: Array, first: bool) -> str:
    return linear(op, build, x, mul=-1.0, add=c) if first else linear(op, build, x, add=-c)


def _divide(op: Operation, build: Builder, x: str, c: Array, first: bool) -> str:
    if first:
        return _quotient(op, build, c, x)
    if not c.all():
        op.refuse("divides by 0; expected another number")
    return linear(op, build, x, mul=1 / c)


def _divided(op: Operation, build: Builder, first: str, second: str) -> str:
    """first / second; where `second` has more values, `first` is repeated by adding it to zeros."""
    larger = build.types[second].elements > build.types[first].elements
    whole = pair(op.layer, build, "add", linear(op, build, second, mul=0.0), first) if larger else first
    return pair(op.layer, build, "divide", whole, second)


@computes("squared_difference")
def squared_difference(op: Operation, build: Builder) -> str:
    difference = arithmetic(replace(op, name="subtract"), build)
    return pair(op.layer, build, "multiply", difference, difference)


@computes("matmul")
def matmul(op: Operation, build: Builder) -> str:
    """A tensor times a constant matrix, as a dense layer without bias."""
    if len(op.tensors) != 1 or op.operands[0] is not op.tensors[0]:
        op.refuse("multiplies matrices of which the second is no constant", "use a Dense layer, or Conv2D, and save the model again")
    try:
        kernel = np.asarray(op.constant(1, "b", "x2", "y"), np.float32)
    except (TypeError, ValueError, OverflowError):
        kernel = np.empty(0, np.float32)
    options = [op.option(name) for name in ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")]
    if kernel.ndim != 2 or not np.isfinite(kernel).all() or any(options):
        op.refuse(f"multiplies by a constant of shape {kernel.shape}, expected a matrix of finite numbers, not transposed")
    return op.through("Dense", {"use_bias": False, "units": kernel.shape[1]}, build, op.tensors[0], weights={"kernel": kernel})


def _maximum(op: Operation, build: Builder, x: str, c: Array, first: bool) -> str:
    return _above(op, build, x, c)


def _minimum(op: Operation, build: Builder, x: str, c: Array, first: bool) -> str:
    """min(x, c) = -max(-x, -c)."""
    return linear(op, build, _above(op, build, linear(op, build, x, mul=-1.0), -c), mul=-1.0)


_WITH_CONSTANT: Mapping[str, Callable[[Operation, Builder, str, Array, bool], str]] = {
    "add": lambda op, build, x, c, first: linear(op, build, x, add=c),
    "multiply": lambda op, build, x, c, first: linear(op, build, x, mul=c),
    "subtract": _subtract,
    "divide": _divide,
    "maximum": _maximum,
    "minimum": _minimum,
}


def _above(op: Operation, build: Builder, x: str, low: Array, limit: float = math.inf) -> str:
    """max(x, low) = max(x - low, 0) + low, to one rounding of float32; with `limit` at most low + limit."""
    attrs = {"activation": Activation.RELU, "limit": limit}
    return linear(op, build, build.add("activation", op.layer, linear(op, build, x, add=-low), attrs=attrs), add=low)


@computes("clip")
def clip(op: Operation, build: Builder) -> str:
    """min(max(x, low), high) of two numbers."""
    bounds = op.constant(1, "x_min", "clip_value_min", "min_value"), op.constant(2, "x_max", "clip_value_max", "max_value")
    low, high = (float(bound) if isinstance(bound, (int, float)) else math.nan for bound in bounds)
    if not -math.inf < low <= high < math.inf:
        op.refuse(f"clips to {bounds[0]!r} ... {bounds[1]!r}, expected two numbers")
    return _above(op, build, op.tensors[0], np.array(low), high - low)


@computes("negative")
def negative(op: Operation, build: Builder) -> str:
    return linear(op, build, op.tensors[0], mul=-1.0)


@computes("absolute")
def absolute(op: Operation, build: Builder) -> str:
    """A leaky ReLU whose slope below zero is -1."""
    return build.add("activation", op.layer, op.tensors[0], attrs={"activation": Activation.LEAKY_RELU, "alpha": -1.0})


_EXPONENTS: Mapping[str, float] = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
_MAX_EXPONENT = 16


@computes("power", *_EXPONENTS)
def power(op: Operation, build: Builder) -> str:
    """x to the power of a whole number, or of half of one, by products, roots and a quotient."""
    given = _EXPONENTS.get(op.name, op.constant(1, "y", "x2"))
    exponent = float(given) if isinstance(given, (int, float)) else math.nan
    if len(op.tensors) != 1 or not (2 * exponent).is_integer() or not 0 < abs(exponent) <= _MAX_EXPONENT:
        op.refuse(f"raises to the power of {str(given)[:40]}, expected a whole number, or half of one, from -16 to 16 and not 0")
    base, times = op.tensors[0], int(abs(exponent))
    if exponent % 1:
        root = build.add("activation", op.layer, base, attrs={"activation": Activation.SQRT})
        raised = pair(op.layer, build, "multiply", _times(op, build, base, times), root) if times else root
    else:
        raised = _times(op, build, base, times)
    return raised if exponent > 0 else _quotient(op, build, 1.0, raised)


def _times(op: Operation, build: Builder, base: str, times: int) -> str:
    """base ** times, by squares and products."""
    if times == 1:
        return base
    half = _times(op, build, base, times // 2)
    square = pair(op.layer, build, "multiply", half, half)
    return pair(op.layer, build, "multiply", square, base) if times % 2 else square


def _quotient(op: Operation, build: Builder, number: Any, tensor: str) -> str:
    """number / tensor, one number or one for each channel."""
    return pair(op.layer, build, "divide", linear(op, build, tensor, mul=0.0, add=number), tensor)


# -- activations ---------------------------------------------------------------------------------------------------------------

# Those whose name alone says what they do (`layers_activation` knows which of them can be converted).
_ACTIVATIONS = ("relu", "relu6", "sigmoid", "tanh", "silu", "hard_silu", "hard_sigmoid", "softplus", "softsign", "selu", "mish", "exp",
                "log_sigmoid", "hard_tanh", "tanh_shrink", "soft_shrink", "sparse_plus", "sparse_sigmoid")  # fmt: skip
_NAMES = {"exp": "exponential"}


@computes(*_ACTIVATIONS)
def activation(op: Operation, build: Builder) -> str:
    return op.through("Activation", {"activation": _NAMES.get(op.name, op.name)}, build, op.tensors[0])


# The same, if what else can be said of them is what they are without it.
_WITH_OPTION: Mapping[str, tuple[str, float]] = {"celu": ("alpha", 1.0), "squareplus": ("b", 4), "glu": ("axis", -1)}


@computes(*_WITH_OPTION)
def activation_with_option(op: Operation, build: Builder) -> str:
    name, expected = _WITH_OPTION[op.name]
    given = op.constant(1, name)
    if given not in (None, expected):
        op.refuse(f"takes {name} {str(given)[:40]}, expected {expected:g}")
    return op.through("Activation", {"activation": op.name}, build, op.tensors[0])


@computes("gelu")
def gelu(op: Operation, build: Builder) -> str:
    """By tanh, as `keras.ops.gelu` computes it unless told otherwise, or by erf."""
    approximate = op.option("approximate", default=op.layer.call.class_name.startswith(PREFIX))
    activation = {"class_name": "gelu", "config": {"approximate": True}} if approximate else "gelu"
    return op.through("Activation", {"activation": activation}, build, op.tensors[0])


@computes("leaky_relu")
def leaky_relu(op: Operation, build: Builder) -> str:
    slope = op.constant(1, "negative_slope", "alpha")
    return op.through("LeakyReLU", {"alpha": 0.2 if slope is None else slope}, build, op.tensors[0])


@computes("elu")
def elu(op: Operation, build: Builder) -> str:
    return op.through("ELU", {"alpha": op.option("alpha", default=1.0)}, build, op.tensors[0])


@computes("softmax")
def softmax(op: Operation, build: Builder) -> str:
    return op.through("Softmax", {"axis": _axis(op)}, build, op.tensors[0])


@computes("log_softmax")
def log_softmax(op: Operation, build: Builder) -> str:
    if _axis(op) not in (-1, len(build.types[op.tensors[0]].shape)):
        op.refuse(f"works along axis {op.constant(1, 'axis')}, expected the last, -1")
    return build.add("log_softmax", op.layer, op.tensors[0])


def _axis(op: Operation) -> Any:
    axis = op.constant(1, "axis", "dim")
    return -1 if axis is None else axis
