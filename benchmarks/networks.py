"""The files of `benchmarks/test_networks.py`: networks of `edge.zoo` with random weights, by edge and, as ReLU twins, by TensorFlow.

    python benchmarks/networks.py                  # builds all that are missing
    python benchmarks/networks.py lenet alexnet

Weights are drawn from a fixed seed. Batch norms get random gamma (some negative) and beta, and as statistics those of pictures that went
through the network, so that every sign splits its values. The twin is the network without batch norms and with ReLU for sign: what its user
would run in LiteRT, its norms folded away. It takes pictures of 0..1, or, fully integer, of int8; edge's int8 and 1-bit files take bytes.
Files are kept in `.cache/networks` under names that hold a digest of all that they are made from.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import CACHE, ROOT
from bench_rows import NET_BINARY, NET_FLOAT, NET_INT8, NET_WEIGHTS
from numpy.typing import NDArray

FOLDER = CACHE / "networks"
NETWORKS = ("lenet", "resnet(2)", "resnet(5)", "resnet(18)", "alexnet", "cnn-cifar10")
KINDS = (NET_FLOAT, NET_INT8, NET_WEIGHTS, NET_BINARY)
CALIBRATION_PICTURES = 16
SEED = 0
EXACT = "exact"
_NAMES = {NET_FLOAT: "float", NET_INT8: "int8", NET_WEIGHTS: "weights", NET_BINARY: "binary"}

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Network:
    """One network of `NETWORKS` and its files, each built when it is first asked for."""

    name: str

    # -- files ---------------------------------------------------------------------------------------------------------------

    def edge_file(self, kind: str) -> Path:
        """The `.edge` file at one of `KINDS`."""
        return self._built(f"{_NAMES[kind]}.edge", _converters_digest(), lambda path: self._convert(kind, path))

    def exact_file(self) -> Path:
        """The binary network as `.edge` with its float layers left in float32: the same values as Keras'."""
        return self._built("exact.edge", _converters_digest(), lambda path: self._convert(EXACT, path))

    def tflite_file(self, kind: str) -> Path:
        """The twin's `.tflite`: `NET_FLOAT`, or `NET_INT8` from int8 to int8."""
        return self._built(f"{_NAMES[kind]}.tflite", _models_digest(), lambda path: path.write_bytes(self._tflite(kind)))

    def keras_file(self, precision: str) -> Path:
        """The model at a precision of `edge.zoo`; "plain" is "folded" without its rescaling, and takes pictures of 0..1."""
        return self._built(f"{precision}.keras", _models_digest(), lambda path: self._model(precision).save(path))

    def _built(self, name: str, digest: str, build: Callable[[Path], object]) -> Path:
        stem, suffix = name.rsplit(".", 1)
        path = FOLDER / f"{self.name}-{stem}-{digest}.{suffix}"
        if not path.exists():
            print(f"building {path.name} ...", end="", flush=True)
            started = time.perf_counter()
            FOLDER.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
                made = Path(folder) / f"made.{suffix}"
                build(made)
                made.rename(path)
            _remove_stale(f"{self.name}-{stem}-", path)
            print(f" {path.stat().st_size:,} bytes, {time.perf_counter() - started:.1f} s", flush=True)
        return path

    # -- models --------------------------------------------------------------------------------------------------------------

    def load_keras(self, precision: str) -> Any:
        """The Keras model itself, for its own answers."""
        import keras

        import edge.training  # noqa: F401  (registers its layers)

        return keras.models.load_model(self.keras_file(precision), compile=False)

    def _model(self, precision: str) -> Any:
        import keras

        from edge import zoo

        if precision == "plain":
            folded = self.load_keras("folded")
            return keras.Model(folded.get_layer("rescale").output, folded.output, name=folded.name)
        keras.utils.set_random_seed(SEED)
        model = zoo.build(self.name, precision)
        randomize(model, self.pictures(8))
        return model

    # -- conversions ---------------------------------------------------------------------------------------------------------

    def _convert(self, kind: str, path: Path) -> None:
        import edge

        source, bits = {
            NET_FLOAT: ("plain", 32),
            NET_INT8: ("folded", 8),
            NET_WEIGHTS: ("folded", 1),
            NET_BINARY: ("xnor", 8),
            EXACT: ("xnor", 32),
        }[kind]
        calibrate = self.pictures(CALIBRATION_PICTURES, seed=2) if bits == 8 else None
        edge.convert(self.keras_file(source), path, bits=bits, calibrate=calibrate, formats="edge")

    def _tflite(self, kind: str) -> bytes:
        import keras
        import tensorflow as tf

        model = self.load_keras("plain")
        shape = (1, *model.input_shape[1:])
        with tempfile.TemporaryDirectory() as folder:
            model.export(folder, verbose=False, input_signature=[keras.InputSpec(shape=shape, dtype="float32")])
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            if kind == NET_INT8:
                pictures = rescaled(self.pictures(CALIBRATION_PICTURES, seed=2))
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: ([picture[np.newaxis]] for picture in pictures)
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = converter.inference_output_type = tf.int8
            return bytes(converter.convert())

    # -- pictures ------------------------------------------------------------------------------------------------------------

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        return {"lenet": (28, 28, 1), "alexnet": (227, 227, 3)}.get(self.name, (32, 32, 3))

    def pictures(self, count: int, *, seed: int = 1) -> Pictures:
        """Random pictures (count, H, W, C) of 0..255 that differ as wholes: coarse patterns, and noise."""
        random = np.random.default_rng(seed)
        height, width, channels = self.shape
        coarse = random.normal(0, 60, (count, 4, 4, channels)) + random.normal(128, 30, (count, 1, 1, channels))
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        values = coarse[:, rows][:, :, columns] + random.normal(0, 20, (count, *self.shape))
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def randomize(model: Any, pictures: Pictures) -> None:
    """Give biases and batch norms random values, batch norms the statistics of `pictures`; kernels keep what was drawn for them."""
    import keras

    random = np.random.default_rng(SEED)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
    for norm in norms:
        norm.gamma.assign(random.normal(1, 0.3, norm.gamma.shape) * np.where(random.random(norm.gamma.shape) < 0.1, -1, 1))
        norm.beta.assign(random.normal(0, 0.3, norm.beta.shape))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the statistics become those of this one batch
    model(pictures.astype(np.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def rescaled(pictures: Pictures) -> NDArray[np.float32]:
    """What the twin takes of pictures of 0..255."""
    return pictures.astype(np.float32) * np.float32(1 / 255)


# -- the cache -----------------------------------------------------------------------------------------------------------------


MODEL_SOURCES = (Path(__file__), *(ROOT / "edge").glob("zoo*.py"), *(ROOT / "edge").glob("training*.py"))


def _digest(files: Iterable[Path]) -> str:
    """Of the contents of files and of the versions of the packages that make models."""
    content = hashlib.sha256()
    for path in sorted(files):
        content.update(path.read_bytes())
    for name in ("keras", "tensorflow", "tensorflow-cpu"):
        content.update(f"{name} {_version(name)}".encode())
    return content.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _models_digest() -> str:
    return _digest(MODEL_SOURCES)


def _converters_digest() -> str:
    """Of the models and of all that turns them into a `.edge` file."""
    names = ("ops", "op_check", "graph", "lower", "layout", "arena", "format", "records", "program", "tensors")
    converters = [path for path in (ROOT / "converters").glob("*.py") if not path.stem.startswith("tflite")]
    files = [*converters, *(ROOT / "edge" / f"{name}.py" for name in names)]
    return _digest([*files, *MODEL_SOURCES])


def _remove_stale(start: str, kept: Path) -> None:
    for path in FOLDER.iterdir():
        if path.name.startswith(start) and path.suffix == kept.suffix and path != kept:
            path.unlink(missing_ok=True)


def main(names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(NETWORKS))
    if unknown:
        sys.exit(f"there is no network {unknown[0]}, expected some of {', '.join(NETWORKS)}")
    for name in names or NETWORKS:
        network = Network(name)
        for kind in KINDS:
            network.edge_file(kind)
        for kind in (NET_FLOAT, NET_INT8):
            network.tflite_file(kind)


if __name__ == "__main__":
    main(sys.argv[1:])
