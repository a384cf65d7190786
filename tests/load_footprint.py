"""Load a `.edge` file; print, as JSON, its footprint and what the kernel says of the process: `load_footprint.py FILE THREADS [mmap]`."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
from smaps import holding, mappings

from edge.engine import Engine, load


def owned(engine: Engine) -> list[np.ndarray]:
    """The arrays of an engine that hold its bytes, those of no bytes left out."""
    pool = [engine._pool._owned] if engine._pool is not None else []
    scratch = [engine._scratch] if engine._scratch.nbytes else []
    derived = list(engine._derived._kept.values())
    return [engine._constants, engine._arena, engine._arguments, *derived, *scratch, *pool]


def main(path: str, threads: int, mmap: bool) -> None:
    before = {(each.start, each.end) for each in mappings()}
    engine = load(path, threads=threads, mmap=mmap)
    found = holding(owned(engine))
    entry = {
        "footprint": dataclasses.asdict(engine.footprint),
        "sizes": [each.size_bytes for each in found],
        "lengths": [each.end - each.start for each in found],
        "access": [each.access for each in found],
        "files": [each.file for each in found],
        "new": all((each.start, each.end) not in before for each in found),
    }
    kind = engine.program.tensors[engine.program.inputs[0]].type
    example = np.zeros(kind.shape, np.uint8)
    engine.run(example)
    if engine._pool is not None:
        engine._pool.infer_shared()
    entry["after"] = [each.size_bytes for each in holding(owned(engine))]
    print(json.dumps(entry))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "mmap" in sys.argv[3:])
