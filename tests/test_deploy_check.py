"""What `edge deploy` finds wrong with a device before it writes anything there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from raspberry_pi import BOARDS

from edge.deploy import device_of
from edge.deploy_check import GLIBC_OF_NUMBA, MARK, Facts, Needs, read_facts, require
from edge.errors import EdgeError

GOOD = Facts("Linux", "aarch64", "Raspberry Pi 4 Model B Rev 1.4", "3.11.2", 64, "2.36", True, 1 << 40, "/home/pi", True)
NEEDS = Needs("aarch64", wheels=False, numba=False, system=False)
WRONG: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "not Linux": ({"system": "Darwin"}, {}, "expected Linux, got Darwin"),
    "silent": ({"system": ""}, {}, "a shell that does not answer"),
    "32 bits": ({"machine": "armv7l", "python_bits": 32}, {}, "expected a 64-bit system, got one of 32 bits (armv7l); flash"),
    "32 bits on a 64-bit kernel": ({"python_bits": 32}, {}, "although its kernel has 64 (aarch64)"),
    "32 bits of Intel": ({"machine": "i686"}, {}, "32 bits"),
    "another processor": ({"machine": "x86_64"}, {}, "the target's processor is aarch64, and this one is x86_64"),
    "no Python": ({"python": ""}, {}, "python3 is missing there; run on the device: sudo apt install"),
    "an old Python": ({"python": "3.9.2"}, {}, "expected Python 3.11 or newer, got 3.9.2"),
    "a strange Python": ({"python": "?"}, {}, "expected Python 3.11 or newer, got ?"),
    "no venv": ({"ensurepip": False}, {}, "sudo apt install python3-venv, or deploy with --offline"),
    "an old glibc for Numba": ({"glibc": "2.31"}, {"numba": True}, "expected glibc 2.34 or newer, got 2.31"),
    "an old glibc": ({"glibc": "2.24"}, {}, "expected glibc 2.28 or newer, got 2.24"),
    "another C library": ({"glibc": ""}, {}, "another C library"),
    "little room": ({"free_bytes": 10 << 20}, {}, "expected 250.0 MiB of free space, got 10.0 MiB in /home/pi"),
    "little room for Numba": ({"free_bytes": 300 << 20}, {"numba": True}, "expected 600.0 MiB"),
    "a closed folder": ({"writable": False}, {}, "/home/pi may not be written by this user; name another folder with --to"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_thing_that_is_wrong_is_one_sentence(name: str) -> None:
    facts, needs, expected = WRONG[name]
    with pytest.raises(EdgeError) as raised:
        require(replace(GOOD, **facts), replace(NEEDS, **needs), "pi@pi")  # type: ignore[arg-type]
    assert str(raised.value).startswith("cannot deploy to pi@pi: ") and expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_good_device_is_good_enough() -> None:
    require(GOOD, NEEDS, "pi@pi")
    require(replace(GOOD, ensurepip=False), replace(NEEDS, wheels=True), "pi@pi")
    require(replace(GOOD, glibc="", free_bytes=100 << 20), replace(NEEDS, system=True), "pi@pi")
    require(replace(GOOD, machine="riscv64"), replace(NEEDS, processor=None), "pi@pi")
    assert GLIBC_OF_NUMBA == (2, 34)


@pytest.mark.parametrize("output", ["", "noise", f"{MARK}", f"{MARK}=\n{MARK}python_bits=x\n", f"{MARK}free_bytes=-1\n{MARK}unknown=1"])
def test_answers_of_strange_devices_are_no_facts(output: str) -> None:
    assert read_facts(output) == Facts()


def test_boards_are_known_by_what_they_call_themselves() -> None:
    boards = {**BOARDS, "zero": "Raspberry Pi Zero 2 W Rev 1.0", "old": "Raspberry Pi Model B Rev 2", "none": "", "other": "Toaster 3"}
    found = {name: device_of(board) for name, board in boards.items()}
    named = {name: device.name for name, device in found.items() if device is not None}
    assert named == {
        "cortex-a53": "raspberry-pi-3b-plus",
        "cortex-a72": "raspberry-pi-4",
        "cortex-a76": "raspberry-pi-5",
        "zero": "raspberry-pi-zero-2-w",
    }
