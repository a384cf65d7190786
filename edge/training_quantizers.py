"""The quantizers of `edge.training`: what each computes, and the gradient it is trained with. docs/training.md has them in one table."""

from __future__ import annotations

from typing import Any

from edge.errors import InputError
from edge.training_base import Quantizer, ScaledQuantizer, Tensor, ops, register_quantizer

_TINY = 1e-30  # keeps a scale of 0 (weights that are all 0) from being divided by
TERNARY_SHARE = 0.7  # of the mean magnitude, below which Ternary Weight Networks take a weight for 0


def signs(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1; NaN stays what it is."""
    return ops.sign(2 * ops.sign(x) + 1)  # processors select between two tensors in two to three times the time


def pass_where_small(x: Tensor, upstream: Tensor, clip_value: float | None) -> Tensor:
    """Straight-through gradient: `upstream` (finite) where abs(x) <= clip_value, 0 elsewhere; everywhere if it is None."""
    if clip_value is None:
        return upstream
    return upstream * ops.cast(ops.abs(x) <= clip_value, upstream.dtype)


class _Clipped(Quantizer):
    """A quantizer with the straight-through gradient of Hubara et al., https://arxiv.org/abs/1602.02830.

    dq/dx := 1 if abs(x) <= clip_value else 0; 1 everywhere (the identity) where clip_value is None.
    """

    precision = 1

    def __init__(self, clip_value: float | None = 1.0) -> None:
        self.clip_value = clip_value

    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        return pass_where_small(x, upstream, self.clip_value)

    def get_config(self) -> dict[str, Any]:
        return {"clip_value": self.clip_value}


# -- signs ---------------------------------------------------------------------------------------------------------------------


@register_quantizer("ste_sign")
class SteSign(_Clipped):
    """Sign with sign(0) = +1 and the straight-through gradient, clipped at `clip_value` or, with None, the identity.

    q(x) = +1 if x >= 0 else -1, exactly;  dq/dx := 1 if abs(x) <= clip_value else 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        return signs(x)


@register_quantizer("approx_sign")
class ApproxSign(Quantizer):
    """Sign with the gradient of a piecewise polynomial, Liu et al., https://arxiv.org/abs/1808.00278 (Bi-Real Net).

    q(x) = +1 if x >= 0 else -1;  dq/dx := 2 - 2 abs(x) if abs(x) <= 1 else 0.
    """

    precision = 1

    def forward(self, x: Tensor) -> Tensor:
        return signs(x)

    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        return upstream * ops.maximum(2 - 2 * ops.abs(x), ops.zeros_like(x))


@register_quantizer("swish_sign")
class SwishSign(Quantizer):
    """Sign with the gradient of SignSwish, Darabi et al., https://arxiv.org/abs/1812.11800 (BNN+).

    q(x) = +1 if x >= 0 else -1;  dq/dx := b (2 - b x tanh(b x / 2)) / (1 + cosh(b x)) with b = `beta`.
    """

    precision = 1

    def __init__(self, beta: float = 5.0) -> None:
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return signs(x)

    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        y = self.beta * x
        return upstream * self.beta * (2 - y * ops.tanh(y / 2)) / (1 + ops.cosh(y))

    def get_config(self) -> dict[str, Any]:
        return {"beta": self.beta}


# -- signs of weights, with a scale --------------------------------------------------------------------------------------------


class _ScaledSign(_Clipped, ScaledQuantizer):
    """alpha * sign(w), alpha the mean of abs(w)."""

    def __init__(self, clip_value: float | None = None) -> None:
        super().__init__(clip_value)

    def forward(self, x: Tensor) -> Tensor:
        return signs(x)

    def scale(self, w: Tensor, axes: tuple[int, ...]) -> Tensor | None:
        return ops.mean(ops.abs(w), axis=axes, keepdims=True)


@register_quantizer("xnor_weights")
class XnorWeights(_ScaledSign):
    """The weights of XNOR-Net and BWN, Rastegari et al., https://arxiv.org/abs/1603.05279: alpha * sign(w), one alpha per output.

    alpha = mean of abs(w) over the filter;  dsign/dw := 1 (where abs(w) <= `clip_value`, if that is given). alpha is differentiated
    too, so that with U the gradient at alpha * sign(w) and n weights in the filter

        dL/dw[i] = alpha * U[i] + sign(w[i]) / n * sum over the filter of U[j] * sign(w[j])
    """


@register_quantizer("dorefa_weights")
class DorefaWeights(_ScaledSign):
    """The 1-bit weights of DoReFa-Net, Zhou et al., https://arxiv.org/abs/1606.06160: alpha * sign(w), one alpha for the layer.

    alpha = mean of abs(w) over the layer. Straight through the whole: dL/dw is the gradient at alpha * sign(w) (where
    abs(w) <= `clip_value`, if that is given).
    """

    def scale(self, w: Tensor, axes: tuple[int, ...]) -> Tensor | None:
        return ops.stop_gradient(ops.mean(ops.abs(w), keepdims=True))

    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        # At sign(w) the gradient is alpha times that at alpha * sign(w).
        alpha = ops.maximum(ops.mean(ops.abs(x)), _TINY)
        return pass_where_small(x, upstream / alpha, self.clip_value)


@register_quantizer("magnitude_aware_sign")
class MagnitudeAwareSign(_ScaledSign):
    """Larq's form of Bi-Real Net's weights, https://arxiv.org/abs/1808.00278: alpha * sign(w), one alpha per index of the last axis.

    alpha = mean of abs(w) over all axes but the last, not differentiated;  dsign/dw := 1 if abs(w) <= clip_value else 0.
    """

    def __init__(self, clip_value: float | None = 1.0) -> None:
        super().__init__(clip_value)

    def scale(self, w: Tensor, axes: tuple[int, ...]) -> Tensor | None:
        last = len(w.shape) - 1
        if last in axes:
            raise InputError(
                "magnitude_aware_sign scales the last axis of a kernel, which here is summed over, expected the axis of outputs; "
                "use xnor_weights"
            )
        return ops.stop_gradient(ops.mean(ops.abs(w), axis=tuple(range(last)), keepdims=True))


# -- other values --------------------------------------------------------------------------------------------------------------


@register_quantizer("ste_heaviside")
class SteHeaviside(_Clipped):
    """The step to 0 and 1.

    q(x) = 1 if x > 0 else 0;  dq/dx := 1 if abs(x) <= clip_value else 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.where(x > 0, ops.ones_like(x), ops.zeros_like(x))


@register_quantizer("ste_tern")
class SteTern(_Clipped):
    """Three values, Li et al., https://arxiv.org/abs/1605.04711 (Ternary Weight Networks).

    q(x) = +1 if x >= t, -1 if x <= -t, else 0;  dq/dx := 1 if abs(x) <= clip_value else 0. t is `threshold_value`, or with
    `ternary_weight_networks` 0.7 of the mean of abs(x).
    """

    precision = 2

    def __init__(
        self, threshold_value: float = 0.05, ternary_weight_networks: bool = False, clip_value: float | None = 1.0
    ) -> None:
        super().__init__(clip_value)
        self.threshold_value = threshold_value
        self.ternary_weight_networks = ternary_weight_networks

    def forward(self, x: Tensor) -> Tensor:
        mean = TERNARY_SHARE * ops.mean(ops.abs(x)) if self.ternary_weight_networks else self.threshold_value
        # As Larq: the sign of the sum of two signs, which is 0 for x = 0 also where the threshold is 0.
        return ops.sign(ops.sign(x + mean) + ops.sign(x - mean))

    def get_config(self) -> dict[str, Any]:
        own = {"threshold_value": self.threshold_value, "ternary_weight_networks": self.ternary_weight_networks}
        return {**own, **super().get_config()}


@register_quantizer("dorefa_quantizer")
class DoReFa(ScaledQuantizer):
    """k bits, Zhou et al., https://arxiv.org/abs/1606.06160 (DoReFa-Net). With n = 2^k - 1:

    mode "activations":  q(x) = round(n clip(x, 0, 1)) / n;  dq/dx := 1 if 0 <= x <= 1 else 0
    mode "weights":      q(w) = 2 round(n (tanh(w) / (2 m) + 1/2)) / n - 1 with m the largest abs(tanh(w)) of the layer;
                         dq/dw := (1 - tanh(w)^2) / m

    round takes halves to even. Weights are odd whole numbers from -n to n (k = 2: -3, -1, 1, 3), divided by n.
    """

    MODES = ("activations", "weights")
    MAX_BITS = 8

    def __init__(self, k_bit: int = 2, mode: str = "activations") -> None:
        if mode not in self.MODES:
            raise InputError(f"The mode of dorefa_quantizer should be {' or '.join(self.MODES)}, got {mode!r}.")
        if not isinstance(k_bit, int) or not 1 <= k_bit <= self.MAX_BITS:
            raise InputError(f"k_bit of dorefa_quantizer should be a whole number from 1 to {self.MAX_BITS}, got {k_bit!r}.")
        self.precision, self.mode = k_bit, mode

    @property
    def steps(self) -> int:
        """n, from the lowest to the highest value."""
        return int(2**self.precision - 1)

    def scale(self, w: Tensor, axes: tuple[int, ...]) -> Tensor | None:
        return None if self.mode == "activations" else ops.full((1,) * len(w.shape), 1 / self.steps, dtype=w.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "activations":
            return ops.round(ops.clip(x, 0.0, 1.0) * self.steps) / self.steps
        limited = ops.tanh(x)
        return 2 * ops.round((limited / (2 * _largest(limited)) + 0.5) * self.steps) - self.steps

    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        if self.mode == "activations":
            inside = ops.logical_and(x >= 0, x <= 1)
            return ops.where(inside, upstream, ops.zeros_like(upstream))
        limited = ops.tanh(x)
        return upstream * self.steps * (1 - limited * limited) / _largest(limited)

    def get_config(self) -> dict[str, Any]:
        return {"k_bit": self.precision, "mode": self.mode}


def _largest(x: Tensor) -> Tensor:
    return ops.maximum(ops.max(ops.abs(x)), _TINY)


@register_quantizer("no_op")
class NoOp(Quantizer):
    """Changes nothing; marks weights as meant for `precision` bits.

    q(x) = x;  dq/dx = 1.
    """

    def __init__(self, precision: int) -> None:
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        return x

    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        return upstream

    def get_config(self) -> dict[str, Any]:
        return {"precision": self.precision}


def ste_sign(x: Tensor) -> Tensor:
    """`SteSign()` as a function, with the clip value 1."""
    return SteSign()(x)
