"""Runs in Larq's environment: answers requests for Larq Compute Engine, one JSON object a line on stdin, one a line on stdout.

| request                                                          | answer                                                   |
|------------------------------------------------------------------|----------------------------------------------------------|
| {"open": FILE.tflite, "indirect": b, "xnnpack": b, "threads": n} | {"interpreter": number}                                  |
| {"time": number, "calls": n}                                     | {"seconds": s}: n inferences of the same input in a row  |
| {"answer": number, "inputs": FILE.npy, "outputs": FILE.npy}      | {}: the file of outputs is written                       |
| what cannot be done                                              | {"error": text}                                          |

Between requests it waits for the next line, and so leaves the processor to whoever is timed in turn.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from larq_compute_engine.tflite.python.interpreter import Interpreter

Request = Mapping[str, Any]
INTERPRETERS: list[tuple[Any, list[np.ndarray]]] = []  # with the input that is timed


def open_model(request: Request) -> dict[str, Any]:
    interpreter = Interpreter(
        Path(request["open"]).read_bytes(),
        num_threads=request["threads"],
        use_indirect_bgemm=request["indirect"],
        use_xnnpack=request["xnnpack"],
    )
    (shape,) = interpreter.input_shapes
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    # The wrapped object takes the input as it is; `Interpreter.predict` adds a generator and a concatenation to every call.
    INTERPRETERS.append((interpreter.interpreter, [x]))
    return {"interpreter": len(INTERPRETERS) - 1}


def time_calls(request: Request) -> dict[str, Any]:
    interpreter, x = INTERPRETERS[request["time"]]
    started = time.perf_counter()
    for _ in range(request["calls"]):
        interpreter.predict(x)
    return {"seconds": time.perf_counter() - started}


def answer(request: Request) -> dict[str, Any]:
    interpreter, _ = INTERPRETERS[request["answer"]]
    inputs = np.load(request["inputs"])
    np.save(request["outputs"], np.concatenate([interpreter.predict([x[None]])[0] for x in inputs]))
    return {}


HANDLERS: Mapping[str, Callable[[Request], dict[str, Any]]] = {"open": open_model, "time": time_calls, "answer": answer}


def handle(line: str) -> dict[str, Any]:
    request = json.loads(line)
    name = next((name for name in HANDLERS if name in request), None)
    if name is None:
        return {"error": f"expected one of {', '.join(HANDLERS)}, got {line.strip()}"}
    try:
        return HANDLERS[name](request)
    except (OSError, ValueError, RuntimeError, IndexError, KeyError) as err:
        return {"error": f"{type(err).__name__}: {err}"}


def main() -> None:
    # TensorFlow Lite prints to stdout and stderr as it likes: answers go to a stdout of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(handle(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
