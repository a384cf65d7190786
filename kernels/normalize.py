"""Normalizing over channels: lowering (the code is `edge.kernels.normalize_code`). A chunk is a pixel, as in `edge.kernels.elementwise`."""

from __future__ import annotations

from edge.kernels.arguments import vector
from edge.kernels.elementwise import pixels
from edge.kernels.isa import Machine
from edge.kernels.registry import Code, Kernel, KernelFunction, Lowered, Lowering, float_bits
from edge.kernels.shapes import VALUES


def _lower_layer_norm(low: Lowering) -> Lowered:
    channels = low.output.channels
    constants = vector(low, "mul", 1.0, channels), vector(low, "add", 0.0, channels)
    args = (*pixels(low), *constants, float_bits(low.f("epsilon")), float_bits(1 / channels))
    return Lowered(Code("layer_norm", _build_layer_norm), args, work=8 * low.output.type.elements)


def _build_layer_norm(machine: Machine) -> KernelFunction:
    from edge.kernels import normalize_code

    return normalize_code.layer_norm_kernel()


def _lower_local_response(low: Lowering) -> Lowered:
    """Scratch holds the squares of a pixel between rows of zeros as wide as the radius."""
    radius, channels = low.i("radius"), low.output.channels
    args = (*pixels(low), radius, *(float_bits(low.f(name)) for name in ("bias", "alpha", "beta")))
    scratch_bytes = 4 * (2 * radius + -(-channels // VALUES) * VALUES + VALUES)
    return Lowered(
        Code("local_response_norm", _build_local_response), args, scratch_bytes, low.output.type.elements * (2 * radius + 16)
    )


def _build_local_response(machine: Machine) -> KernelFunction:
    from edge.kernels import normalize_code

    return normalize_code.local_response_kernel()


KERNELS = (
    Kernel("layer_norm", "layer_norm", lambda low: True, _lower_layer_norm),
    Kernel("local_response_norm", "local_response_norm", lambda low: True, _lower_local_response),
)
