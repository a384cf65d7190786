"""Proving one application of an operation: operands, shapes, encodings and constants that fit each other."""

from __future__ import annotations

import math

from edge.ops import BITS, F32, I8, MAX_ATTRIBUTE, MAX_ELEMENTS, U8, Activation, OpCall, OpDef, need
from edge.tensors import FLOATS, FOR_CONSTANTS, TensorType

KEEPS_QUANTIZATION = frozenset(
    ("max_pool2d", "average_pool2d", "reshape", "pad2d", "concat", "slice", "resize_nearest", "transpose", "depth_to_space")
)


def check(op: OpDef, call: OpCall, output: TensorType, signs: TensorType | None = None) -> None:
    """Prove that `call` with its outputs is an application of `op`; raises `OpError` with the reason if it is not."""
    _check_operands(op, call)
    for tensor in (*call.inputs, output):
        check_tensor(tensor)
    shape = op.shape(call)
    need(output.shape == shape or _same_image(op, output.shape, shape), f"output is {output.shape}, expected {shape}")
    _check_signature(op, call, output)
    _check_constants_present(op, call, output)
    if op.gives_signs:
        _check_signs(call, output, signs)
    need(signs is None or op.gives_signs, f"{op.name} gives one output")


def check_halo(op: OpDef, call: OpCall) -> None:
    """Prove that the first input has the halo the windows reach. Holds in programs; graphs know no halos."""
    need(call.inputs[0].halo.covers(op.halo(call)), f"input halo {call.inputs[0].halo} is narrower than {op.halo(call)}")


def infer(op: OpDef, call: OpCall) -> tuple[int, ...]:
    """The output's shape; raises `OpError` if the operands do not fit."""
    _check_operands(op, call)
    for tensor in call.inputs:
        check_tensor(tensor)
    return op.shape(call)


def _same_image(op: OpDef, got: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """A convolution or pool of a (W, C) or (C,) tensor may give its output without the leading axes of 1."""
    return len(got) < len(expected) and (1,) * (len(expected) - len(got)) + got == expected


def _check_operands(op: OpDef, call: OpCall) -> None:
    least, most = op.inputs
    need(least <= len(call.inputs) <= most, f"{op.name} takes {least} to {most} inputs, got {len(call.inputs)}")
    need(set(call.constants) <= set(op.constants), f"{op.name} has no constant {set(call.constants) - set(op.constants)}")
    need(set(call.attrs) == set(op.attrs), f"{op.name} needs the attributes {op.attrs}, got {tuple(call.attrs)}")
    need("filter" not in op.constants or "filter" in call.constants, f"{op.name} needs a filter")
    for role, constant in call.constants.items():
        need(math.prod(constant.shape) <= MAX_ELEMENTS and min(constant.shape, default=1) >= 1, f"{role} has an absurd shape")


def check_tensor(tensor: TensorType) -> None:
    """Prove that a tensor's shape, halo, size and quantization are within bounds; raises `OpError`."""
    need(1 <= len(tensor.shape) <= 3 and min(tensor.shape) >= 1, f"{tensor.shape} is no tensor shape")
    halo = (tensor.halo.top, tensor.halo.bottom, tensor.halo.left, tensor.halo.right)
    need(min(halo) >= 0 and max(halo) <= MAX_ATTRIBUTE, f"halo {halo} is out of range")
    need(max(tensor.shape) <= MAX_ELEMENTS and tensor.nbytes <= MAX_ELEMENTS, f"a tensor of {tensor.shape} is too large")
    need(tensor.encoding not in FOR_CONSTANTS, f"{tensor.encoding.name.lower()} is for constants")
    need(math.isfinite(tensor.scale) and 1e-30 < tensor.scale < 1e30, f"scale {tensor.scale} is out of range")
    low, high = {I8: (-128, 127), U8: (0, 255)}.get(tensor.encoding, (0, 0))
    need(low <= tensor.zero_point <= high, f"zero point {tensor.zero_point} is out of range")


def _check_signature(op: OpDef, call: OpCall, output: TensorType) -> None:
    stored = call.constants["filter"].encoding if "filter" in op.constants else None
    signature = (call.inputs[0].encoding, stored, output.encoding)
    names = ", ".join("-" if e is None else e.name.lower() for e in signature)
    need(signature in op.signatures, f"{op.name} does not exist for (input, filter, output) = ({names})")
    if op.name in KEEPS_QUANTIZATION:
        first = call.inputs[0]
        same = (first.scale, first.zero_point) == (output.scale, output.zero_point)
        need(same, f"{op.name} keeps the quantization of its input")


def _check_signs(call: OpCall, output: TensorType, signs: TensorType | None) -> None:
    """A second output belongs to a float32 one, and the constants of signs to an output of signs."""
    if signs is not None:
        check_tensor(signs)
        need(signs.encoding is BITS and output.encoding is F32, "the second output must be the bits of a float32 output")
        need(signs.shape == output.shape, f"the second output is {signs.shape}, expected {output.shape}")
    given = {"sign_mul", "sign_add"} & set(call.constants)
    need(not given or signs is not None or output.encoding is BITS, f"{sorted(given)} need an output of bits")


def _check_constants_present(op: OpDef, call: OpCall, output: TensorType) -> None:
    """Integer filters need a scale, or a threshold for packed outputs, and never both."""
    if "filter" in call.constants:
        packed = output.encoding is BITS and "threshold" in op.constants
        integer = call.constants["filter"].encoding not in FLOATS
        need(("threshold" in call.constants) == packed, "a threshold belongs to packed outputs, and to those alone")
        need(("scale" in call.constants) == (integer and not packed), "a scale belongs to integer filters without threshold")
        need(not packed or "bias" not in call.constants, "a packed output takes no bias")
        need(not packed or call.i("activation") == Activation.NONE, "a packed output takes no activation")
