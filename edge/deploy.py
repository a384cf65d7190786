"""Putting a model on a device over ssh: checked there, installed beside what was there before, tried, measured, then used in its place.

    check       what the device says of itself (`edge.deploy_check`)
    pack        the bundle that `edge bundle` makes, with the wheels for the device where it has no network
    send        over one ssh connection (`edge.deploy_ssh`); the device's part is `edge.deploy_device`, which installs and tries it
    agree       the figures have come back: only now the device switches to the new version, in one step

Whatever fails, on either side, leaves what was in use before.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from edge.bundle import archive
from edge.bundle_contents import contents
from edge.bundle_runtime import requirements, runtime_modules
from edge.cli_model import require_edge
from edge.deploy_check import Facts, Needs, read_facts, require, script, version_of
from edge.deploy_link import MARK
from edge.deploy_ssh import Address, Connection
from edge.errors import EdgeError, InputError
from edge.paths import require_file
from edge.targets.devices import HOST, Device, available, load_device
from edge.wheels import Platform, download

_CHUNK_BYTES = 256 * 1024
_DEVICE_PARTS = ("deploy_link", "deploy_state", "deploy_service", "deploy_device")  # each imports those before it alone
_DEVICE_START = """import sys, types
for name, source in @SOURCES@.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.start()
"""
_ANY_OF = {"aarch64": "raspberry-pi-4"}  # by processor, a target whose code runs on every one of them

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Service:
    """What the device is to do by itself: "watch" a folder there, or classify stills of its "camera". options: of `edge run`."""

    kind: str
    folder: str = "~/edge-pictures"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """How to deploy.

    root          the folder on the device; ~/edge/NAME, by the name of the model, if None
    target        the device's profile; found by what the board calls itself if None
    picture       the picture whose answer is to be repeated there; noise if None
    with_numba    let Numba compile the kernels there, instead of compiling them for the device here
    offline       fetch the packages here and send them along
    system_site_packages   take numpy and pillow of the device's system where they are new enough
    seconds       how long to measure
    """

    root: str | None = None
    target: str | None = None
    picture: str | None = None
    with_numba: bool = False
    offline: bool = False
    system_site_packages: bool = False
    service: Service | None = None
    seconds: float = 1.0


@dataclass(frozen=True)
class Prediction:
    """What the profile of a device says of the model: seconds of an inference on one thread, and their relative error."""

    target: str
    seconds: float
    expected_error: float
    basis: str


@dataclass(frozen=True)
class Deployment:
    """What is on a device now. place: its folder; figures: as measured there (`edge.figures`); replaced: an older one was there."""

    host: str
    place: str
    device: Facts
    figures: Mapping[str, Any]
    prediction: Prediction | None
    replaced: bool
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def deploy(model: str, address: Address, plan: Plan, *, progress: Progress = lambda done, total, what: None) -> Deployment:
    """Deploy a `.edge` file. progress: told of (done, total, what), in bytes while files are sent, else (0, 0, what).

    Raises `EdgeError`, after which the device is as it was.
    """
    path = require_edge(require_file(model, "model"), "deployed")
    root = plan.root or default_root(path)
    if plan.picture is not None:
        require_file(plan.picture, "picture")
    named = _named_device(plan.target)
    with Connection(address) as connection:
        progress(0, 0, f"looking at {address.host}")
        facts = read_facts(connection.run(script(root)))
        device = named or device_of(facts.board)
        kernels_for = None if plan.with_numba else _kernels_for(facts, plan, device)
        require(facts, _needs(plan, device, numba=kernels_for is None), address.host)
        progress(0, 0, "packing")
        settings, packed = _packed(path, root, facts, plan, kernels_for)
        done = _sent(connection, settings, packed, progress)
    prediction = _prediction(path, plan.target, device)
    return Deployment(address.host, done.place, facts, done.figures, prediction, done.replaced, done.remarks)


def uninstall(model: str, address: Address, root: str | None = None) -> str:
    """Remove what was deployed under the name of a model, or to the folder `root`; the folder. Raises `EdgeError`."""
    settings = {"action": "uninstall", "root": root or default_root(Path(model))}
    with Connection(address) as connection:
        facts = read_facts(connection.run(script(settings["root"])))
        if not facts.python:
            raise EdgeError(f"cannot uninstall from {address.host}: it has no python3, so nothing of edge runs there; check the name")
        with _Talk(connection, settings) as talk:
            done = [message for message in talk.messages() if "done" in message]
    return str(done[-1]["done"])


def default_root(model: Path) -> str:
    """The folder on a device, by the name of a model."""
    return f"~/edge/{_name(model.stem)}"


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "model"


def _named_device(target: str | None) -> Device | None:
    if target == HOST:
        raise InputError("--target host is this machine, which runs the model without a deployment; name the device, or leave it out")
    return None if target is None else load_device(target)


def device_of(board: str) -> Device | None:
    """The profile of the board that calls itself so, such as "Raspberry Pi 4 Model B Rev 1.4"; None for an unknown one."""
    called = board.replace(" Plus", "+")
    known = (load_device(name) for name in available())
    return next((device for device in known if called.startswith(device.title.partition(",")[0])), None)


def _kernels_for(facts: Facts, plan: Plan, device: Device | None) -> str | None:
    """The target to compile kernels for; None where nothing fits, and Numba has to compile them there."""
    if device is not None:
        return plan.target or device.name
    return _ANY_OF.get(facts.machine)


def _needs(plan: Plan, device: Device | None, *, numba: bool) -> Needs:
    processor = device.machine.triple.split("-")[0] if device else None
    return Needs(processor, wheels=plan.offline, numba=numba, system=plan.system_site_packages)


def _packed(path: Path, root: str, facts: Facts, plan: Plan, kernels_for: str | None) -> tuple[dict[str, Any], bytes]:
    """The settings for the device's part, and the archive."""
    name = _name(path.stem)
    wheels = _wheels(facts, numba=kernels_for is None) if plan.offline else None
    packed = contents(path, name=name, title=facts.title, target=kernels_for, picture=plan.picture, wheels=wheels)
    content = archive(packed.files, name, level=1)
    settings = {
        "action": "install",
        "root": root,
        "name": name,
        "id": secrets.token_hex(8),
        "archive_bytes": len(content),
        "system_site_packages": plan.system_site_packages,
        "seconds": plan.seconds,
        "service": asdict(plan.service) if plan.service else None,
    }
    return settings, content


