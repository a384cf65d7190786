"""The operations: what each takes, gives and means in shapes. Graph, program, verifier, kernels and converters all read this table.

An operation is known by its number in files; numbers are never reused. Its operands are

- input tensors (`TensorType`) and one output tensor,
- constants by role, in the order of `OpDef.constants`; their `Encoding` says how they are stored,
- attributes, whole numbers or (those in `OpDef.floats`) float32.

`edge.op_check` proves the shapes and encodings of one application; what an operation computes is `edge.kernels.reference`.

Convolutions (conv2d, depthwise_conv2d, dense) share one arithmetic. With acc = sum of x * w over the window, where x is the stored
integer less its zero point (int8, uint8), the value +-1 (bits) or the float:

    output float32:  y = activation(acc * scale[o] + bias[o])
    output int8:     q = clamp(round_half_even(y * (1 / scale_out)) + zero_point_out)
    output bits:     +1 where acc >= threshold[o], else -1

`scale` is absent for float32 filters. Outside taps count 0, or +1 with `pad_ones` (packed inputs only).

residual_conv2d goes on where conv2d ends, each step only if its constant, input, attribute or output is there:

    y = activation(acc * scale[o] + bias[o]), or with slope, where it is negative, times slope[o]
    y = y * mul[o] + add[o]
    y = y + second input
    y = max(y, 0) with relu_after                                                    float32 output
    +1 where y * sign_mul[o] + sign_add[o] >= 0, else -1                             bits output, and second output (signs)
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edge import op_shapes
from edge.op_call import BITS as BITS
from edge.op_call import F32 as F32
from edge.op_call import I8 as I8
from edge.op_call import I32 as I32
from edge.op_call import MAX_ACCUMULATOR as MAX_ACCUMULATOR
from edge.op_call import MAX_ATTRIBUTE as MAX_ATTRIBUTE
from edge.op_call import MAX_ELEMENTS as MAX_ELEMENTS
from edge.op_call import U8 as U8
from edge.op_call import ConstantType as ConstantType
from edge.op_call import OpCall as OpCall
from edge.op_call import OpError as OpError
from edge.op_call import need as need
from edge.tensors import NARROW, NO_HALO, Encoding, Halo, hwc


class Activation(enum.IntEnum):
    """Functions of one value. NONE, RELU and LEAKY_RELU may be fused into other operations. Numbers are part of the file format.

    RELU is min(max(x, 0), limit); LEAKY_RELU and ELU have slope `alpha` below zero; HARD_SWISH is x * min(max(x + 3, 0), 6) * (1 / 6),
    SWISH x * sigmoid(x), GELU x * (1 + erf(x / sqrt(2))) / 2, GELU_TANH x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2, SOFTPLUS
    log(1 + exp(x)), SOFTSIGN x / (1 + abs(x)), MISH x * tanh(SOFTPLUS), EXP exp(x), SQRT the square root.
    """

    NONE = 0
    RELU = 1
    LEAKY_RELU = 2
    ELU = 3
    SIGMOID = 4
    TANH = 5
    HARD_SWISH = 6
    SWISH = 7
    GELU = 8
    GELU_TANH = 9
    SOFTPLUS = 10
    SOFTSIGN = 11
    MISH = 12
    EXP = 13
    SQRT = 14


FUSED_ACTIVATIONS = frozenset({Activation.NONE, Activation.RELU, Activation.LEAKY_RELU})
_FIRST_OF_MINOR_2 = Activation.HARD_SWISH


@dataclass(frozen=True)
class OpDef:
    """An operation of the table.

    `shape(call)` checks the operands against each other and returns the output's shape; `signatures` are the allowed
    (input encoding, filter encoding or None, output encoding); `halo(call)` is the halo its first input must have. `gives_signs`: a float32
    output may come with a second one, its signs. The output may lie on the input whose number is `in_place`. `since` is the minor version
    of the file format that knows the operation first.
    """

    name: str
    number: int
    shape: Callable[[OpCall], tuple[int, ...]]
    signatures: frozenset[tuple[Encoding, Encoding | None, Encoding]]
    inputs: tuple[int, int] = (1, 1)
    constants: tuple[str, ...] = ()
    attrs: tuple[str, ...] = ()
    floats: frozenset[str] = frozenset({"alpha", "limit", "value"})
    halo: Callable[[OpCall], Halo] = lambda call: NO_HALO
    macs: Callable[[OpCall, tuple[int, ...]], int] = lambda call, shape: 0
    gives_signs: bool = False
    in_place: int = -1
    since: int = 0


# -- activations ---------------------------------------------------------------------------------------------------------------

ACTIVATION_ATTRS = ("activation", "alpha", "limit")


def _check_activation(call: OpCall, allowed: frozenset[Activation]) -> None:
    number = call.i("activation")
    need(number in tuple(allowed), f"activation {number} is not one of {sorted(allowed)}")
    need(math.isfinite(call.attrs["alpha"]), f"alpha must be finite, got {call.attrs['alpha']}")
    need(call.attrs["limit"] >= 0, f"limit must be at least 0, got {call.attrs['limit']}")


# -- windows -------------------------------------------------------------------------------------------------------------------

WINDOW_ATTRS = ("stride_h", "stride_w", "pad_top", "pad_bottom", "pad_left", "pad_right")
CONV_ATTRS = (*WINDOW_ATTRS, "dilation_h", "dilation_w", "groups", "pad_ones", *ACTIVATION_ATTRS)
POOL_ATTRS = ("window_h", "window_w", *WINDOW_ATTRS)


def _axis(size: int, window: int, stride: int, before: int, after: int, axis: str) -> int:
    need(1 <= stride <= MAX_ATTRIBUTE, f"stride along {axis} must be at least 1, got {stride}")
    need(0 <= before <= MAX_ATTRIBUTE and 0 <= after <= MAX_ATTRIBUTE, f"padding along {axis} must not be negative")
    padded = size + before + after
    need(window <= padded, f"a window of {window} does not fit the padded {axis} of {padded}")
    return (padded - window) // stride + 1


def _window_shape(call: OpCall, window_h: int, window_w: int) -> tuple[int, int]:
    height, width, _ = call.inputs[0].hwc
    rows = _axis(height, window_h, call.i("stride_h"), call.i("pad_top"), call.i("pad_bottom"), "height")
    columns = _axis(width, window_w, call.i("stride_w"), call.i("pad_left"), call.i("pad_right"), "width")
    return rows, columns


def _effective(call: OpCall, taps_h: int, taps_w: int) -> tuple[int, int]:
    for name in ("dilation_h", "dilation_w"):
        need(1 <= call.i(name) <= MAX_ATTRIBUTE, f"{name} must be at least 1, got {call.i(name)}")
    return (taps_h - 1) * call.i("dilation_h") + 1, (taps_w - 1) * call.i("dilation_w") + 1


def _conv_halo(call: OpCall) -> Halo:
    """The halo the windows really reach: padding after the last window is not read."""
    height, width, _ = call.inputs[0].hwc
    taps_h, taps_w = _taps(call)
    window_h, window_w = _effective(call, taps_h, taps_w)
    rows, columns = _window_shape(call, window_h, window_w)
    bottom = (rows - 1) * call.i("stride_h") + window_h - call.i("pad_top") - height
    right = (columns - 1) * call.i("stride_w") + window_w - call.i("pad_left") - width
    return Halo(call.i("pad_top"), max(0, bottom), call.i("pad_left"), max(0, right))


def _taps(call: OpCall) -> tuple[int, int]:
    shape = call.constants["filter"].shape
    return (shape[1], shape[2]) if len(shape) == 4 else (shape[0], shape[1])


# -- convolutions --------------------------------------------------------------------------------------------------------------

FILTER_CONSTANTS = ("filter", "scale", "bias", "threshold")
RESIDUAL_CONSTANTS = ("filter", "scale", "bias", "slope", "mul", "add", "sign_mul", "sign_add")


def _check_epilogue(call: OpCall, channels: int) -> None:
    """Scale, bias, threshold and their like fit `channels` outputs. Which must be there follows from the encodings (`check`)."""
    for role, constant in call.constants.items():
        encoding = I32 if role == "threshold" else F32
        if role != "filter":
            need(constant == ConstantType(encoding, (channels,)), f"{role} must be {channels} x {encoding.name.lower()}")
    if call.constants["filter"].encoding is F32:
        need("scale" not in call.constants, "a float32 filter takes no scale")
    _check_activation(call, FUSED_ACTIVATIONS)


def _check_accumulator(call: OpCall, terms: int) -> None:
    largest = {BITS: 1, U8: 255 * 128, I8: 255 * 128}.get(call.inputs[0].encoding, 0)
    need(terms * largest <= MAX_ACCUMULATOR, f"{terms} products may overflow the 32-bit accumulator")


def _check_pad_ones(call: OpCall) -> None:
    need(call.i("pad_ones") in (0, 1), "pad_ones must be 0 or 1")
    need(not call.i("pad_ones") or call.inputs[0].encoding is BITS, "pad_ones needs a packed input")


def _conv2d_shape(call: OpCall) -> tuple[int, ...]:
    channels_out, taps_h, taps_w, depth = _filter_shape(call, rank=4)
    groups, channels = call.i("groups"), call.inputs[0].hwc[2]
    need(1 <= groups <= channels and channels % groups == 0, f"groups {groups} must divide the {channels} input channels")
    need(channels_out % groups == 0, f"groups {groups} must divide the {channels_out} output channels")
    need(depth == channels // groups, f"filter depth is {depth}, expected {channels // groups}")
    _check_pad_ones(call)
    _check_epilogue(call, channels_out)
    _check_accumulator(call, taps_h * taps_w * depth)
    rows, columns = _window_shape(call, *_effective(call, taps_h, taps_w))
    return rows, columns, channels_out


def _residual_conv_shape(call: OpCall) -> tuple[int, ...]:
    shape = _conv2d_shape(call)
    need(call.i("relu_after") in (0, 1), "relu_after must be 0 or 1")
    need("slope" not in call.constants or call.i("activation") == Activation.NONE, "slope takes the place of an activation")
    for other in call.inputs[1:]:
        need(other.encoding is F32 and other.hwc == hwc(shape), f"the second input must be {shape} float32, got {other}")
    return shape


def _depthwise_shape(call: OpCall) -> tuple[int, ...]:
    taps_h, taps_w, channels_out = _filter_shape(call, rank=3)
    channels = call.inputs[0].hwc[2]
    need(channels_out % channels == 0, f"{channels_out} filters are no multiple of the {channels} channels")
    need(call.i("groups") == channels, f"groups must be the {channels} channels, got {call.i('groups')}")
    _check_pad_ones(call)
    _check_epilogue(call, channels_out)
    _check_accumulator(call, taps_h * taps_w)
    rows, columns = _window_shape(call, *_effective(call, taps_h, taps_w))
    return rows, columns, channels_out


def _dense_shape(call: OpCall) -> tuple[int, ...]:
    channels_out, *window = _filter_shape(call, rank=4)
    need(tuple(window) == call.inputs[0].hwc, f"filter covers {tuple(window)}, the input is {call.inputs[0].hwc}")
    _check_epilogue(call, channels_out)
    _check_accumulator(call, math.prod(window))
    return (channels_out,)


def _filter_shape(call: OpCall, *, rank: int) -> tuple[int, ...]:
    shape = call.constants["filter"].shape
    need(len(shape) == rank and min(shape) >= 1, f"filter must have {rank} axes of at least 1, got {shape}")
    return shape


def _prelu_shape(call: OpCall) -> tuple[int, ...]:
    need("slope" in call.constants, "prelu needs a slope")
    return _channelwise_shape(call)


def _conv_macs(call: OpCall, shape: tuple[int, ...]) -> int:
    per_output = math.prod(call.constants["filter"].shape) // (shape[-1] or 1)
    return math.prod(shape) * per_output


_FLOAT_FILTERS = {(F32, F32, F32), (F32, Encoding.FLOAT16, F32), (F32, I8, F32), (F32, BITS, F32)}
_INT8_FILTERS = {(I8, I8, I8), (I8, I8, F32), (I8, I8, BITS), (U8, I8, F32), (U8, I8, BITS), (U8, I8, I8)}
_SIGN_FILTERS = {(source, BITS, output) for source in (I8, U8) for output in (I8, F32, BITS)}
_PACKED = {(BITS, BITS, F32), (BITS, BITS, BITS), (BITS, BITS, I8)}
_NARROW_FILTERS = {(source, few, output) for source, stored, output in _FLOAT_FILTERS | _INT8_FILTERS if stored is I8 for few in NARROW}
_CONV_SIGNATURES = frozenset(_FLOAT_FILTERS | _INT8_FILTERS | _NARROW_FILTERS | _SIGN_FILTERS | _PACKED)
_RESIDUAL_SIGNATURES = frozenset((source, stored, output) for source, stored, _ in _CONV_SIGNATURES for output in (F32, BITS))
_DEPTHWISE_SIGNATURES = frozenset(_FLOAT_FILTERS | _PACKED | {(I8, I8, I8), (I8, I8, F32), (U8, I8, F32), (U8, I8, I8)})


# -- the rest ------------------------------------------------------------------------------------------------------------------


def _pool_shape(call: OpCall) -> tuple[int, ...]:
    window_h, window_w = call.i("window_h"), call.i("window_w")
    need(1 <= window_h <= MAX_ATTRIBUTE and 1 <= window_w <= MAX_ATTRIBUTE, "a window is at least 1 x 1")
    need(
        max(call.i("pad_top"), call.i("pad_bottom")) < window_h and max(call.i("pad_left"), call.i("pad_right")) < window_w,
        "padding must be narrower than the window, or a window would hold no pixel",
    )
    height, width, channels = call.inputs[0].hwc
    _check_accumulator(call, min(window_h, height) * min(window_w, width))
    flip = call.constants.get("flip")
    if flip is not None:
        need(flip == ConstantType(BITS, (channels,)), f"flip must be {channels} bits")
        need(call.inputs[0].encoding is BITS, "flip needs a packed input")
    rows, columns = _window_shape(call, window_h, window_w)
    return rows, columns, channels


def _magnitude_shape(call: OpCall) -> tuple[int, ...]:
    rows, columns, _ = _pool_shape(call)
    return rows, columns, 1


def _channelwise_shape(call: OpCall) -> tuple[int, ...]:
    channels = call.inputs[0].shape[-1]
    for role, constant in call.constants.items():
        need(constant == ConstantType(F32, (channels,)), f"{role} must be {channels} x float32")
    if "activation" in call.attrs:
        _check_activation(call, FUSED_ACTIVATIONS)
    return call.inputs[0].shape


def _same_shape(call: OpCall) -> tuple[int, ...]:
    if "activation" in call.attrs:
        _check_activation(call, frozenset(Activation))
    return call.inputs[0].shape


def _add_shape(call: OpCall) -> tuple[int, ...]:
    first, second = call.inputs
    need(first.shape == second.shape, f"shapes differ: {first.shape} and {second.shape}")
    need(first.encoding == second.encoding, "encodings differ")
    _check_activation(call, FUSED_ACTIVATIONS)
    return first.shape


def _concat_shape(call: OpCall) -> tuple[int, ...]:
    first = call.inputs[0]
    for other in call.inputs[1:]:
        need(other.shape[:-1] == first.shape[:-1], f"shapes {first.shape} and {other.shape} differ beside the channels")
        same = (other.encoding, other.scale, other.zero_point) == (first.encoding, first.scale, first.zero_point)
        need(same, "encodings or quantization differ")
    if first.encoding is BITS:
        need(all(t.shape[-1] % 8 == 0 for t in call.inputs[:-1]), "packed channels before the last must be a multiple of 8")
    return (*first.shape[:-1], sum(t.shape[-1] for t in call.inputs))


def _reshape_shape(call: OpCall) -> tuple[int, ...]:
    shape = tuple(call.i(f"size_{axis}") for axis in range(3))[: call.i("rank")]
    need(1 <= len(shape) == call.i("rank") and min(shape) >= 1, f"{shape} is no shape of rank {call.i('rank')}")
    need(math.prod(shape) == call.inputs[0].elements, f"{call.inputs[0].shape} has not as many values as {shape}")
    return shape


def _pad_shape(call: OpCall) -> tuple[int, ...]:
    height, width, channels = call.inputs[0].hwc
    pads = [call.i(name) for name in ("pad_top", "pad_bottom", "pad_left", "pad_right")]
    need(min(pads) >= 0 and max(pads) <= MAX_ATTRIBUTE, "padding must not be negative")
    need(math.isfinite(call.attrs["value"]), "the padding value must be finite")
    return height + pads[0] + pads[1], width + pads[2] + pads[3], channels


def _same_encoding(*encodings: Encoding) -> frozenset[tuple[Encoding, Encoding | None, Encoding]]:
    return frozenset((e, None, e) for e in encodings)


_TABLE = (
    OpDef("conv2d", 1, _conv2d_shape, _CONV_SIGNATURES, constants=FILTER_CONSTANTS, attrs=CONV_ATTRS, halo=_conv_halo, macs=_conv_macs),
    OpDef("depthwise_conv2d", 2, _depthwise_shape, _DEPTHWISE_SIGNATURES, constants=FILTER_CONSTANTS, attrs=CONV_ATTRS,
          halo=_conv_halo, macs=_conv_macs),
    OpDef("dense", 3, _dense_shape, _CONV_SIGNATURES, constants=FILTER_CONSTANTS, attrs=ACTIVATION_ATTRS, macs=_conv_macs),
    OpDef("max_pool2d", 4, _pool_shape, _same_encoding(F32, I8, U8, BITS), constants=("flip",), attrs=POOL_ATTRS),
    OpDef("average_pool2d", 5, _pool_shape, _same_encoding(F32, I8), attrs=POOL_ATTRS),
    OpDef("affine", 6, _channelwise_shape, frozenset({(F32, None, F32), (U8, None, F32)}), constants=("mul", "add"),
          attrs=ACTIVATION_ATTRS, in_place=0),
    OpDef("activation", 7, _same_shape, _same_encoding(F32), attrs=ACTIVATION_ATTRS, in_place=0),
    OpDef("softmax", 8, _same_shape, _same_encoding(F32), in_place=0),
    OpDef("binarize", 9, _channelwise_shape, frozenset({(F32, None, BITS)}), constants=("mul", "add")),
    OpDef("unpack", 10, _same_shape, frozenset({(BITS, None, F32)})),
    OpDef("quantize", 11, _same_shape, frozenset({(F32, None, I8), (U8, None, I8)})),
    OpDef("dequantize", 12, _same_shape, frozenset({(I8, None, F32), (U8, None, F32)})),
    OpDef("add", 13, _add_shape, _same_encoding(F32, I8), inputs=(2, 2), attrs=ACTIVATION_ATTRS, in_place=0),
    OpDef("concat", 14, _concat_shape, _same_encoding(F32, I8, BITS), inputs=(1, 1024)),
    OpDef("reshape", 15, _reshape_shape, _same_encoding(F32, I8, U8), attrs=("rank", "size_0", "size_1", "size_2"), in_place=0),
    OpDef("pad2d", 16, _pad_shape, _same_encoding(F32, I8, U8), attrs=("pad_top", "pad_bottom", "pad_left", "pad_right", "value")),
    OpDef("residual_conv2d", 17, _residual_conv_shape, _RESIDUAL_SIGNATURES, inputs=(1, 2), constants=RESIDUAL_CONSTANTS,
          attrs=(*CONV_ATTRS, "relu_after"), halo=_conv_halo, macs=_conv_macs, gives_signs=True, in_place=1, since=1),
    OpDef("prelu", 18, _prelu_shape, _same_encoding(F32), constants=("slope",), in_place=0, since=1),
    OpDef("magnitude_map", 19, _magnitude_shape, _same_encoding(F32), attrs=POOL_ATTRS, since=1),
    OpDef("multiply", 20, op_shapes.pairwise, _same_encoding(F32), inputs=(2, 2), in_place=0, since=1),
    OpDef("slice", 21, op_shapes.cut, _same_encoding(F32, I8, U8, BITS), attrs=op_shapes.SLICE_ATTRS, since=2),
    OpDef("resize_nearest", 22, op_shapes.resized, _same_encoding(F32, I8, U8, BITS), attrs=("size_h", "size_w"), since=2),
    OpDef("resize_bilinear", 23, op_shapes.resized, _same_encoding(F32), attrs=("size_h", "size_w"), since=2),
    OpDef("transpose", 24, op_shapes.transposed, _same_encoding(F32, I8, U8), attrs=("axis_0", "axis_1", "axis_2"), since=2),
    OpDef("depth_to_space", 25, op_shapes.interleaved, _same_encoding(F32, I8, BITS), attrs=("block_h", "block_w"), since=2),
    OpDef("subtract", 26, op_shapes.pairwise, _same_encoding(F32), inputs=(2, 2), in_place=0, since=2),
    OpDef("divide", 27, op_shapes.pairwise, _same_encoding(F32), inputs=(2, 2), in_place=0, since=2),
    OpDef("maximum", 28, op_shapes.pairwise, _same_encoding(F32), inputs=(2, 2), in_place=0, since=2),
    OpDef("minimum", 29, op_shapes.pairwise, _same_encoding(F32), inputs=(2, 2), in_place=0, since=2),
    OpDef("layer_norm", 30, op_shapes.normalized, _same_encoding(F32), constants=("mul", "add"), attrs=("epsilon",),
          floats=frozenset({"epsilon"}), in_place=0, since=2),
    OpDef("local_response_norm", 31, op_shapes.local_response, _same_encoding(F32), attrs=("radius", "bias", "alpha", "beta"),
          floats=frozenset({"bias", "alpha", "beta"}), since=2),
    OpDef("embedding", 32, op_shapes.embedded, _same_encoding(F32), constants=("table",), since=2),
    OpDef("log_softmax", 33, _same_shape, _same_encoding(F32), in_place=0, since=2),
)  # fmt: skip

OPS: Mapping[str, OpDef] = {op.name: op for op in _TABLE}
BY_NUMBER: Mapping[int, OpDef] = {op.number: op for op in _TABLE}

NO_ACTIVATION: Mapping[str, int | float] = {"activation": int(Activation.NONE), "alpha": 0.0, "limit": math.inf}


_SINCE: Mapping[Encoding, int] = {**dict.fromkeys(NARROW, 3), Encoding.FLOAT16: 4}  # of encodings


def needed_minor(op: OpDef, attrs: Mapping[str, int | float], encodings: Iterable[Encoding] = ()) -> int:
    """The minor version of the file format that knows an operation with these attributes and encodings of constants first."""
    since = max((_SINCE.get(encoding, 0) for encoding in encodings), default=0)
    return max(op.since, 2 if attrs.get("activation", 0) >= _FIRST_OF_MINOR_2 else 0, since)
