"""The device's part of `edge deploy`, run here as a program with a small stand-in for a bundle: what is left when something fails."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import archive
from edge.deploy import device_program
from edge.deploy_link import MARK

PROGRAM = device_program()
MOMENTS = 20

# As a bundle has them; figures are printed by what stands for its Python.
FILES = {
    "install.sh": '#!/bin/sh\nset -eu\nhere=$(dirname -- "$0")\nmkdir -p "$here/venv"\nfor i in 1 2 3 4; do\n'
    '    rm -f "$here/venv/part$i"; echo $i >"$here/venv/part$i"\n    sleep 0.02\ndone\n@MORE@\n',
    "environment.sh": 'python="$here/python"\n',
    "python.sh": '#!/bin/sh\nsleep 0.02\necho \'{"answer": "fine", "remarks": []}\'\n',
    "answer": "version @VERSION@\n",
}


def bundle(version: str, more: str = "", padding: int = 0) -> bytes:
    texts = {name: text.replace("@VERSION@", version).replace("@MORE@", more) for name, text in FILES.items()}
    files = {name: text.encode() for name, text in texts.items()}
    files["environment.sh"] = b'python="$here/python.sh"\n'
    # Bytes that do not shrink.
    return archive(files | {"padding": random.Random(0).randbytes(padding)}, "bundle", level=1)


@dataclass
class Device:
    """A home, and the program in it."""

    home: Path
    programs: Path

    @property
    def root(self) -> Path:
        return self.home / "edge" / "digits"

    def start(self, **settings: Any) -> subprocess.Popen[bytes]:
        environment = {"HOME": str(self.home), "PATH": f"{self.programs}:/usr/bin:/bin", "FAKE_LOG": str(self.programs / "log")}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
            start_new_session=True,
        )  # fmt: skip
        known = {"root": "~/edge/digits", "name": "digits", "system_site_packages": False, "seconds": 0.1, "service": None}
        assert process.stdin is not None
        process.stdin.write(json.dumps({**known, **settings}).encode() + b"\n")
        return process

    def send(self, content: bytes, *, sent: int | None = None, **settings: Any) -> subprocess.Popen[bytes]:
        """The program with (the first `sent` bytes of) an archive."""
        name = f"{random.getrandbits(64):016x}"
        process = self.start(action="install", id=name, archive_bytes=len(content), **settings)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # the device has given up; it tells why
            process.stdin.write(content[:sent])
            process.stdin.flush()
        return process

    def install(self, content: bytes, *, commit: bool = True, **settings: Any) -> list[dict[str, Any]]:
        """What the device says to an archive and the word "commit", if that is sent once the figures are there."""
        process = self.send(content, **settings)
        said = []
        assert process.stdout is not None and process.stdin is not None
        for line in process.stdout:
            said.append(json.loads(line.removeprefix(MARK.encode())))
            if "figures" in said[-1] and commit:
                process.stdin.write(b"commit\n")
                process.stdin.flush()
            elif "figures" in said[-1]:
                process.stdin.close()
                process.stdin = None
                break
        return [*said, *(json.loads(line.removeprefix(MARK)) for line in finish(process).splitlines())]

    def uninstall(self) -> list[dict[str, Any]]:
        process = self.start(action="uninstall")
        output = finish(process)
        return [json.loads(line.removeprefix(MARK)) for line in output.splitlines()]

    @property
    def answer(self) -> str:
        return (self.root / "current" / "answer").read_text().strip()

    @property
    def versions(self) -> list[str]:
        return os.listdir(self.root / "versions")


def finish(process: subprocess.Popen[bytes]) -> str:
    output, errors = process.communicate(timeout=30)
    assert b"Traceback" not in errors, errors.decode()
    return output.decode()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    (tmp_path / "home").mkdir()
    (tmp_path / "programs").mkdir()
    return Device(tmp_path / "home", tmp_path / "programs")


def fake(device: Device, name: str, script: str) -> None:
    (device.programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (device.programs / name).chmod(0o755)


def log(device: Device) -> list[str]:
    return (device.programs / "log").read_text().splitlines()


def all_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- the good way --------------------------------------------------------------------------------------------------------------


def test_a_bundle_is_installed_tried_and_used(device: Device) -> None:
    said = device.install(bundle("1"))
    assert [message["step"] for message in said if "step" in message] == ["unpacking", "installing", "measuring", "switching"]
    assert said[-1] == {"done": str(device.root / "current"), "replaced": False}
    assert device.answer == "version 1" and len(device.versions) == 1
    assert next(m["figures"]["storage_bytes"] for m in said if "figures" in m) > 0


def test_a_second_one_takes_its_place_and_keeps_what_was_installed(device: Device) -> None:
    device.install(bundle("1"))
    part = (device.root / "current" / "venv" / "part1").stat().st_ino
    kept = "test -f \"$here/venv/kept\" && echo kept >>\"$here/answer\" || true"
    (device.root / "current" / "venv" / "kept").write_text("")
    assert device.install(bundle("2", more=kept))[-1]["replaced"] is True
    assert device.answer == "version 2\nkept" and len(device.versions) == 1
    assert (device.root / "current" / "venv" / "kept").exists() and part


def test_uninstalling_leaves_nothing(device: Device) -> None:
    before = all_of(device.home)
    device.install(bundle("1"))
    device.install(bundle("2"))
    assert device.uninstall()[-1] == {"done": str(device.root)}
    assert all_of(device.home) == before == []
    assert "no deployment" in device.uninstall()[-1]["failed"]


def test_other_things_beside_it_stay(device: Device) -> None:
    (device.home / "edge").mkdir()
    (device.home / "edge" / "letter").write_text("dear")
    device.install(bundle("1"))
    device.uninstall()
    assert all_of(device.home) == ["edge", "edge/letter"]


def test_a_folder_of_something_else_is_left_alone(device: Device) -> None:
    device.root.mkdir(parents=True)
    (device.root / "letter").write_text("dear")
    for said in (device.install(bundle("1")), device.uninstall()):
        assert "is no deployment of edge" in said[-1]["failed"]
    assert all_of(device.root) == ["letter"]


# -- failures ------------------------------------------------------------------------------------------------------------------


def failing(device: Device, content: bytes, **settings: Any) -> str:
    """What the device says of an installation that fails."""
    return str(device.install(content, **settings)[-1].get("failed"))


FAILURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "the installation fails": (lambda: bundle("2", more="echo no such package >&2; exit 1"), "no such package"),
    "the installation says nothing": (lambda: bundle("2", more="exit 3"), "it said nothing"),
    "it is no archive": (lambda: b"x" * 1000, "while files were sent"),
    "it leads outside": (lambda: archive({"../../outside": b""}, "bundle"), "no file of a bundle"),
}


@pytest.mark.parametrize("first", [False, True], ids=["an update", "the first"])
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_leaves_what_was_there(device: Device, name: str, first: bool) -> None:
    content, expected = FAILURES[name]
    if not first:
        device.install(bundle("1"))
    before = all_of(device.home)
    assert expected in failing(device, content())
    assert all_of(device.home) == before
    assert first or device.answer == "version 1"


def test_without_the_word_commit_nothing_changes(device: Device) -> None:
    device.install(bundle("1"))
    before = all_of(device.home)
    assert "connection was closed before the end" in str(device.install(bundle("2"), commit=False)[-1]["failed"])
    assert all_of(device.home) == before and device.answer == "version 1"


def test_the_end_of_the_connection_ends_the_installation_with_all_it_started(device: Device) -> None:
    device.install(bundle("1"))
    before = all_of(device.home)
    process = device.send(bundle("2", more=f'sleep 60 & echo $! >"{device.programs}/pid"; wait'))
    wait_for(lambda: (device.programs / "pid").exists() and (device.programs / "pid").read_text() != "")
    started = time.monotonic()
    finish(process)
    assert time.monotonic() - started < 10
    assert all_of(device.home) == before and device.answer == "version 1"
    assert not is_running(int((device.programs / "pid").read_text()))


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise TimeoutError("what was waited for did not happen")


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_an_archive_that_is_cut_short_changes_nothing(device: Device, share: float) -> None:
    device.install(bundle("1"))
    before = all_of(device.home)
    content = bundle("2", padding=100_000)
    output = finish(device.send(content, sent=int(share * len(content))))
    assert "while files were sent" in output and all_of(device.home) == before and device.answer == "version 1"


def test_a_second_deployment_at_the_same_time_is_refused(device: Device) -> None:
    device.install(bundle("1"))
    process = device.send(bundle("2", more=f'touch "{device.programs}/started"; sleep 60'))
    wait_for((device.programs / "started").exists)
    assert "another deployment" in failing(device, bundle("3"))
    finish(process)
    assert device.answer == "version 1"
    device.install(bundle("4"))
    assert device.answer == "version 4"


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_at_whatever_moment_the_device_dies_the_old_version_works(device: Device, how: signal.Signals) -> None:
    device.install(bundle("0"))
    started = time.monotonic()
    device.install(bundle("0"))
    whole = time.monotonic() - started
    for moment in range(MOMENTS):
        process = device.send(bundle(str(moment + 1)))
        assert process.stdin is not None
        process.stdin.write(b"commit\n")
        process.stdin.flush()
        time.sleep(whole * (moment + 0.5) / MOMENTS)
        os.killpg(process.pid, how)
        finish(process)
        assert device.answer in ("version 0", *(f"version {n + 1}" for n in range(moment + 1)))
        assert (device.root / "current" / "venv" / "part4").read_text() == "4\n"
    device.install(bundle("last"))
    assert device.answer == "version last" and len(device.versions) == 1
    device.uninstall()
    assert all_of(device.home) == []


# -- a full disk ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(device: Device) -> Iterator[Device]:
    """The device with a home of 2 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(device.home)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield device
    finally:
        subprocess.run(["umount", str(device.home)], check=True)


