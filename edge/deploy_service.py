"""The service of a deployment: a unit of the user's own systemd on the device. Standard library alone."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge.deploy_link import DeviceError, last_words, tell
from edge.deploy_state import make_folders, remove_empty, write_state, write_whole

_PATIENCE_S = 2  # after which a service that cannot run has ended
_SYSTEMD_S = 60
_UNITS = ".config/systemd/user"


def install_service(root: Path, state: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """A unit of the user's own systemd that runs the version in use, from now on and after each start of the device."""
    tell(step="starting the service")
    name = f"edge-{settings['name']}.service"
    unit = Path.home() / _UNITS / name
    old = unit.read_text("utf-8") if unit.exists() else None
    arguments = ["--json", *settings["service"]["options"]]
    made: list[str] = []
    if settings["service"]["kind"] == "watch":
        folder = Path(os.path.abspath(os.path.expanduser(settings["service"]["folder"])))
        made += make_folders(folder)
        arguments += ["--watch", str(folder)]
    else:
        arguments += ["--camera"]
    made += make_folders(unit.parent)
    write_state(root, {**state, "service": name, "folders": [*made, *state["folders"]]})
    try:
        write_whole(unit, _unit(root, settings["name"], arguments))
        systemctl("daemon-reload")
        systemctl("enable", name)
        systemctl("restart", name)
        time.sleep(_PATIENCE_S)
        systemctl("is-active", name)
    except BaseException:
        _withdraw(unit, old)
        remove_empty(made)
        write_state(root, state)
        raise
    state |= {"service": name, "folders": [*made, *state["folders"]], "lingers": state.get("lingers") or _linger()}
    write_state(root, state)


def _unit(root: Path, name: str, arguments: list[str]) -> str:
    command = " ".join(_quoted(word) for word in (str(root / "current" / "run.sh"), *arguments))
    return f"""[Unit]
Description=edge: {name.replace("%", "%%")}

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=5

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """A word of a command line of systemd."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _withdraw(unit: Path, old: str | None) -> None:
    """The unit as it was before."""
    if old is not None:
        write_whole(unit, old)
    else:
        with suppress(DeviceError):
            systemctl("disable", unit.name)
        unit.unlink(missing_ok=True)
    with suppress(DeviceError):
        systemctl("daemon-reload")


def _linger() -> bool:
    """Let the user's services run when nobody is logged in; whether that had to be changed, and was."""
    user = str(os.getuid())
    shown = _run(["loginctl", "show-user", user, "--property=Linger"])
    if shown is not None and "yes" in shown.stdout:
        return False
    done = _run(["loginctl", "enable-linger"])
    if done is not None and done.returncode == 0:
        return True
    tell(remark="the service runs while you are logged in; to let it run always, run once on the device: sudo loginctl enable-linger $USER")
    return False


def systemctl(*arguments: str) -> None:
    done = _run(["systemctl", "--user", *arguments])
    if done is None:
        raise DeviceError("the service needs systemd, and there is no systemctl on the device; leave out --service")
    if done.returncode:
        words = last_words(done.stderr or done.stdout)
        raise DeviceError(f"systemctl --user {' '.join(arguments)} failed: {words}; see on the device: journalctl --user -n 20")


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """None where there is no such command."""
    environment = dict(os.environ)
    runtime = f"/run/user/{os.getuid()}"
    if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(runtime):
        environment["XDG_RUNTIME_DIR"] = runtime
    try:
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SYSTEMD_S
        )
    except subprocess.TimeoutExpired as err:
        raise DeviceError(f"{' '.join(command)} did not answer within {_SYSTEMD_S} s; try again") from err
    except OSError:
        return None


def remove_service(state: Mapping[str, Any]) -> None:
    """Stop the service and remove its unit, where there is one."""
    if state.get("service"):
        for action in ("stop", "disable"):
            with suppress(DeviceError):
                systemctl(action, state["service"])
        _withdraw(Path.home() / _UNITS / state["service"], None)
    if state.get("lingers"):
        _run(["loginctl", "disable-linger"])
