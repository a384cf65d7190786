"""`edge inspect`: what a `.edge`, `.tflite` or Keras file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli_model import file_format, find_model, naming, stored_metadata
from edge.cli_options import PATH, json_option
from edge.console import Column, bytes_text, jsonable, out, out_facts, out_json, out_notes, out_table, shape_text, styled

if TYPE_CHECKING:
    from edge.tflite_listing import LiteOperator, LiteTensor

Document = dict[str, Any]

SHOWN_LABELS = 12

EPILOG = """
\b
Examples:
  edge inspect model.edge           instructions, kernels of this machine, bytes, arena, metadata
  edge inspect model.tflite         operators and bytes
  edge inspect model.h5             layers and parameters
  edge inspect digits --json        the example that comes with edge
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=PATH, metavar="FILE")
@json_option
def inspect(file: str, as_json: bool) -> None:
    """Show what a model file holds.

    FILE is a .edge, .tflite or Keras file, or the name of an example such as digits. Nothing is compiled and nothing is run.
    """
    path = find_model(file)
    read, show = _FORMATS[file_format(path)]
    with naming(path):
        document = {"file": str(path), "bytes": path.stat().st_size, **read(path)}
    if as_json:
        out_json(jsonable(document))
    else:
        show(document)


# -- .edge -----------------------------------------------------------------------------------------------------------------------


def _edge(path: Path) -> Document:
    from edge.cli_inspect_edge import describe

    return describe(path)


def _show_edge(document: Document) -> None:
    machine = ("machine", f"instruction set {document['instruction_set']}")
    certificate = ("certificate", _certificate_text(document["certificate"]))
    out_facts([*_facts(document, f"edge {document['format_version']}"), machine, certificate])
    out()
    rows = [_instruction_row(entry) for entry in document["instructions"]]
    columns = [Column("#", right=True), Column("layers", folds=True), Column("operation"), Column("output"), Column("bits", right=True),
               Column("bytes", right=True), Column("kernel", folds=True)]  # fmt: skip
    out_table(columns, rows, total=["", "total", "", "", "", bytes_text(document["constants_bytes"]), ""])
    out()
    _show_widths(document["weights"])
    out()
    out_facts([(name.replace("_", " "), _size(nbytes)) for name, nbytes in document["memory"].items()])
    notes = list(_notes(document["metadata"]))
    if notes:
        out()
        out_notes(notes)


def _certificate_text(found: Mapping[str, Any]) -> str:
    """The certificate in a line: whether it holds, what it says, on what that rests."""
    if found["state"] == "none":
        return "none"
    if found["state"] == "damaged":
        return str(found["reason"])
    said = f"{found['precision']}, {found['verdict']}; {found['oracle']}, {found['data']}; {found['date']}, edge {found['edge']}"
    return said if found["state"] == "valid" else f"VOID, {found['reason']}. It said: {said}"


