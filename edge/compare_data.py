"""The examples of a comparison: what the user names, or random ones, as each network takes them; and what identifies them.

An example is one array for every input, in the order of the source's inputs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge import noise
from edge.converters.samples import DATA_ARRAYS, Source, load_examples
from edge.graph import Array, Graph
from edge.kernels.arithmetic import DTYPES
from edge.preprocess import Preprocess
from edge.tensors import TensorInfo

Example = tuple[Array, ...]


@dataclass
class Examples:
    """What is compared: examples with their class where it is known, how many there are, and words that say where they are from.

    seed: of random ones. remarks: why labels are not used. seen: how pictures became what the network sees, None where arrays were given.
    sha256 is of what `chunks` has given so far: the bytes of every array, in order, as the network takes them.
    """

    items: Any
    count: int
    described: str
    seed: int | None = None
    remarks: tuple[str, ...] = ()
    seen: Preprocess | None = None
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        return str(self._digest.hexdigest())

    def chunks(self, size: int) -> Iterator[tuple[list[Example], list[int | None]]]:
        """At most `size` examples at a time, with their labels."""
        examples: list[Example] = []
        labels: list[int | None] = []
        for example, label in self.items:
            for array in example:
                self._digest.update(np.ascontiguousarray(array).data)
            examples.append(example)
            labels.append(label)
            if len(examples) == size:
                yield examples, labels
                examples, labels = [], []
        if examples:
            yield examples, labels


def random_examples(graph: Graph, preprocess: Preprocess, count: int, seed: int) -> Examples:
    """Noise in the domain of every input, the same on every machine."""
    items = ((random_example(graph, preprocess.range, seed, number), None) for number in range(count))
    return Examples(items, count, f"random inputs, seed {seed}", seed)


def random_example(graph: Graph, domain: tuple[float, float], seed: int, number: int) -> Example:
    """Example `number`: of inputs that look up a table whole numbers below its rows, of others pixels, each level as likely."""
    inputs = graph.inputs
    return tuple(_random(graph, name, domain, seed, number * len(inputs) + i) for i, name in enumerate(inputs))


def _random(graph: Graph, name: str, domain: tuple[float, float], seed: int, stream: int) -> Array:
    tables = [len(node.constants["table"]) for node in graph.nodes if node.op == "embedding" and name in node.inputs]
    return noise.network_input(graph.types[name], domain, seed, stream, rows=min(tables, default=None))


def given_examples(graph: Graph, preprocess: Preprocess, data: Source, count: int, classes: int | None) -> Examples:
    """At most `count` of what the user names, spread over the whole, each made into arrays as a conversion makes its examples.

    classes: how many the network tells apart; labels that are others are left out. None where it names none.
    """
    named = Path(data).resolve().name if isinstance(data, (str, os.PathLike)) else "given examples"
    kinds = {name: graph.types[name] for name in graph.inputs}
    inputs = tuple(TensorInfo(name, kind.shape, DTYPES[kind.encoding].name) for name, kind in kinds.items())
    samples = load_examples(data, inputs=inputs, preprocess=preprocess, array_names=DATA_ARRAYS)
    if classes is not None:
        samples = samples.labelled_for(classes)
    few = samples.first(count)
    items = ((tuple(found) if isinstance(found, list) else (found,), label) for found, label in few)
    remarks = tuple(f"no accuracy, since {remark}" for remark in samples.remarks) if classes is not None else ()
    return Examples(items, len(few), f"{len(few)} of {len(samples)} of {named}", remarks=remarks, seen=samples.seen)