def _wheels(facts: Facts, *, numba: bool) -> dict[str, bytes]:
    python = ".".join(map(str, version_of(facts.python)))
    return download(requirements(runtime_modules(), numba=numba), Platform(facts.machine, python, version_of(facts.glibc)))


def _prediction(path: Path, target: str | None, device: Device | None) -> Prediction | None:
    if device is None:
        return None
    from edge.targets.profile import profile

    found = profile(path, target or device.name)
    if found.seconds is None or found.expected_error is None:  # a device without kernels
        return None
    return Prediction(device.name, found.seconds, found.expected_error, found.time_basis)


# -- talking to the device -------------------------------------------------------------------------------------------------------


def device_program() -> str:
    """The device's part as one text: modules that are there without being installed."""
    sources = {f"edge.{part}": Path(__file__).with_name(f"{part}.py").read_text("utf-8") for part in _DEVICE_PARTS}
    return _DEVICE_START.replace("@SOURCES@", json.dumps(sources))


class _Talk:
    """The device's part at work: what it is sent, and what it says. Use it in a `with` statement.

    Its end without the word "commit" makes the device take back what it did.
    """

    def __init__(self, connection: Connection, settings: Mapping[str, Any]) -> None:
        self._connection = connection
        self._process: Popen[bytes] = connection.python()
        program = device_program().encode()
        self.send(b"%d\n%b%b\n" % (len(program), program, json.dumps(settings).encode()))

    def __enter__(self) -> _Talk:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()

    def send(self, content: bytes) -> None:
        """Send bytes; where the device has gone, what it said last tells why."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the device says, to its end. Raises `EdgeError` where it says that something failed, or ends without a word."""
        assert self._process.stdout is not None
        mark = MARK.encode()
        last: dict[str, Any] = {}
        for line in self._process.stdout:
            if line.startswith(mark):
                last = json.loads(line.removeprefix(mark))
                if "failed" in last:
                    raise EdgeError(f"{self._connection.host}: {last['failed']}")
                yield last
        self._connection.require(self._process.wait())
        if "done" not in last:
            raise EdgeError(
                f"{self._connection.host} ended before it was done: expected its word that all is well, got none; what was in use before "
                "is in use still; deploy again"
            )


@dataclass(frozen=True)
class _Outcome:
    """What the device said in the end."""

    place: str
    replaced: bool
    figures: Mapping[str, Any]
    remarks: tuple[str, ...]


def _sent(connection: Connection, settings: Mapping[str, Any], packed: bytes, progress: Progress) -> _Outcome:
    """Send the archive, and agree to what comes of it."""
    with _Talk(connection, settings) as talk:
        for start in range(0, len(packed), _CHUNK_BYTES):
            talk.send(packed[start : start + _CHUNK_BYTES])
            progress(min(start + _CHUNK_BYTES, len(packed)), len(packed), "sending")
        return _agreed(talk, progress)


def _agreed(talk: _Talk, progress: Progress) -> _Outcome:
    figures: Mapping[str, Any] = {}
    remarks: list[str] = []
    done: Mapping[str, Any] = {}
    for message in talk.messages():
        if "step" in message:
            progress(0, 0, message["step"])
        elif "figures" in message:
            figures = message["figures"]
            talk.send(b"commit\n")
        elif "remark" in message:
            remarks.append(message["remark"])
        else:
            done = message
    return _Outcome(done["done"], done["replaced"], figures, (*remarks, *figures["remarks"]))
