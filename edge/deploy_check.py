"""Whether a device can run what is about to be deployed: what it says of itself, and each thing that is wrong as one sentence."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from typing import Any

from edge.console import bytes_text
from edge.errors import EdgeError

MARK = "edge-deploy: "
PYTHON = (3, 11)
GLIBC_OF_NUMBA = (2, 34)
GLIBC_OF_WHEELS = (2, 28)
# Room that an installation takes: packages, their compiled Python, and what pip unpacks meanwhile.
ROOM_BYTES = 250 << 20
ROOM_OF_NUMBA_BYTES = 600 << 20
ROOM_OF_SYSTEM_BYTES = 60 << 20  # where numpy and pillow are the system's

_PYTHON_FACTS = """
import os, struct, sys, tempfile
def say(name, value): print("@MARK@" + name + "=" + str(value))
say("python", "%d.%d.%d" % sys.version_info[:3])
say("python_bits", struct.calcsize("P") * 8)
try: say("glibc", os.confstr("CS_GNU_LIBC_VERSION").split()[-1])
except (AttributeError, OSError, ValueError): pass
try:
    import ensurepip
    say("ensurepip", "yes")
except ImportError: pass
place = os.path.abspath(os.path.expanduser(sys.argv[1]))
while not os.path.exists(place): place = os.path.dirname(place)
found = os.statvfs(place)
say("free_bytes", found.f_bavail * found.f_frsize)
say("place", place)
try:
    os.rmdir(tempfile.mkdtemp(dir=place))
    say("writable", "yes")
except OSError: pass
"""

_SCRIPT = """
say() { printf '@MARK@%s=%s\\n' "$1" "$2"; }
say system "$(uname -s)"
say machine "$(uname -m)"
if [ -e /proc/device-tree/model ]; then
    say board "$(tr -d '\\000' </proc/device-tree/model)"
fi
command -v python3 >/dev/null || exit 0
python3 -c @PYTHON@ @ROOT@
"""


@dataclass(frozen=True)
class Facts:
    """What a device says of itself; empty or 0 where it says nothing.

    machine: as `uname -m` has it. python: version, bits of its pointers (32 on a 64-bit kernel too). place: what exists of the folder.
    """

    system: str = ""
    machine: str = ""
    board: str = ""
    python: str = ""
    python_bits: int = 0
    glibc: str = ""
    ensurepip: bool = False
    free_bytes: int = 0
    place: str = ""
    writable: bool = False

    @property
    def title(self) -> str:
        """What to call it."""
        return self.board or f"{self.system} {self.machine} machine".strip()


@dataclass(frozen=True)
class Needs:
    """What is about to be installed.

    processor: that the files are for, None where any will do. wheels: they go along. numba: kernels are compiled there.
    system: numpy and pillow are taken from there.
    """

    processor: str | None
    wheels: bool
    numba: bool
    system: bool

    @property
    def room_bytes(self) -> int:
        if self.numba:
            return ROOM_OF_NUMBA_BYTES
        return ROOM_OF_SYSTEM_BYTES if self.system else ROOM_BYTES

    @property
    def glibc(self) -> tuple[int, int]:
        return GLIBC_OF_NUMBA if self.numba else GLIBC_OF_WHEELS


def script(root: str) -> str:
    """The shell script that prints the facts. root: the folder that is going to be used."""
    python = shlex.quote(_PYTHON_FACTS)
    return _SCRIPT.replace("@PYTHON@", python).replace("@ROOT@", shlex.quote(root)).replace("@MARK@", MARK)


def read_facts(output: str) -> Facts:
    """What the script printed; anything between its lines is the talk of a login script."""
    said = dict(line.removeprefix(MARK).partition("=")[::2] for line in output.splitlines() if line.startswith(MARK))
    found: dict[str, Any] = {}
    for field in fields(Facts):
        text = said.get(field.name, "")
        number = int(text) if text.isdecimal() and len(text) < 20 else 0
        found[field.name] = {"str": text, "int": number, "bool": text == "yes"}[str(field.type)]
    return Facts(**found)


def require(facts: Facts, needs: Needs, host: str) -> None:
    """Raise `EdgeError` with the first thing that is wrong and what to do about it."""
    for problem in (_system(facts), _processor(facts, needs), _python(facts, needs), _glibc(facts, needs), _room(facts, needs)):
        if problem:
            raise EdgeError(f"cannot deploy to {host}: {problem}")


def _system(facts: Facts) -> str | None:
    if facts.system != "Linux":
        return f"expected Linux, got {facts.system or 'a shell that does not answer'}; name a device with Linux"
    narrow = facts.machine.startswith(("armv", "i386", "i686")) or facts.python_bits == 32
    if narrow:
        kernel = f", although its kernel has 64 ({facts.machine})" if "64" in facts.machine else f" ({facts.machine})"
        return f"expected a 64-bit system, got one of 32 bits{kernel}; flash Raspberry Pi OS (64-bit), and deploy again"
    return None


def _processor(facts: Facts, needs: Needs) -> str | None:
    if needs.processor in (None, facts.machine):
        return None
    return f"the target's processor is {needs.processor}, and this one is {facts.machine}; give the --target that it is, or leave it out"


def _python(facts: Facts, needs: Needs) -> str | None:
    if not facts.python:
        return "python3 is missing there; run on the device: sudo apt install python3 python3-venv"
    if version_of(facts.python) < PYTHON:
        return f"expected Python 3.11 or newer, got {facts.python}; install Raspberry Pi OS bookworm or newer"
    if not facts.ensurepip and not needs.wheels:
        return "python3-venv is missing there; run on the device: sudo apt install python3-venv, or deploy with --offline"
    return None


def _glibc(facts: Facts, needs: Needs) -> str | None:
    if needs.system and not needs.numba:
        return None
    if not facts.glibc:
        return "expected glibc, which published wheels are made for, and this system has another C library; use a Debian system"
    if version_of(facts.glibc) < needs.glibc:
        expected = ".".join(map(str, needs.glibc))
        return f"expected glibc {expected} or newer, got {facts.glibc}; install Raspberry Pi OS bookworm or newer"
    return None


def _room(facts: Facts, needs: Needs) -> str | None:
    if not facts.writable:
        return f"{facts.place} may not be written by this user; name another folder with --to"
    if facts.free_bytes < needs.room_bytes:
        room = f"expected {bytes_text(needs.room_bytes)} of free space, got {bytes_text(facts.free_bytes)}"
        return f"{room} in {facts.place}; make room, or name another folder with --to"
    return None


def version_of(text: str) -> tuple[int, int]:
    """The first two numbers of a version; zeros where there are none."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
