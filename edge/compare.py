"""How far a converted file computes what its source does: layer by layer, and from input to output.

Layer by layer every piece of an `.edge` program gets the source's own tensors, so that an error shows where it is made, and nowhere else
(`edge.compare_layers`). From input to output the answers count. A `.tflite` file is compared from input to output alone.

The verdict follows from what the conversion gave up (`LayerComparison.precision`):

- the file says that it was made from other bytes than the source's, and anything differs by more than rounding: not equal;
- nothing: no sign differs but for ties, values differ by rounding (1e-4 of the largest magnitude, at least 1e-4), and so do the outputs,
  except for examples in which a tie is shown to have flipped;
- 8 bits: values within 10 % of the largest magnitude of their tensor, at most 10 % of signs, and the same class for at least 90 % of the
  examples;
- 1 bit: layers are shown, not judged; the same class for at least 90 % of the examples.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.cli_model import Head, Model, load_model
from edge.compare_layers import EXACT, LayerComparison, Tally, anchors, pieces, tally, tensor_names, tie_decided
from edge.converters.keras_file import read_keras
from edge.converters.keras_model import KerasModel
from edge.converters.layers import read_graph, rescales_itself
from edge.converters.report import WARN_BELOW
from edge.converters.samples import DATA_ARRAYS, Source, load_samples
from edge.errors import InputError, ModelError
from edge.graph import Array, Graph
from edge.oracle import Oracle, Truth, find_oracle, sign_sources
from edge.preprocess import default_for

Progress = Callable[[int, int], None]

KERAS_COUNT, REFERENCE_COUNT = 1000, 100  # pictures compared unless told otherwise
RANDOM_COUNT = 20
OUTPUT_TOLERANCE = 1e-4
_CHUNK_VALUES = 1 << 24  # of all tensors of the examples computed together
_CLASSES = ("probabilities", "sigmoid", "logits")


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    oracle              what computed the source, and `oracle_note` why that is not Keras
    data                where the `examples` came from
    first_difference    the layers of the first piece that is not equal, None if all are
    output_difference   the largest absolute difference of an output value
    same_class          share of examples with the same class, None where outputs are no classes
    tied_examples       examples whose outputs differ because a tie flipped
    accuracy            share of right classes, None where the data holds no labels; `source_accuracy` the source's
    """

    source: str
    converted: str
    oracle: str
    oracle_note: str
    examples: int
    data: str
    layers: tuple[LayerComparison, ...]
    first_difference: tuple[str, ...] | None
    output_difference: float
    same_class: float | None
    tied_examples: tuple[int, ...]
    source_accuracy: float | None
    accuracy: float | None
    equal: bool
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values (what is not finite as text)."""
        return {key: _jsonable(value) for key, value in dataclasses.asdict(self).items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def compare(
    source: str | os.PathLike[str],
    converted: str | os.PathLike[str],
    *,
    data: Source | None = None,
    count: int | None = None,
    seed: int = 0,
    keras: bool | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare a converted `.edge` or `.tflite` file with the Keras model it was made from.

    data        examples as in `edge.convert`; random ones in the input's domain, from `seed`, if none are given
    count       how many of them, spread over the whole; by default at most 1000 with Keras, 100 without, 20 random ones
    keras       True asks for Keras as oracle, False for the reference interpreter; by default Keras where it can be had
    progress    called with (done, total) examples

    Raises `EdgeError` for files that cannot be read or do not belong together.
    """
    model = load_model(Path(converted))
    keras_model = _read_source(source, model)
    graph = read_graph(keras_model, input_dtype="uint8" if model.takes_bytes else "float32")
    _check_fit(model, graph, keras_model)
    oracle = find_oracle(Path(source), keras_model, graph, keras=keras)
    examples = _examples(model, keras_model, oracle, data, count, seed)
    foreign = model.source_sha256 not in (None, keras_model.sha256)
    run = _Run(model, oracle, examples, foreign=foreign)
    return run.compare(os.fspath(source), os.fspath(converted), progress or (lambda done, total: None))


def _read_source(source: str | os.PathLike[str], model: Model) -> KerasModel:
    try:
        return read_keras(Path(source), input_shape=tuple(model.input.shape))
    except ModelError as err:
        shape = "x".join(map(str, model.input.shape))
        raise ModelError(f"cannot compare with {model.path}, whose input is {shape}: {err}; name the model it was made from") from err


