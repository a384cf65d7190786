"""Exponentials of float32 vectors: polynomials of our own, with no library call.

With n the whole number nearest to x / ln 2 and r = x - n ln 2, which lies in [-0.347, 0.347],

    expm1(r) = r + r^2 p(r)
    exp(x)   = 2^n (1 + expm1(r))
    expm1(x) = 2^n expm1(r) + (2^n - 1)

p has degree 4. Its coefficients minimise the largest error of exp over the interval (weighted least squares repeated with Lawson's weights,
then rounded to float32), which is 0.06 units of the last place before rounding. n ln 2 is taken off in two steps, of which the first is
exact because the first constant has 15 bits. Every step is rounded by itself, so that all machines agree to the last bit.

Errors are at most, in units of the last place (of the smallest normal number below it): exp 1, expm1 1, sigmoid 2.5, tanh 2.5.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edge.kernels.build import inlined
from edge.kernels.simd import MANTISSA_BITS, ROUND, vector

_LOG2E = float(np.float32(1 / np.log(2)))
LN2_HIGH = float.fromhex("0x1.62e4p-1")  # ln 2 to 15 bits, so that its product with an exponent is exact
LN2_LOW = float(np.float32(np.log(2) - LN2_HIGH))
_P0, _P1, _P2, _P3, _P4 = 0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.00836874544620514, 0.0013814539415761828
_ROUND_BITS = 0x4B400000  # of ROUND
_SIGN = -(1 << 31)
_BIAS = 127  # of a float32's exponent
_ZERO_BELOW, _INFINITE_ABOVE = -104.0, 89.0  # exp is 0 or infinite there
_MINUS_ONE_BELOW = -18.0  # expm1 is -1 there


@functools.cache
def _negative_magnitude(lanes: int) -> Any:
    """-|x|."""
    v, i = vector("f32", lanes), vector("i32", lanes)

    @inlined
    def negated(x: Any) -> Any:
        return v.of_bits(i.of_bits(x) | i.splat(_SIGN))

    return negated


@functools.cache
def reduced(lanes: int) -> Any:
    """reduced(x) = n as an integer, and expm1(r)."""
    v, i = vector("f32", lanes), vector("i32", lanes)

    @inlined
    def reduce(x: Any) -> Any:
        rounded = x * v.splat(_LOG2E) + v.splat(ROUND)
        whole = rounded - v.splat(ROUND)
        r = (x - whole * v.splat(LN2_HIGH)) - whole * v.splat(LN2_LOW)
        p = v.splat(_P4)
        p = p * r + v.splat(_P3)
        p = p * r + v.splat(_P2)
        p = p * r + v.splat(_P1)
        p = p * r + v.splat(_P0)
        return i.of_bits(rounded) - i.splat(_ROUND_BITS), (r * r) * p + r

    return reduce


@functools.cache
def _power_of_two(lanes: int) -> Any:
    """2^n for n from -126 to 127."""
    v, i = vector("f32", lanes), vector("i32", lanes)

    @inlined
    def power(n: Any) -> Any:
        return v.of_bits(i.shift_left(n + i.splat(_BIAS), MANTISSA_BITS))

    return power


@functools.cache
def _scaled(lanes: int) -> Any:
    """scaled(x, n) = x 2^n, rounded once, for x in [0.5, 2] and n from -151 to 129."""
    i, power = vector("i32", lanes), _power_of_two(lanes)

    @inlined
    def scaled(x: Any, n: Any) -> Any:
        half = i.shift_right(n, 1)  # in two steps, as 2^n may lie outside the normal numbers
        return (x * power(half)) * power(n - half)

    return scaled


@functools.cache
def exp(lanes: int) -> Any:
    """exp(x)."""
    v = vector("f32", lanes)
    reduce, scaled = reduced(lanes), _scaled(lanes)

    @inlined
    def exponential(x: Any) -> Any:
        n, q = reduce(v.atmost(v.atleast(x, v.splat(_ZERO_BELOW)), v.splat(_INFINITE_ABOVE)))
        return scaled(q + v.splat(1.0), n)

    return exponential


@functools.cache
def expm1_of_negative(lanes: int) -> Any:
    """exp(x) - 1 for x <= 0, exact to the last places near 0 too."""
    v = vector("f32", lanes)
    reduce, power = reduced(lanes), _power_of_two(lanes)

    @inlined
    def exponential(x: Any) -> Any:
        n, q = reduce(v.atleast(x, v.splat(_MINUS_ONE_BELOW)))
        s = power(n)
        return s * q + (s - v.splat(1.0))

    return exponential


@functools.cache
def sigmoid(lanes: int) -> Any:
    """1 / (1 + exp(-x)), as exp(x) / (1 + exp(x)) below 0, where it is small."""
    v = vector("f32", lanes)
    negated, reduce, scaled = _negative_magnitude(lanes), reduced(lanes), _scaled(lanes)

    @inlined
    def logistic(x: Any) -> Any:
        one = v.splat(1.0)
        n, q = reduce(v.atleast(negated(x), v.splat(_ZERO_BELOW)))
        e = scaled(q + one, n)
        return v.where_less(x, v.splat(0.0), e, one) / (one + e)

    return logistic


@functools.cache
def tanh(lanes: int) -> Any:
    """-t / (2 + t) with t = expm1(-2 |x|), and the sign of x."""
    v, i = vector("f32", lanes), vector("i32", lanes)
    negated, exponential = _negative_magnitude(lanes), expm1_of_negative(lanes)

    @inlined
    def tangent(x: Any) -> Any:
        t = exponential(negated(x + x))
        y = i.of_bits(t / (v.splat(2.0) + t))
        return v.of_bits((y & i.splat(~_SIGN)) | (i.of_bits(x) & i.splat(_SIGN)))

    return tangent
