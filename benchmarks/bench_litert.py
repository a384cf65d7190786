"""The peer: a `.tflite` file in LiteRT, with XNNPACK, of which `invoke()` alone is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class LiteRt:
    """A `.tflite` file of one input and one output, for one example at a time, on `threads` threads."""

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._input,), (self._output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.invoke: Callable[[], None] = self._interpreter.invoke

    @property
    def delegated(self) -> bool:
        """Whether a delegate, XNNPACK, runs the layers: where it takes an operator, the list of operators ends in the delegate's."""
        return any(details["op_name"] == "DELEGATE" for details in self._interpreter._get_ops_details())

    def put(self, example: Any) -> None:
        """Store an example, real values without the batch axis, in the input tensor, quantized where that is."""
        dtype, (scale, zero_point) = np.dtype(self._input["dtype"]), self._input["quantization"]
        if dtype.kind != "f" and scale:
            bounds = np.iinfo(dtype)
            example = np.clip(np.rint(np.asarray(example) / scale) + zero_point, bounds.min, bounds.max)
        self._interpreter.set_tensor(self._input["index"], np.asarray(example)[np.newaxis].astype(dtype))

    def stored_output(self) -> Any:
        """The output as its tensor holds it, without the batch axis; the largest value of it is the class."""
        return self._interpreter.get_tensor(self._output["index"])[0]

    def classify(self, examples: Any) -> Any:
        """The class of each example."""
        classes = np.empty(len(examples), np.int64)
        for i, example in enumerate(examples):
            self.put(example)
            self.invoke()
            classes[i] = self.stored_output().argmax()
        return classes
