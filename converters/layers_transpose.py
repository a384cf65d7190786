"""Transposed convolutions, as convolutions of stride 1 whose outputs are interleaved.

Output pixel y along an axis takes input pixel i with tap k where y + pad = i * stride + k. Those with the same remainder of y + pad by the
stride, its phase p, take the taps p, p + stride, p + 2 stride, ... in falling order: an ordinary convolution. Each pair of phases gives an
image of its own, and `depth_to_space` puts them side by side. No zeros between pixels are multiplied, and signs stay packed.
Where the stride divides the taps all phases are one convolution, else each is one; what lies beyond the output is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.converters.builder import Builder, Layer, float32, reads
from edge.converters.layers_conv import activated, bias_of, quantized_input, quantized_kernel, scales_outputs
from edge.graph import Array

MAX_PHASES = 1024  # of which each may be a convolution of its own


@dataclass(frozen=True)
class _Axis:
    """One axis: sizes of input, window, stride and output, the dilation (1 unless the stride is 1), and padding before the output."""

    size: int
    taps: int
    stride: int
    dilation: int
    wanted: int
    pad: int

    @property
    def first(self) -> int:
        """Of the interleaved groups of `stride` output pixels, the first that is needed."""
        return self.pad // self.stride

    @property
    def groups(self) -> int:
        return (self.pad + self.wanted - 1) // self.stride - self.first + 1

    def phase_taps(self, phase: int) -> int:
        """Taps of a phase; one of zeros where it has none."""
        return max(1, -(-(self.taps - phase) // self.stride))

    def pads(self, phase: int) -> tuple[int, int]:
        """Before and after, for a convolution that gives `groups` pixels."""
        window = (self.phase_taps(phase) - 1) * self.dilation + 1
        before = window - 1 - self.first
        return before, self.groups + window - 1 - self.size - before


def _axis(layer: Layer, size: int, taps: int, stride: int, dilation: int, extra: int | None, *, same: bool) -> _Axis:
    """The sizes as Keras computes them; TensorFlow lays `same` as if the convolution went from the output to the input."""
    if stride > 1 and dilation > 1:
        raise layer.error(f"strides {stride} together with dilation_rate {dilation} is not supported; train with one of them")
    window = (taps - 1) * dilation + 1
    if extra is None:
        wanted = size * stride + (0 if same else max(window - stride, 0))
    else:
        wanted = (size - 1) * stride + window - (2 * (window // 2) if same else 0) + extra
    if wanted < 1 or (same and -(-wanted // stride) != size) or (not same and -(-(wanted - window + 1) // stride) != size):
        raise layer.error(f"output_padding {extra} makes {wanted} pixels of {size}, which no strides {stride} do; save the model again")
    pad = max((size - 1) * stride + window - wanted, 0) // 2 if same else 0
    return _Axis(size, taps, stride, dilation, wanted, pad)


@reads("Conv2DTranspose", "Conv1DTranspose", "QuantConv2DTranspose", "QConv2DTranspose")
def transposed_convolution(layer: Layer, build: Builder) -> str:
    axes = _axes(layer)
    filters, scale = _filters(layer, build, axes)
    source = quantized_input(layer, build)
    if layer.options.whole("groups", 1) != 1:
        raise layer.error("groups of a transposed convolution are not supported; train without")
    rows, columns = axes
    uniform = all(axis.taps % axis.stride == 0 for axis in axes)
    phases = [(y, x) for y in range(rows.stride) for x in range(columns.stride)]
    parts = [np.concatenate([filters[phase] for phase in phases])] if uniform else [filters[phase] for phase in phases]
    bias = bias_of(layer)
    made = []
    for phase, part in zip(phases, parts, strict=False):
        constants = {"filter": part, **{role: np.tile(row, len(part) // len(row)) for role, row in bias.items()}}
        if scale is not None:
            constants |= _whole(part, np.tile(scale, len(part) // len(scale)))
        made.append(build.add("conv2d", layer, source, constants=constants, attrs=_attrs(axes, phase), rank=len(layer.shape)))
    return activated(layer, build, _interleaved(layer, build, made, axes))


def _axes(layer: Layer) -> tuple[_Axis, _Axis]:
    height, width, _ = layer.plane()
    same = layer.options.choice("padding", ("valid", "same"), "valid") == "same"
    taps, strides, dilation = (layer.pair("kernel_size"), layer.pair("strides", (1, 1)), layer.pair("dilation_rate", (1, 1)))
    if strides[0] * strides[1] > MAX_PHASES:
        raise layer.error(f"strides {strides} are not supported, expected at most {MAX_PHASES} pixels for each; train with smaller ones")
    extra = _output_padding(layer)
    rows, columns = (
        _axis(layer, *sizes, same=same) for sizes in zip((height, width), taps, strides, dilation, extra, strict=True)
    )
    return rows, columns


def _output_padding(layer: Layer) -> tuple[int | None, int | None]:
    given = layer.options.wholes("output_padding", ())
    if not given or layer.call.config.get("output_padding") is None:
        return None, None
    if layer.is_row:
        return None, given[0]
    return given[0], given[-1]


def _filters(layer: Layer, build: Builder, axes: tuple[_Axis, _Axis]) -> tuple[dict[tuple[int, int], Array], Array | None]:
    """The filter (O, kh, kw, I) of each phase; of whole numbers with their scale by output, else None. (The last axis is of inputs.)"""
    kernel = layer.kernel("kernel")
    rows, columns = axes
    if kernel.shape[:2] != (rows.taps, columns.taps) or kernel.shape[3] != layer.shape[-1]:
        expected = (rows.taps, columns.taps, kernel.shape[2], layer.shape[-1])
        raise layer.error(f"the kernel should have the shape {expected}, got {kernel.shape}; the file is damaged, save the model again")
    kernel, scale = _whole_kernel(layer, build, kernel)
    return {(y, x): _phase(kernel, axes, y, x) for y in range(rows.stride) for x in range(columns.stride)}, scale


def _whole_kernel(layer: Layer, build: Builder, kernel: Array) -> tuple[Array, Array | None]:
    """The kernel as whole numbers and their scale by output; as the numbers themselves and None where there is none by output."""
    by_output = scales_outputs(layer, "kernel_quantizer")
    found, constants = quantized_kernel(layer, build, kernel.swapaxes(2, 3) if by_output else kernel, "kernel_quantizer")
    found = np.where(found, -1, 1) if found.dtype == np.bool_ else found
    if "scale" not in constants:
        return found, None
    scale = constants["scale"]
    if by_output:
        return found.swapaxes(2, 3), scale
    if (scale == scale[0]).all():
        return found, np.full(kernel.shape[2], scale[0], np.float32)
    return found * scale, None


def _whole(part: Array, scale: Array) -> dict[str, Array]:
    """A filter of whole numbers as signs, or as int8 where there are others; 0 times signs for a phase without taps."""
    if not part.any():
        return {"filter": part < 0, "scale": np.zeros_like(scale)}
    return {"filter": part < 0 if (np.abs(part) == 1).all() else part.astype(np.int8), "scale": scale}


def _phase(kernel: Array, axes: tuple[_Axis, _Axis], y: int, x: int) -> Array:
    part = kernel[y :: axes[0].stride, x :: axes[1].stride][::-1, ::-1].transpose(2, 0, 1, 3)
    if 0 in part.shape:
        part = np.zeros((kernel.shape[2], axes[0].phase_taps(y), axes[1].phase_taps(x), kernel.shape[3]))
    return float32(part)


def _attrs(axes: tuple[_Axis, _Axis], phase: tuple[int, int]) -> dict[str, int]:
    (top, bottom), (left, right) = (axis.pads(number) for axis, number in zip(axes, phase, strict=True))
    rows, columns = axes
    pads = {"pad_top": top, "pad_bottom": bottom, "pad_left": left, "pad_right": right}
    return {**pads, "dilation_h": rows.dilation, "dilation_w": columns.dilation}


def _interleaved(layer: Layer, build: Builder, parts: list[str], axes: tuple[_Axis, _Axis]) -> str:
    rows, columns = axes
    rank = len(layer.shape)
    tensor = build.add("concat", layer, *parts, rank=rank) if len(parts) > 1 else parts[0]
    if (rows.stride, columns.stride) != (1, 1):
        tensor = build.add("depth_to_space", layer, tensor, attrs={"block_h": rows.stride, "block_w": columns.stride}, rank=rank)
    height, width, channels = build.types[tensor].hwc
    if (height, width) == (rows.wanted, columns.wanted):
        return tensor
    sizes = {"size_h": rows.wanted, "size_w": columns.wanted, "size_c": channels}
    starts = {"start_h": rows.pad % rows.stride, "start_w": columns.pad % columns.stride, "start_c": 0}
    return build.add("slice", layer, tensor, attrs={**starts, **sizes, "step_h": 1, "step_w": 1}, rank=rank)
