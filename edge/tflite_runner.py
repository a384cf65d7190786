"""Run `.tflite` files through an interpreter that is installed: ai-edge-litert, else tflite-runtime, else TensorFlow.

An interpreter is native code that trusts the file, so `edge.tflite_check` proves the file whole before one sees it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import threading
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.batches import by_input, size_text, together
from edge.errors import FormatError, InputError, MissingPackage
from edge.paths import require_file
from edge.tensors import TensorInfo
from edge.tflite_check import check_tflite, notes_of

Array = np.ndarray

# Distribution names and the module of each that has `Interpreter`, best first.
_BACKENDS = {
    "ai-edge-litert": ("ai_edge_litert.interpreter", ("ai-edge-litert",)),
    "tflite-runtime": ("tflite_runtime.interpreter", ("tflite-runtime",)),
    "tensorflow": ("tensorflow.lite.python.interpreter", ("tensorflow", "tensorflow-cpu")),
}


class TfliteModel:
    """A loaded `.tflite` file.

    `backend` names the interpreter and its version. `notes` is the description that `edge.converters.tflite.write_tflite` was given,
    None for the file of another converter. One model may be used from several Python threads: a lock lets one inference through at a time.
    """

    def __init__(self, interpreter: Any, backend: str, notes: str | None = None) -> None:
        self.backend = backend
        self.notes = notes
        self._interpreter = interpreter
        self._lock = threading.Lock()
        self._input_details = _in_order(interpreter, interpreter.get_input_details(), "inputs")
        self._output_details = _in_order(interpreter, interpreter.get_output_details(), "outputs")
        self.inputs = tuple(_info(name, detail) for name, detail in self._input_details)
        self.outputs = tuple(_info(name, detail) for name, detail in self._output_details)

    def run(self, *x: Any) -> Any:
        """The network's outputs for a batch.

        `x` is one example or a batch of arrays of the input's shape, real values; for a quantized input they are quantized here, except
        that an array of the input's own dtype is taken as it is. For several inputs it is one array for each, a list of them, or a dict by
        input name (`edge.batches`). Returns float32 of shape (N, *output) for a batch, without the first axis for one example; a list of
        such arrays for several outputs. Raises `InputError` if `x` does not fit.
        """
        batches, single = self._batches(x)
        results = [np.empty((len(batches[0]), *info.shape), np.float32) for info in self.outputs]
        with self._lock:
            for i in range(len(batches[0])):
                for result, value in zip(results, self._invoke([batch[i : i + 1] for batch in batches]), strict=True):
                    result[i] = value
        if single:
            results = [result[0] for result in results]
        return results[0] if len(results) == 1 else results

    def placed(self, *example: Any) -> Callable[[], None]:
        """Store one example in the input tensors, as `run` would; what is returned runs the network on it and nothing else."""
        batches, _ = self._batches(example)
        if len(batches[0]) != 1:
            raise InputError(f"one example fits the input tensor, got {len(batches[0])}; pass one of them")
        self._place(batches)
        invoke: Callable[[], None] = self._interpreter.invoke
        return invoke

    def tensors(self, names: Collection[str]) -> dict[str, Array]:
        """Real values of the tensors `names`, without the batch axis, as the last run left them; of those that the interpreter still has.

        All of them are there in a model loaded with `keep_tensors`, but for those that the interpreter does without.
        """
        found = {}
        for detail in self._interpreter.get_tensor_details():
            if detail["name"] in names and len(detail["shape"]) and detail["name"] not in found:
                try:
                    stored = self._interpreter.get_tensor(detail["index"])
                except (ValueError, RuntimeError):
                    continue
                found[detail["name"]] = _from_tensor(stored, detail)[0]
        return found

    def _batches(self, x: tuple[Any, ...]) -> tuple[list[Array], bool]:
        values = zip(by_input(x, self.inputs), self.inputs, strict=True)
        return together([_batch(value, info) for value, info in values], self.inputs)

    def _place(self, example: Sequence[Array]) -> None:
        for (_, detail), values in zip(self._input_details, example, strict=True):
            self._interpreter.set_tensor(detail["index"], _to_tensor(values, detail))

    def _invoke(self, example: Sequence[Array]) -> list[Array]:
        try:
            self._place(example)
            self._interpreter.invoke()
            return [_from_tensor(self._interpreter.get_tensor(d["index"]), d)[0] for _, d in self._output_details]
        except (ValueError, RuntimeError, MemoryError) as err:
            raise FormatError(f"{self.backend} could not run the .tflite file: {_first_line(err)}; convert the model again.") from err


def load_tflite(path: str | Path, *, threads: int = 1, tensorflow: bool = True, keep_tensors: bool = False) -> TfliteModel:
    """Load a `.tflite` file for batches of one example after another.

    tensorflow: whether its interpreter will do where no smaller one is installed; importing it takes seconds.
    keep_tensors: let `TfliteModel.tensors` give what lies between the operators; they then run one by one, without XNNPACK.
    Raises `InputError` if there is no such file, `FormatError` if it is damaged or no interpreter of this machine takes it, and
    `MissingPackage` where none is installed.
    """
    data = require_file(path, "model").read_bytes()
    try:
        check_tflite(data)
        notes = notes_of(data)
    except FormatError as err:
        raise FormatError(f"{path}: {err}") from err
    module, backend = _backend(tensorflow)
    try:
        return TfliteModel(_interpreter(module, data, threads, keep_tensors), backend, notes)
    except (ValueError, RuntimeError, TypeError, MemoryError) as err:
        raise FormatError(
            f"{path}: {backend} does not take this .tflite file: {_first_line(err)}; convert the model again, or update the interpreter."
        ) from err


def _backend(tensorflow: bool) -> tuple[Any, str]:
    """The first interpreter module that imports, and its name and version."""
    wanted = {name: places for name, places in _BACKENDS.items() if tensorflow or name != "tensorflow"}
    for name, (module, distributions) in wanted.items():
        try:
            return importlib.import_module(module), f"{name} {_version(distributions)}".strip()
        except ImportError:
            continue
    raise MissingPackage(
        f"Running a .tflite file needs one of {', '.join(wanted)}, and none is installed: install one with "
        "pip install 'edge-lowbit[litert]'."
    )


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _interpreter(module: Any, data: bytes, threads: int, keep_tensors: bool) -> Any:
    """An interpreter with its tensors allocated for one example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow says that its interpreter moved to ai-edge-litert
        interpreter = module.Interpreter(model_content=data, num_threads=threads, experimental_preserve_all_tensors=keep_tensors)
    for detail in interpreter.get_input_details():
        shape = [int(size) for size in detail["shape"]]
        if shape and shape[0] != 1:
            interpreter.resize_tensor_input(detail["index"], [1, *shape[1:]])
    interpreter.allocate_tensors()
    return interpreter


