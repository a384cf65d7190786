"""Models at every width of weights: bytes of the file, and how far it agrees with the float network; written into docs/bit-widths.md.

    python benchmarks/bit_widths.py [NAME...]     measures these models (all without names) and writes the page of all that are known

Training pictures calibrate and are compared on where there are any for the model (others of the same set, at its size); else random
examples of its input, which say that nothing breaks, and little of what is lost on real ones.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from accuracy_rows import RUNS
from bench_data import ROOT, SHARED, cifar10, mnist

import edge
from edge.train import MODEL
from edge.widths import WIDTHS, Bits

MODELS = {
    "pretrainedResnet": SHARED / "models" / "mlperf_tiny" / "pretrainedResnet.h5",
    "vww_96": SHARED / "models" / "mlperf_tiny" / "vww_96.h5",
    "ad01": SHARED / "models" / "mlperf_tiny" / "ad01.h5",
    "str_ww_ref_model": SHARED / "models" / "mlperf_tiny" / "str_ww_ref_model.h5",
    "digits": ROOT / "examples" / "digits.h5",
    "lenet": RUNS / "lenet-float" / MODEL,
}
ON_MNIST = ("digits", "lenet")
ON_CIFAR = {"pretrainedResnet": 1, "vww_96": 3}  # and how often pictures of 32x32 repeat a pixel
COUNT = {"vww_96": 16}  # examples to calibrate on, and as many to compare; 64 of others
ORDER: tuple[Bits, ...] = tuple(sorted(WIDTHS, key=lambda bits: -1.5 if bits == "ternary" else -int(bits)))
RESULTS = ROOT / "benchmarks" / "results" / "widths.json"
PAGE = ROOT / "docs" / "bit-widths.md"


@dataclass(frozen=True)
class Row:
    """A model at a width. `same_class` is a share, None where it gives no classes; `difference` is of the largest value it should give."""

    bits: Bits
    file_bytes: int
    same_class: float | None
    difference: float
    finite: bool


def examples(name: str, path: Path) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Examples to calibrate on, others to compare on, and the preset they take."""
    count = COUNT.get(name, 64)
    data = cifar10() if name in ON_CIFAR else None
    if data is not None:
        pictures = data["x_train"][: 2 * count].repeat(ON_CIFAR[name], axis=1).repeat(ON_CIFAR[name], axis=2)
        return pictures[:count], pictures[count:], "byte" if name == "pretrainedResnet" else None
    digits = mnist() if name in ON_MNIST else None
    if digits is not None:
        return digits["x_train"][:count], digits["x_train"][count : 2 * count], "byte"
    with tempfile.TemporaryDirectory() as folder:
        edge.convert(path, Path(folder) / "model.edge", bits=32, formats="edge")
        taken = edge.load(Path(folder) / "model.edge").inputs[0]
    drawn = np.random.default_rng(0).random((2 * count, *taken.shape), np.float32)
    drawn = (255 * drawn).astype(np.uint8) if taken.dtype == "uint8" else drawn
    return drawn[:count], drawn[count:], None


def rows(name: str, path: Path) -> list[Row]:
    """The rows of a model, from 32 bits down."""
    calibrate, compared, preset = examples(name, path)
    found, expected = [], None
    with tempfile.TemporaryDirectory() as folder:
        for bits in ORDER:
            file = Path(folder) / f"{bits}.edge"
            given = {} if bits in (16, 32) else {"calibrate": calibrate}
            report = edge.convert(path, file, bits=bits, data=compared, preprocess=preset, formats="edge", **given)
            agreement = report.agreement
            assert agreement is not None
            engine = edge.load(file)
            outputs = engine.run(_seen(compared, engine.inputs[0].dtype))
            first = outputs[0] if isinstance(outputs, tuple) else outputs
            expected = first if expected is None else expected
            difference = float(np.abs(first - expected).max() / np.abs(expected).max())
            found.append(Row(bits, file.stat().st_size, agreement.share, difference, bool(np.isfinite(first).all())))
    return found


def _seen(given: np.ndarray, dtype: str) -> np.ndarray:
    """Examples as the network takes them: pictures are 0..1 where it does not take bytes."""
    return given / np.float32(255) if given.dtype == np.uint8 and dtype == "float32" else given


def page(known: dict[str, list[dict[str, object]]]) -> str:
    """The page of docs/."""
    lines = [
        "# Models at every width of weights", "",
        "Made by `python benchmarks/bit_widths.py`: the `.edge` file of each model at each `--bits`, below 16 with int8 activations.",
        "Examples, 64 to calibrate on and 64 others to compare (16 of `vww_96`), are training pictures of MNIST for `digits` and",
        "`lenet`, of CIFAR-10 for `pretrainedResnet` and `vww_96` (not the set that this learnt), and random values for the others.",
        "The difference is the largest of any output, in parts of the largest value that the float network gives. None was trained for",
        "few bits but `digits`, which was trained binary, and has the same packed layers at every width; `lenet` is the float run of",
        "`edge train lenet`.", "",
    ]  # fmt: skip
    for name, table in known.items():
        lines += [f"## {name}", "", "| bits | bytes | same class | largest difference |", "|---|---|---|---|"]
        for row in table:
            share = "" if row["same_class"] is None else f"{100 * float(str(row['same_class'])):.1f} %"
            lines.append(f"| {row['bits']} | {row['file_bytes']:,} | {share} | {float(str(row['difference'])):.2g} |")
        lines.append("")
    return "\n".join(lines)


def main(names: list[str]) -> None:
    absent = [name for name in names or MODELS if not MODELS[name].exists()]
    for name in absent:
        print(f"{name} keeps its row: {MODELS[name]} is not there{'; train it with: edge train lenet' if name == 'lenet' else ''}")
    for name in [name for name in names or MODELS if name not in absent]:
        measured = [asdict(row) for row in rows(name, MODELS[name])]
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known = {each: measured if each == name else known[each] for each in MODELS if each == name or each in known}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        PAGE.write_text(page(known))


if __name__ == "__main__":
    main(sys.argv[1:])
