"""`edge deploy` over a real sshd on the loopback: into this account with a home of its own, and into an emulated Raspberry Pi."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import raspberry_pi
from click.testing import CliRunner, Result
from raspberry_pi import BOARDS, CHOSEN, CORES, needs_the_user_space
from ssh_device import SshDevice, local_device, require_sshd, ssh_device

import edge
from edge import bundle_contents
from edge import deploy as deployment
from edge.bundle_scripts import INSTALL
from edge.cli import cli
from edge.deploy import Address, Plan, Service, default_root, deploy, uninstall
from edge.deploy_ssh import Connection
from edge.errors import EdgeError, InputError, MissingPackage
from edge.kernels.cache import folder as cache_folder
from edge.kernels.linker import find_linkers
from edge.wheels import Platform

ROOT = Path(__file__).resolve().parents[1]
PICTURE = str(ROOT / "examples" / "image.png")
MOMENTS = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("model")
    edge.convert(ROOT / "examples" / "digits.h5", made, formats=("edge",))
    return str(made / "digits.edge")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def device(home: Path) -> Iterator[SshDevice]:
    """This account, with the packages and compiled kernels of this Python for those of its system."""
    with ssh_device(home, local_device(home, extra=[f"EDGE_CACHE={cache_folder()}"])) as made:
        yield made


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """--offline sends a pip that finds everything installed, as it is on `device`."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", "")
    monkeypatch.setattr(deployment, "download", lambda requirements, platform: {"pip-0-py3-none-any.whl": wheel.getvalue()})


PLAN = Plan(picture=PICTURE, offline=True, with_numba=True, seconds=0.05)


def all_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def answer_of(device: SshDevice, root: str = "edge/digits") -> str:
    """What the version in use says to its known picture, asked over ssh."""
    with Connection(device.address) as connection:
        return connection.run(f'"$HOME/{root}/current/run.sh"')


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["deploy", *map(str, arguments)], catch_exceptions=False)


# -- the good way --------------------------------------------------------------------------------------------------------------


def test_a_model_is_deployed_updated_and_removed(model: str, device: SshDevice, packages: None) -> None:
    steps: list[str] = []
    first = deploy(model, device.address, PLAN, progress=lambda done, total, what: steps.append(what))
    assert first.figures["answer"].startswith("picture.png: 2 (") and "as expected" in first.figures["answer"]
    assert 0 < first.figures["p50_s"] <= first.figures["p95_s"] <= first.figures["p99_s"] < 1
    assert first.figures["start_s"] is None or first.figures["start_s"] > 0
    assert (first.place, first.replaced, first.prediction) == (str(device.home / "edge" / "digits" / "current"), False, None)
    wanted = [f"looking at {device.address.host}", "packing", "sending", "unpacking", "installing", "measuring", "switching"]
    assert list(dict.fromkeys(steps)) == wanted
    version = os.readlink(device.home / "edge" / "digits" / "current")
    second = deploy(model, device.address, PLAN)
    assert second.replaced and os.readlink(device.home / "edge" / "digits" / "current") != version
    assert len(os.listdir(device.home / "edge" / "digits" / "versions")) == 1
    assert "picture.png: 2 (" in answer_of(device)
    assert uninstall(model, device.address) == str(device.home / "edge" / "digits")
    assert all_of(device.home) == []


def test_the_command_prints_what_was_measured_beside_the_profile(
    model: str, device: SshDevice, packages: None, capfd: pytest.CaptureFixture[str]
) -> None:
    said = invoke(model, *device.arguments, "--offline", "--with-numba", "--seconds", "0.05", "--to", "~/here or there")
    assert said.exit_code == 0, said.stderr
    assert "installed on" in said.stdout and "as expected" in said.stdout and "measured there" in said.stdout
    assert "no profile of this device" in said.stdout and "~" not in said.stdout
    assert json.loads(invoke(model, *device.arguments, "--uninstall", "--to", "~/here or there", "--json").stdout)["removed"]
    assert all_of(device.home) == []


