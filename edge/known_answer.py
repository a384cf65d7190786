"""A picture and the answer a model gave it where it was packed: run again elsewhere, it shows that the model works there.

    python -m edge.known_answer FOLDER        the folder holds what `record` wrote: answer.json, the model and the picture

Runs on a device without click and without a command line; prints one line, and exits with 1 if the answer differs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.answers import format_value
from edge.certificate import KEY, held
from edge.cli_classify import Answer, Classifier, Result, classifier
from edge.cli_model import Model, load_model
from edge.errors import EdgeError, InputError
from edge.feeds import JointItem
from edge.items import Item
from edge.preprocess import default_for
from edge.self_check import NETWORK_TOLERANCE, repeat, require

FILE = "answer.json"
TOLERANCE = NETWORK_TOLERANCE  # packed layers are equal everywhere, floats round differently without fused multiply-add


@dataclass(frozen=True)
class KnownAnswer:
    """Names of the files, beside `answer.json`, of model and picture; the values of every output; the answer in words."""

    model: str
    picture: str
    outputs: tuple[np.ndarray, ...]
    text: str

    def to_json(self) -> dict[str, Any]:
        outputs = [{"shape": list(values.shape), "values": values.reshape(-1).tolist()} for values in self.outputs]
        return {"model": self.model, "picture": self.picture, "answer": self.text, "outputs": outputs}


def record(model: Path, picture: Path) -> KnownAnswer:
    """What a model answers to a picture (or to a `.npy` file that holds one input)."""
    result = _run(load_model(model), picture)
    return KnownAnswer(model.name, picture.name, tuple(answer.values for answer in result.answers), _text(result.answers))


def read_answer(folder: Path) -> KnownAnswer:
    """The answer stored in a folder. Raises `InputError` where it is missing or damaged."""
    path = folder / FILE
    try:
        stored = json.loads(path.read_text("utf-8"))
        outputs = tuple(np.array(o["values"], np.float32).reshape(o["shape"]) for o in stored["outputs"])
        return KnownAnswer(_inside(stored["model"]), _inside(stored["picture"]), outputs, str(stored["answer"]))
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise InputError(f"cannot read {path}: expected what `edge bundle` writes there ({err}); unpack the bundle again") from err


def _inside(name: object) -> str:
    """A file's name; anything that leads elsewhere is refused."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a file")
    return name


def check(folder: Path) -> str:
    """Run the picture again, repeat the model's certificate if it has one, and say what came out.

    Raises `EdgeError` where it is another answer, where an operation gives another result, and where the certificate is void.
    """
    known = read_answer(folder)
    started = time.perf_counter()
    model = load_model(folder / known.model)
    result = _run(model, folder / known.picture)
    seconds = time.perf_counter() - started
    got = [answer.values for answer in result.answers]
    if [values.shape for values in got] != [values.shape for values in known.outputs]:
        raise EdgeError(f"{known.model} has other outputs than {FILE} expects; unpack the bundle again")
    for values, expected in zip(got, known.outputs, strict=True):
        _compare(known, result, values, expected)
    said = f"{known.picture}: {_text(result.answers)}, as expected; inference {result.run_s * 1e3:.3g} ms, with loading {seconds:.1f} s"
    return said + _repeated(model)


def _repeated(model: Model) -> str:
    """What repeating the certificate gave, after the rest of a sentence; nothing without one."""
    if model.engine is None or KEY not in model.engine.program.metadata:
        return ""
    outcome = repeat(model.engine, held(model.engine.program, str(model.path)).check)
    require(outcome, str(model.path))
    return f"; its certificate: {outcome.text}"


def _compare(known: KnownAnswer, result: Result, values: np.ndarray, expected: np.ndarray) -> None:
    largest = float(np.abs(values - expected).max(initial=0.0))
    if not largest <= TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0))):
        raise EdgeError(
            f"{known.picture} gives another answer here: expected {known.text}, got {_text(result.answers)} (values differ by up to "
            f"{largest:.3g}); please report it with the output of: edge doctor"
        )


def _run(model: Model, picture: Path) -> Result:
    preprocess = model.preprocess or default_for(model.takes_bytes)
    classify: Classifier = classifier(model, preprocess, labels=model.labels, kind=None, k=1, repeat=1)
    items: list[Item | JointItem] = list(classify.feeds.items(picture))
    if len(items) != 1:
        raise InputError(f"{picture} holds {len(items)} inputs, expected one; name a single picture")
    return classify.run(items[0])


def _text(answers: Sequence[Answer]) -> str:
    """The best class and its value, or for outputs that rank nothing their size."""
    first = answers[0]
    if not first.ranked:
        return f"{first.head.name} of {'x'.join(map(str, first.values.shape))}"
    best = first.ranked[0]
    return f"{best.name} ({format_value(best.value, first.head.kind)})"


def main(arguments: Sequence[str]) -> int:
    """The exit code of `python -m edge.known_answer FOLDER`."""
    if len(arguments) != 1:
        print("usage: python -m edge.known_answer FOLDER", file=sys.stderr)
        return 2
    try:
        print(check(Path(arguments[0])))
    except EdgeError as err:
        print(f"edge: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
