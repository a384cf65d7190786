"""Storage and RAM of the profile against what is seen from outside: the size of the file, and the kernel's list of mappings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_programs import GRAPHS, INT8, NO_PADDING, PADDING, UINT8, Builder, float_type, program
from smaps import SMAPS, holding, mappings

from edge.converters.convert import convert
from edge.format import read, to_bytes, write
from edge.kernels import isa
from edge.lower import to_program
from edge.memory import PAGE_BYTES, Pages, aligned, mapped_bytes
from edge.targets.costs import program_cost
from edge.targets.profile import profile
from edge.tensors import TensorType
from edge.threads import most_threads

ROOT = Path(__file__).parent.parent
STORED = {path.stem: path for path in (*ROOT.glob("edge/data/*.edge"), *ROOT.glob("tests/data/*.edge"))}
SOURCES = [*ROOT.glob("examples/*.h5"), *ROOT.glob("tests/fixtures/*.h5"), *ROOT.glob("tests/fixtures/*.keras")]
CONVERTED = {f"{path.stem}{path.suffix}-{bits}": (path, bits) for path in SOURCES for bits in (1, 8, 32)}

pytestmark = pytest.mark.skipif(not SMAPS.exists(), reason="the system does not list its mappings in /proc/self/smaps")


def model(name: str, folder: Path) -> Path:
    """The `.edge` file of a name: stored in the repository, converted from a Keras file of it, or of a sample program."""
    if name in STORED:
        return STORED[name]
    if name in CONVERTED:
        source, bits = CONVERTED[name]
        convert(source, folder / "model", bits=bits, formats=("edge",))
    else:
        write(program(name), folder / "model.edge")
    return folder / "model.edge"


def loaded(path: Path, threads: int = 1, *options: str) -> dict[str, Any]:
    """What a process of its own says of the file (`load_footprint.py`)."""
    command = [sys.executable, str(Path(__file__).with_name("load_footprint.py")), str(path), str(threads), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(path: Path, threads: int) -> None:
    """The kernel's sizes equal the profile's, computed in another process that allocates nothing of the model."""
    found = loaded(path, threads)
    expected = program_cost(read(path), isa.detect(), threads=threads).footprint
    assert found["footprint"] == vars(expected)
    assert sum(found["sizes"]) == sum(found["lengths"]) == expected.mapped_bytes
    assert set(found["access"]) == {"rw-p"} and set(found["files"]) == {""} and found["new"]
    assert found["after"] == found["sizes"], "an inference changed what is mapped"
    parts = [expected.constants_bytes, expected.arena_bytes, expected.argument_bytes, expected.derived_bytes, expected.scratch_bytes,
             expected.thread_bytes]  # fmt: skip
    assert sum(parts) == expected.total_bytes <= expected.mapped_bytes < expected.total_bytes + 2 * PAGE_BYTES * len(parts)


FLOATS = [pytest.param(name, marks=pytest.mark.slow) for name in CONVERTED if name.endswith("-32")]
FEW_BITS = [name for name in CONVERTED if not name.endswith("-32")]


@pytest.mark.parametrize("name", [*STORED, *FEW_BITS, *FLOATS, *GRAPHS])
def test_memory_of_every_model_is_what_the_kernel_maps(name: str, tmp_path: Path) -> None:
    path = model(name, tmp_path)
    check(path, 1)
    profiled = profile(path, "raspberry-pi-4")
    assert profiled.storage_bytes == os.stat(path).st_size == len(to_bytes(read(path)))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float", "xnor"])
@pytest.mark.parametrize("name", ["lenet", "cnn-cifar10", "resnet(2)", "mlp-base"])
def test_memory_of_the_zoo_is_what_the_kernel_maps(name: str, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    from edge.zoo import build

    build(name, precision, width=0.25).save(tmp_path / "net.keras")
    for bits in (1, 8, 32):
        convert(tmp_path / "net.keras", tmp_path / f"net{bits}", bits=bits, formats=("edge",))
        check(tmp_path / f"net{bits}.edge", 1)


@pytest.mark.skipif(most_threads() < 2, reason="threads share one core")
def test_memory_of_two_threads_is_what_the_kernel_maps(tmp_path: Path) -> None:
    b = Builder(5)
    x = b.conv(b.input(TensorType((96, 96, 3), UINT8)), 64, (3, 3), stored=INT8, output=float_type(), **PADDING)
    window = {"window_h": 3, "window_w": 3, "stride_h": 1, "stride_w": 1, **NO_PADDING}
    write(to_program(b.graph("wide", b.add("magnitude_map", x, **window))), tmp_path / "model.edge")
    found = program_cost(read(tmp_path / "model.edge"), isa.detect(), threads=2).footprint
    assert found.thread_bytes > found.scratch_bytes > 0
    check(tmp_path / "model.edge", 2)


def test_a_file_that_is_mapped_stays_in_the_file() -> None:
    path = STORED["digits"]
    found = loaded(path, 1, "mmap")
    files = {name: size for name, size in zip(found["files"], found["sizes"], strict=True) if name}
    assert files == {os.path.realpath(path): -(-os.stat(path).st_size // PAGE_BYTES) * PAGE_BYTES}


# -- buffers -------------------------------------------------------------------------------------------------------------------


@settings(max_examples=15)  # each reads the list of mappings, which is long where TensorFlow is loaded
@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=12))
def test_small_buffers_share_pages_and_large_ones_have_their_own(sizes: list[int]) -> None:
    pages = Pages()
    buffers = [pages.take(size) for size in sizes]
    for value, buffer in enumerate(buffers):
        assert buffer.ctypes.data % 64 == 0 and not buffer.any()
        buffer[:] = value + 1
    assert all((buffer == value + 1).all() for value, buffer in enumerate(buffers))
    assert pages.nbytes == sum(-(-size // 64) * 64 for size in sizes)
    assert sum(each.size_bytes for each in holding(buffers)) == pages.mapped_bytes


@settings(max_examples=15)
@given(st.integers(0, 100_000))
def test_a_buffer_is_one_mapping_of_whole_pages_between_fences(nbytes: int) -> None:
    buffer = aligned(nbytes)
    (found,) = holding([buffer])
    assert found.start == buffer.ctypes.data and found.size_bytes == found.end - found.start == mapped_bytes(nbytes)
    assert {each.access for each in mappings() if each.end == found.start or each.start == found.end} == {"---p"}


def test_memory_that_is_not_there_is_a_memory_error() -> None:
    for nbytes in (1 << 60, 1 << 63):
        with pytest.raises(MemoryError):
            aligned(nbytes)
