"""The errors of the exponentials that `edge.kernels.vecmath` states, over all exponents and many values, on two instruction sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge.kernels.cache import KERNEL, addresses
from edge.kernels.isa import Machine, available, detect
from edge.kernels.registry import Code, KernelFunction
from edge.memory import aligned

COUNT = 1 << 20


def kernel(name: str) -> Callable[[Machine], KernelFunction]:
    """A kernel that replaces args[0] float32 of the arena by a function of them."""

    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import vecmath, vecmath_more
        from edge.kernels.simd import vector

        v, function = vector("f32", 16), getattr(vecmath if hasattr(vecmath, name) else vecmath_more, name)(16)

        def apply(args: Any, arena: Any, constants: Any, scratch: Any, part: Any, parts: Any) -> None:
            for i in range(0, args[0], 16):
                v.store(arena, 4 * i, function(v.load(arena, 4 * i)))

        return apply

    return build


def evaluated(name: str, x: np.ndarray, machine: Machine) -> np.ndarray:
    arena = aligned(x.nbytes)
    values = arena.view(np.float32)
    values[:] = x
    code = Code(f"vecmath_{name}", kernel(name))
    args = np.array([x.size], np.int64)
    pointers = (args.ctypes.data, arena.ctypes.data, arena.ctypes.data, arena.ctypes.data)
    KERNEL(addresses([code], machine)[code.name])(*pointers, 0, 1)
    return values


def arguments(highest: float) -> np.ndarray:
    """float32 of both signs up to `highest`, half of them evenly spread over all exponents."""
    random = np.random.default_rng(1)
    bits = random.integers(0, np.float32(highest).view(np.uint32), COUNT // 2, np.uint32, endpoint=True)
    positive = np.concatenate([bits.view(np.float32), random.uniform(0, highest, COUNT // 2).astype(np.float32)])
    return np.where(random.random(COUNT) < 0.5, -positive, positive)


def worst_ulp(got: np.ndarray, want: np.ndarray) -> float:
    """The largest error in units of the last place of the right value (of the smallest normal number, where that is larger)."""
    spacing = np.spacing(np.maximum(np.abs(want).astype(np.float32), np.finfo(np.float32).tiny)).astype(np.float64)
    return float(np.max(np.abs(got.astype(np.float64) - want) / spacing))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x)))


def gelu(x: np.ndarray) -> np.ndarray:
    """x erfc(-x / sqrt(2)) / 2 of 4,096 values, as the error function takes one at a time."""
    found = np.full_like(x, np.nan)
    found[:4096] = [value * math.erfc(-value * math.sqrt(0.5)) / 2 for value in x[:4096]]
    return found


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(x, 0))


FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, float]] = {
    "exp": (np.exp, 88.7, 1),
    "expm1_of_negative": (np.expm1, 200, 1),
    "sigmoid": (sigmoid, 200, 2.5),
    "tanh": (np.tanh, 200, 2.5),
    "softplus": (lambda x: np.logaddexp(x, 0), 80, 2),
    "swish": (lambda x: x * sigmoid(x), 80, 3),
    "mish": (mish, 40, 5),
    "gelu": (gelu, 4, 6),
    "gelu_tanh": (gelu_tanh, 4, 24),
    "log": (np.log, 3e38, 1),
    "softsign": (lambda x: x / (1 + np.abs(x)), 3e37, 2),
}
POSITIVE = ("log",)
TWO = [isa.name for isa in available()][:: max(1, len(available()) - 2)][:2]


@pytest.mark.parametrize("isa", TWO)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_stay_within_what_is_stated(name: str, isa: str) -> None:
    function, highest, ulp = FUNCTIONS[name]
    x = arguments(highest)
    if name.endswith("negative"):
        x = -np.abs(x)
    if name in POSITIVE:
        x = np.maximum(np.abs(x), np.finfo(np.float32).tiny)
    got = evaluated(name, x, detect(isa))
    want = function(x.astype(np.float64))
    known = ~np.isnan(want)
    worst = worst_ulp(got[known], want[known])
    assert worst <= ulp, f"{name} is {worst:.2f} ulp off"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_instruction_sets_agree_to_the_last_bit(name: str) -> None:
    x = -np.abs(arguments(100))
    first, *others = (evaluated(name, x, detect(isa)).tobytes() for isa in TWO)
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("name", "x", "want"),
    [
        ("exp", [0.0, -np.inf, -200.0, np.inf, 100.0, np.nan, -0.0], [1.0, 0.0, 0.0, np.inf, np.inf, np.nan, 1.0]),
        ("expm1_of_negative", [0.0, -np.inf, -200.0, np.nan, -1e-40], [0.0, -1.0, -1.0, np.nan, -1e-40]),
        ("sigmoid", [0.0, -np.inf, np.inf, np.nan, -300.0], [0.5, 0.0, 1.0, np.nan, 0.0]),
        ("tanh", [0.0, -np.inf, np.inf, np.nan, 1e-40], [0.0, -1.0, 1.0, np.nan, 1e-40]),
        ("softplus", [0.0, -np.inf, np.inf, np.nan, 200.0], [np.log(2), 0.0, np.inf, np.nan, 200.0]),
        ("gelu", [0.0, -100.0, np.inf, np.nan, 100.0], [0.0, 0.0, np.inf, np.nan, 100.0]),
        ("gelu_tanh", [0.0, -100.0, np.inf, np.nan, 100.0], [0.0, 0.0, np.inf, np.nan, 100.0]),
        ("mish", [0.0, -200.0, np.inf, np.nan, 100.0], [0.0, 0.0, np.inf, np.nan, 100.0]),
        ("swish", [0.0, -200.0, np.inf, np.nan, 100.0], [0.0, 0.0, np.inf, np.nan, 100.0]),
        ("log", [1.0, np.finfo(np.float32).tiny, 3e38], [0.0, -87.33654, 88.596]),
    ],
)
def test_ends_of_the_range(name: str, x: list[float], want: list[float]) -> None:
    padded = np.resize(np.array(x, np.float32), 16)
    got = evaluated(name, padded, detect(TWO[0]))[: len(x)]
    np.testing.assert_allclose(got, np.array(want, np.float32), rtol=1e-5)
