"""Values of tensors: what a caller gives, as the input tensor takes it; tensors of the arena as arrays, and as real values."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.batches import size_text
from edge.errors import InputError
from edge.kernels import bitpack
from edge.kernels.arithmetic import quantize
from edge.program import Tensor
from edge.tensors import Encoding, TensorType

_DTYPES = {Encoding.FLOAT32: np.float32, Encoding.INT8: np.int8, Encoding.UINT8: np.uint8, Encoding.BITS: np.uint8}


# -- inputs --------------------------------------------------------------------------------------------------------------------


def as_batch(x: Any, kind: TensorType, *, name: str = "") -> tuple[np.ndarray, bool]:
    """`x` as a batch (N, *shape) in a dtype that the input tensor `kind` takes, and whether it was one example.

    Of an int8 input int8 arrays are what is stored, others real values, which are quantized. A single number is an example of an input that
    takes one value. `name` tells the input from others in errors. Raises InputError where its shape or its values do not fit.
    """
    shape, where = kind.shape, f"the input {name}".rstrip()
    try:
        array = np.asarray(x)
    except ValueError as err:
        raise InputError(f"{where} does not fit: expected (N, {size_text(shape)}), received lists of unequal lengths; pad them") from err
    if array.ndim == 0 and shape == (1,):
        array = array[None]
    single = array.ndim == len(shape)
    batch = array[None] if single else array
    if batch.shape[1:] != shape:
        expected = size_text(shape)
        raise InputError(f"{where} does not fit: expected (N, {expected}) or ({expected}), received {array.shape}; resize it")
    return _as_input(batch, kind, where), single


def _as_input(batch: np.ndarray, kind: TensorType, where: str) -> np.ndarray:
    wanted = kind.encoding
    if batch.dtype == _DTYPES[wanted] or (wanted is Encoding.FLOAT32 and batch.dtype == np.uint8):
        return batch
    if batch.dtype.kind not in "fiub":
        raise InputError(f"{where} does not fit: expected float32, uint8 or int8 values, received {batch.dtype}; convert it")
    if wanted is Encoding.FLOAT32:
        return batch.astype(np.float32)
    if wanted is Encoding.INT8:
        if np.isnan(batch).any():
            raise InputError(f"{where} does not fit: expected numbers, which become int8, received NaN; check how the input was made")
        with np.errstate(over="ignore"):  # what float32 does not hold is beyond int8 too
            return quantize(batch.astype(np.float32), kind)
    whole = batch.astype(np.uint8) if batch.size == 0 or (np.min(batch) >= 0 and np.max(batch) <= 255) else None
    if whole is None or not np.array_equal(whole, batch):
        raise InputError(
            f"{where} does not fit: expected pixels, whole numbers from 0 to 255, received other values; "
            "give uint8 pixels, or a model that takes floats (edge convert --input-dtype float32)"
        )
    return whole


# -- tensors -------------------------------------------------------------------------------------------------------------------


def pixels(arena: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The pixels of a tensor in the arena, halo left out: (H, W, C), or (H, W, bytes) for packed ones."""
    kind = tensor.type
    height, width, channels = kind.hwc
    last = kind.pixel_bytes if kind.encoding is Encoding.BITS else channels
    dtype = np.dtype(_DTYPES[kind.encoding])
    strides = (kind.row_bytes, kind.pixel_bytes, dtype.itemsize)
    view: np.ndarray = np.ndarray((height, width, last), dtype, arena.data, tensor.offset + kind.origin_bytes, strides)
    return view


def real_values(view: np.ndarray, kind: TensorType) -> np.ndarray:
    """The `pixels` of a tensor as float32 of its shape, bits as +-1 (an array of its own, or a view)."""
    if kind.encoding is Encoding.BITS:
        return bitpack.signs(bitpack.unpack(view, kind.shape[-1])).reshape(kind.shape)
    values = view.reshape(kind.shape)
    if kind.encoding is Encoding.FLOAT32:
        return values
    return (values.astype(np.float32) - np.float32(kind.zero_point)) * np.float32(kind.scale)


def stored_values(values: np.ndarray, kind: TensorType) -> np.ndarray:
    """Real values (H, W, C) as the `pixels` of a tensor hold them."""
    if kind.encoding is Encoding.BITS:
        return bitpack.pack(bitpack.negative(values), kind.pixel_bytes)
    return values if kind.encoding is Encoding.FLOAT32 else quantize(values.astype(np.float32), kind)
