"""What a conversion did: by layer, by file, and how far the result agrees with its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.converters.keras_model import Call, KerasModel
from edge.graph import Graph, Node
from edge.ops import OPS
from edge.program import Program
from edge.tensors import Encoding
from edge.widths import Bits

if TYPE_CHECKING:  # what chooses bits makes files, whose layers are described here
    from edge.converters.search import Choice

WARN_BELOW = 0.9  # share of pictures with the same answer


@dataclass(frozen=True)
class LayerRow:
    """One layer of the source.

    `bits` and `bytes` are of its weights: in the source as float32, and as stored now. `kernel` is the operation that computes it, with
    what it reads, the stored filter and what it gives; empty where another layer's operation does its work, as `note` then says.
    """

    name: str
    class_name: str
    bits_before: int | None
    bits_after: int | None
    bytes_before: int
    bytes_after: int
    kernel: str
    note: str = ""


@dataclass(frozen=True)
class FileRow:
    """A file that was written."""

    path: str
    format: str
    bytes: int


@dataclass(frozen=True)
class Agreement:
    """How the converted network answers `pictures` examples compared with its source at 32 bits.

    `equal` counts the same top-1 class, None where outputs are no classes. `largest_difference` is over all values of all outputs.
    The accuracies are shares of the examples whose class is known, None where none is; `classes` is how many the network tells apart.
    """

    pictures: int
    equal: int | None
    largest_difference: float
    source_accuracy: float | None = None
    accuracy: float | None = None
    classes: int | None = None

    @property
    def share(self) -> float | None:
        return None if self.equal is None or not self.pictures else self.equal / self.pictures

    def text(self) -> str:
        if self.share is None:
            return f"largest difference to the source on {self.pictures} pictures: {self.largest_difference:.3g}"
        text = f"top-1 agreement with the source on {self.pictures} pictures: {100 * self.share:.2f} %"
        if self.accuracy is None or self.source_accuracy is None:
            return text
        return f"{text}; accuracy {100 * self.accuracy:.2f} %, source {100 * self.source_accuracy:.2f} %"


@dataclass(frozen=True)
class Report:
    """The result of `edge.convert`. `messages` are sentences for people: agreement, warnings, assumptions."""

    source: str
    bits: Bits
    activation_bits: int
    input_dtype: str
    output_dtype: str
    preprocess: str
    layers: tuple[LayerRow, ...]
    files: tuple[FileRow, ...]
    agreement: Agreement | None
    messages: tuple[str, ...] = ()
    source_sha256: str = ""
    choice: Choice | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values; `agreement` has its `share` too."""
        result = dataclasses.asdict(self)
        if self.agreement is not None:
            result["agreement"]["share"] = self.agreement.share
        result["choice"] = self.choice.to_json() if self.choice is not None else None
        return result


def layer_rows(model: KerasModel, graph: Graph, program: Program) -> tuple[LayerRow, ...]:
    """A row for each layer of the source, in its order. `program` was made from `graph`, instruction by node."""
    calls = {call.name: call for call in model.calls}
    owners = [_owner(node, calls) for node in graph.nodes]
    sizes = _constant_bytes(program)
    rows = []
    for call in model.calls:
        own = [i for i, owner in enumerate(owners) if owner == call.name]
        rows.append(_row(call, [graph.nodes[i] for i in own], sum(sizes[i] for i in own), graph, owners))
    return tuple(rows)


def _row(call: Call, nodes: list[Node], stored_bytes: int, graph: Graph, owners: list[str]) -> LayerRow:
    filters = [_filter(node, graph).bits for node in nodes if "filter" in node.constants]
    before = sum(4 * weight.size for weight in call.weights.values())
    kernels = dict.fromkeys(_kernel(node, graph) for node in nodes)
    return LayerRow(
        name=call.name,
        class_name=call.class_name,
        bits_before=32 if before else None,
        bits_after=max(filters) if filters else (32 if stored_bytes else None),
        bytes_before=before,
        bytes_after=stored_bytes,
        kernel=", ".join(kernels),
        note=_note(call, nodes, graph, owners),
    )


def _note(call: Call, nodes: list[Node], graph: Graph, owners: list[str]) -> str:
    if nodes:
        return graph.notes.get(call.name, "") if _has_kernel(call) else ""
    doers = [owner for node, owner in zip(graph.nodes, owners, strict=True) if call.name in node.layers]
    return f"done by {doers[0]}" if doers else "does nothing when run"


def _has_kernel(call: Call) -> bool:
    return any("kernel" in name for name in call.weights)


def _owner(node: Node, calls: Mapping[str, Call]) -> str:
    """The layer in whose row a node counts: the one whose kernel it holds, else whose other weights, else the first."""
    layers = [name for name in node.layers if name in calls]
    if "filter" in node.constants:
        layers = [name for name in layers if _has_kernel(calls[name])] or layers
    elif node.constants:
        layers = [name for name in layers if calls[name].weights] or layers
    return layers[0] if layers else ""


def _constant_bytes(program: Program) -> list[int]:
    """By instruction, the bytes of its constants; one that several share counts where it comes first."""
    seen: set[int] = set()
    sizes = []
    for instruction in program.instructions:
        new = {number for number in instruction.constants if number >= 0} - seen
        seen |= new
        sizes.append(sum(program.constants[number].nbytes for number in new))
    return sizes


def _filter(node: Node, graph: Graph) -> Encoding:
    """As the file stores it."""
    return graph.call(node).constants["filter"].encoding


def _kernel(node: Node, graph: Graph) -> str:
    """Such as `conv2d bits x bits -> float32`."""
    source, output = (graph.types[name].encoding.name.lower() for name in (node.inputs[0], node.output))
    filters = ""
    if "filter" in OPS[node.op].constants:
        filters = f" x {_filter(node, graph).name.lower()}"
    return f"{node.op} {source}{filters} -> {output}{' + bits' if node.signs else ''}"


def advice(agreement: Agreement | None, *, packed_weights: bool, packed_activations: bool, activation_bits: int = 32) -> tuple[str, ...]:
    """The sentences that say what was got, and the ways on where that is not enough."""
    messages = ["accuracy unknown: give --data" if agreement is None else agreement.text()]
    if agreement is not None and agreement.share is not None and agreement.share < WARN_BELOW:
        messages.append(
            f"warning: under {100 * WARN_BELOW:.0f} % agreement; the ways on are --bits 8 (with --calibrate), fine-tuning, "
            "or training the network binary from the start (edge.training)"
        )
    if packed_weights and not packed_activations:
        gain = "smaller, not faster" if activation_bits == 32 else "smaller than with --bits 8, not faster"
        kind = "float32" if activation_bits == 32 else "int8"
        messages.append(f"{gain}: weights are 1 bit but activations are {kind}; train activations binary to make it faster")
    return tuple(messages)
