"""Logarithms of float32 vectors and the activations that need them or an error function: polynomials of our own, with no library call.

With x = 2^n m and m between sqrt(1/2) and sqrt(2), f = m - 1 and s = f / (2 + f),

    log(m)      = 2 atanh(s) = f - s (f - 2 s^2 p(s^2))                    as 2 s = f - s f
    log(x)      = n ln 2 + log(m)
    log1p(e)    = the same with f = e, for e in [0, 1]
    erfc(z)     = exp(-z^2) t q(t) with t = 1 / (1 + z / 2), for z >= 0

p has degree 4 and q degree 8; their coefficients minimise the largest relative error of atanh(s) / s on [0, 1/3] (0.002 units of the last
place before rounding) and of erfc on [0, 10] (1.5 of them), by weighted least squares repeated with Lawson's weights. The error of erfc is
relative to its own size, so that GELU is right far below 0 too.

    softplus(x)  = max(x, 0) + log1p(exp(-|x|))
    gelu(x)      = x erfc(-x / sqrt(2)) / 2, where x > 0 as x - x erfc(x / sqrt(2)) / 2
    gelu_tanh(x) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
    mish(x)      = x n / (n + 2) with n = e (e + 2), e = exp(x), which is x tanh(softplus(x))

Errors are at most, in units of the last place (of the smallest normal number below it): log 1 (of normal numbers above 0), softsign 2,
softplus 2, swish 3, mish 5. In gelu and gelu_tanh the argument of exp is rounded, which counts where the result is small beside x: at
most 6 and 24 for abs(x) <= 4, beyond 2^-16 of the result; beside x itself at most 3 and 2.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edge.kernels import vecmath
from edge.kernels.build import inlined
from edge.kernels.simd import MANTISSA_BITS, WITHOUT_SIGN, vector
from edge.kernels.vecmath import LN2_HIGH, LN2_LOW

_P = (0.3333333730697632, 0.19999438524246216, 0.14308442175388336, 0.10713828355073929, 0.12150469422340393)
_Q = (0.28208643198013306, 0.282375305891037, 0.24310389161109924, 0.20268625020980835, -0.026623936370015144, 0.2780642509460449,
      -0.48719701170921326, 0.28457337617874146, -0.059068597853183746)  # fmt: skip
_ROOT_HALF_BITS = int(np.float32(np.sqrt(0.5)).view(np.int32))
_ROOT_HALF = float(np.float32(np.sqrt(0.5)))
_GELU = float(np.float32(2 * np.sqrt(2 / np.pi)))
_LARGE = 20.0  # from here on tanh(softplus(x)) is 1
_GONE = 16.0  # from here on erfc(x / sqrt(2)) is 0, and infinity times it must not be


@functools.cache
def _atanh_rest(lanes: int) -> Any:
    """rest(f) = 2 atanh(s) - f, to be added to f, for s = f / (2 + f)."""
    v = vector("f32", lanes)

    @inlined
    def rest(f: Any) -> Any:
        s = f / (v.splat(2.0) + f)
        z = s * s
        p = v.splat(_P[4])
        p = p * z + v.splat(_P[3])
        p = p * z + v.splat(_P[2])
        p = p * z + v.splat(_P[1])
        p = p * z + v.splat(_P[0])
        return s * ((z + z) * p - f)

    return rest


@functools.cache
def log(lanes: int) -> Any:
    """The natural logarithm of positive normal numbers; of others something that is no address and no trip count."""
    v, i, rest = vector("f32", lanes), vector("i32", lanes), _atanh_rest(lanes)

    @inlined
    def logarithm(x: Any) -> Any:
        bits = i.of_bits(x)
        n = i.shift_right(bits - i.splat(_ROOT_HALF_BITS), MANTISSA_BITS)
        f = v.of_bits(bits - i.shift_left(n, MANTISSA_BITS)) - v.splat(1.0)
        whole = i.to_f32(n)
        return whole * v.splat(LN2_HIGH) + (f + (rest(f) + whole * v.splat(LN2_LOW)))

    return logarithm


@functools.cache
def _magnitude(lanes: int) -> Any:
    v, i = vector("f32", lanes), vector("i32", lanes)

    @inlined
    def magnitude(x: Any) -> Any:
        return v.of_bits(i.of_bits(x) & i.splat(WITHOUT_SIGN))

    return magnitude


@functools.cache
def softplus(lanes: int) -> Any:
    v, exp, rest, magnitude = vector("f32", lanes), vecmath.exp(lanes), _atanh_rest(lanes), _magnitude(lanes)

    @inlined
    def soft(x: Any) -> Any:
        zero = v.splat(0.0)
        e = exp(zero - magnitude(x))
        return v.atleast(x, zero) + (e + rest(e))

    return soft


@functools.cache
def swish(lanes: int) -> Any:
    sigmoid = vecmath.sigmoid(lanes)

    @inlined
    def gated(x: Any) -> Any:
        return x * sigmoid(x)

    return gated


@functools.cache
def hard_swish(lanes: int) -> Any:
    v, sixth = vector("f32", lanes), float(np.float32(1 / 6))

    @inlined
    def gated(x: Any) -> Any:
        share = v.atmost(v.high(x + v.splat(3.0), v.splat(0.0)), v.splat(6.0))
        return x * (share * v.splat(sixth))

    return gated


@functools.cache
def softsign(lanes: int) -> Any:
    v, magnitude = vector("f32", lanes), _magnitude(lanes)

    @inlined
    def soft(x: Any) -> Any:
        return x / (magnitude(x) + v.splat(1.0))

    return soft


@functools.cache
def mish(lanes: int) -> Any:
    v, exp = vector("f32", lanes), vecmath.exp(lanes)

    @inlined
    def gated(x: Any) -> Any:
        e = exp(v.atmost(x, v.splat(_LARGE)))
        n = e * (e + v.splat(2.0))
        return x * (n / (n + v.splat(2.0)))

    return gated


@functools.cache
def gelu(lanes: int) -> Any:
    v, exp, magnitude, polynomial = vector("f32", lanes), vecmath.exp(lanes), _magnitude(lanes), _erfc_polynomial(lanes)

    @inlined
    def gated(x: Any) -> Any:
        zero, one, half = v.splat(0.0), v.splat(1.0), v.splat(0.5)
        z = magnitude(x)
        t = one / (one + z * v.splat(0.5 * _ROOT_HALF))
        tail = (v.atmost(x, v.splat(_GONE)) * half) * (exp(zero - (z * half) * z) * polynomial(t))
        return v.where_less(x, zero, tail, x - tail)

    return gated


@functools.cache
def _erfc_polynomial(lanes: int) -> Any:
    """t q(t)."""
    v = vector("f32", lanes)

    @inlined
    def polynomial(t: Any) -> Any:
        q = v.splat(_Q[8])
        q = q * t + v.splat(_Q[7])
        q = q * t + v.splat(_Q[6])
        q = q * t + v.splat(_Q[5])
        q = q * t + v.splat(_Q[4])
        q = q * t + v.splat(_Q[3])
        q = q * t + v.splat(_Q[2])
        q = q * t + v.splat(_Q[1])
        q = q * t + v.splat(_Q[0])
        return q * t

    return polynomial


@functools.cache
def gelu_tanh(lanes: int) -> Any:
    v, sigmoid = vector("f32", lanes), vecmath.sigmoid(lanes)

    @inlined
    def gated(x: Any) -> Any:
        cubic = x + v.splat(0.044715) * (x * x * x)
        return x * sigmoid(cubic * v.splat(_GELU))

    return gated
