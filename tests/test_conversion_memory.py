"""The memory that a conversion takes, seen from outside, for the 58.7 million weights of AlexNet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge import zoo

TIMES = 3.0  # the bytes of the source that a conversion may take, beside the interpreter with its modules
_MEASURE = """
import pathlib, re, sys
import edge, edge.converters.convert, edge.engine, edge.inputs, flatbuffers, h5py, ai_edge_litert.schema_py_generated
# Not ru_maxrss, in which the process that started this one counts.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
given = {"calibrate": sys.argv[5]} if len(sys.argv) > 5 else {}
edge.convert(sys.argv[1], sys.argv[2], bits=int(sys.argv[3]), formats=sys.argv[4].split("+"), **given)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with AlexNet in both formats of Keras, 235 MB each."""
    pytest.importorskip("tensorflow", reason="Keras itself writes the files, and needs TensorFlow")
    pytest.importorskip("ai_edge_litert", reason="the schema of TFLite is needed")
    folder = tmp_path_factory.mktemp("alexnet")
    model = zoo.alexnet()
    for name in ("alexnet.h5", "alexnet.keras"):
        model.save(folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("formats", ["edge", "edge+tflite"])
@pytest.mark.parametrize("bits", [32, 8, 1])
@pytest.mark.parametrize("name", ["alexnet.h5", "alexnet.keras"])
def test_a_conversion_takes_three_times_the_file(name: str, bits: int, formats: str, sources: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MEASURE, str(sources / name), str(tmp_path), str(bits), formats]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert int(done.stdout) <= TIMES * (sources / name).stat().st_size


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("bits", [8, 1])
def test_so_does_one_with_pictures(bits: int, sources: Path, tmp_path: Path) -> None:
    """Once its kernels are compiled, for which Numba takes memory of its own."""
    pictures = tmp_path / "pictures.npz"
    np.savez(pictures, images=np.random.default_rng(0).integers(0, 256, (2, 227, 227, 3), dtype=np.uint8))
    source = sources / "alexnet.keras"
    command = [sys.executable, "-c", _MEASURE, str(source), str(tmp_path), str(bits), "edge+tflite", str(pictures)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert int(done.stdout) <= TIMES * source.stat().st_size
