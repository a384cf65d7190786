"""How the networks of `edge.zoo` are written: layer after layer, each as the precision asked for has it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from edge.errors import InputError, MissingPackage
from edge.files import check_place

SIGNS: Mapping[str, Mapping[str, Any]] = {
    "xnor-weights": {"kernel_quantizer": "xnor_weights"},
    "dorefa-weights": {"kernel_quantizer": "dorefa_weights"},
    "xnor": {"kernel_quantizer": "ste_sign", "input_quantizer": "ste_sign"},
    "xnor-k": {"kernel_quantizer": "xnor_weights", "input_quantizer": "ste_sign", "magnitude_map": True},
}
"""Of each precision with signs, the arguments of its layers (`edge.training`). `xnor` has no alpha: the batch norm behind it has one."""



def _levels(bits: int) -> dict[str, Any]:
    """DoReFa-Net's layers of `bits`: weights of odd whole numbers, activations 0..1 in steps."""
    weights, inputs = ({"class_name": "DoReFa", "config": {"k_bit": bits, "mode": mode}} for mode in ("weights", "activations"))
    return {"kernel_quantizer": weights, "input_quantizer": inputs}


QUANTIZED: Mapping[str, Mapping[str, Any]] = {**SIGNS, **{f"dorefa-{bits}": _levels(bits) for bits in (2, 3, 4)}}
"""The same of those with a few bits."""

PRECISIONS = ("float", "folded", *QUANTIZED)
_WITHOUT_K = ("magnitude_map",)
_ABOUT_INPUTS = ("input_quantizer", *_WITHOUT_K)
_NAMES = {"Conv2D": "conv", "Conv2DTranspose": "transposed", "Dense": "dense"}  # of layers
PIXEL_STEP = 1 / 255

Model = Any
"""A Keras model, and `Tensor` one of its tensors (Keras publishes no types for them)."""
Tensor = Any