@pytest.mark.slow
def test_the_command_prints_json_for_programs(model: str, device: SshDevice, packages: None) -> None:
    found = json.loads(invoke(model, *device.arguments, "--offline", "--with-numba", "--seconds", "0.05", "--json").stdout)
    assert found["replaced"] is False and found["figures"]["threads"] == 1 and found["device"]["machine"]
    assert invoke(model, *device.arguments, "--uninstall").exit_code == 0


@pytest.mark.slow
def test_the_packages_of_a_system_are_enough(model: str, device: SshDevice) -> None:
    """With the device's own pip, which finds all of them installed and is gone afterwards."""
    done = deploy(model, device.address, Plan(picture=PICTURE, system_site_packages=True, with_numba=True, seconds=0.05))
    assert done.figures["answer"].startswith("picture.png: 2 (")
    assert not list((device.home / "edge" / "digits" / "current" / "venv").glob("lib/python*/site-packages/*"))
    assert importlib.util.find_spec("pip")  # the system's


@pytest.mark.slow
def test_talk_of_login_scripts_is_not_taken_for_answers(model: str, home: Path, packages: None) -> None:
    enter = local_device(home, extra=[f"EDGE_CACHE={cache_folder()}"])
    talkative = [*enter, 'echo Welcome; echo "system=Plan 9"; eval "$1"', "sh"]
    with ssh_device(home, talkative) as device:
        assert deploy(model, device.address, PLAN).figures["answer"].startswith("picture.png: 2 (")


@pytest.mark.skipif(not find_linkers(os.uname().machine), reason="needs a linker")
def test_kernels_compiled_here_are_used_there(model: str, device: SshDevice, packages: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_contents, "_library", lambda target, program: library_of(program, device.folder / "kernels.so"))
    monkeypatch.setattr(deployment, "_ANY_OF", {os.uname().machine: "this machine"})
    done = deploy(model, device.address, Plan(picture=PICTURE, offline=True, seconds=0.05))
    assert done.figures["answer"].startswith("picture.png: 2 (")
    with Connection(device.address) as connection:
        said = json.loads(connection.run('"$HOME/edge/digits/current/edge.sh" doctor --json'))
    assert said["kernels"].endswith("kernels.so, for host") and said["problems"] == []


def library_of(program: object, path: Path) -> bytes:
    from edge.build import build_library

    return build_library("host", [program], path).read_bytes()  # type: ignore[list-item]


# -- connections ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch x", "pi@pi rm", "a\nb"])
def test_a_host_that_ssh_would_take_for_something_else_is_refused(model: str, host: str) -> None:
    with pytest.raises(InputError, match="expected user@host"):
        deploy(model, Address(host), PLAN)


def test_without_ssh_the_package_is_named(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingPackage, match="sudo apt install openssh-client"):
        deploy(model, Address("pi@pi"), PLAN)