def _check_fit(model: Model, graph: Graph, source: KerasModel) -> None:
    got = [tuple(head.shape) for head in model.heads]
    expected = [graph.types[name].shape for name in graph.outputs]
    if [math.prod(shape) for shape in got] != [math.prod(shape) for shape in expected]:
        raise InputError(f"{model.path} was not made from {source.source}: expected outputs of {expected}, got {got}; name its source")


# -- examples ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Examples:
    """What is compared: arrays as the network takes them, with their class where it is known."""

    items: Sequence[tuple[Array, int | None]] | Any
    count: int
    described: str

    def chunks(self, size: int) -> Iterator[tuple[Array, list[int | None]]]:
        """Batches of at most `size` with their labels."""
        arrays: list[Array] = []
        labels: list[int | None] = []
        for array, label in self.items:
            arrays.append(array)
            labels.append(label)
            if len(arrays) == size:
                yield np.stack(arrays), labels
                arrays, labels = [], []
        if arrays:
            yield np.stack(arrays), labels


def _examples(model: Model, source: KerasModel, oracle: Oracle, data: Source | None, count: int | None, seed: int) -> _Examples:
    if count is not None and count < 1:
        raise InputError(f"expected at least 1 example to compare, got {count}; leave --count out, or give 100, say")
    shape, dtype = tuple(model.input.shape), "uint8" if model.takes_bytes else "float32"
    preprocess = model.preprocess or default_for(rescales_itself(source))
    if data is None:
        values = _random(shape, dtype, preprocess.range, count or RANDOM_COUNT, seed)
        return _Examples([(value, None) for value in values], len(values), f"random inputs, seed {seed}")
    samples = load_samples(data, shape=shape, dtype=dtype, preprocess=preprocess, array_names=DATA_ARRAYS)
    chosen = samples.first(count or (KERAS_COUNT if oracle.is_keras else REFERENCE_COUNT))
    named = os.fspath(data) if isinstance(data, (str, os.PathLike)) else "given examples"
    return _Examples(chosen, len(chosen), f"{len(chosen)} of {len(samples)} of {named}")


