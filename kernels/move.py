"""Moving data: halos, reshape, padding, concatenation: lowering (the code is `edge.kernels.move_code`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.kernels.arguments import is_flat
from edge.kernels.arithmetic import quantize
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering, Place, float_bits
from edge.tensors import Encoding

_CHUNK_BYTES = 1 << 14
_CHUNK_PIXELS = 64


def _code(name: str) -> Code:
    """The kernel function that `edge.kernels.move_code` makes under this name."""

    def build(machine: Machine) -> KernelFunction:
        from edge.kernels import move_code

        make: Callable[[], KernelFunction] = getattr(move_code, name)
        return make()

    return Code(name, build)


def _work(nbytes: int) -> int:
    """Bytes moved, as the values that other kernels would compute meanwhile."""
    return nbytes // 8


# -- halos ---------------------------------------------------------------------------------------------------------------------


def lower_halo(tensor: Place) -> Lowered:
    """Fill the halo of a tensor (`tensor.offset` is where the halo starts) with the encoding's zero, +1 for bits."""
    kind = tensor.type
    halo = kind.halo
    value = kind.zero_point & 0xFF if kind.encoding in (Encoding.INT8, Encoding.UINT8) else 0
    rows = tensor.height + halo.top + halo.bottom
    left, right = halo.left * kind.pixel_bytes, halo.right * kind.pixel_bytes
    args = (tensor.offset, kind.row_bytes, rows, halo.top, tensor.height, left, right, value)
    filled = kind.nbytes - tensor.height * tensor.width * kind.pixel_bytes
    return Lowered(_code("fill_halo"), args, work=_work(filled))


# -- reshape -------------------------------------------------------------------------------------------------------------------


def _lower_reshape(low: Lowering) -> Lowered:
    """Nothing where the output lies on the input: then neither has a halo."""
    source, out = low.input(), low.output
    rows, row_bytes = _stream(out)
    if source.offset == out.offset:
        rows = 0
    args = (rows, row_bytes, _CHUNK_BYTES, out.offset, out.row_bytes, _CHUNK_BYTES, source.offset, _stream(source)[1], source.row_bytes)
    return Lowered(_code("reshape"), args, work=_work(rows * row_bytes))


def _stream(place: Place) -> tuple[int, int]:
    """The rows without a gap of an image and their bytes."""
    row_bytes = place.width * place.pixel_bytes
    return (1, place.height * row_bytes) if is_flat(place) else (place.height, row_bytes)


# -- pad2d ---------------------------------------------------------------------------------------------------------------------


def _lower_pad(low: Lowering) -> Lowered:
    source, out = low.input(), low.output
    row_bytes = out.width * out.pixel_bytes
    args = (
        out.height, row_bytes, row_bytes, out.offset, out.row_bytes, row_bytes,
        source.offset, source.row_bytes, source.height, source.width * source.pixel_bytes,
        low.i("pad_top"), low.i("pad_left") * out.pixel_bytes, _pattern(low),
    )  # fmt: skip
    return Lowered(_code("pad2d"), args, work=_work(out.height * row_bytes))


def _pattern(low: Lowering) -> int:
    """The padding value as 4 bytes."""
    kind = low.output.type
    if kind.encoding is Encoding.FLOAT32:
        return float_bits(low.f("value"))
    with np.errstate(over="ignore"):
        stored = int(quantize(np.array(low.f("value"), np.float32), kind))
    return int(np.array([stored] * 4).astype(np.uint8).view(np.int32)[0])


# -- concat --------------------------------------------------------------------------------------------------------------------


def _lower_concat(low: Lowering) -> Lowered:
    """Arguments of the output, then five of every input."""
    out = low.output
    sources = [low.input(index) for index in range(len(low.call.inputs))]
    used = [-(-source.channels * source.type.encoding.bits // 8) for source in sources]
    inputs: list[int] = []
    for index, source in enumerate(sources):
        inputs += [source.offset, source.row_bytes, source.pixel_bytes, used[index], sum(used[:index])]
    args = (
        out.height, out.width, _CHUNK_PIXELS, out.offset, out.row_bytes, _CHUNK_PIXELS * out.pixel_bytes,
        out.pixel_bytes, sum(used), len(sources), *inputs,
    )  # fmt: skip
    return Lowered(_code("concat"), args, work=_work(out.height * out.width * out.pixel_bytes))


KERNELS = (
    Kernel("reshape", "reshape", lambda low: True, _lower_reshape),
    Kernel("pad2d", "pad2d", lambda low: True, _lower_pad),
    Kernel("concat", "concat", lambda low: True, _lower_concat),
)
