"""Activations that no operator of TFLite carries, in built-in operators of float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edge.ops import Activation

if TYPE_CHECKING:
    from edge.converters.tflite_lowering import Lowering

_PLAIN = {"fusedActivationFunction": 0}
_One = Callable[["Lowering", int], int]


def _named(name: str, **options: int | float) -> _One:
    return lambda low, x: low.op(name, [x], low.like(x), **options)


def _times(low: Lowering, x: int, y: int) -> int:
    return low.op("MUL", [x, y], low.like(x), **_PLAIN)


def _swish(low: Lowering, x: int) -> int:
    return _times(low, x, low.op("LOGISTIC", [x], low.like(x)))


def _softplus(low: Lowering, x: int) -> int:
    """max(x, 0) + log(1 + exp(-|x|))."""
    magnitude = low.op("ABS", [x], low.like(x))
    power = low.op("EXP", [low.multiply(magnitude, np.array([-1.0]))], low.like(x))
    rest = low.op("LOG", [low.add(power, np.ones(1))], low.like(x))
    return low.op("ADD", [low.op("RELU", [x], low.like(x)), rest], low.like(x), **_PLAIN)


def _mish(low: Lowering, x: int) -> int:
    return _times(low, x, low.op("TANH", [_softplus(low, x)], low.like(x)))


def _softsign(low: Lowering, x: int) -> int:
    magnitude = low.add(low.op("ABS", [x], low.like(x)), np.ones(1))
    return low.op("DIV", [x, magnitude], low.like(x), **_PLAIN)


ACTIVATIONS: Mapping[Activation, _One] = {
    Activation.SIGMOID: _named("LOGISTIC"),
    Activation.TANH: _named("TANH"),
    Activation.HARD_SWISH: _named("HARD_SWISH"),
    Activation.SWISH: _swish,
    Activation.GELU: _named("GELU", approximate=False),
    Activation.GELU_TANH: _named("GELU", approximate=True),
    Activation.SOFTPLUS: _softplus,
    Activation.SOFTSIGN: _softsign,
    Activation.MISH: _mish,
    Activation.EXP: _named("EXP"),
    Activation.SQRT: _named("SQRT"),
}
