"""What `edge verify` makes of the errors of a layer of 8 bits: how many values may be far, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest

from edge.compare_layers import EIGHT_BITS, Piece, Tally
from edge.tensors import Encoding


@pytest.mark.parametrize("wrong", [0, 2, 3])
def test_of_8_bits_one_value_in_a_thousand_may_be_far(wrong: int) -> None:
    found = Tally(Piece(0, (), (), (), EIGHT_BITS))
    want = np.full((2, 1000), 1.0, np.float32)
    got = want.copy()
    got[0, :wrong] = 1.5
    for example in zip(got, want, strict=True):
        found.add(*example, None)
    layer = found.compared("t", (), Encoding.INT8)
    assert (layer.beyond, layer.equal) == (wrong, wrong <= 2)


def test_what_is_no_number_is_never_excused() -> None:
    found = Tally(Piece(0, (), (), (), EIGHT_BITS))
    got = np.ones(10_000, np.float32)
    got[0] = np.nan
    found.add(got, np.ones(10_000, np.float32), None)
    assert not found.compared("t", (), Encoding.INT8).equal


def test_many_far_values_are_counted_and_not_kept() -> None:
    found = Tally(Piece(0, (), (), (), EIGHT_BITS))
    for _ in range(20):
        found.add(np.full(10_000, 2.0, np.float32), np.ones(10_000, np.float32), None)
    assert found.far.size < 1 << 16
    layer = found.compared("t", (), Encoding.INT8)
    assert layer.beyond == 200_000 and not layer.equal


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_far_is_by_the_largest_value_of_all_examples(order: tuple[int, int]) -> None:
    found = Tally(Piece(0, (), (), (), EIGHT_BITS))
    examples = [(np.full(50, 1.5, np.float32), np.ones(50, np.float32)), (np.full(50, 10.0, np.float32), np.full(50, 10.0, np.float32))]
    for number in order:
        found.add(*examples[number], None)
    assert found.compared("t", (), Encoding.INT8).beyond == 0
    found.add(np.full(1, np.nan, np.float32), np.ones(1, np.float32), None)
    assert found.compared("t", (), Encoding.INT8).beyond == 1