class Writer:
    """A network being written: the tensor it has come to, the layers so far, and how each kind of layer looks at the precision asked for.

    Names count up, one number for each layer with weights: conv1, norm1, conv2, ...
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], precision: str, width: float, *,
        source: str = "picture", scale: float | None = PIXEL_STEP, offset: float = 0.0,
    ) -> None:  # fmt: skip
        """source: what its first input is called, whose values are multiplied by `scale`; None takes them as they are."""
        if precision not in PRECISIONS:
            raise InputError(f"the precision of a network should be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if not width > 0:
            raise InputError(f"the width of a network should be above 0, got {width!r}; 1 is the network as it was described")
        self.layers = keras_package().layers
        self.name, self.precision, self.width, self.count = name, precision, width, 0
        self.inputs: list[Tensor] = []
        self.at = self.input(shape, source)
        if scale is not None:
            self.at = self.layers.Rescaling(scale, offset, name="rescale")(self.at)

    def input(self, shape: tuple[int, ...], name: str, **kwargs: Any) -> Tensor:
        """A further input."""
        self.inputs.append(self.layers.Input(shape, name=name, **kwargs))
        return self.inputs[-1]

    @property
    def quantizes_inputs(self) -> bool:
        """Whether what goes between layers is signs, or a few levels."""
        return "input_quantizer" in QUANTIZED.get(self.precision, {})

    @property
    def takes_signs(self) -> bool:
        """Whether what goes between layers is signs."""
        return self.quantizes_inputs and self.precision in SIGNS

    @property
    def has_norms(self) -> bool:
        return self.precision in QUANTIZED

    def channels(self, count: int) -> int:
        """`count` times the width, a multiple of 8 unless the width is 1."""
        return count if self.width == 1 else max(8, 8 * round(count * self.width / 8))

    # -- layers with weights ---------------------------------------------------------------------------------------------------

    def weights(self, kind: str, size: int, *args: Any, first: bool = False, bias: bool = True, **kwargs: Any) -> Writer:
        """A `Conv2D`, `Conv2DTranspose` or `Dense` alone, of `size` channels: of signs where the precision says so, but the `first`."""
        self.count += 1
        name = f"{_NAMES[kind]}{self.count}"
        if first or not self.has_norms:
            make = partial(getattr(self.layers, kind), use_bias=bias and not self.has_norms)
        else:
            make = partial(_quantized(kind), **self._quantizers(kind), use_bias=False)
        self.at = make(size, *args, name=name, **kwargs)(self.at)
        return self

    def _quantizers(self, kind: str) -> dict[str, Any]:
        """Of a layer with signs; pixels have none, so a dense layer that reads the picture takes them as they are."""
        left_out = _ABOUT_INPUTS if self.count == 1 else _WITHOUT_K if kind == "Conv2DTranspose" else ()
        signs = {"kernel_constraint": "weight_clip", **QUANTIZED[self.precision]}
        return {name: value for name, value in signs.items() if name not in left_out}

    def conv(self, filters: int, size: int, *, pool: tuple[int, int] | None = None, activation: str = "relu", **kwargs: Any) -> Writer:
        """A convolution, what makes it non-linear, and a max-pool (window, stride)."""
        self.weights("Conv2D", self.channels(filters), size, first=self.count == 0, **{"padding": "same", **kwargs})
        return self._finish(activation, pool)

    def dense(self, units: int, *, dropout: float = 0.0, is_last_hidden: bool = False) -> Writer:
        """A dense layer, what makes it non-linear, and dropout; the last hidden one gives ReLU, which the float `classes` read."""
        if len(self.at.shape) > 2:
            self.at = self.layers.Flatten(name="flatten")(self.at)
        self.weights("Dense", self.channels(units))
        self._finish("relu", None)
        if self.quantizes_inputs and is_last_hidden:
            self.at = self.layers.ReLU(name=f"relu{self.count}")(self.at)
        return self.dropout(dropout, floats_read_it=is_last_hidden)

    def _finish(self, activation: str, pool: tuple[int, int] | None) -> Writer:
        """Activation and pool; in networks of signs batch norm, before it the pool where the next layer takes the sign."""
        if self.quantizes_inputs:
            return self.pool(pool).norm(trained=True)
        if self.has_norms:
            self.norm(trained=True)
        self.at = self.layers.Activation(activation, name=f"{activation}{self.count}")(self.at)
        return self.pool(pool)

    def classes(self, count: int, *, name: str = "logits") -> Tensor:
        """The last layer, float at every precision, and its probabilities."""
        flat = self.at if len(self.at.shape) == 2 else self.layers.Flatten(name="flatten")(self.at)
        return self.layers.Softmax(name=f"{name}_probabilities")(self.layers.Dense(count, name=name)(flat))

    # -- layers without --------------------------------------------------------------------------------------------------------

    def norm(self, *, trained: bool = False) -> Writer:
        """Batch norm, as a network describes it for floats (then only there); `trained` for one that signs need."""
        if trained or self.precision == "float":
            self.at = self.layers.BatchNormalization(momentum=0.9, name=self._free(f"norm{self.count}"))(self.at)
        return self

    def local_norm(self) -> Writer:
        """Local response normalization, over five channels, in float networks alone."""
        if self.precision == "float":
            from edge.training import LocalResponseNormalization

            self.at = LocalResponseNormalization(2, 1.0, 1e-4 / 5, 0.75, name=f"norm{self.count}")(self.at)
        return self

    def _free(self, name: str) -> str:
        """A name for a further norm behind one layer."""
        taken = getattr(self.at, "_keras_history", None)
        return f"{name}b" if taken is not None and taken.operation.name.startswith(name) else name

    def pool(self, window_and_stride: tuple[int, int] | None) -> Writer:
        if window_and_stride is not None:
            window, stride = window_and_stride
            self.at = self.layers.MaxPooling2D(window, stride, name=f"pool{self.count}")(self.at)
        return self

    def dropout(self, rate: float, *, floats_read_it: bool = False) -> Writer:
        """Left out where signs are taken of it: sign(0) is +1, so that in training, and there alone, what is dropped would count as +1."""
        if rate and (floats_read_it or not self.takes_signs):
            self.at = self.layers.Dropout(rate, name=f"dropout{self.count}")(self.at)
        return self

    def model(self, *outputs: Tensor) -> Model:
        inputs = self.inputs if len(self.inputs) > 1 else self.inputs[0]
        return keras_package().Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=self.name)


def keras_package() -> Any:
    """Keras, imported; raises `MissingPackage` without it."""
    try:
        with _unheard() if "keras" not in sys.modules else nullcontext():
            import keras
    except ModuleNotFoundError as err:
        raise MissingPackage(
            "a network of edge.zoo is a Keras 3 model, but Keras cannot be imported; install it with: pip install tensorflow"
        ) from err
    return keras


def check_keras_file(path: Path) -> None:
    """Raise `InputError` where no network can be saved."""
    if path.suffix != ".keras":
        raise InputError(f"networks are written as .keras files, got {path.name}; give a name that ends in .keras")
    check_place(path)


def save(network: Model, path: Path) -> None:
    """The network as a `.keras` file, there as it was before or as it is now; raises `InputError` where none can be."""
    check_keras_file(path)
    partial = path.with_stem(f".partial-{path.stem}")
    try:
        network.save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _unheard() -> Iterator[None]:
    """What TensorFlow's libraries write to stderr while they load, about themselves, left out; errors are raised as ever."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _quantized(kind: str) -> Any:
    from edge import training

    return getattr(training, f"Quant{kind}")
