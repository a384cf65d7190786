"""The layers of `edge.training`: Keras layers whose weights, and whose input, pass through quantizers, and learnable activations.

Each computes

    y = activation(product(input_quantizer(x), whole) * scale * K + bias)

where the weight's quantizer gives `whole`, the values that are summed, and `scale`, alpha by output channel, if it has one; K, with
`magnitude_map`, is XNOR-Net's mean of abs(x) over what each output sees.
"""

from __future__ import annotations

import math
from typing import Any

from edge.errors import InputError
from edge.training_base import Quantizer, Tensor, get_quantizer, keras, ops, register_bare, serialize_quantizer


@register_bare
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


# -- what the layers share -----------------------------------------------------------------------------------------------------


class _Quantized(keras.layers.Layer):  # type: ignore[misc]
    """A layer with an input quantizer; stands before a Keras layer in the list of bases."""

    data_format: str

    def __init__(self, *args: Any, input_quantizer: object = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_quantizer = get_quantizer(input_quantizer)

    def quantize_input(self, inputs: Tensor) -> Tensor:
        return inputs if self.input_quantizer is None else self.input_quantizer(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "input_quantizer": serialize_quantizer(self.input_quantizer)}

    def _along_channels(self, vector: Tensor) -> Tensor:
        """One value for each output channel, in a shape that outputs can be multiplied by."""
        if getattr(self, "data_format", "channels_last") == "channels_last":
            return ops.reshape(vector, (-1,))
        return ops.reshape(vector, (1, -1, *(1,) * self.rank))

    def _finish(self, outputs: Tensor) -> Tensor:
        """Bias and activation."""
        if self.bias is not None:
            outputs = outputs + self._along_channels(self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def _factors(quantizer: object, kernel: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """`Quantizer.factors`, the scale in the order of the output channels; of other callables and None without a scale."""
    if not isinstance(quantizer, Quantizer):
        return (kernel if quantizer is None else quantizer(kernel)), None  # type: ignore[operator]
    values, scale = quantizer.factors(kernel, axes)
    if scale is None:
        return values, None
    outputs = [1 if axis in axes else size for axis, size in enumerate(kernel.shape)]
    return values, ops.reshape(ops.broadcast_to(scale, outputs), (-1,))


class _OneKernel(_Quantized):
    """A layer with one kernel; `summed` are the axes of the kernel that one output sums over."""

    summed: tuple[int, ...]

    def __init__(self, *args: Any, kernel_quantizer: object = None, kernel_constraint: object = None, **kwargs: Any) -> None:
        super().__init__(*args, kernel_constraint=_constraint(kernel_constraint), **kwargs)
        self.kernel_quantizer = get_quantizer(kernel_quantizer)

    def call(self, inputs: Tensor) -> Tensor:
        values, scale = _factors(self.kernel_quantizer, self.kernel, self.summed)
        outputs = self.product(self.quantize_input(inputs), values)
        if scale is not None:
            outputs = outputs * self._along_channels(scale)
        return self._finish(self.with_magnitudes(outputs, inputs))

    def product(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The sums of products alone; every layer has its own (Keras' classes leave no room for an abstract one)."""
        raise NotImplementedError

    def with_magnitudes(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """The sums times K, in layers that can (`_WithMagnitudes`)."""
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_quantizer": serialize_quantizer(self.kernel_quantizer)}


class _WithMagnitudes(_OneKernel):
    """A layer that can multiply its sums of signs by K."""

    def __init__(self, *args: Any, magnitude_map: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.magnitude_map = magnitude_map
        if magnitude_map and self.input_quantizer is None:
            raise InputError(
                f"Layer {self.name!r} has magnitude_map, which gives sums of signs the magnitude of the input, but no input_quantizer; "
                'give one, such as "ste_sign".'
            )
        if magnitude_map and getattr(self, "groups", 1) != 1:
            raise InputError(f"Layer {self.name!r} has magnitude_map and {self.groups} groups, expected 1; leave one of them out.")

    def with_magnitudes(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        return outputs * self.magnitudes(inputs) if self.magnitude_map else outputs

    def magnitudes(self, inputs: Tensor) -> Tensor:
        """K: by output pixel the mean of abs(inputs) over channels and window; every layer has its own."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "magnitude_map": self.magnitude_map}


class _Padded(_Quantized):
    """A convolution that can pad with other values than 0."""

    def __init__(self, *args: Any, pad_values: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad_values = pad_values

    def padded(self, inputs: Tensor, value: float) -> tuple[Tensor, str]:
        """The input with `value` around it, and the padding that is left to do, with zeros."""
        if self.padding == "causal":
            pads = [(0, 0), ((self.kernel_size[0] - 1) * self.dilation_rate[0], 0), (0, 0)]
        elif self.padding == "same" and value != 0.0:
            pads = self._same_padding(inputs.shape)
        else:
            return inputs, self.padding
        return ops.pad(inputs, pads, constant_values=value), "valid"

    def _same_padding(self, shape: tuple[int | None, ...]) -> list[tuple[int, int]]:
        """(before, after) for each axis; the odd one goes after, as TensorFlow's "same" does."""
        channels_last = self.data_format == "channels_last"
        sizes = shape[1:-1] if channels_last else shape[2:]
        axes = zip(sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True)
        spatial = [self._same_padding_of_axis(*axis) for axis in axes]
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


class _Conv(_Padded, _WithMagnitudes):
    """What convolutions along one and two axes share."""

    @property
    def summed(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(self.rank + 1))

    def product(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return self._convolved(inputs, kernel, self.pad_values)

    def magnitudes(self, inputs: Tensor) -> Tensor:
        channels = -1 if self.data_format == "channels_last" else 1
        means = ops.mean(ops.abs(inputs), axis=channels, keepdims=True)
        box = ops.full((*self.kernel_size, 1, 1), 1 / math.prod(self.kernel_size), dtype=means.dtype)
        return self._convolved(means, box, 0.0)

    def _convolved(self, inputs: Tensor, kernel: Tensor, outside: float) -> Tensor:
        inputs, padding = self.padded(inputs, outside)
        geometry = {"strides": list(self.strides), "dilation_rate": self.dilation_rate, "data_format": self.data_format}
        return ops.conv(inputs, kernel, padding=padding, **geometry)


# -- layers with weights -------------------------------------------------------------------------------------------------------


@register_bare
class QuantConv2D(_Conv, keras.layers.Conv2D):  # type: ignore[misc]
    """Conv2D over `input_quantizer(inputs)` with `kernel_quantizer(kernel)`.

    Takes the arguments of `keras.layers.Conv2D` and, as Larq: `input_quantizer`, `kernel_quantizer` (see
    `get_quantizer`), `kernel_constraint` also as "weight_clip", and `pad_values`, the value outside the quantized
    image for `padding="same"`: 0.0, or 1.0 which keeps a binary image binary. `magnitude_map` multiplies the sums by
    K, the mean of abs(inputs) over channels and window, where pixels outside the image count 0
    (https://arxiv.org/abs/1603.05279, section 3.2).
    """


@register_bare
class QuantConv1D(_Conv, keras.layers.Conv1D):  # type: ignore[misc]
    """Conv1D over `input_quantizer(inputs)` with `kernel_quantizer(kernel)`; arguments as of `QuantConv2D`."""


@register_bare
class QuantDense(_WithMagnitudes, keras.layers.Dense):  # type: ignore[misc]
    """Dense over `input_quantizer(inputs)` with `kernel_quantizer(kernel)`.

    Takes the arguments of `keras.layers.Dense` and, as Larq, `input_quantizer`, `kernel_quantizer` (see
    `get_quantizer`), and `kernel_constraint` also as "weight_clip". `magnitude_map` multiplies the sums by K, the mean
    of abs(inputs) over the last axis.
    """

    summed = (0,)

    def product(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return ops.matmul(inputs, kernel)

    def magnitudes(self, inputs: Tensor) -> Tensor:
        return ops.mean(ops.abs(inputs), axis=-1, keepdims=True)


@register_bare
class QuantConv2DTranspose(_OneKernel, keras.layers.Conv2DTranspose):  # type: ignore[misc]
    """Conv2DTranspose over `input_quantizer(inputs)` with `kernel_quantizer(kernel)`; arguments as of `QuantDense`."""

    summed = (0, 1, 3)

    def product(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        geometry = {"strides": list(self.strides), "dilation_rate": self.dilation_rate, "data_format": self.data_format}
        return ops.conv_transpose(inputs, kernel, padding=self.padding, output_padding=self.output_padding, **geometry)


class _Depthwise(_Padded):
    """A layer with a depthwise kernel, (h, w, C, M): output channel c * M + m sums over height and width of input channel c."""

    def __init__(
        self, *args: Any, depthwise_quantizer: object = None, depthwise_constraint: object = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, depthwise_constraint=_constraint(depthwise_constraint), **kwargs)
        self.depthwise_quantizer = get_quantizer(depthwise_quantizer)

    def depthwise(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        values, scale = _factors(self.depthwise_quantizer, kernel, (0, 1))
        inputs, padding = self.padded(self.quantize_input(inputs), self.pad_values)
        geometry = {"strides": self.strides, "dilation_rate": self.dilation_rate, "data_format": self.data_format}
        outputs = ops.depthwise_conv(inputs, values, padding=padding, **geometry)
        return outputs if scale is None else outputs * self._along_channels(scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "depthwise_quantizer": serialize_quantizer(self.depthwise_quantizer)}


@register_bare
class QuantDepthwiseConv2D(_Depthwise, keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """DepthwiseConv2D over `input_quantizer(inputs)` with `depthwise_quantizer(kernel)`.

    Takes the arguments of `keras.layers.DepthwiseConv2D` and, as Larq, `input_quantizer`, `depthwise_quantizer`,
    `depthwise_constraint` also as "weight_clip", and `pad_values` (see `QuantConv2D`).
    """

    def call(self, inputs: Tensor) -> Tensor:
        return self._finish(self.depthwise(inputs, self.kernel))


@register_bare
class QuantSeparableConv2D(_Depthwise, keras.layers.SeparableConv2D):  # type: ignore[misc]
    """SeparableConv2D over `input_quantizer(inputs)` with quantized kernels.

    Takes the arguments of `keras.layers.SeparableConv2D` and, as Larq, those of `QuantDepthwiseConv2D`, and
    `pointwise_quantizer` and `pointwise_constraint`.
    """

    def __init__(
        self, *args: Any, pointwise_quantizer: object = None, pointwise_constraint: object = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, pointwise_constraint=_constraint(pointwise_constraint), **kwargs)
        self.pointwise_quantizer = get_quantizer(pointwise_quantizer)

    def call(self, inputs: Tensor) -> Tensor:
        values, scale = _factors(self.pointwise_quantizer, self.pointwise_kernel, (0, 1, 2))
        outputs = ops.conv(self.depthwise(inputs, self.depthwise_kernel), values, padding="valid", data_format=self.data_format)
        return self._finish(outputs if scale is None else outputs * self._along_channels(scale))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pointwise_quantizer": serialize_quantizer(self.pointwise_quantizer)}


# -- learnable activations, and a norm -----------------------------------------------------------------------------------------------------


class _ByChannel(keras.layers.Layer):  # type: ignore[misc]
    """An activation with weights of one value for each channel, the last axis."""

    def _vector(self, name: str, channels: int, initial: float) -> Tensor:
        return self.add_weight(name=name, shape=(channels,), initializer=keras.initializers.Constant(initial))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@register_bare
class RSign(_ByChannel):
    """The sign of ReActNet, Liu et al., https://arxiv.org/abs/2003.03488: sign(x - shift), one shift learnt for each channel.

    `quantizer` takes the sign, and with its gradient both x and shift are trained.
    """

    def __init__(self, *, quantizer: object = "approx_sign", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.quantizer = get_quantizer(quantizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.shift = self._vector("shift", int(input_shape[-1] or 0), 0.0)

    def call(self, inputs: Tensor) -> Tensor:
        shifted = inputs - self.shift
        return shifted if self.quantizer is None else self.quantizer(shifted)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantizer": serialize_quantizer(self.quantizer)}


@register_bare
class RPReLU(_ByChannel):
    """The PReLU of ReActNet, https://arxiv.org/abs/2003.03488, its bend moved by shifts that are learnt for each channel.

    y = z + after where z > 0, slope * z + after elsewhere, with z = x - before.
    """

    def __init__(self, *, initial_slope: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_slope = initial_slope

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = int(input_shape[-1] or 0)
        self.before = self._vector("before", channels, 0.0)
        self.slope = self._vector("slope", channels, self.initial_slope)
        self.after = self._vector("after", channels, 0.0)

    def call(self, inputs: Tensor) -> Tensor:
        z = inputs - self.before
        above = ops.relu(z)
        return above + self.slope * (z - above) + self.after

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_slope": self.initial_slope}


@register_bare
class LocalResponseNormalization(keras.layers.Layer):  # type: ignore[misc]
    """x / (bias + alpha * s) ** beta, s the sum of the squares of a channel and of `depth_radius` on either side of it.

    AlexNet's norm, for which Keras has no layer; arguments as of `tf.nn.local_response_normalization`. Caffe divides its alpha
    by the 2 * depth_radius + 1 channels. The last axis is that of channels.
    """

    def __init__(self, depth_radius: int = 5, bias: float = 1.0, alpha: float = 1.0, beta: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if depth_radius < 1 or bias <= 0 or alpha < 0:
            raise InputError(
                f"Layer {self.name!r} needs depth_radius >= 1, bias > 0 and alpha >= 0, got {depth_radius}, {bias} and {alpha}."
            )
        self.depth_radius, self.bias, self.alpha, self.beta = depth_radius, bias, alpha, beta

    def call(self, inputs: Tensor) -> Tensor:
        channels, beside = inputs.shape[-1], (self.depth_radius, self.depth_radius)
        squares = ops.pad(ops.square(inputs), [*((0, 0),) * (len(inputs.shape) - 1), beside])
        sums = sum(squares[..., first : first + channels] for first in range(2 * self.depth_radius + 1))
        return inputs * (self.bias + self.alpha * sums) ** -self.beta

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: getattr(self, name) for name in ("depth_radius", "bias", "alpha", "beta")}}
