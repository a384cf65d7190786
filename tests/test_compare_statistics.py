"""Intervals of shares and paired differences, and the random numbers that are the same everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import noise
from edge.compare_statistics import mcnemar, paired_difference, share
from edge.tensors import Encoding, TensorType

# -- intervals -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals_of_wilson(count: int, total: int, low: float, high: float) -> None:
    found = share(count, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 5000), st.data())
def test_an_interval_holds_its_share_and_mirrors(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    found, mirrored = share(count, total), share(total - count, total)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high) and found.high == pytest.approx(1 - mirrored.low)
    assert share(2 * count, 2 * total).high - share(2 * count, 2 * total).low <= found.high - found.low


def test_95_of_100_intervals_hold_the_true_share() -> None:
    random = np.random.default_rng(0)
    held = [(found := share(int(count), 200)).low <= 0.9 <= found.high for count in random.binomial(200, 0.9, 4000)]
    assert 0.93 < np.mean(held) < 0.97


def test_95_of_100_paired_intervals_hold_the_true_difference() -> None:
    random = np.random.default_rng(0)
    draws = random.multinomial(300, [0.03, 0.05, 0.92], 4000)
    held = [(found := paired_difference(int(gained), int(lost), 300)).low <= -0.02 <= found.high for gained, lost, _ in draws]
    assert 0.93 < np.mean(held) < 0.98


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_a_fair_coin(gained: int, lost: int) -> None:
    total = gained + lost
    chance = [math.comb(total, k) / 2**total for k in range(total + 1)]
    tails = sum(chance[k] for k in range(total + 1) if abs(k - total / 2) >= abs(gained - total / 2) - 1e-9)
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(min(1.0, tails))


def test_many_differences_stay_finite() -> None:
    assert 0 <= mcnemar(40_000, 10_000) < 1e-300 and mcnemar(5000, 5000) == 1.0


# -- noise ---------------------------------------------------------------------------------------------------------------------


def test_noise_is_what_it_always_was() -> None:
    """Certificates hold what came of these numbers: they must never change."""
    assert noise.words(0, 0, 2).tolist() == [2558736989570252433, 4764156602392020899]
    assert noise.words(noise.MAX_SEED, 1 << 40, 1).tolist() == [13838645418549836948]
    assert noise.levels(1, 2, (5,)).tolist() == [230, 13, 139, 106, 195]
    assert noise.signs(0, 0, 8).tolist() == [1, 1, -1, -1, 1, -1, 1, 1]
    assert noise.between(-1, 1, 3, 0, (2,)).tolist() == [np.float32(-0.3403561), np.float32(0.38293624)]


def mixed(x: int) -> int:
    """splitmix64 as published, on whole numbers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@given(st.integers(0, noise.MAX_SEED), st.integers(0, noise.MAX_SEED), st.integers(1, 9))
def test_noise_is_splitmix64_of_a_counter(seed: int, stream: int, count: int) -> None:
    start = mixed((mixed(seed) + stream) % 2**64)
    assert noise.words(seed, stream, count).tolist() == [mixed((start + i) % 2**64) for i in range(count)]


def test_streams_and_seeds_are_apart() -> None:
    found = [noise.levels(seed, stream, (64,)).tobytes() for seed in range(8) for stream in range(8)]
    assert len(set(found)) == len(found)


@given(st.floats(-1e6, 1e6, width=32), st.floats(0.125, 1e6, width=32), st.integers(1, 40))
def test_noise_stays_within_its_bounds(low: float, span: float, rows: int) -> None:
    values = noise.between(low, low + span, 1, 2, (50,))
    assert values.dtype == np.float32 and (values >= np.float32(low)).all() and (values <= np.float32(low + span)).all()
    numbers = noise.whole(rows, 3, 4, (50,))
    assert (numbers == np.floor(numbers)).all() and numbers.min() >= 0 and numbers.max() < rows


def test_inputs_are_noise_as_the_network_takes_it() -> None:
    pixels = noise.network_input(TensorType((4, 4, 3), Encoding.UINT8), (-1.0, 1.0), 0, 0)
    scaled = noise.network_input(TensorType((4, 4, 3)), (-1.0, 1.0), 0, 0)
    assert pixels.dtype == np.uint8 and np.allclose(scaled, pixels / 127.5 - 1, atol=1e-6)
    assert noise.network_input(TensorType((8,)), (0.0, 1.0), 0, 0, rows=3).max() <= 2
