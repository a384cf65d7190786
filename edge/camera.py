"""Stills of a camera, by the programs that the system has for it: a Raspberry Pi's own, or ffmpeg or v4l2-ctl for Video4Linux devices."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import InputError, MissingPackage

SUFFIX = ".jpg"
_TIMEOUT_S = 30
_SETTLE_MS = 1000  # in which exposure and white balance find their values
_SETTLE_FRAMES = 10

_DEVICES = Path("/dev")
_RASPBERRY_PI = ("rpicam-still", "libcamera-still")  # the second is the first's name until Raspberry Pi OS bookworm


@dataclass(frozen=True)
class Camera:
    """A camera. command: what takes a still to a file; advice: what to look at where it does not."""

    name: str
    command: Callable[[str], Sequence[str]]
    advice: str

    def take(self, path: Path) -> None:
        """Write a still to a file. Raises `InputError` where the camera gives none."""
        command = self.command(str(path))
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as err:
            raise self._error(f"nothing within {_TIMEOUT_S} s") from err
        except OSError as err:
            raise self._error(f"{err.strerror or err}") from err
        if done.returncode or not path.is_file() or not path.stat().st_size:
            words = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            raise self._error(words[-1] if words else f"exit code {done.returncode} and no picture")

    def _error(self, got: str) -> InputError:
        return InputError(f"the camera gave no still: expected one from {self.name}, got: {got}; {self.advice}")


def find_camera(device: str | None = None) -> Camera:
    """The camera to use: the Video4Linux `device` if one is named, else the Raspberry Pi's own, else the first device there is.

    Raises `InputError` where there is none, `MissingPackage` where nothing here can read it.
    """
    if device is not None:
        return _video_device(device)
    for name in _RASPBERRY_PI:
        if (program := shutil.which(name)) is not None:
            return _raspberry_pi(name, program)
    devices = sorted(_DEVICES.glob("video*"), key=lambda path: (len(path.name), path.name))
    if not devices:
        raise InputError(
            "there is no camera: expected rpicam-still (on a Raspberry Pi: sudo apt install rpicam-apps) or a device /dev/video0, found "
            "neither; connect a camera, or name one with --device"
        )
    return _video_device(str(devices[0]))


def _raspberry_pi(name: str, program: str) -> Camera:
    options = ("--nopreview", "--timeout", str(_SETTLE_MS), "--output")
    return Camera(name, lambda path: (program, *options, path), "see whether it is listed by: rpicam-hello --list-cameras")


def _video_device(device: str) -> Camera:
    if not Path(device).exists():
        raise InputError(f"there is no camera {device}: expected a device such as /dev/video0; connect it, or name another with --device")
    advice = f"see whether another program uses {device}, and whether this user is in the group video"
    if (ffmpeg := shutil.which("ffmpeg")) is not None:
        before = (ffmpeg, "-nostdin", "-loglevel", "error", "-y", "-f", "v4l2", "-i", device)
        skip = ("-vf", f"select=gte(n\\,{_SETTLE_FRAMES})", "-frames:v", "1")
        return Camera(f"{device} through ffmpeg", lambda path: (*before, *skip, path), advice)
    if (program := shutil.which("v4l2-ctl")) is not None:
        fixed = (program, "-d", device, "--set-fmt-video=pixelformat=MJPG", "--stream-mmap", f"--stream-skip={_SETTLE_FRAMES}")
        return Camera(f"{device} through v4l2-ctl", lambda path: (*fixed, "--stream-count=1", f"--stream-to={path}"), advice)
    raise MissingPackage(f"stills of {device} need ffmpeg or v4l2-ctl, and neither is here; install one: sudo apt install v4l-utils")
