"""Keras layers that train what edge packs: quantizers with their gradients, and the layers that apply them.

    from edge.training import QuantConv2D, QuantDense

    model.add(QuantConv2D(64, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign",
                          kernel_constraint="weight_clip", padding="same", use_bias=False))

Class names and config keys are Larq's (https://docs.larq.dev), so that one reader understands both. A layer keeps float
*latent* weights, which the optimizer changes; every forward pass sees them through `kernel_quantizer`.

This is the one module of edge that imports Keras at the top: a subclass needs its base. Import it only to train, or to
load a model with these layers. It uses `keras.ops` alone, and so runs on every Keras 3 backend.

| quantizer  | values | forward               | gradient, per upstream gradient     | bits |
|------------|--------|-----------------------|-------------------------------------|------|
| `ste_sign` | -1, +1 | +1 if x >= 0, else -1 | 1 where abs(x) <= clip_value, else 0 | 1    |

To add one, write a subclass of `Quantizer` under `@register_quantizer("its_name")`: `forward`, `gradient`, `get_config`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from edge.errors import InputError, MissingPackage

try:
    import keras
    from keras import ops
except ModuleNotFoundError as err:
    raise MissingPackage(
        "edge.training needs Keras 3 with a backend, but Keras cannot be imported; install it with: pip install tensorflow"
    ) from err

Tensor = Any
"""A tensor of the Keras backend in use (Keras publishes no type for it)."""

_Class = TypeVar("_Class", bound=type[Any])
_QUANTIZERS: dict[str, type[Quantizer]] = {}
# Larq's quantizers are Keras layers and write these keys too; they say nothing about the function computed.
_LARQ_LAYER_KEYS = frozenset({"name", "trainable", "dtype", "metrics"})


def register_quantizer(name: str) -> Callable[[_Class], _Class]:
    """Class decorator: `get_quantizer` then finds the class by `name` and by the class's own name."""

    def register(cls: _Class) -> _Class:
        _QUANTIZERS[name] = _QUANTIZERS[cls.__name__] = cls
        return cls

    return register


class Quantizer(ABC):
    """An element-wise function with a gradient of its own, for weights or activations.

    Subclasses set `precision` (bits of one value), and define `forward`, `gradient` and, if they have parameters,
    `get_config`, which returns the arguments of the constructor.
    """

    precision: ClassVar[int]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the quantized values, in the shape and dtype of `x`."""

    @abstractmethod
    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        """Return what `upstream`, the gradient at the output, becomes at the input `x`; same shape."""

    def get_config(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Tensor) -> Tensor:
        @ops.custom_gradient  # type: ignore[untyped-decorator]
        def quantize(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            def grad(*args: Tensor, upstream: Tensor = None) -> Tensor:
                # The backends disagree: TensorFlow passes the gradient by position, the others by name.
                return self.gradient(x, args[0] if upstream is None else upstream)

            return self.forward(x), grad

        # A copy, because TensorFlow takes a variable as an argument for one that `quantize` captures.
        return quantize(ops.copy(x))


def pass_where_small(x: Tensor, upstream: Tensor, clip_value: float | None) -> Tensor:
    """Straight-through gradient: `upstream` where abs(x) <= clip_value, 0 elsewhere; everywhere if it is None."""
    if clip_value is None:
        return upstream
    return ops.where(ops.abs(x) <= clip_value, upstream, ops.zeros_like(upstream))


@register_quantizer("ste_sign")
class SteSign(Quantizer):
    """Sign with sign(0) = +1 and the straight-through gradient of Hubara et al., https://arxiv.org/abs/1602.02830.

    q(x) = +1 if x >= 0 else -1, exactly;  dq/dx := 1 if abs(x) <= clip_value else 0.
    """

    precision = 1

    def __init__(self, clip_value: float | None = 1.0) -> None:
        self.clip_value = clip_value

    def forward(self, x: Tensor) -> Tensor:
        one = ops.ones_like(x)
        return ops.where(x >= 0, one, -one)

    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        return pass_where_small(x, upstream, self.clip_value)

    def get_config(self) -> dict[str, Any]:
        return {"clip_value": self.clip_value}


def ste_sign(x: Tensor) -> Tensor:
    """`SteSign()` as a function, with the clip value 1."""
    return SteSign()(x)


def get_quantizer(identifier: object) -> Quantizer | Callable[[Tensor], Tensor] | None:
    """Return the quantizer that a layer argument or a config names.

    `identifier` is None, a quantizer or another callable (returned as they are), a registered name, or
    `{"class_name": ..., "config": {...}}`. An unknown name raises `InputError`.
    """
    if isinstance(identifier, Mapping):
        config = {k: v for k, v in dict(identifier.get("config") or {}).items() if k not in _LARQ_LAYER_KEYS}
        return _quantizer_class(str(identifier.get("class_name")))(**config)
    if isinstance(identifier, str):
        return _quantizer_class(identifier)()
    if identifier is None or callable(identifier):
        return identifier
    raise InputError(
        f"A quantizer must be None, a name, a config or a callable, got {identifier!r}; names: {_known_quantizers()}."
    )


def _quantizer_class(name: str) -> type[Quantizer]:
    if name not in _QUANTIZERS:
        raise InputError(f"Unknown quantizer {name!r}, expected one of {_known_quantizers()}; see register_quantizer.")
    return _QUANTIZERS[name]


def _known_quantizers() -> str:
    return ", ".join(sorted(_QUANTIZERS))


def serialize_quantizer(quantizer: object) -> dict[str, Any] | None:
    """Return the config entry of a layer's quantizer, as Larq writes it; a plain function raises `InputError`."""
    if quantizer is None:
        return None
    if not isinstance(quantizer, Quantizer):
        raise InputError(
            f"Only registered quantizers can be saved, got the function {quantizer!r}; "
            "make it a subclass of Quantizer under register_quantizer."
        )
    return {"class_name": type(quantizer).__name__, "config": quantizer.get_config()}