def test_an_unreachable_device_is_one_sentence(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    require_sshd()
    said = invoke(model, "pi@127.0.0.1", "-p", "1", "-o", "BatchMode=yes")
    assert said.exit_code == 1 and said.stderr.count("edge:") == 1
    assert "there is no connection to pi@127.0.0.1" in said.stderr and "ssh -p 1 -o BatchMode=yes 127" not in said.stderr
    assert "ssh -p 1 -o BatchMode=yes pi@127.0.0.1 true" in said.stderr
    assert "Connection refused" in capfd.readouterr().err  # ssh's own words


def test_a_key_that_is_not_known_there_is_refused(
    model: str, device: SshDevice, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    address = Address(device.address.host, device.address.port, str(tmp_path / "other"), device.address.options)
    with pytest.raises(EdgeError, match="there is no connection"):
        deploy(model, address, PLAN)
    assert "Permission denied" in capfd.readouterr().err


def test_bad_input_is_told_before_any_connection(tmp_path: Path) -> None:
    for arguments in ([tmp_path / "absent.edge"], [PICTURE]):
        said = invoke(*arguments, "pi@nowhere.invalid")
        assert said.exit_code == 1 and len(said.stderr.strip().splitlines()) == 1 and "connection" not in said.stderr


def test_unknown_and_unfit_targets_are_told_before_any_connection(model: str) -> None:
    assert "there is no target 'toaster'" in invoke(model, "pi@nowhere.invalid", "--target", "toaster").stderr
    assert "--target host is this machine" in invoke(model, "pi@nowhere.invalid", "--target", "host").stderr


@pytest.mark.parametrize(("name", "root"), [("a b.edge", "~/edge/a-b"), ("../x;rm.edge", "~/edge/x-rm"), ("….edge", "~/edge/model")])
def test_folders_are_named_after_models(name: str, root: str) -> None:
    assert default_root(Path(name)) == root


@pytest.mark.parametrize(("machine", "expected"), [("armv7l", "32 bits"), ("riscv64", "the target's processor is aarch64")])
def test_a_device_with_another_processor_is_refused(model: str, home: Path, tmp_path: Path, machine: str, expected: str) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "uname").write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo Linux\n')
    (tmp_path / "fake" / "uname").chmod(0o755)
    with ssh_device(home, local_device(home, path=[tmp_path / "fake"])) as device:
        said = invoke(model, *device.arguments, "--target", "raspberry-pi-4")
    assert said.exit_code == 1 and expected in said.stderr and len(said.stderr.strip().splitlines()) == 1
    assert all_of(home) == []


# -- failures ------------------------------------------------------------------------------------------------------------------


def children_of(process: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            if int(words[1]) == process:
                found += [int(stat.parent.name), *children_of(int(stat.parent.name))]
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise TimeoutError("what was waited for did not happen")


def test_a_dropped_connection_leaves_what_was_there(
    model: str, device: SshDevice, packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    deploy(model, device.address, PLAN)
    before = os.readlink(device.home / "edge" / "digits" / "current")
    started = tmp_path / "started"
    monkeypatch.setattr(bundle_contents, "INSTALL", INSTALL.replace("set -eu\n", f"set -eu\ntouch {started}\nsleep 60\n"))

    def drop() -> None:
        wait_for(started.exists)
        server = int((device.folder / "sshd.pid").read_text())
        for session in children_of(server)[:1]:
            os.kill(session, signal.SIGKILL)

    dropper = threading.Thread(target=drop)
    dropper.start()
    with pytest.raises(EdgeError, match=r"there is no connection|connection was closed|ended before it was done"):
        deploy(model, device.address, PLAN)
    dropper.join()
    assert os.readlink(device.home / "edge" / "digits" / "current") == before
    assert "picture.png: 2 (" in answer_of(device)
    wait_for(lambda: len(os.listdir(device.home / "edge" / "digits" / "versions")) == 1)


@pytest.mark.slow
def test_an_answer_that_differs_there_leaves_what_was_there(
    model: str, device: SshDevice, packages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(model, device.address, PLAN)
    before = all_of(device.home)
    real = bundle_contents.record
    monkeypatch.setattr(bundle_contents, "record", lambda *given: shifted(real(*given)))
    with pytest.raises(EdgeError, match=r"installing failed: .*another answer here: expected 2"):
        deploy(model, device.address, PLAN)
    assert all_of(device.home) == before and "picture.png: 2 (" in answer_of(device)


def shifted(answer: object) -> object:
    return replace(answer, outputs=tuple(values + 1 for values in answer.outputs))  # type: ignore[attr-defined, type-var]


@pytest.mark.slow
def test_at_whatever_moment_the_client_is_killed_the_old_version_works(model: str, device: SshDevice) -> None:
    """With the real pip, which finds the packages of the system."""
    options = [*device.arguments, "--system-site-packages", "--with-numba", "--seconds", "0.05", "--picture", PICTURE]
    command = [str(Path(sys.executable).parent / "edge"), "deploy", model, *options]
    for _ in range(2):
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole = time.monotonic() - started
    for moment in range(MOMENTS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(whole * (moment + 0.5) / MOMENTS)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert "picture.png: 2 (" in answer_of(device), f"killed after {moment + 0.5} parts of {MOMENTS}"
    wait_for(lambda: "another deployment" not in deployed(command))
    assert len(os.listdir(device.home / "edge" / "digits" / "versions")) == 1
    subprocess.run([*command, "--uninstall"], check=True)
    assert all_of(device.home) == []


def deployed(command: list[str]) -> str:
    """What a deployment says; it fails only while another one is under way."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 or "another deployment" in done.stderr, done.stderr
    return done.stderr


# -- the service ---------------------------------------------------------------------------------------------------------------


def test_a_service_classifies_what_appears(model: str, home: Path, tmp_path: Path, packages: None) -> None:
    """With a stand-in for systemd that starts what the unit says."""
    programs = tmp_path / "systemd"
    programs.mkdir()
    (programs / "loginctl").write_text("#!/bin/sh\n")
    (programs / "systemctl").write_text(
        f"""#!/bin/sh
case "$2" in
restart)
    command=$(sed -n 's/^ExecStart=//p' "$HOME/.config/systemd/user/$3")
    (exec >"{tmp_path}/journal" 2>"{tmp_path}/errors" </dev/null; eval "exec $command") &
    echo $! >"{tmp_path}/pid" ;;
stop) kill "$(cat "{tmp_path}/pid")" ;;
esac
"""
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    with ssh_device(home, local_device(home, path=[programs], extra=[f"EDGE_CACHE={cache_folder()}"])) as device:
        plan = Plan(picture=PICTURE, offline=True, with_numba=True, seconds=0.05, service=Service("watch"))
        deploy(model, device.address, plan)
        wait_for(lambda: "watching" in (tmp_path / "errors").read_text())
        shutil.copy(PICTURE, home / "edge-pictures" / "two.png")
        wait_for(lambda: (tmp_path / "journal").read_text().endswith("\n"))
        said = json.loads((tmp_path / "journal").read_text())
        assert said["name"] == str(home / "edge-pictures" / "two.png") and said["outputs"][0]["top"][0]["index"] == 2
        (home / "edge-pictures" / "two.png").unlink()
        uninstall(model, device.address)
    assert all_of(home) == []


# -- wheels --------------------------------------------------------------------------------------------------------------------


def test_wheels_of_a_device_are_asked_for_by_its_glibc() -> None:
    tags = Platform("aarch64", "3.11", (2, 36)).tags
    assert tags[0] == "manylinux_2_36_aarch64" and tags[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"] and len(tags) == 21


# -- an emulated Raspberry Pi ----------------------------------------------------------------------------------------------------


def emulated(home: Path, core: str, board: str) -> list[str]:
    """The command that enters the user space on a core, as a board of that name, with nothing but the system's Python."""
    root = raspberry_pi.user_space()
    model = home.parent / "board"
    model.write_text(f"{board}\0")
    binds = ["/dev", "/proc", f"{root}/boards/{core}:/proc/cpuinfo", f"{model}:/proc/device-tree/model", f"{home}:/home/pi"]
    # proot ends with 0 where its child dies of a signal: hence the shell around it.
    environment = ["/usr/bin/env", "-i", "HOME=/home/pi", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"]
    inside = [*environment, "/bin/sh", "-c", '/bin/sh -c "$1"; exit $?', "sh"]
    bound = [word for bind in binds for word in ("-b", bind)]
    return ["proot", "-q", f"qemu-aarch64 -cpu {core}", "-r", str(root), *bound, "-w", "/home/pi", *inside]


@needs_the_user_space
@pytest.mark.parametrize("core", CHOSEN)
def test_a_raspberry_pi_without_a_network_gets_a_model(core: str, model: str, home: Path) -> None:
    """Emulated, over a real sshd: its Python, packages and kernels, installed by its own pip; it says nothing about time."""
    if not find_linkers("aarch64"):
        pytest.skip("needs a linker for aarch64: apt-get install gcc-aarch64-linux-gnu")
    with ssh_device(home, emulated(home, core, BOARDS[core])) as device:
        plan = Plan(picture=PICTURE, offline=True, seconds=0.05)
        done = deploy(model, device.address, plan)
        assert done.device.board == BOARDS[core] and done.device.machine == "aarch64" and done.prediction is not None
        assert done.figures["answer"].startswith("picture.png: 2 (") and done.figures["backend"] in ("edge neon", f"edge {CORES[core]}")
        assert "numba" not in done.figures["versions"] and "tensorflow" not in done.figures["versions"]
        assert deploy(model, device.address, plan).replaced
        assert "picture.png: 2 (" in answer_of(device)
        uninstall(model, device.address)
    assert all_of(home) == []
