"""Small programs, one operation each, whose kernels are those that common networks need: what a library holds that is built for no model.

They follow what the converter makes of networks at 1, 8 and 32 bits: LeNet, AlexNet, ResNets and residual binary networks on pictures of
28 to 224 pixels, MobileNets, autoencoders. Which kernels they become is decided by lowering, as for any program; weights do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from edge.graph import Graph, Node, constant_type
from edge.lower import to_program
from edge.op_check import infer
from edge.ops import NO_ACTIVATION, OPS, Activation, OpCall
from edge.program import Program
from edge.tensors import Encoding, TensorType

_BITS, _F32, _I8, _U8 = Encoding.BITS, Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8
_Attrs = Mapping[str, int | float]

_WIDTHS = (4, 12, 14, 15)  # of outputs; multiples of these are cut into the same tiles
_SHORTCUT_WIDTHS = (4, 7)
_CHANNELS = ((16, 16), (32, 32), (32, 64))  # out and in
_CLASSES = (10, 32, 1000)  # of the last layer
_SAME: _Attrs = {"pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1}
_VALID: _Attrs = dict.fromkeys(_SAME, 0)
_CONV: _Attrs = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "groups": 1, "pad_ones": 0}
_RELU: _Attrs = {**NO_ACTIVATION, "activation": int(Activation.RELU)}
_STORED = {_F32: np.float32, _I8: np.int8, _U8: np.uint8, _BITS: np.bool_}


def standard_programs() -> Iterator[Program]:
    """The programs, in no particular order."""
    yield from _convolutions()
    yield from _residuals()
    yield from _dense_layers()
    yield from _depthwise_layers()
    yield from _pools()
    yield from _elementwise()
    yield from _moves()


def _program(
    op: str, inputs: Sequence[TensorType], output: TensorType, constants: Mapping[str, np.ndarray], attrs: _Attrs, *, signs: bool = False
) -> Program:
    """A program of one operation; the shape of `output` is inferred."""
    kinds = {role: constant_type(array) for role, array in constants.items()}
    shape = infer(OPS[op], OpCall(tuple(inputs), kinds, attrs))
    names = tuple(f"x{number}" for number in range(len(inputs)))
    types = dict(zip(names, inputs, strict=True)) | {"y": TensorType(shape, output.encoding, output.scale, output.zero_point)}
    if signs:
        types["signs"] = TensorType(shape, _BITS)
    node = Node(op, names, "y", attrs, constants, (), "signs" if signs else "")
    return to_program(Graph("standard", names, ("y",), (node,), types))


def _type(*shape: int, encoding: Encoding) -> TensorType:
    return TensorType(shape, encoding, 0.5 if encoding in (_I8, _U8) else 1.0)


def _zeros(encoding: Encoding, *shape: int) -> np.ndarray:
    return np.zeros(shape, _STORED[encoding])


def _weights(stored: Encoding, shape: tuple[int, ...], channels: int, output: Encoding) -> dict[str, np.ndarray]:
    """A filter, and what its epilogue reads."""
    found = {"filter": _zeros(stored, *shape)}
    if output is _BITS:
        return found | {"threshold": np.zeros(channels, np.int32)}
    scale = {} if stored is _F32 else {"scale": np.ones(channels, np.float32)}
    return found | scale | {"bias": np.zeros(channels, np.float32)}


# -- convolutions --------------------------------------------------------------------------------------------------------------

_CHAINS = (
    # (input, filter, output, activations) of layers in the middle of networks, then of first ones
    (_BITS, _BITS, _BITS, (NO_ACTIVATION,)),
    (_BITS, _BITS, _F32, (NO_ACTIVATION,)),
    (_I8, _I8, _I8, (NO_ACTIVATION, _RELU)),
    (_F32, _F32, _F32, (_RELU,)),
    (_F32, _BITS, _F32, (_RELU,)),
    (_U8, _I8, _BITS, (NO_ACTIVATION,)),
    (_U8, _I8, _F32, (_RELU,)),
    (_U8, _I8, _I8, (_RELU,)),
)


def _convolutions() -> Iterator[Program]:
    for (source, stored, output, activations), width, (channels, depth) in product(_CHAINS, _WIDTHS, _CHANNELS):
        for activation in activations:
            constants = _weights(stored, (channels, 3, 3, depth), channels, output)
            inputs = (_type(3, width, depth, encoding=source),)
            yield _program("conv2d", inputs, _type(1, encoding=output), constants, {**_CONV, **_SAME, **activation})


def _residuals() -> Iterator[Program]:
    """What ends the chains of networks with shortcuts: the sum with a second input, its ReLU or its signs; and first layers whose sum and
    signs are both read."""
    signed = ("sign_mul", "sign_add")
    steps = ((True, False, ()), (True, True, ()), (True, True, signed), (False, True, signed))  # second input, signs, constants
    chains = ((_BITS, _BITS, 0), (_F32, _F32, 1), (_F32, _BITS, 1), (_U8, _I8, 0))
    for (source, stored, relu), width, (channels, depth), (added, signs, more) in product(chains, _SHORTCUT_WIDTHS, _CHANNELS, steps):
        if (added and source is _U8) or (signs and source is _F32):
            continue
        constants = _weights(stored, (channels, 3, 3, depth), channels, _F32)
        constants |= dict.fromkeys(more, np.ones(channels, np.float32))
        inputs = (_type(3, width, depth, encoding=source), *([_type(3, width, channels, encoding=_F32)] if added else []))
        attrs = {**_CONV, **_SAME, **NO_ACTIVATION, "relu_after": 0 if signs else relu}
        yield _program("residual_conv2d", inputs, _type(1, encoding=_F32), constants, attrs, signs=signs)


def _dense_layers() -> Iterator[Program]:
    hidden = ((_BITS, _BITS, _BITS), (_BITS, _BITS, _F32), (_I8, _I8, _I8), (_F32, _F32, _F32), (_F32, _BITS, _F32))
    last = ((_BITS, _BITS, _F32), (_I8, _I8, _F32), (_F32, _I8, _F32), (_F32, _F32, _F32), (_F32, _BITS, _F32))
    layers = [*product(hidden, (128,), (NO_ACTIVATION, _RELU)), *product(last, _CLASSES, (NO_ACTIVATION,))]
    for (source, stored, output), channels, activation in layers:
        if output is _BITS and activation is _RELU:
            continue
        constants = _weights(stored, (channels, 1, 1, 64), channels, output)
        yield _program("dense", (_type(64, encoding=source),), _type(1, encoding=output), constants, activation)


def _depthwise_layers() -> Iterator[Program]:
    chains = ((_F32, _F32, _F32), (_I8, _I8, _I8), (_BITS, _BITS, _F32))
    for (source, stored, output), width, channels, activation in product(chains, _WIDTHS, (8, 64), (NO_ACTIVATION, _RELU)):
        constants = _weights(stored, (3, 3, channels), channels, output)
        attrs = {**_CONV, **_SAME, **activation, "groups": channels}
        yield _program("depthwise_conv2d", (_type(3, width, channels, encoding=source),), _type(1, encoding=output), constants, attrs)


# -- everything else -----------------------------------------------------------------------------------------------------------


def _pools() -> Iterator[Program]:
    for op, window, channels in product(("max_pool2d", "average_pool2d"), (2, 3), (32, 64, 128, 256)):
        attrs = {"window_h": window, "window_w": window, "stride_h": 2, "stride_w": 2, **_VALID}
        for encoding in (_F32, _I8, *([_BITS] if op == "max_pool2d" else [])):
            kind = _type(8, 8, channels, encoding=encoding)
            yield _program(op, (kind,), kind, {}, attrs)
            if encoding is _BITS:
                yield _program(op, (kind,), kind, {"flip": _zeros(_BITS, channels)}, attrs)
    for encoding, stride in product((_F32, _I8), (1, 2)):  # over the whole image, and with padding that SAME adds
        kind = _type(7, 7, 64, encoding=encoding)
        attrs = {"window_h": 7, "window_w": 7, "stride_h": stride, "stride_w": stride, **(_VALID if stride == 1 else _SAME)}
        yield _program("average_pool2d", (kind,), kind, {}, attrs)


def _elementwise() -> Iterator[Program]:
    channels = 64
    real, whole, byte, packed = (_type(4, 4, channels, encoding=encoding) for encoding in (_F32, _I8, _U8, _BITS))
    vector = {"mul": np.ones(channels, np.float32), "add": np.zeros(channels, np.float32)}
    for activation in Activation:
        attrs = {**NO_ACTIVATION, "activation": int(activation), "alpha": 0.5}
        yield _program("activation", (real,), real, {}, attrs)
    for activated in (NO_ACTIVATION, _RELU):
        yield _program("affine", (real,), real, vector, activated)
        yield _program("affine", (byte,), real, vector, activated)
        yield _program("add", (real, real), real, {}, activated)
        yield _program("add", (whole, whole), whole, {}, activated)
    yield _program("softmax", (real,), real, {}, {})
    yield _program("prelu", (real,), real, {"slope": vector["mul"]}, {})
    for constants in ({}, vector):
        yield _program("binarize", (real,), packed, constants, {})
    yield _program("unpack", (packed,), real, {}, {})
    for source, output in ((real, whole), (byte, whole)):
        yield _program("quantize", (source,), output, {}, {})
    for source in (whole, byte):
        yield _program("dequantize", (source,), real, {}, {})
    for kind in (real, whole, packed):
        yield _program("concat", (kind, kind), kind, {}, {})
    flat = {"rank": 1, "size_0": real.elements, "size_1": 0, "size_2": 0}
    yield _program("reshape", (real,), real, {}, flat)
    yield _program("pad2d", (real,), real, {}, {**_SAME, "value": 0.0})
    for op in ("multiply", "subtract", "divide", "maximum", "minimum"):
        yield _program(op, (real, _type(4, 4, 1, encoding=_F32)), real, {}, {})
        yield _program(op, (real, _type(1, 1, channels, encoding=_F32)), real, {}, {})
    window = {"window_h": 3, "window_w": 3, "stride_h": 1, "stride_w": 1, **_SAME}
    yield _program("magnitude_map", (real,), real, {}, window)


def _moves() -> Iterator[Program]:
    """One kernel copies pixels for slices, nearest neighbours and transposed convolutions; others are of one operation each."""
    real, whole = (_type(4, 4, 64, encoding=encoding) for encoding in (_F32, _I8))
    for kind in (real, whole):
        yield _program("transpose", (kind,), kind, {}, {"axis_0": 1, "axis_1": 0, "axis_2": 2})
        yield _program("transpose", (kind,), kind, {}, {"axis_0": 2, "axis_1": 0, "axis_2": 1})
    yield _program("resize_bilinear", (real,), real, {}, {"size_h": 8, "size_w": 8})
    yield _program("embedding", (_type(4, encoding=_F32),), real, {"table": _zeros(_F32, 10, 8)}, {})
    yield _program("layer_norm", (real,), real, {}, {"epsilon": 1e-3})
    yield _program("local_response_norm", (real,), real, {}, {"radius": 2, "bias": 1.0, "alpha": 1e-4, "beta": 0.75})
    yield _program("log_softmax", (real,), real, {}, {})
