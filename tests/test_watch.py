"""`edge run --watch` and `--camera`: what counts as a picture that is there, and a line for each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from edge import camera, cli_stream
from edge.camera import find_camera
from edge.cli import cli
from edge.errors import InputError, MissingPackage
from edge.watch import PATIENCE_S, POLL_S, Watch, appearing

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "examples" / "image.png"


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def look(self, watch: Watch) -> list[str]:
        self.now += POLL_S
        return [path.name for path in watch.ready()]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["run", "-m", "digits", *map(str, arguments)], catch_exceptions=False)


# -- a folder ------------------------------------------------------------------------------------------------------------------


def test_a_picture_counts_once_when_it_stays_as_it_is(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    (tmp_path / "a.png").write_bytes(b"1")
    assert [clock.look(watch) for _ in range(4)] == [[], ["a.png"], [], []]


def test_a_picture_that_grows_is_waited_for(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    for size in range(1, 6):
        (tmp_path / "a.jpg").write_bytes(b"x" * size)
        assert clock.look(watch) == []
    assert clock.look(watch) == ["a.jpg"]


def test_what_was_there_counts_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    assert [clock.look(watch) for _ in range(3)] == [[], [], []]
    watch = Watch(tmp_path, existing=True, now=clock)
    assert clock.look(watch) == ["a.png"]


def test_a_picture_that_is_written_anew_counts_again(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    for content in (b"1", b"22"):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").rename(tmp_path / "a.png")
        assert [clock.look(watch) for _ in range(3)] == [[], ["a.png"], []]
    (tmp_path / "a.png").unlink()
    assert clock.look(watch) == []


def test_what_is_no_picture_file_is_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    for name in (".hidden.png", "a.png.part", "notes.txt", "a.tmp"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "nowhere.png").symlink_to("absent")
    os.mkfifo(tmp_path / "pipe.png")
    assert [clock.look(watch) for _ in range(3)] == [[], [], []]


def test_a_half_written_picture_comes_again_when_it_has_changed_and_a_last_time(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    picture = tmp_path / "a.png"
    picture.write_bytes(b"half")
    assert clock.look(watch) == [] and clock.look(watch) == ["a.png"]
    assert watch.give_back(picture)
    assert clock.look(watch) == []
    picture.write_bytes(b"a whole one")
    assert clock.look(watch) == [] and clock.look(watch) == ["a.png"]
    assert watch.give_back(picture)
    clock.now += PATIENCE_S
    assert clock.look(watch) == ["a.png"] and not watch.give_back(picture)
    assert clock.look(watch) == []


def test_an_empty_picture_is_waited_for(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    (tmp_path / "a.png").touch()
    assert [clock.look(watch) for _ in range(4)] == [[], [], [], []]
    clock.now += PATIENCE_S
    assert clock.look(watch) == ["a.png"]


def test_a_picture_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, now=clock)
    (tmp_path / "a.png").write_bytes(b"1")
    clock.look(watch)
    (tmp_path / "a.png").unlink()
    assert clock.look(watch) == [] and watch.give_back(tmp_path / "a.png")


@given(st.lists(st.sampled_from(["write", "append", "rename", "remove", "look"]), max_size=12))
def test_whatever_happens_each_state_counts_at_most_once_and_the_last_one_does(actions: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        clock, picture, counted = Clock(), Path(folder) / "a.png", []
        watch = Watch(folder, now=clock)
        for number, action in enumerate(actions):
            if action == "write":
                picture.write_bytes(b"%d" % number + b"x" * number)
            elif action == "append":
                with picture.open("ab") as file:
                    file.write(b"x" * (number + 1))
            elif action == "rename":
                Path(folder, "new").write_bytes(b"%d" % number)
                Path(folder, "new").rename(picture)
            elif action == "remove":
                picture.unlink(missing_ok=True)
            else:
                counted += [picture.read_bytes() for _ in clock.look(watch)]
        counted += [picture.read_bytes() for _ in range(2) for _ in clock.look(watch)]
        assert not picture.exists() or picture.read_bytes() == counted[-1]
        assert clock.look(watch) == []


def test_a_folder_that_is_gone_ends_the_watch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot watch .*absent: expected a folder"):
        Watch(tmp_path / "absent")
    (tmp_path / "inbox").mkdir()
    pictures = appearing(Watch(tmp_path / "inbox"), sleep=lambda seconds: shutil.rmtree(tmp_path / "inbox"))
    with pytest.raises(InputError, match="expected a folder"):
        next(pictures)


# -- the command ---------------------------------------------------------------------------------------------------------------


def test_pictures_that_appear_are_lines_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One written in two halves with a pause, one that is damaged, one that is moved there."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "before.png").write_bytes(PICTURE.read_bytes())
    whole = PICTURE.read_bytes()

    def write() -> None:
        time.sleep(3 * POLL_S)
        (inbox / "slow.png").write_bytes(whole[: len(whole) // 2])
        (inbox / "damaged.png").write_bytes(whole[:50])
        time.sleep(4 * POLL_S)
        (inbox / "slow.png").write_bytes(whole)
        shutil.copy(PICTURE, tmp_path / "moved.png")
        (tmp_path / "moved.png").rename(inbox / "moved.png")

    writer = threading.Thread(target=write)

    class Watched(Watch):
        def __init__(self, folder: Path, *, existing: bool) -> None:
            super().__init__(folder, existing=existing)
            writer.start()

    monkeypatch.setattr(cli_stream, "Watch", Watched)
    said = invoke("--watch", inbox, "--count", 3, "--json")
    writer.join()
    lines = {Path(line["name"]).name: line for line in map(json.loads, said.stdout.splitlines())}
    assert set(lines) == {"slow.png", "moved.png", "damaged.png"} and said.exit_code == 1
    assert lines["slow.png"]["outputs"][0]["top"][0]["index"] == 2 and "values" not in lines["slow.png"]["outputs"][0]
    assert "damaged or cut short" in lines["damaged.png"]["error"] and lines["moved.png"]["time"].endswith("+00:00")
    assert "watching" in said.stderr


def test_what_is_there_is_run_if_asked_for_and_shown_for_people(tmp_path: Path) -> None:
    shutil.copy(PICTURE, tmp_path / "two.png")
    said = invoke("--watch", tmp_path, "--existing", "--count", 1)
    assert said.exit_code == 0 and "two.png: 2 " in said.stdout and len(said.stdout.splitlines()) == 1


@pytest.mark.parametrize("arguments", ["", "a.png --camera", "--watch x --camera", "a --watch x", "--camera --timing", "--watch x -o y"])
def test_pictures_come_from_one_place(arguments: str) -> None:
    assert invoke(*arguments.split()).exit_code == 2


def test_a_watch_ends_when_it_is_told_to(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "edge"), "run", "-m", "digits", "--watch", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "watching" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=10) == 0


# -- a camera ------------------------------------------------------------------------------------------------------------------


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


def last_argument(action: str) -> str:
    return f'for last; do :; done\n{action}'


@pytest.mark.parametrize("name", ["rpicam-still", "libcamera-still"])
def test_stills_of_a_raspberry_pi_are_classified(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "$@" >>"{tmp_path}/log"\n' + last_argument(f'cp "{PICTURE}" "$last"')
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin", name, script)), prepend=os.pathsep)
    said = invoke("--camera", "--count", 2, "--every", 0, "--json")
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert said.exit_code == 0 and [line["name"] for line in lines] == ["camera", "camera"]
    assert all(line["outputs"][0]["top"][0]["index"] == 2 for line in lines)
    assert (tmp_path / "log").read_text().splitlines()[0].startswith("--nopreview --timeout 1000 --output /")


@pytest.mark.parametrize(
    ("name", "script"),
    [("ffmpeg", last_argument(f'cp "{PICTURE}" "$last"')), ("v4l2-ctl", last_argument(f'cp "{PICTURE}" "${{last#--stream-to=}}"'))],
)
def test_stills_of_a_video_device_are_classified(name: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = program(tmp_path / "bin", name, script)
    monkeypatch.setattr(camera.shutil, "which", lambda wanted: str(found / name) if wanted == name else None)
    said = invoke("--camera", "--device", "/dev/null", "--count", 1)
    assert said.exit_code == 0 and "camera: 2 " in said.stdout and f"/dev/null through {name}" in said.stderr


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'ERROR: *** no cameras available ***' >&2; exit 255", "no cameras available"),
        ("exit 0", "no picture"),
        (last_argument(': >"$last"'), "no picture"),
    ],
)
def test_a_camera_that_gives_nothing_is_one_sentence(script: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin", "rpicam-still", script)), prepend=os.pathsep)
    said = invoke("--camera", "--count", 1)
    assert said.exit_code == 1 and expected in said.stderr.splitlines()[-1] and "rpicam-hello --list-cameras" in said.stderr


def test_a_camera_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin", "rpicam-still", "exec sleep 20")), prepend=os.pathsep)
    monkeypatch.setattr(camera, "_TIMEOUT_S", 0.2)
    with pytest.raises(InputError, match=r"nothing within 0.2 s"):
        find_camera().take(tmp_path / "still.jpg")


def test_no_camera_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera.shutil, "which", lambda name: None)
    monkeypatch.setattr(camera, "_DEVICES", Path("/nowhere"))
    said = invoke("--camera")
    assert said.exit_code == 1 and "there is no camera: expected rpicam-still" in said.stderr
    assert "there is no camera /dev/absent" in invoke("--camera", "--device", "/dev/absent").stderr
    with pytest.raises(MissingPackage, match="need ffmpeg or v4l2-ctl"):
        find_camera("/dev/null")
