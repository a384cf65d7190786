"""The device's part of `edge deploy`: sent there as text, run by the device's own Python with the standard library alone.

    ROOT/versions/ID/       a bundle, whole and checked; others are on their way or left over
    ROOT/current            a link to the version in use, replaced in one step
    ROOT/deployment.json    what was made beside it: folders, the service

Standard input holds a line of JSON (the settings), the archive of the bundle, and, once the figures were sent back, the word "commit".
Its end before that word means that the other side is gone or content with what there was: all that was made is taken away again. Answers
are lines of standard output that begin with `MARK`, with a JSON object each; anything else there is the talk of a login script.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

MARK = "edge-deploy: "
_STATE = "deployment.json"
_ENOUGH = 2000  # characters of an error's output
_PATIENCE_S = 2  # after which a service that cannot run has ended
_SYSTEMD_S = 60
_UNITS = ".config/systemd/user"


class DeviceError(Exception):
    """What went wrong, in a sentence for the person at the other side."""


def tell(**message: Any) -> None:
    """Send an answer."""
    print(MARK + json.dumps(message), flush=True)


# -- the other side --------------------------------------------------------------------------------------------------------------


class Lease:
    """The other side's hold on this process: it lasts until the word "commit", or standard input ends without it."""

    def __init__(self, stdin: BinaryIO) -> None:
        self._stdin = stdin
        self._committed = False
        self._running: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        self._committed = self._stdin.readline().strip() == b"commit"
        running = self._running
        if not self._committed and running is not None:
            _end(running)

    @property
    def lost(self) -> bool:
        return not self._thread.is_alive() and not self._committed

    def wait(self) -> None:
        """Return when the other side agrees; DeviceError where it does not."""
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self.lost:
            raise DeviceError("the connection was closed before the end; what was in use before is in use still")

    def run(self, command: list[str], what: str) -> str:
        """The standard output of a command, which dies with the lease. Raises DeviceError with its last words where it fails."""
        self._check()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True,
        ) as process:  # fmt: skip
            self._running = process
            if self.lost:
                _end(process)
            try:
                output, errors = process.communicate()
            except BaseException:
                _end(process)
                raise
            self._running = None
        self._check()
        if process.returncode:
            raise DeviceError(f"{what} failed: {_last_words(errors or output)}")
        return output


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_words(text: str) -> str:
    """The end of an output on one line."""
    return " / ".join(line.strip() for line in text[-_ENOUGH:].splitlines()[-4:] if line.strip()) or "it said nothing"


# -- state -----------------------------------------------------------------------------------------------------------------------


def read_state(root: Path) -> dict[str, Any]:
    """What is known of the deployment in a folder; DeviceError where there is something else."""
    try:
        found = json.loads((root / _STATE).read_text("utf-8"))
    except FileNotFoundError:
        if root.is_dir() and set(os.listdir(root)) <= {"lock"}:
            return {}
        if not os.path.lexists(root):
            return {}
        raise DeviceError(f"{root} exists and is no deployment of edge; name another folder with --to") from None
    except ValueError as err:
        raise DeviceError(f"{root / _STATE} is damaged ({err}); delete {root} and deploy again") from err
    return dict(found) if isinstance(found, dict) else {}


def write_state(root: Path, state: Mapping[str, Any]) -> None:
    _write(root / _STATE, json.dumps(state, indent=1))


def _write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, "utf-8")
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def make_folders(path: Path) -> list[str]:
    """Make a folder and those above it; which ones were missing, the innermost first."""
    missing = [str(each) for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: list[str]) -> None:
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the folder against other deployments to it."""
    with open(root / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise DeviceError(f"another deployment to {root} is under way; wait for its end") from err
        yield


def in_use(root: Path) -> Path | None:
    """The version that `current` leads to."""
    try:
        return root / "versions" / Path(os.readlink(root / "current")).name
    except OSError:
        return None


def point_to(root: Path, version: Path | None) -> None:
    """Make `current` lead to a version, or to none, in one step."""
    if version is None:
        (root / "current").unlink(missing_ok=True)
        return
    new = root / ".current.new"
    new.unlink(missing_ok=True)
    new.symlink_to(Path("versions") / version.name)
    os.replace(new, root / "current")


def sweep(root: Path) -> None:
    """Remove all versions but the one in use."""
    used = in_use(root)
    for version in (root / "versions").iterdir():
        if version != used:
            shutil.rmtree(version, ignore_errors=True)


# -- installing ------------------------------------------------------------------------------------------------------------------


def install(settings: Mapping[str, Any], stdin: BinaryIO) -> None:
    """Put a bundle beside what is there, try it, and, if the other side agrees, use it from then on."""
    root = folder_of(settings)
    known = read_state(root)
    made = make_folders(root)
    with locked(root):
        state = {"name": settings["name"], "folders": made, **known}
        version = root / "versions" / settings["id"]
        before = in_use(root)
        try:
            write_state(root, state)
            (root / "versions").mkdir(exist_ok=True)
            sweep(root)
            unpack(version, Part(stdin, settings["archive_bytes"]))
            lease = Lease(stdin)
            tell(figures=try_out(version, before, lease, settings))
            lease.wait()
            take_into_use(root, version, before, state, settings)
        except BaseException:
            shutil.rmtree(version, ignore_errors=True)
            if before is None:
                remove_all(root, state)
            raise
        sweep(root)
    tell(done=str(root / "current"), replaced=before is not None)


def folder_of(settings: Mapping[str, Any]) -> Path:
    return Path(os.path.abspath(os.path.expanduser(settings["root"])))


class Part(io.RawIOBase):
    """The next bytes of a stream, as a stream of their own."""

    def __init__(self, stream: BinaryIO, nbytes: int) -> None:
        self._stream = stream
        self._left = nbytes

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(content)
        return content


def unpack(version: Path, archive: Part) -> None:
    """The files of the archive, without its outermost folder."""
    tell(step="unpacking")
    version.mkdir()
    try:
        with tarfile.open(fileobj=archive, mode="r|gz") as tar:
            for member in tar:
                _unpack_file(tar, member, version)
        archive.read()
    except (tarfile.TarError, EOFError) as err:
        raise DeviceError("the connection was closed while files were sent; what was in use before is in use still") from err


def _unpack_file(tar: tarfile.TarFile, member: tarfile.TarInfo, version: Path) -> None:
    path = version.joinpath(*Path(member.name).parts[1:])
    content = tar.extractfile(member)
    if content is None or ".." in path.parts:
        raise DeviceError(f"the archive holds {member.name}, which is no file of a bundle; report this")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(member.mode & 0o755)


def try_out(version: Path, before: Path | None, lease: Lease, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Install the packages, check the known answer, and measure."""
    tell(step="installing")
    for made in ("venv", "cache"):
        if before is not None and (before / made).is_dir():
            _adopt(before / made, version / made)
    options = ["--system-site-packages"] if settings["system_site_packages"] else []
    lease.run(["sh", str(version / "install.sh"), *options], "installing")
    shutil.rmtree(version / "wheels", ignore_errors=True)
    tell(step="measuring")
    script = 'here=$1; . "$here/environment.sh"; exec "$python" -P -m edge.figures "$@"'
    found = json.loads(lease.run(["sh", "-c", script, "sh", str(version), str(settings["seconds"])], "measuring").splitlines()[-1])
    return {**found, "storage_bytes": _bytes_of(version)}


