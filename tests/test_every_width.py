"""Models of MLPerf Tiny, the example and a float LeNet at every width: each step takes fewer bytes, and no output is not a number."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from bit_widths import MODELS, Row, rows

from edge.widths import TERNARY


def hold(name: str, found: list[Row], *, trained_low: bool = False) -> None:
    for row in found:
        print(f"{name} at {row.bits}: {row.file_bytes:,} bytes, same class {row.same_class}, largest difference {row.difference:.3g}")
    assert all(row.finite for row in found)
    steps = [row.file_bytes for row in found if row.bits != TERNARY]
    for larger, smaller in itertools.pairwise(steps):
        assert smaller < larger or (trained_low and smaller == larger)
    by_bits = {row.bits: row.file_bytes for row in found}
    assert by_bits[TERNARY] <= by_bits[4]
    assert found[1].difference < 0.02  # 16 bits


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_width_takes_fewer_bytes_and_gives_numbers(name: str) -> None:
    if not MODELS[name].exists():
        pytest.skip(f"{MODELS[name].name} is not beside the repository")
    hold(name, rows(name, MODELS[name]), trained_low=name == "digits")


@pytest.mark.slow
def test_a_float_lenet_too(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras builds it")
    from edge import zoo

    zoo.build("lenet", "float").save(tmp_path / "lenet.keras")
    hold("lenet", rows("lenet", tmp_path / "lenet.keras"))