def _register_bare(cls: _Class) -> _Class:
    """Make Keras write and find `cls` under its bare class name, as Larq does, with no package before it."""
    keras.saving.get_custom_objects()[cls.__name__] = cls
    return cls


@_register_bare
class WeightClip(keras.constraints.Constraint):  # type: ignore[misc]
    """Keep every weight in [-clip_value, clip_value], so that latent weights stay where their gradient passes."""

    def __init__(self, clip_value: float = 1.0) -> None:
        self.clip_value = clip_value

    def __call__(self, w: Tensor) -> Tensor:
        return ops.clip(w, -self.clip_value, self.clip_value)

    def get_config(self) -> dict[str, Any]:
        return {"clip_value": self.clip_value}


def _constraint(identifier: object) -> object:
    """Keras looks constraints up by name among its own alone, so Larq's name for `WeightClip` is resolved here."""
    return WeightClip() if identifier == "weight_clip" else identifier


class _Quantized(keras.layers.Layer):  # type: ignore[misc]
    """What the quantized layers share; stands before a Keras layer with one kernel in the list of bases."""

    def __init__(
        self,
        *args: Any,
        input_quantizer: object = None,
        kernel_quantizer: object = None,
        kernel_constraint: object = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, kernel_constraint=_constraint(kernel_constraint), **kwargs)
        self.input_quantizer = get_quantizer(input_quantizer)
        self.kernel_quantizer = get_quantizer(kernel_quantizer)

    def quantize_input(self, inputs: Tensor) -> Tensor:
        return inputs if self.input_quantizer is None else self.input_quantizer(inputs)

    def quantize_kernel(self, kernel: Tensor) -> Tensor:
        return kernel if self.kernel_quantizer is None else self.kernel_quantizer(kernel)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_quantizer": serialize_quantizer(self.input_quantizer),
            "kernel_quantizer": serialize_quantizer(self.kernel_quantizer),
        }


@_register_bare
class QuantConv2D(_Quantized, keras.layers.Conv2D):  # type: ignore[misc]
    """Conv2D over `input_quantizer(inputs)` with `kernel_quantizer(kernel)`.

    Takes the arguments of `keras.layers.Conv2D` and, as Larq: `input_quantizer`, `kernel_quantizer` (see
    `get_quantizer`), `kernel_constraint` also as "weight_clip", and `pad_values`, the value outside the quantized
    image for `padding="same"`: 0.0, or 1.0 which keeps a binary image binary.
    """

    def __init__(self, *args: Any, pad_values: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad_values = pad_values

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        inputs, kernel = self.quantize_input(inputs), self.quantize_kernel(kernel)
        if self.padding != "same" or self.pad_values == 0.0:
            return super().convolution_op(inputs, kernel)
        return ops.conv(
            ops.pad(inputs, self._same_padding(inputs.shape), constant_values=self.pad_values),
            kernel,
            strides=list(self.strides),
            padding="valid",
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )

    def _same_padding(self, shape: tuple[int | None, ...]) -> list[tuple[int, int]]:
        """Return (before, after) for each of the four axes; the odd one goes after, as TensorFlow's "same" does."""
        channels_last = self.data_format == "channels_last"
        sizes = shape[1:3] if channels_last else shape[2:4]
        spatial = [
            self._same_padding_of_axis(size, kernel, stride, dilation)
            for size, kernel, stride, dilation in zip(
                sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True
            )
        ]
        return [(0, 0), *spatial, (0, 0)] if channels_last else [(0, 0), (0, 0), *spatial]

    def _same_padding_of_axis(self, size: int | None, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
        if size is None:
            raise InputError(
                f"Layer {self.name!r} pads with {self.pad_values}, which needs a known height and width, "
                "got an input of unknown size; give the Input layer its shape, or use pad_values=0.0."
            )
        total = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        return total // 2, total - total // 2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad_values": self.pad_values}


@_register_bare
class QuantDense(_Quantized, keras.layers.Dense):  # type: ignore[misc]
    """Dense over `input_quantizer(inputs)` with `kernel_quantizer(kernel)`.

    Takes the arguments of `keras.layers.Dense` and, as Larq, `input_quantizer`, `kernel_quantizer` (see
    `get_quantizer`), and `kernel_constraint` also as "weight_clip".
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = ops.matmul(self.quantize_input(inputs), self.quantize_kernel(self.kernel))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)
