"""`edge run --watch` and `--camera`: pictures without an end, a line for each."""

from __future__ import annotations

import datetime
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.camera import SUFFIX, find_camera
from edge.cli_classify import Failure, attempt
from edge.console import count_text, out, printable, say, seconds_text, styled
from edge.errors import InputError
from edge.watch import Watch, appearing

if TYPE_CHECKING:
    from edge.cli_classify import Classifier, Result
    from edge.feeds import JointItem
    from edge.items import Item


@dataclass(frozen=True)
class Stream:
    """Where pictures come from: the folder `watch`, else a camera.

    device: of the camera, None for the first there is. every: seconds between stills. count: after how many to end, None: never.
    existing: what is in the folder already counts. as_json: a line of JSON for each picture.
    """

    watch: str | None
    device: str | None
    every: float
    count: int | None
    existing: bool
    as_json: bool


def run_stream(classify: Classifier, stream: Stream) -> None:
    """Classify what comes; the exit code is 1 where the last of `count` pictures, or all of them, failed. Raises `InputError`."""
    classify.preprocess.check(classify.shape)
    signal.signal(signal.SIGTERM, _stop)
    results = _watched(classify, stream) if stream.watch is not None else _stills(classify, stream)
    failures = 0
    for number, result in enumerate(results, 1):
        failures += isinstance(result, Failure)
        _print(result, stream)
        if number == stream.count:
            break
    if failures:
        raise click.exceptions.Exit(1)


def _stop(*_: object) -> None:
    """How a service ends: with nothing left behind."""
    sys.exit(0)


def _watched(classify: Classifier, stream: Stream) -> Iterator[Result | Failure]:
    watch = Watch(stream.watch or "", existing=stream.existing)
    say(f"watching {watch.folder} for pictures; end with Ctrl-C")
    for path in appearing(watch):
        result = _classified(classify, path)
        if not isinstance(result, Failure) or not watch.give_back(path):
            yield result


def _stills(classify: Classifier, stream: Stream) -> Iterator[Result | Failure]:
    camera = find_camera(stream.device)
    say(f"stills of {camera.name}; end with Ctrl-C")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"still{SUFFIX}"
        while True:
            started = time.monotonic()
            camera.take(path)
            yield _renamed(_classified(classify, path), path, "camera")
            path.unlink()
            time.sleep(max(0.0, started + stream.every - time.monotonic()))


def _classified(classify: Classifier, path: Path) -> Result | Failure:
    try:
        items: list[Item | JointItem] = list(classify.feeds.items(path))
    except InputError as err:
        return Failure(str(path), str(err))
    return attempt(classify, items[0])


def _renamed(result: Result | Failure, path: Path, name: str) -> Result | Failure:
    """The result under the name of its source, since the file is gone soon."""
    if isinstance(result, Failure):
        return Failure(name, result.error.replace(str(path), name))
    return replace(result, name=name)


def _print(result: Result | Failure, stream: Stream) -> None:
    if stream.as_json:
        out(json.dumps({"time": _now(), **_entry(result)}, allow_nan=False))
    elif isinstance(result, Failure):
        say(result.error, style="red")
    else:
        out(f"{_now()}  {printable(result.name)}: {_answers(result)}  {styled(seconds_text(result.run_s), 'dim')}")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _entry(result: Result | Failure) -> dict[str, Any]:
    from edge.answers import top_to_json

    if isinstance(result, Failure):
        return {"name": result.name, "error": result.error}
    outputs = [
        {"name": answer.head.name, **top_to_json(answer.ranked, answer.head.kind)}
        if answer.ranked is not None
        else {"name": answer.head.name, "kind": answer.head.kind, "shape": list(answer.values.shape), "values": answer.values.tolist()}
        for answer in result.answers
    ]
    return {"name": result.name, "latency_s": result.run_s, "outputs": outputs}


def _answers(result: Result) -> str:
    from edge.answers import format_value

    texts = []
    for answer in result.answers:
        ranked = answer.ranked or ()
        named = ", ".join(f"{printable(entry.name)} {format_value(entry.value, answer.head.kind)}" for entry in ranked)
        texts.append(named or f"{count_text(answer.values.size, 'value')}, see --json")
    return "; ".join(texts)
