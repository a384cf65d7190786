"""What a conversion offers, widths, dtypes and ways to find ranges: one table for its commands and for `edge.converters`."""

from __future__ import annotations

Bits = int | str
TERNARY = "ternary"

WIDTHS: tuple[Bits, ...] = (1, 2, TERNARY, 4, 8, 16, 32)
CHOICES = tuple(map(str, WIDTHS))  # on the command line
ACTIVATION_WIDTHS = (1, 2, 4, 8, 32)
INTEGERS = (2, 4, 8)  # of them, those that are int8 when run
MIN_MAX, PERCENTILE, MSE = RANGES = ("min-max", "percentile", "mse")  # `edge.converters.ranges`
DEFAULT_RANGES = MSE
INT8 = "int8"
INPUT_DTYPES = ("auto", "float32", "uint8", INT8)  # auto: floats, but bytes for the engine where pictures are whole numbers 0..255
OUTPUT_DTYPES = ("float32", INT8)


def width(text: str) -> Bits:
    """A width as it is written on the command line."""
    return int(text) if text.isdecimal() else text


def described(bits: Bits) -> str:
    """A width in words."""
    return {32: "float32", TERNARY: TERNARY}.get(bits, f"{bits}-bit")


def is_calibrated(bits: Bits) -> bool:
    """Whether weights of these bits go with int8 activations, whose ranges are measured, where nothing else is asked for."""
    return bits not in (1, 16, 32)
