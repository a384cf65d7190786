"""The widths that commands offer: one table for all of them."""

from __future__ import annotations

import pytest
from click import Choice

from edge.cli_bench import bench
from edge.cli_convert import convert
from edge.cli_profile import profile
from edge.converters.bits import Request
from edge.errors import InputError
from edge.widths import CHOICES, TERNARY, WIDTHS, described, width


@pytest.mark.parametrize("command", [bench, convert, profile], ids=lambda command: str(command.name))
def test_every_command_offers_them_all(command: object) -> None:
    (option,) = (each for each in command.params if "--bits" in each.opts)  # type: ignore[attr-defined]
    assert isinstance(option.type, Choice) and option.type.choices == CHOICES


def test_widths_are_numbers_or_a_word() -> None:
    assert [width(text) for text in CHOICES] == list(WIDTHS)
    assert described(32) == "float32" and described(4) == "4-bit" and described(TERNARY) == "ternary"


@pytest.mark.parametrize("bits", WIDTHS)
def test_conversions_know_each_and_no_other(bits: int | str) -> None:
    assert Request(bits).bits == bits
    with pytest.raises(InputError, match="bits should be one of 1, 2, ternary"):
        Request(3, layers=(("x", bits),))
