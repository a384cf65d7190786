"""What a deployment is on a device: its folder, the version in use, and what was made beside it. Standard library alone."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge.deploy_link import DeviceError

STATE = "deployment.json"


def read_state(root: Path) -> dict[str, Any]:
    """What is known of the deployment in a folder; DeviceError where there is something else."""
    try:
        found = json.loads((root / STATE).read_text("utf-8"))
    except FileNotFoundError:
        if root.is_dir() and set(os.listdir(root)) <= {"lock"}:
            return {}
        if not os.path.lexists(root):
            return {}
        raise DeviceError(f"{root} exists and is no deployment of edge; name another folder with --to") from None
    except ValueError as err:
        raise DeviceError(f"{root / STATE} is damaged ({err}); delete {root} and deploy again") from err
    return dict(found) if isinstance(found, dict) else {}


def write_state(root: Path, state: Mapping[str, Any]) -> None:
    write_whole(root / STATE, json.dumps(state, indent=1))


def write_whole(path: Path, text: str) -> None:
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
