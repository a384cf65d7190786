"""Writes `data/golden-<version>.edge`, which every later version of edge must read, and what it computes: `python tests/make_golden.py`.

Run once for each version of the format; files that exist are kept.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sample_programs import (
    BITS,
    CONV,
    FLOAT32,
    INT8,
    NO_PADDING,
    PADDING,
    POOL,
    UINT8,
    Builder,
    bits_type,
    float_type,
    inputs_of,
    int8_type,
)

from edge.format import MAJOR, MINOR, write
from edge.graph import Graph
from edge.kernels.reference import run_program
from edge.lower import to_program
from edge.ops import NO_ACTIVATION
from edge.tensors import Encoding, TensorType

DATA = Path(__file__).parent / "data"


def golden_graph() -> Graph:
    """Every encoding of tensors and constants, one operation with each kind of attribute, two outputs."""
    b = Builder(2026)
    picture = b.input(TensorType((6, 5, 3), UINT8))
    packed = b.conv(picture, 8, (3, 3), stored=INT8, output=bits_type(), **PADDING)
    packed = b.add("max_pool2d", packed, constants={"flip": b.values(BITS, (8,))}, **POOL)
    packed = b.conv(packed, 9, (2, 2), stored=BITS, output=bits_type(), pad_bottom=1)
    x = b.conv(packed, 4, (1, 1), stored=BITS, output=float_type())
    constants = {"filter": b.values(BITS, (4, 3, 3, 9)), "sign_add": b.vector(4)}
    constants |= {role: b.vector(4) for role in ("scale", "slope", "mul", "add")}
    x = b.add("residual_conv2d", packed, x, output=float_type(), constants=constants, signs="signs", **CONV | PADDING, relu_after=0)
    x = b.add("prelu", b.add("add", x, b.add("unpack", "signs", output=float_type()), **NO_ACTIVATION), constants={"slope": b.vector(4)})
    x = b.add("pad2d", x, **NO_PADDING | {"pad_left": 1}, value=-1.5)
    eight = b.add("quantize", x, output=int8_type(0.02, -7))
    eight = b.depthwise(eight, 1, stored=INT8, output=int8_type(0.03, 5), **PADDING)
    eight = b.conv(eight, 5, (2, 3), stored=Encoding.INT4, output=int8_type(0.05, 1), **PADDING)
    eight = b.conv(eight, 9, (1, 2), stored=Encoding.INT2, output=int8_type(0.05, 1))
    x = b.add("layer_norm", x, constants={"mul": b.vector(4)}, epsilon=0.25)
    x = b.add("transpose", b.add("depth_to_space", x, block_h=2, block_w=1), axis_0=1, axis_1=0, axis_2=2)
    x = b.add("slice", x, start_h=1, start_w=0, start_c=0, size_h=1, size_w=2, size_c=2, step_h=1, step_w=2)
    x = b.add("resize_bilinear", b.add("subtract", x, b.add("resize_nearest", x, size_h=1, size_w=1)), size_h=3, size_w=5)
    x = b.add("activation", x, **{**NO_ACTIVATION, "activation": 6})
    x = b.dense(b.dense(x, 7, stored=Encoding.INT4, output=float_type()), 3, stored=Encoding.INT2, output=float_type())
    x = b.dense(b.conv(x, 3, (1, 1), stored=Encoding.FLOAT16, output=float_type()), 4, stored=Encoding.FLOAT16, output=float_type())
    first = b.dense(x, 5, stored=FLOAT32, output=float_type(), **{**NO_ACTIVATION, "activation": 2, "alpha": 0.125})
    return b.graph("golden", first, b.add("dequantize", eight, output=float_type()))


def main() -> None:
    path = DATA / f"golden-{MAJOR}.{MINOR}.edge"
    if path.exists():
        raise SystemExit(f"{path} exists; golden files are never changed")
    program = to_program(golden_graph(), {"labels": ["zero", "\u00fcber"], "source": {"sha256": "0" * 64}})
    inputs = inputs_of(program)
    values = run_program(program, inputs)
    outputs = [values[number].astype(np.float64).tolist() for number in program.outputs]
    DATA.mkdir(exist_ok=True)
    write(program, path)
    path.with_suffix(".json").write_text(json.dumps({"inputs": [x.tolist() for x in inputs], "outputs": outputs}))


if __name__ == "__main__":
    main()
