"""The device's part of `edge deploy`: sent there as text with what it imports, run by its own Python with the standard library alone.

    ROOT/versions/ID/       a bundle, whole and checked; others are on their way or left over
    ROOT/current            a link to the version in use, replaced in one step
    ROOT/deployment.json    what was made beside it: folders, the service

Standard input holds a line of JSON (the settings), the archive of the bundle, and, once the figures were sent back, the word "commit".
Its end before that word means that the other side is gone or content with what there was: all that was made is taken away again. Answers
are lines of standard output that begin with `MARK`, with a JSON object each; anything else there is the talk of a login script.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from edge.deploy_link import DeviceError, Lease, Part, tell
from edge.deploy_service import install_service, remove_service, systemctl
from edge.deploy_state import STATE, in_use, locked, make_folders, point_to, read_state, remove_empty, sweep, write_state

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
            if in_use(root) == version:  # a signal came just after the switch
                point_to(root, before)
            shutil.rmtree(version, ignore_errors=True)
            if before is None:
                remove_all(root, state)
            raise
        sweep(root)
    tell(done=str(root / "current"), replaced=before is not None)


def folder_of(settings: Mapping[str, Any]) -> Path:
    return Path(os.path.abspath(os.path.expanduser(settings["root"])))


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
            systemctl("restart", state["service"])
    except BaseException:
        point_to(root, before)
        if before is not None and state.get("service"):
            with suppress(DeviceError):
                systemctl("restart", state["service"])
        raise


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
    remove_service(state)
    point_to(root, None)
    shutil.rmtree(root / "versions", ignore_errors=True)
    for name in (".current.new", f".{STATE}.new", "lock", STATE):  # the state last: without it nobody knows what the rest is
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


def start() -> None:
    """Do what standard input says, and end."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _stop)
    # What the interpreter would do at its end with a closed stream is left out: threads may hold it.
    os._exit(main(sys.stdin.buffer))