def _notes(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why layers are above the asked bits; not where a layer is done by its neighbour, which the table shows."""
    rows = metadata.get("layers")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("kernel") and row.get("note"):
            yield str(row.get("name")), str(row["note"])


def _facts(document: Document, file_format: str) -> list[tuple[str, str]]:
    """What is known of any converted model, whichever kind of file it is in."""
    metadata = document["metadata"]
    source = metadata.get("source")
    source = source if isinstance(source, Mapping) else {}
    return [
        ("file", f"{document['file']}, {_size(document['bytes'])}"),
        ("format", file_format),
        ("name", str(metadata.get("name", "unknown"))),
        ("source", str(source.get("file", "unknown"))),
        ("sha256", str(source.get("sha256", "unknown"))),
        ("input", "; ".join(_tensor_text(entry) for entry in document["inputs"])),
        ("output", "; ".join(_tensor_text(entry) for entry in document["outputs"])),
        ("sees", document["preprocessing"] or "not stored"),
        ("labels", _labels_text(metadata.get("labels"))),
    ]


def _labels_text(labels: Any) -> str:
    if not isinstance(labels, list) or not labels:
        return "none"
    more = f", ... ({len(labels)} in all)" if len(labels) > SHOWN_LABELS else ""
    return ", ".join(map(str, labels[:SHOWN_LABELS])) + more


def _tensor_text(entry: Mapping[str, Any]) -> str:
    kind = f", {entry['kind']}" if entry.get("kind") else ""
    steps = f" (scale {entry['scale']:.6g}, zero point {entry['zero_point']})" if entry["dtype"] == "int8" and entry["scale"] else ""
    return f"{entry['name']} {shape_text(entry['shape'])} {entry['dtype']}{steps}{kind}"


def _instruction_row(entry: Mapping[str, Any]) -> list[str]:
    output = f"{shape_text(entry['output']['shape'])} {entry['output']['encoding']}"
    bits = "-" if entry["bits"] is None else str(entry["bits"])
    nbytes = bytes_text(entry["bytes"]) if entry["bytes"] else "-"
    return [str(entry["number"]), " + ".join(entry["layers"]) or "-", entry["op"], output, bits, nbytes, entry["kernel"] or "none"]


def _show_widths(widths: list[dict[str, Any]]) -> None:
    columns = [Column("bits", right=True), Column("weights", right=True), Column("bytes", right=True), Column("MACs", right=True)]
    rows = [[str(row["bits"]), f"{row['weights']:,}", bytes_text(row["bytes"]), f"{row['macs']:,}"] for row in widths]
    out_table(columns, rows)


def _size(nbytes: int) -> str:
    return f"{bytes_text(nbytes)} ({nbytes:,} bytes)" if nbytes >= 1024 else bytes_text(nbytes)


# -- .tflite ---------------------------------------------------------------------------------------------------------------------


def _tflite(path: Path) -> Document:
    from edge.cli_inspect_edge import described
    from edge.tflite_check import notes_of
    from edge.tflite_listing import list_tflite

    data = path.read_bytes()
    listing, metadata = list_tflite(data), stored_metadata(notes_of(data)) or {}
    inputs, outputs = ([_lite_entry(tensor) for tensor in tensors] for tensors in (listing.inputs, listing.outputs))
    return {
        "format": "tflite",
        "metadata": metadata,
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": described(metadata, listing.inputs[0].shape[1:]) if listing.inputs else None,
        "operators": [_operator_entry(number, operator) for number, operator in enumerate(listing.operators)],
    }


def _operator_entry(number: int, operator: LiteOperator) -> dict[str, Any]:
    output = operator.output
    return {
        "number": number,
        "operator": operator.name,
        "output": output.name,
        "shape": output.shape,
        "dtype": output.dtype,
        "bytes": operator.constant_bytes,
    }


def _lite_entry(tensor: LiteTensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype, "scale": tensor.scale, "zero_point": tensor.zero_point}


def _show_tflite(document: Document) -> None:
    out_facts(_facts(document, "TFLite"))
    out()
    columns = [Column("#", right=True), Column("operator"), Column("output"), Column("type"), Column("bytes", right=True)]
    rows = [
        [str(op["number"]), op["operator"], shape_text(op["shape"]), op["dtype"], bytes_text(op["bytes"]) if op["bytes"] else "-"]
        for op in document["operators"]
    ]
    out_table(columns, rows, total=["", "total", "", "", bytes_text(sum(op["bytes"] for op in document["operators"]))])


# -- Keras -----------------------------------------------------------------------------------------------------------------------


def _keras(path: Path) -> Document:
    from edge.converters.keras_file import read_keras

    model = read_keras(path)
    layers = [
        {
            "name": call.name,
            "kind": call.class_name,
            "weights": {name: array.shape for name, array in call.weights.items()},
            "parameters": sum(int(array.size) for array in call.weights.values()),
        }
        for call in model.calls
    ]
    inputs = [{"name": value.name, "shape": value.shape, "dtype": value.dtype} for value in model.inputs]
    return {
        "format": "keras",
        "name": model.name,
        "keras_version": model.keras_version,
        "sha256": model.sha256,
        "inputs": inputs,
        "outputs": list(model.output_names),
        "training": model.training,
        "layers": layers,
    }


def _show_keras(document: Document) -> None:
    out_facts(
        [
            ("file", f"{document['file']}, {_size(document['bytes'])}"),
            ("format", f"Keras {document['keras_version']}"),
            ("name", document["name"]),
            ("sha256", document["sha256"]),
            ("input", "; ".join(_tensor_text(entry) for entry in document["inputs"])),
            ("output", ", ".join(document["outputs"])),
        ]
    )
    out()
    columns = [Column("layer"), Column("kind"), Column("weights", folds=True), Column("parameters", right=True)]
    rows = [[layer["name"], layer["kind"], _weights_text(layer["weights"]), f"{layer['parameters']:,}"] for layer in document["layers"]]
    out_table(columns, rows, total=["total", "", "", f"{sum(layer['parameters'] for layer in document['layers']):,}"])
    out(f"\n{styled('convert it with:', 'dim')} edge convert {document['file']} --bits 1")


def _weights_text(weights: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape_text(shape)}" for name, shape in weights.items()) or "-"


_FORMATS: Mapping[str, tuple[Callable[[Path], Document], Callable[[Document], None]]] = {
    "edge": (_edge, _show_edge),
    "tflite": (_tflite, _show_tflite),
    "keras": (_keras, _show_keras),
}
