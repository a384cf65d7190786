"""Random convolutions, depthwise and dense layers, with what may follow them: the generators whose kernels are specialised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from draws import BITS, FLOAT32, FUSED, INT8, Case, Draw, Signature, random_axis, window_attrs
from sample_programs import Builder

from edge.ops import Activation
from edge.tensors import FLOATS, Encoding

STEPS = {INT8: 75.0, Encoding.INT4: 5.0, Encoding.INT2: 1.2}  # the usual size of a filter's value


@dataclass(frozen=True)
class Fixed:
    """What a kernel's code is specialised for; cases that share it share the compiled code."""

    channels_out: int
    width_out: int
    activation: Activation
    steps: tuple[bool, ...]  # of residual_conv2d: PReLU, scaling, second input, ReLU after, signs, their scaling


def fixed(draw: Draw, signature: Signature) -> Fixed:
    activation = Activation.NONE if signature[2] is BITS else Activation(draw.one_of(*FUSED))
    return Fixed(draw.channels(), draw.integer(1, 9), activation, tuple(draw.chance(0.6) for _ in range(6)))


def _filter_constants(draw: Draw, shape: tuple[int, ...], channels: int, signature: Signature) -> dict[str, np.ndarray]:
    source, stored, output = signature
    assert stored is not None
    constants = {"filter": draw.builder.values(stored, shape)}
    terms = int(np.prod(shape)) // channels
    if output is BITS:
        spread = 1 + int(2 * np.sqrt(terms) * (1 if source is BITS else 9000))
        return constants | {"threshold": draw.random.integers(-spread, spread, channels).astype(np.int32)}
    if stored not in FLOATS:
        size = {BITS: 1.0, FLOAT32: 1.0}.get(source, 75.0) * STEPS.get(stored, 1.0) * np.sqrt(terms)
        constants["scale"] = (draw.random.normal(size=channels) * 3 / size).astype(np.float32)
    if draw.chance(0.8):
        constants["bias"] = draw.builder.vector(channels)
    return constants


def conv2d(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    given = given or fixed(draw, signature)
    taps = draw.integer(1, 4), draw.integer(1, 4)
    rows = random_axis(draw, draw.integer(1, 5), taps[0], dilation=draw.one_of(1, 1, 2))
    columns = random_axis(draw, given.width_out, taps[1], dilation=draw.one_of(1, 1, 2))
    groups = 2 if given.channels_out % 16 == 0 and draw.chance(0.3) else 1
    depth = draw.one_of(8, 16, 32, 64) if groups > 1 else draw.channels()
    constants = _filter_constants(draw, (given.channels_out, *taps, depth), given.channels_out, signature)
    kind = draw.kind((rows.size, columns.size, depth * groups), signature[0])
    pad_ones = draw.integer(0, 1) if signature[0] is BITS else 0
    return draw.finish(
        "conv2d", [kind], draw.kind((1,), signature[2]), constants,
        {
            **window_attrs(rows, columns), "dilation_h": rows.dilation, "dilation_w": columns.dilation,
            "groups": groups, "pad_ones": pad_ones, **draw.activation(given.activation),
        },
        special=False, stored=signature[1],
    )  # fmt: skip


def residual_conv2d(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    """A conv2d with a float32 output, and the steps after it. Where signs alone are stored all numbers are whole: none is rounded."""
    given = given or fixed(draw, signature)
    sloped, scaled, added, relu, packed, signs_scaled = given.steps
    plain = conv2d(draw, (signature[0], signature[1], FLOAT32), given)
    node, kind = plain.node, plain.output
    packed = packed and (node.attrs["groups"] == 1 or given.channels_out % 16 == 0)
    whole = signature[2] is BITS and signature[0] is FLOAT32
    floats = {role for role, array in node.constants.items() if np.issubdtype(array.dtype, np.floating)} if whole else set()
    constants = {role: np.rint(2 * array) if role in floats else array for role, array in node.constants.items()}

    def row(present: bool, *roles: str) -> dict[str, np.ndarray]:
        rows = {role: draw.builder.vector(given.channels_out) for role in roles if present}
        return {role: np.rint(array) if whole else array for role, array in rows.items()}

    constants |= row(sloped, "slope") | row(scaled, "mul", "add")
    constants |= row(signs_scaled and (packed or signature[2] is BITS), "sign_mul", "sign_add")
    attrs = {**node.attrs, "relu_after": int(relu)} | ({"activation": int(Activation.NONE)} if sloped or whole else {})
    kinds = [plain.graph.types[node.inputs[0]], *([kind] if added else [])]
    draw.builder = Builder(draw.integer(0, 1 << 30))
    made = draw.finish(
        "residual_conv2d", kinds, draw.kind((1,), signature[2]), constants, attrs,
        special=False, signs="signs" if packed and signature[2] is FLOAT32 else "", stored=signature[1],
    )  # fmt: skip
    return replace(made, inputs=tuple(np.rint(x) for x in made.inputs)) if whole else made


def depthwise_conv2d(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    given = given or fixed(draw, signature)
    taps = draw.integer(1, 4), draw.integer(1, 4)
    rows = random_axis(draw, draw.integer(1, 5), taps[0], dilation=draw.one_of(1, 1, 2))
    columns = random_axis(draw, given.width_out, taps[1], dilation=draw.one_of(1, 1, 2))
    multiplier = draw.one_of(1, 1, *(m for m in (2, 3, 5, 32) if given.channels_out % m == 0))
    channels = given.channels_out // multiplier
    constants = _filter_constants(draw, (*taps, given.channels_out), given.channels_out, signature)
    return draw.finish(
        "depthwise_conv2d", [draw.kind((rows.size, columns.size, channels), signature[0])], draw.kind((1,), signature[2]), constants,
        {
            **window_attrs(rows, columns), "dilation_h": rows.dilation, "dilation_w": columns.dilation,
            "groups": channels, "pad_ones": draw.integer(0, 1) if signature[0] is BITS else 0, **draw.activation(given.activation),
        },
        special=False,
    )  # fmt: skip


def dense(draw: Draw, signature: Signature, given: Fixed | None = None) -> Case:
    given = given or fixed(draw, signature)
    kind = draw.kind(draw.shape(), signature[0])
    constants = _filter_constants(draw, (given.channels_out, *kind.hwc), given.channels_out, signature)
    output = draw.kind((1,), signature[2])
    attrs = draw.activation(given.activation)
    return draw.finish("dense", [kind], output, constants, attrs, special=False, image_halos=False, stored=signature[1])
