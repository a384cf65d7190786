"""Damaged Keras files, and the process that tries them: a library in C reads them, and might crash or hang.

    python tests/keras_mutants.py FILE KIND FIRST LAST

prints the number of the mutant before it is tried, and at the end "refused N, read M". Kinds: `bytes` changes some bytes anywhere,
`structure` some near HDF5's own structures; in a `.keras` archive both happen to the weights inside, with the checksum repaired.
"""

from __future__ import annotations

import io
import random
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from edge.converters.keras_file import read_keras
from edge.errors import EdgeError

_STRUCTURES = re.compile(rb"TREE|SNOD|HEAP|GCOL|\x89HDF")
_ZIP = b"PK"


def mutate(data: bytes, kind: str, seed: int) -> bytes:
    """`data` with 1 to 16 bytes changed."""
    rng = random.Random(seed)
    if data.startswith(_ZIP) and kind == "structure":
        return _repacked(data, rng)
    changed = bytearray(data)
    places = [match.start() for match in _STRUCTURES.finditer(data)] if kind == "structure" else []
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place = rng.choice(places) + rng.randrange(-80, 160) if places else rng.randrange(len(data))
        place = min(max(place, 0), len(data) - 1)
        changed[place] = rng.choice((0, 1, 128, 255, changed[place] ^ (1 << rng.randrange(8)), rng.randrange(256)))
    return bytes(changed)


def _repacked(data: bytes, rng: random.Random) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(written, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            copy.writestr(name, mutate(content, "structure", rng.randrange(1 << 30)) if name.endswith(".h5") else content)
    return written.getvalue()


def main(path: str, kind: str, first: str, last: str) -> None:
    """Try the mutants FIRST..LAST of the file at `path`."""
    data = Path(path).read_bytes()
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        mutant = Path(folder) / "mutant"
        for seed in range(int(first), int(last)):
            print(seed, flush=True)
            mutant.write_bytes(mutate(data, kind, seed))
            try:
                read_keras(mutant)
            except EdgeError:
                refused += 1
    print(f"refused {refused}, read {int(last) - int(first) - refused}")


if __name__ == "__main__":
    main(*sys.argv[1:])
