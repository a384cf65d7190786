"""An archive that runs a model on a device: the model, edge's own sources that running needs, a picture with its known answer.

    NAME/model.edge          the program
    NAME/picture.png         a picture (`.npy` for networks that take none, `.npz` for several inputs), and
    NAME/answer.json         the answer it must give (`edge.known_answer`)
    NAME/edge/               the runtime: pure Python, nothing of converters, training or TensorFlow
    NAME/kernels.so          its kernels, compiled for the device, unless Numba is to compile them there
    NAME/requirements.txt    the packages it needs, pinned to the versions it was packed with
    NAME/wheels/             these packages, where it is to be installed without a network
    NAME/install.sh          makes NAME/venv and installs them there
    NAME/run.sh              checks the known answer, or classifies the pictures it is given
    NAME/edge.sh             the other commands that run there: doctor, cache, warm
    NAME/README.md, LICENSE

Nothing in it leaves its folder: no absolute path, no other place is written, kernels are cached in NAME/cache. The same model, picture,
target and versions give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.bundle_contents import MARK, contents
from edge.bundle_runtime import requirements, runtime_modules
from edge.cli_model import require_edge
from edge.errors import EdgeError, InputError
from edge.files import write_atomically
from edge.paths import require_file
from edge.targets.devices import HOST, Device, load_device
from edge.wheels import Platform, download

ENDING = ".tar.gz"
PYTHON = "3.13"  # of the newest Raspberry Pi OS
_GLIBC = (2, 36)  # of the oldest that has Python 3.11


@dataclass(frozen=True)
class Bundle:
    """What was written: where, its bytes, how many files, and the known answer in words."""

    path: str
    target: str
    nbytes: int
    files: int
    picture: str
    answer: str


def bundle(
    model: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    target: str = "raspberry-pi-4",
    picture: str | os.PathLike[str] | None = None,
    with_numba: bool = False,
    offline: bool = False,
    python: str = PYTHON,
    force: bool = False,
) -> Bundle:
    """Pack a `.edge` file for a device.

    destination   a name that ends in .tar.gz, or a folder to be made; by default MODEL-TARGET.tar.gz in the current folder
    target        a device profile (`edge.targets.devices`)
    picture       the picture whose answer is stored; noise of the input's shape if none is given
    with_numba    let Numba compile the kernels on the device, instead of compiling them for it here
    offline       put the wheels of its packages in, for the device's processor and its version of `python`
    force         replace a file or folder that is no bundle

    Raises `EdgeError` for an unsound model, an unknown target, a picture that does not fit, a destination in the way.
    """
    path = require_edge(require_file(model, "model"), "packed")
    device = _device(target)
    name = f"{path.stem}-{device.name}"
    where = Path(destination) if destination is not None else Path(name + ENDING)
    _check_replaceable(where, force=force)
    wheels = download(requirements(runtime_modules(), numba=with_numba), _platform(device, python)) if offline else None
    kernels_for = None if with_numba else target
    packed = contents(path, name=name, title=device.title, target=kernels_for, picture=picture, wheels=wheels)
    files = packed.files
    if where.name.endswith(ENDING):
        write_atomically(where, [archive(files, where.name.removesuffix(ENDING))])
    else:
        _write_folder(where, files)
    size = where.stat().st_size if where.is_file() else sum(len(content) for content in files.values())
    return Bundle(os.fspath(where), device.name, size, len(files), packed.picture, packed.answer)


def _device(target: str) -> Device:
    if target == HOST:
        raise InputError("a bundle is for another device, and this machine runs the model without one; name a target, or use edge run")
    return load_device(target)


def _platform(device: Device, python: str) -> Platform:
    return Platform(device.machine.triple.split("-")[0], python, _GLIBC)


# -- writing -------------------------------------------------------------------------------------------------------------------


def archive(files: Mapping[str, bytes], root: str, *, level: int = 9) -> bytes:
    """A tar of `files` under the folder `root`, gzipped at a level of 1 to 9, the same bytes for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            info = tarfile.TarInfo(f"{root}/{name}")
            info.size = len(files[name])
            info.mode = _mode(name)
            tar.addfile(info, io.BytesIO(files[name]))
    return gzip.compress(packed.getvalue(), compresslevel=level, mtime=0)


def _mode(name: str) -> int:
    return 0o755 if name.endswith(".sh") else 0o644


def _check_replaceable(where: Path, *, force: bool) -> None:
    """Raise `InputError` where something is in the way that is no bundle."""
    if where.name.endswith(ENDING):
        ours = where.is_file() and _is_archive(where)
        if where.is_dir() or (where.exists() and not ours and not force):
            raise InputError(f"{where} exists and is no bundle; give --force to replace it, or another name")
    elif where.exists() and (not where.is_dir() or (any(where.iterdir()) and not (where / MARK).is_file() and not force)):
        raise InputError(f"{where} exists and is no bundle; name a new folder, or a file that ends in {ENDING}")


def _is_archive(where: Path) -> bool:
    try:
        with tarfile.open(where, "r:gz") as tar:
            return any(member.name.endswith(f"/{MARK}") for member in tar)
    except (tarfile.TarError, OSError, EOFError):
        return False


def _write_folder(where: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder whole beside its place and put it there; files of an older bundle go, its venv and cache stay."""
    target = Path(os.path.realpath(where))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
    except OSError as err:
        raise EdgeError(f"cannot make the folder {where}: {err.strerror or err}; choose another place") from err
    try:
        for name, content in files.items():
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(_mode(name))
        new.chmod(0o755)
        _swap(new, target)
    except OSError as err:
        raise EdgeError(f"cannot write the folder {where}: {err.strerror or err}; make room or choose another place") from err
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`, with what install.sh and run.sh have made there."""
    if not target.exists():
        new.rename(target)
        return
    for kept in ("venv", "cache"):
        if (target / kept).exists():
            (target / kept).rename(new / kept)
    old = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
    target.rename(old / "old")
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
