"""The models that predictions are held against, at 32, 8 and 1 bits: files of others, architectures of others, and networks of `edge.zoo`.

    python benchmarks/prediction_models.py              # converts all that are missing
    python benchmarks/prediction_models.py vww_96 lenet

Third-party files are those of MLPerf Tiny in `../shared` beside the repository, and networks of the Larq zoo where `make bench-peers` has
made them; MobileNets are those of keras.applications with random weights. What is not there is left out. Files are kept in `.cache`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import CACHE, SHARED

FOLDER = CACHE / "prediction"
BITS = (32, 8, 1)
_CALIBRATION = 4
_MLPERF = {"ad01": "ad01.h5", "resnet8": "pretrainedResnet.h5", "streaming_ww": "str_ww_ref_model.h5", "vww_96": "vww_96.h5"}
_LARQ = ("QuickNetSmall", "QuickNet", "BiRealNet", "BinaryAlexNet")
_MOBILE: Mapping[str, tuple[str, dict[str, Any]]] = {
    "MobileNet_0.5_128": ("MobileNet", {"alpha": 0.5, "input_shape": (128, 128, 3)}),
    "MobileNetV2_0.35_96": ("MobileNetV2", {"alpha": 0.35, "input_shape": (96, 96, 3)}),
    "MobileNetV2_1.0_160": ("MobileNetV2", {"alpha": 1.0, "input_shape": (160, 160, 3)}),
}
_ZOO = (
    "lenet", "digits8", "cnn-cifar10", "cnn-base", "cnn-digits", "cnn-fashion", "clock", "mlp-base", "mlp-digits", "resnet(2)", "resnet(5)",
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A network; `make(folder, bits)` gives the Keras file to be converted at a number of bits."""

    name: str
    third_party: bool
    make: Callable[[Path, int], Path]

    def file(self, bits: int) -> Path:
        return FOLDER / f"{self.name}-{bits}.edge"

    def build(self, bits: int) -> Path:
        """The `.edge` file, converted unless it is there."""
        path = self.file(bits)
        if not path.exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
                made = Path(folder) / "made.edge"
                _convert(self.make(Path(folder), bits), made, bits, pixels=not self.third_party)
                made.rename(path)
        return path


def models() -> Iterator[Model]:
    """Those that can be made here."""
    for name, file in _MLPERF.items():
        path = SHARED / "models" / "mlperf_tiny" / file
        if path.exists():
            yield Model(name, True, partial(_given, path))
    for name in _LARQ:
        path = next(iter(sorted((CACHE / "peers").glob(f"*/{name}.h5"))), None)
        if path is not None:
            yield Model(name, True, partial(_given, path))
    for name in _MOBILE:
        yield Model(name, True, partial(_mobile, name))
    for name in _ZOO:
        yield Model(name, False, partial(_zoo, name))


def _given(path: Path, folder: Path, bits: int) -> Path:
    return path


def _mobile(name: str, folder: Path, bits: int) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    maker, options = _MOBILE[name]
    model = getattr(keras.applications, maker)(weights=None, **options)
    model.save(folder / "model.keras")
    return folder / "model.keras"


def _zoo(name: str, folder: Path, bits: int) -> Path:
    import keras

    from edge import zoo

    keras.utils.set_random_seed(0)
    zoo.build(name, "xnor" if bits == 1 else "float").save(folder / "model.keras")
    return folder / "model.keras"


def _convert(source: Path, path: Path, bits: int, *, pixels: bool) -> None:
    """pixels: whether the network takes 0..255 (those of `edge.zoo` do), else about 0..1."""
    import edge

    edge.convert(source, path, bits=32, formats="edge")
    if bits == 32:
        return
    shape = edge.load(path).inputs[0].shape
    random = np.random.default_rng(1)
    pictures = random.integers(0, 256, (_CALIBRATION, *shape), np.uint8) if pixels else random.random((_CALIBRATION, *shape), np.float32)
    edge.convert(source, path, bits=bits, formats="edge", calibrate=pictures if bits == 8 else None, force=True)


def main(names: Sequence[str]) -> None:
    for model in models():
        for bits in BITS if not names or model.name in names else ():
            print(model.build(bits), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
