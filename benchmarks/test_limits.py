"""The machine's limits: arithmetic on registers, and reading memory. Everything else in the report is seen against them."""

from __future__ import annotations

from typing import Any

import bench_probes
import numpy as np
import pytest
from bench_rows import ARITHMETICS, EDGE, LIMITS, MEMORIES

from edge.kernels.isa import detect

LEAST_BINARY = 1.1e12  # a second, on a core with VPOPCNTDQ at its full clock; a probe below it is a wrong probe, or the clock is low


@pytest.mark.quick
@pytest.mark.parametrize("name", ARITHMETICS)
def test_arithmetic_on_registers(bench: Any, name: str) -> None:
    probe = bench_probes.arithmetic(name, detect())
    before = probe.arena.copy()
    probe.call()
    assert not np.array_equal(probe.arena, before), "the probe computes nothing"
    row = bench.row(LIMITS, "registers", name, {EDGE: probe.call}, work={name: probe.work})
    if name == "binary" and detect().isa.name == "avx512vpopcnt" and row.rate < LEAST_BINARY:
        print(f"\nthe binary probe reached {row.rate / 1e9:,.0f} G a second, not {LEAST_BINARY / 1e9:,.0f}: is this the full clock?")


@pytest.mark.parametrize("name", MEMORIES)
def test_reading_memory(bench: Any, name: str) -> None:
    probe = bench_probes.memory(name, detect())
    expected = probe.arena.view(np.int64).reshape(-1, 8).sum(axis=0)
    probe.call()
    assert np.array_equal(probe.arena[:64].view(np.int64), expected) or detect().isa.vector_bytes != 64, "the probe reads not all"
    bench.row(LIMITS, "memory", name, {EDGE: probe.call}, work={name: probe.work})
