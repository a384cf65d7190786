"""How far converted files compute what their source does: layer by layer, and from input to output.

Layer by layer every piece of an `.edge` program gets the source's own tensors, so that an error shows where it is made, and nowhere else
(`edge.compare_layers`). A `.tflite` file runs from the input on, and its tensors are looked at as they come (`edge.compare_lite`). From
input to output the answers count.

The verdict follows from what the conversion gave up (`LayerComparison.precision`):

- the file says that it was made from other bytes than the source's, and anything differs by more than rounding: not equal;
- nothing: no sign differs but for ties, values differ by rounding (1e-4 of the largest magnitude, at least 1e-4), and so do the outputs,
  except for examples in which a tie is shown to have flipped;
- 8 bits: all but 0.1 % of the values within 10 % of the largest magnitude of their tensor, at most 10 % of signs, and the same class for at
  least 90 % of the examples;
- 4, 2 or 1 bits: layers are shown, not judged; the same class for at least 90 % of the examples.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge.certificate import program_sha256
from edge.chance import doubt
from edge.cli_model import Model, load_model
from edge.compare_data import Examples, given_examples, random_examples
from edge.compare_layers import EXACT, PRECISIONS, LayerComparison
from edge.compare_run import Run, run_all, start
from edge.compare_statistics import PairedDifference, Share
from edge.compare_verdict import classes, classes_told_apart, first_difference, verdict
from edge.converters.keras_file import read_keras
from edge.converters.keras_model import KerasModel
from edge.converters.layers import read_graph, rescales_itself
from edge.converters.samples import Source
from edge.errors import InputError, ModelError
from edge.graph import Graph
from edge.oracle import Oracle, find_oracle
from edge.preprocess import Preprocess, default_for

Progress = Callable[[int, int], None]

KERAS_COUNT, REFERENCE_COUNT = 1000, 100  # pictures compared unless told otherwise
RANDOM_COUNT = 20


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    backend             what ran the converted file
    oracle              what computed the source, and `oracle_note` why that is not Keras; `source_sha256` is of its file
    data                where the `examples` came from, `data_sha256` of what the network was given; of random ones the `seed`, and the
                        `domain` of their pixels
    remarks             why there is no accuracy, or why it may be one of other pixels than the source should see
    program_sha256      of the `.edge` file's program without its certificate (`edge.certificate`), None for other files
    layers              `fed_by_source`: each on its own, from the source's tensors; else one after the other, from the input on
    first_difference    the layers of the first one that is not equal, None if all are
    output_difference   the largest absolute difference of an output value
    same_class          share of examples with the same class, None where outputs are no classes
    tied_examples       examples whose outputs differ because a tie flipped
    accuracy            share of right classes, None where the data holds no labels; `source_accuracy` the source's
    *_interval          95 % of them, by Wilson; `accuracy_difference` of the two accuracies, paired
    """

    source: str
    source_sha256: str
    converted: str
    backend: str
    oracle: str
    oracle_is_keras: bool
    oracle_note: str
    examples: int
    data: str
    data_sha256: str
    seed: int | None
    domain: tuple[float, float]
    remarks: tuple[str, ...]
    program_sha256: str | None
    layers: tuple[LayerComparison, ...]
    fed_by_source: bool
    first_difference: tuple[str, ...] | None
    output_difference: float
    same_class: float | None
    same_class_interval: tuple[float, float] | None
    tied_examples: tuple[int, ...]
    source_accuracy: float | None
    source_accuracy_interval: tuple[float, float] | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    accuracy_difference: PairedDifference | None
    equal: bool
    verdict: str

    @property
    def precision(self) -> str:
        """The least precise of its layers: what equality means here."""
        found = {layer.precision for layer in self.layers}
        return next((each for each in PRECISIONS if each in found), EXACT)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values (what is not finite as text)."""
        return {key: _jsonable(value) for key, value in {**dataclasses.asdict(self), "precision": self.precision}.items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def compare(source: str | os.PathLike[str], converted: str | os.PathLike[str], **options: Any) -> Comparison:
    """Compare one converted `.edge` or `.tflite` file with the Keras model it was made from; options as in `compare_all`."""
    return compare_all(source, [converted], **options)[0]


def compare_all(
    source: str | os.PathLike[str],
    converted: Sequence[str | os.PathLike[str]],
    *,
    data: Source | None = None,
    count: int | None = None,
    seed: int = 0,
    keras: bool | None = None,
    weights: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Comparison, ...]:
    """Compare converted files with the Keras model they were made from, all on the same examples.

    data        examples as in `edge.convert`; random ones in the input's domain, from `seed`, if none are given
    count       how many of them, spread over the whole; by default at most 1000 with Keras, 100 without, 20 random ones
    keras       True asks for Keras as oracle, False for the reference interpreter; by default Keras where it can be had
    weights     the file with the source's weights, where it holds none (or others); by default that beside a JSON file
    progress    called with (done, total) examples, of files that take other arrays once more

    Raises `EdgeError` for files that cannot be read or do not belong together.
    """
    if count is not None and count < 1:
        raise InputError(f"expected at least 1 example to compare, got {count}; leave --count out, or give 100, say")
    models = [load_model(Path(path)) for path in converted]
    keras_model = _read_source(source, models[0], weights)
    oracle = partial(find_oracle, Path(source), keras_model, keras=keras, weights=weights)
    runs = _runs(oracle, keras_model, models)
    groups = [[run for run in runs if _input_dtype(run.model) == dtype] for dtype in ("uint8", "float32")]
    found: dict[int, Comparison] = {}
    for group in filter(None, groups):  # what takes other arrays has other examples, of the same pictures
        preprocess = group[0].model.preprocess or default_for(rescales_itself(keras_model))
        examples = _examples(group[0], preprocess, data, count, seed)
        run_all(group, examples, progress or (lambda done, total: None))
        found |= {id(run): _result(run, examples, preprocess, os.fspath(source), keras_model) for run in group}
    return tuple(found[id(run)] for run in runs)


def _runs(find: Callable[[Graph], Oracle], keras_model: KerasModel, models: Sequence[Model]) -> list[Run]:
    """What is compared, each with the graph of the source that takes what it takes; Keras reads the source once."""
    dtypes = [_input_dtype(model) for model in models]
    graphs = {dtype: read_graph(keras_model, input_dtype=dtype) for dtype in dict.fromkeys(dtypes)}
    for model, dtype in zip(models, dtypes, strict=True):
        _check_fit(model, graphs[dtype], keras_model)
    oracle = find(graphs[dtypes[0]])
    return [start(model, dataclasses.replace(oracle, graph=graphs[dtype])) for model, dtype in zip(models, dtypes, strict=True)]


def _input_dtype(model: Model) -> str:
    """What a model takes for pictures; `TfliteModel` makes bytes of real values itself."""
    return "uint8" if model.engine is not None and any(info.dtype == "uint8" for info in model.runner.inputs) else "float32"


def _read_source(source: str | os.PathLike[str], model: Model, weights: str | os.PathLike[str] | None) -> KerasModel:
    try:
        return read_keras(Path(source), input_shape=tuple(model.runner.inputs[0].shape), weights=weights)
    except ModelError as err:
        shape = "x".join(map(str, model.runner.inputs[0].shape))
        raise ModelError(f"cannot compare with {model.path}, whose input is {shape}: {err}; name the model it was made from") from err


def _check_fit(model: Model, graph: Graph, source: KerasModel) -> None:
    for kind, got, names in (("inputs", model.runner.inputs, graph.inputs), ("outputs", model.heads, graph.outputs)):
        shapes, expected = [tuple(each.shape) for each in got], [graph.types[name].shape for name in names]
        if [math.prod(shape) for shape in shapes] != [math.prod(shape) for shape in expected]:
            raise InputError(
                f"{model.path} was not made from {source.source}: expected {kind} of {expected}, got {shapes}; name its source"
            )


def _examples(run: Run, preprocess: Preprocess, data: Source | None, count: int | None, seed: int) -> Examples:
    graph = run.oracle.graph
    if data is None:
        return random_examples(graph, preprocess, count or RANDOM_COUNT, seed)
    most = count or (KERAS_COUNT if run.oracle.is_keras else REFERENCE_COUNT)
    return given_examples(graph, preprocess, data, most, classes_told_apart(run.model.heads[0]))


def _result(run: Run, examples: Examples, preprocess: Preprocess, source: str, keras_model: KerasModel) -> Comparison:
    layers = run.layers.result()
    first = first_difference(layers)
    found = classes(run.answers, run.model.heads[0])
    foreign = run.model.source_sha256 not in (None, keras_model.sha256)
    equal, sentence = verdict(run.answers, run.tied, layers, found.same, foreign=foreign)
    advice = "convert it again with"
    known = found.source.total if found.source else 0
    doubts = doubt(_value(found.source), classes_told_apart(run.model.heads[0]), known, examples.seen, advice)
    return Comparison(
        source=source,
        source_sha256=keras_model.sha256,
        converted=os.fspath(run.model.path),
        backend=run.model.backend,
        oracle=run.oracle.name,
        oracle_is_keras=run.oracle.is_keras,
        oracle_note=run.oracle.note,
        examples=len(run.answers),
        data=examples.described,
        data_sha256=examples.sha256,
        seed=examples.seed,
        domain=preprocess.range,
        remarks=(*examples.remarks, *doubts),
        program_sha256=program_sha256(run.model.engine.program) if run.model.engine else None,
        layers=layers,
        fed_by_source=run.layers.fed_by_source,
        first_difference=first.layers if first else None,
        output_difference=max(answer.difference for answer in run.answers),
        same_class=_value(found.same),
        same_class_interval=_interval(found.same),
        tied_examples=tuple(run.tied),
        source_accuracy=_value(found.source),
        source_accuracy_interval=_interval(found.source),
        accuracy=_value(found.converted),
        accuracy_interval=_interval(found.converted),
        accuracy_difference=found.difference,
        equal=equal,
        verdict=sentence,
    )


def _value(share: Share | None) -> float | None:
    return share.value if share else None


def _interval(share: Share | None) -> tuple[float, float] | None:
    return (share.low, share.high) if share else None
