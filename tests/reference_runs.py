"""One operation alone, as `edge.kernels.reference` computes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge.graph import constant_type
from edge.kernels import reference
from edge.kernels.reference import evaluate
from edge.op_check import check, infer
from edge.ops import OPS, OpCall
from edge.tensors import TensorType


def apply(
    op: str,
    *inputs: np.ndarray,
    types: tuple[TensorType, ...] = (),
    output: TensorType | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    **attrs: float,
) -> np.ndarray:
    """The output of one operation; types of float32 and of the output are filled in."""
    constants = constants or {}
    kinds = types or tuple(TensorType(x.shape) for x in inputs)
    call = OpCall(kinds, {role: constant_type(array) for role, array in constants.items()}, attrs)
    output = output or TensorType((1,))
    result = TensorType(infer(OPS[op], call), output.encoding, output.scale, output.zero_point)
    check(OPS[op], call, result)
    value = evaluate(op, call, result, inputs, constants)
    assert value.shape == result.shape and value.dtype == reference.DTYPES[result.encoding]
    return value
