"""What `edge bench` notes of the machine: its clock, temperature and throttling, the caches it flushes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge import bench_machine
from edge.bench import thread_counts
from edge.bench_machine import Clock, clock_now, clock_remarks, flush_bytes, throttled_flags

STEADY = Clock(spin_s=1e-4, frequency_hz=1.5e9, governor="performance", temperature_c=50.0, throttle_events=0, throttled=(), load=0.0)


def test_thread_counts_double_and_end_at_the_most() -> None:
    assert [thread_counts(most) for most in (1, 2, 4, 6)] == [(1,), (1, 2), (1, 2, 4), (1, 2, 4, 6)]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /sys, and no `vcgencmd`."""
    monkeypatch.setattr(bench_machine, "_SYSTEM", tmp_path)
    monkeypatch.setattr(bench_machine, "_vcgencmd", lambda: None)
    return tmp_path


def put(system: Path, path: str, text: str) -> None:
    file = system / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def test_the_clock_is_read_from_the_system(system: Path) -> None:
    for core, kilohertz in enumerate((1_500_000, 600_000)):
        put(system, f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", str(kilohertz))
        put(system, f"devices/system/cpu/cpu{core}/cpufreq/scaling_governor", "ondemand")
        put(system, f"devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", "3")
    put(system, "class/thermal/thermal_zone0/temp", "48312")
    put(system, "class/thermal/thermal_zone1/temp", "not a number")
    found = clock_now()
    assert (found.frequency_hz, found.governor, found.temperature_c, found.throttle_events) == (6e8, "ondemand", 48.312, 6)
    assert found.throttled is None and "throttling" not in found.missing and found.spin_s > 0


def test_what_the_system_does_not_tell_is_named(system: Path) -> None:
    assert set(clock_now().missing) - {"load"} == {"clock frequency", "governor", "temperature", "throttling"}


def test_caches_are_flushed_by_twice_the_largest(system: Path) -> None:
    unknown = flush_bytes()
    put(system, "devices/system/cpu/cpu0/cache/index0/size", "32K")
    put(system, "devices/system/cpu/cpu0/cache/index2/size", "1M")
    assert flush_bytes() == 2 << 20 < unknown
    put(system, "devices/system/cpu/cpu0/cache/index3/size", "9999M")
    assert flush_bytes() == 128 << 20


@pytest.mark.parametrize(
    ("answer", "flags"),
    [
        ("throttled=0x0\n", ()),
        ("throttled=0x50005", ("under-voltage", "throttled", "under-voltage since the start", "throttled since the start")),
        ("throttled=0x80000", ("soft temperature limit since the start",)),
        ("error=1 error_msg=\"Command not registered\"", None),
        ("", None),
    ],
)
def test_a_raspberry_pi_says_whether_it_is_throttled(answer: str, flags: tuple[str, ...] | None) -> None:
    assert throttled_flags(answer) == flags


def test_vcgencmd_is_asked_where_it_is(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, expected in (("echo throttled=0x2", ("clock capped",)), ("exit 1", None)):
        command = system / "vcgencmd"
        command.write_text(f"#!/bin/sh\n{code}\n")
        command.chmod(0o755)
        monkeypatch.setattr(bench_machine, "_vcgencmd", lambda command=command: str(command))
        assert clock_now().throttled == expected


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (STEADY, None),
        (replace(STEADY, spin_s=1.3e-4), "1.30 times as long after as before"),
        (replace(STEADY, throttle_events=2), "slowed for heat while measuring"),
        (replace(STEADY, throttled=("under-voltage",)), "reports under-voltage"),
        (replace(STEADY, governor="powersave"), "the governor is powersave"),
    ],
)
def test_remarks_say_what_the_clock_did(after: Clock, words: str | None) -> None:
    remarks = clock_remarks(STEADY, after)
    assert remarks == () if words is None else len(remarks) == 1 and words in remarks[0]
