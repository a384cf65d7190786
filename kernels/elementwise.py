"""Operations on values, pixels or channels alone: lowering (the code is `edge.kernels.elementwise_code` and `edge.kernels.packing_code`).

Every kernel sees its tensors as rows of values, cut into chunks. Where no halo lies between the rows of any operand the whole image is one
row. Constants per channel are repeated in a derived row whose length, the period, is a multiple of what is taken at once: then a row needs
no regard to where pixels begin. Where that row would be long, a chunk is one pixel. A chunk is one pixel too where packed pixels have spare
bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.kernels.arguments import OVERREAD, bounds, fused, is_flat, quantization
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering, Place, float_bits
from edge.kernels.shapes import MapVariant
from edge.ops import Activation
from edge.tensors import Encoding, TensorType

_CHUNK = 4096  # values, at most, where pixels do not matter
_LONGEST_PERIOD = 1024  # values

_FUNCTIONS: dict[Activation, str] = {
    activation: activation.name.lower()
    for activation in Activation
    if activation not in (Activation.NONE, Activation.RELU, Activation.LEAKY_RELU)
}


@dataclass(frozen=True)
class Chunks:
    """How the values of an image are cut: `rows` of `values`, each into chunks of `chunk`, the last one shorter."""

    rows: int
    values: int
    chunk: int

    def arguments(self, *places: Place) -> tuple[int, ...]:
        """The three numbers; then of every tensor its offset, and the bytes between its rows and between its chunks."""
        found = [self.rows, self.values, self.chunk]
        for place in places:
            found += [place.offset, place.row_bytes, _bytes_of(place, self.chunk)]
        return tuple(found)


def _bytes_of(place: Place, values: int) -> int:
    """Bytes that `values` take; of packed tensors they are whole pixels."""
    if place.type.encoding is Encoding.BITS:
        return values // place.channels * place.pixel_bytes
    return values * place.type.encoding.bits // 8


def _has_spare_bits(place: Place) -> bool:
    return place.type.encoding is Encoding.BITS and place.channels != 8 * place.pixel_bytes


def _chunks(places: tuple[Place, ...], period: int) -> Chunks:
    """`period` is the number of values that a chunk must be a multiple of; 0 where a chunk must be a pixel."""
    height, width, channels = places[0].type.hwc
    flat = all(is_flat(place) for place in places)
    rows, values = (1, height * width * channels) if flat else (height, width * channels)
    if not period or any(_has_spare_bits(place) for place in places):
        return Chunks(rows, values, channels)
    return Chunks(rows, values, period * max(1, _CHUNK // period))


def pixels(low: Lowering) -> tuple[int, ...]:
    """The arguments of a kernel whose chunks are pixels, from one input to the output."""
    places = (low.output, low.input())
    return _chunks(places, 0).arguments(*places)


def _wide(machine: Machine) -> int:
    """Values that kernels take at once: four registers of float32."""
    return machine.isa.vector_bytes


def _is_channelwise(low: Lowering) -> bool:
    return bool(low.call.constants)


def _period(low: Lowering) -> int:
    """The values after which pixels or constants per channel begin where a vector does; 0 if that takes too long a row."""
    channels, wide = low.output.channels, _wide(low.machine)
    whole = math.lcm(channels, wide)
    packed = any(place.type.encoding is Encoding.BITS for place in (low.input(), low.output))
    if not packed and not _is_channelwise(low):
        return wide
    return whole if whole in (channels, wide) or whole <= _LONGEST_PERIOD else 0


def _channelwise(low: Lowering, role: str, default: float, period: int) -> int:
    """The offset of a constant, repeated over the period."""
    channels = low.output.channels
    if low.has(role) and period in (0, channels):
        return low.constant(role)
    values = low.array(role) if low.has(role) else np.full(channels, default, np.float32)
    return low.derived.add(np.resize(values, max(period, channels) + OVERREAD))


# -- maps: affine, activation, quantize, dequantize, add ---------------------------------------------------------------------------


def _function(low: Lowering) -> str:
    """What becomes of the value before it is stored. Quantizing bounds values anyhow."""
    if low.op == "prelu":
        return "prelu"
    if "activation" not in low.call.attrs:
        return "identity"
    if fused(low) == "leaky":
        return "leaky"
    bounded = "identity" if low.output.type.encoding is Encoding.INT8 else "bounded"
    return _FUNCTIONS.get(Activation(low.i("activation")), bounded)


def _dequantization(kind: TensorType) -> tuple[int, int]:
    return float_bits(kind.scale), kind.zero_point


def _lower_map(low: Lowering) -> Lowered:
    places = (low.output, *(low.input(i) for i in range(len(low.call.inputs))))
    channelwise = _is_channelwise(low)
    function, period = _function(low), _period(low)
    kind = low.output.type
    encodings = tuple(place.type.encoding.name.lower() for place in places)
    variant = MapVariant(encodings[1:], encodings[0], channelwise, function)
    second = low.call.inputs[-1]
    args = (
        *_chunks(places, period).arguments(places[0], places[1], places[-1]),
        *_dequantization(low.call.inputs[0]), *_dequantization(second),
        *_rows(low, period),
        period or low.output.channels,
        *((0, 0, float_bits(low.f("alpha"))) if function == "elu" else bounds(low)), *quantization(kind),
    )  # fmt: skip
    return Lowered(Code(variant.name, _map_builder(variant)), args, work=kind.elements)


def _rows(low: Lowering, period: int) -> tuple[int, int]:
    """The offsets of the constants per channel: factors, or slopes below zero, and what is added."""
    if low.op == "prelu":
        return _channelwise(low, "slope", 1.0, period), 0
    return (_channelwise(low, "mul", 1.0, period), _channelwise(low, "add", 0.0, period)) if _is_channelwise(low) else (0, 0)


def _map_builder(variant: MapVariant) -> Callable[[Machine], KernelFunction]:
    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import elementwise_code

        return elementwise_code.map_kernel(variant, _wide(machine))

    return build


# -- softmax -------------------------------------------------------------------------------------------------------------------


def _lower_softmax(low: Lowering) -> Lowered:
    return Lowered(Code(low.op, _softmax_builder(low.op == "log_softmax")), pixels(low), work=8 * low.output.type.elements)


def _softmax_builder(logs: bool) -> Callable[[Machine], KernelFunction]:
    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import elementwise_code, normalize_code

        return normalize_code.log_softmax_kernel() if logs else elementwise_code.softmax_kernel(_wide(machine))

    return build


# -- bits ----------------------------------------------------------------------------------------------------------------------


def _lower_binarize(low: Lowering) -> Lowered:
    places = (low.output, low.input())
    scaled = _is_channelwise(low)
    period = _period(low)
    chunks = _chunks(places, period)
    spare = _bytes_of(low.output, chunks.chunk) - -(-chunks.chunk // 8)
    args = (
        *chunks.arguments(*places), spare, period or low.output.channels,
        _channelwise(low, "mul", 1.0, period) if scaled else 0, _channelwise(low, "add", 0.0, period) if scaled else 0,
    )  # fmt: skip
    name = "binarize_scaled" if scaled else "binarize"
    return Lowered(Code(name, lambda machine: _build_binarize(scaled, machine)), args, work=low.output.type.elements)


def _build_binarize(scaled: bool, machine: Machine) -> KernelFunction:
    from edge.kernels import packing_code

    return packing_code.binarize_kernel(scaled, _wide(machine))


def _lower_unpack(low: Lowering) -> Lowered:
    places = (low.output, low.input())
    args = _chunks(places, _period(low)).arguments(*places)
    return Lowered(Code("unpack", _build_unpack), args, work=low.output.type.elements)


def _build_unpack(machine: Machine) -> KernelFunction:
    from edge.kernels import packing_code

    return packing_code.unpack_kernel(_wide(machine))


def _always(low: Lowering) -> bool:
    return True


KERNELS = (
    *(Kernel(op, op, _always, _lower_map) for op in ("affine", "activation", "quantize", "dequantize", "add", "prelu")),
    *(Kernel(op, op, _always, _lower_softmax) for op in ("softmax", "log_softmax")),
    Kernel("binarize", "binarize", _always, _lower_binarize),
    Kernel("unpack", "unpack", _always, _lower_unpack),
)
