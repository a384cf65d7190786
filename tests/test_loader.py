"""Object files in memory: in any address space, and what no kernel has is refused."""

from __future__ import annotations

import platform
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import cases, code_of
from strategies import signatures

from edge.kernels import cache, loader
from edge.kernels.elf import sections
from edge.kernels.isa import detect

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="other processors' objects are loaded by LLVM"
)
EXAMPLE = Path(__file__).parent.parent / "edge" / "data" / "digits.edge"

# Every gap of the address space is filled, then 6 GiB lie between what is left of holes of one page and anything larger.
HOLES = """
import ctypes, mmap, sys
import numpy as np
import edge
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
NO_RESERVE = 0x4000
take = lambda nbytes: libc.mmap(None, nbytes, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE, -1, 0)
page = mmap.PAGESIZE
pairs = [take(2 * page) for _ in range(20000)]
large = take(6 << 30)
while take(4 * page) > large:
    pass
for pair in pairs[-4000::2]:
    libc.munmap(pair, page)
engine = edge.load(sys.argv[1])
print(*engine.run(np.zeros(engine.inputs[0].shape, np.uint8)).tobytes())
"""


def an_object() -> bytes:
    machine = detect()
    code = code_of(next(iter(cases("softmax", signatures("softmax")[0], 1))), machine)
    return cache.objects([code], machine)[code.name]


def test_kernels_run_where_the_address_space_has_holes() -> None:
    import edge

    engine = edge.load(EXAMPLE)
    done = subprocess.run([sys.executable, "-c", HOLES, str(EXAMPLE)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    expected = engine.run(np.zeros(engine.inputs[0].shape, np.uint8))
    assert bytes(map(int, done.stdout.split())) == expected.tobytes()


def test_objects_of_other_processors_are_not_loaded() -> None:
    code = bytearray(an_object())
    assert loader.is_loadable(bytes(code))
    struct.pack_into("<H", code, 18, 183)  # aarch64
    assert not loader.is_loadable(bytes(code)) and not loader.is_loadable(b"")


def test_relocations_that_kernels_do_not_have_are_refused() -> None:
    code = bytearray(an_object())
    table = next(part for part in sections(bytes(code)) if part.kind == 4)
    struct.pack_into("<I", code, table.offset + 8, 19)  # R_X86_64_TLSGD
    with pytest.raises(ValueError, match="relocation of type 19"):
        loader.load(bytes(code))


def test_damaged_objects_are_refused() -> None:
    code = an_object()
    for damaged in (code[:0x3E], code[:-1000], b"\x7fELF" + bytes(60), code.replace(b"\x7fELF", b"\x7fELG")):
        with pytest.raises(ValueError):
            loader.load(damaged)
