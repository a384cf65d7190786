"""What training layers stand on: the base class of quantizers and the names they are found by.

Importing this module imports Keras, as `edge.training` says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edge.errors import InputError, MissingPackage

try:
    import keras as keras
    from keras import ops as ops
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


class Quantizer(ABC):
    """A function with a gradient of its own, for weights or activations.

    Subclasses set `precision` (bits of one value), and define `forward`, `gradient` and, if they have parameters,
    `get_config`, which returns the arguments of the constructor.
    """

    precision: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the quantized values, in the shape and dtype of `x`."""

    @abstractmethod
    def gradient(self, x: Tensor, upstream: Tensor) -> Tensor:
        """Return what `upstream`, the gradient at the output, becomes at the input `x`; same shape."""

    def get_config(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Tensor) -> Tensor:
        return self.apply(x)

    def apply(self, x: Tensor) -> Tensor:
        """Return `forward(x)`, which is differentiated by `gradient`."""

        @ops.custom_gradient  # type: ignore[untyped-decorator]
        def quantize(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            def grad(*args: Tensor, upstream: Tensor = None) -> Tensor:
                # The backends disagree: torch passes the gradient by name, the others by position.
                return self.gradient(x, args[0] if upstream is None else upstream)

            return self.forward(x), grad

        # A copy, because TensorFlow takes a variable as an argument for one that `quantize` captures.
        return quantize(ops.copy(x))

    def factors(self, kernel: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
        """Return what a layer sums with, and the scale it multiplies the sums by, None for 1.

        `axes` are those of `kernel` over which one output sums; the scale has the axes of `kernel`, 1 along these.
        """
        return self(kernel), None


class ScaledQuantizer(Quantizer):
    """Whole numbers (`forward`, `gradient`) times a `scale`.

    Layers sum with the whole numbers and multiply by the scale afterwards: such sums are exact in any order, those of scaled
    weights are not.
    """

    @abstractmethod
    def scale(self, w: Tensor, axes: tuple[int, ...]) -> Tensor | None:
        """Return the scale with the axes of `w`, 1 along `axes`, which one output sums over; None for 1."""

    def factors(self, kernel: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
        return self.apply(kernel), self.scale(kernel, axes)

    def __call__(self, x: Tensor) -> Tensor:
        values, scale = self.factors(x, tuple(range(len(x.shape) - 1)))
        return values if scale is None else values * scale


def register_quantizer(name: str) -> Callable[[_Class], _Class]:
    """Class decorator: `get_quantizer` then finds the class by `name` and by the class's own name."""

    def register(cls: _Class) -> _Class:
        _QUANTIZERS[name] = _QUANTIZERS[cls.__name__] = cls
        return cls

    return register


def get_quantizer(identifier: object) -> Quantizer | Callable[[Tensor], Tensor] | None:
    """Return the quantizer that a layer argument or a config names.

    `identifier` is None, a quantizer or another callable (returned as they are), a registered name, or
    `{"class_name": ..., "config": {...}}`. An unknown name raises `InputError`.
    """
    if isinstance(identifier, Mapping):
        return _from_config(str(identifier.get("class_name")), identifier.get("config") or {})
    if isinstance(identifier, str):
        return _from_config(identifier, {})
    if identifier is None or callable(identifier):
        return identifier
    raise InputError(
        f"A quantizer must be None, a name, a config or a callable, got {identifier!r}; names: {_known_quantizers()}."
    )


def _from_config(name: str, config: Mapping[str, Any]) -> Quantizer:
    name = name.rpartition(">")[2].replace("-", "_")
    if name not in _QUANTIZERS:
        raise InputError(f"Unknown quantizer {name!r}, expected one of {_known_quantizers()}; see register_quantizer.")
    try:
        return _QUANTIZERS[name](**{key: value for key, value in config.items() if key not in _LARQ_LAYER_KEYS})
    except TypeError as err:
        raise InputError(f"The quantizer {name} does not take the arguments {dict(config)}; {err}.") from err


def _known_quantizers() -> str:
    return ", ".join(sorted(name for name in _QUANTIZERS if name.islower()))


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


def register_bare(cls: _Class) -> _Class:
    """Class decorator: Keras writes and finds `cls` under its bare class name, as Larq does, with no package before it."""
    keras.saving.get_custom_objects()[cls.__name__] = cls
    return cls