def _in_order(interpreter: Any, details: list[dict[str, Any]], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The tensors with their names: those of the signature where the file has one, which TensorFlow's converter keeps there alone."""
    signature: Mapping[str, str] = {}
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner()
        found = getattr(runner, f"get_{kind[:-1]}_details")()
        signature = {detail["index"]: name for name, detail in found.items()}
    return [(signature.get(detail["index"], detail["name"]), detail) for detail in details]


def _info(name: str, detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]  # 0, 0 where a tensor has none
    return TensorInfo(name, tuple(int(size) for size in detail["shape"][1:]), np.dtype(detail["dtype"]).name, scale or 1.0, zero_point)


def _batch(x: Any, info: TensorInfo) -> tuple[Array, bool]:
    """`x` as a batch for an input, and whether it was one example."""
    array, shape = np.asarray(x), info.shape
    if array.ndim == 0 and shape == (1,):
        array = array[np.newaxis]
    single = array.ndim == len(shape)
    batch = array[np.newaxis] if single else array
    if batch.shape[1:] != shape or array.dtype.kind not in "fiub":
        wanted = size_text(shape)
        raise InputError(
            f"the input {info.name} does not fit: expected numbers of shape (N, {wanted}) or ({wanted}), received {array.dtype} of "
            f"{array.shape}; resize or convert it"
        )
    return batch, single


def _to_tensor(values: Array, detail: dict[str, Any]) -> Array:
    """Real values as the tensor stores them: round half to even of value / scale, plus the zero point, clamped."""
    dtype = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    if values.dtype == dtype or scale == 0:
        return values.astype(dtype)
    bounds = np.iinfo(dtype)
    with np.errstate(invalid="ignore"):  # what is not a number has no integer; it gives some
        steps = np.rint(values.astype(np.float32) / np.float32(scale)) + zero
        clamped: Array = np.clip(steps, bounds.min, bounds.max)
        return clamped.astype(dtype)


def _from_tensor(stored: Array, detail: dict[str, Any]) -> Array:
    """Stored values as the real float32 they stand for."""
    scale, zero = detail["quantization"]
    if scale == 0:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def _first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
