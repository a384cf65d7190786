"""The machine that figures were taken on: what it is, and the state of its clock before and after. No name of it or of its user.

What the system does not tell is None, and `Clock.missing` says so. Needs no package but edge's own.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("edge-lowbit", "numpy", "numba", "llvmlite", "ai-edge-litert", "tflite-runtime", "tensorflow-cpu", "tensorflow")
NOTABLE_CLOCK = 1.05  # a smaller change of the spin is noise
_SYSTEM = Path("/sys")
_PROCESSOR_NAMES = (Path("/proc/device-tree/model"), Path("/proc/cpuinfo"))
_SPIN_STEPS = 20_000
_SPIN_SECONDS, _LEAST_SPINS = 0.05, 5
_COMMAND_SECONDS = 5
_LARGEST_FLUSH_BYTES = 128 << 20
_UNKNOWN_CACHE_BYTES = 16 << 20

# The bits of `vcgencmd get_throttled`: what is now; 16 higher: what has been since the start.
_THROTTLED = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


# -- what it is ----------------------------------------------------------------------------------------------------------------


def processor_name() -> str:
    """The board's or the processor's own name, where the system tells it."""
    board, processors = _PROCESSOR_NAMES
    names = [line.split(":", 1)[1].strip() for line in _text(processors).splitlines() if line.startswith("model name")]
    return next((name for name in (_text(board).rstrip("\0"), *names) if name), platform.processor() or "unknown processor")


def versions() -> dict[str, str]:
    """Of Python and of the packages that figures depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def flush_bytes() -> int:
    """How many bytes to write so that nothing of before is left in the caches: twice the largest cache."""
    sizes = [_bytes(_text(path)) for path in _SYSTEM.glob("devices/system/cpu/cpu0/cache/index*/size")]
    return min(_LARGEST_FLUSH_BYTES, 2 * max(sizes, default=0) or _UNKNOWN_CACHE_BYTES)


def _bytes(size: str) -> int:
    """"512K" in bytes; 0 for what is no size."""
    number, unit = size.strip()[:-1], size.strip()[-1:]
    return int(number) * {"K": 1 << 10, "M": 1 << 20}.get(unit, 0) if number.isdigit() else 0


# -- its clock -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """The state of a machine's clock at one moment.

    spin_s: seconds of `spin`, the shortest of many: how fast this core is now, whatever the system says.
    frequency_hz, governor: of the cores, the slowest one and the first; temperature_c: the hottest sensor.
    throttle_events: how often cores were slowed for heat since the machine started (x86).
    throttled: what a Raspberry Pi says of itself (`vcgencmd get_throttled`): nothing is an empty tuple.
    load: average of runnable processes of the last minute.
    """

    spin_s: float
    frequency_hz: float | None
    governor: str | None
    temperature_c: float | None
    throttle_events: int | None
    throttled: tuple[str, ...] | None
    load: float | None

    @property
    def missing(self) -> tuple[str, ...]:
        """What this system does not tell, in words."""
        told = {
            "clock frequency": self.frequency_hz,
            "governor": self.governor,
            "temperature": self.temperature_c,
            "throttling": self.throttled if self.throttle_events is None else self.throttle_events,
            "load": self.load,
        }
        return tuple(name for name, value in told.items() if value is None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def clock_now() -> Clock:
    """The state of the clock; takes about 50 ms, most of it the spin."""
    processors = _SYSTEM / "devices/system/cpu"
    frequencies = _numbers(processors.glob("cpu*/cpufreq/scaling_cur_freq"))
    temperatures = _numbers((_SYSTEM / "class/thermal").glob("thermal_zone*/temp"))
    events = _numbers(processors.glob("cpu*/thermal_throttle/core_throttle_count"))
    governors = [_text(path).strip() for path in sorted(processors.glob("cpu*/cpufreq/scaling_governor"))]
    return Clock(
        spin_s=_spin_s(),
        frequency_hz=1000.0 * min(frequencies) if frequencies else None,
        governor=next(filter(None, governors), None),
        temperature_c=max(temperatures) / 1000 if temperatures else None,
        throttle_events=sum(events) if events else None,
        throttled=_throttled(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def spin() -> None:
    """A fixed loop of Python: its time is inversely proportional to the clock, for one version of Python on one processor."""
    for _ in range(_SPIN_STEPS):
        pass


def _spin_s() -> float:
    """Seconds of `spin`, the shortest of some."""
    found: list[float] = []
    end = time.perf_counter() + _SPIN_SECONDS
    while len(found) < _LEAST_SPINS or time.perf_counter() < end:
        started = time.perf_counter()
        spin()
        found.append(time.perf_counter() - started)
    return min(found)


def _throttled() -> tuple[str, ...] | None:
    """What a Raspberry Pi's firmware says; None elsewhere."""
    command = _vcgencmd()
    if command is None:
        return None
    try:
        done = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # installed, but not allowed or not a Pi
        return None
    return throttled_flags(done.stdout)


@functools.cache
def _vcgencmd() -> str | None:
    return shutil.which("vcgencmd")


def throttled_flags(answer: str) -> tuple[str, ...] | None:
    """The flags of an answer such as "throttled=0x50005", those of now and those since the start; None for another answer."""
    name, _, value = answer.strip().partition("=")
    try:
        bits = int(value, 16)
    except ValueError:
        return None
    if name != "throttled":
        return None
    now = [flag for bit, flag in _THROTTLED.items() if bits >> bit & 1]
    before = [f"{flag} since the start" for bit, flag in _THROTTLED.items() if bits >> (bit + 16) & 1]
    return (*now, *before)


def clock_remarks(before: Clock, after: Clock) -> tuple[str, ...]:
    """What happened to the clock between two moments that figures may have suffered from; one sentence each, none where all is well."""
    remarks = []
    times = after.spin_s / before.spin_s
    if not 1 / NOTABLE_CLOCK <= times <= NOTABLE_CLOCK:
        remarks.append(f"the clock changed while measuring: a fixed loop took {times:.2f} times as long after as before; ratios hold")
    if (after.throttle_events or 0) > (before.throttle_events or 0):
        remarks.append("the processor was slowed for heat while measuring; cool it, and measure again")
    if after.throttled:
        remarks.append(f"the Raspberry Pi reports {', '.join(after.throttled)}; check its power supply and its cooling")
    if after.governor not in (None, "performance"):
        remarks.append(f"the governor is {after.governor}: short runs may see a lower clock; performance keeps it steady")
    if before.load is not None and before.load > max(1.0, (os.cpu_count() or 1) / 2):
        remarks.append(f"the machine was busy (load {before.load:.1f}) before measuring; ratios hold, times may be long")
    return tuple(remarks)


def _numbers(paths: Any) -> list[int]:
    return [int(text) for text in (_text(path).strip() for path in paths) if text.lstrip("-").isdigit()]


def _text(path: Path) -> str:
    """What a file of the system says; nothing where it cannot be read, as some can't."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