def _adopt(source: Path, target: Path) -> None:
    """What install.sh made for the version before, without a copy: it replaces files, and changes none."""
    try:
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    except (OSError, shutil.Error):  # a file system without links, or a version before that is damaged: it is made again
        shutil.rmtree(target, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    return sum(os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names)


def take_into_use(root: Path, version: Path, before: Path | None, state: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Switch to a version and start its service; back again where that fails."""
    os.sync()
    tell(step="switching")
    point_to(root, version)
    try:
        if settings["service"]:
            install_service(root, state, settings)
        elif state.get("service"):
            _systemctl("restart", state["service"])
    except BaseException:
        point_to(root, before)
        if before is not None and state.get("service"):
            with suppress(DeviceError):
                _systemctl("restart", state["service"])
        raise


# -- the service -----------------------------------------------------------------------------------------------------------------


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
        _write(unit, _unit(root, settings["name"], arguments))
        _systemctl("daemon-reload")
        _systemctl("enable", name)
        _systemctl("restart", name)
        time.sleep(_PATIENCE_S)
        _systemctl("is-active", name)
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
        _write(unit, old)
    else:
        with suppress(DeviceError):
            _systemctl("disable", unit.name)
        unit.unlink(missing_ok=True)
    with suppress(DeviceError):
        _systemctl("daemon-reload")


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


def _systemctl(*arguments: str) -> None:
    done = _run(["systemctl", "--user", *arguments])
    if done is None:
        raise DeviceError("the service needs systemd, and there is no systemctl on the device; leave out --service")
    if done.returncode:
        words = _last_words(done.stderr or done.stdout)
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


# -- taking it away --------------------------------------------------------------------------------------------------------------


def uninstall(settings: Mapping[str, Any], stdin: BinaryIO) -> None:
    """Remove the service, the folder, and the folders that were made for them if nothing else is in them."""
    root = folder_of(settings)
    state = read_state(root)
    if not state:
        raise DeviceError(f"there is no deployment in {root}; name its folder with --to")
    with locked(root):
        remove_all(root, state)
    tell(done=str(root))


def remove_all(root: Path, state: Mapping[str, Any]) -> None:
    if state.get("service"):
        for action in ("stop", "disable"):
            with suppress(DeviceError):
                _systemctl(action, state["service"])
        _withdraw(Path.home() / _UNITS / state["service"], None)
    if state.get("lingers"):
        _run(["loginctl", "disable-linger"])
    point_to(root, None)
    shutil.rmtree(root / "versions", ignore_errors=True)
    for name in (".current.new", f".{_STATE}.new", "lock", _STATE):  # the state last: without it nobody knows what the rest is
        (root / name).unlink(missing_ok=True)
    folders = [str(root), *state.get("folders", ())]
    remove_empty(sorted(set(folders), key=len, reverse=True))


ACTIONS: Mapping[str, Callable[[Mapping[str, Any], BinaryIO], None]] = {"install": install, "uninstall": uninstall}


def main(stdin: BinaryIO) -> int:
    """Do what the settings say; 0, or 1 after telling what failed."""
    try:
        settings = json.loads(stdin.readline())
        ACTIONS[settings["action"]](settings, stdin)
    except BrokenPipeError:
        return 1  # there is nobody to tell
    except (DeviceError, OSError) as err:
        reason = str(err) if isinstance(err, DeviceError) else _reason(err)
        with suppress(OSError):
            tell(failed=reason)
        return 1
    return 0


def _reason(err: OSError) -> str:
    full = "; make room on it" if err.errno in (28, 122) else "; check the permissions of the folder"
    return f"{err.strerror or err}{f' ({err.filename})' if err.filename else ''}{full}; what was in use before is in use still"


def _stop(number: int, frame: object) -> None:
    raise DeviceError(f"the device ended the deployment (signal {number}); what was in use before is in use still")


if __name__ == "__main__":
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _stop)
    # What the interpreter would do at its end with a closed stream is left out: threads may hold it.
    code = main(sys.stdin.buffer)
    os._exit(code)