def test_a_full_disk_leaves_what_was_there(small_disk: Device) -> None:
    assert small_disk.install(bundle("1"))[-1]["replaced"] is False
    before = all_of(small_disk.home)
    said = failing(small_disk, bundle("2", padding=4_000_000))
    assert "No space left on device" in said and "make room" in said
    assert "No space left" in failing(small_disk, bundle("2", more='head -c 4000000 /dev/zero >"$here/venv/large"'))
    assert all_of(small_disk.home) == before and small_disk.answer == "version 1"
    small_disk.install(bundle("3"))
    assert small_disk.answer == "version 3"


# -- the service ---------------------------------------------------------------------------------------------------------------

SERVICE = {"kind": "watch", "folder": "~/in box", "options": []}


@pytest.fixture
def with_systemd(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The device with stand-ins for systemctl and loginctl that write down what they are asked."""
    fake(device, "systemctl", 'echo "systemctl $*" >>"$FAKE_LOG"')
    fake(device, "loginctl", 'echo "loginctl $*" >>"$FAKE_LOG"')
    return device


def unit(device: Device) -> Path:
    return device.home / ".config" / "systemd" / "user" / "edge-digits.service"


def test_a_service_runs_the_version_in_use(with_systemd: Device) -> None:
    with_systemd.install(bundle("1"), service=SERVICE)
    command = f'"{with_systemd.root}/current/run.sh" "--json" "--watch" "{with_systemd.home}/in box"'
    assert f"ExecStart={command}\n" in unit(with_systemd).read_text()
    assert (with_systemd.home / "in box").is_dir()
    assert [line for line in log(with_systemd) if line.startswith("systemctl")] == [
        "systemctl --user daemon-reload",
        "systemctl --user enable edge-digits.service",
        "systemctl --user restart edge-digits.service",
        "systemctl --user is-active edge-digits.service",
    ]
    with_systemd.install(bundle("2"))
    assert log(with_systemd)[-1] == "systemctl --user restart edge-digits.service"
    with_systemd.uninstall()
    assert "systemctl --user disable edge-digits.service" in log(with_systemd)
    assert all_of(with_systemd.home) == []


def test_uninstalling_keeps_pictures(with_systemd: Device) -> None:
    with_systemd.install(bundle("1"), service=SERVICE)
    (with_systemd.home / "in box" / "cat.jpg").write_text("")
    with_systemd.uninstall()
    assert all_of(with_systemd.home) == ["in box", "in box/cat.jpg"]


@pytest.mark.parametrize("first", [False, True], ids=["an update", "the first"])
@pytest.mark.parametrize("refused", ["daemon-reload", "enable", "restart", "is-active"])
def test_a_service_that_does_not_start_leaves_what_was_there(with_systemd: Device, refused: str, first: bool) -> None:
    if not first:
        with_systemd.install(bundle("1"))
    before = all_of(with_systemd.home)
    fake(with_systemd, "systemctl", f'if [ "$2" = {refused} ]; then echo refused >&2; exit 1; fi')
    assert f"systemctl --user {refused}" in failing(with_systemd, bundle("2"), service=SERVICE)
    assert all_of(with_systemd.home) == before
    assert first or with_systemd.answer == "version 1"


def test_without_systemd_a_service_is_refused(device: Device) -> None:
    fake(device, "systemctl", "exit 1")
    (device.programs / "systemctl").chmod(0o644)
    said = failing(device, bundle("1"), service=SERVICE)
    assert "systemctl" in said and all_of(device.home) == []