def _random(shape: tuple[int, ...], dtype: str, domain: tuple[float, float], count: int, seed: int) -> Array:
    """Pixels, each level as likely, as the network takes them: bytes, or those scaled to its domain."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    if dtype == "uint8":
        return pixels.astype(np.uint8)
    low, high = domain
    return (low + pixels * ((high - low) / 255)).astype(np.float32)


# -- one comparison ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answers:
    """The outputs of one example, the source's and the converted network's."""

    want: tuple[Array, ...]
    got: tuple[Array, ...]
    label: int | None

    @property
    def difference(self) -> float:
        largest = max(float(np.abs(got - want).max(initial=0.0)) for got, want in zip(self.got, self.want, strict=True))
        return math.inf if math.isnan(largest) else largest

    @property
    def within(self) -> bool:
        """Whether the outputs differ by rounding alone."""
        magnitude = max(float(np.abs(want).max(initial=0.0)) for want in self.want)
        return self.difference <= OUTPUT_TOLERANCE * max(1.0, magnitude)


class _Run:
    """Collects what differs over all examples."""

    def __init__(self, model: Model, oracle: Oracle, examples: _Examples, *, foreign: bool) -> None:
        self.model, self.oracle, self.examples, self.foreign = model, oracle, examples, foreign
        program = model.engine.program if model.engine else None
        self.known = anchors(program, oracle.graph) if program else {}
        self.tallies = [Tally(piece) for piece in pieces(program, oracle.graph)] if program else []
        self.answers: list[_Answers] = []
        self.tied: list[int] = []

    def compare(self, source: str, converted: str, progress: Progress) -> Comparison:
        wanted = self._wanted()
        size = max(1, min(64, _CHUNK_VALUES // sum(kind.elements for kind in self.oracle.graph.types.values())))
        for batch, labels in self.examples.chunks(size):
            for example, truth, label in zip(batch, self.oracle.truths(batch, wanted), labels, strict=True):
                self._take(example, truth, label)
                progress(len(self.answers), self.examples.count)
        return self._result(source, converted)

    def _wanted(self) -> set[str]:
        names = {self.known[each.piece.output] for each in self.tallies} | set(self.known.values())
        return names | sign_sources(self.oracle.graph, names) | set(self.oracle.graph.outputs)

    def _take(self, example: Array, truth: Truth, label: int | None) -> None:
        want = tuple(truth.real(name) for name in self.oracle.graph.outputs)
        outputs = self.model.runner.run(example)
        got = tuple(array.reshape(w.shape) for array, w in zip(outputs if isinstance(outputs, list) else [outputs], want, strict=True))
        answers = _Answers(want, got, label)
        if self.model.engine is not None and not answers.within and tie_decided(self.model.engine, example, self.known, truth):
            self.tied.append(len(self.answers))
        self.answers.append(answers)
        if self.model.engine is not None:
            tally(self.model.engine, self.tallies, self.known, truth)

    def _result(self, source: str, converted: str) -> Comparison:
        layers = self._layers()
        first = next((layer for layer in layers if not layer.equal), None)
        same, source_accuracy, accuracy = _classes(self.answers, self.model.heads[0])
        equal, verdict = self._verdict(layers, first, same)
        return Comparison(
            source=source,
            converted=converted,
            oracle=self.oracle.name,
            oracle_note=self.oracle.note,
            examples=len(self.answers),
            data=self.examples.described,
            layers=layers,
            first_difference=first.layers if first else None,
            output_difference=max(answer.difference for answer in self.answers),
            same_class=same,
            tied_examples=tuple(self.tied),
            source_accuracy=source_accuracy,
            accuracy=accuracy,
            equal=equal,
            verdict=verdict,
        )

    def _layers(self) -> tuple[LayerComparison, ...]:
        if self.model.engine is None:
            return ()
        program = self.model.engine.program
        names = tensor_names(program)
        return tuple(each.result(program, names) for each in self.tallies)

    def _verdict(self, layers: Sequence[LayerComparison], first: LayerComparison | None, same: float | None) -> tuple[bool, str]:
        beyond = [i for i, answer in enumerate(self.answers) if not answer.within and i not in self.tied]
        if self.foreign and (first is not None or beyond):
            largest = max(answer.difference for answer in self.answers)
            return False, f"it was made from another file, and its outputs differ by up to {largest:.3g}; name that file, or convert again"
        if first is not None:
            return False, f"layer {'+'.join(first.layers)} differs from its source: {_difference(first)}"
        if not beyond:
            return True, f"equal to its source on {len(self.answers)} examples{self._but_ties(layers)}"
        if layers and all(layer.precision == EXACT for layer in layers):
            largest = max(self.answers[i].difference for i in beyond)
            return False, f"the outputs of {len(beyond)} of {len(self.answers)} examples differ, by up to {largest:.3g}, without a tie"
        return self._lowered(same)

    def _lowered(self, same: float | None) -> tuple[bool, str]:
        """Where precision was given up, or nothing is known of the layers."""
        if same is None:
            largest = max(answer.difference for answer in self.answers)
            magnitude = max(float(np.abs(want).max(initial=0.0)) for answer in self.answers for want in answer.want)
            enough = largest <= (1 - WARN_BELOW) * magnitude
            return enough, f"the outputs differ by at most {largest:.3g}, where values reach {magnitude:.3g}"
        return same >= WARN_BELOW, f"the same class as its source for {100 * same:.2f} % of {len(self.answers)} examples"

    def _but_ties(self, layers: Sequence[LayerComparison]) -> str:
        tied = sum(layer.tied_bits for layer in layers)
        values = sum(layer.values for layer in layers if layer.encoding == "bits")
        text = f", but for {tied} ties among {values:,} signs" if tied else ""
        return text + (f", which changed the outputs of {len(self.tied)}" if self.tied else "")


def _difference(layer: LayerComparison) -> str:
    if layer.flipped_bits:
        return f"{layer.flipped_bits:,} of {layer.values:,} signs"
    return f"by {layer.max_abs_error:.3g}, where {layer.tolerance:.3g} is rounding"


def _classes(answers: Sequence[_Answers], head: Head) -> tuple[float | None, float | None, float | None]:
    """(share with the same class, accuracy of the source, accuracy), None where there are no classes or no labels."""
    if head.kind not in _CLASSES:
        return None, None, None
    rows = [(_class(a.want[0], head.kind), _class(a.got[0], head.kind), a.label) for a in answers]
    same = float(np.mean([want == got for want, got, _ in rows]))
    labelled = [(want == label, got == label) for want, got, label in rows if label is not None]
    if not labelled:
        return same, None, None
    source_accuracy, accuracy = np.mean(labelled, axis=0).tolist()
    return same, source_accuracy, accuracy


def _class(output: Array, kind: str) -> int:
    """The class an output names; of a single value, whether it speaks for class 1."""
    if output.size == 1:
        return int(output.reshape(-1)[0] > (0.5 if kind == "sigmoid" else 0.0))
    return int(output.argmax())
